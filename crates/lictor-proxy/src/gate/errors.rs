//! Failures in the shape that the configuration wants.

use std::time::SystemTime;

use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response};
use lictor_core::gateway::errors::{Shape, Told};

use crate::calls::respond::Said;

/// Tells it in this shape, if it is a failure of ours: `whole` makes a body of bytes.
pub(super) fn shape<B>(
    shape: &Shape,
    route: Option<&str>,
    response: &mut Response<B>,
    whole: impl FnOnce(bytes::Bytes) -> B,
) {
    let Some(said) = response.extensions_mut().remove::<Said>() else { return };
    let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let headers = response.headers();
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let told = Told {
        status: response.status(),
        reason: said.reason.as_str(),
        message: &said.sentence,
        is_wrong: is_wrong(headers),
        request_id: said.request_id.as_str(),
        timestamp: &timestamp,
        retry_after,
        route,
    };
    let (kind, body) = shape.write(&told);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.body_mut() = whole(body);
}

/// Whether a challenge says that what was shown is wrong, and not that nothing was (RFC 6750, section 3.1).
fn is_wrong(headers: &HeaderMap) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().windows(6).any(|part| part == b"error=");
    headers.get_all(WWW_AUTHENTICATE).iter().any(says)
}
