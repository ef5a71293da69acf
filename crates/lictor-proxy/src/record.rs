//! One request's books: opened with its head, closed exactly once, with the last byte of its answer or when the client
//! goes away. Closing writes the metrics, the log line and the span; nothing else does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use lictor_core::breaker::BreakerState;
use lictor_core::mesh::{AccessLog, ListenerKind};
use lictor_core::trace::TraceContext;
use lictor_core::{Failure, Mesh, Reason};
use serde::Serialize;
use smallvec::SmallVec;

use crate::headers::{Fields, X_REQUEST_ID};
use crate::metrics::{Outcome, Over};
use crate::serve::Connection;
use crate::span::{self, method_label};
use crate::worker::{EndpointState, UpstreamState, Worker};

/// The books.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) worker: Rc<Worker>,
    pub(crate) upstream: Option<Rc<UpstreamState>>,
    pub(crate) route: Option<usize>,
    /// What the request's head has.
    pub(crate) fields: Fields,
    pub(crate) trace: TraceContext,
    pub(crate) request_id: RequestId,
    pub(crate) reason: Option<Reason>,
    /// Hedged attempts write it at the same time.
    pub(crate) attempts: RefCell<SmallVec<[Attempt; 2]>>,
    /// `hit`, `coalesced` or `stale`, when it was not the upstream that answered.
    pub(crate) cache: Option<&'static str>,
    pub(crate) is_grpc: bool,
    /// From the trailers or the head of a gRPC answer.
    pub(crate) grpc_status: Option<u16>,
    pub(crate) bytes: u64,
    /// Why no further attempt followed.
    pub(crate) retry_denied: Cell<Option<&'static str>>,
    /// What became of the breaker with this request's end.
    pub(crate) breaker: Cell<Option<BreakerState>>,
    /// The trace and span of whoever had asked for the answer that was given again.
    pub(crate) link: Option<(u128, u64)>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) is_inbound: bool,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    is_http2: bool,
    user_agent: Option<HeaderValue>,
    arrival: Instant,
    status: Option<StatusCode>,
    access_log: AccessLog,
    /// Our application called without a trace while it served a request with one.
    is_orphan: bool,
    is_closed: bool,
}

/// The request's name.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// The client has given it one.
    Told(HeaderValue),
    /// A UUID of version 7 (RFC 9562, section 5.7).
    Ours([u8; 36]),
}

impl RequestId {
    fn new(worker: &Worker) -> Self {
        let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::Ours(lictor_core::trace::request_id(|| worker.random(), millis as u64))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Told(value) => value.as_bytes(),
            Self::Ours(text) => text,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn to_value(&self) -> HeaderValue {
        match self {
            Self::Told(value) => value.clone(),
            Self::Ours(text) => HeaderValue::from_bytes(text).expect("a UUID is a valid value"),
        }
    }
}

/// One try at one endpoint.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) endpoint: Rc<EndpointState>,
    /// Counts from 1, in the order in which they were sent.
    pub(crate) number: usize,
    pub(crate) outcome: Outcome,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) is_http2: bool,
}

impl Record {
    pub(crate) fn open<B>(
        connection: &Rc<Connection>,
        mesh: &Mesh,
        request: &Request<B>,
        fields: Fields,
        is_inbound: bool,
        arrival: Instant,
    ) -> Box<Self> {
        let worker = Rc::clone(&connection.worker);
        let headers = request.headers();
        let random = &mut || worker.random();
        let trace = if fields.has(Fields::TRACE) {
            TraceContext::extract(headers, &mesh.trace, random)
        } else {
            TraceContext::start(&mesh.trace, random)
        };
        let told = if fields.has(Fields::IDS) { headers.get(X_REQUEST_ID).cloned() } else { None };
        let request_id = told.map_or_else(|| RequestId::new(&worker), RequestId::Told);
        let (is_traced, traced_inbound) = (fields.has(Fields::TRACE), &worker.shared.traced_inbound);
        if is_inbound && is_traced {
            traced_inbound.fetch_add(1, Relaxed);
        }
        let is_plain = !is_inbound && !is_traced && *request.method() != Method::CONNECT;
        let is_orphan = is_plain && traced_inbound.load(Relaxed) > 0;
        let logs = worker.shared.access_log.is_some() && mesh.access_log != AccessLog::Off;
        Box::new(Self {
            upstream: None,
            route: None,
            fields,
            trace,
            request_id,
            reason: None,
            attempts: RefCell::default(),
            cache: None,
            is_grpc: false,
            grpc_status: None,
            bytes: 0,
            retry_denied: Cell::default(),
            breaker: Cell::default(),
            link: None,
            connection: Rc::clone(connection),
            is_inbound,
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_http2: request.version() == Version::HTTP_2,
            user_agent: if logs { headers.get(USER_AGENT).cloned() } else { None },
            arrival,
            status: None,
            access_log: mesh.access_log,
            is_orphan,
            is_closed: false,
            worker,
        })
    }

