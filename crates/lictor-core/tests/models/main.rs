//! Policy against naive models: each decision is made a second time in the plainest way that is right, on random
//! events and times.

mod balance;
mod breaker;
mod budget;
mod latency;
mod limit;
mod retry;
mod shares;
