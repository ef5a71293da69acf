//! One stream: its windows, what came and was not read yet, who waits for it, how it ended. What changes on it, and what
//! that means to its connection, is [`Wire`](super::state::Wire)'s.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};

use super::super::frame::Code;
use super::output::COPY_MAX;
use crate::framing::Kind;
use crate::prelude::Prelude;

pub(in crate::http2) type Shared = Rc<RefCell<Stream>>;

/// What a peer may send on a stream before we have read it.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
/// Interim answers that nobody has heard yet; more are not told.
const INTERIM_MAX: usize = 16;

/// A stream.
#[derive(Debug)]
pub(in crate::http2) struct Stream {
    pub(super) id: u32,
    /// The answer's, until it is taken.
    pub(in crate::http2) head: Option<Response<()>>,
    pub(super) is_answered: bool,
    /// Interim answers that are not told yet.
    pub(in crate::http2) interim: VecDeque<(StatusCode, HeaderMap)>,
    pub(super) prelude: Prelude,
    pub(super) kind: Kind,
    pub(super) data: Received,
    pub(super) trailers: Option<HeaderMap>,
    /// How much content is to come, if that was said.
    pub(super) left: Option<u64>,
    /// The other side has said all.
    pub(super) is_ended: bool,
    /// Nobody reads it.
    pub(super) is_unwanted: bool,
    pub(super) recv_window: i64,
    pub(super) unreturned: u32,
    pub(in crate::http2) reader: Option<Waker>,
    /// What may be sent beyond the window that the peer's settings give to each stream: those count for all at once.
    pub(super) credit: i64,
    /// Both together do not let it send more.
    pub(super) is_starved: bool,
    /// We have said all.
    pub(super) is_sent: bool,
    pub(super) is_blocked: bool,
    /// Since it was blocked last.
    pub(super) has_written: bool,
    pub(in crate::http2) writer: Option<Waker>,
    pub(in crate::http2) broken: Option<Broken>,
}

/// A part of what a stream carries.
#[derive(Debug)]
pub(in crate::http2) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Why a stream of ours has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) enum Unstarted {
    Closed,
    /// What the peer sends is not HTTP/2.
    Malformed(&'static str),
    /// The peer lets us have no more.
    Full,
}

/// Why a stream ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) enum Broken {
    /// The peer reset it.
    Reset(Code),
    /// The peer says that it has not looked at it (RFC 9113, section 8.7).
    Refused(Code),
    /// The connection is gone.
    Cut,
    Malformed(&'static str),
    /// We did.
    Cancelled,
}

impl Stream {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            head: None,
            is_answered: false,
            interim: VecDeque::new(),
            prelude: Prelude::default(),
            kind: Kind::Other,
            data: Received::default(),
            trailers: None,
            left: None,
            is_ended: false,
            is_unwanted: false,
            recv_window: i64::from(STREAM_WINDOW),
            unreturned: 0,
            reader: None,
            credit: 0,
            is_starved: false,
            is_sent: false,
            is_blocked: false,
            has_written: false,
            writer: None,
            broken: None,
        }
    }

    /// The other side has said all, and it was read.
    pub(in crate::http2) fn is_read(&self) -> bool {
        self.is_ended && self.data.length == 0 && self.trailers.is_none()
    }

    /// Its final head has come, or was sent.
    pub(in crate::http2) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// The final head is sent now.
    pub(in crate::http2) fn answered(&mut self) {
        self.is_answered = true;
    }

    /// Something of what it carries has come.
    pub(in crate::http2) fn has_content(&self) -> bool {
        self.data.length > 0 || self.is_ended
    }

    pub(in crate::http2) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// How much is still to be read, if that is known. Behind a length HTTP/1.1 has no room for trailers.
    pub(in crate::http2) fn left(&self) -> Option<u64> {
        let is_all_here = self.is_ended && self.trailers.is_none();
        let left = if is_all_here { 0 } else { self.left? };
        Some(left + self.data.length as u64)
    }

    /// Somebody reads it, though its beginning was left to nobody.
    pub(in crate::http2) fn reclaim(&mut self) {
        self.is_unwanted = false;
    }

    /// An interim answer has come.
    pub(super) fn hear(&mut self, status: StatusCode, headers: HeaderMap) {
        if self.interim.len() < INTERIM_MAX {
            self.interim.push_back((status, headers));
            wake(&mut self.reader);
        }
    }

    pub(super) fn end(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
        self.interim.clear();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

/// What came and was not read yet. Small pieces are put together: each alone would keep alive the buffer it came in.
#[derive(Debug, Default)]
pub(super) struct Received {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    pub(super) length: usize,
}

impl Received {
    pub(super) fn push(&mut self, piece: BytesMut) {
        self.length += piece.len();
        if piece.len() <= COPY_MAX {
            return self.tail.extend_from_slice(&piece);
        }
        if !self.tail.is_empty() {
            self.whole.push_back(self.tail.split().freeze());
        }
        self.whole.push_back(piece.freeze());
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let piece = match self.whole.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.length -= piece.len();
        Some(piece)
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

pub(in crate::http2) fn store(place: &mut Option<Waker>, context: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *place = Some(context.waker().clone());
    }
}
