//! One try: pick an endpoint, take a connection, send, wait for the head, and tell the endpoint's health how it went.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use lictor_core::deadline::format_grpc_timeout;
use lictor_core::ejection::{is_panic, may_eject};
use lictor_core::policy::Policy;
use lictor_core::{Address, Failure, Reason};
use lictor_http::fields::{Answered, Fields};
use lictor_http::http1::{self, Framing, HeadFields, Outgoing};
use lictor_http::http2::client::Kind;
use lictor_http::http2::{self, Encoder};
use lictor_http::{BodyError, Spelling, WriteHead, decimal};
use tokio::task::spawn_local;
use tracing::warn;

use crate::connect::Millis;
use crate::forward::Call;
use crate::head::names::{
    self, GRPC_TIMEOUT, Looked, X_LICTOR_ATTEMPT, X_LICTOR_DRAINING, X_LICTOR_REASON, X_LICTOR_TO, X_REQUEST_TIMEOUT_MS,
};
use crate::metrics::Outcome;
use crate::permit::Running;
use crate::pool::{Lease, Term};
use crate::record::{Attempt, Record};
use crate::replay::{AnswerBody, RequestBody};
use crate::steer::pick_by_order;
use crate::worker::{EndpointState, UpstreamState};

/// A callee that said it is stopping is left alone for this long; by then Consul has told us too.
const DRAIN_REST: Duration = Duration::from_secs(30);
/// An answer that is thrown away for a retry is read to its end up to this size, to keep its connection.
const DISCARD_MAX: u64 = 64 * 1024;

/// A response head, and what ends with its body.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) response: Response<AnswerBody>,
    /// What its head has.
    pub(crate) fields: Fields,
    /// When the head came.
    pub(crate) at: Instant,
    pub(crate) exchange: Exchange,
}

/// What one exchange holds of an endpoint.
#[derive(Debug)]
pub(crate) struct Exchange {
    hold: Hold,
    endpoint: Busy,
    /// The request's place among the running ones.
    running: Option<Running>,
}

/// A response head as it came.
struct Exchanged {
    response: Response<AnswerBody>,
    fields: Fields,
    hold: Hold,
}

/// What a connection is given back with.
#[derive(Debug)]
enum Hold {
    Http1(Term),
    Http2,
}

impl Exchange {
    /// Keeps the request's place until the response's end.
    pub(crate) fn holding(mut self, running: Running) -> Self {
        self.running = Some(running);
        self
    }

    /// The answer was read to its end.
    pub(crate) fn complete(self, body: AnswerBody, now: Instant) {
        if matches!(self.endpoint.ended, Ended::Well(..)) {
            self.endpoint.state.endpoint.health.succeeded();
        }
        if let (Hold::Http1(term), AnswerBody::Http1(body)) = (self.hold, body)
            && let Some(connection) = body.into_connection()
        {
            self.endpoint.state.pool.give_back(connection, term, now);
        }
    }

    /// The answer broke off, or stalled, within its body: as bad as none.
    pub(crate) fn broke_off(self, record: &Record, reason: Reason) {
        if let Some(upstream) = &record.upstream {
            report(upstream, upstream.policy(record.route), &self.endpoint.state, Outcome::Failed(reason));
        }
    }
}

impl Sent {
    /// Throws the answer away, but keeps the connection if that is cheap.
    pub(crate) fn discard(self) {
        let Self { response, exchange, .. } = self;
        let mut body = response.into_body();
        if body.is_end_stream() {
            exchange.complete(body, Instant::now());
        } else if body.size_hint().upper().is_some_and(|size| size <= DISCARD_MAX) {
            spawn_local(async move {
                use http_body_util::BodyExt;
                let drained = async { while let Some(Ok(_)) = body.frame().await {} };
                if tokio::time::timeout(Duration::from_secs(1), drained).await.is_ok() && body.is_end_stream() {
                    exchange.complete(body, Instant::now());
                }
            });
        }
    }
}

/// An endpoint with one request more in flight, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy {
    state: Rc<EndpointState>,
    began: Instant,
    ended: Ended,
}

