//! Request bodies that can be sent twice.
//!
//! A body streams from the client straight to the upstream; what has passed is kept until it exceeds the policy's
//! `max_body`, and while it is kept another attempt can send it again from the start and go on with the rest. Nothing
//! is read ahead: the upstream's backpressure is the client's.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use lictor_core::gateway::Gateway;
use lictor_core::gateway::grpc_web::Reader;
use lictor_http::fields::strip_trailers;
use lictor_http::{BodyError, RequestBody as Incoming};
use smallvec::SmallVec;
use tokio::time::Sleep;

use crate::names::{strip_managed, strip_vouched};
use crate::world::client::Connection;

/// A smaller piece is kept together with its neighbours.
const SMALL: usize = 1 << 10;

/// The client's body, as the attempts of one request share it.
#[derive(Clone, Debug)]
pub(super) struct Replay(Option<Rc<RefCell<Source>>>);

/// An upstream's body.
pub(super) type AnswerBody = lictor_http::AnswerBody<RequestBody>;

/// The body of one attempt.
#[derive(Debug)]
pub(super) struct RequestBody {
    source: Option<Rc<RefCell<Source>>>,
    attempt: u32,
    position: usize,
    size: SizeHint,
}

/// The client's body is base64, and goes on as what that says. An extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base64;

/// Somebody who sees a request's body as it passes, each byte once.
pub(super) trait Sees: fmt::Debug {
    fn data(&mut self, data: &Bytes);

    /// It is whole.
    fn end(self: Box<Self>);
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    /// What reads it, where it comes in base64.
    reader: Option<Reader>,
    kept: SmallVec<[Bytes; 1]>,
    /// Small pieces that belong after them.
    gathered: BytesMut,
    kept_bytes: usize,
    max_bytes: usize,
    /// False once something passed that is not kept.
    is_whole: bool,
    trailers: Option<HeaderMap>,
    is_ended: bool,
    fault: Option<BodyError>,
    /// Only the newest attempt may read; an abandoned one that is still polled gets an error.
    attempt: u32,
    size: SizeHint,
    progress: Instant,
    /// It came by one that says things itself which no trailer may say.
    gateway: Option<Arc<Gateway>>,
    /// The upstream could take more than the client has sent.
    is_awaited: bool,
    /// The client waits for a 100, and we for the upstream's.
    gate: Option<Gate>,
    seen_by: Option<Box<dyn Sees>>,
}

/// An upstream that says nothing is not waited for any longer: then the client is told to go on (RFC 9110, section 10.1.1).
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);

/// Before a body that its client sends when it is told to.
#[derive(Debug, Default)]
struct Gate {
    until: Option<Pin<Box<Sleep>>>,
    reader: Option<Waker>,
}

impl Gate {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_WITHIN)));
        if until.as_mut().poll(context).is_pending() {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Replay {
    /// `max_bytes` is 0 for requests that are not sent again once a byte has passed.
    pub(super) fn new(
        incoming: Incoming,
        is_base64: Option<Base64>,
        max_bytes: usize,
        now: Instant,
        client: &Connection,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        let reader = is_base64.map(|_| Reader::default());
        let size = if reader.is_some() { SizeHint::default() } else { incoming.size_hint() };
        let gate = incoming.awaits_continue().then(Gate::default);
        let gateway = if client.is_edge() { client.worker.view().mesh.gateway.clone() } else { None };
        Self(Some(Rc::new(RefCell::new(Source {
            incoming,
            reader,
            kept: SmallVec::new(),
            gathered: BytesMut::new(),
            kept_bytes: 0,
            max_bytes,
            is_whole: true,
            trailers: None,
            is_ended: false,
            fault: None,
            attempt: 0,
            size,
            progress: now,
            gateway: gateway.filter(|gateway| !gateway.managed.is_empty()),
            is_awaited: false,
            gate,
            seen_by: None,
        }))))
    }

    /// No body.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The body for the next attempt; earlier attempts' bodies end with an error.
    pub(super) fn body(&self) -> RequestBody {
        let Some(source) = &self.0 else {
            return RequestBody { source: None, attempt: 0, position: 0, size: SizeHint::with_exact(0) };
        };
        let mut shared = source.borrow_mut();
        shared.attempt += 1;
        shared.settle();
        RequestBody { source: Some(Rc::clone(source)), attempt: shared.attempt, position: 0, size: shared.size }
    }

    /// Whether there is no body.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether [`Replay::body`] can still give the whole body.
    pub(super) fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let source = source.borrow();
            source.is_whole && source.fault.is_none()
        })
    }

    /// Somebody else sees it too.
    pub(super) fn show(&self, to: Box<dyn Sees>) {
        match &self.0 {
            Some(source) => source.borrow_mut().seen_by = Some(to),
            None => to.end(),
        }
    }

    /// The upstream wants the body, or says why not.
    pub(super) fn go_on(&self) {
        let gate = self.0.as_ref().and_then(|source| source.borrow_mut().gate.take());
        if let Some(reader) = gate.and_then(|gate| gate.reader) {
            reader.wake();
        }
    }

    /// When the client last gave a byte: until the body is whole, the upstream is not late.
    pub(super) fn last_progress(&self) -> Option<Instant> {
        self.0.as_ref().map(|source| source.borrow().progress)
    }

    /// Whether it is the client that everybody waits for.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|source| source.borrow().is_awaited)
    }

    /// The same, while an attempt still sends it; as it is answered, nothing more is kept for another.
    pub(super) fn unsent(&self) -> Option<Self> {
        let source = self.0.as_ref().filter(|source| Rc::strong_count(source) > 1)?;
        source.borrow_mut().max_bytes = 0;
        Some(Self(Some(Rc::clone(source))))
    }

    /// Why the client's body has no end, if that is so.
    pub(super) fn fault(&self) -> Option<BodyError> {
        self.0.as_ref()?.borrow().fault
    }
}

