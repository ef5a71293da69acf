//! Whether a request goes out, to whom, and when. Nothing here sends anything; whoever refuses says why by a `Failure`.
//!
//! | in this order | file | refuses with |
//! |---|---|---|
//! | which of the gateway's routes it is for, if it came there | [`routed`] | `bad_request`, `no_route` |
//! | which of its route's variants it goes to, where there are several | [`split`] | |
//! | whom it is for; its endpoints may have to be waited for | [`target`] | `bad_request`, `forbidden`, `misdirected`, `no_endpoints`, `unknown_upstream` |
//! | stage: is it for us, and does its sender have the token | [`inbound`] | `misdirected`, `unauthenticated` |
//! | an answer that is kept, or on its way | [`cache`], [`collapse`] | `not_cached`; it may end with that answer |
//! | leave to send: the caller's deadline, the breaker, a place among the running | [`leave`], [`permit`] | `deadline_exceeded`, `breaker_open`, `overloaded` |

pub(crate) mod cache;
mod collapse;
pub(crate) mod inbound;
pub(crate) mod leave;
pub(crate) mod permit;
mod recovery;
pub(crate) mod routed;
pub(crate) mod split;
pub(crate) mod target;

use http::Request;
use lictor_core::Failure;
use lictor_core::policy::Policy;
use lictor_http::RequestBody;

use crate::world::client::Connection;
use crate::world::view::View;

/// A request, as a stage sees it: it is known whom it is for.
pub(crate) struct Asked<'a> {
    /// Who asks, and where it came in.
    pub(crate) client: &'a Connection,
    /// The mesh, as it is for this request to its end.
    pub(crate) view: &'a View,
    pub(crate) request: &'a Request<RequestBody>,
    /// Of its upstream, or of its route there.
    #[allow(dead_code, reason = "what a stage may go by; none of today's does")]
    pub(crate) policy: &'a Policy,
}

/// The stages. The first that objects ends the request; their order is part of what the product does.
pub(crate) fn check(asked: &Asked<'_>) -> Result<(), Failure> {
    inbound::check(asked)?;
    Ok(())
}
