//! What lictor says when there is no answer to pass on: a status, one readable reason, and the attempts.

use std::fmt::Write;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use lictor_core::policy::FixedAnswer;
use lictor_core::{Failure, Reason};
use lictor_http::Refused;
use serde::Serialize;

use super::ending::ResponseBody;
use crate::admission::cache::{Given, How};
use crate::admission::routed::Told;
use crate::books::record::Record;
use crate::books::refused;
use crate::head::forwards;
use crate::names::{
    CACHE_STATUS, GRPC_MESSAGE, GRPC_STATUS, PROXY_STATUS, SERVER_TIMING, X_LICTOR_ATTEMPTS, X_LICTOR_FALLBACK,
    X_LICTOR_NO_RETRY, X_LICTOR_REASON, X_LICTOR_UPSTREAM, X_REQUEST_ID,
};
use crate::stores::outcome::Outcome;
use crate::stores::request_id::RequestId;

/// A failure as it was told: a gateway may tell it in another shape.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) reason: Reason,
    pub(crate) sentence: String,
    pub(crate) request_id: RequestId,
}

/// Answers with a failure, and closes the books.
pub(crate) fn failure(record: Box<Record>, failure: &Failure, is_budget_spent: bool) -> Response<ResponseBody> {
    // Who is behind a gateway, and where, is nobody's business in front of it.
    let is_of_inside = record.connection.is_edge() && !matches!(failure.reason, Reason::BadRequest | Reason::NoRoute);
    let says = is_of_inside.then(|| outsiders(failure.reason));
    failed(record, failure, says, is_budget_spent)
}

/// Refuses a request at a gateway: the client hears this sentence, and the books have the failure's.
pub(crate) fn refusal(record: Box<Record>, failure: &Failure, says: &'static str) -> Response<ResponseBody> {
    failed(record, failure, Some(says), false)
}

fn failed(
    mut record: Box<Record>,
    failure: &Failure,
    says: Option<&'static str>,
    is_budget_spent: bool,
) -> Response<ResponseBody> {
    let full = sentence(&record, failure);
    record.reason = Some(failure.reason);
    let sentence = says.map_or_else(|| full.clone(), str::to_owned);
    if record.is_grpc {
        record.grpc_status = Some(u16::from(failure.reason.grpc_status()));
    }
    // Whose call was made of JSON hears of it in HTTP's terms.
    let is_grpc = record.is_grpc && record.rpc.is_none();
    let status = if is_grpc { StatusCode::OK } else { failure.reason.status() };
    let mut response = if is_grpc { grpc(failure.reason, &sentence) } else { json(&record, failure.reason, &sentence) };
    if record.connection.is_edge() && !is_grpc {
        let said = Said { reason: failure.reason, sentence, request_id: record.request_id.clone() };
        response.extensions_mut().insert(said);
    }
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(&record, failure.reason));
    headers.insert(X_LICTOR_REASON, HeaderValue::from_static(failure.reason.as_str()));
    headers.insert(X_REQUEST_ID, record.request_id.to_value());
    insert(headers, &X_LICTOR_ATTEMPTS, record.attempts_summary());
    if is_budget_spent {
        headers.insert(X_LICTOR_NO_RETRY, HeaderValue::from_static("retry-budget"));
    }
    if let Some(wait) = failure.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64));
    }
    let now = Instant::now();
    headers.insert(DATE, record.worker.date.now(now));
    record.detail = Some(full);
    record.answered(status, now);
    debug(&record, response.headers_mut());
    record.shows(response.headers());
    record.close(now);
    response
}

/// What is said to a request whose head could not be read.
pub(crate) fn refuse(refused: &Refused, request_id: &RequestId, date: HeaderValue) -> Response<Bytes> {
    let reason = refused::reason(refused.status);
    let mut response = Response::new(problem(refused.why, reason, request_id));
    let said = Said { reason, sentence: refused.why.to_owned(), request_id: request_id.clone() };
    response.extensions_mut().insert(said);
    *response.status_mut() = refused.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(DATE, date);
    insert(headers, &PROXY_STATUS, format!("lictor; error={}", reason.proxy_status()));
    headers.insert(X_LICTOR_REASON, HeaderValue::from_static(reason.as_str()));
    headers.insert(X_REQUEST_ID, request_id.to_value());
    response
}

