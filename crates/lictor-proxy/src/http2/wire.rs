//! What the tasks of one connection share: its streams, the windows, what is to be written. Frames come in through
//! [`Wire::receive`]; nothing here waits or knows a socket.

mod block;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod output;
mod receive;
mod stream;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use lictor_core::Reason;

use self::block::Block;
use self::receive::Unanswered;
use self::stream::{Received, Stream};
use super::client::Kind;
use super::frame::{self, Code};
use super::hpack::{Decoder, Encoder};
use super::message::LIST_MAX;
use crate::incoming::Interim;
use crate::stream::Stream as Socket;

pub(super) use output::Output;
pub(super) use receive::Event;
pub(super) use stream::{Broken, Part, Shared, Unstarted};

/// What a peer may send on a stream before we have read it.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
/// What a client may send on all streams together: it does not make us keep more.
const CLIENT_WINDOW: u32 = 4 << 20;
/// And a server, which answers many who read at their own pace: as much as on all streams, so that those whom nobody
/// reads hold up no other.
const SERVER_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// Streams that a client may have open.
pub(super) const STREAMS_MAX: u32 = 1000;
/// No more is gathered before it is written.
const OUT_MAX: usize = 64 << 10;
/// A part of a body up to this size is copied to what is around it; a larger one stays where it lies.
const COPY_MAX: usize = 4 << 10;
/// DATA of streams that we have reset may still be on its way: of so many we remember that, which is as many as can be
/// reset at a time.
const RESET_KEPT: usize = STREAMS_MAX as usize;
/// The last stream that a client can begin (RFC 9113, section 5.1.1).
const STREAM_LAST: u32 = (1 << 31) - 1;

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    is_client: bool,
    /// What the peer may send before we have read it.
    window: u32,
    /// By number.
    streams: Vec<(u32, Shared)>,
    /// The newest stream of the client.
    newest: u32,
    reset: VecDeque<u32>,
    pub(super) out: Output,
    /// Streams that wait for room in `out` or in the connection's window; those that have had some wait behind.
    blocked: Vec<u32>,
    behind: Vec<u32>,
    /// Who waits for room to begin one, or for the peer's settings.
    waiting: Vec<Waker>,
    send_window: i64,
    recv_window: i64,
    /// Read, but not given back to the peer's window.
    unreturned: u32,
    pub(super) peer: Peer,
    decoder: Decoder,
    block: Option<Block>,
    /// The peer must hear that our blocks use no table.
    tells_table: bool,
    pub(super) driver: Option<Waker>,
    /// A request was given up without an answer: is the peer there?
    pub(super) is_in_doubt: bool,
    calm: Calm,
    /// The client's preface has come.
    has_greeted: bool,
    has_begun: bool,
    /// The last stream that is served; what comes after it is not looked at.
    last_served: Option<u32>,
    /// No stream begins any more.
    pub(super) is_closing: bool,
    /// What the peer did that ended the connection.
    pub(super) fault: Option<Fatal>,
    pub(super) is_over: bool,
}

/// What the peer has told of itself.
#[derive(Debug)]
pub(super) struct Peer {
    stream_window: i64,
    streams_max: u32,
    /// RFC 8441, section 3.
    pub(super) allows_connect: bool,
    pub(super) is_known: bool,
}

impl Peer {
    /// Streams that it lets us have.
    pub(super) fn streams_max(&self) -> Option<u32> {
        self.is_known.then_some(self.streams_max)
    }
}

/// How often the peer may cause work that is for nothing. A stream that is served gives one back, one that is not takes
/// one (CVE-2023-44487, CVE-2025-8671, CVE-2019-9518); answers to its frames that it does not read are few
/// (CVE-2019-9512, CVE-2019-9515).
#[derive(Debug)]
pub(super) struct Calm {
    left: u32,
    replies: u32,
}

impl Calm {
    const MAX: u32 = 1000;
    const REPLIES_MAX: u32 = 1000;

    fn served(&mut self) {
        self.left = (self.left + 1).min(Self::MAX);
    }

