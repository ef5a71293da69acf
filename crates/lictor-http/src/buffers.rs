//! Buffers to read into and write from, and maps of fields, kept by the thread while no connection needs them: an idle
//! connection has none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use tokio_util::io::poll_read_buf;

use crate::stream::Stream;

/// A read begins with room for this much.
const ROOM: usize = 16 << 10;
/// While reads fill their room it grows up to this. Reads of 256 KiB cost no less.
const ROOM_MAX: usize = 64 << 10;
/// Buffers that a thread keeps, and maps.
const KEPT: usize = 64;
/// More fields than most heads have.
const FIELDS: usize = 12;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static FIELD_MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room. What is kept finds its room again when nothing refers to its parts any more.
pub(crate) fn take() -> BytesMut {
    let kept = BUFFERS.with_borrow_mut(|buffers| {
        let at = buffers.iter_mut().rposition(|buffer| buffer.try_reclaim(ROOM))?;
        Some(buffers.swap_remove(at))
    });
    kept.unwrap_or_else(|| BytesMut::with_capacity(ROOM))
}

/// Takes a buffer back. Parts of it may still be in use.
pub(crate) fn give(mut buffer: BytesMut) {
    buffer.clear();
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < KEPT && buffer.capacity() > 0 {
            buffers.push(buffer);
        }
    });
}

/// A map for a head's fields.
pub(crate) fn take_fields() -> HeaderMap {
    FIELD_MAPS.with_borrow_mut(Vec::pop).unwrap_or_else(|| HeaderMap::with_capacity(FIELDS))
}

/// Takes a map back whose fields are not needed any more.
pub fn give_fields(mut fields: HeaderMap) {
    fields.clear();
    FIELD_MAPS.with_borrow_mut(|maps| {
        if maps.len() < KEPT && fields.capacity() > 0 {
            maps.push(fields);
        }
    });
}

/// What was read from a connection and not yet used.
#[derive(Debug)]
pub struct ReadAhead {
    /// The bytes, in the order they came in.
    pub bytes: BytesMut,
    /// For the next read.
    room: usize,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), room: ROOM }
    }
}

impl ReadAhead {
    /// Reads some more; 0 is the other side's end. A buffer is taken when there is something to put in it.
    pub(crate) fn poll_fill(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            ready!(stream.poll_readable(context))?;
            self.bytes = take();
        }
        // While parts of what was read are in use, more room is another buffer: half of it will do then.
        let spare = self.bytes.capacity() - self.bytes.len();
        if spare < self.room && !self.bytes.try_reclaim(self.room) && spare < self.room / 2 {
            if self.bytes.is_empty() {
                self.bytes = BytesMut::with_capacity(self.room); // `reserve` would copy what was there
            } else {
                self.bytes.reserve(self.room);
            }
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = ready!(poll_read_buf(Pin::new(stream), context, &mut self.bytes))?;
        if read == room {
            self.room = (self.room * 4).min(ROOM_MAX);
        } else if read < self.room / 4 {
            self.room = (self.room / 2).max(ROOM);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads until the bytes are enough, there are `max` of them or the other side is done, for `at_most` at most: late,
    /// what is there has to do.
    pub(crate) async fn fill_until(
        &mut self,
        stream: &mut Stream,
        is_enough: impl Fn(&[u8]) -> bool,
        max: usize,
        at_most: Duration,
    ) -> io::Result<()> {
        let filling = async {
            while self.bytes.len() < max && !is_enough(&self.bytes) {
                let filled = poll_fn(|context| {
                    let filled = self.poll_fill(stream, context);
                    if filled.is_pending() {
                        self.rest(); // TLS cannot tell without a buffer whether there is something
                    }
                    filled
                });
                if filled.await? == 0 {
                    break;
                }
            }
            Ok(())
        };
        tokio::time::timeout(at_most, filling).await.unwrap_or(Ok(()))
    }

    /// Gives the buffer away while it holds nothing; one that has grown is not worth keeping.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            let buffer = std::mem::take(&mut self.bytes);
            if std::mem::replace(&mut self.room, ROOM) == ROOM {
                give(buffer);
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.bytes.clear();
        self.rest();
    }
}