/// Answers with what was kept, and closes the books.
pub(super) fn kept(mut record: Box<Record>, given: Given) -> Response<ResponseBody> {
    let Given { kept, how, is_head, is_known, status } = given;
    let now = Instant::now();
    let age = kept.head.age(now);
    let (code, mut head) = if is_known {
        (StatusCode::NOT_MODIFIED, kept.head.not_modified())
    } else {
        (kept.head.status, kept.head.headers.clone())
    };
    if is_head && !is_known && code != StatusCode::NO_CONTENT {
        head.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(kept.body.len()));
    }
    via(&record, Version::HTTP_11, &mut head);
    head.insert(AGE, HeaderValue::from(age));
    head.insert(X_REQUEST_ID, record.request_id.to_value());
    if let Ok(status) = HeaderValue::try_from(status) {
        head.append(CACHE_STATUS, status);
    }
    if how == How::Stale {
        insert(&mut head, &X_LICTOR_FALLBACK, format!("stale;age={age}"));
        record.fell_back("stale");
    }
    let has_body = !is_head && !is_known && !kept.body.is_empty();
    let body = if has_body { ResponseBody::whole(kept.body.clone()) } else { ResponseBody::empty() };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = head;
    record.cache = Some(how.as_str());
    record.link = kept.asked_by;
    record.bytes = if has_body { kept.body.len() as u64 } else { 0 };
    record.answered(code, now);
    debug(&record, response.headers_mut());
    record.shows(response.headers());
    record.close(now);
    response
}

/// Says that an answer has come by us, in this version: a proxy does in both directions, and a gateway need not (RFC 9110,
/// section 7.6.3).
pub(super) fn via(record: &Record, version: Version, headers: &mut HeaderMap) {
    if record.connection.is_forward() {
        headers.append(VIA, record.worker.hop.entry(version).clone());
    }
}

/// Answers as the configuration says, and closes the books.
pub(super) fn fixed(mut record: Box<Record>, answer: &FixedAnswer) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(answer.body.clone()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, answer.content_type.clone());
    headers.insert(X_LICTOR_FALLBACK, HeaderValue::from_static("static"));
    record.fell_back("static");
    record.bytes = answer.body.len() as u64;
    own(record, response)
}

/// Answers a TRACE or OPTIONS that may not be passed on, and closes the books (RFC 9110, section 7.6.2).
pub(super) fn last<B>(mut record: Box<Record>, request: &Request<B>) -> Response<ResponseBody> {
    if *request.method() != Method::TRACE {
        return own(record, Response::new(ResponseBody::empty()));
    }
    let body = forwards::reflected(request);
    record.bytes = body.len() as u64;
    let mut response = Response::new(ResponseBody::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    own(record, response)
}

/// Closes the books with an answer of our own.
fn own(mut record: Box<Record>, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let now = Instant::now();
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, record.request_id.to_value());
    headers.insert(DATE, record.worker.date.now(now));
    record.answered(response.status(), now);
    debug(&record, response.headers_mut());
    record.shows(response.headers());
    record.close(now);
    response
}

