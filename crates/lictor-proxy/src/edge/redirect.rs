//! Clients that come without TLS are sent to the same URL with it.

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use lictor_core::gateway::ReadPath;
use lictor_core::mesh::ListenerKind;
use lictor_core::{Failure, Reason};

use super::challenge::CHALLENGES;
use crate::admission::routed::{Found, Told};
use crate::world::client::Connection;

/// Where a request on the listener for clients without TLS is sent; `None` for what the routes have to say, as of the questions
/// of whoever else orders certificates. Host and path
/// are those that were read, so that it leads to this host and nowhere else. What asks to be sent again as it is is told so
/// (308; RFC 9110, section 15.4.9), GET and HEAD in the way that every client knows (301).
pub(super) fn to_https(
    connection: &Connection,
    port: u16,
    method: &Method,
    host: &str,
    read: &ReadPath<'_>,
    query: Option<&str>,
) -> Result<Option<Found>, Failure> {
    if *connection.kind() != ListenerKind::Redirect || connection.is_encrypted || read.as_str().starts_with(CHALLENGES)
    {
        return Ok(None);
    }
    let status = match *method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("https://{host}{port}{}{query}", read.as_str()))
        .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))?;
    let told = Told { status, field: Some((LOCATION, location)), body: Bytes::new() };
    Ok(Some(Found::ours("redirect_http", told)))
}
