//! A body that goes on a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::channel::Channel;
use super::frame::Code;
use super::wire::Broken;

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
