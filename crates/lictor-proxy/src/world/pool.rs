//! One worker's connections to one endpoint.
//!
//! Invariants:
//! - An HTTP/1.1 connection is in `idle` or lent out, never both; it comes back only when the response before it was
//!   read to its end, so whatever arrives on it next belongs to the next request (RFC 9112, section 9.3).
//! - The most recently used connection goes out first: the rest grow old and are closed.
//! - Where connections are waited for, one that comes back goes to who waits: here, or, when this worker has more than its
//!   share of them, closed, to another worker.
//! - HTTP/2 connections stay in `shared` while they are lent out.
//! - One HTTP/2 connection is dialled at a time; whoever has waited for it takes its result, good or bad.
//! - No borrow of a cell lives over an `await`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::deadline::End;
use lictor_core::limits::Places;
use lictor_core::policy::{Policy, PoolPolicy};
use lictor_core::{Failure, Reason};
use lictor_http::stream::Stream;
use lictor_http::{http1, http2};
use lictor_tls::Alpn;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::spawn_local;

use super::room::{Come, Open, Room, Want};
use crate::clock::{self, Stage};
use crate::net::dial::Destination;

/// How long a server may take to say how many streams it takes. After that it is taken for a usual one.
const SETTLING: Duration = Duration::from_secs(1);
/// So long before a server closes an idle connection it is not used any more, or half its time if that is less.
const MARGIN: Duration = Duration::from_secs(1);
/// Streams that a usual server takes.
const STREAMS_USUAL: u32 = 100;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    destination: Destination,
    idle: RefCell<Vec<Exclusive>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Those who wait for an HTTP/1.1 connection to come back, in the order in which they came.
    waiting: RefCell<VecDeque<oneshot::Sender<Exclusive>>>,
    /// The result of the HTTP/2 dial that is on its way.
    dialling: RefCell<Option<watch::Receiver<Dialled>>>,
    /// Those who wait for an HTTP/2 stream, and what tells them that one has ended.
    short_of_streams: Cell<u32>,
    stream_ended: Notify,
    room: Room,
    workers: usize,
}

/// What became of a dial; `None` while it is on its way.
type Dialled = Option<Result<Rc<Shared>, Failure>>;

/// An HTTP/1.1 connection: one request at a time.
#[derive(Debug)]
pub(crate) struct Exclusive {
    connection: http1::client::Connection,
    birth: Birth,
    used: Instant,
    open: Open,
}

/// An HTTP/2 connection: many requests at a time.
#[derive(Debug)]
pub(crate) struct Shared {
    connection: http2::client::Connection,
    birth: Birth,
    /// When somebody used it last, to a second.
    used: Cell<Instant>,
    /// Somebody has used it.
    is_reused: Cell<bool>,
}

/// What is known of a connection while it is lent out.
#[derive(Debug)]
pub(crate) struct Term {
    birth: Birth,
    open: Open,
}

/// What a connection is judged by as it grows old.
#[derive(Clone, Copy, Debug)]
struct Birth {
    at: Instant,
    /// Of those who are believed, before its handshake.
    generation: u64,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Lease {
    /// To be given back with [`Pool::give_back`] when its response was read whole; dropped otherwise.
    Http1 {
        connection: Exclusive,
        is_reused: bool,
    },
    Http2 {
        connection: Rc<Shared>,
        is_reused: bool,
    },
}

impl Deref for Shared {
    type Target = http2::client::Connection;

    fn deref(&self) -> &http2::client::Connection {
        &self.connection
    }
}

impl Pool {
    pub(super) fn new(destination: Destination, places: Arc<Places>, workers: usize) -> Self {
        Self {
            destination,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            dialling: RefCell::default(),
            short_of_streams: Cell::default(),
            stream_ended: Notify::new(),
            room: Room::new(places),
            workers,
        }
    }

    /// A connection that is there.
    pub(crate) fn kept(&self, policy: &PoolPolicy, is_http2: bool, now: Instant) -> Option<Lease> {
        if is_http2 {
            return self.share(policy, now);
        }
        self.take_idle(policy, now).map(|connection| Lease::Http1 { connection, is_reused: true })
    }

    /// Whether a request would not have to wait for a connection, as far as can be seen.
    pub(crate) fn has_room(&self, policy: &Policy) -> bool {
        self.room.is_free(policy.limits.max_connections)
            || !self.idle.borrow().is_empty()
            || !self.shared.borrow().is_empty()
    }

