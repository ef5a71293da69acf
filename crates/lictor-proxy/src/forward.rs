//! One request, from the client to an upstream and back. Read [`forward`], then [`Call::run`]: their order is the
//! product's semantics.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::header::{COOKIE, HOST, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use lictor_core::balance::hash_bytes;
use lictor_core::breaker::{Admission, Transition, Verdict};
use lictor_core::deadline::{Deadline, callers_deadline};
use lictor_core::mesh::ListenerKind;
use lictor_core::policy::{Algorithm, DeadlineMode, HashOn, Policy};
use lictor_core::retry::{self, Denied, Next, Tried};
use lictor_core::{Failure, Reason};
use tracing::{info, warn};

use crate::attempt::{Sent, attempt, counts_against};
use crate::body::{Patience, ResponseBody, grpc_status};
use crate::connect::Millis;
use crate::headers::{
    self, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_LICTOR_ATTEMPT, X_LICTOR_DRAINING, X_LICTOR_FROM, X_LICTOR_NO_RETRY,
    X_LICTOR_RETRY, X_LICTOR_TO, X_REQUEST_ID, X_SERVICE_AUTH, X_SPAN_ID, X_TRACE_ID,
};
use crate::inbound;
use crate::metrics::Outcome;
use crate::record::Record;
use crate::replay::Replay;
use crate::respond;
use crate::serve::Connection;
use crate::upgrade;
use crate::worker::{UpstreamState, View, Worker};

/// A request that comes before its endpoints are known waits for them, at most this long.
const HOLD: Duration = Duration::from_secs(30);

/// Carries one request from the client to an upstream and back.
pub(crate) async fn forward(connection: Rc<Connection>, request: Request<Incoming>) -> Response<ResponseBody> {
    let view = connection.worker.view();
    let is_inbound = connection.kind == ListenerKind::Inbound;
    let mut record = Record::open(&connection, &view.mesh, &request, is_inbound, Instant::now());
    record.is_grpc = headers::is_grpc(request.headers());
    let admitted = admit(&connection, view, request, &mut record).await;
    let answered = match admitted {
        Ok(mut call) => call.run(&mut record).await.map(|sent| (call, sent)),
        Err(failure) => Err((failure, false)),
    };
    match answered {
        Ok((call, sent)) => call.answer(sent, record),
        Err((failure, is_budget_spent)) => respond::failure(record, &failure, is_budget_spent),
    }
}

/// A request that may be sent: everything its attempts need.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) worker: Rc<Worker>,
    pub(crate) upstream: Rc<UpstreamState>,
    pub(crate) head: Parts,
    pub(crate) body: Replay,
    pub(crate) is_inbound: bool,
    pub(crate) is_grpc: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) max_attempts: u32,
    /// Of what the balancer hashes on.
    pub(crate) hash: Option<u64>,
    /// Endpoints by index, one entry an attempt.
    pub(crate) tried: Vec<usize>,
    route: Option<usize>,
    arrival: Instant,
    deadline: Deadline,
    upgrade: Option<OnUpgrade>,
    probe: Option<Probe>,
    running: Running,
}

/// Decides once whether and how a request goes out: where to, allowed, within limits, with which head.
async fn admit(
    connection: &Rc<Connection>,
    view: Rc<View>,
    mut request: Request<Incoming>,
    record: &mut Record,
) -> Result<Call, Failure> {
    let worker = &connection.worker;
    let is_inbound = connection.kind == ListenerKind::Inbound;
    if request.method() == Method::CONNECT {
        return Err(Failure::new(Reason::BadRequest, "CONNECT is not supported; use an http:// URL"));
    }
    let upstream = if let (true, Some(inbound)) = (is_inbound, &view.inbound) {
        record.upstream = Some(Rc::clone(&inbound.app));
        inbound::check(&inbound.inbound, &view.mesh.local, request.headers())?;
        Rc::clone(&inbound.app)
    } else {
        let name = target(connection, &request)?;
        find(worker, &name).await?
    };
    record.upstream = Some(Rc::clone(&upstream));
    record.route = upstream.route(request.method(), request.uri().path());

    let policy = upstream.policy(record.route);
    let arrival = record.arrival();
    let callers = match policy.deadline {
        DeadlineMode::Propagate => callers_deadline(request.headers()),
        DeadlineMode::Ignore => None,
    };
    let deadline = Deadline::start(arrival, policy.timeouts.total, callers);
    if callers.is_some_and(|callers| callers.is_zero()) {
        worker.shared.metrics.deadline_exceeded("on_arrival");
        return Err(Failure::new(Reason::DeadlineExceeded, "the caller's deadline had passed on arrival"));
    }
    let probe = Probe::admit(worker, &upstream, record.route)?;
    let running = Running::enter(&upstream, record.route).await?;

    let route_says = record.route.and_then(|index| upstream.upstream.routes.iter().nth(index)?.is_idempotent);
    let is_idempotent = retry::is_idempotent(&policy.retry, request.method(), request.headers(), route_says);
    let max_attempts = attempts_allowed(policy, request.headers());
    // Also for methods that are not sent twice: a callee that says 421 has not processed them.
    let kept = if max_attempts > 1 { policy.retry.max_body } else { 0 };
    let hash = hash_of(policy, request.headers(), connection.peer.ip());
    let upgrade = headers::is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    prepare(connection, &upstream, &mut head, record, upgrade.is_some())?;
    Ok(Call {
        worker: Rc::clone(worker),
        head,
        body: Replay::new(body, kept, arrival),
        is_inbound,
        is_grpc: record.is_grpc,
        is_idempotent,
        max_attempts,
        hash,
        tried: Vec::new(),
        route: record.route,
        arrival,
        deadline,
        upgrade,
        probe: Some(probe),
        running,
        upstream,
    })
}

