//! A body that comes on a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::channel::Channel;
use super::frame::Code;
use super::interim::Interim;
use super::tunnel::Tunnel;
use super::wire::{Broken, Part};
use crate::counted::counted;
use crate::error::BodyError;
use crate::stream::Stream;

/// A body that comes.
#[derive(Debug)]
pub struct Body {
    channel: Channel,
    /// A request's, or an answer's: without it nobody waits for the stream any more.
    is_answer: bool,
    /// The client waits for a 100 before it sends anything.
    expects_continue: bool,
    /// The stream carries bytes of something else, or will if that is granted: they are not a body.
    is_tunnel: bool,
    handover: Option<oneshot::Receiver<Stream>>,
    /// More bytes are not taken.
    left: u64,
}

impl Body {
    pub(super) fn request(
        channel: Channel,
        expects_continue: bool,
        handover: Option<oneshot::Receiver<Stream>>,
    ) -> Self {
        Self { channel, is_answer: false, expects_continue, is_tunnel: handover.is_some(), handover, left: u64::MAX }
    }

    pub(super) fn answer(channel: Channel) -> Self {
        Self { channel, is_answer: true, expects_continue: false, is_tunnel: false, handover: None, left: u64::MAX }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where interim answers to this request go.
    pub fn interim(&self) -> Interim {
        Interim::new(self.channel.clone())
    }

    /// Takes no more than so many bytes.
    pub fn limit(&mut self, most: u64) {
        self.left = most;
    }

    /// The client waits for a 100, which it gets when the body is first read.
    pub fn awaits_continue(&self) -> bool {
        self.expects_continue && !self.channel.stream.borrow().has_content()
    }

    /// The stream's bytes, once an upgrade or CONNECT was granted.
    pub fn handover(&mut self) -> Option<oneshot::Receiver<Stream>> {
        self.handover.take()
    }

    /// The bytes, after an upgrade.
    pub fn into_stream(mut self) -> Stream {
        self.is_tunnel = true;
        Tunnel::stream(self.channel.clone())
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
        if std::mem::take(&mut this.expects_continue) && !this.channel.stream.borrow().has_content() {
            this.interim().status(StatusCode::CONTINUE);
        }
        Poll::Ready(match ready!(this.channel.poll_read(context)) {
            Some(Ok(Part::Data(data))) => Some(counted(&mut this.left, Frame::data(data))),
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
