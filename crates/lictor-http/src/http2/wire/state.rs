//! A connection's state, how its streams begin and end, and what readers take from them.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::time::Instant;

use super::super::frame::{self, Code};
use super::super::hpack::Decoder;
use super::super::message::LIST_MAX;
use super::output::Output;
use super::stream::{Broken, Part, Received, STREAM_WINDOW, Shared, Stream, Unstarted, store, wake};
use super::turns::{Forgotten, Queue, Rise, Starters};
use crate::framing::Kind;

/// What a client may send on all streams together: it does not make us keep more.
pub(super) const CLIENT_WINDOW: u32 = 4 << 20;
/// And a server, which answers many who read at their own pace: as much as on all streams, so that those whom nobody
/// reads hold up no other.
pub(super) const SERVER_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// Streams that a client may have open.
pub(super) const STREAMS_MAX: u32 = 1000;
/// DATA of streams that we have reset may still be on its way: of so many we remember that, which is as many as can be
/// reset at a time.
pub(super) const RESET_KEPT: usize = STREAMS_MAX as usize;
/// The last stream that a client can begin (RFC 9113, section 5.1.1).
pub(super) const STREAM_LAST: u32 = (1 << 31) - 1;
/// A PING when a connection shuts down.
pub(super) const SHUTDOWN: [u8; 8] = *b"lictor.\n";

/// A connection.
#[derive(Debug)]
pub(in crate::http2) struct Wire {
    pub(super) is_client: bool,
    /// What the peer may send before we have read it.
    pub(super) window: u32,
    /// By number. To take one out moves those after it, which for the most that there may be is less than decoding its head.
    pub(super) streams: Vec<(u32, Shared)>,
    /// The newest stream of the client.
    pub(super) newest: u32,
    pub(super) reset: Forgotten,
    pub(in crate::http2) out: Output,
    /// Streams that wait for room in `out`, or for the connection's window.
    pub(super) for_room: Queue,
    pub(super) for_window: Queue,
    /// Who waits for room to begin one, or for the peer's settings.
    pub(super) starters: Starters,
    pub(super) send_window: i64,
    /// No stream has more `credit`.
    pub(super) widest: i64,
    /// The peer lets us send more on all streams.
    pub(super) rise: Rise,
    pub(super) recv_window: i64,
    /// Read, but not given back to the peer's window.
    pub(super) unreturned: u32,
    pub(in crate::http2) peer: Peer,
    pub(super) decoder: Decoder,
    pub(super) block: Option<Block>,
    /// The peer must hear that our blocks use no table.
    pub(super) tells_table: bool,
    pub(in crate::http2) driver: Option<Waker>,
    /// A request was given up without an answer: is the peer there?
    pub(in crate::http2) is_in_doubt: bool,
    pub(super) calm: Calm,
    /// The client's preface has come.
    pub(super) has_greeted: bool,
    pub(super) has_begun: bool,
    /// The last stream that is served; what comes after it is not looked at.
    pub(super) last_served: Option<u32>,
    /// No stream begins any more.
    pub(in crate::http2) is_closing: bool,
    /// What the peer did that ended the connection.
    pub(in crate::http2) fault: Option<Fatal>,
    pub(in crate::http2) is_over: bool,
}

/// A field block whose end has not come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends_stream: bool,
    pub(super) bytes: BytesMut,
    pub(super) frames: u32,
    pub(super) began: Instant,
}

/// What the peer has told of itself.
#[derive(Debug)]
pub(in crate::http2) struct Peer {
    pub(super) stream_window: i64,
    pub(super) streams_max: u32,
    /// RFC 8441, section 3.
    pub(in crate::http2) allows_connect: bool,
    pub(in crate::http2) is_known: bool,
}

impl Peer {
    /// Streams that it lets us have.
    pub(in crate::http2) fn streams_max(&self) -> Option<u32> {
        self.is_known.then_some(self.streams_max)
    }
}

/// How often the peer may cause work that is for nothing. A stream that is served gives one back, one that is not takes
/// one (CVE-2023-44487, CVE-2025-8671, CVE-2019-9518); answers to its frames that it does not read are few
/// (CVE-2019-9512, CVE-2019-9515).
#[derive(Debug)]
pub(in crate::http2) struct Calm {
    pub(super) left: u32,
    pub(super) replies: u32,
}

impl Calm {
    const MAX: u32 = 1000;
    const REPLIES_MAX: u32 = 1000;

    pub(super) fn served(&mut self) {
        self.left = (self.left + 1).min(Self::MAX);
    }

    pub(super) fn wasted(&mut self) -> Result<(), Fatal> {
        self.left = self.left.checked_sub(1).ok_or(Fatal(Code::ENHANCE_YOUR_CALM, "too much for nothing"))?;
        Ok(())
    }

    pub(super) fn replied(&mut self) -> Result<(), Fatal> {
        self.replies += 1;
        if self.replies > Self::REPLIES_MAX {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM, "too much to answer that nobody reads"));
        }
        Ok(())
    }
}

/// The connection cannot go on (RFC 9113, section 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Fatal(pub(in crate::http2) Code, pub(in crate::http2) &'static str);

pub(super) const fn protocol(why: &'static str) -> Fatal {
    Fatal(Code::PROTOCOL_ERROR, why)
}

pub(super) const SIZE: Fatal = Fatal(Code::FRAME_SIZE_ERROR, "a frame of the wrong size");

