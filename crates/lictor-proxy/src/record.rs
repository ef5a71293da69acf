//! One request's books: opened with its head, closed exactly once, with the last byte of its answer or when the client
//! goes away. Closing writes the metrics, the log line and the span; nothing else does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use lictor_core::breaker::BreakerState;
use lictor_core::mesh::AccessLog;
use lictor_core::retry::Next;
use lictor_core::story::{self, AttemptStory, Kept, Story, Then};
use lictor_core::trace::TraceContext;
use lictor_core::{Failure, Mesh, Reason};
use lictor_http::fields::Fields;
use serde::Serialize;
use smallvec::SmallVec;

use crate::access;
use crate::head::names::{self, X_REQUEST_ID};
use crate::metrics::{Call, Outcome, Over};
use crate::recorder::Course;
use crate::serve::Connection;
use crate::span::{self, method_label};
use crate::tap::Heads;
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
    /// The caller's `tracestate`, where spans have to say it.
    pub(crate) trace_state: Option<Box<str>>,
    pub(crate) request_id: RequestId,
    pub(crate) reason: Option<Reason>,
    /// The sentence that goes with the reason.
    pub(crate) detail: Option<String>,
    /// The time that the caller gave it.
    pub(crate) deadline: Cell<Option<Duration>>,
    /// Hedged attempts write it at the same time.
    pub(crate) attempts: RefCell<SmallVec<[Attempt; 2]>>,
    /// `hit`, `coalesced` or `stale`, when it was not the upstream that answered.
    pub(crate) cache: Option<&'static str>,
    pub(crate) is_grpc: bool,
    /// The answer tells how it came about.
    pub(crate) is_debug: bool,
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
    /// From its arrival to its answer's head.
    head: Option<Duration>,
    status: Option<StatusCode>,
    access_log: AccessLog,
    /// Our application called without a trace while it served a request with one.
    is_orphan: bool,
    /// Somebody listens.
    tapped: Option<Box<Heads>>,
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
    pub(crate) fn new(worker: &Worker) -> Self {
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
    /// Boxed: most attempts have none.
    pub(crate) failure: Option<Box<(Failure, Next)>>,
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
        let trace = if fields.has(names::TRACE) {
            TraceContext::extract(headers, &mesh.trace, random)
        } else {
            TraceContext::start(&mesh.trace, random)
        };
        // Kept for sampled requests alone: it is copied.
        let has_spans = trace.is_sampled && worker.shared.spans.is_some();
        let trace_state = if has_spans { trace.state(headers) } else { None };
        let told = if fields.has(names::IDS) { headers.get(X_REQUEST_ID).cloned() } else { None };
        let request_id = told.map_or_else(|| RequestId::new(&worker), RequestId::Told);
        let (is_traced, traced_inbound) = (fields.has(names::TRACE), &worker.shared.traced_inbound);
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
            trace_state,
            request_id,
            reason: None,
            detail: None,
            deadline: Cell::new(None),
            attempts: RefCell::default(),
            cache: None,
            is_grpc: false,
            is_debug: fields.has(names::LICTOR) && names::asks_for_debug(headers, connection.peer),
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
            head: None,
            status: None,
            access_log: mesh.access_log,
            is_orphan,
            tapped: worker.shared.tap.is_on().then(|| Box::new(Heads::of(headers))),
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

    /// What follows the failure of the last attempt. One that never came to an endpoint is the request's own.
    pub(crate) fn followed(&self, failure: &Failure, next: Next) {
        if let Some(last) = self.attempts.borrow_mut().last_mut()
            && last.failure.is_none()
        {
            last.failure = Some(Box::new((failure.clone(), next)));
        }
    }

    /// The status that the client sees is known.
    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        self.status = Some(status);
        let head = now.saturating_duration_since(self.arrival);
        self.head = Some(head);
        if let Some(upstream) = &self.upstream {
            let attempts: Duration = self.attempts.borrow().iter().map(|attempt| attempt.took).sum();
            upstream.meters.overhead(head.saturating_sub(attempts));
        }
    }

    /// The head that the client gets.
    pub(crate) fn shows(&mut self, head: &HeaderMap) {
        if let Some(heads) = &mut self.tapped {
            heads.answered(head);
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
        if self.is_inbound && self.fields.has(names::TRACE) {
            self.worker.shared.traced_inbound.fetch_sub(1, Relaxed);
        }
        let took = now.saturating_duration_since(self.arrival);
        let status = self.status.unwrap_or_else(|| Reason::ClientGone.status()).as_u16();
        self.count(status, took);
        let is_error = status >= 400 || self.reason.is_some();
        access::log(&self.connection, self.access_log, is_error, "request", || self.line(status, took));
        if self.trace.is_sampled
            && let Some(spans) = &self.worker.shared.spans
        {
            let sent = span::of(self, status, took).into_iter().map(|span| spans.try_send(span));
            self.worker.shared.metrics.spans_dropped.inc_by(sent.filter(Result::is_err).count() as u64);
        }
        let kept = self.kept(status);
        if let Some(heads) = self.tapped.take() {
            let story = self.story(kept.unwrap_or(Kept::Sampled), status, took);
            self.worker.shared.tap.tell(story, *heads);
        }
        if let Some(kept) = kept {
            self.worker.shared.recorder.keep(Arc::new(self.story(kept, status, took)));
        }
    }

    fn kept(&self, status: u16) -> Option<Kept> {
        if self.reason.is_some() || status >= 500 || self.grpc_status.is_some_and(is_grpc_failure) {
            return Some(Kept::Failed);
        }
        let attempts = self.attempts.borrow().len();
        let number = self.worker.number();
        Course { is_asked: self.is_debug, attempts, head: self.head.unwrap_or_default(), number }.kept()
    }

    fn story(&self, kept: Kept, status: u16, took: Duration) -> Story {
        let attempts = self.attempts.borrow();
        let upstream = self.upstream.as_ref();
        let route = self.route.and_then(|index| upstream?.upstream.routes.iter().nth(index));
        let now = Instant::now();
        Story {
            id: story::cut(self.request_id.as_str(), story::ID_MAX),
            trace_id: format!("{:032x}", self.trace.trace_id),
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kept,
            direction: self.connection.direction(),
            worker: self.worker.index,
            client: ip(self.connection.peer),
            method: story::cut(self.method.as_str(), 32),
            path: story::cut_path(self.uri.path()),
            upstream: upstream.map(|upstream| Arc::clone(&upstream.upstream.name)),
            route: route.map(|route| Arc::clone(&route.label)),
            policy: upstream.map(|upstream| Arc::clone(route.map_or(&upstream.upstream.policy, |route| &route.policy))),
            status,
            grpc_status: self.grpc_status,
            reason: self.reason,
            detail: self.detail.as_deref().map(story::cut_sentence),
            cache: self.cache,
            took_ms: story::millis(took),
            head_ms: self.head.map(story::millis),
            bytes: self.bytes,
            deadline_ms: self.deadline.get().map(|deadline| deadline.as_millis() as u64),
            breaker: upstream.map(|upstream| upstream.upstream.breaker.view(now)),
            retry_budget_remaining: upstream.map(|upstream| upstream.budget.remaining_ratio(now)),
            attempts: attempt_stories(&attempts, self.arrival, &self.method),
            attempts_left_out: attempts.len().saturating_sub(story::ATTEMPTS_MAX),
        }
    }

    fn count(&self, status: u16, took: Duration) {
        let metrics = &self.worker.shared.metrics;
        let Some(upstream) = &self.upstream else { return metrics.led_nowhere(status, self.reason) };
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
            let (path, is_inbound, status) = (self.uri.path(), self.is_inbound, self.grpc_status);
            let call = Call { path, is_inbound, is_success, status };
            metrics.grpc(&upstream.upstream.name, &call, took, &mut upstream.meters.methods.borrow_mut());
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

    fn line(&self, status: u16, took: Duration) -> Line<'_> {
        Line {
            service: self.worker.from.as_ref().and_then(|from| from.to_str().ok()?.split('/').next()).unwrap_or(""),
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

    /// `lictor;dur=0.4, upstream;dur=14.2` (Server Timing, section 2): attempts, and everything else.
    pub(crate) fn server_timing(&self) -> String {
        let upstream: Duration = self.attempts.borrow().iter().map(|attempt| attempt.took).sum();
        let own = self.head.unwrap_or_default().saturating_sub(upstream);
        format!("lictor;dur={}, upstream;dur={}", story::millis(own), story::millis(upstream))
    }

    /// `10.0.3.7:8001=503(12ms), 10.0.3.8:8001=reset_before_response(3ms)`
    pub(crate) fn attempts_summary(&self) -> String {
        let mut summary = String::new();
        for attempt in &*self.attempts.borrow() {
            use std::fmt::Write;
            let separator = if summary.is_empty() { "" } else { ", " };
            let address = &attempt.endpoint.endpoint.address;
            let millis = attempt.took.as_millis();
            write!(summary, "{separator}{address}={}({millis}ms)", attempt.outcome)
                .expect("writing to a string cannot fail");
        }
        summary
    }
}

impl Drop for Record {
    /// Not closed: whoever held the books was dropped, because the client went away or we do.
    fn drop(&mut self) {
        if !self.is_closed {
            if self.worker.shared.is_cut.load(Relaxed) {
                self.reason.get_or_insert(Reason::Draining);
                self.status.get_or_insert(Reason::Draining.status());
            }
            self.reason.get_or_insert(Reason::ClientGone);
            self.finish(Instant::now());
        }
    }
}

/// The first of them, as a story has them.
pub(crate) fn attempt_stories(attempts: &[Attempt], arrival: Instant, method: &Method) -> Vec<AttemptStory> {
    let story_of = |attempt: &Attempt| {
        let failure = attempt.failure.as_deref();
        AttemptStory {
            endpoint: Arc::clone(&attempt.endpoint.endpoint.key.id),
            address: attempt.endpoint.endpoint.address.clone(),
            outcome: attempt.outcome.to_string(),
            detail: failure.map(|(failure, _)| story::cut_sentence(&failure.detail)),
            began_ms: story::millis(attempt.began.saturating_duration_since(arrival)),
            took_ms: story::millis(attempt.took),
            then: failure.map(|(failure, next)| Then::of(*next, failure, method)),
        }
    };
    attempts.iter().take(story::ATTEMPTS_MAX).map(story_of).collect()
}

/// The server's failures among gRPC's statuses: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
pub(crate) fn is_grpc_failure(status: u16) -> bool {
    matches!(status, 2 | 4 | 13 | 14 | 15)
}

/// In the access log.
#[derive(Serialize)]
struct Line<'a> {
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

pub(crate) fn ip(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string())
}
