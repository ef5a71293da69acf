//! What comes on a client's connection: a request's body, as whoever answers it reads it, and the way back for interim
//! answers. Both share the connection with the [server](super::server), whose task polls them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::body::Decoder;
use super::write::{Framing, Outgoing};
use crate::buffers::ReadAhead;
use crate::counted::counted;
use crate::error::BodyError;
use crate::fields::end_to_end;
use crate::spelling::Spelling;
use crate::stream::Stream;

/// What is read ahead of a request that is being answered: the ones that follow it (pipelining).
const PIPELINE_MAX: usize = 64 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Interim answers that wait for a client that does not read.
const INTERIM_MAX: usize = 64 << 10;

/// The connection, as its requests' bodies share it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) read: ReadAhead,
    /// Of the request that is being answered.
    pub(super) decoder: Decoder,
    /// The client waits for a 100 before it sends the body.
    expects_continue: bool,
    /// Interim answers that are not written yet, in their order.
    interim: BytesMut,
    /// The final answer has begun: no interim one may follow (RFC 9110, section 15.2).
    is_answered: bool,
    /// Requests so far: a body of an earlier one has nothing to read any more.
    number: u64,
}

/// A request's body.
#[derive(Debug)]
pub struct Body {
    wire: Rc<RefCell<Wire>>,
    number: u64,
    size: SizeHint,
    /// More bytes are not taken.
    left: u64,
    spelling: Spelling,
    /// HTTP/1.0 has no interim answers.
    interim: Option<Interim>,
    /// The connection itself, once it has been told that it is upgraded.
    handover: Option<oneshot::Receiver<Stream>>,
}

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub struct Interim {
    wire: Weak<RefCell<Wire>>,
    number: u64,
}

impl Interim {
    /// The client gets it before the final answer, unless it has not read the ones before.
    pub fn tell(&self, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
        let Some(wire) = self.wire.upgrade() else { return };
        let wire = &mut *wire.borrow_mut();
        if wire.number != self.number || wire.is_answered || wire.interim.len() > INTERIM_MAX {
            return;
        }
        if status == StatusCode::CONTINUE {
            return; // each side's own
        }
        let mut out = Outgoing::default();
        out.status_line(status, spelling);
        out.fields(&end_to_end(headers), spelling);
        out.end_head(Framing::None);
        wire.interim.extend_from_slice(out.gathered());
    }
}

impl Wire {
    pub(super) fn new(stream: Stream, read: ReadAhead) -> Self {
        Self {
            stream,
            read,
            decoder: Decoder::Done,
            expects_continue: false,
            interim: BytesMut::new(),
            is_answered: false,
            number: 0,
        }
    }

    /// The final answer begins, once the interim ones are written.
    pub(super) fn answered(&mut self) {
        (self.is_answered, self.expects_continue) = (true, false);
    }

    /// The client waits for a 100, and has sent nothing yet.
    fn awaits_continue(&self) -> bool {
        self.expects_continue && self.read.bytes.is_empty() && !self.decoder.is_done()
    }

    /// Writes what there is of interim answers.
    pub(super) fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.interim))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has gone. Until its body is read that is the body's reader's to find out.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.decoder.is_done() && self.read.bytes.len() < PIPELINE_MAX {
            match ready!(self.read.poll_fill(&mut self.stream, context)) {
                Ok(1..) => (),
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.awaits_continue() {
            self.interim.extend_from_slice(CONTINUE);
        }
        self.expects_continue = false;
        // What the client does not take at once is written by whoever waits for the answer.
        if let Poll::Ready(Err(_)) = self.poll_interim(context) {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        loop {
            match self.decoder.decode(&mut self.read.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => (),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.read.poll_fill(&mut self.stream, context)) {
                Ok(1..) => (),
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BodyError::Cut))),
            }
        }
    }
}

impl Body {
    /// Of the request whose head was read last. `takes_interim` is false for HTTP/1.0, which has no interim answers.
    pub(super) fn next(
        wire: &Rc<RefCell<Wire>>,
        decoder: Decoder,
        expects_continue: bool,
        spelling: Spelling,
        takes_interim: bool,
        handover: Option<oneshot::Receiver<Stream>>,
    ) -> Self {
        let mut now = wire.borrow_mut();
        let size = decoder.size_hint();
        (now.decoder, now.expects_continue, now.is_answered) = (decoder, expects_continue, false);
        now.number += 1;
        let interim = takes_interim.then(|| Interim { wire: Rc::downgrade(wire), number: now.number });
        Self { wire: Rc::clone(wire), number: now.number, size, left: u64::MAX, spelling, interim, handover }
    }

    /// How the head was written; what is left is the usual way.
    pub fn take_spelling(&mut self) -> Spelling {
        std::mem::take(&mut self.spelling)
    }

    /// The client waits for a 100, which it gets when the body is first read.
    pub fn awaits_continue(&self) -> bool {
        let wire = self.wire.borrow();
        wire.number == self.number && wire.awaits_continue()
    }

    /// Takes no more than so many bytes.
    pub fn limit(&mut self, most: u64) {
        self.left = most;
    }

    /// Where interim answers go.
    pub fn interim(&mut self) -> Option<Interim> {
        self.interim.take()
    }

    /// The connection's bytes, once an upgrade or CONNECT was granted.
    pub fn handover(&mut self) -> Option<oneshot::Receiver<Stream>> {
        self.handover.take()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let wire = &mut *this.wire.borrow_mut();
        if wire.number != this.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let frame = ready!(wire.poll_frame(context));
        Poll::Ready(frame.map(|frame| counted(&mut this.left, frame?)))
    }

    fn is_end_stream(&self) -> bool {
        let wire = self.wire.borrow();
        wire.number != self.number || wire.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
