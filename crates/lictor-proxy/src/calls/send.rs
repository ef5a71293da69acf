//! One exchange with an endpoint: a connection that is kept or a new one, the request's head in the version that the endpoint
//! speaks, its body, and the wait for the answer's head.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, VIA};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::Body as _;
use lictor_core::deadline::{End, FIELDS, format_grpc_timeout};
use lictor_core::{Failure, Reason};
use lictor_http::fields::{Answered, Fields, told_length};
use lictor_http::http1::{Framing, HeadFields, Outgoing};
use lictor_http::http2::Encoder;
use lictor_http::http2::client::Kind;
use lictor_http::{Spelling, WriteHead, decimal, target};

use super::call::Call;
use super::replay::{AnswerBody, RequestBody};
use super::unanswered::{http1_failed, http2_failed, late};
use crate::choose::exchange::Hold;
use crate::clock::{self, Stage};
use crate::head::rewrite::Setting;
use crate::names::{self, GRPC_TIMEOUT, Looked, X_LICTOR_ATTEMPT, X_LICTOR_TO, X_REQUEST_TIMEOUT_MS};
use crate::world::pool::Lease;
use crate::world::room::Want;
use crate::world::view::EndpointState;

/// A response head as it came.
pub(super) struct Exchanged {
    pub(super) response: Response<AnswerBody>,
    pub(super) fields: Fields,
    pub(super) hold: Hold,
    /// When there was a connection to send it on: what came before says nothing of the one who answers.
    pub(super) since: Instant,
}

/// Sends on a pooled connection; when that one turns out to have been closed meanwhile, once more on a new one.
pub(super) async fn exchange(
    call: &Call,
    state: &Rc<EndpointState>,
    number: usize,
    started: Instant,
) -> Result<Exchanged, Failure> {
    let (mut fresh, mut began) = (false, started);
    loop {
        let (lease, now) = connection(call, state, fresh, began).await?;
        let is_reused = match &lease {
            Lease::Http1 { is_reused, .. } | Lease::Http2 { is_reused, .. } => *is_reused,
        };
        let failure = match send(call, state, number, lease, now, started).await {
            Err(failure) => failure,
            exchanged => return exchanged,
        };
        // The keep-alive race (RFC 9112, section 9.6): the server closed an idle connection as we used it.
        let is_stale = failure.is_unprocessed || (failure.reason == Reason::ResetBeforeResponse && call.is_idempotent);
        if !is_reused || fresh || !is_stale || !call.body.is_replayable() {
            return Err(failure);
        }
        (fresh, began) = (true, Instant::now());
        clock::check(call.end(), began).map_err(|end| {
            let sentence = "the time was over before it could be sent again";
            clock::ran_out(&call.worker.shared.metrics, end, Stage::Connect, sentence)
        })?;
    }
}

/// A connection that is there, or a new one, and when it was there: there is time left then.
async fn connection(
    call: &Call,
    state: &EndpointState,
    fresh: bool,
    now: Instant,
) -> Result<(Lease, Instant), Failure> {
    let kept = if fresh { None } else { state.pool.kept(&call.policy().pool, call.is_http2, now) };
    match kept {
        Some(lease) => Ok((lease, now)),
        None => Box::pin(dial(call, state, fresh)).await, // seldom, and large: it may speak TLS
    }
}

async fn dial(call: &Call, state: &EndpointState, fresh: bool) -> Result<(Lease, Instant), Failure> {
    let (process, in_flight) = (&call.worker.shared, &call.upstream.upstream.in_flight);
    let want = Want { process, policy: call.policy(), in_flight, end: call.end() };
    let dialled = if call.is_http2 { state.pool.http2(&want, fresh).await } else { state.pool.http1(&want).await };
    let lease = dialled.inspect_err(|failure| state.undialled(failure))?;
    let now = Instant::now();
    if let Err(end) = clock::check(want.end, now) {
        state.pool.unused(lease, now);
        let sentence = format!("no connection to {} before the time was over", state.endpoint.address);
        return Err(clock::ran_out(&process.metrics, end, Stage::Connect, sentence));
    }
    Ok((lease, now))
}

