//! A connection to an HTTP/2 server: many requests at a time, each sent by the task that wants its answer.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::task::spawn_local;

use super::body::Body;
use super::channel::Channel;
use super::driver::Driver;
use super::hpack::Encoder;
use super::outgoing::{Outgoing, Unsent};
use super::wire::{Broken, Unstarted, Wire, store};
use crate::buffers::ReadAhead;
use crate::fields::{Answered, Fields, Marks, clean};
use crate::stream::Stream;
use crate::writer::WriteHead;

pub use super::frame::Code;
pub use crate::framing::Kind;

/// A server that is silent for so long while we wait for it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(20);

/// The connection. Its end lets its requests finish, and then closes it.
pub struct Connection {
    wire: Rc<RefCell<Wire>>,
    /// Requests that have no stream yet.
    starting: Cell<u32>,
}

/// One of those.
struct Starting<'a>(&'a Cell<u32>);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection ended before the request was sent.
    Unsent,
    /// The server says that it has not looked at it.
    Refused(Code),
    /// It ended the stream before the answer's head was whole (RFC 9113, section 5.4.2).
    Reset(Code),
    /// The connection ended before the answer's head was whole.
    Closed,
    /// What the server said before the request was sent is not HTTP/2.
    Unfit(&'static str),
    /// The answer is not HTTP/2, or the server does not understand such requests.
    Malformed(&'static str),
    /// The request's body has no end.
    Body,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("the connection ended before the request was sent"),
            Self::Refused(code) => write!(f, "the server has not looked at the request ({code})"),
            Self::Reset(code) => write!(f, "the server reset the request ({code})"),
            Self::Closed => f.write_str("the connection ended before the answer"),
            Self::Unfit(why) => write!(f, "the server does not speak HTTP/2: {why}"),
            Self::Malformed(why) => write!(f, "the answer is not HTTP/2: {why}"),
            Self::Body => f.write_str("the request's body has no end"),
        }
    }
}

impl Error for SendError {}

impl Connection {
    /// On a stream that nothing was read from or written to yet, but what TLS does. Its task is spawned on the thread's
    /// `LocalSet`. `guard` lives as long as the connection is open. A server that is silent for 20 s while something is
    /// asked of it, and for 10 s more after a PING, is given up.
    pub fn new(socket: Stream, guard: impl Sized + 'static) -> Self {
        let driver = Driver::new(Wire::new(true), socket, ReadAhead::default(), SILENCE, true);
        let wire = Rc::clone(driver.wire());
        spawn_local(async move {
            let _guard = guard;
            driver.run().await;
        });
        Self { wire, starting: Cell::new(0) }
    }

    /// No request can be sent any more.
    pub fn is_closed(&self) -> bool {
        let wire = self.wire.borrow();
        wire.is_over || wire.is_closing
    }

    /// Requests on their way.
    pub fn open(&self) -> u32 {
        self.wire.borrow().open() as u32 + self.starting.get()
    }

    /// How many the server lets us have at a time, once it has said.
    pub fn max(&self) -> Option<u32> {
        self.wire.borrow().peer.streams_max()
    }

    /// Ready when it has said what it takes, or is gone.
    pub async fn settled(&self) {
        let mut ticket = None;
        poll_fn(|context| self.wire.borrow_mut().poll_start(&mut ticket, true, context)).await;
    }

