//! What the tasks of one connection share: its streams, the windows, what is to be written. Frames come in through
//! [`Wire::receive`]; nothing here waits or knows a socket.

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod output;
mod stream;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, StatusCode};
use lictor_core::Reason;

use self::stream::{Received, Stream};
use super::client::Kind;
use super::frame::{self, Code, Head};
use super::hpack::{Decoder, Encoder, Malformed};
use super::message::{LIST_MAX, Message, content_length};
use crate::http1::head::Spelling;
use crate::incoming::Interim;
use crate::stream::Stream as Socket;

pub(super) use output::Output;
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
/// A compressed block is not longer, in all its frames.
const BLOCK_MAX: usize = 2 * LIST_MAX;
/// And there are no more of these.
const BLOCK_FRAMES_MAX: u32 = 64;
/// DATA of streams that we have reset may still be on its way: of so many we remember that, which is as many as can be
/// reset at a time.
const RESET_KEPT: usize = STREAMS_MAX as usize;
/// The last stream that a client can begin (section 5.1.1).
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

/// A field block whose end has not come.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: BytesMut,
    frames: u32,
    began: Instant,
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

/// What the driver has to see to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, and the large one is usual")]
pub(super) enum Event {
    /// A client asks.
    Request(Request<()>, Shared),
    /// A client asked what was refused at once: the status that says so, why, and what is still to be answered.
    Refused(StatusCode, &'static str, Option<Unanswered>),
}

/// A refused request, of which no stream was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    id: u32,
    /// The client sends nothing more.
    is_end: bool,
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