impl Call {
    /// Sends until there is an answer to pass on, a final failure, or no budget, attempts or time remain. The flag
    /// says that it was the retry budget that ended it.
    async fn run(&mut self, record: &mut Record) -> Result<Sent, (Failure, bool)> {
        let upstream = Rc::clone(&self.upstream);
        upstream.budget.deposit(self.arrival);
        loop {
            let (failure, held) = match attempt(self, record).await {
                Ok(sent) => match self.objection(&sent) {
                    None => return Ok(sent),
                    Some(failure) => (failure, Some(sent)),
                },
                Err(failure) => (failure, None),
            };
            let wait = match self.next(&failure, held.as_ref()) {
                Next::Retry(wait) => wait,
                Next::Stop(denied) => {
                    if self.max_attempts > 1 && denied != Denied::Attempts {
                        upstream.meters.retry_denied(&self.worker.shared.metrics, denied.as_str());
                    }
                    self.judge(&failure, held.as_ref());
                    return held.ok_or((failure, denied == Denied::Budget));
                }
            };
            upstream.meters.retried();
            if let Some(sent) = held {
                sent.discard();
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Passes the answer on; the books close with its body.
    fn answer(mut self, sent: Sent, mut record: Record) -> Response<ResponseBody> {
        let Sent { mut response, exchange } = sent;
        let status = response.status();
        record.answered(status);
        let is_upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = if is_upgraded { Some(hyper::upgrade::on(&mut response)) } else { None };
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        self.dress(&mut head.headers, &record, is_upgraded);
        if let (Some(upstream), Some(downstream)) = (upgraded, self.upgrade.take()) {
            let idle = self.policy().timeouts.idle;
            if let Some(probe) = self.probe.take() {
                probe.finish(Verdict::Success);
            }
            upgrade::join(downstream, upstream, idle, (exchange, record, self.running));
            return Response::from_parts(head, ResponseBody::empty());
        }
        let mut probe = self.probe.take();
        if self.is_grpc {
            record.grpc_status = grpc_status(&head.headers);
        } else if let Some(probe) = probe.take() {
            let is_failure = counts_against(self.policy(), Outcome::Status(status.as_u16()));
            probe.finish(if is_failure { Verdict::Failure(Reason::Status) } else { Verdict::Success });
        }
        let timeouts = &self.policy().timeouts;
        let silence = if headers::is_stream(&head.headers) {
            Some(timeouts.idle)
        } else {
            timeouts.total.or(Some(timeouts.idle))
        };
        let patience = Patience::new(silence, self.deadline.callers(), Instant::now());
        let exchange = exchange.holding(self.running);
        Response::from_parts(head, ResponseBody::stream(body, exchange, record, probe, patience))
    }

    /// How this request is called.
    pub(crate) fn policy(&self) -> &Policy {
        self.upstream.policy(self.route)
    }

    /// The time left for everything, and which limit that is.
    pub(crate) fn remaining(&self, now: Instant) -> Option<(Duration, Reason)> {
        let (ends, reason) = self.ends()?;
        Some((ends.saturating_duration_since(now), reason))
    }

    /// When an attempt that began at `started` must have its response head.
    pub(crate) fn head_limit(&self, started: Instant) -> Option<(Instant, Reason)> {
        let per_try = self.policy().timeouts.per_try.map(|per_try| {
            let since = self.body.last_progress().map_or(started, |progress| progress.max(started));
            (since + per_try, Reason::PerTryTimeout)
        });
        match (self.ends(), per_try) {
            (Some(total), Some(per_try)) => Some(if per_try.0 < total.0 { per_try } else { total }),
            (total, per_try) => total.or(per_try),
        }
    }

    /// Our own limit counts from the last byte that the client sent, and does not hold for gRPC, whose streams look
    /// like any call: there the caller's deadline is the limit.
    fn ends(&self) -> Option<(Instant, Reason)> {
        let timeouts = &self.policy().timeouts;
        let total = if self.is_grpc || self.upgrade.is_some() { Some(timeouts.idle) } else { timeouts.total };
        let since = self.body.last_progress().map_or(self.arrival, |progress| progress.max(self.arrival));
        let ours = total.map(|total| (since + total, Reason::Timeout));
        let callers = self.deadline.callers().map(|callers| (callers, Reason::DeadlineExceeded));
        match (ours, callers) {
            (Some(ours), Some(callers)) => Some(if callers.0 < ours.0 { callers } else { ours }),
            (ours, callers) => ours.or(callers),
        }
    }

    /// Why an answer may not be the last word: its status is one to retry.
    fn objection(&self, sent: &Sent) -> Option<Failure> {
        let status = sent.response.status();
        let headers = sent.response.headers();
        let is_grpc_unavailable = self.is_grpc && grpc_status(headers) == Some(14);
        if !is_grpc_unavailable && !self.policy().retry.statuses.contains(&status) {
            return None;
        }
        let shown = if is_grpc_unavailable { "grpc-status 14".to_owned() } else { status.as_u16().to_string() };
        Some(Failure::new(Reason::Status, format!("answered {shown}")))
    }

    fn next(&self, failure: &Failure, held: Option<&Sent>) -> Next {
        let now = Instant::now();
        let headers = held.map(|sent| sent.response.headers());
        if headers.is_some_and(|headers| headers.contains_key(X_LICTOR_NO_RETRY)) {
            return Next::Stop(Denied::Class);
        }
        if self.tried.len() as u32 >= self.max_attempts {
            return Next::Stop(Denied::Attempts);
        }
        let tried = Tried {
            failure,
            attempts: self.tried.len() as u32,
            is_idempotent: self.is_idempotent,
            is_replayable: self.body.is_replayable() && self.upgrade.is_none(),
            retry_after: headers.and_then(retry_after),
            remaining: self.remaining(now).map(|(left, _)| left),
            has_other: self.has_other(now),
        };
        retry::next(&self.policy().retry, &tried, &self.upstream.budget, now, self.worker.chance())
    }

    fn has_other(&self, now: Instant) -> bool {
        let endpoints = &self.upstream.upstream.endpoints;
        endpoints.iter().enumerate().any(|(index, endpoint)| {
            !self.tried.contains(&index) && !endpoint.health.is_ejected(now) && !endpoint.health.is_draining(now)
        })
    }

    /// The breaker's verdict on a request that ended without an answer; with one, [`Call::answer`] gives it.
    fn judge(&mut self, failure: &Failure, held: Option<&Sent>) {
        if held.is_some() {
            return;
        }
        if let Some(probe) = self.probe.take() {
            probe.failed(failure.reason);
        }
    }

    /// The answer's head, as the client gets it.
    fn dress(&self, headers: &mut HeaderMap, record: &Record, is_upgraded: bool) {
        headers::strip_hop_by_hop(headers, is_upgraded);
        headers.entry(X_REQUEST_ID).or_insert_with(|| record.request_id.clone());
        if self.worker.view().mesh.trace.legacy {
            headers.entry(X_TRACE_ID).or_insert_with(|| record.trace.trace_id_value());
            headers.entry(X_SPAN_ID).or_insert_with(|| record.trace.span_id_value());
        }
        if self.is_inbound && self.worker.shared.is_draining.load(Relaxed) {
            headers.insert(X_LICTOR_DRAINING, HeaderValue::from_static("1"));
        }
    }
}

/// The upstream that a request is for.
fn target(connection: &Connection, request: &Request<Incoming>) -> Result<Arc<str>, Failure> {
    if let ListenerKind::Upstream(name) = &connection.kind {
        return Ok(Arc::clone(name));
    }
    let authority = match request.uri().host() {
        Some(host) => host,
        None => request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_end_matches('.');
    // `user-service.service.consul` and `user-service.service.dc1.consul`, as Consul's DNS has them.
    let name = host.split_once(".service.").filter(|(_, rest)| rest.ends_with("consul")).map_or(host, |(name, _)| name);
    if name.is_empty() {
        return Err(Failure::new(Reason::BadRequest, "no service is named: neither the URL nor Host has one"));
    }
    Ok(Arc::from(name))
}

/// The upstream of this name, as soon as its endpoints are known.
async fn find(worker: &Rc<Worker>, name: &Arc<str>) -> Result<Rc<UpstreamState>, Failure> {
    let until = tokio::time::Instant::now() + HOLD;
    let mut has_asked = false;
    loop {
        let changed = worker.changed.notified();
        let view = worker.view();
        match view.upstreams.get(name) {
            Some(upstream) if upstream.upstream.census.is_known || !upstream.endpoints.is_empty() => {
                return Ok(Rc::clone(upstream));
            }
            Some(_) => (),
            None if view.mesh.forward.as_ref().is_some_and(|forward| forward.allows(name)) => {
                if !has_asked {
                    has_asked = true;
                    let _ = worker.shared.demand.send(Arc::clone(name));
                }
            }
            None => return Err(unknown(&view, name)),
        }
        if tokio::time::timeout_at(until, changed).await.is_err() {
            let sentence = format!("{name}: its endpoints are still unknown after {}", Millis(HOLD));
            return Err(Failure::new(Reason::NoEndpoints, sentence).retry_after(Duration::from_secs(1)));
        }
    }
}

fn unknown(view: &View, name: &str) -> Failure {
    let known: Vec<&str> = view.upstreams.keys().map(AsRef::as_ref).collect();
    let sentence = format!(
        "{name} is neither an upstream of this sidecar ({}) nor in outbound.allow",
        if known.is_empty() { "none are configured".to_owned() } else { known.join(", ") }
    );
    Failure::new(Reason::UnknownUpstream, sentence)
}

fn attempts_allowed(policy: &Policy, headers: &HeaderMap) -> u32 {
    if headers.get(X_LICTOR_RETRY).is_some_and(|value| value == "off") {
        return 1;
    }
    // A caller further up is retrying already: one retry here at most, or attempts multiply from tier to tier.
    let is_nested = headers.contains_key(X_LICTOR_ATTEMPT);
    if is_nested { policy.retry.attempts.min(2) } else { policy.retry.attempts }
}

fn hash_of(policy: &Policy, headers: &HeaderMap, peer: IpAddr) -> Option<u64> {
    let Algorithm::RingHash(on) = &policy.balance.algorithm else { return None };
    match on {
        HashOn::Header(name) => headers.get(name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::Cookie(name) => cookie(headers, name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::SourceIp => Some(hash_bytes(peer.to_string().as_bytes())),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); the date form is left to clients.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The head as every endpoint of the upstream gets it.
fn prepare(
    connection: &Connection,
    upstream: &UpstreamState,
    head: &mut Parts,
    record: &Record,
    is_upgrade: bool,
) -> Result<(), Failure> {
    let worker = &connection.worker;
    let is_inbound = connection.kind == ListenerKind::Inbound;
    let headers = &mut head.headers;
    headers::strip_hop_by_hop(headers, is_upgrade);
    if !headers::via(headers, &worker.hop) {
        return Err(Failure::new(Reason::LoopDetected, "the request has been here before (Via names this sidecar)"));
    }
    let host = head.uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    let host = host.or_else(|| headers.remove(HOST));
    if let Some(host) = &host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if !connection.peer.ip().is_loopback() {
        headers::forwarded_for(headers, connection.peer.ip());
    }
    // Our application keeps the name it was called by; a callee is called by its service's name.
    let host = if is_inbound { host.unwrap_or_else(|| upstream.host.clone()) } else { upstream.host.clone() };
    if upstream.upstream.protocol.is_http2() {
        headers.remove(HOST);
    } else {
        headers.insert(HOST, host);
    }
    headers.remove(X_LICTOR_ATTEMPT);
    headers.remove(X_LICTOR_RETRY);
    headers.remove(X_LICTOR_TO);
    if is_inbound {
        headers.remove(X_SERVICE_AUTH);
    } else if let Some(from) = &worker.from {
        headers.insert(X_LICTOR_FROM, from.clone());
    }
    headers.insert(X_REQUEST_ID, record.request_id.clone());
    record.trace.inject(headers, &worker.view().mesh.trace);
    for (name, value) in &upstream.upstream.set_headers {
        headers.insert(name, value.clone());
    }
    head.version = Version::HTTP_11;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if head.uri.authority().is_some() {
        head.uri = Uri::try_from(path).map_err(|_| Failure::new(Reason::BadRequest, "the URL has no valid path"))?;
    }
    Ok(())
}

impl UpstreamState {
    fn route(&self, method: &Method, path: &str) -> Option<usize> {
        let routes = &self.upstream.routes;
        if routes.is_empty() {
            return None;
        }
        let found = routes.find(method, path)?;
        routes.iter().position(|route| std::ptr::eq(route, found))
    }

    fn policy(&self, route: Option<usize>) -> &Policy {
        route
            .and_then(|index| self.upstream.routes.iter().nth(index))
            .map_or(&*self.upstream.policy, |route| &*route.policy)
    }
}

/// A place among the upstream's running requests.
#[derive(Debug)]
pub(crate) struct Running(Rc<UpstreamState>);

impl Running {
    async fn enter(upstream: &Rc<UpstreamState>, route: Option<usize>) -> Result<Self, Failure> {
        let limits = &upstream.policy(route).limits;
        let in_flight = &upstream.upstream.in_flight;
        if in_flight.enter(limits.max_in_flight) {
            return Ok(Self(Rc::clone(upstream)));
        }
        let overloaded =
            |sentence: String| Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1));
        let Some(_waiting) = in_flight.wait(limits.max_pending) else {
            let sentence =
                format!("{} requests are in flight and {} wait already", limits.max_in_flight, limits.max_pending);
            return Err(overloaded(sentence));
        };
        let until = tokio::time::Instant::now() + limits.pending_timeout;
        loop {
            // A place that another worker frees is noticed by looking again.
            let again = tokio::time::Instant::now() + Duration::from_millis(5);
            let _ = tokio::time::timeout_at(again.min(until), upstream.freed.notified()).await;
            if in_flight.enter(limits.max_in_flight) {
                return Ok(Self(Rc::clone(upstream)));
            }
            if tokio::time::Instant::now() >= until {
                let waited = Millis(limits.pending_timeout);
                return Err(overloaded(format!("{} requests are in flight; waited {waited}", limits.max_in_flight)));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.upstream.in_flight.leave();
        self.0.freed.notify_one();
    }
}

/// The breaker's leave to send, which it wants back with a verdict. Dropped without one, it counts nothing.
#[derive(Debug)]
pub(crate) struct Probe {
    worker: Rc<Worker>,
    upstream: Rc<UpstreamState>,
    route: Option<usize>,
    admission: Option<Admission>,
}

impl Probe {
    fn admit(worker: &Rc<Worker>, upstream: &Rc<UpstreamState>, route: Option<usize>) -> Result<Self, Failure> {
        let policy = &upstream.policy(route).breaker;
        match upstream.upstream.breaker.admit(policy, Instant::now()) {
            Ok(admission) => {
                Ok(Self { worker: Rc::clone(worker), upstream: Rc::clone(upstream), route, admission: Some(admission) })
            }
            Err(wait) => {
                let seconds = wait.as_millis().div_ceil(1000).max(1);
                let sentence = format!("the circuit breaker is open; the next probe may go in {seconds} s");
                Err(Failure::new(Reason::BreakerOpen, sentence).retry_after(wait))
            }
        }
    }

    pub(crate) fn finish(mut self, verdict: Verdict) {
        self.give_back(verdict);
    }

    /// The request failed for this reason.
    pub(crate) fn failed(self, reason: Reason) {
        let counts = counts_against(self.upstream.policy(self.route), Outcome::Failed(reason));
        self.finish(if counts { Verdict::Failure(reason) } else { Verdict::Unknown });
    }

    /// A gRPC call ended with this status: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS are the
    /// server's failures, the others are answers.
    pub(crate) fn grpc(self, status: Option<u16>) {
        let is_failure = matches!(status, Some(2 | 4 | 13 | 14 | 15));
        self.finish(if is_failure { Verdict::Failure(Reason::Status) } else { Verdict::Success });
    }

    fn give_back(&mut self, verdict: Verdict) {
        let Some(admission) = self.admission.take() else { return };
        let policy = &self.upstream.policy(self.route).breaker;
        let breaker = &self.upstream.upstream.breaker;
        if let Some(change) = breaker.finish(policy, admission, verdict, Instant::now()) {
            self.tell(&change);
        }
    }

    fn tell(&self, change: &Transition) {
        let upstream = &self.upstream.upstream.name;
        self.worker.shared.metrics.breaker_changed(upstream, change.to.as_str(), change.cause);
        let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause);
        if change.to == lictor_core::breaker::BreakerState::Closed {
            info!(target: "lictor::event", kind = "breaker_closed", %upstream, from, to, cause, "the circuit breaker changed");
        } else {
            warn!(target: "lictor::event", kind = "breaker_changed", %upstream, from, to, cause, "the circuit breaker changed");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.give_back(Verdict::Unknown);
    }
}
