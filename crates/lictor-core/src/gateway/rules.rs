//! What a gateway asks of the requests of a route, and does to its answers, beside where they go. A route's own are the
//! gateway's where it says nothing.

use std::sync::Arc;

use http::HeaderName;

use super::auth::Auth;
use crate::limit::Limit;

/// One field for each thing that may be asked; the default asks for nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Who may ask; `None`: anybody.
    pub auth: Option<Arc<Auth>>,
    /// How often somebody may ask.
    pub limits: Arc<[Limit]>,
    /// The longest head: its target, and each field's name and value with the four bytes between and behind them.
    pub head_max: usize,
}

/// What is read at all, over HTTP/1.1.
const HEAD_MAX: usize = 128 << 10;

impl Default for Rules {
    fn default() -> Self {
        Self { auth: None, limits: [].into(), head_max: HEAD_MAX }
    }
}

impl Rules {
    /// The fields that those behind us believe, because they are ours.
    pub fn managed(&self) -> impl Iterator<Item = &HeaderName> {
        self.auth.iter().flat_map(|auth| &auth.fields).map(|field| &field.name)
    }
}