/// Answers as a gateway's route says, and closes the books.
pub(crate) fn told(mut record: Box<Record>, told: Told) -> Response<ResponseBody> {
    let Told { status, field, body } = told;
    // The length that GET's answer has, and no body (RFC 9110, section 9.3.2).
    let content = if record.is_head() { Bytes::new() } else { body.clone() };
    record.bytes = content.len() as u64;
    let mut response = Response::new(ResponseBody::whole(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some((name, value)) = field {
        headers.insert(name, value);
    }
    if record.is_head() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    own(record, response)
}

/// Tells that another upstream has answered.
pub(super) fn stands_in(record: &mut Record, headers: &mut HeaderMap) {
    if record.instead_of.is_some()
        && let Some(upstream) = &record.upstream
    {
        insert(headers, &X_LICTOR_FALLBACK, format!("upstream;name={}", upstream.upstream.name));
        record.fell_back("upstream");
    }
}

/// Tells how an answer came about, to those who may ask (`X-Lictor-Debug`).
pub(super) fn debug(record: &Record, headers: &mut HeaderMap) {
    if !record.is_debug {
        return;
    }
    let attempts = record.attempts.borrow();
    let id = attempts.last().map_or("-", |attempt| attempt.endpoint.endpoint.key.id.as_ref());
    let name = record.upstream.as_ref().map_or("-", |upstream| upstream.upstream.name.as_ref());
    insert(headers, &X_LICTOR_UPSTREAM, format!("{name}/{id}"));
    insert(headers, &X_LICTOR_ATTEMPTS, record.attempts_summary());
    insert(headers, &X_REQUEST_ID, record.request_id.as_str().to_owned());
    if let Ok(timing) = HeaderValue::try_from(record.server_timing()) {
        headers.append(SERVER_TIMING, timing);
    }
}

/// `user-service: 3 attempts failed; last: connection refused by 10.0.3.9:8001`
fn sentence(record: &Record, failure: &Failure) -> String {
    let Some(upstream) = &record.upstream else { return failure.detail.clone() };
    let name = &upstream.upstream.name;
    match record.attempts.borrow().len() {
        0 | 1 => format!("{name}: {}", failure.detail),
        attempts => format!("{name}: {attempts} attempts failed; last: {}", failure.detail),
    }
}

/// What those hear who are nobody of ours.
fn outsiders(reason: Reason) -> &'static str {
    match reason.status() {
        StatusCode::GATEWAY_TIMEOUT => "the service did not answer in time",
        StatusCode::SERVICE_UNAVAILABLE => "the service is not available at the moment",
        StatusCode::BAD_GATEWAY => "the service could not be reached, or broke off",
        StatusCode::MISDIRECTED_REQUEST => "this connection is too old: connect again",
        StatusCode::PAYLOAD_TOO_LARGE => "the request's body is longer than is taken here",
        _ => "the request was refused",
    }
}

fn json(record: &Record, reason: Reason, sentence: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(problem(sentence, reason, &record.request_id)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn problem(message: &str, reason: Reason, request_id: &RequestId) -> Bytes {
    let text = serde_json::to_vec(&Problem {
        status: "error",
        message,
        reason: reason.as_str(),
        request_id: request_id.as_str(),
        timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
    });
    Bytes::from(text.expect("strings serialise"))
}

/// Trailers-only (gRPC over HTTP/2, "Responses").
fn grpc(reason: Reason, sentence: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(reason.grpc_status())));
    insert(headers, &GRPC_MESSAGE, percent_encode(sentence));
    response
}

/// RFC 9209: `lictor; error=connection_refused; next-hop="10.0.3.9:8001"; details="3 attempts"`
fn proxy_status(record: &Record, reason: Reason) -> HeaderValue {
    let mut value = format!("lictor; error={}", reason.proxy_status());
    let attempts = record.attempts.borrow();
    if let Some(last) = attempts.last().filter(|_| !record.connection.is_edge()) {
        let attempts = attempts.len();
        let plural = if attempts == 1 { "" } else { "s" };
        let _ =
            write!(value, "; next-hop=\"{}\"; details=\"{attempts} attempt{plural}\"", last.endpoint.endpoint.address);
        if let Outcome::Status(status) = last.outcome {
            let _ = write!(value, "; received-status={status}");
        }
    }
    HeaderValue::try_from(value).expect("tokens, numbers and addresses")
}

fn insert(headers: &mut HeaderMap, name: &HeaderName, value: String) {
    if !value.is_empty()
        && let Ok(value) = HeaderValue::try_from(value)
    {
        headers.insert(name.clone(), value);
    }
}

/// `grpc-message` is percent-encoded: everything but printable ASCII, and `%` itself.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x20..=0x7e) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[derive(Serialize)]
struct Problem<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    request_id: &'a str,
    timestamp: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_percent_encoded() {
        assert_eq!(percent_encode("50 % of é"), "50 %25 of %C3%A9");
    }
}