#[derive(Debug)]
enum Ended {
    /// Nobody waited: it took at least this long.
    Not,
    /// To its response head, and when that came.
    Well(Duration, Instant),
    /// Failing fast must not attract.
    Badly,
}

impl Busy {
    pub(crate) fn new(state: &Rc<EndpointState>, now: Instant) -> Self {
        state.load.started();
        Self { state: Rc::clone(state), began: now, ended: Ended::Not }
    }

    pub(crate) fn took(&mut self, latency: Duration, now: Instant) {
        self.ended = Ended::Well(latency, now);
    }

    pub(crate) fn failed(&mut self) {
        self.ended = Ended::Badly;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let (now, latency) = match self.ended {
            Ended::Not => {
                let now = Instant::now();
                (now, Some(now.saturating_duration_since(self.began)))
            }
            Ended::Well(latency, at) => (at, Some(latency)),
            Ended::Badly => (Instant::now(), None),
        };
        self.state.load.finished(now, latency);
    }
}

/// An attempt in the books, also when it is abandoned.
struct Trial<'a> {
    record: &'a Record,
    state: &'a Rc<EndpointState>,
    number: usize,
    is_http2: bool,
    began: Instant,
    ended: Option<(Outcome, Duration)>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let (outcome, took) = self.ended.unwrap_or_else(|| (Outcome::Abandoned, self.began.elapsed()));
        let endpoint = Rc::clone(self.state);
        let (number, began, is_http2) = (self.number, self.began, self.is_http2);
        self.record.attempted(Attempt { endpoint, number, outcome, began, took, is_http2, failure: None });
    }
}

/// Tries once.
pub(crate) async fn attempt(call: &Call, record: &Record) -> Result<Sent, Failure> {
    let started = call.starts();
    let index = pick(&call.upstream, call.policy(), &call.tried.borrow(), call.hash, call.only.as_ref(), started)?;
    let number = {
        let mut tried = call.tried.borrow_mut();
        tried.push(index);
        tried.len()
    };
    let state = Rc::clone(&call.upstream.endpoints[index]);
    let mut trial = Trial { record, state: &state, number, is_http2: call.is_http2, began: started, ended: None };
    let mut busy = Busy::new(&state, started);
    let result = exchange(call, &state, number, started).await;
    let outcome = match &result {
        Ok(Exchanged { response, .. }) => Outcome::Status(response.status().as_u16()),
        Err(failure) => Outcome::Failed(failure.reason),
    };
    let now = Instant::now();
    let took = now.saturating_duration_since(started);
    trial.ended = Some((outcome, took));
    drop(trial);
    let is_bad = counts_against(call.policy(), outcome);
    // A good head is a success once its body is whole: `Exchange::complete`.
    if is_bad || call.upgrade.is_some() {
        report(&call.upstream, call.policy(), &state, outcome);
    }
    if is_bad || result.is_err() {
        busy.failed();
    } else {
        busy.took(took, now);
        call.took(took, now);
    }
    let Exchanged { response, fields, hold } = result?;
    let sent = Sent { response, fields, at: now, exchange: Exchange { hold, endpoint: busy, running: None } };
    obey(call, &state, sent)
}

