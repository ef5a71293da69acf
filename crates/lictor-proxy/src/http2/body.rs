//! What is read and written on a stream: bodies, and bytes once it is not HTTP's any more.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::frame::Code;
use super::server::Interim;
use super::wire::{Broken, Part, Shared, Wire, store};
use crate::incoming::BodyError;
use crate::stream::Stream;

/// One side of one stream.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) stream: Shared,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Channel {
    /// Gives the stream up. Nothing happens when it is over.
    pub(super) fn cancel(&self, code: Code) {
        self.wire.borrow_mut().cancel(&mut self.stream.borrow_mut(), code);
    }

    /// Ready when the stream has ended early.
    pub(super) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<Broken> {
        let stream = &mut *self.stream.borrow_mut();
        if let Some(broken) = stream.broken {
            return Poll::Ready(broken);
        }
        store(&mut stream.writer, context);
        Poll::Pending
    }

    fn poll_read(&self, context: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
        self.wire.borrow_mut().poll_read(&mut self.stream.borrow_mut(), context)
    }

    /// Writes as much of it as may be written now, at least something; its end with its last byte.
    fn poll_write(&self, data: &mut Bytes, is_last: bool, context: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let (wire, stream) = (&mut *self.wire.borrow_mut(), &mut *self.stream.borrow_mut());
        let count = ready!(wire.poll_window(stream, context))?.min(data.len());
        let part = data.split_to(count);
        wire.write_data(stream, part, is_last && data.is_empty());
        Poll::Ready(Ok(count))
    }

    /// Ready when a little more may be written.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.wire.borrow_mut().poll_room(&mut self.stream.borrow_mut(), context)
    }

    fn poll_end(&self, trailers: &HeaderMap, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.poll_room(context))?;
        self.end(trailers);
        Poll::Ready(Ok(()))
    }

    fn end(&self, trailers: &HeaderMap) {
        let (wire, stream) = (&mut *self.wire.borrow_mut(), &mut *self.stream.borrow_mut());
        if trailers.is_empty() {
            return wire.write_data(stream, Bytes::new(), true);
        }
        wire.write_fields(stream, true, |fields| {
            for (name, value) in trailers {
                fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            }
        });
    }
}

/// A body that comes.
#[derive(Debug)]
pub(crate) struct Body {
    channel: Channel,
    /// A request's, or an answer's: without it nobody waits for the stream any more.
    is_answer: bool,
    /// The client waits for a 100 before it sends anything.
    expects_continue: bool,
    /// The stream carries bytes of something else, or will if that is granted: they are not a body.
    is_tunnel: bool,
    handover: Option<oneshot::Receiver<Stream>>,
}

impl Body {
    pub(super) fn request(
        channel: Channel,
        expects_continue: bool,
        handover: Option<oneshot::Receiver<Stream>>,
    ) -> Self {
        Self { channel, is_answer: false, expects_continue, is_tunnel: handover.is_some(), handover }
    }

