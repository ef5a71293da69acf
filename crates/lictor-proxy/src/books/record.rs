//! One request's books: opened with its head, closed exactly once, with the last byte of its answer or when the client
//! goes away. Closing writes the metrics, the log line and the span; nothing else does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use lictor_core::breaker::{Blame, BreakerState};
use lictor_core::caching::Exchanged;
use lictor_core::deadline::{Deadline, End, callers_deadline};
use lictor_core::gateway::transcode::Binding;
use lictor_core::mesh::AccessLog;
use lictor_core::retry::Next;
use lictor_core::story;
use lictor_core::trace::{TraceContext, TraceSettings};
use lictor_core::{Failure, Mesh, Reason};
use lictor_http::fields::Fields;
use smallvec::SmallVec;

use super::attempts::{self, Attempt};
use crate::names::{self, X_REQUEST_ID};
use crate::stores::awaited::{Served, of_id, of_trace};
use crate::stores::causes::Cause;
use crate::stores::metrics::{Over, method_label};
use crate::stores::request_id::RequestId;
use crate::stores::tap::Heads;
use crate::world::client::Connection;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// What a client is told whose stream has ended with its token.
pub(crate) const EXPIRED: &str = "the token that opened it is over";

/// The books.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) worker: Rc<Worker>,
    pub(crate) upstream: Option<Rc<UpstreamState>>,
    /// Whose policy is in force.
    pub(crate) route: Option<usize>,
    /// Where the gateway's route stands among the upstream's: it is what the request is told as.
    pub(crate) edge: Option<usize>,
    /// What the request's head has.
    pub(crate) fields: Fields,
    pub(crate) trace: TraceContext,
    /// The caller's `tracestate`, where spans have to say it.
    pub(super) trace_state: Option<Box<str>>,
    pub(crate) request_id: RequestId,
    pub(crate) reason: Option<Reason>,
    /// The sentence that goes with the reason.
    pub(crate) detail: Option<String>,
    /// Until when anything may be done for it.
    pub(crate) deadline: Deadline,
    /// Until when its client may be answered by a stream.
    pub(crate) expires: Option<Instant>,
    /// While our application serves it, what that calls has no more time.
    served: Option<Served>,
    /// While our application serves it, it may be what caused a call.
    cause: Option<Cause>,
    /// Hedged attempts write it at the same time.
    pub(crate) attempts: RefCell<SmallVec<[Attempt; 2]>>,
    /// `hit`, `coalesced`, `revalidated` or `stale`, when what was kept is the answer.
    pub(crate) cache: Option<&'static str>,
    /// `stale`, `static` or `upstream`, when that stood in for a failure.
    pub(crate) fallback: Option<&'static str>,
    /// The gateway's route that has answered by itself.
    pub(crate) told_by: Option<Arc<str>>,
    /// The upstream that it was for, when another one was asked instead.
    pub(crate) instead_of: Option<Arc<str>>,
    pub(crate) is_grpc: bool,
    /// The call of gRPC that a gateway has made of it: its client speaks JSON.
    pub(crate) rpc: Option<Arc<Binding>>,
    /// That client is told what came of it.
    is_told: bool,
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
    pub(super) is_inbound: bool,
    pub(super) method: Method,
    pub(super) uri: Uri,
    is_http2: bool,
    pub(super) user_agent: Option<HeaderValue>,
    /// From its arrival to its answer's head.
    pub(super) head: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    pub(super) access_log: AccessLog,
    /// Our application called without a trace while it served a request with one.
    pub(super) is_orphan: bool,
    is_copy: bool,
    /// Somebody listens.
    pub(super) tapped: Option<Box<Heads>>,
    pub(super) is_closed: bool,
}

/// Our application may be calling for a request that it serves, and then has no more time than that.
fn for_whom(
    connection: &Connection,
    deadline: Deadline,
    request_id: &RequestId,
    traced: Option<u128>,
    arrival: Instant,
) -> Deadline {
    let awaited = &connection.worker.shared.awaited;
    if !connection.is_applications() || awaited.is_empty() {
        return deadline;
    }
    let by_id = if let RequestId::Told(_) = request_id { awaited.ends(of_id(request_id), arrival) } else { None };
    let ends = by_id.or_else(|| awaited.ends(of_trace(traced?), arrival));
    ends.map_or(deadline, |ends| deadline.no_later_than(ends))
}