    /// A new HTTP/1.1 connection, or one that came back while there was no room for another.
    pub(crate) async fn http1(&self, want: &Want<'_>) -> Result<Lease, Failure> {
        let open = loop {
            if let Some(open) = self.room.enter(want) {
                break open;
            }
            let (giver, given) = oneshot::channel();
            {
                let mut waiting = self.waiting.borrow_mut();
                waiting.retain(|giver| !giver.is_closed());
                waiting.push_back(giver);
            }
            match self.room.wait(want, &self.destination.address, Some(given)).await? {
                Come::Room(open) => break open,
                Come::Back(mut connection) => {
                    let (now, generation) = (Instant::now(), self.destination.generation());
                    if connection.is_usable(&want.policy.pool, now, generation) {
                        return Ok(Lease::Http1 { connection, is_reused: true });
                    }
                }
            }
        };
        let generation = self.destination.generation();
        let stream = self.connect(want, Some(Alpn::Http1)).await?;
        let now = Instant::now();
        let (connection, birth) = (http1::client::Connection::new(stream), Birth { at: now, generation });
        let connection = Exclusive { connection, birth, used: now, open };
        Ok(Lease::Http1 { connection, is_reused: false })
    }

    /// A stream on an HTTP/2 connection: unless it has to be a `fresh` one, on any that has room.
    pub(crate) async fn http2(self: &Rc<Self>, want: &Want<'_>, mut fresh: bool) -> Result<Lease, Failure> {
        let late = |end| clock::ran_out(&want.process.metrics, end, Stage::Connect, self.no_connection());
        loop {
            if !std::mem::take(&mut fresh) {
                clock::within(want.end, self.settle()).await.map_err(late)?;
                if let Some(lease) = self.share(&want.policy.pool, Instant::now()) {
                    return Ok(lease);
                }
            }
            let mut dialled = self.dialling(want);
            self.short_of_streams.set(self.short_of_streams.get() + 1);
            let _short = Short(&self.short_of_streams);
            let come = async {
                tokio::select! {
                    biased;
                    dialled = dialled.wait_for(Option::is_some) => dialled.ok().and_then(|dialled| dialled.clone()),
                    () = self.stream_ended.notified() => None,
                }
            };
            if let Some(dialled) = clock::within(want.end, come).await.map_err(late)? {
                let connection = dialled?;
                // The first has it for sure. What has ended already is everybody's result; else there may be more streams.
                if !connection.is_reused.replace(true) || connection.is_closed() {
                    return Ok(Lease::Http2 { connection, is_reused: false });
                }
            }
        }
    }

    /// A connection of its own, for bytes. The guard counts it for as long as it is open.
    pub(crate) async fn bytes(&self, want: &Want<'_>, alpn: Option<Alpn>) -> Result<(Stream, Open), Failure> {
        let open = match self.room.enter(want) {
            Some(open) => open,
            None => match self.room.wait(want, &self.destination.address, None::<oneshot::Receiver<()>>).await? {
                Come::Room(open) => open,
                Come::Back(()) => unreachable!("bytes take no connection that comes back"),
            },
        };
        Ok((self.connect(want, alpn).await?, open))
    }

    async fn connect(&self, want: &Want<'_>, alpn: Option<Alpn>) -> Result<Stream, Failure> {
        let connect = self.destination.connect(alpn, want.policy.timeouts.connect);
        let late = |end| clock::ran_out(&want.process.metrics, end, Stage::Connect, self.no_connection());
        clock::within(want.end, connect).await.map_err(late)?
    }

    fn no_connection(&self) -> String {
        format!("no connection to {} before the time was over", self.destination.address)
    }

    /// The HTTP/2 dial that is on its way, or a new one. It goes on when whoever began it leaves: others may wait for it.
    fn dialling(self: &Rc<Self>, want: &Want<'_>) -> watch::Receiver<Dialled> {
        if let Some(dialling) = &*self.dialling.borrow() {
            return dialling.clone();
        }
        let (told, dialled) = watch::channel(None);
        *self.dialling.borrow_mut() = Some(dialled.clone());
        let (pool, shared, in_flight) = (Rc::clone(self), Arc::clone(want.process), Arc::clone(want.in_flight));
        let policy = want.policy.clone();
        spawn_local(async move {
            let want = Want { process: &shared, policy: &policy, in_flight: &in_flight, end: None };
            let dialled = pool.dial_http2(&want).await;
            pool.dialling.take();
            told.send_replace(Some(dialled));
        });
        dialled
    }

