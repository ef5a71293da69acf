//! Bytes, carried as they are: TCP upstreams, CONNECT, and what follows an upgrade.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode};
use lictor_core::breaker::Verdict;
use lictor_core::deadline::{Deadline, End};
use lictor_core::mesh::ListenerKind;
use lictor_core::retry::{self, Asked, Next, Tried};
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_http::fields;
use lictor_http::stream::Stream;
use lictor_tls::Alpn;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::task::spawn_local;
use tokio::time::{timeout, timeout_at};
use tracing::debug;

use super::call::hash_of;
use super::ending::ResponseBody;
use super::frames::{Closing, Frames, closing};
use super::respond;
use super::upgrade::Switched;
use crate::admission::permit::{Probe, Running};
use crate::admission::target::{self, Target};
use crate::books::attempts::{Attempt, blame};
use crate::books::passage::Passage;
use crate::books::record::{EXPIRED, Record};
use crate::choose::exchange::Busy;
use crate::choose::pick::pick;
use crate::choose::verdict::{cause, judge, report};
use crate::clock::{self, Stage};
use crate::stores::outcome::Outcome;
use crate::world::client::Connection;
use crate::world::generation;
use crate::world::room::{Open, Want};
use crate::world::view::{EndpointState, UpstreamState};
use crate::world::worker::Worker;

/// A client that takes nothing is not waited for.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What a WebSocket's client is told that is still connected when the drain timeout is over.
const STOPPING: &str = "this proxy stops, or has other rules now";

/// Carries a connection to an upstream that speaks something else than HTTP.
pub(crate) async fn carry(connection: &Connection, mut stream: Stream) {
    let worker = &connection.worker;
    let mut passage = Passage::open(connection);
    let deadline = Deadline::new(Instant::now(), None);
    let dialled = async {
        connection.check()?;
        let target = match connection.kind() {
            ListenerKind::Upstream(name) => target::whole(worker, &worker.view(), name, &ends(deadline)).await?,
            ListenerKind::Inbound => target::ours(connection, &worker.view())?,
            // HTTP is spoken there.
            ListenerKind::Forward | ListenerKind::Gateway | ListenerKind::Redirect => return Err(generation::gone()),
        };
        passage.upstream = Some(Rc::clone(&target.upstream));
        dial(connection, &target, deadline, Some(Alpn::None), &mut passage.attempts).await
    };
    match dialled.await {
        Ok(Dialled { stream: mut upstream, endpoint, lease }) => {
            passage.endpoint = Some(endpoint);
            let moved = Moved::default();
            passage.reason = relay(connection, &mut stream, &mut upstream, lease.idle(), &moved).await;
            (passage.sent, passage.received) = (moved.sent.get(), moved.received.get());
        }
        Err(failure) => {
            debug!(peer = ?connection.peer, %failure, "a connection was not carried");
            passage.failed(failure);
        }
    }
}

/// Answers a CONNECT (RFC 9110, section 9.3.6): to a known service, or an address of one, and nowhere else. What the
/// client says through it, TLS for one, is between it and the endpoint.
pub(super) async fn connect(
    connection: &Connection,
    mut request: Request<RequestBody>,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    let mut attempts = Vec::new();
    let dialled = async {
        fields::check(&request, record.fields).map_err(|why| Failure::new(Reason::BadRequest, why))?;
        connection.check()?;
        let target = match connection.kind() {
            ListenerKind::Forward => {
                let view = connection.worker.view();
                target::named(&connection.worker, &view, &request, &ends(record.deadline)).await?
            }
            ListenerKind::Upstream(_) | ListenerKind::Inbound | ListenerKind::Gateway | ListenerKind::Redirect => {
                return Err(Failure::new(Reason::BadRequest, "CONNECT is for the forward proxy (outbound.proxy)"));
            }
        };
        record.upstream = Some(Rc::clone(&target.upstream));
        dial(connection, &target, record.deadline, None, &mut attempts).await
    };
    let dialled = dialled.await;
    record.attempts.borrow_mut().extend(attempts); // counted already
    let Dialled { mut stream, lease, .. } = match dialled {
        Ok(dialled) => dialled,
        Err(failure) => return respond::failure(record, &failure, false),
    };
    record.answered(StatusCode::OK, Instant::now());
    let idle = lease.idle();
    let client = Switched::client(&mut request);
    let held = connection.generation.hold(); // it outlives the connection's task
    spawn_local(async move {
        let _lease = (lease, held);
        let Some(mut client) = client.stream().await else { return };
        let moved = Moved::default();
        record.reason = relay(&record.connection, &mut client, &mut stream, idle, &moved).await;
        record.bytes = moved.received.get();
        record.close(Instant::now());
    });
    Response::new(ResponseBody::empty())
}