    /// Sends a request as it is, for who is no proxy: its authority is the target's, or its `Host`. Interim answers are
    /// passed over.
    pub async fn ask<B: http_body::Body<Data = Bytes> + Unpin + 'static>(
        &self,
        request: Request<B>,
    ) -> Result<Response<Body>, SendError> {
        let (head, body) = request.into_parts();
        let kind = if head.method == Method::HEAD { Kind::Head } else { Kind::Other };
        let write = |fields: &mut Encoder<'_>| {
            fields.method(&head.method);
            fields.scheme(head.uri.scheme() == Some(&Scheme::HTTPS));
            let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
            if let Some(authority) = head.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host) {
                fields.authority(authority);
            }
            fields.path(head.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
            head.headers.iter().filter(|(name, _)| *name != HOST).for_each(|(name, value)| fields.pass(name, value));
        };
        let answered = self.send::<(), _>(kind, !head.method.is_idempotent(), write, body, |_, _| ()).await?;
        Ok(answered.response)
    }

    /// Sends a request, whose head `write` writes, and waits for the head of its answer, and what that has. Interim answers
    /// before it are told, up to 16 that came while nobody looked. While the server takes no more streams it waits. Dropped
    /// before there is an answer, it resets the stream.
    ///
    /// A request that `is_once` must not be sent twice, so it waits until the server has said something. Before that the
    /// connection may be one that only the kernel has accepted: when it ends, nobody knows whether the request was looked at.
    pub async fn send<M: Marks, B: http_body::Body<Data = Bytes> + Unpin + 'static>(
        &self,
        kind: Kind,
        is_once: bool,
        write: impl FnOnce(&mut Encoder<'_>),
        body: B,
        mut interim: impl FnMut(StatusCode, &HeaderMap),
    ) -> Result<Answered<Body>, SendError> {
        let is_connect = kind == Kind::Connect;
        let starting = Starting::new(&self.starting);
        let (needs_settings, mut ticket) = (is_connect || is_once, None);
        poll_fn(|context| self.wire.borrow_mut().poll_start(&mut ticket, needs_settings, context)).await;
        drop(starting);
        let is_end = !is_connect && body.is_end_stream();
        let answer = {
            let wire = &mut *self.wire.borrow_mut();
            if is_connect && wire.peer.is_known && !wire.peer.allows_connect {
                return Err(SendError::Malformed("it takes no WebSocket over HTTP/2 (RFC 8441)"));
            }
            let stream = wire.start(kind).map_err(|unstarted| match unstarted {
                Unstarted::Closed => SendError::Unsent,
                Unstarted::Malformed(why) => SendError::Unfit(why),
                Unstarted::Full => SendError::Refused(Code::REFUSED_STREAM),
            })?;
            wire.write_fields(&mut stream.borrow_mut(), is_end, write);
            Body::answer(Channel { wire: Rc::clone(&self.wire), stream })
        };
        let channel = answer.channel();
        let mut sending = (!is_end && !is_connect).then(|| Outgoing::new(body));
        let mut head = poll_fn(|context| {
            if let Some(active) = &mut sending {
                match active.poll(channel, context) {
                    Poll::Pending => (),
                    Poll::Ready(Err(Unsent::Body)) => return Poll::Ready(Err(SendError::Body)),
                    Poll::Ready(Ok(()) | Err(Unsent::Stream(_))) => sending = None,
                }
            }
            let stream = &mut *channel.stream.borrow_mut();
            for (status, headers) in stream.interim.drain(..) {
                interim(status, &headers);
            }
            if let Some(head) = stream.head.take() {
                return Poll::Ready(Ok(head));
            }
            if let Some(broken) = stream.broken {
                return Poll::Ready(Err(match broken {
                    Broken::Reset(code) => SendError::Reset(code),
                    Broken::Refused(code) => SendError::Refused(code),
                    Broken::Cut | Broken::Cancelled => SendError::Closed,
                    Broken::Malformed(why) => SendError::Malformed(why),
                }));
            }
            store(&mut stream.reader, context);
            Poll::Pending
        })
        .await?;
        if let Some(sending) = sending {
            // The server answers while it is being asked: neither waits for the other.
            spawn_local(sending.finish(channel.clone()));
        }
        let fields = Fields::of::<M>(head.headers());
        let fields = clean::<M>(head.headers_mut(), fields);
        Ok(Answered { response: head.map(|()| answer), fields })
    }
}

impl<'a> Starting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.wire.borrow_mut().shut_down();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.open()).finish_non_exhaustive()
    }
}
