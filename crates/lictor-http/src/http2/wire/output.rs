//! What a connection has to write: frames in one buffer, and between them large parts of bodies that are not copied.
//! It does not know what a frame is, nor when one may be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::buffers;
use crate::stream::Stream as Socket;

/// A part of a body up to this size is copied to what is around it; a larger one stays where it lies.
pub(super) const COPY_MAX: usize = 4 << 10;

/// What is to be written.
#[derive(Debug, Default)]
pub(in crate::http2) struct Output {
    /// Before what is in `buffer`.
    chain: VecDeque<Bytes>,
    chained: usize,
    buffer: BytesMut,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.chained + self.buffer.len()
    }

    /// Where frames are added.
    pub(in crate::http2) fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() == 0 {
            self.buffer = buffers::take();
        }
        &mut self.buffer
    }

    pub(super) fn data(&mut self, data: Bytes) {
        if data.len() <= COPY_MAX {
            return self.buffer().extend_from_slice(&data);
        }
        let before = self.buffer.split().freeze();
        self.chained += before.len() + data.len();
        self.chain.extend([before, data]);
    }

    pub(super) fn poll_write(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        const SLICES: usize = 32;
        while self.len() > 0 {
            let mut written = if self.chain.is_empty() {
                ready!(Pin::new(&mut *socket).poll_write(context, &self.buffer))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let parts = self.chain.iter().map(|part| &part[..]).chain([&self.buffer[..]]);
                let count = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
                ready!(Pin::new(&mut *socket).poll_write_vectored(context, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            while let Some(part) = self.chain.front_mut().filter(|_| written > 0) {
                let count = written.min(part.len());
                part.advance(count);
                written -= count;
                self.chained -= count;
                if part.is_empty() {
                    self.chain.pop_front();
                }
            }
            if written == self.buffer.len() {
                self.buffer.clear();
            } else {
                self.buffer.advance(written);
            }
        }
        ready!(Pin::new(socket).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    /// Gives the buffer away while there is nothing in it.
    pub(in crate::http2) fn rest(&mut self) {
        if self.len() == 0 && self.buffer.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.buffer));
        }
    }

    #[cfg(any(feature = "laws", test))]
    pub(super) fn written(&self) -> Vec<u8> {
        self.chain.iter().flatten().chain(&self.buffer).copied().collect()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buffer));
    }
}