/// Joins the two sides of an upgraded exchange. `lease` is whatever has to live as long as the connection.
pub(super) fn join(
    client: Switched,
    upstream: Switched,
    idle: Duration,
    mut record: Box<Record>,
    is_socket: bool,
    lease: impl Sized + 'static,
) {
    let held = record.connection.generation.hold(); // it outlives the connection's task
    spawn_local(async move {
        let _lease = (lease, held);
        let (Some(mut client), Some(mut upstream)) = tokio::join!(client.stream(), upstream.stream()) else { return };
        let moved = Moved::default();
        let frames = is_socket.then(RefCell::default);
        let mut marked = Marked { io: &mut client, frames: frames.as_ref() };
        let relayed = relay(&record.connection, &mut marked, &mut upstream, idle, &moved);
        let why = match until(record.expires, relayed).await {
            None => {
                record.expired();
                Some((Closing::PolicyViolation, EXPIRED))
            }
            Some(reason) => {
                record.reason = reason;
                (reason == Some(Reason::Draining)).then_some((Closing::GoingAway, STOPPING))
            }
        };
        record.bytes = moved.received.get();
        record.close(Instant::now()); // the last word may take a while, and is nobody's but ours
        if let Some((status, why)) = why {
            let is_between = frames.is_some_and(|frames| frames.into_inner().is_between());
            last_word(&mut client, status, why, is_between).await;
        }
    });
}

/// Tells a WebSocket's client why it is over, where that does not break a frame, and ends its side. What else is cut off
/// does not look as if it were whole.
async fn last_word(client: &mut (impl AsyncWrite + Unpin), status: Closing, why: &str, is_between: bool) {
    if is_between {
        let _ = timeout(LAST_WORD, client.write_all(&closing(status, why))).await;
    }
    if is_between || status == Closing::PolicyViolation {
        let _ = timeout(LAST_WORD, client.shutdown()).await;
    }
}

/// What comes of it; `None` when its time is over first.
async fn until<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => timeout_at(end.into(), work).await.ok(),
        None => Some(work.await),
    }
}

/// A client's side that knows where the frames begin that it is sent.
struct Marked<'a, T> {
    io: &'a mut T,
    frames: Option<&'a RefCell<Frames>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Marked<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Marked<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.io).poll_write(context, bytes))?;
        if let Some(frames) = self.frames {
            frames.borrow_mut().pass(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(context)
    }
}

/// A connection to an endpoint.
struct Dialled {
    stream: Stream,
    endpoint: Rc<EndpointState>,
    lease: Lease,
}

/// What is held as long as the connection is open.
struct Lease {
    upstream: Rc<UpstreamState>,
    _busy: Busy,
    _open: Open,
    _running: Running,
}

impl Lease {
    fn idle(&self) -> Duration {
        self.upstream.upstream.policy.timeouts.idle
    }
}

/// Connects to an endpoint, or to another one, as often as policy and budget allow; with TLS, where the upstream has it,
/// unless `alpn` is `None`.
async fn dial(
    connection: &Connection,
    target: &Target,
    deadline: Deadline,
    alpn: Option<Alpn>,
    attempts: &mut Vec<Attempt>,
) -> Result<Dialled, Failure> {
    let (worker, upstream) = (&connection.worker, &target.upstream);
    let (policy, metrics) = (&upstream.upstream.policy, &worker.shared.metrics);
    let end = policy.end(deadline);
    let probe = Probe::admit(worker, upstream, None, Instant::now())?;
    let running = Running::enter(worker, upstream, None, end).await?;
    let hash = hash_of(policy, &HeaderMap::new(), connection.client); // of bytes there is no head
    upstream.budget.deposit(deadline.arrival());
    let mut tried = Vec::new();
    loop {
        let began = Instant::now();
        clock::check(end, began)
            .map_err(|end| clock::ran_out(metrics, end, Stage::Queue, "the time was over before it was connected"))?;
        let index = pick(upstream, None, &tried, hash, target.only.as_ref(), began)?;
        tried.push(index);
        let endpoint = Rc::clone(&upstream.endpoints[index]);
        let mut busy = Busy::new(&endpoint, began);
        let want = Want { process: &worker.shared, policy, in_flight: &upstream.upstream.in_flight, end };
        let connected = endpoint.pool.bytes(&want, alpn).await;
        let outcome = connected.as_ref().map_or_else(|failure| Outcome::Failed(failure.reason), |_| Outcome::Connected);
        upstream.meters.attempt(&worker.shared.metrics, outcome, tried.len() as u32);
        let (number, took) = (tried.len(), began.elapsed());
        let attempt =
            Attempt { endpoint: Rc::clone(&endpoint), number, outcome, began, took, is_http2: false, failure: None };
        attempts.push(attempt);
        let judged = judge(policy, outcome, None);
        report(upstream, policy, &endpoint, judged, cause(outcome, None));
        let failure = match connected {
            Ok((stream, open)) => {
                let now = Instant::now();
                busy.took(now.saturating_duration_since(began), now);
                probe.finish(Verdict::Success, now, &|word| blame(None, attempts, word));
                let lease = Lease { upstream: Rc::clone(upstream), _busy: busy, _open: open, _running: running };
                return Ok(Dialled { stream, endpoint, lease });
            }
            Err(failure) => failure,
        };
        endpoint.undialled(&failure);
        busy.ended_badly(judged);
        let next = after(worker, target, end, &failure, &tried);
        if let Some(attempt) = attempts.last_mut() {
            attempt.failure = Some(Box::new((failure.clone(), next)));
        }
        let wait = match next {
            Next::Retry(wait) => wait,
            Next::Stop(_) => {
                probe.failed(failure.reason, &|word| blame(None, attempts, word));
                return Err(failure);
            }
        };
        upstream.meters.retried();
        if let Err(end) = clock::pause(end, wait).await {
            let sentence = format!("the time was over before another attempt; the last: {}", failure.detail);
            probe.failed(end.reason, &|word| blame(None, attempts, word));
            return Err(clock::ran_out(metrics, end, Stage::Connect, sentence));
        }
    }
}

