//! A request's spans: one for the request, and for calls of our application one for each attempt. Names and values follow
//! OpenTelemetry's semantic conventions for HTTP and RPC spans.
//!
//! A request to our application is a SERVER span. One from our application is an INTERNAL span, because the calls are
//! its attempts: CLIENT spans, each the parent of the callee's SERVER span. So whoever draws a graph of services from
//! pairs of CLIENT and SERVER sees each call once.

use std::time::{Duration, SystemTime};

use http::Method;
use lictor_core::{Address, redact};

use super::attempts::Attempt;
use super::record::Record;
use crate::stores::metrics::method_label;
use crate::stores::outcome::Outcome;
use crate::stores::span::{Span, SpanEvent, SpanKind, Value};

type Attributes = Vec<(&'static str, Value)>;

/// The spans of a request that is over: its own first.
pub(super) fn of(record: &Record, status: u16, took: Duration) -> Vec<Span> {
    let now = SystemTime::now();
    let start = now.checked_sub(took).unwrap_or(now);
    let mut spans = vec![whole(record, status, start, now)];
    if record.has_attempt_spans() {
        let attempts = record.attempts.borrow();
        // The answer that was passed on is the latest that there was; hedges that lost are only noted after it.
        let answering = attempts.iter().rposition(|attempt| matches!(attempt.outcome, Outcome::Status(_)));
        let spans_of = attempts.iter().enumerate().map(|(index, attempt)| {
            let is_answer = answering == Some(index) && record.cache.is_none();
            tried(record, attempt, start, is_answer.then_some(now))
        });
        spans.extend(spans_of);
    }
    spans
}

/// The request, with all its attempts.
fn whole(record: &Record, status: u16, start: SystemTime, end: SystemTime) -> Span {
    let mut attributes = request(record);
    attributes.push(("lictor.request_id", record.request_id.as_str().into()));
    attributes.push(("http.response.status_code", status.into()));
    let route = record.route_name().unwrap_or_default();
    if !route.is_empty() {
        attributes.push(("http.route", route.into()));
    }
    if record.is_inbound {
        attributes.push(("url.scheme", if record.connection.is_encrypted { "https" } else { "http" }.into()));
        attributes.push(("network.protocol.version", record.version().into()));
        if let Some(client) = record.connection.client {
            attributes.push(("client.address", client.to_string().as_str().into()));
        }
        if let Some(peer) = record.connection.peer.filter(|peer| Some(peer.ip()) == record.connection.client) {
            attributes.push(("client.port", peer.port().into()));
        }
    }
    if let Some(cache) = record.cache {
        attributes.push(("lictor.cache", cache.into()));
    }
    let is_rpc_error = rpc_status(record, &mut attributes, |code| matches!(code, 2 | 4 | 12 | 13 | 14 | 15));
    let code = status.to_string();
    let error = record.reason.map(lictor_core::Reason::as_str).or((status >= 500).then_some(code.as_str()));
    if let Some(error) = error {
        attributes.push(("error.type", error.into()));
    }
    Span {
        trace_id: record.trace.trace_id,
        span_id: record.trace.span_id,
        parent: record.trace.parent,
        trace_state: trace_state(record),
        is_parent_remote: true,
        kind: if record.is_inbound { SpanKind::Server } else { SpanKind::Internal },
        name: name(record, route),
        start,
        end,
        attributes,
        events: events(record, start, end),
        link: record.link,
        is_error: error.is_some() || is_rpc_error,
    }
}

/// One attempt. The one whose answer was passed on ends with that answer, the others with their heads or failures.
fn tried(record: &Record, attempt: &Attempt, start: SystemTime, end: Option<SystemTime>) -> Span {
    let mut attributes = request(record);
    let endpoint = &attempt.endpoint.endpoint;
    match &endpoint.address {
        Address::Tcp(peer) => attributes.extend([
            ("server.port", peer.port().into()),
            ("network.peer.address", peer.ip().to_string().as_str().into()),
            ("network.peer.port", peer.port().into()),
        ]),
        Address::Unix(path) => attributes.extend([
            ("network.transport", "unix".into()),
            ("network.peer.address", path.to_string_lossy().as_ref().into()),
        ]),
    }
    if let Some(upstream) = &record.upstream {
        // Without the query, which may hold secrets.
        let scheme = if upstream.upstream.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", upstream.upstream.service, redact::path(record.uri.path()));
        attributes.push(("url.full", url.as_str().into()));
    }
    attributes.push(("network.protocol.version", if attempt.is_http2 { "2" } else { "1.1" }.into()));
    if attempt.number > 1 {
        attributes.push(("http.request.resend_count", Value::Int(attempt.number as i64 - 1)));
    }
    if let Outcome::Status(status) = attempt.outcome {
        attributes.push(("http.response.status_code", status.into()));
    }
    let is_rpc_error = end.is_some() && rpc_status(record, &mut attributes, |code| code != 0);
    // An answer that broke off is not what its status says.
    let broken = record.reason.filter(|_| end.is_some()).map(|reason| reason.as_str().to_owned());
    let error = broken.or_else(|| match attempt.outcome {
        Outcome::Status(status) => (status >= 400).then(|| status.to_string()),
        Outcome::Connected => None,
        Outcome::Abandoned | Outcome::Failed(_) => Some(word(attempt.outcome)),
    });
    if let Some(error) = &error {
        attributes.push(("error.type", error.as_str().into()));
    }
    let began = start + attempt.began.saturating_duration_since(record.arrival());
    Span {
        trace_id: record.trace.trace_id,
        span_id: record.trace.attempt_span(attempt.number),
        parent: Some(record.trace.span_id),
        trace_state: trace_state(record),
        is_parent_remote: false,
        kind: SpanKind::Client,
        name: name(record, ""),
        start: began,
        end: end.unwrap_or(began + attempt.took),
        attributes,
        events: Vec::new(),
        link: None,
        is_error: error.is_some() || is_rpc_error,
    }
}

fn trace_state(record: &Record) -> String {
    record.trace_state.as_deref().unwrap_or_default().to_owned()
}

/// `package.Service/Method`, or the method and what little of the path is known beforehand.
fn name(record: &Record, route: &str) -> String {
    match rpc(record) {
        Some((service, method)) => format!("{service}/{method}"),
        None => format!("{} {route}", span_method(&record.method)).trim_end().to_owned(),
    }
}

fn request(record: &Record) -> Attributes {
    let label = method_label(&record.method);
    let mut attributes =
        vec![("http.request.method", label.into()), ("url.path", redact::path(record.uri.path()).as_ref().into())];
    if label == "_OTHER" {
        attributes.push(("http.request.method_original", record.method.as_str().into()));
    }
    if let Some(upstream) = &record.upstream {
        attributes.push(("server.address", upstream.upstream.service.as_ref().into()));
    }
    if let Some((service, method)) = rpc(record) {
        attributes.extend([
            ("rpc.system", "grpc".into()),
            ("rpc.service", service.into()),
            ("rpc.method", method.into()),
        ]);
    }
    attributes
}

fn rpc(record: &Record) -> Option<(&str, &str)> {
    record.path().strip_prefix('/')?.rsplit_once('/').filter(|_| record.is_grpc)
}

/// Notes how a gRPC call ended, and whether that is an error to this side of it.
fn rpc_status(record: &Record, attributes: &mut Attributes, is_error: impl Fn(u16) -> bool) -> bool {
    let Some(code) = record.grpc_status else { return false };
    attributes.push(("rpc.grpc.status_code", code.into()));
    if record.reason.is_none() && is_error(code) {
        attributes.push(("error.type", code.to_string().as_str().into()));
    }
    is_error(code)
}

/// What happened besides the attempts themselves.
fn events(record: &Record, start: SystemTime, end: SystemTime) -> Vec<SpanEvent> {
    let attempts = record.attempts.borrow();
    let mut events = Vec::new();
    for attempt in attempts.iter().filter(|attempt| attempt.number > 1) {
        let before = attempts.iter().find(|before| before.number + 1 == attempt.number);
        // A hedge is sent while the one before is still waited for.
        let is_retry = before.is_none_or(|before| before.began + before.took <= attempt.began);
        events.push(SpanEvent {
            name: if is_retry { "retry" } else { "hedge" },
            at: start + attempt.began.saturating_duration_since(record.arrival()),
            attributes: vec![
                ("http.request.resend_count", Value::Int(attempt.number as i64 - 1)),
                ("lictor.before", Value::Text(before.map_or_else(String::new, |before| word(before.outcome)))),
            ],
        });
    }
    let mut at_end = |name, attribute, value: &str| {
        events.push(SpanEvent { name, at: end, attributes: vec![(attribute, value.into())] });
    };
    if let Some(why) = record.retry_denied.get() {
        at_end("retry_denied", "lictor.why", why);
    }
    if let Some(reason) = record.reason.filter(|reason| *reason == lictor_core::Reason::BreakerOpen) {
        at_end("breaker", "lictor.breaker", reason.as_str());
    }
    if let Some(state) = record.breaker.get() {
        at_end("breaker", "lictor.breaker", state.as_str());
    }
    events
}

fn word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Connected => "connected".to_owned(),
        Outcome::Abandoned => "abandoned".to_owned(),
        Outcome::Failed(reason) => reason.as_str().to_owned(),
    }
}

/// A span's name has `HTTP` in place of a method that is not known.
fn span_method(method: &Method) -> &str {
    match method_label(method) {
        "_OTHER" => "HTTP",
        label => label,
    }
}
