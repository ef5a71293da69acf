//! What goes: heads, DATA and trailers, as far as the windows and the room in [`Output`](super::Output) reach. A stream that
//! must wait is let on in its turn. What a stream carries is decided by its task.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::super::frame::{self, Code};
use super::super::hpack::Encoder;
use super::receive::Unanswered;
use super::state::Wire;
use super::stream::{Broken, Stream, store, wake};
use crate::stream::Stream as Socket;

/// No more is gathered before it is written.
pub(super) const OUT_MAX: usize = 64 << 10;

impl Wire {
    /// Ready when a stream of ours may begin, or never will. For some it must be known what the peer understands.
    pub(in crate::http2) fn poll_start(&mut self, needs_settings: bool, context: &mut Context<'_>) -> Poll<()> {
        let is_known = self.peer.is_known || !needs_settings;
        if self.is_over || self.is_closing || (is_known && self.has_room()) {
            return Poll::Ready(());
        }
        self.waiting.push(context.waker().clone());
        Poll::Pending
    }

    /// A little more may be written that no window is for.
    pub(in crate::http2) fn has_room(&self) -> bool {
        self.out.len() < OUT_MAX
    }

    /// Ready when a little more may be written on a stream, that has no window.
    pub(in crate::http2) fn poll_room(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if let Some(broken) = stream.broken {
            return Poll::Ready(Err(broken));
        }
        if !self.has_room() {
            self.block(stream);
            store(&mut stream.writer, context);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes may be written on a stream now, at least 1.
    pub(in crate::http2) fn poll_window(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        ready!(self.poll_room(stream, context))?;
        let window = stream.send_window.min(self.send_window);
        if window > 0 {
            return Poll::Ready(Ok(window.min(frame::PAYLOAD_MAX as i64) as usize));
        }
        if self.send_window <= 0 {
            self.block(stream);
        }
        store(&mut stream.writer, context);
        Poll::Pending
    }

    fn block(&mut self, stream: &mut Stream) {
        if !stream.is_blocked {
            stream.is_blocked = true;
            let has_written = std::mem::take(&mut stream.has_written);
            (if has_written { &mut self.behind } else { &mut self.blocked }).push(stream.id);
        }
    }

    /// Writes a head or trailers.
    pub(in crate::http2) fn write_fields(
        &mut self,
        stream: &mut Stream,
        is_end: bool,
        write: impl FnOnce(&mut Encoder<'_>),
    ) {
        self.write_head(stream.id, is_end, write);
        if is_end {
            self.sent(stream);
        }
    }

    /// Answers what was refused: a head says it all, so that what would describe a body is left out.
    pub(in crate::http2) fn decline(&mut self, unanswered: Unanswered, status: StatusCode, headers: &HeaderMap) {
        let Unanswered { id, is_end } = unanswered;
        self.write_head(id, true, |fields| {
            fields.status(status);
            for (name, value) in headers.iter().filter(|(name, _)| **name != CONTENT_TYPE) {
                fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            }
        });
        if !is_end {
            self.forget(id, Code::NO_ERROR);
        }
    }

    fn write_head(&mut self, id: u32, is_end: bool, write: impl FnOnce(&mut Encoder<'_>)) {
        let out = self.out.buffer();
        let start = out.len();
        let flags = frame::END_HEADERS | if is_end { frame::END_STREAM } else { 0 };
        frame::head(out, 0, frame::HEADERS, flags, id);
        let mut encoder = Encoder(out);
        if std::mem::take(&mut self.tells_table) {
            encoder.without_table();
        }
        write(&mut encoder);
        let length = out.len() - start - frame::HEAD;
        if length <= frame::PAYLOAD_MAX {
            out[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        } else {
            let block = out.split_off(start + frame::HEAD);
            out.truncate(start);
            continued(out, id, is_end, &block);
        }
        self.wake();
    }

    /// Writes DATA, for which there is a window.
    pub(in crate::http2) fn write_data(&mut self, stream: &mut Stream, data: Bytes, is_end: bool) {
        let count = data.len() as i64;
        stream.send_window -= count;
        stream.has_written = true;
        self.send_window -= count;
        let flags = if is_end { frame::END_STREAM } else { 0 };
        frame::head(self.out.buffer(), data.len(), frame::DATA, flags, stream.id);
        self.out.data(data);
        self.wake();
        if is_end {
            self.sent(stream);
        }
    }

    fn sent(&mut self, stream: &mut Stream) {
        stream.is_sent = true;
        self.settle(stream);
    }

    /// Writes what there is. Who waited for room has it.
    pub(in crate::http2) fn poll_write(
        &mut self,
        socket: &mut Socket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let was_full = !self.has_room();
        let written = self.out.poll_write(socket, context);
        if was_full && self.has_room() {
            self.unblock();
        }
        if written.is_ready() {
            self.calm.replies = 0;
        }
        written
    }

    /// Who waits for the connection's window, or for room, may look again.
    pub(super) fn unblock(&mut self) {
        self.admit();
        let blocked = std::mem::take(&mut self.blocked);
        for id in blocked.into_iter().chain(std::mem::take(&mut self.behind)) {
            if let Some(stream) = self.find(id) {
                let mut stream = stream.borrow_mut();
                stream.is_blocked = false;
                wake(&mut stream.writer);
            }
        }
    }

    /// Who waits to begin a stream may look again.
    pub(super) fn admit(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Splits a block that is too long for one frame (RFC 9113, section 6.10).
fn continued(out: &mut BytesMut, id: u32, is_end: bool, block: &[u8]) {
    let mut pieces = block.chunks(frame::PAYLOAD_MAX).peekable();
    let mut kind = frame::HEADERS;
    while let Some(piece) = pieces.next() {
        let mut flags = if pieces.peek().is_none() { frame::END_HEADERS } else { 0 };
        if kind == frame::HEADERS && is_end {
            flags |= frame::END_STREAM;
        }
        frame::head(out, piece.len(), kind, flags, id);
        out.extend_from_slice(piece);
        kind = frame::CONTINUATION;
    }
}