/// Chooses among the endpoints: not tried yet, not ejected, not stopping; each wish is dropped when it leaves none.
/// With `only` there is no choice.
pub(crate) fn pick(
    upstream: &UpstreamState,
    policy: &Policy,
    tried: &[usize],
    hash: Option<u64>,
    only: Option<&Address>,
    now: Instant,
) -> Result<usize, Failure> {
    let endpoints = &upstream.upstream.endpoints;
    let orders = upstream.upstream.steering.in_force(now);
    if !orders.is_empty() {
        return pick_by_order(upstream, &orders, tried, hash, only, now);
    }
    if let Some(only) = only {
        let gone = || Failure::new(Reason::NoEndpoints, format!("{only} is not an instance any more"));
        return endpoints.iter().position(|endpoint| endpoint.address == *only).ok_or_else(gone);
    }
    if endpoints.is_empty() {
        return Err(no_endpoints(upstream));
    }
    let saw_ejected = Cell::new(false);
    let is_rested = |index: usize| {
        let health = &endpoints[index].health;
        let is_ejected = health.is_ejected(now);
        saw_ejected.set(saw_ejected.get() | is_ejected);
        !is_ejected && !health.is_draining(now)
    };
    let is_untried = |index: usize| !tried.contains(&index);
    let picked = upstream
        .balancer
        .pick(now, hash, |index| is_untried(index) && is_rested(index))
        .or_else(|| if tried.is_empty() { None } else { upstream.balancer.pick(now, hash, is_rested) });
    let in_panic = saw_ejected.get() && is_panic(endpoints, policy.balance.panic, now);
    upstream.meters.panic(in_panic);
    if let (false, Some(picked)) = (in_panic, picked) {
        return Ok(picked);
    }
    // Panic, or nothing is left: an ejected or stopping endpoint is better than none.
    upstream
        .balancer
        .pick(now, hash, |index| is_untried(index) && (in_panic || !endpoints[index].health.is_ejected(now)))
        .or_else(|| upstream.balancer.pick(now, hash, |_| in_panic))
        .or(picked)
        .or_else(|| upstream.balancer.pick(now, hash, |index| !endpoints[index].health.is_ejected(now)))
        .ok_or_else(|| {
            let sentence = format!("all {} endpoints are ejected", endpoints.len());
            Failure::new(Reason::AllEjected, sentence)
        })
}

/// Says how many instances there are and why none will do.
pub(crate) fn no_endpoints(upstream: &UpstreamState) -> Failure {
    let census = &upstream.upstream.census;
    let service = &upstream.upstream.service;
    let sentence = if !census.is_known {
        format!("{} has not told the instances of {service} yet", census.source)
    } else if census.total == 0 {
        format!("no instance of {service} is registered")
    } else {
        format!(
            "none of {} instances of {service} can be used ({} critical, {} in maintenance, {} without address or weight)",
            census.total, census.critical, census.maintenance, census.unusable
        )
    };
    Failure::new(Reason::NoEndpoints, sentence).retry_after(Duration::from_secs(1))
}

/// Sends on a pooled connection; when that one turns out to have been closed meanwhile, once more on a new one.
async fn exchange(
    call: &Call,
    state: &Rc<EndpointState>,
    number: usize,
    started: Instant,
) -> Result<Exchanged, Failure> {
    let mut fresh = false;
    loop {
        let lease = connection(call, state, fresh, started).await?;
        let is_reused = match &lease {
            Lease::Http1 { is_reused, .. } | Lease::Http2 { is_reused, .. } => *is_reused,
        };
        let failure = match send(call, state, number, lease, started).await {
            Ok(exchanged) => return Ok(exchanged),
            Err(failure) => failure,
        };
        // The keep-alive race (RFC 9112, section 9.6): the server closed an idle connection as we used it.
        let is_stale = failure.is_unprocessed || (failure.reason == Reason::ResetBeforeResponse && call.is_idempotent);
        if !is_reused || fresh || !is_stale || !call.body.is_replayable() {
            return Err(failure);
        }
        fresh = true;
    }
}

/// A connection that is there, or a new one.
async fn connection(call: &Call, state: &EndpointState, fresh: bool, now: Instant) -> Result<Lease, Failure> {
    let kept = if fresh { None } else { state.pool.kept(&call.policy().pool, call.is_http2, now) };
    match kept {
        Some(lease) => Ok(lease),
        None => Box::pin(dial(call, state, fresh)).await, // seldom, and large: it may speak TLS
    }
}

