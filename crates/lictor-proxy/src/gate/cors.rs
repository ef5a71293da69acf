//! Is it a preflight, which is answered here, or a page's wish for a WebSocket, of which browsers ask nobody?

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, StatusCode};
use lictor_core::gateway::Rules;
use lictor_core::gateway::cors::preflight_of;
use lictor_core::{Failure, Reason};

use super::Stop;
use crate::admission::routed::Told;

pub(super) fn check<B>(rules: &Rules, request: &Request<B>) -> Result<(), Stop> {
    let Some(cors) = &rules.cors else { return Ok(()) };
    if is_preflight(request) {
        return Err(Stop::Told(preflight()));
    }
    let is_upgrade = *request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
    if is_upgrade && cors.allows(request.headers()) == Some(false) {
        let failure =
            Failure::new(Reason::Forbidden, "a page of an origin that `cors` does not list asks for an upgrade");
        return Err(Stop::Refused(failure, "pages of this origin may not connect here"));
    }
    Ok(())
}

pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    preflight_of(request.method(), request.headers()).is_some()
}

/// Its fields come with those of every answer.
pub(super) fn preflight() -> Told {
    Told { status: StatusCode::NO_CONTENT, field: None, body: Bytes::new() }
}