    /// When the request came.
    pub(crate) fn arrival(&self) -> Instant {
        self.arrival
    }

    /// Whether each attempt is a span of its own. To our own application there is hardly ever a second one.
    pub(crate) fn has_attempt_spans(&self) -> bool {
        self.trace.is_sampled && !self.is_inbound && self.worker.shared.spans.is_some()
    }

    /// As `network.protocol.version` has it.
    pub(crate) fn version(&self) -> &'static str {
        if self.is_http2 { "2" } else { "1.1" }
    }

    /// An attempt is over.
    pub(crate) fn attempted(&self, attempt: Attempt) {
        let mut attempts = self.attempts.borrow_mut();
        let outcome = attempt.outcome;
        attempts.push(attempt);
        if let Some(upstream) = &self.upstream {
            upstream.meters.attempt(&self.worker.shared.metrics, outcome, attempts.len() as u32);
        }
    }

    /// The status that the client sees is known.
    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        self.status = Some(status);
        if let Some(upstream) = &self.upstream {
            let attempts: Duration = self.attempts.borrow().iter().map(|attempt| attempt.took).sum();
            upstream.meters.overhead(now.saturating_duration_since(self.arrival).saturating_sub(attempts));
        }
    }

    /// The last byte is out.
    pub(crate) fn close(mut self: Box<Self>, now: Instant) {
        self.finish(now);
    }

    fn finish(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        if self.is_inbound && self.fields.has(Fields::TRACE) {
            self.worker.shared.traced_inbound.fetch_sub(1, Relaxed);
        }
        let took = now.saturating_duration_since(self.arrival);
        let status = self.status.unwrap_or_else(|| Reason::ClientGone.status()).as_u16();
        self.count(status, took);
        if self.is_logged(status)
            && let Some(log) = &self.worker.shared.access_log
            && let Ok(line) = serde_json::to_vec(&self.line(status, took))
            && log.try_send(line).is_err()
        {
            self.worker.shared.metrics.logs_dropped.inc();
        }
        if self.trace.is_sampled
            && let Some(spans) = &self.worker.shared.spans
        {
            let sent = span::of(self, status, took).into_iter().map(|span| spans.try_send(span));
            self.worker.shared.metrics.spans_dropped.inc_by(sent.filter(Result::is_err).count() as u64);
        }
    }

    fn count(&self, status: u16, took: Duration) {
        let metrics = &self.worker.shared.metrics;
        let Some(upstream) = &self.upstream else { return };
        let over = Over {
            is_inbound: self.is_inbound,
            method: method_label(&self.method),
            route: self.route_label(),
            status,
            reason: self.reason,
        };
        upstream.meters.request(metrics, &over, took);
        if self.trace.is_sampled {
            upstream.meters.example(self.trace.trace_id, self.trace.span_id, took);
        }
        if self.is_orphan {
            upstream.meters.orphan(metrics, self.route_label());
        }
        if self.is_grpc {
            let is_success = self.reason.is_none() && self.grpc_status == Some(0);
            let mut methods = upstream.meters.methods.borrow_mut();
            metrics.grpc(&upstream.upstream.name, self.uri.path(), is_success, took, &mut methods);
        }
        if self.is_inbound {
            metrics.served(&upstream.upstream.name, method_label(&self.method), status, took);
        }
    }

    pub(crate) fn route_label(&self) -> Option<(usize, &str)> {
        let index = self.route?;
        let route = self.upstream.as_ref()?.upstream.routes.iter().nth(index)?;
        Some((index, route.label.as_ref()))
    }

    fn is_logged(&self, status: u16) -> bool {
        let is_error = status >= 400 || self.reason.is_some();
        match self.access_log {
            AccessLog::All => true,
            AccessLog::Errors => is_error,
            AccessLog::Sampled(share) => is_error || self.worker.chance() < share,
            AccessLog::Off => false,
        }
    }

    fn line(&self, status: u16, took: Duration) -> Line<'_> {
        let is_error = status >= 400 || self.reason.is_some();
        let view_local = &self.connection.worker;
        Line {
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: if is_error { "ERROR" } else { "INFO" },
            target: "lictor::access",
            message: "request",
            direction: if self.is_inbound { "inbound" } else { "outbound" },
            service: view_local.from.as_ref().and_then(|from| from.to_str().ok()?.split('/').next()).unwrap_or(""),
            method: self.method.as_str(),
            path: self.uri.path(),
            status,
            duration: took.as_secs_f64(),
            bytes: self.bytes,
            upstream: self.upstream.as_ref().map(|upstream| upstream.upstream.name.as_ref()),
            route: self.route_label().map(|(_, label)| label),
            attempts: self.attempts_summary(),
            reason: self.reason.map(Reason::as_str),
            flag: self.reason.map(Reason::envoy_flag).filter(|flag| !flag.is_empty()),
            grpc_status: self.grpc_status,
            request_id: self.request_id.as_str(),
            trace_id: format!("{:032x}", self.trace.trace_id),
            span_id: format!("{:016x}", self.trace.span_id),
            ip: ip(self.connection.peer),
            cache: self.cache,
            user_agent: self.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
        }
    }

    /// `10.0.3.7:8001=503(12ms), 10.0.3.8:8001=reset_before_response(3ms)`
    pub(crate) fn attempts_summary(&self) -> String {
        let mut summary = String::new();
        for attempt in &*self.attempts.borrow() {
            use std::fmt::Write;
            let separator = if summary.is_empty() { "" } else { ", " };
            let address = &attempt.endpoint.endpoint.address;
            let millis = attempt.took.as_millis();
            let written = match attempt.outcome {
                Outcome::Status(status) => write!(summary, "{separator}{address}={status}({millis}ms)"),
                Outcome::Connected => write!(summary, "{separator}{address}=connected({millis}ms)"),
                Outcome::Abandoned => write!(summary, "{separator}{address}=abandoned({millis}ms)"),
                Outcome::Failed(reason) => write!(summary, "{separator}{address}={reason}({millis}ms)"),
            };
            written.expect("writing to a string cannot fail");
        }
        summary
    }
}

