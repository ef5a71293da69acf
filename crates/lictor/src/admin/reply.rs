//! Answers of the admin listeners: JSON or text, never cached.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, SizeHint};
use lictor_core::plain;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::places::Answering;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn health_code(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) fn reply(status: StatusCode, page: &Json) -> Response<Body> {
    let mut response = text_reply("application/json", plain::lines(&format!("{page:#}\n")).into_owned());
    *response.status_mut() = status;
    response
}

/// What may hold JSON as somebody else wrote it, which stays as it is.
pub(super) fn ok(page: &impl Serialize) -> Response<Body> {
    let page = serde_json::to_string_pretty(page).expect("keys are text") + "\n";
    text_reply("application/json", plain::json(&page).into_owned())
}

/// The same in a line. White space that is no blank is between values: in texts it is escaped.
pub(super) fn line(page: &impl Serialize) -> String {
    serde_json::to_string(page).expect("keys are text").replace(['\n', '\r', '\t'], " ")
}

pub(super) fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    reply(status, &json!({ "status": "error", "message": message }))
}

pub(super) fn not_allowed(methods: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::try_from(methods).expect("methods are words"));
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

/// The same body; the request counts as one that is being answered until it is sent.
pub(super) fn until_sent(body: Body, answering: Answering) -> Body {
    Sending { body, _answering: answering }.boxed_unsync()
}

pub(super) fn of(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct Sending {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