async fn dial(call: &Call, state: &EndpointState, fresh: bool) -> Result<Lease, Failure> {
    let policy = call.policy();
    let limits = &call.upstream.upstream.in_flight;
    let dial = async {
        if call.is_http2 {
            state.pool.http2(policy, limits, fresh).await
        } else {
            state.pool.http1(policy, limits).await
        }
    };
    match call.remaining(Instant::now()) {
        // Only worth a timer when it may be what ends the connect.
        Some((left, reason)) if left < policy.timeouts.connect => match tokio::time::timeout(left, dial).await {
            Ok(lease) => lease,
            Err(_) => {
                call.worker.shared.metrics.deadline_exceeded("connect");
                let sentence = format!("no connection to {} before the time was over", state.endpoint.address);
                Err(Failure::new(reason, sentence))
            }
        },
        _ => dial.await,
    }
}

async fn send(
    call: &Call,
    state: &EndpointState,
    number: usize,
    lease: Lease,
    started: Instant,
) -> Result<Exchanged, Failure> {
    let sent = match lease {
        Lease::Http1 { connection, .. } => {
            let (connection, term) = connection.lend();
            let body = call.body.body();
            let framing = framing(call, &body);
            let out = head(call, state, number, framing, started);
            let is_head = call.head.method == Method::HEAD;
            let sending =
                pin!(connection.send::<Looked, _>(out, framing, body, is_head, |status, headers, spelling| {
                    tell(call, status, headers, spelling);
                }));
            let sent = until_head(call, sending, started).await;
            sent.map(|sent| match sent {
                Ok(Answered { response, fields }) => {
                    Ok(Exchanged { response: response.map(AnswerBody::Http1), fields, hold: Hold::Http1(term) })
                }
                Err(error) => Err(failed(call, state, error)),
            })
        }
        Lease::Http2 { connection, .. } => {
            let kind = match &call.upgrade {
                Some(_) => Kind::Connect,
                None if call.head.method == Method::HEAD => Kind::Head,
                None => Kind::Other,
            };
            let write = |fields: &mut Encoder<'_>| http2_head(call, state, number, fields, started);
            let (is_once, body) = (!call.is_idempotent, call.body.body());
            let sending = pin!(connection.send::<Looked, _>(kind, is_once, write, body, |status, headers| {
                tell(call, status, headers, &Spelling::default());
            }));
            let sent = until_head(call, sending, started).await;
            sent.map(|sent| match sent {
                Ok(Answered { response, fields }) => {
                    Ok(Exchanged { response: response.map(AnswerBody::Http2), fields, hold: Hold::Http2 })
                }
                Err(error) => Err(http2_failed(call, state, error)),
            })
        }
    };
    sent.unwrap_or_else(|(reason, waited)| Err(late(call, state, reason, waited)))
}

/// Passes an interim answer on, if the client takes such.
fn tell(call: &Call, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
    if let Some(interim) = &call.interim {
        interim.tell(status, headers, spelling);
    }
}

/// Waits for the head as long as policy and caller allow. While the client still sends its body the clock of the
/// upstream has not started.
async fn until_head<F: Future>(
    call: &Call,
    mut sending: Pin<&mut F>,
    started: Instant,
) -> Result<F::Output, (Reason, Duration)> {
    loop {
        let Some((ends, reason)) = call.head_limit(started) else { return Ok(sending.await) };
        if let Ok(output) = tokio::time::timeout_at(ends.into(), sending.as_mut()).await {
            return Ok(output);
        }
        if call.head_limit(started).is_none_or(|(later, _)| later <= Instant::now()) {
            return Err((reason, started.elapsed()));
        }
    }
}

/// How the request's body is written in HTTP/1.1.
fn framing(call: &Call, body: &RequestBody) -> Framing {
    let told = || {
        if !call.fields.has(Fields::CONTENT_LENGTH) {
            return None;
        }
        call.head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    };
    match body.size_hint().exact() {
        Some(length @ 1..) => Framing::Length(length),
        Some(0) if told().is_none() && !matches!(call.head.method, Method::POST | Method::PUT | Method::PATCH) => {
            Framing::None
        }
        Some(0) => Framing::Length(0),
        None => told().map_or(Framing::Chunked, Framing::Length),
    }
}