    pub(super) fn answer(channel: Channel) -> Self {
        Self { channel, is_answer: true, expects_continue: false, is_tunnel: false, handover: None }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where interim answers to this request go.
    pub(crate) fn interim(&self) -> Interim {
        Interim::new(self.channel.clone())
    }

    /// The stream's bytes, once an upgrade or CONNECT was granted.
    pub(crate) fn handover(&mut self) -> Option<oneshot::Receiver<Stream>> {
        self.handover.take()
    }

    /// The bytes, after an upgrade.
    pub(crate) fn into_stream(mut self) -> Stream {
        self.is_tunnel = true;
        Stream::Http2(Box::new(Tunnel::new(self.channel.clone())))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.is_tunnel {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.expects_continue) && !this.channel.stream.borrow().is_ended() {
            this.interim().status(StatusCode::CONTINUE);
        }
        Poll::Ready(match ready!(this.channel.poll_read(context)) {
            Some(Ok(Part::Data(data))) => Some(Ok(Frame::data(data))),
            Some(Ok(Part::Trailers(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Some(Err(Broken::Malformed(why))) => Some(Err(BodyError::Malformed(why))),
            Some(Err(Broken::Reset(_) | Broken::Refused(_) | Broken::Cut | Broken::Cancelled)) => {
                Some(Err(BodyError::Cut))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_tunnel || self.channel.stream.borrow().is_read()
    }

    fn size_hint(&self) -> SizeHint {
        match self.channel.stream.borrow().left() {
            _ if self.is_tunnel => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        match () {
            () if self.is_tunnel => (),
            () if self.is_answer => self.channel.cancel(Code::CANCEL),
            () => self.channel.wire.borrow_mut().abandon(&mut self.channel.stream.borrow_mut()),
        }
    }
}

/// A body that goes.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    body: B,
    data: Bytes,
    is_last: bool,
    written: u64,
    /// What comes when there is no more data.
    trailers: Option<HeaderMap>,
}

/// Why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It has no end.
    Body,
    /// The stream has ended.
    Stream(Broken),
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Outgoing<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, data: Bytes::new(), is_last: false, written: 0, trailers: None }
    }

    /// There is something to write, and no window or room for it.
    pub(super) fn is_blocked(&self) -> bool {
        !self.data.is_empty() || self.trailers.is_some()
    }

    /// Content so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Ready when all of it is written, or cannot be.
    pub(super) fn poll(&mut self, channel: &Channel, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            while !self.data.is_empty() {
                let written = ready!(channel.poll_write(&mut self.data, self.is_last, context));
                self.written += written.map_err(Unsent::Stream)? as u64;
                if self.data.is_empty() && self.is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            if let Some(trailers) = &self.trailers {
                return channel.poll_end(trailers, context).map_err(Unsent::Stream);
            }
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Unsent::Body)),
                Poll::Ready(None) => {
                    self.trailers = Some(HeaderMap::new());
                    continue;
                }
                Poll::Pending => {
                    return channel.poll_broken(context).map(|broken| Err(Unsent::Stream(broken)));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    (self.data, self.is_last) = (data, self.body.is_end_stream());
                    if self.data.is_empty() && self.is_last {
                        self.trailers = Some(HeaderMap::new());
                    }
                }
                Err(frame) => self.trailers = Some(frame.into_trailers().unwrap_or_default()),
            }
        }
    }

    /// Writes the rest in a task of its own.
    pub(super) async fn finish(mut self, channel: Channel) {
        if poll_fn(|context| self.poll(&channel, context)).await == Err(Unsent::Body) {
            channel.cancel(Code::CANCEL);
        }
    }
}

/// The bytes of a stream that is not HTTP's any more.
#[derive(Debug)]
pub(crate) struct Tunnel {
    channel: Channel,
    ahead: Bytes,
}

impl Tunnel {
    pub(super) fn new(channel: Channel) -> Self {
        channel.stream.borrow_mut().reclaim();
        Self { channel, ahead: Bytes::new() }
    }
}

fn broken(broken: Broken) -> io::Error {
    let kind = match broken {
        Broken::Cut => io::ErrorKind::UnexpectedEof,
        Broken::Reset(_) | Broken::Refused(_) | Broken::Malformed(_) | Broken::Cancelled => {
            io::ErrorKind::ConnectionReset
        }
    };
    kind.into()
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            match ready!(self.channel.poll_read(context)) {
                Some(Ok(Part::Data(data))) => self.ahead = data,
                Some(Ok(Part::Trailers(_)) | Err(Broken::Reset(Code::NO_ERROR | Code::CANCEL))) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (wire, stream) = (&mut *self.channel.wire.borrow_mut(), &mut *self.channel.stream.borrow_mut());
        let count = ready!(wire.poll_window(stream, context)).map_err(broken)?.min(bytes.len());
        wire.write_data(stream, Bytes::copy_from_slice(&bytes[..count]), false);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_open = {
            let stream = self.channel.stream.borrow();
            !stream.is_sent() && stream.broken.is_none()
        };
        if is_open {
            self.channel.end(&HeaderMap::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.channel.cancel(Code::CANCEL);
    }
}
