//! What is watched: services, a KV key, and the addresses of host names. `guard` says when an answer is believed.

mod guard;
mod kv;
mod resolve;
mod service;

pub(crate) use guard::{Guard, Id, Observed};
pub(crate) use kv::{KvWatch, report_to_kv};
pub(crate) use resolve::{Names, Resolved};
pub(crate) use service::{Hint, News, Refreshes, ServiceWatch};
