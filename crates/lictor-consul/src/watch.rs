//! What is watched: services, their tags, a KV key, and the addresses of host names. `guard` says when an answer is believed.

mod catalog;
mod guard;
mod known;
mod kv;
mod orders;
mod resolve;
mod service;

pub(crate) use catalog::Catalog;
pub(crate) use guard::{Guard, Id, Observed};
pub(crate) use known::{Asked, KnownWatch};
pub(crate) use kv::{KvKey, report_to_kv};
pub(crate) use orders::OrdersKey;
pub(crate) use resolve::{Names, Resolved};
pub(crate) use service::{Hint, News, Refreshes, ServiceWatch};