impl Source {
    /// What the client sends, or what it says in base64.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
            let Some(reader) = &mut self.reader else { return Poll::Ready(frame) };
            let is_end = self.incoming.is_end_stream();
            let mut read = Vec::new();
            let frame = frame.transpose()?;
            let data = frame.as_ref().and_then(Frame::data_ref);
            let is_valid = data.is_none_or(|data| reader.data(data, &mut read).is_ok());
            if !is_valid || ((data.is_none() || is_end) && reader.end().is_err()) {
                return Poll::Ready(Some(Err(BodyError::Malformed("it is not base64"))));
            }
            if data.is_none() {
                return Poll::Ready(frame.map(Ok));
            }
            if is_end || !read.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(read.into()))));
            }
        }
    }

    /// Small pieces are put together: each alone would take more than it holds, and keep alive the buffer it came in.
    fn keep(&mut self, data: &Bytes) {
        if let Some(sees) = &mut self.seen_by {
            sees.data(data);
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.max_bytes {
            self.is_whole = false;
            self.kept = SmallVec::new();
            self.gathered = BytesMut::new();
        } else if data.len() < SMALL && !self.kept.is_empty() {
            self.gathered.extend_from_slice(data);
        } else {
            self.settle();
            self.kept.push(data.clone());
        }
    }

    /// The client's body is whole.
    fn end(&mut self) {
        self.is_ended = true;
        if let Some(sees) = self.seen_by.take() {
            sees.end();
        }
    }

    fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.kept.push(self.gathered.split().freeze());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let Some(source) = self.source.clone() else { return Poll::Ready(None) };
        let mut source = source.borrow_mut();
        if source.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyFailed("superseded by another attempt"))));
        }
        if let Some(data) = source.kept.get(self.position) {
            let data = data.clone();
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if source.is_ended {
            self.source = None;
            return Poll::Ready(source.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if let Some(gate) = &mut source.gate {
            ready!(gate.poll(context));
            source.gate = None;
        }
        let frame = source.poll_incoming(context);
        let came_with_the_head = source.kept_bytes == 0 && !source.is_awaited;
        source.is_awaited = frame.is_pending();
        let frame = ready!(frame);
        if !came_with_the_head {
            source.progress = Instant::now();
        }
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers);
                    strip_vouched(trailers);
                    if let Some(gateway) = &source.gateway {
                        strip_managed(trailers, &gateway.managed);
                    }
                }
                if let Some(data) = frame.data_ref() {
                    source.keep(data);
                    self.position = source.kept.len(); // what is gathered, this attempt has had
                    if source.incoming.is_end_stream() {
                        source.end();
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    source.trailers = Some(trailers.clone());
                    source.end();
                    self.source = None;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                source.fault = Some(error);
                Some(Err(BodyFailed("the client's request body has no end")))
            }
            None => {
                source.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| {
            let source = source.borrow();
            source.is_ended && source.trailers.is_none() && self.position >= source.kept.len()
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

/// Why a request body ended early.
#[derive(Debug)]
pub(super) struct BodyFailed(&'static str);

impl fmt::Display for BodyFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for BodyFailed {}
