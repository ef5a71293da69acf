//! One request, from the client to an upstream and back. Read [`forward`], then [`Call::run`]: their order is the
//! product's semantics.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::header::{COOKIE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use lictor_core::balance::hash_bytes;
use lictor_core::breaker::Verdict;
use lictor_core::deadline::callers_deadline;
use lictor_core::mesh::ListenerKind;
use lictor_core::policy::{Algorithm, DeadlineMode, HashOn, Hedge, HedgeDelay, Policy};
use lictor_core::retry::{self, Denied, Next, Tried};
use lictor_core::{Address, Failure, Reason};
use lictor_http::fields::{self, Fields};
use lictor_http::{Interim, RequestBody, Spelling, buffers};
use smallvec::SmallVec;

use crate::attempt::{Sent, attempt, counts_against};
use crate::body::{Ids, Patience, ResponseBody, grpc_status};
use crate::cache::{self, Found, Keeping, Ticket};
use crate::head::names::{self, X_LICTOR_ATTEMPT, X_LICTOR_DRAINING, X_LICTOR_NO_RETRY, X_LICTOR_RETRY};
use crate::hedge::hedged;
use crate::inbound;
use crate::metrics::Outcome;
use crate::permit::{Probe, Running};
use crate::record::Record;
use crate::replay::Replay;
use crate::respond;
use crate::rewrite::Rewrite;
use crate::serve::Connection;
use crate::target::{self, Target};
use crate::tunnel;
use crate::upgrade::{Switched, Upgrade};
use crate::worker::{UpstreamState, View, Worker};

/// Carries one request from the client to an upstream and back.
pub(crate) fn forward(
    connection: Rc<Connection>,
    mut request: Request<RequestBody>,
    fields: Fields,
) -> impl Future<Output = Response<ResponseBody>> {
    let view = connection.worker.view();
    let upgrade = Upgrade::of(&mut request, fields, || connection.worker.random());
    let is_inbound = connection.kind == ListenerKind::Inbound;
    let mut record = Record::open(&connection, &view.mesh, &request, fields, is_inbound, Instant::now());
    record.is_grpc = fields.has(Fields::CONTENT_TYPE) && names::is_grpc(request.headers());
    // A block instead of an `async fn`, which would hold its arguments twice, in every open connection.
    async move {
        if request.method() == Method::CONNECT {
            return Box::pin(tunnel::connect(&connection, request, record)).await;
        }
        let target = match find(&connection, &view, &request, &mut record).await {
            Ok(target) => target,
            Err(failure) => return respond::failure(record, &failure, false),
        };
        let policy = target.upstream.policy(record.route);
        let asking =
            match cache::look(&connection.worker.shared, &target.upstream.upstream.name, policy, &request).await {
                Found::Answer(kept, how) => return respond::kept(record, &kept, how),
                Found::Ask(asking) => asking,
            };
        let call = match admit(&connection.worker, &target.upstream, &request, &record).await {
            Ok(leave) => Call::new(&connection, &target, request, upgrade, &record, leave),
            Err(failure) => Err(failure),
        };
        let answered = match call {
            Ok(mut call) => call.run(&record).await.map(|sent| (call, sent)),
            Err(failure) => Err((failure, false)),
        };
        match (answered, asking.stale) {
            (Ok((mut call, sent)), Some(stale)) if sent.response.status().is_server_error() => {
                call.judge_status(sent.response.status(), &record, sent.at);
                sent.discard();
                respond::kept(record, &stale, "stale")
            }
            (Ok((call, sent)), _) => call.answer(sent, record, asking.ticket),
            (Err((failure, _)), Some(stale)) if failure.reason.status().is_server_error() => {
                respond::kept(record, &stale, "stale")
            }
            (Err((failure, is_budget_spent)), _) => respond::failure(record, &failure, is_budget_spent),
        }
    }
}

