//! A CA looks whether a host is ours (RFC 8555, section 8.3): its question is answered before any route, and nothing is asked
//! of it. What is no question of its own goes by the routes.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use lictor_core::gateway::ReadPath;

use crate::admission::routed::{Found, Told};
use crate::stores::challenges::Challenges;

/// Where such questions are.
pub(super) const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to a question whose host and token are those of an order of ours.
pub(super) fn answer(known: &Challenges, method: &Method, host: &str, read: &ReadPath<'_>) -> Option<Found> {
    if !known.is_any() || *method != Method::GET {
        return None;
    }
    let body = known.answer(host, read.as_str().strip_prefix(CHALLENGES)?)?;
    let field = Some((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
    let told = Told { status: StatusCode::OK, field, body };
    Some(Found::ours("acme_challenge", told))
}