/// When the time for a connection to an upstream ends.
fn ends(deadline: Deadline) -> impl Fn(Option<&UpstreamState>) -> Option<End> {
    move |upstream| match upstream {
        Some(upstream) => upstream.upstream.policy.end(deadline),
        None => deadline.end(None, deadline.arrival()),
    }
}

/// What follows a failed connect. Nothing was sent, so it is always harmless to try elsewhere.
fn after(worker: &Worker, target: &Target, end: Option<End>, failure: &Failure, tried: &[usize]) -> Next {
    let Target { upstream, only, .. } = target;
    let now = Instant::now();
    let tried = Tried {
        failure,
        attempts: tried.len() as u32,
        is_idempotent: true,
        is_replayable: true,
        asked: Asked::Nothing,
        remaining: end.map(|end| end.left(now)),
        has_other: only.is_none() && upstream.has_other(tried, now),
    };
    retry::next(&upstream.upstream.policy.retry, &tried, &upstream.budget, now, worker.chance())
}

/// How much has moved, and when last.
#[derive(Debug)]
struct Moved {
    last: Cell<Instant>,
    /// From the client to the upstream.
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Default for Moved {
    fn default() -> Self {
        Self { last: Cell::new(Instant::now()), sent: Cell::default(), received: Cell::default() }
    }
}

/// Copies both ways until both sides are done: one that is done with sending may go on receiving (half-close). A side
/// that breaks, silence for `idle`, or the end of what admitted the connection, ends it, and is the reason.
async fn relay(
    connection: &Connection,
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    idle: Duration,
    moved: &Moved,
) -> Option<Reason> {
    let broken = Cell::new(None);
    let mut client = Watched { io: client, moved, count: &moved.sent, broken: &broken, broke: Reason::ClientGone };
    let mut upstream =
        Watched { io: upstream, moved, count: &moved.received, broken: &broken, broke: Reason::ResetMidResponse };
    tokio::select! {
        biased;
        result = copy_bidirectional(&mut client, &mut upstream) => result.err().and(broken.get()),
        () = silent(moved, idle) => Some(Reason::Timeout),
        () = connection.generation.until_cut() => Some(Reason::Draining),
    }
}

/// Ends when nothing has moved for `idle`.
async fn silent(moved: &Moved, idle: Duration) {
    loop {
        let until = moved.last.get() + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Notes what was read, and which side broke.
struct Watched<'a, T> {
    io: &'a mut T,
    moved: &'a Moved,
    count: &'a Cell<u64>,
    broken: &'a Cell<Option<Reason>>,
    broke: Reason,
}

impl<T> Watched<'_, T> {
    fn note<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(_)) = result {
            self.broken.set(self.broken.get().or(Some(self.broke)));
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.moved.last.set(Instant::now());
            self.count.set(self.count.get() + (buffer.filled().len() - before) as u64);
        }
        self.note(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.io).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.io).poll_flush(context);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut *self.io).poll_shutdown(context);
        self.note(ended)
    }
}