/// The head as this endpoint gets it in HTTP/1.1.
fn head(call: &Call, state: &EndpointState, number: usize, framing: Framing, now: Instant) -> Outgoing {
    let mut out = Outgoing::default();
    let target = call.head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.request_line(&call.head.method, target);
    let mut fields = HeadFields { out: &mut out, spelling: &call.spelling };
    call.rewrite.write(&call.head.headers, &call.upstream, &call.worker.view(), number, &mut fields);
    attempt_fields(call, state, number, now, &mut fields);
    out.end_head(framing);
    out
}

/// What each attempt tells its endpoint.
fn attempt_fields(call: &Call, state: &EndpointState, number: usize, now: Instant, to: &mut impl WriteHead) {
    if !call.is_inbound {
        to.own(&X_LICTOR_TO, state.to.as_bytes());
        if number > 1 {
            to.own(&X_LICTOR_ATTEMPT, attempt_of(call, number).as_bytes());
        }
    }
    match call.remaining(now) {
        Some((left, _)) if call.is_grpc => to.own(&GRPC_TIMEOUT, format_grpc_timeout(left).as_bytes()),
        Some((left, _)) => to.own(&X_REQUEST_TIMEOUT_MS, decimal(left.as_millis() as u64, &mut [0; 20])),
        None => (),
    }
}

/// `2/3`
fn attempt_of(call: &Call, number: usize) -> String {
    format!("{number}/{}", call.max_attempts.max(number as u32))
}

