//! What a mesh is made of, and what of it is news.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use lictor_config::{Config, Query, Upstream};
use lictor_core::gateway::maintenance::Orders;

use crate::memory::Remembered;
use crate::watch::Observed;

/// Everything that a mesh is made of.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) config: &'a Config,
    /// By query; absent until the first answer.
    pub(crate) observed: &'a HashMap<Query, Observed>,
    /// Of those, what Consul has not said to this process yet.
    pub(crate) remembered: &'a HashMap<Query, Remembered>,
    /// Host names and literal addresses, resolved.
    pub(crate) addresses: &'a HashMap<String, Vec<IpAddr>>,
    /// Services that the forward proxy was asked for.
    pub(crate) demanded: &'a [Arc<str>],
    /// What is ordered of the gateway's maintenance, once that is known.
    pub(crate) maintenance: Option<Arc<Orders>>,
    pub(crate) changed: Changed<'a>,
}

/// What is not as it was when the mesh before was made: the rest need not be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed<'a> {
    Answer(&'a Query),
    Anything,
}

impl Changed<'_> {
    pub(super) fn touches(self, upstream: &Upstream) -> bool {
        match self {
            Self::Answer(query) => upstream.queries().any(|of| of == query),
            Self::Anything => true,
        }
    }
}
