//! A connection to an HTTP/1.1 server: one exchange at a time, driven by whoever wants the answer.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::body::Decoder;
use super::head;
use super::write::{Framing, Outgoing, TURN_MAX, WrongLength};
use crate::buffers::ReadAhead;
use crate::error::BodyError;
use crate::fields::{Answered, Fields, Marks, keeps_for};
use crate::prelude::Prelude;
use crate::spelling::Spelling;
use crate::stream::Stream;

/// A connection between two exchanges.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    read: ReadAhead,
    keeps_for: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// The connection ended before a byte was written: the server has seen nothing.
    Unsent,
    /// The connection ended before the answer's head was whole.
    Closed,
    /// The answer is not HTTP/1.1.
    Malformed(&'static str),
    /// The request's body has no end.
    Body,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("the connection ended before the request was sent"),
            Self::Closed => f.write_str("the connection ended before the answer"),
            Self::Malformed(why) => write!(f, "the answer is not HTTP/1.1: {why}"),
            Self::Body => f.write_str("the request's body has no end"),
        }
    }
}

impl Error for SendError {}

/// A request's body on its way.
struct Sending<B> {
    body: B,
    framing: Framing,
    out: Outgoing,
    is_read: bool,
}

/// An answer's body, and the connection it comes on.
pub struct Body<B> {
    connection: Connection,
    decoder: Decoder,
    /// The server has answered before the request was whole.
    sending: Option<Sending<B>>,
    keeps_alive: bool,
    has_failed: bool,
    /// The request has no end, and who answers waits for that perhaps: what has come by now is all that is read.
    is_unasked: bool,
    spelling: Spelling,
}

impl Connection {
    /// On a stream that nothing was read from or written to yet, but what TLS does.
    pub fn new(stream: Stream) -> Self {
        Self { stream, read: ReadAhead::default(), keeps_for: None }
    }

    /// How long the server said, with its last answer that did, that it keeps the connection while nothing is asked.
    pub fn keeps_for(&self) -> Option<Duration> {
        self.keeps_for
    }

    /// Whether the server has ended it, or said something that nobody asked for.
    pub fn is_stale(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !self.read.bytes.is_empty() || self.read.poll_fill(&mut self.stream, &mut context).is_ready()
    }

    /// Sends a request as it is, for who is no proxy: its `Host` is the target's where it has none of its own (RFC 9112,
    /// section 3.2), and how long its body is, is said by the body. Interim answers are passed over.
    pub async fn ask<B: http_body::Body<Data = Bytes> + Unpin>(
        self,
        request: Request<B>,
    ) -> Result<Response<Box<Body<B>>>, SendError> {
        let (head, body) = request.into_parts();
        let framing = Framing::of_request(&head.method, &body.size_hint());
        let usual = Spelling::default();
        let mut out = Outgoing::default();
        out.request_line(&head.method, head.uri.path_and_query().map_or("/", PathAndQuery::as_str));
        if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key(HOST)) {
            out.line(HOST.as_str().as_bytes(), authority.as_str().as_bytes());
        }
        out.fields(&head.headers, &usual);
        out.end_head(framing);
        let answered = self.send::<(), _>(out, framing, body, head.method == Method::HEAD, |_, _, _| ()).await?;
        Ok(answered.response)
    }

    /// Sends a request, whose head is in `out` already, and waits for the head of its answer, and what that has. Interim
    /// answers before it are told. Dropped before that, it takes the connection with it.
    pub fn send<M: Marks, B: http_body::Body<Data = Bytes> + Unpin>(
        mut self,
        out: Outgoing,
        framing: Framing,
        body: B,
        is_head: bool,
        mut interim: impl FnMut(StatusCode, &HeaderMap, &Spelling),
    ) -> impl Future<Output = Result<Answered<Box<Body<B>>>, SendError>> {
        let mut sending = Some(Sending { body, framing, out, is_read: framing == Framing::None });
        let (mut written, mut seen, mut prelude) = (0, 0, Prelude::default());
        // A block instead of an `async fn`, which would hold its arguments twice.
        async move {
            let head = poll_fn(|context| {
                let Self { stream, read, .. } = &mut self;
                if let Some(active) = &mut sending {
                    let progress = active.poll(stream, context);
                    written = active.out.written();
                    match progress {
                        Poll::Pending => (),
                        Poll::Ready(Err(Failed::Body)) => return Poll::Ready(Err(SendError::Body)),
                        // A server that closed may have said why before.
                        Poll::Ready(Ok(()) | Err(Failed::Io)) => sending = None,
                    }
                }
                loop {
                    if head::may_be_whole(&read.bytes, seen)
                        && let Some(head) = head::response::<M>(&mut read.bytes, is_head, &mut prelude, &mut interim)
                            .map_err(SendError::Malformed)?
                    {
                        return Poll::Ready(Ok(head));
                    }
                    seen = read.bytes.len();
                    match ready!(read.poll_fill(stream, context)) {
                        Ok(1..) => (),
                        Ok(0) | Err(_) if written == 0 => return Poll::Ready(Err(SendError::Unsent)),
                        Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Closed)),
                    }
                }
            })
            .await?;
            if head.fields.has(Fields::OTHER_HOPS) {
                self.keeps_for = keeps_for(head.response.headers()).or(self.keeps_for);
            }
            let body = Body {
                connection: self,
                decoder: Decoder::of(head.length, head.response.headers(), head.fields),
                sending,
                keeps_alive: head.keeps_alive,
                has_failed: false,
                is_unasked: false,
                spelling: head.spelling,
            };
            Ok(Answered { response: head.response.map(|()| Box::new(body)), fields: head.fields })
        }
    }
}