    /// Takes frames from what was read, until one is not whole or one is an event.
    pub(super) fn receive(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>, Fatal> {
        if !self.is_client && !self.has_greeted {
            if bytes.len() < frame::PREFACE.len() {
                return Ok(None);
            }
            if !bytes.starts_with(frame::PREFACE) {
                return Err(protocol("the preface is another"));
            }
            bytes.advance(frame::PREFACE.len());
            self.has_greeted = true;
        }
        if self.is_client && !self.has_begun && bytes.starts_with(b"HTTP/1") {
            return Err(protocol("it speaks HTTP/1.1"));
        }
        while let Some(head) = Head::of(bytes) {
            if head.length > frame::PAYLOAD_MAX {
                return Err(Fatal(Code::FRAME_SIZE_ERROR, "a frame that is larger than allowed"));
            }
            if bytes.len() < frame::HEAD + head.length {
                break;
            }
            bytes.advance(frame::HEAD);
            let payload = bytes.split_to(head.length);
            if let Some(event) = self.frame(head, payload)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn frame(&mut self, head: Head, payload: BytesMut) -> Result<Option<Event>, Fatal> {
        if !self.has_begun {
            self.has_begun = true;
            if head.kind != frame::SETTINGS || head.has(frame::ACK) {
                return Err(protocol("SETTINGS come first"));
            }
        }
        if self.block.as_ref().is_some_and(|block| head.kind != frame::CONTINUATION || block.stream != head.stream) {
            return Err(protocol("another frame within a field block"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload).map(|()| None),
            frame::HEADERS => self.headers(head, payload),
            frame::PRIORITY => self.priority(head, &payload).map(|()| None),
            frame::RST_STREAM => self.stream_reset(head, &payload).map(|()| None),
            frame::SETTINGS => self.settings(head, &payload).map(|()| None),
            frame::PUSH_PROMISE => Err(protocol("nothing may be pushed")),
            frame::PING => self.ping(head, &payload).map(|()| None),
            frame::GOAWAY => self.goaway(head, &payload).map(|()| None),
            frame::WINDOW_UPDATE => self.window_update(head, &payload).map(|()| None),
            frame::CONTINUATION => self.continuation(head, payload),
            _ => Ok(None),
        }
    }

    /// Section 6.1.
    fn data(&mut self, head: Head, mut payload: BytesMut) -> Result<(), Fatal> {
        if head.stream == 0 {
            return Err(protocol("DATA on stream 0"));
        }
        let length = payload.len();
        unpad(head, &mut payload)?;
        self.recv_window -= length as i64;
        if self.recv_window < 0 {
            return Err(Fatal(Code::FLOW_CONTROL_ERROR, "more than the connection's window"));
        }
        if payload.is_empty() && !head.has(frame::END_STREAM) {
            self.calm.wasted()?;
        }
        let Some(stream) = self.find(head.stream) else {
            self.returned(length as u32);
            self.not_open(head.stream)?;
            return self.late(head.stream);
        };
        let mut stream = stream.borrow_mut();
        if self.is_client && !stream.is_answered {
            self.returned(length as u32);
            return self.refuse(&mut stream, Code::PROTOCOL_ERROR, Broken::Malformed("content before a head"));
        }
        if stream.is_ended {
            self.returned(length as u32);
            return self.refuse(&mut stream, Code::STREAM_CLOSED, Broken::Malformed("DATA after the end"));
        }
        stream.recv_window -= length as i64;
        if stream.recv_window < 0 {
            self.returned(length as u32);
            return self.refuse(&mut stream, Code::FLOW_CONTROL_ERROR, Broken::Malformed("more than the window"));
        }
        let left = stream.left.map(|left| left.checked_sub(payload.len() as u64));
        let is_end = head.has(frame::END_STREAM);
        if left == Some(None) || (is_end && matches!(left, Some(Some(1..)))) {
            self.returned(length as u32);
            let broken = Broken::Malformed("the content is not as long as its head says");
            return self.refuse(&mut stream, Code::PROTOCOL_ERROR, broken);
        }
        stream.left = left.flatten();
        let padding = (length - payload.len()) as u32;
        if stream.is_unwanted {
            self.returned(length as u32);
        } else {
            stream.data.push(payload);
            if padding > 0 {
                self.consumed(&mut stream, padding);
            }
        }
        if is_end {
            stream.is_ended = true;
            self.settle(&stream);
        }
        wake(&mut stream.reader);
        Ok(())
    }

    /// Section 6.2.
    fn headers(&mut self, head: Head, mut payload: BytesMut) -> Result<Option<Event>, Fatal> {
        if head.stream == 0 {
            return Err(protocol("HEADERS on stream 0"));
        }
        unpad(head, &mut payload)?;
        if head.has(frame::PRIORITISED) {
            if payload.len() < 5 {
                return Err(SIZE);
            }
            payload.advance(5);
        }
        if head.has(frame::END_HEADERS) {
            return self.message(head.stream, head.has(frame::END_STREAM), &payload);
        }
        self.block = Some(Block {
            stream: head.stream,
            ends_stream: head.has(frame::END_STREAM),
            bytes: BytesMut::from(&payload[..]),
            frames: 1,
            began: Instant::now(),
        });
        Ok(None)
    }

    /// Section 6.10.
    fn continuation(&mut self, head: Head, payload: BytesMut) -> Result<Option<Event>, Fatal> {
        let mut block = self.block.take().ok_or(protocol("CONTINUATION without HEADERS"))?;
        block.bytes.extend_from_slice(&payload);
        block.frames += 1;
        if block.bytes.len() > BLOCK_MAX || block.frames > BLOCK_FRAMES_MAX {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM, "a field block without an end"));
        }
        if head.has(frame::END_HEADERS) {
            return self.message(block.stream, block.ends_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// Since when a field block is being sent.
    pub(super) fn block_began(&self) -> Option<Instant> {
        self.block.as_ref().map(|block| block.began)
    }

    /// A field block is whole.
    fn message(&mut self, id: u32, is_end: bool, block: &[u8]) -> Result<Option<Event>, Fatal> {
        let mut message = Message::new();
        self.decoder
            .decode(block, |field, size| message.take(field, size))
            .map_err(|undecodable| Fatal(Code::COMPRESSION_ERROR, undecodable.0))?;
        if let Some(stream) = self.find(id) {
            let mut stream = stream.borrow_mut();
            return if self.is_client && !stream.is_answered {
                self.answer(&mut stream, message, is_end).map(|()| None)
            } else {
                self.trailers(&mut stream, message, is_end).map(|()| None)
            };
        }
        if self.is_client {
            self.not_open(id)?;
            return Ok(None); // of a stream that we gave up
        }
        if id.is_multiple_of(2) || id <= self.newest {
            let is_late = self.reset.contains(&id);
            return if is_late { Ok(None) } else { Err(protocol("HEADERS on a stream that is not new")) };
        }
        self.newest = id;
        self.request(id, message, is_end)
    }

    fn request(&mut self, id: u32, message: Message, is_end: bool) -> Result<Option<Event>, Fatal> {
        if self.last_served.is_some() {
            return Ok(None);
        }
        if self.streams.len() >= STREAMS_MAX as usize {
            self.calm.wasted()?;
            self.forget(id, Code::REFUSED_STREAM);
            return Ok(None);
        }
        if message.is_too_large() {
            self.calm.wasted()?;
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let unanswered = Some(Unanswered { id, is_end });
            return Ok(Some(Event::Refused(status, "the head is longer than 64 KiB", unanswered)));
        }
        let request = message.into_request();
        let checked = request.and_then(|request| {
            let length = content_length(request.headers())?;
            let is_whole = !is_end || length.is_none_or(|length| length == 0);
            if is_whole { Ok((request, length)) } else { Err(Malformed("content-length without content")) }
        });
        let (request, length) = match checked {
            Ok(checked) => checked,
            Err(Malformed(why)) => {
                self.calm.wasted()?;
                self.forget(id, Code::PROTOCOL_ERROR);
                return Ok(Some(Event::Refused(StatusCode::BAD_REQUEST, why, None)));
            }
        };
        let mut stream = Stream::new(id, self.peer.stream_window);
        stream.left = length;
        stream.is_ended = is_end;
        let stream = Rc::new(RefCell::new(stream));
        self.streams.push((id, Rc::clone(&stream)));
        Ok(Some(Event::Request(request, stream)))
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

    fn answer(&mut self, stream: &mut Stream, message: Message, is_end: bool) -> Result<(), Fatal> {
        let broken = |why| Broken::Malformed(why);
        if message.is_too_large() {
            return self.refuse(stream, Code::PROTOCOL_ERROR, broken("the head is longer than 64 KiB"));
        }
        let answer = message.into_response().and_then(|response| Ok((content_length(response.headers())?, response)));
        let (length, response) = match answer {
            Ok(answer) => answer,
            Err(Malformed(why)) => return self.refuse(stream, Code::PROTOCOL_ERROR, broken(why)),
        };
        let status = response.status();
        if status.is_informational() {
            if is_end || status == StatusCode::SWITCHING_PROTOCOLS {
                return self.refuse(stream, Code::PROTOCOL_ERROR, broken("an interim answer that is none"));
            }
            if let Some(interim) = stream.interim.as_ref().filter(|_| status != StatusCode::CONTINUE) {
                interim.tell(status, response.headers(), &Spelling::default());
            }
            return Ok(());
        }
        let is_bodiless =
            stream.kind == Kind::Head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        stream.left = match stream.kind {
            _ if is_bodiless => Some(0),
            Kind::Connect if status.is_success() => None, // RFC 9110, section 9.3.6
            Kind::Head | Kind::Connect | Kind::Other => length,
        };
        if is_end && matches!(stream.left, Some(1..)) {
            return self.refuse(stream, Code::PROTOCOL_ERROR, broken("content-length without content"));
        }
        stream.head = Some(response);
        stream.is_answered = true;
        stream.interim = None;
        if is_end {
            stream.is_ended = true;
            self.settle(stream);
        }
        wake(&mut stream.reader);
        Ok(())
    }

    fn trailers(&mut self, stream: &mut Stream, message: Message, is_end: bool) -> Result<(), Fatal> {
        if stream.is_ended {
            return self.refuse(stream, Code::STREAM_CLOSED, Broken::Malformed("HEADERS after the end"));
        }
        let is_too_large = message.is_too_large();
        let trailers = match message.into_trailers() {
            Ok(trailers) if is_end && !is_too_large && matches!(stream.left, None | Some(0)) => trailers,
            Ok(_) => return self.refuse(stream, Code::PROTOCOL_ERROR, Broken::Malformed("trailers that are none")),
            Err(Malformed(why)) => return self.refuse(stream, Code::PROTOCOL_ERROR, Broken::Malformed(why)),
        };
        stream.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        stream.is_ended = true;
        self.settle(stream);
        wake(&mut stream.reader);
        Ok(())
    }

    /// Section 6.3. Nobody heeds priorities (section 5.3.2), but they have a form.
    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return Err(protocol("PRIORITY on stream 0"));
        }
        if payload.len() == 5 {
            return Ok(());
        }
        match self.find(head.stream) {
            Some(stream) => {
                self.refuse(&mut stream.borrow_mut(), Code::FRAME_SIZE_ERROR, Broken::Malformed("PRIORITY cut short"))
            }
            None => Err(SIZE),
        }
    }

    /// Section 6.4.
    fn stream_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return Err(protocol("RST_STREAM on stream 0"));
        }
        let code = Code(u32::from_be_bytes(*payload.as_array().ok_or(SIZE)?));
        let Some(stream) = self.find(head.stream) else { return self.not_open(head.stream) };
        let mut stream = stream.borrow_mut();
        if !self.is_client && !stream.is_sent {
            self.calm.wasted()?;
        }
        let is_refused = code == Code::REFUSED_STREAM && !stream.is_answered;
        self.remove(stream.id);
        stream.end(if is_refused { Broken::Refused(code) } else { Broken::Reset(code) });
        Ok(())
    }

    /// Section 6.5.
    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(protocol("SETTINGS on a stream"));
        }
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(SIZE) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(SIZE) };
        for [n1, n0, value @ ..] in settings {
            self.setting(u16::from_be_bytes([*n1, *n0]), u32::from_be_bytes(*value))?;
        }
        self.peer.is_known = true;
        self.admit();
        frame::head(self.out.buffer(), 0, frame::SETTINGS, frame::ACK, 0);
        self.calm.replied()
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Fatal> {
        match name {
            frame::HEADER_TABLE_SIZE => self.tells_table |= value < 4096,
            frame::ENABLE_PUSH if value > 1 || (self.is_client && value == 1) => {
                return Err(protocol("SETTINGS_ENABLE_PUSH is 0 or 1"));
            }
            frame::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value,
            frame::INITIAL_WINDOW_SIZE => {
                let window = i64::from(value);
                if window > frame::WINDOW_MAX {
                    return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a window above 2^31 - 1"));
                }
                let more = window - std::mem::replace(&mut self.peer.stream_window, window);
                for (_, stream) in &self.streams {
                    let mut stream = stream.borrow_mut();
                    stream.send_window += more;
                    if stream.send_window > frame::WINDOW_MAX {
                        return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a stream's window above 2^31 - 1"));
                    }
                    wake(&mut stream.writer);
                }
            }
            frame::MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                return Err(protocol("SETTINGS_MAX_FRAME_SIZE is from 2^14 to 2^24 - 1"));
            }
            frame::ENABLE_CONNECT_PROTOCOL => self.peer.allows_connect = value == 1,
            _ => (),
        }
        Ok(())
    }

    /// Section 6.7.
    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(protocol("PING on a stream"));
        }
        let payload = *payload.as_array().ok_or(SIZE)?;
        if head.has(frame::ACK) {
            if payload == SHUTDOWN && self.is_closing && self.last_served.is_none() {
                self.last_served = Some(self.newest);
                frame::goaway(self.out.buffer(), self.newest, Code::NO_ERROR, "");
            }
            return Ok(());
        }
        frame::ping(self.out.buffer(), frame::ACK, payload);
        self.calm.replied()
    }

    /// Section 6.8.
    fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(protocol("GOAWAY on a stream"));
        }
        let [last, code] = payload.first_chunk::<8>().ok_or(SIZE)?.as_chunks().0 else { unreachable!("8 is 2 x 4") };
        let (last, code) = (u32::from_be_bytes(*last) & 0x7fff_ffff, Code(u32::from_be_bytes(*code)));
        if !self.is_client {
            return Ok(()); // what it has asked for is still answered
        }
        self.is_closing = true;
        self.admit();
        let kept = self.streams.partition_point(|(id, _)| *id <= last);
        for (_, stream) in self.streams.split_off(kept) {
            stream.borrow_mut().end(Broken::Refused(code));
        }
        Ok(())
    }

    /// Section 6.9.
    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let by = i64::from(u32::from_be_bytes(*payload.as_array().ok_or(SIZE)?) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += by;
            return match by {
                0 => Err(protocol("WINDOW_UPDATE of 0")),
                _ if self.send_window > frame::WINDOW_MAX => {
                    Err(Fatal(Code::FLOW_CONTROL_ERROR, "the connection's window above 2^31 - 1"))
                }
                _ => {
                    self.unblock();
                    Ok(())
                }
            };
        }
        let Some(stream) = self.find(head.stream) else { return self.not_open(head.stream) };
        let mut stream = stream.borrow_mut();
        if by == 0 {
            return self.refuse(&mut stream, Code::PROTOCOL_ERROR, Broken::Malformed("WINDOW_UPDATE of 0"));
        }
        stream.send_window += by;
        if stream.send_window > frame::WINDOW_MAX {
            return self.refuse(&mut stream, Code::FLOW_CONTROL_ERROR, Broken::Malformed("a window above 2^31 - 1"));
        }
        wake(&mut stream.writer);
        Ok(())
    }

    fn find(&self, id: u32) -> Option<Shared> {
        let at = self.streams.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(Rc::clone(&self.streams[at].1))
    }

    /// A frame for a stream that is closed, if it was ever open (section 5.1).
    fn not_open(&self, id: u32) -> Result<(), Fatal> {
        let was_open = id <= self.newest && !id.is_multiple_of(2);
        if was_open { Ok(()) } else { Err(protocol("a frame on a stream that was never open")) }
    }

    /// DATA for a stream that is closed.
    fn late(&mut self, id: u32) -> Result<(), Fatal> {
        if self.is_client || self.reset.contains(&id) {
            return Ok(());
        }
        self.calm.wasted()?;
        self.forget(id, Code::STREAM_CLOSED);
        Ok(())
    }

    /// A stream error (section 5.4.2).
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

/// Takes padding off (section 6.1).
fn unpad(head: Head, payload: &mut BytesMut) -> Result<(), Fatal> {
    if !head.has(frame::PADDED) {
        return Ok(());
    }
    let padding = usize::from(*payload.first().ok_or(SIZE)?);
    payload.advance(1);
    let left = payload.len().checked_sub(padding).ok_or(protocol("more padding than payload"))?;
    payload.truncate(left);
    Ok(())
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
