//! Copies of a route's requests, to somebody whose answers nobody waits for.

use std::sync::Arc;

use crate::limits::Places;

/// Where copies go, and how many.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Where the route stands among the upstream's.
    pub index: usize,
    /// Of requests, 0 to 1. Default all.
    pub share: f64,
    /// The longest body that is copied, in bytes. Default 64 KiB.
    pub body_max: usize,
    /// Copies at a time, those whose body still comes among them. Default 100.
    pub max_running: u32,
    /// What shows who somebody is goes along. Default false.
    pub shows_credentials: bool,
    /// Of the whole process.
    pub running: Arc<Places>,
}