/// Where a request stands in its trace. At a gateway that may be decided already: what is asked about it is in the same.
fn trace_of<B>(
    connection: &Connection,
    settings: &TraceSettings,
    request: &Request<B>,
    fields: Fields,
    cause: Option<TraceContext>,
) -> TraceContext {
    let random = &mut || connection.worker.random();
    let decided = if connection.is_edge() { request.extensions().get::<TraceContext>() } else { None };
    match (decided, cause) {
        (Some(decided), _) => *decided,
        _ if fields.has(names::TRACE) => {
            TraceContext::extract(request.headers(), fields.has(names::TRACE_OTHERS), settings, random)
        }
        (None, Some(cause)) => cause.causes(settings, random),
        (None, None) => TraceContext::start(settings, random),
    }
}

impl Record {
    /// A stream has ended with what its client had shown.
    pub(crate) fn expired(&mut self) {
        self.reason = Some(Reason::Unauthenticated);
        self.detail = Some(EXPIRED.to_owned());
        if self.is_grpc {
            self.grpc_status = Some(u16::from(Reason::Unauthenticated.grpc_status()));
        }
    }

    pub(crate) fn open<B>(
        connection: &Rc<Connection>,
        mesh: &Mesh,
        request: &Request<B>,
        fields: Fields,
        arrival: Instant,
    ) -> Box<Self> {
        let (worker, is_inbound) = (Rc::clone(&connection.worker), connection.is_inbound());
        let headers = request.headers();
        let told = if fields.has(names::IDS) { headers.get(X_REQUEST_ID) } else { None }.cloned().map(RequestId::Told);
        let is_traced = fields.has(names::TRACE);
        let is_plain = connection.is_applications() && !is_traced && *request.method() != Method::CONNECT;
        let cause = if is_plain && mesh.trace.infer_parent { worker.shared.causes.of(told.as_ref()) } else { None };
        let trace = trace_of(connection, &mesh.trace, request, fields, cause);
        // Kept for sampled requests alone: it is copied.
        let has_spans = trace.is_sampled && worker.shared.spans.is_some();
        let trace_state = if has_spans { trace.state(headers) } else { None };
        let request_id = told.unwrap_or_else(|| RequestId::new(|| worker.random()));
        let traced_inbound = &worker.shared.traced_inbound;
        if is_inbound && is_traced {
            traced_inbound.fetch_add(1, Relaxed);
        }
        let callers = if fields.has(names::DEADLINE) { callers_deadline(headers) } else { None };
        let traced = is_traced.then_some(trace.trace_id);
        let deadline = for_whom(connection, Deadline::new(arrival, callers), &request_id, traced, arrival);
        let is_orphan = is_plain && cause.is_none() && traced_inbound.load(Relaxed) > 0;
        Box::new(Self {
            upstream: None,
            route: None,
            edge: None,
            fields,
            trace,
            trace_state,
            request_id,
            reason: None,
            detail: None,
            deadline,
            expires: None,
            served: None,
            cause: None,
            attempts: RefCell::default(),
            cache: None,
            fallback: None,
            told_by: None,
            instead_of: None,
            is_grpc: false,
            rpc: None,
            is_told: false,
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
            user_agent: if logs(&worker, mesh) { headers.get(USER_AGENT).cloned() } else { None },
            head: None,
            status: None,
            access_log: mesh.access_log,
            is_orphan,
            is_copy: false,
            tapped: worker.shared.tap.is_on().then(|| Box::new(Heads::of(headers))),
            is_closed: false,
            worker,
        })
    }

    /// It is a copy of one that has a line in the log.
    pub(crate) fn is_copy(&mut self) {
        self.access_log = AccessLog::Off;
        self.is_copy = true;
    }

    /// As its client asked.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// The path that its endpoint is asked for, where that is another than its client's.
    pub(super) fn path(&self) -> &str {
        self.rpc.as_ref().map_or_else(|| self.uri.path(), |rpc| &rpc.path)
    }

    /// Whether only the head of its answer is wanted.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// When the request came.
    pub(crate) fn arrival(&self) -> Instant {
        self.deadline.arrival()
    }

    /// When its time ends, as far as nothing has been sent yet.
    pub(crate) fn end(&self) -> Option<End> {
        self.upstream.as_ref()?.policy(self.route).end(self.deadline)
    }