/// What stopped a request's body.
enum Failed {
    Body,
    Io,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Sending<B> {
    /// Writes as much as there is and as the connection takes.
    fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let turn = self.out.written() + TURN_MAX;
        loop {
            let mut is_waiting = false;
            while !self.is_read && !self.out.is_full() {
                match Pin::new(&mut self.body).poll_frame(context) {
                    Poll::Pending => {
                        is_waiting = true;
                        break;
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Failed::Body)),
                    Poll::Ready(Some(Ok(frame))) => self.add(frame).map_err(|_| Failed::Body)?,
                    Poll::Ready(None) => {
                        self.out.end(self.framing, None).map_err(|_| Failed::Body)?;
                        self.is_read = true;
                    }
                }
            }
            ready!(self.out.poll_write(stream, context)).map_err(|_| Failed::Io)?;
            if self.is_read {
                return Poll::Ready(Ok(()));
            }
            if self.out.written() > turn {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if is_waiting {
                return Poll::Pending;
            }
        }
    }

    fn add(&mut self, frame: Frame<Bytes>) -> Result<(), WrongLength> {
        match frame.into_data() {
            Ok(data) => {
                self.out.data(&mut self.framing, data)?;
                // Known to be the end: it goes out with the data.
                if self.body.is_end_stream() && !self.out.is_full() {
                    self.out.end(self.framing, None)?;
                    self.is_read = true;
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                self.out.end(self.framing, trailers.as_ref())?;
                self.is_read = true;
            }
        }
        Ok(())
    }
}

impl<B> Body<B> {
    /// How the head was written; what is left is the usual way.
    pub fn take_spelling(&mut self) -> Spelling {
        std::mem::take(&mut self.spelling)
    }

    /// The connection, if the exchange is over and another one may follow.
    pub fn into_connection(mut self) -> Option<Connection> {
        let is_reusable = self.decoder.is_done()
            && self.sending.is_none()
            && self.keeps_alive
            && !self.has_failed
            && self.connection.read.bytes.is_empty();
        self.connection.read.rest();
        is_reusable.then_some(self.connection)
    }

    /// The bytes, after an upgrade.
    pub fn into_stream(mut self) -> Stream {
        let ahead = std::mem::take(&mut self.connection.read.bytes);
        self.connection.stream.after(ahead)
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Connection { stream, read, .. } = &mut this.connection;
        if let Some(sending) = &mut this.sending
            && let Poll::Ready(result) = sending.poll(stream, context)
        {
            this.has_failed |= result.is_err();
            this.is_unasked = matches!(result, Err(Failed::Body));
            this.sending = None;
        }
        loop {
            match this.decoder.decode(&mut read.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if this.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => (),
                Err(error) => {
                    this.has_failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let filled = match read.poll_fill(stream, context) {
                Poll::Pending if this.is_unasked => return Poll::Ready(Some(Err(BodyError::Cut))),
                filled => ready!(filled),
            };
            match filled {
                Ok(1..) => (),
                ended => {
                    this.keeps_alive = false;
                    let whole = if ended.is_ok() { this.decoder.end() } else { Err(BodyError::Cut) };
                    return Poll::Ready(whole.err().map(Err));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("decoder", &self.decoder)
            .field("keeps_alive", &self.keeps_alive)
            .finish_non_exhaustive()
    }
}
