//! What goes: heads, DATA and trailers, as far as the windows and the room in [`Output`](super::Output) reach. A stream that
//! must wait is let on in its turn. What a stream carries is decided by its task.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::super::frame::{self, Code};
use super::super::hpack::Encoder;
use super::receive::Unanswered;
use super::state::Wire;
use super::stream::{Broken, Stream, store, wake};
use super::turns::{LET_ON_MAX, shares};
use crate::stream::Stream as Socket;

/// No more is gathered before it is written.
pub(super) const OUT_MAX: usize = 64 << 10;

impl Wire {
    /// Ready when a stream of ours may begin, or never will. For some it must be known what the peer understands. Who asks
    /// again has the same `ticket`.
    pub(in crate::http2) fn poll_start(
        &mut self,
        ticket: &mut Option<u64>,
        needs_settings: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let is_known = self.peer.is_known || !needs_settings;
        if self.is_over || self.is_closing || (is_known && self.has_room()) {
            return Poll::Ready(());
        }
        self.starters.wait(ticket, context);
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
            if let Some(had) = block(stream) {
                self.for_room.push(stream.id, had);
            }
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
        let own = self.window_of(stream);
        let window = own.min(self.send_window);
        if window > 0 {
            return Poll::Ready(Ok(window.min(frame::PAYLOAD_MAX as i64) as usize));
        }
        stream.is_starved = own <= 0;
        if self.send_window <= 0
            && let Some(had) = block(stream)
        {
            self.for_window.push(stream.id, had);
        }
        store(&mut stream.writer, context);
        Poll::Pending
    }

    /// What the peer lets us send on a stream, whatever the connection's window. It may be less than nothing (RFC 9113,
    /// section 6.9.2).
    pub(super) fn window_of(&self, stream: &Stream) -> i64 {
        self.peer.stream_window + stream.credit
    }

    /// Lets a stream on that waited for its own window, if it has one now.
    pub(super) fn feed(&self, stream: &mut Stream) {
        if stream.is_starved && self.window_of(stream) > 0 {
            stream.is_starved = false;
            wake(&mut stream.writer);
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
        stream.credit -= count;
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

    /// Writes what there is.
    pub(in crate::http2) fn poll_write(
        &mut self,
        socket: &mut Socket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let was_full = !self.has_room();
        let written = self.out.poll_write(socket, context);
        if was_full && self.has_room() {
            self.starters.admit();
        }
        if written.is_ready() {
            self.calm.replies = 0;
        }
        written
    }

    /// Lets some of those on who waited for what there is now; true when others are to be let on in the next turn. Who finds
    /// nothing left waits again.
    pub(in crate::http2) fn let_on(&mut self) -> bool {
        if !self.has_room() {
            return false;
        }
        let room = shares(OUT_MAX - self.out.len());
        self.starters.let_on(room);
        for _ in 0..room {
            let Some(id) = self.for_room.pop() else { break };
            self.unblock(id);
        }
        let has_window = self.send_window > 0;
        if has_window {
            for _ in 0..room.min(shares(self.send_window as usize)) {
                let Some(id) = self.for_window.pop() else { break };
                self.unblock(id);
            }
        }
        self.feed_some();
        let waits = has_window && !self.for_window.is_empty();
        waits || !self.for_room.is_empty() || self.starters.is_due() || self.rise.left > 0
    }

    fn unblock(&mut self, id: u32) {
        if let Some(stream) = self.find(id) {
            let mut stream = stream.borrow_mut();
            stream.is_blocked = false;
            wake(&mut stream.writer);
        }
    }

    /// Feeds the next streams, after the last come the first.
    fn feed_some(&mut self) {
        let count = self.rise.left.min(LET_ON_MAX).min(self.streams.len());
        self.rise.left = if count == 0 { 0 } else { self.rise.left - count };
        let first = self.streams.partition_point(|(id, _)| *id <= self.rise.after);
        let (before, after) = self.streams.split_at(first);
        for (id, stream) in after.iter().chain(before).take(count) {
            self.feed(&mut stream.borrow_mut());
            self.rise.after = *id;
        }
    }
}

/// Whether it has had some since it was blocked last; `None` when it is blocked already.
fn block(stream: &mut Stream) -> Option<bool> {
    let is_new = !std::mem::replace(&mut stream.is_blocked, true);
    is_new.then(|| std::mem::take(&mut stream.has_written))
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