async fn send(
    call: &Call,
    state: &EndpointState,
    number: usize,
    lease: Lease,
    now: Instant,
    started: Instant,
) -> Result<Exchanged, Failure> {
    match lease {
        Lease::Http1 { connection, .. } => {
            let (connection, term) = connection.lend();
            let body = call.body.body();
            let framing = framing(call, &body);
            let out = head(call, state, number, framing, now);
            let is_head = call.head.method == Method::HEAD;
            let sending =
                pin!(connection.send::<Looked, _>(out, framing, body, is_head, |status, headers, spelling| {
                    tell(call, status, headers, spelling);
                }));
            match until_head(call, sending, started).await {
                Ok(Ok(Answered { response, fields })) => {
                    let response = response.map(AnswerBody::Http1);
                    Ok(Exchanged { response, fields, hold: Hold::Http1(term), since: now })
                }
                Ok(Err(error)) => Err(http1_failed(call, state, error)),
                Err((end, waited)) => Err(late(call, state, end, waited)),
            }
        }
        Lease::Http2 { connection, .. } => {
            let kind = match &call.upgrade {
                Some(_) => Kind::Connect,
                None if call.head.method == Method::HEAD => Kind::Head,
                None => Kind::Other,
            };
            // It may have waited for the server to take another stream.
            let write = |fields: &mut Encoder<'_>| http2_head(call, state, number, fields, Instant::now());
            let (is_once, body) = (!call.is_idempotent, call.body.body());
            let sending = pin!(connection.send::<Looked, _>(kind, is_once, write, body, |status, headers| {
                tell(call, status, headers, &Spelling::default());
            }));
            match until_head(call, sending, started).await {
                Ok(Ok(Answered { response, fields })) => {
                    let response = response.map(AnswerBody::Http2);
                    Ok(Exchanged { response, fields, hold: Hold::Http2, since: now })
                }
                Ok(Err(error)) => Err(http2_failed(call, state, error)),
                Err((end, waited)) => Err(late(call, state, end, waited)),
            }
        }
    }
}

/// Passes an interim answer on, if the client takes such; a 100 lets it send its body.
fn tell(call: &Call, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
    if status == StatusCode::CONTINUE {
        call.body.go_on(); // the client's own 100 comes with the first look at its body
    } else if let Some(interim) = &call.interim {
        if !call.is_edge && !call.is_forward {
            return interim.tell(status, headers, spelling);
        }
        let mut headers = headers.clone();
        if call.is_edge {
            names::seal(&mut headers);
        }
        if call.is_forward {
            // A proxy says so in each message that it forwards (RFC 9110, section 7.6.3).
            let version = if call.is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            headers.append(VIA, call.worker.hop.entry(version).clone());
        }
        interim.tell(status, &headers, spelling);
    }
}

/// Waits for the head as long as policy and caller allow. While the client still sends its body the clock of the
/// upstream has not started.
async fn until_head<F: Future>(
    call: &Call,
    mut sending: Pin<&mut F>,
    started: Instant,
) -> Result<F::Output, (End, Duration)> {
    loop {
        let end = match clock::within(call.head_end(started), sending.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(end) => end,
        };
        if call.head_end(started).is_none_or(|later| later.at <= Instant::now()) {
            return Err((end, started.elapsed()));
        }
    }
}

/// How the request's body is written in HTTP/1.1.
fn framing(call: &Call, body: &RequestBody) -> Framing {
    let told = || if call.fields.has(Fields::CONTENT_LENGTH) { told_length(&call.head.headers) } else { None };
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
    out.request_line(&call.head.method, path(call));
    let mut fields = HeadFields { out: &mut out, spelling: &call.spelling };
    write_fields(call, state, number, now, &mut fields);
    out.end_head(framing);
    out
}

/// The path and query, as they came.
fn path(call: &Call) -> &str {
    target::passed(&call.head.uri, call.head.extensions.get())
}

/// The fields of the head, each name's once: the client's, ours, and what the configuration sets in place of either.
fn write_fields(call: &Call, state: &EndpointState, number: usize, now: Instant, to: &mut impl WriteHead) {
    let mut to = Setting::new(to, &call.upstream.upstream.set_headers);
    call.rewrite.write(&call.head.headers, &state.host, &call.worker.view().mesh.trace, number, &mut to);
    attempt_fields(call, state, number, now, &mut to);
    to.end();
}

/// What each attempt tells its endpoint.
fn attempt_fields(call: &Call, state: &EndpointState, number: usize, now: Instant, to: &mut impl WriteHead) {
    if !call.is_inbound {
        to.own(&X_LICTOR_TO, state.to.as_bytes());
        if number > 1 {
            to.own(&X_LICTOR_ATTEMPT, attempt_of(call, number).as_bytes());
        }
    }
    if let Some(token) = &*call.token.borrow() {
        to.own(&AUTHORIZATION, token.as_bytes());
    }
    let Some(left) = call.end().map(|end| end.left(now).max(Duration::from_millis(1))) else { return };
    let name = if call.is_grpc {
        to.own(&GRPC_TIMEOUT, format_grpc_timeout(left).as_bytes());
        &GRPC_TIMEOUT
    } else {
        to.own(&X_REQUEST_TIMEOUT_MS, decimal(left.as_millis() as u64, &mut [0; 20]));
        &X_REQUEST_TIMEOUT_MS
    };
    if call.fields.has(names::DEADLINE) {
        // What the caller said in other words is said in these too: somebody further on may read no others.
        for field in FIELDS.iter().filter(|field| field.name != *name && call.head.headers.contains_key(&field.name)) {
            to.own(&field.name, (field.format)(left).as_bytes());
        }
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
    fields.authority(call.rewrite.host(&state.host));
    fields.path(path(call).as_bytes());
    if let Some(upgrade) = &call.upgrade {
        fields.protocol(upgrade.protocol());
    }
    write_fields(call, state, number, now, fields);
}
