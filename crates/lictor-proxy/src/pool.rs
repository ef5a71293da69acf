//! One worker's connections to one endpoint.
//!
//! Invariants:
//! - An HTTP/1.1 connection is in `idle` or lent out, never both; it comes back only when the response before it was
//!   read to its end, so whatever arrives on it next belongs to the next request (RFC 9112, section 9.3).
//! - The most recently used connection goes out first: the rest grow old and are closed.
//! - HTTP/2 connections stay in `shared` while they are lent out, with a count of their streams.
//! - No borrow of a cell lives over an `await`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use lictor_core::limits::{ConnectionPermit, InFlight};
use lictor_core::policy::{Policy, PoolPolicy};
use lictor_core::{Failure, Reason};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use crate::connect::Destination;
use crate::http1::client;
use crate::replay::RequestBody;
use crate::serve::LocalExecutor;
use crate::stream::Stream;
use crate::tls::Alpn;

/// The most of a request's body that is kept for one stream of an endpoint that does not read.
const SEND_AHEAD: usize = 64 << 10;

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
    connection: client::Connection,
    born: Instant,
    used: Instant,
    open: Open,
}

/// An HTTP/2 connection: many requests at a time.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<u32>,
    born: Instant,
}

/// What is known of a connection while it is lent out.
#[derive(Debug)]
pub(crate) struct Term {
    born: Instant,
    open: Open,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Lease {
    /// To be given back with [`Pool::give_back`] when its response was read whole; dropped otherwise.
    Http1 { connection: Exclusive, is_reused: bool },
    /// The guard counts the stream.
    Http2 { sender: http2::SendRequest<RequestBody>, stream: StreamGuard, is_reused: bool },
}

/// Counts one stream of an HTTP/2 connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct StreamGuard(Rc<Shared>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Pool {
    pub(crate) fn new(destination: Destination) -> Self {
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
        let stream = self.destination.connect(Some(Alpn::Http1), policy.timeouts.connect).await?;
        let now = Instant::now();
        let connection = Exclusive { connection: client::Connection::new(stream), born: now, used: now, open };
        Ok(Lease::Http1 { connection, is_reused: false })
    }

    /// A stream on a new HTTP/2 connection, or on one that somebody else has just made.
    pub(crate) async fn http2(&self, policy: &Policy, limits: &Arc<InFlight>, fresh: bool) -> Result<Lease, Failure> {
        let _turn = self.dialling.acquire().await.expect("the semaphore is never closed");
        if !fresh && let Some(lease) = self.share(&policy.pool, Instant::now()) {
            return Ok(lease);
        }
        let open = self.room(policy, limits)?;
        let stream = self.destination.connect(Some(Alpn::Http2), policy.timeouts.connect).await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(SEND_AHEAD)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        spawn_local(async move {
            let _open = open;
            let _ = connection.await;
        });
        let shared = Rc::new(Shared { sender, streams: Cell::new(1), born: Instant::now() });
        self.shared.borrow_mut().push(Rc::clone(&shared));
        Ok(Lease::Http2 { sender: shared.sender.clone(), stream: StreamGuard(shared), is_reused: false })
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
    pub(crate) fn give_back(&self, connection: client::Connection, term: Term) {
        let Term { born, open } = term;
        self.idle.borrow_mut().push(Exclusive { connection, born, used: Instant::now(), open });
    }

    /// Closes what has been idle, or is old, for too long.
    pub(crate) fn sweep(&self, policy: &PoolPolicy, now: Instant) {
        self.idle.borrow_mut().retain_mut(|idle| idle.is_usable(policy, now));
        self.shared.borrow_mut().retain(|shared| shared.is_usable(policy, now) || shared.streams.get() > 0);
    }

    /// Connections now open, and of those, how many wait for a request.
    pub(crate) fn counts(&self) -> (u32, usize) {
        (self.open.get(), self.idle.borrow().len())
    }

    fn take_idle(&self, policy: &PoolPolicy, now: Instant) -> Option<Exclusive> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.pop() {
            if connection.is_usable(policy, now) {
                return Some(connection);
            }
        }
        None
    }

    fn share(&self, policy: &PoolPolicy, now: Instant) -> Option<Lease> {
        let shared = self.shared.borrow();
        let least = shared
            .iter()
            .filter(|shared| shared.is_usable(policy, now) && shared.streams.get() < policy.max_streams)
            .min_by_key(|shared| shared.streams.get())?;
        least.streams.set(least.streams.get() + 1);
        Some(Lease::Http2 { sender: least.sender.clone(), stream: StreamGuard(Rc::clone(least)), is_reused: true })
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

    fn broken(&self, error: &hyper::Error) -> Failure {
        Failure::new(
            Reason::ResetBeforeResponse,
            format!("{} closed the new connection: {error}", self.destination.address),
        )
        .unprocessed()
    }
}

impl Exclusive {
    /// The connection, for one exchange, and what it is given back with.
    pub(crate) fn lend(self) -> (client::Connection, Term) {
        (self.connection, Term { born: self.born, open: self.open })
    }

    fn is_usable(&mut self, policy: &PoolPolicy, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < policy.idle
            && now.saturating_duration_since(self.born) < policy.max_age
            && !self.connection.is_stale()
    }
}

impl Shared {
    fn is_usable(&self, policy: &PoolPolicy, now: Instant) -> bool {
        !self.sender.is_closed() && now.saturating_duration_since(self.born) < policy.max_age
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