/// The head as this endpoint gets it in HTTP/2.
fn http2_head(call: &Call, state: &EndpointState, number: usize, fields: &mut Encoder<'_>, now: Instant) {
    fields.method(if call.upgrade.is_some() { &Method::CONNECT } else { &call.head.method });
    fields.scheme(call.upstream.upstream.tls.is_some());
    fields.authority(call.upstream.host.as_bytes());
    fields.path(call.head.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    if let Some(upgrade) = &call.upgrade {
        fields.protocol(upgrade.protocol());
    }
    call.rewrite.write(&call.head.headers, &call.upstream, &call.worker.view(), number, fields);
    attempt_fields(call, state, number, now, fields);
}

/// Why the client's body has no end, if it is that.
fn body_fault(call: &Call) -> Option<Failure> {
    Some(match call.body.fault()? {
        BodyError::Malformed(why) => {
            Failure::new(Reason::BadRequest, format!("the request's body is not valid HTTP: {why}"))
        }
        BodyError::Cut | BodyError::Superseded => {
            Failure::new(Reason::ClientGone, "the client broke its request body off")
        }
    })
}

/// Says why an HTTP/1.1 endpoint has not answered.
fn failed(call: &Call, state: &EndpointState, error: http1::client::SendError) -> Failure {
    use http1::client::SendError;
    let address = &state.endpoint.address;
    match error {
        SendError::Unsent => {
            let sentence = format!("{address} closed the connection before the request was sent");
            Failure::new(Reason::ResetBeforeResponse, sentence).unprocessed()
        }
        SendError::Body => body_fault(call)
            .unwrap_or_else(|| Failure::new(Reason::BadRequest, "the request's body is not as long as its head says")),
        SendError::Malformed(why) => {
            Failure::new(Reason::ProtocolError, format!("{address} answered with invalid HTTP: {why}"))
        }
        SendError::Closed => body_fault(call).unwrap_or_else(|| {
            let sentence = format!("{address} closed the connection before it answered");
            Failure::new(Reason::ResetBeforeResponse, sentence)
        }),
    }
}

/// Says why an HTTP/2 endpoint has not answered.
fn http2_failed(call: &Call, state: &EndpointState, error: http2::client::SendError) -> Failure {
    use http2::client::SendError;
    let address = &state.endpoint.address;
    let reset = |sentence: String| Failure::new(Reason::ResetBeforeResponse, sentence);
    let malformed = |why| Failure::new(Reason::ProtocolError, format!("{address} answered with invalid HTTP: {why}"));
    match error {
        SendError::Unsent => {
            reset(format!("{address} closed the connection before the request was sent")).unprocessed()
        }
        SendError::Refused(code) => reset(format!("{address} refused the stream: {code}")).unprocessed(),
        SendError::Body => body_fault(call)
            .unwrap_or_else(|| Failure::new(Reason::BadRequest, "the request's body is not as long as its head says")),
        SendError::Malformed(why) => malformed(why),
        SendError::Unfit(why) => malformed(why).unprocessed(),
        SendError::Reset(code) => {
            body_fault(call).unwrap_or_else(|| reset(format!("{address} reset the stream: {code}")))
        }
        SendError::Closed => {
            body_fault(call).unwrap_or_else(|| reset(format!("{address} closed the connection before it answered")))
        }
    }
}

fn late(call: &Call, state: &EndpointState, reason: Reason, waited: Duration) -> Failure {
    if reason == Reason::Timeout && call.body.is_awaited() {
        return Failure::new(Reason::RequestTimeout, "the client stopped sending the request's body");
    }
    call.worker.shared.metrics.deadline_exceeded("upstream");
    let address = &state.endpoint.address;
    let waited = Duration::from_millis(waited.as_millis() as u64);
    Failure::new(reason, format!("no answer from {address} within {}", Millis(waited)))
}

/// Tells the endpoint's health, and ejects it when it has failed too often.
pub(crate) fn report(upstream: &UpstreamState, policy: &Policy, state: &EndpointState, outcome: Outcome) {
    let health = &state.endpoint.health;
    if !counts_against(policy, outcome) {
        if matches!(outcome, Outcome::Status(_) | Outcome::Connected) {
            health.succeeded();
        }
        return;
    }
    let now = Instant::now();
    if health.failed(&policy.ejection, now) && may_eject(&upstream.upstream.endpoints, &policy.ejection, now) {
        let rest = health.eject(&policy.ejection, now);
        upstream.meters.ejected();
        warn!(
            target: "lictor::event",
            kind = "endpoint_ejected",
            upstream = %upstream.upstream.name,
            endpoint = %state.endpoint.address,
            for_ms = rest.as_millis() as u64,
            "an endpoint failed too often and is given a rest"
        );
    }
}

/// Whether an outcome is the endpoint's failure.
pub(crate) fn counts_against(policy: &Policy, outcome: Outcome) -> bool {
    let failure = &policy.breaker.failure;
    match outcome {
        Outcome::Status(status) => {
            (status >= 500 && failure.server_errors) || failure.statuses.iter().any(|named| named.as_u16() == status)
        }
        Outcome::Connected | Outcome::Abandoned => false,
        Outcome::Failed(reason) => match reason {
            Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => failure.connect_failure,
            Reason::ProtocolError | Reason::ResetBeforeResponse | Reason::ResetMidResponse => failure.reset,
            Reason::PerTryTimeout | Reason::Timeout => failure.timeout,
            _ => false,
        },
    }
}

/// What a callee's sidecar tells about itself.
fn obey(call: &Call, state: &EndpointState, sent: Sent) -> Result<Sent, Failure> {
    let headers = sent.response.headers();
    if sent.fields.has(names::LICTOR) && headers.contains_key(X_LICTOR_DRAINING) {
        state.endpoint.health.drain(Instant::now() + DRAIN_REST);
    }
    let status = sent.response.status();
    match &call.upgrade {
        Some(upgrade) => {
            upgrade.is_granted(status, call.is_http2)?;
        }
        None if status == StatusCode::SWITCHING_PROTOCOLS => {
            let sentence = format!("{} switched protocols without being asked", state.endpoint.address);
            return Err(Failure::new(Reason::ProtocolError, sentence));
        }
        None => (),
    }
    let is_misdirected = sent.response.status() == StatusCode::MISDIRECTED_REQUEST
        && headers.get(X_LICTOR_REASON).is_some_and(|reason| reason == Reason::Misdirected.as_str());
    if is_misdirected && !call.is_inbound {
        state.endpoint.health.drain(Instant::now() + DRAIN_REST);
        let sentence = format!("{} is not {} any more", state.endpoint.address, call.upstream.upstream.service);
        return Err(Failure::new(Reason::Misdirected, sentence).unprocessed());
    }
    Ok(sent)
}