/// Finds out whom the request is for, and whether its sender may ask.
async fn find(
    connection: &Connection,
    view: &View,
    request: &Request<RequestBody>,
    record: &mut Record,
) -> Result<Target, Failure> {
    fields::check(request, record.fields).map_err(|why| Failure::new(Reason::BadRequest, why))?;
    let target = match (&connection.kind, &view.inbound) {
        (ListenerKind::Inbound, Some(inbound)) => {
            record.upstream = Some(Rc::clone(&inbound.app));
            inbound::check(&inbound.inbound, &view.mesh.local, request.headers())?;
            Target { upstream: Rc::clone(&inbound.app), only: None }
        }
        _ => target::target(connection, request).await?,
    };
    record.route = target.upstream.route(request.method(), request.uri().path());
    record.upstream = Some(Rc::clone(&target.upstream));
    Ok(target)
}

/// Leave to send, from the caller's deadline, the breaker and the limits.
#[derive(Debug)]
struct Leave {
    /// How long the caller waits, from the request's arrival.
    callers: Option<Duration>,
    probe: Probe,
    running: Running,
    since: Instant,
}

/// Decides once whether a request goes out, and when.
async fn admit(
    worker: &Rc<Worker>,
    upstream: &Rc<UpstreamState>,
    request: &Request<RequestBody>,
    record: &Record,
) -> Result<Leave, Failure> {
    let now = Instant::now();
    let callers = match upstream.policy(record.route).deadline {
        DeadlineMode::Propagate if record.fields.has(names::DEADLINE) => callers_deadline(request.headers()),
        DeadlineMode::Propagate | DeadlineMode::Ignore => None,
    };
    record.deadline.set(callers);
    if callers.is_some_and(|callers| callers.is_zero()) {
        worker.shared.metrics.deadline_exceeded("on_arrival");
        return Err(Failure::new(Reason::DeadlineExceeded, "the caller's deadline had passed on arrival"));
    }
    let probe = Probe::admit(worker, upstream, record.route, now)?;
    let (running, since) = match Running::try_enter(upstream, record.route) {
        Some(running) => (running, now),
        None => (Running::enter(upstream, record.route).await?, Instant::now()),
    };
    Ok(Leave { callers, probe, running, since })
}

/// A request that may be sent: everything its attempts need.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) worker: Rc<Worker>,
    pub(crate) upstream: Rc<UpstreamState>,
    /// The one endpoint that will do, if the client named it.
    pub(crate) only: Option<Address>,
    pub(crate) head: Parts,
    pub(crate) rewrite: Rewrite,
    /// How the client wrote it.
    pub(crate) spelling: Spelling,
    pub(crate) interim: Option<Interim>,
    pub(crate) body: Replay,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) is_inbound: bool,
    pub(crate) is_grpc: bool,
    /// Endpoints are spoken to in HTTP/2.
    pub(crate) is_http2: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) max_attempts: u32,
    /// Of what the balancer hashes on.
    pub(crate) hash: Option<u64>,
    /// Endpoints by index, one entry an attempt. Hedged attempts write it at the same time.
    pub(crate) tried: RefCell<SmallVec<[usize; 4]>>,
    /// What the client's head has.
    pub(crate) fields: Fields,
    route: Option<usize>,
    arrival: Instant,
    /// When the first attempt may begin; none after it.
    admitted: Cell<Option<Instant>>,
    /// The caller's own deadline.
    deadline: Option<Instant>,
    probe: Option<Probe>,
    running: Running,
    /// Its retries are used up, and by what: callers are told not to add their own.
    spent: Option<&'static str>,
}

