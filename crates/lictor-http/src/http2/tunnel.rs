//! The bytes of a stream that is not HTTP's any more: after CONNECT, or an upgrade by it (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Channel;
use super::frame::Code;
use super::wire::{Broken, Part};
use crate::stream::{Carried, Stream};

/// A stream's bytes.
#[derive(Debug)]
pub(super) struct Tunnel {
    channel: Channel,
    ahead: Bytes,
}

impl Tunnel {
    /// The bytes of this stream, whose beginning may have been left to nobody.
    pub(super) fn stream(channel: Channel) -> Stream {
        channel.stream.borrow_mut().reclaim();
        Stream::Carried(Box::new(Self { channel, ahead: Bytes::new() }))
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

impl Carried for Tunnel {}
