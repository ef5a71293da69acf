//! Answers of the admin listeners: JSON or text, never cached.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value as Json, json};

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn health_code(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) fn reply(status: StatusCode, page: &Json) -> Response<Body> {
    let mut response = text_reply("application/json", format!("{page:#}\n"));
    *response.status_mut() = status;
    response
}

pub(super) fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    reply(status, &json!({ "status": "error", "message": message }))
}

pub(super) fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn unauthorized(message: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::UNAUTHORIZED, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lictor\""));
    response
}

pub(super) fn text_reply(kind: &'static str, text: String) -> Response<Body> {
    of(kind, Full::new(Bytes::from(text)).boxed_unsync())
}

pub(super) fn of(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