impl Drop for Record {
    /// Not closed: whoever held the books was dropped, because the client went away.
    fn drop(&mut self) {
        if !self.is_closed {
            self.reason.get_or_insert(Reason::ClientGone);
            self.finish(Instant::now());
        }
    }
}

/// One line of the access log.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'static str,
    message: &'static str,
    direction: &'static str,
    service: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    /// Seconds.
    duration: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    attempts: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    request_id: &'a str,
    trace_id: String,
    span_id: String,
    /// `unix` for a client on a Unix socket.
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

fn ip(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string())
}

/// The books of a connection that is carried as bytes: opened when it comes, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Passage {
    worker: Rc<Worker>,
    pub(crate) upstream: Option<Rc<UpstreamState>>,
    pub(crate) endpoint: Option<Rc<EndpointState>>,
    pub(crate) reason: Option<Reason>,
    /// Bytes from the client to the upstream.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    detail: Option<String>,
    direction: &'static str,
    peer: Option<SocketAddr>,
    arrival: Instant,
}

impl Passage {
    pub(crate) fn open(connection: &Connection) -> Self {
        Self {
            worker: Rc::clone(&connection.worker),
            upstream: None,
            endpoint: None,
            reason: None,
            sent: 0,
            received: 0,
            detail: None,
            direction: if connection.kind == ListenerKind::Inbound { "inbound" } else { "outbound" },
            peer: connection.peer,
            arrival: Instant::now(),
        }
    }

    /// No endpoint could be had.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.reason = Some(failure.reason);
        self.detail = Some(failure.detail);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let took = self.arrival.elapsed();
        let shared = &self.worker.shared;
        if let Some(upstream) = &self.upstream {
            let name = &upstream.upstream.name;
            shared.metrics.carried(name, self.reason, took, self.sent, self.received);
        }
        let logs = match self.worker.view().mesh.access_log {
            AccessLog::All => true,
            AccessLog::Errors => self.reason.is_some(),
            AccessLog::Sampled(share) => self.reason.is_some() || self.worker.chance() < share,
            AccessLog::Off => false,
        };
        if let (true, Some(log)) = (logs, &shared.access_log) {
            let line = serde_json::to_vec(&PassageLine {
                timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
                level: if self.reason.is_some() { "ERROR" } else { "INFO" },
                target: "lictor::access",
                message: "connection",
                direction: self.direction,
                upstream: self.upstream.as_ref().map(|upstream| upstream.upstream.name.as_ref()),
                endpoint: self.endpoint.as_ref().map(|state| state.endpoint.address.to_string()),
                duration: took.as_secs_f64(),
                sent: self.sent,
                received: self.received,
                reason: self.reason.map(Reason::as_str),
                detail: self.detail.as_deref(),
                ip: ip(self.peer),
            });
            if line.is_ok_and(|line| log.try_send(line).is_err()) {
                shared.metrics.logs_dropped.inc();
            }
        }
    }
}

/// One line of the access log.
#[derive(Serialize)]
struct PassageLine<'a> {
    timestamp: String,
    level: &'static str,
    target: &'static str,
    message: &'static str,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Seconds.
    duration: f64,
    sent: u64,
    received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    ip: String,
}