    async fn dial_http2(&self, want: &Want<'_>) -> Result<Rc<Shared>, Failure> {
        let generation = self.destination.generation();
        let (stream, open) = self.bytes(want, Some(Alpn::Http2)).await?;
        let connection = http2::client::Connection::new(stream, open);
        let now = Instant::now();
        let (birth, used) = (Birth { at: now, generation }, Cell::new(now));
        let shared = Rc::new(Shared { connection, birth, used, is_reused: Cell::default() });
        self.shared.borrow_mut().push(Rc::clone(&shared));
        Ok(shared)
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn give_back(&self, connection: http1::client::Connection, term: Term, now: Instant) {
        let Term { birth, open } = term;
        self.keep(Exclusive { connection, birth, used: now, open });
    }

    /// Takes back what was not used.
    pub(crate) fn unused(&self, lease: Lease, now: Instant) {
        match lease {
            Lease::Http1 { connection, .. } => self.keep(Exclusive { used: now, ..connection }),
            Lease::Http2 { .. } => self.ended(),
        }
    }

    /// An exchange over HTTP/2 has ended.
    pub(crate) fn ended(&self) {
        if self.short_of_streams.get() > 0 {
            self.stream_ended.notify_one();
        }
    }

    fn keep(&self, mut connection: Exclusive) {
        let waiting = self.room.waiting() as usize;
        if waiting == 0 {
            return self.idle.borrow_mut().push(connection);
        }
        let mut here = self.waiting.borrow_mut();
        here.retain(|giver| !giver.is_closed());
        let is_elsewhere = waiting > here.len();
        if is_elsewhere && self.room.is_above_share(self.workers) {
            return; // closed, and so the next one's, wherever that waits
        }
        while let Some(giver) = here.pop_front() {
            match giver.send(connection) {
                Ok(()) => return,
                Err(unwanted) => connection = unwanted,
            }
        }
        if !is_elsewhere {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Closes idle connections for those who wait on other workers.
    pub(super) fn yield_idle(&self) {
        let waiting = self.room.waiting() as usize;
        if waiting > 0 {
            let mut idle = self.idle.borrow_mut();
            let given = waiting.min(idle.len());
            idle.drain(..given); // the oldest
        }
    }

    /// Closes what has been idle, or is old, for too long.
    pub(super) fn sweep(&self, policy: &PoolPolicy, now: Instant) {
        let generation = self.destination.generation();
        self.idle.borrow_mut().retain_mut(|idle| idle.is_usable(policy, now, generation));
        self.shared.borrow_mut().retain(|shared| shared.is_wanted(policy, now, generation));
    }

    /// Connections now open, and of those, how many wait for a request.
    pub(crate) fn counts(&self) -> (u32, usize) {
        (self.room.open(), self.idle.borrow().len())
    }

    fn take_idle(&self, policy: &PoolPolicy, now: Instant) -> Option<Exclusive> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.pop() {
            if connection.is_usable(policy, now, self.destination.generation()) {
                return Some(connection);
            }
        }
        None
    }

    fn share(&self, policy: &PoolPolicy, now: Instant) -> Option<Lease> {
        let (shared, generation) = (self.shared.borrow(), self.destination.generation());
        let least = shared
            .iter()
            .filter(|shared| shared.is_usable(policy, now, generation))
            .filter(|shared| shared.open() < policy.max_streams.min(shared.max(now)))
            .min_by_key(|shared| shared.open())?;
        least.used.set(now);
        Some(Lease::Http2 { connection: Rc::clone(least), is_reused: least.is_reused.replace(true) })
    }

    /// Waits until the newest server has said how many streams it takes: what is sent before may be refused.
    async fn settle(&self) {
        let newest = self.shared.borrow().last().map(Rc::clone);
        if let Some(newest) = newest {
            // Then it is taken for a usual one.
            let patience = End { at: newest.birth.at + SETTLING, reason: Reason::ConnectTimeout };
            let _ = clock::within(Some(patience), newest.settled()).await;
        }
    }
}

impl Birth {
    fn is_good(self, policy: &PoolPolicy, now: Instant, generation: u64) -> bool {
        now.saturating_duration_since(self.at) < policy.max_age && self.generation == generation
    }
}

impl Exclusive {
    /// The connection, for one exchange, and what it is given back with.
    pub(crate) fn lend(self) -> (http1::client::Connection, Term) {
        (self.connection, Term { birth: self.birth, open: self.open })
    }

    /// How long it may wait for a request: as the policy says, and well before the server closes it, as far as that said
    /// when. A request on its way then would meet the end (RFC 9112, section 9.5).
    fn idle(&self, policy: &PoolPolicy) -> Duration {
        let theirs = |keeps_for: Duration| keeps_for.saturating_sub(MARGIN).max(keeps_for / 2);
        self.connection.keeps_for().map_or(policy.idle, |keeps_for| policy.idle.min(theirs(keeps_for)))
    }

    fn is_usable(&mut self, policy: &PoolPolicy, now: Instant, generation: u64) -> bool {
        now.saturating_duration_since(self.used) < self.idle(policy)
            && self.birth.is_good(policy, now, generation)
            && !self.connection.is_stale()
    }
}

impl Shared {
    /// Streams that may be open on it now.
    fn max(&self, now: Instant) -> u32 {
        let is_settling = now.saturating_duration_since(self.birth.at) < SETTLING;
        self.connection.max().unwrap_or(if is_settling { 1 } else { STREAMS_USUAL })
    }

    fn is_usable(&self, policy: &PoolPolicy, now: Instant, generation: u64) -> bool {
        !self.is_closed() && self.birth.is_good(policy, now, generation)
    }

    /// Asked once a second: it carries something, or may soon.
    fn is_wanted(&self, policy: &PoolPolicy, now: Instant, generation: u64) -> bool {
        if self.open() > 0 {
            self.used.set(now);
            return true;
        }
        self.is_usable(policy, now, generation) && now.saturating_duration_since(self.used.get()) < policy.idle
    }
}

/// Somebody who waits for a stream.
struct Short<'a>(&'a Cell<u32>);

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