    fn wasted(&mut self) -> Result<(), Fatal> {
        self.left = self.left.checked_sub(1).ok_or(Fatal(Code::ENHANCE_YOUR_CALM, "too much for nothing"))?;
        Ok(())
    }

    fn replied(&mut self) -> Result<(), Fatal> {
        self.replies += 1;
        if self.replies > Self::REPLIES_MAX {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM, "too much to answer that nobody reads"));
        }
        Ok(())
    }
}

/// The connection cannot go on (RFC 9113, section 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fatal(pub(super) Code, pub(super) &'static str);

const fn protocol(why: &'static str) -> Fatal {
    Fatal(Code::PROTOCOL_ERROR, why)
}

const SIZE: Fatal = Fatal(Code::FRAME_SIZE_ERROR, "a frame of the wrong size");

impl Wire {
    pub(super) fn new(is_client: bool) -> Self {
        let mut out = Output::default();
        let buffer = out.buffer();
        if is_client {
            buffer.extend_from_slice(frame::PREFACE);
            frame::settings(
                buffer,
                &[
                    (frame::ENABLE_PUSH, 0),
                    (frame::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
                    (frame::MAX_HEADER_LIST_SIZE, LIST_MAX as u32),
                ],
            );
        } else {
            frame::settings(
                buffer,
                &[
                    (frame::MAX_CONCURRENT_STREAMS, STREAMS_MAX),
                    (frame::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
                    (frame::MAX_HEADER_LIST_SIZE, LIST_MAX as u32),
                    (frame::ENABLE_CONNECT_PROTOCOL, 1),
                ],
            );
        }
        let window = if is_client { SERVER_WINDOW } else { CLIENT_WINDOW };
        frame::window_update(buffer, 0, window - frame::WINDOW_DEFAULT as u32);
        Self {
            is_client,
            window,
            streams: Vec::new(),
            newest: 0,
            reset: VecDeque::new(),
            out,
            blocked: Vec::new(),
            behind: Vec::new(),
            waiting: Vec::new(),
            send_window: frame::WINDOW_DEFAULT,
            recv_window: i64::from(window),
            unreturned: 0,
            peer: Peer {
                stream_window: frame::WINDOW_DEFAULT,
                streams_max: u32::MAX,
                allows_connect: false,
                is_known: false,
            },
            decoder: Decoder::default(),
            block: None,
            tells_table: false,
            driver: None,
            is_in_doubt: false,
            calm: Calm { left: Calm::MAX, replies: 0 },
            has_greeted: false,
            has_begun: false,
            last_served: None,
            is_closing: false,
            fault: None,
            is_over: false,
        }
    }

    /// Streams that are open.
    pub(super) fn open(&self) -> usize {
        self.streams.len()
    }

    fn find(&self, id: u32) -> Option<Shared> {
        let at = self.streams.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(Rc::clone(&self.streams[at].1))
    }

    /// A frame for a stream that is closed, if it was ever open (RFC 9113, section 5.1).
    fn not_open(&self, id: u32) -> Result<(), Fatal> {
        let was_open = id <= self.newest && !id.is_multiple_of(2);
        if was_open { Ok(()) } else { Err(protocol("a frame on a stream that was never open")) }
    }

    /// Answers what was refused.
    pub(super) fn decline(&mut self, unanswered: Unanswered, status: StatusCode, reason: Reason, request_id: &[u8]) {
        let Unanswered { id, is_end } = unanswered;
        self.write_head(id, true, |fields| {
            fields.status(status);
            fields.field(b"x-lictor-reason", reason.as_str().as_bytes(), false);
            fields.field(b"x-request-id", request_id, false);
        });
        if !is_end {
            self.forget(id, Code::NO_ERROR);
        }
    }

    /// A stream error (RFC 9113, section 5.4.2).
    fn refuse(&mut self, stream: &mut Stream, code: Code, broken: Broken) -> Result<(), Fatal> {
        self.calm.wasted()?;
        self.remove(stream.id);
        stream.end(broken);
        self.forget(stream.id, code);
        Ok(())
    }

    /// Resets a stream that is not, or no more, among ours.
    fn forget(&mut self, id: u32, code: Code) {
        if self.reset.len() >= RESET_KEPT {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
        frame::reset(self.out.buffer(), id, code);
    }

    fn remove(&mut self, id: u32) {
        if let Ok(at) = self.streams.binary_search_by_key(&id, |(id, _)| *id) {
            self.streams.remove(at);
        }
    }

    /// Both sides may have said all.
    fn settle(&mut self, stream: &Stream) {
        if stream.is_ended && stream.is_sent {
            self.remove(stream.id);
            self.calm.served();
            if self.is_closing {
                self.wake();
            }
        }
    }

    /// The stream is given up on our side. Nothing happens when it is over.
    pub(super) fn cancel(&mut self, stream: &mut Stream, code: Code) {
        self.returned(stream.data.length as u32);
        stream.data = Received::default();
        if stream.broken.is_some() || (stream.is_ended && stream.is_sent) {
            return;
        }
        self.is_in_doubt |= self.is_client && !stream.is_answered;
        self.remove(stream.id);
        self.forget(stream.id, code);
        stream.end(Broken::Cancelled);
        self.wake();
    }

    /// Nobody reads the stream any more.
    pub(super) fn abandon(&mut self, stream: &mut Stream) {
        stream.is_unwanted = true;
        self.returned(stream.data.length as u32);
        stream.data = Received::default();
        stream.trailers = None;
    }

    /// Bytes of a stream were used: its peer may send as many more.
    fn consumed(&mut self, stream: &mut Stream, count: u32) {
        self.returned(count);
        stream.unreturned += count;
        if !stream.is_ended && stream.broken.is_none() && stream.unreturned >= STREAM_WINDOW / 2 {
            stream.recv_window += i64::from(stream.unreturned);
            frame::window_update(self.out.buffer(), stream.id, std::mem::take(&mut stream.unreturned));
            self.wake();
        }
    }

    fn returned(&mut self, count: u32) {
        self.unreturned += count;
        if self.unreturned >= self.window / 2 {
            self.recv_window += i64::from(self.unreturned);
            frame::window_update(self.out.buffer(), 0, std::mem::take(&mut self.unreturned));
            self.wake();
        }
    }

    /// The next part of what a stream's peer says; `None` at its end.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, Broken>>> {
        if let Some(data) = stream.data.pop() {
            self.consumed(stream, data.len() as u32);
            return Poll::Ready(Some(Ok(Part::Data(data))));
        }
        if let Some(trailers) = stream.trailers.take() {
            return Poll::Ready(Some(Ok(Part::Trailers(trailers))));
        }
        if stream.is_ended {
            return Poll::Ready(None);
        }
        if let Some(broken) = stream.broken {
            return Poll::Ready(Some(Err(broken)));
        }
        store(&mut stream.reader, context);
        Poll::Pending
    }

    /// How many bytes may be written on a stream now, at least 1.
    pub(super) fn poll_window(
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

    /// Ready when a little more may be written on a stream, that has no window.
    pub(super) fn poll_room(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(broken) = stream.broken {
            return Poll::Ready(Err(broken));
        }
        if self.out.len() >= OUT_MAX {
            self.block(stream);
            store(&mut stream.writer, context);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn block(&mut self, stream: &mut Stream) {
        if !stream.is_blocked {
            stream.is_blocked = true;
            let has_written = std::mem::take(&mut stream.has_written);
            (if has_written { &mut self.behind } else { &mut self.blocked }).push(stream.id);
        }
    }

    /// Ready when a stream of ours may begin, or never will. For some it must be known what the peer understands.
    pub(super) fn poll_start(&mut self, needs_settings: bool, context: &mut Context<'_>) -> Poll<()> {
        let is_known = self.peer.is_known || !needs_settings;
        if self.is_over || self.is_closing || (is_known && self.out.len() < OUT_MAX) {
            return Poll::Ready(());
        }
        self.waiting.push(context.waker().clone());
        Poll::Pending
    }

    /// Writes a head or trailers.
    pub(super) fn write_fields(&mut self, stream: &mut Stream, is_end: bool, write: impl FnOnce(&mut Encoder<'_>)) {
        self.write_head(stream.id, is_end, write);
        if is_end {
            self.sent(stream);
        }
    }

    /// Writes DATA, for which there is a window.
    pub(super) fn write_data(&mut self, stream: &mut Stream, data: Bytes, is_end: bool) {
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

    /// There is nothing to write and nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.out.len() == 0
    }

    /// A little more may be written that no window is for.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < OUT_MAX
    }

    /// Opens a stream of ours.
    pub(super) fn start(&mut self, kind: Kind, interim: Option<Interim>) -> Result<Shared, Unstarted> {
        if self.is_over || self.is_closing {
            return Err(self.fault.map_or(Unstarted::Closed, |Fatal(_, why)| Unstarted::Malformed(why)));
        }
        // Who waited for room may find that others were faster, or that the peer allows fewer by now.
        if self.peer.is_known && self.open() >= self.peer.streams_max as usize {
            return Err(Unstarted::Full);
        }
        self.newest = if self.newest == 0 { 1 } else { self.newest + 2 };
        self.is_closing |= self.newest == STREAM_LAST;
        let mut stream = Stream::new(self.newest, self.peer.stream_window);
        (stream.kind, stream.interim) = (kind, interim);
        let stream = Rc::new(RefCell::new(stream));
        self.streams.push((self.newest, Rc::clone(&stream)));
        Ok(stream)
    }

    /// No stream is to begin any more; those that have are finished (RFC 9113, section 6.8).
    pub(super) fn shut_down(&mut self) {
        if self.is_closing {
            return;
        }
        self.is_closing = true;
        let out = self.out.buffer();
        if self.is_client {
            frame::goaway(out, 0, Code::NO_ERROR, "");
        } else {
            // What is on its way was sent in good faith: the PING's answer tells when there is nothing more.
            frame::goaway(out, frame::WINDOW_MAX as u32, Code::NO_ERROR, "");
            frame::ping(out, 0, SHUTDOWN);
        }
        self.wake();
    }

    /// All that was to be done is done.
    pub(super) fn is_finished(&self) -> bool {
        self.is_over || (self.is_closing && self.streams.is_empty() && (self.is_client || self.last_served.is_some()))
    }

    /// Ends the connection with an error of the peer's.
    pub(super) fn fail(&mut self, fault: Fatal) {
        let Fatal(code, why) = fault;
        if !self.is_over {
            let last = if self.is_client { 0 } else { self.newest };
            frame::goaway(self.out.buffer(), last, code, why);
            self.fault = Some(fault);
            self.cut(Broken::Malformed(why));
        }
    }

    /// The connection is gone, and its streams with it.
    pub(super) fn cut(&mut self, broken: Broken) {
        self.is_over = true;
        for (_, stream) in std::mem::take(&mut self.streams) {
            stream.borrow_mut().end(broken);
        }
        self.unblock();
    }

    /// Writes what there is. Who waited for room has it.
    pub(super) fn poll_write(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let was_full = self.out.len() >= OUT_MAX;
        let written = self.out.poll_write(socket, context);
        if was_full && self.out.len() < OUT_MAX {
            self.unblock();
        }
        if written.is_ready() {
            self.calm.replies = 0;
        }
        written
    }

    /// Who waits for the connection's window, or for room, may look again.
    fn unblock(&mut self) {
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
    fn admit(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// The driver has something to do.
    pub(super) fn wake(&mut self) {
        wake(&mut self.driver);
    }
}

/// Asked for when a connection shuts down.
const SHUTDOWN: [u8; 8] = *b"lictor.\n";

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

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

pub(super) fn store(place: &mut Option<Waker>, context: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *place = Some(context.waker().clone());
    }
}

#[cfg(test)]
mod tests;