impl Wire {
    pub(in crate::http2) fn new(is_client: bool) -> Self {
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
            reset: Forgotten::default(),
            out,
            for_room: Queue::default(),
            for_window: Queue::default(),
            starters: Starters::default(),
            send_window: frame::WINDOW_DEFAULT,
            widest: 0,
            rise: Rise::default(),
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
    pub(in crate::http2) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream of ours.
    pub(in crate::http2) fn start(&mut self, kind: Kind) -> Result<Shared, Unstarted> {
        if self.is_over || self.is_closing {
            return Err(self.fault.map_or(Unstarted::Closed, |Fatal(_, why)| Unstarted::Malformed(why)));
        }
        // Who waited for room may find that others were faster, or that the peer allows fewer by now.
        if self.peer.is_known && self.open() >= self.peer.streams_max as usize {
            return Err(Unstarted::Full);
        }
        self.newest = if self.newest == 0 { 1 } else { self.newest + 2 };
        self.is_closing |= self.newest == STREAM_LAST;
        let mut stream = Stream::new(self.newest);
        stream.kind = kind;
        let stream = Rc::new(RefCell::new(stream));
        self.streams.push((self.newest, Rc::clone(&stream)));
        Ok(stream)
    }

    pub(super) fn find(&self, id: u32) -> Option<Shared> {
        let at = self.streams.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(Rc::clone(&self.streams[at].1))
    }

    /// A frame for a stream that is closed, if it was ever open (RFC 9113, section 5.1).
    pub(super) fn not_open(&self, id: u32) -> Result<(), Fatal> {
        let was_open = id <= self.newest && !id.is_multiple_of(2);
        if was_open { Ok(()) } else { Err(protocol("a frame on a stream that was never open")) }
    }

    /// The next part of what a stream's peer says; `None` at its end.
    pub(in crate::http2) fn poll_read(
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

    /// Bytes of a stream were used: its peer may send as many more.
    pub(super) fn consumed(&mut self, stream: &mut Stream, count: u32) {
        self.returned(count);
        stream.unreturned += count;
        if !stream.is_ended && stream.broken.is_none() && stream.unreturned >= STREAM_WINDOW / 2 {
            stream.recv_window += i64::from(stream.unreturned);
            frame::window_update(self.out.buffer(), stream.id, std::mem::take(&mut stream.unreturned));
            self.wake();
        }
    }

    pub(super) fn returned(&mut self, count: u32) {
        self.unreturned += count;
        if self.unreturned >= self.window / 2 {
            self.recv_window += i64::from(self.unreturned);
            frame::window_update(self.out.buffer(), 0, std::mem::take(&mut self.unreturned));
            self.wake();
        }
    }

    /// Both sides may have said all.
    pub(super) fn settle(&mut self, stream: &Stream) {
        if stream.is_ended && stream.is_sent {
            self.remove(stream.id);
            self.calm.served();
            if self.is_closing {
                self.wake();
            }
        }
    }

    /// A stream error (RFC 9113, section 5.4.2).
    pub(super) fn refuse(&mut self, stream: &mut Stream, code: Code, broken: Broken) -> Result<(), Fatal> {
        self.calm.wasted()?;
        self.remove(stream.id);
        stream.end(broken);
        self.forget(stream.id, code);
        Ok(())
    }

    /// The stream is given up on our side. Nothing happens when it is over.
    pub(in crate::http2) fn cancel(&mut self, stream: &mut Stream, code: Code) {
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
    pub(in crate::http2) fn abandon(&mut self, stream: &mut Stream) {
        stream.is_unwanted = true;
        self.returned(stream.data.length as u32);
        stream.data = Received::default();
        stream.trailers = None;
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Ok(at) = self.streams.binary_search_by_key(&id, |(id, _)| *id) {
            self.streams.remove(at);
        }
    }

    /// Resets a stream that is not, or no more, among ours.
    pub(super) fn forget(&mut self, id: u32, code: Code) {
        self.reset.insert(id, RESET_KEPT);
        frame::reset(self.out.buffer(), id, code);
    }

    /// No stream is to begin any more; those that have are finished (RFC 9113, section 6.8).
    pub(in crate::http2) fn shut_down(&mut self) {
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
    pub(in crate::http2) fn is_finished(&self) -> bool {
        self.is_over || (self.is_closing && self.streams.is_empty() && (self.is_client || self.last_served.is_some()))
    }

    /// There is nothing to write and nothing to wait for.
    pub(in crate::http2) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.out.len() == 0
    }

    /// Ends the connection with an error of the peer's.
    pub(in crate::http2) fn fail(&mut self, fault: Fatal) {
        let Fatal(code, why) = fault;
        if !self.is_over {
            let last = if self.is_client { 0 } else { self.newest };
            frame::goaway(self.out.buffer(), last, code, why);
            self.fault = Some(fault);
            self.cut(Broken::Malformed(why));
        }
    }

    /// The connection is gone, and its streams with it.
    pub(in crate::http2) fn cut(&mut self, broken: Broken) {
        self.is_over = true;
        for (_, stream) in std::mem::take(&mut self.streams) {
            stream.borrow_mut().end(broken);
        }
        self.starters.release();
    }

    /// The driver has something to do.
    pub(in crate::http2) fn wake(&mut self) {
        wake(&mut self.driver);
    }
}