impl Call {
    /// What all its attempts have in common.
    fn new(
        connection: &Rc<Connection>,
        target: &Target,
        request: Request<RequestBody>,
        upgrade: Option<Upgrade>,
        record: &Record,
        leave: Leave,
    ) -> Result<Box<Self>, Failure> {
        let (worker, upstream, arrival) = (&connection.worker, &target.upstream, record.arrival());
        let policy = upstream.policy(record.route);
        let route_says = record.route.and_then(|index| upstream.upstream.routes.iter().nth(index)?.is_idempotent);
        let is_idempotent = retry::is_idempotent(&policy.retry, request.method(), request.headers(), route_says);
        let max_attempts = attempts_allowed(policy, request.headers(), record.fields);
        // Also for methods that are not sent twice: a callee that says 421 has not processed them.
        let kept = if max_attempts > 1 { policy.retry.max_body } else { 0 };
        let hash = hash_of(policy, request.headers(), connection.peer);
        let is_http2 = upstream.upstream.protocol.is_http2(request.version() == Version::HTTP_2);
        let (mut head, mut body) = request.into_parts();
        let (spelling, interim) = (body.take_spelling(), body.interim());
        let is_timed = leave.callers.is_some() || record.is_grpc || policy.timeouts.total.is_some();
        let rewrite = Rewrite::new(connection, upstream, &mut head, record, upgrade.is_some(), is_http2, is_timed)?;
        Ok(Box::new(Self {
            worker: Rc::clone(worker),
            upstream: Rc::clone(upstream),
            only: target.only.clone(),
            head,
            rewrite,
            spelling,
            interim,
            body: Replay::new(body, kept, arrival),
            upgrade,
            is_inbound: connection.kind == ListenerKind::Inbound,
            is_grpc: record.is_grpc,
            is_http2,
            is_idempotent,
            max_attempts,
            hash,
            tried: RefCell::default(),
            fields: record.fields,
            route: record.route,
            arrival,
            admitted: Cell::new(Some(leave.since)),
            deadline: leave.callers.and_then(|callers| arrival.checked_add(callers)),
            probe: Some(leave.probe),
            running: leave.running,
            spent: None,
        }))
    }

