//! Is it a preflight, which is answered here, or a page's wish for a WebSocket, of which browsers ask nobody?

use bytes::Bytes;
use http::header::{ORIGIN, UPGRADE};
use http::{Method, Request, StatusCode};
use lictor_core::gateway::cors::{Judged, preflight_of};
use lictor_core::{Failure, Reason};

use super::{Stop, Visit};
use crate::admission::routed::Told;
use crate::world::client::Connection;

/// What `cors` says of a page's request, which is counted; `None`: no page asks, or nobody has said whose pages may.
pub(super) fn judge<B>(visit: &Visit, connection: &Connection, request: &Request<B>) -> Option<Judged> {
    let is_listed = visit.origin.is_some();
    if visit.rules.cors.is_none() || !(is_listed || request.headers().contains_key(ORIGIN)) {
        return None;
    }
    let is_upgrade = !is_listed && (*request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE));
    let judged = Judged::of(visit.is_preflight, is_upgrade, is_listed);
    connection.worker.shared.metrics.page_asked(judged);
    Some(judged)
}

pub(super) fn check<B>(visit: &Visit, connection: &Connection, request: &Request<B>) -> Result<(), Stop> {
    match judge(visit, connection, request) {
        None | Some(Judged::Allowed | Judged::Unlisted) => Ok(()),
        Some(Judged::Preflight | Judged::PreflightUnlisted) => Err(Stop::Told(preflight())),
        Some(Judged::Refused) => {
            let failure =
                Failure::new(Reason::Forbidden, "a page of an origin that `cors` does not list asks for an upgrade");
            Err(Stop::Refused(failure, "pages of this origin may not connect here"))
        }
    }
}

pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    preflight_of(request.method(), request.headers()).is_some()
}

/// Its fields come with those of every answer.
pub(super) fn preflight() -> Told {
    Told { status: StatusCode::NO_CONTENT, field: None, body: Bytes::new() }
}
