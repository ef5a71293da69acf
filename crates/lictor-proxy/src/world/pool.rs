//! One worker's connections to one endpoint.
//!
//! Invariants:
//! - An HTTP/1.1 connection is in `idle` or lent out, never both; it comes back only when the response before it was
//!   read to its end, so whatever arrives on it next belongs to the next request (RFC 9112, section 9.3).
//! - The most recently used connection goes out first: the rest grow old and are closed.
//! - HTTP/2 connections stay in `shared` while they are lent out.
//! - No borrow of a cell lives over an `await`.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::limits::{ConnectionPermit, InFlight};
use lictor_core::policy::{Policy, PoolPolicy};
use lictor_core::{Failure, Reason};
use lictor_http::stream::Stream;
use lictor_http::{http1, http2};
use lictor_tls::Alpn;
use tokio::sync::Semaphore;

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
    /// One HTTP/2 dial at a time: the others wait for its streams.
    dialling: Semaphore,
    open: Rc<Cell<u32>>,
}

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
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: Semaphore::new(1),
            open: Rc::default(),
        }
    }

    /// A connection that is there.
    pub(crate) fn kept(&self, policy: &PoolPolicy, is_http2: bool, now: Instant) -> Option<Lease> {
        if is_http2 {
            return self.share(policy, now);
        }
        self.take_idle(policy, now).map(|connection| Lease::Http1 { connection, is_reused: true })
    }

    /// A new HTTP/1.1 connection.
    pub(crate) async fn http1(&self, policy: &Policy, limits: &Arc<InFlight>) -> Result<Lease, Failure> {
        let open = self.room(policy, limits)?;
        let generation = self.destination.generation();
        let stream = self.destination.connect(Some(Alpn::Http1), policy.timeouts.connect).await?;
        let now = Instant::now();
        let (connection, birth) = (http1::client::Connection::new(stream), Birth { at: now, generation });
        let connection = Exclusive { connection, birth, used: now, open };
        Ok(Lease::Http1 { connection, is_reused: false })
    }

    /// A stream on a new HTTP/2 connection, or on one that somebody else has just made.
    pub(crate) async fn http2(&self, policy: &Policy, limits: &Arc<InFlight>, fresh: bool) -> Result<Lease, Failure> {
        let _turn = self.dialling.acquire().await.expect("the semaphore is never closed");
        if !fresh {
            self.settle().await;
            if let Some(lease) = self.share(&policy.pool, Instant::now()) {
                return Ok(lease);
            }
        }
        let open = self.room(policy, limits)?;
        let generation = self.destination.generation();
        let stream = self.destination.connect(Some(Alpn::Http2), policy.timeouts.connect).await?;
        let connection = http2::client::Connection::new(stream, open);
        let now = Instant::now();
        let shared = Rc::new(Shared { connection, birth: Birth { at: now, generation }, used: Cell::new(now) });
        self.shared.borrow_mut().push(Rc::clone(&shared));
        Ok(Lease::Http2 { connection: shared, is_reused: false })
    }

    /// A connection of its own, for bytes. The guard counts it for as long as it is open.
    pub(crate) async fn bytes(
        &self,
        policy: &Policy,
        limits: &Arc<InFlight>,
        alpn: Option<Alpn>,
    ) -> Result<(Stream, Open), Failure> {
        let open = self.room(policy, limits)?;
        Ok((self.destination.connect(alpn, policy.timeouts.connect).await?, open))
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn give_back(&self, connection: http1::client::Connection, term: Term, now: Instant) {
        let Term { birth, open } = term;
        self.idle.borrow_mut().push(Exclusive { connection, birth, used: now, open });
    }

    /// Closes what has been idle, or is old, for too long.
    pub(super) fn sweep(&self, policy: &PoolPolicy, now: Instant) {
        let generation = self.destination.generation();
        self.idle.borrow_mut().retain_mut(|idle| idle.is_usable(policy, now, generation));
        self.shared.borrow_mut().retain(|shared| shared.is_wanted(policy, now, generation));
    }

    /// Connections now open, and of those, how many wait for a request.
    pub(crate) fn counts(&self) -> (u32, usize) {
        (self.open.get(), self.idle.borrow().len())
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
        Some(Lease::Http2 { connection: Rc::clone(least), is_reused: true })
    }

    /// Waits until the newest server has said how many streams it takes: what is sent before may be refused.
    async fn settle(&self) {
        let newest = self.shared.borrow().last().map(Rc::clone);
        if let Some(newest) = newest {
            let _ = tokio::time::timeout_at((newest.birth.at + SETTLING).into(), newest.settled()).await; // then it is taken for a usual one
        }
    }

    fn room(&self, policy: &Policy, limits: &Arc<InFlight>) -> Result<Open, Failure> {
        let max = policy.limits.max_connections;
        if self.open.get() >= max {
            let sentence =
                format!("all {max} connections to {} are in use (limits.max_connections)", self.destination.address);
            return Err(Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1)));
        }
        self.open.set(self.open.get() + 1);
        Ok(Open { open: Rc::clone(&self.open), _counted: limits.connected() })
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

/// An open connection, counted here and for the process.
#[derive(Debug)]
pub(crate) struct Open {
    open: Rc<Cell<u32>>,
    _counted: ConnectionPermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}
