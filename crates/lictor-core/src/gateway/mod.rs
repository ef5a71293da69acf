//! Which of a gateway's routes a request is for, as data and pure functions: the path and the host are read once
//! ([`path`], [`host`]), a [`table`] finds the route by what was read, and a [`rewrite`] makes of it what goes on.
//!
//! What is matched is what goes on: nothing after this reads the request's target again.

pub mod asking;
pub mod auth;
pub mod basic;
pub mod claim;
pub mod client;
pub mod compress;
pub mod cors;
pub mod errors;
pub mod grpc;
pub mod grpc_web;
pub mod headers;
pub mod host;
pub mod keys;
#[cfg(any(fuzzing, test))]
pub mod laws;
pub mod location;
pub mod maintenance;
pub mod mirror;
pub mod password;
pub mod path;
pub mod pattern;
pub mod remembered;
pub mod rewrite;
pub mod rules;
pub mod security;
pub mod split;
pub mod table;
pub mod template;
pub mod transcode;
mod vary;
pub mod when;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::policy::FixedAnswer;

pub use auth::Auth;
pub use client::Proxies;
pub use host::HostPattern;
pub use mirror::Mirror;
pub use path::{Odd, ReadPath};
pub use pattern::PathPattern;
pub use rewrite::Rewrite;
pub use rules::Rules;
pub use split::Split;
pub use table::{Asked, Clash, Condition, Conditions, Matcher, Table, label};
pub use when::{Unchosen, When};

/// All routes, and what each does.
#[derive(Debug)]
pub struct Gateway {
    /// Which one a request is for.
    pub table: Table,
    /// By the table's indices: in the configuration's order.
    pub routes: Vec<Route>,
    /// What holds where no route matches.
    pub rules: Arc<Rules>,
    /// Fields that no client may set: those that any route sets for those behind us.
    pub managed: Vec<HeaderName>,
    /// Whom it believes who a client is.
    pub proxies: Proxies,
    /// Where clients without TLS are sent, if they are.
    pub https_port: u16,
    /// What any of them allows.
    pub odd: Odd,
}

/// What becomes of the requests that a route matches.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its host, if it has one, and its path as written, or those of the space in which it is claimed: the metric label.
    pub label: Arc<str>,
    /// What is asked of its requests, and done to their answers.
    pub rules: Arc<Rules>,
    /// Escapes that its paths may have.
    pub odd: Odd,
    /// What is done.
    pub action: Action,
    /// The service that claims it by a tag in Consul; `None`: the configuration says it.
    pub claimed_by: Option<Arc<str>>,
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes on.
    Send(Send),
    /// Its client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered by the gateway itself.
    Answer(FixedAnswer),
}

/// How a request goes on.
#[derive(Clone, Debug)]
pub struct Send {
    /// The upstream's name; of variants, the first's.
    pub upstream: Arc<str>,
    /// Where the route stands among the upstream's ([`crate::route::Routes::with_gateways`]).
    pub index: usize,
    /// Whether the policy there is the route's own; if not, the upstream's routes are asked.
    pub has_policy: bool,
    /// What its path becomes; `None`: it stays as it was read.
    pub rewrite: Option<Rewrite>,
    /// Which variant it goes to; `None`: there are none.
    pub split: Option<Arc<Split>>,
    /// Where copies go; `None`: there are none.
    pub mirror: Option<Arc<Mirror>>,
}

/// Where a client is sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `https://shop.example`; `None`: the same.
    pub origin: Option<HeaderValue>,
    /// What its path becomes; `None`: it stays as it was read.
    pub rewrite: Option<Rewrite>,
}