    /// Sends until there is an answer to pass on, a final failure, or no budget, attempts or time remain. The flag
    /// says that it was the retry budget that ended it.
    async fn run(&mut self, record: &Record) -> Result<Sent, (Failure, bool)> {
        let upstream = Rc::clone(&self.upstream);
        upstream.budget.deposit(self.arrival);
        loop {
            let tried = match self.hedge() {
                None => attempt(self, record).await,
                Some(hedge) => Box::pin(hedged(self, hedge, record)).await,
            };
            let (failure, held) = match tried {
                Ok(sent) => match self.objection(&sent) {
                    None => return Ok(sent),
                    Some(failure) => (failure, Some(sent)),
                },
                Err(failure) => (failure, None),
            };
            let next = self.next(&failure, held.as_ref());
            record.followed(&failure, next);
            let wait = match next {
                Next::Retry(wait) => wait,
                Next::Stop(denied) => {
                    if self.max_attempts > 1 && denied != Denied::Attempts {
                        upstream.meters.retry_denied(&self.worker.shared.metrics, denied.as_str());
                        record.retry_denied.set(Some(denied.as_str()));
                    }
                    self.judge(&failure, held.as_ref(), record);
                    self.spend(denied, held.as_ref(), record);
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

    /// Passes the answer on; the books close with its body. A good one is kept where there is a ticket for it.
    fn answer(
        mut self: Box<Self>,
        sent: Sent,
        mut record: Box<Record>,
        ticket: Option<Ticket>,
    ) -> Response<ResponseBody> {
        let Sent { response, fields, at, exchange } = sent;
        let status = response.status();
        let upgrade = self.upgrade.take().filter(|upgrade| upgrade.is_granted(status, self.is_http2) == Ok(true));
        if let Some(upgrade) = upgrade {
            let (mut head, upstream) = Switched::upstream(response);
            head.version = Version::HTTP_11;
            self.dress(&mut head.headers, fields, true, false);
            head.status = upgrade.grant(&mut head.headers, self.is_http2);
            record.answered(head.status, at);
            respond::debug(&record, &mut head.headers);
            record.shows(&head.headers);
            let (idle, ids) = (self.policy().timeouts.idle, self.ids(&record, fields));
            if let Some(probe) = self.probe.take() {
                record.breaker.set(probe.finish(Verdict::Success, at));
            }
            tunnel::join(upgrade.client, upstream, idle, record, (exchange, self.running));
            return Response::from_parts(head, ResponseBody::empty().telling(ids));
        }
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        let is_retried =
            status.is_server_error() && self.is_inbound && self.worker.shared.spent.has(&record.request_id);
        self.dress(&mut head.headers, fields, false, is_retried);
        record.answered(status, at);
        if self.is_grpc {
            record.grpc_status = grpc_status(&head.headers);
        } else if self.is_judged_by_its_head(status, &head.headers) {
            self.judge_status(status, &record, at);
        }
        let timeouts = &self.policy().timeouts;
        let silence =
            if names::is_stream(&head.headers) { Some(timeouts.idle) } else { timeouts.total.or(Some(timeouts.idle)) };
        let patience = Patience::new(silence, self.deadline, at);
        let keeping = Keeping::begin(ticket, status, &head.headers, &record.trace);
        record.shows(&head.headers);
        respond::debug(&record, &mut head.headers); // after that: what one asked for is not kept for others
        let ids = self.ids(&record, fields);
        buffers::give_fields(self.head.headers);
        let exchange = exchange.holding(self.running);
        let body = ResponseBody::stream(body, exchange, record, self.probe, patience, keeping);
        Response::from_parts(head, body.telling(ids))
    }

    /// When an attempt that begins now begins: the first one right after admission.
    pub(crate) fn starts(&self) -> Instant {
        self.admitted.take().unwrap_or_else(Instant::now)
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
            let since = match self.body.last_progress() {
                _ if self.body.is_awaited() => Instant::now(),
                progress => progress.map_or(started, |progress| progress.max(started)),
            };
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
        let total = if self.is_grpc { Some(timeouts.idle) } else { timeouts.total };
        let since = self.body.last_progress().map_or(self.arrival, |progress| progress.max(self.arrival));
        let ours = total.map(|total| (since + total, Reason::Timeout));
        let callers = self.deadline.map(|callers| (callers, Reason::DeadlineExceeded));
        match (ours, callers) {
            (Some(ours), Some(callers)) => Some(if callers.0 < ours.0 { callers } else { ours }),
            (ours, callers) => ours.or(callers),
        }
    }

    /// Why an answer may not be the last word: its status is one to retry.
    pub(crate) fn objection(&self, sent: &Sent) -> Option<Failure> {
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
        let attempts = self.tried.borrow().len() as u32;
        if attempts >= self.max_attempts {
            return Next::Stop(Denied::Attempts);
        }
        let tried = Tried {
            failure,
            attempts,
            is_idempotent: self.is_idempotent,
            is_replayable: self.body.is_replayable() && self.upgrade.is_none(),
            retry_after: headers.and_then(retry_after),
            remaining: self.remaining(now).map(|(left, _)| left),
            has_other: self.has_other(now),
        };
        retry::next(&self.policy().retry, &tried, &self.upstream.budget, now, self.worker.chance())
    }

    /// An endpoint that was not tried yet exists.
    pub(crate) fn has_other(&self, now: Instant) -> bool {
        self.only.is_none() && self.upstream.has_other(&self.tried.borrow(), now)
    }

    /// How its slow attempts are hedged, if they may be: only what is safe to send twice, and small.
    fn hedge(&self) -> Option<Hedge> {
        let hedge = self.policy().hedge?;
        let is_safe = matches!(self.head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        (is_safe && self.body.is_empty() && self.upgrade.is_none()).then_some(hedge)
    }

    /// An attempt was answered after this long.
    pub(crate) fn took(&self, latency: Duration, now: Instant) {
        if matches!(self.policy().hedge, Some(Hedge { after: HedgeDelay::Quantile(_), .. })) {
            self.upstream.latencies.borrow_mut().record(latency, now);
        }
    }

    /// The breaker's verdict on a request that ended without an answer; with one, [`Call::answer`] gives it.
    fn judge(&mut self, failure: &Failure, held: Option<&Sent>, record: &Record) {
        if held.is_some() {
            return;
        }
        if let Some(probe) = self.probe.take() {
            record.breaker.set(probe.failed(failure.reason));
        }
    }

    /// Tells the tiers above, which would multiply them, that this request's retries are used up, ours or our callee's.
    fn spend(&mut self, denied: Denied, held: Option<&Sent>, record: &Record) {
        if self.is_inbound || self.max_attempts < 2 {
            return;
        }
        self.spent = match denied {
            Denied::Attempts => Some("attempts"),
            Denied::Budget => Some("retry-budget"),
            Denied::Body | Denied::Class | Denied::Deadline | Denied::Method => None,
        };
        let is_told = held.is_some_and(|sent| sent.response.headers().contains_key(X_LICTOR_NO_RETRY));
        if self.spent.is_some() || is_told {
            self.worker.shared.spent.note(&record.request_id);
        }
    }

    /// A good head is a success once its body is whole. Not where that would keep others waiting: a stream may last for
    /// hours, and a probe is alone.
    fn is_judged_by_its_head(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_failure = counts_against(self.policy(), Outcome::Status(status.as_u16()));
        is_failure || names::is_stream(headers) || self.probe.as_ref().is_some_and(Probe::is_of_half_open)
    }

    /// The breaker's verdict on an answer with this status.
    fn judge_status(&mut self, status: StatusCode, record: &Record, now: Instant) {
        if let Some(probe) = self.probe.take() {
            let is_failure = counts_against(self.policy(), Outcome::Status(status.as_u16()));
            let verdict = if is_failure { Verdict::Failure(Reason::Status) } else { Verdict::Success };
            record.breaker.set(probe.finish(verdict, now));
        }
    }

    /// The answer's head, as the client gets it but for its [`Ids`].
    fn dress(&self, headers: &mut HeaderMap, fields: Fields, is_upgraded: bool, is_retried: bool) {
        fields::strip_hop_by_hop(headers, fields, is_upgraded);
        if let Some(why) = self.spent.or(is_retried.then_some("request-id")) {
            headers.insert(X_LICTOR_NO_RETRY, HeaderValue::from_static(why));
        }
        if self.is_inbound && self.worker.shared.is_draining.load(Relaxed) {
            headers.insert(X_LICTOR_DRAINING, HeaderValue::from_static("1"));
        }
    }

    fn ids(&self, record: &Record, fields: Fields) -> Ids {
        let is_legacy = self.worker.view().mesh.trace.legacy;
        Ids {
            request: record.request_id.clone(),
            may_be_set: fields.has(names::IDS),
            trace: is_legacy.then_some(record.trace),
        }
    }
}

pub(crate) fn attempts_allowed(policy: &Policy, headers: &HeaderMap, fields: Fields) -> u32 {
    if !fields.has(names::LICTOR) {
        return policy.retry.attempts;
    }
    if headers.get(X_LICTOR_RETRY).is_some_and(|value| value == "off") {
        return 1;
    }
    // A caller further up is retrying already: one retry here at most, or attempts multiply from tier to tier.
    let is_nested = headers.contains_key(X_LICTOR_ATTEMPT);
    if is_nested { policy.retry.attempts.min(2) } else { policy.retry.attempts }
}

pub(crate) fn hash_of(policy: &Policy, headers: &HeaderMap, peer: Option<SocketAddr>) -> Option<u64> {
    let Algorithm::RingHash(on) = &policy.balance.algorithm else { return None };
    match on {
        HashOn::Header(name) => headers.get(name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::Cookie(name) => cookie(headers, name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::SourceIp => peer.map(|peer| hash_bytes(peer.ip().to_string().as_bytes())),
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

impl UpstreamState {
    /// An endpoint that is not among these, and may be picked.
    pub(crate) fn has_other(&self, tried: &[usize], now: Instant) -> bool {
        let orders = self.upstream.steering.in_force(now);
        self.upstream.endpoints.iter().enumerate().any(|(index, endpoint)| {
            let is_well = !endpoint.health.is_ejected(now) && !endpoint.health.is_draining(now);
            is_well && !tried.contains(&index) && !orders.ejects(&endpoint.key.id)
        })
    }

    pub(crate) fn route(&self, method: &Method, path: &str) -> Option<usize> {
        let routes = &self.upstream.routes;
        if routes.is_empty() {
            return None;
        }
        let found = routes.find(method, path)?;
        routes.iter().position(|route| std::ptr::eq(route, found))
    }

    pub(crate) fn policy(&self, route: Option<usize>) -> &Policy {
        route
            .and_then(|index| self.upstream.routes.iter().nth(index))
            .map_or(&*self.upstream.policy, |route| &*route.policy)
    }
}