    /// Our application serves it from now on: what that calls meanwhile has no more time than its caller has, and may be
    /// its child where nothing says whose it is.
    pub(crate) fn serve(&mut self, infers_parents: bool) {
        if infers_parents {
            self.cause = Some(self.worker.shared.causes.serve(&self.request_id, self.trace));
        }
        if let Some(ends) = self.deadline.callers() {
            let names = [of_id(&self.request_id), of_trace(self.trace.trace_id)];
            self.served = Some(self.worker.shared.awaited.serve(names, ends, self.arrival()));
        }
    }

    /// Whether each attempt is a span of its own. To our own application there is hardly ever a second one.
    pub(crate) fn has_attempt_spans(&self) -> bool {
        self.trace.is_sampled && !self.is_inbound && self.worker.shared.spans.is_some()
    }

    /// As `network.protocol.version` has it.
    pub(super) fn version(&self) -> &'static str {
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

    /// When the answer whose head came at `at` was asked for.
    pub(crate) fn exchanged(&self, at: Instant) -> Exchanged {
        let asked = self.attempts.borrow().last().map_or(self.arrival(), |attempt| attempt.began);
        Exchanged { asked, answered: at, date: SystemTime::now() }
    }

    /// Its upstream has failed, and another one is asked: from now on it is a request to that.
    pub(crate) fn falls_to(&mut self, other: &Rc<UpstreamState>, status: StatusCode, reason: Option<Reason>) {
        if let Some(own) = &self.upstream {
            let over = self.over(status.as_u16(), reason);
            own.meters.request(&self.worker.shared.metrics, &over, self.arrival().elapsed());
            self.instead_of = Some(Arc::clone(&own.upstream.name));
        }
        // What a gateway's client asked for is no path of that upstream.
        let is_edge = self.edge.take().is_some();
        self.route = if is_edge { None } else { other.route(&self.method, self.uri.path()) };
        self.upstream = Some(Rc::clone(other));
    }

    /// An answer stands in for that of the upstream that the request was for.
    pub(crate) fn fell_back(&mut self, kind: &'static str) {
        self.fallback = Some(kind);
        let own = self.upstream.as_ref().map(|upstream| &upstream.upstream.name);
        if let Some(name) = self.instead_of.as_ref().or(own) {
            self.worker.shared.metrics.fell_back(name, kind);
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

    /// Whether it is a call whose client is still to be told, in JSON, what came of it.
    pub(crate) fn is_untold(&self) -> bool {
        self.rpc.is_some() && !self.is_told
    }

    /// The client of a call sees this status; a failure that is known already is why.
    pub(crate) fn told(&mut self, status: StatusCode, why: Option<(Reason, String)>) {
        (self.status, self.is_told) = (Some(status), true);
        if let (None, Some((reason, sentence))) = (self.reason, why) {
            (self.reason, self.detail) = (Some(reason), Some(sentence));
        }
    }

    /// The status that the client sees is known.
    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        self.status = Some(status);
        let head = now.saturating_duration_since(self.arrival());
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

    /// What is counted of it, with this end.
    pub(super) fn over(&self, status: u16, reason: Option<Reason>) -> Over<'_> {
        Over {
            is_inbound: self.is_inbound,
            method: method_label(&self.method),
            route: self.route_label(),
            is_edge: self.edge.is_some() && !self.is_copy,
            status,
            reason,
        }
    }

    /// What its route is called, if it has one.
    pub(super) fn route_name(&self) -> Option<&str> {
        self.route_label().map(|(_, label)| label).or(self.told_by.as_deref())
    }

    pub(super) fn route_label(&self) -> Option<(usize, &str)> {
        let index = self.edge.or(self.route)?;
        let route = self.upstream.as_ref()?.upstream.routes.get(index)?;
        Some((index, route.label.as_ref()))
    }

    /// For the breaker that it counts against; `word` is lictor's, where it has one.
    pub(crate) fn blame(&self, word: Option<&'static str>) -> Blame {
        let mut blame = attempts::blame(Some(self.request_id.as_str()), &self.attempts.borrow(), word);
        if let (None, Some(status)) = (word, self.grpc_status.filter(|_| self.is_grpc)) {
            blame.outcome = format!("grpc {status}").into();
        }
        blame
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

/// Whether requests have a line in the log.
fn logs(worker: &Worker, mesh: &Mesh) -> bool {
    worker.shared.access_log.is_some() && mesh.access_log != AccessLog::Off
}
