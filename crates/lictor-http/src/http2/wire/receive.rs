//! What comes: takes frames from what was read, checks them, and makes of them events for the driver and changes of the
//! streams that they name. Field blocks are [`block`](super::block)'s. What readers take from streams is not here, nor what
//! is written, but for the frames that answer others. Sections are of RFC 9113.

use bytes::{Buf, BytesMut};
use http::{Request, StatusCode};

use super::super::frame::{self, Code, Head};
use super::state::{Fatal, SHUTDOWN, SIZE, Wire, protocol};
use super::stream::{Broken, Shared, wake};
use super::turns::Turn;

/// What the driver has to see to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, and the large one is usual")]
pub(in crate::http2) enum Event {
    /// A client asks.
    Request(Request<()>, Shared),
    /// A client asked what was refused at once: the status that says so, why, and what is still to be answered.
    Refused(StatusCode, &'static str, Option<Unanswered>),
}

/// A refused request, of which no stream was made.
#[derive(Clone, Copy, Debug)]
pub(in crate::http2) struct Unanswered {
    pub(super) id: u32,
    /// The client sends nothing more.
    pub(super) is_end: bool,
}

impl Wire {
    /// Takes frames from what was read, until one is not whole, one is an event or the turn is over.
    pub(in crate::http2) fn receive(&mut self, bytes: &mut BytesMut, turn: &mut Turn) -> Result<Option<Event>, Fatal> {
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
        while !turn.is_over()
            && let Some(head) = Head::of(bytes)
        {
            if head.length > frame::PAYLOAD_MAX {
                return Err(Fatal(Code::FRAME_SIZE_ERROR, "a frame that is larger than allowed"));
            }
            if bytes.len() < frame::HEAD + head.length {
                break;
            }
            bytes.advance(frame::HEAD);
            let payload = bytes.split_to(head.length);
            turn.frame(head.length, matches!(head.kind, frame::HEADERS | frame::CONTINUATION));
            if let Some(event) = self.frame(head, payload)? {
                turn.event();
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
        let before = self.peer.stream_window;
        let mut widest = before;
        for [n1, n0, value @ ..] in settings {
            self.setting(u16::from_be_bytes([*n1, *n0]), u32::from_be_bytes(*value))?;
            widest = widest.max(self.peer.stream_window);
        }
        self.widened(widest)?;
        if self.peer.stream_window > before {
            self.rise.left = self.streams.len();
        }
        if !std::mem::replace(&mut self.peer.is_known, true) {
            self.starters.admit();
        }
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
                self.peer.stream_window = window; // each stream's is this and its own
            }
            frame::MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                return Err(protocol("SETTINGS_MAX_FRAME_SIZE is from 2^14 to 2^24 - 1"));
            }
            frame::ENABLE_CONNECT_PROTOCOL => self.peer.allows_connect = value == 1,
            _ => (),
        }
        Ok(())
    }

    /// No stream's window may become larger than the largest (section 6.9.2). They are looked at only when one might: the
    /// peer has let us send gigabytes then.
    fn widened(&mut self, window: i64) -> Result<(), Fatal> {
        if self.widest + window <= frame::WINDOW_MAX {
            return Ok(());
        }
        self.calm.wasted()?;
        self.widest = self.streams.iter().map(|(_, stream)| stream.borrow().credit).max().unwrap_or(0).max(0);
        if self.widest + window > frame::WINDOW_MAX {
            return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a stream's window above 2^31 - 1"));
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
        self.starters.release();
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
                _ => Ok(()),
            };
        }
        let Some(stream) = self.find(head.stream) else { return self.not_open(head.stream) };
        let mut stream = stream.borrow_mut();
        if by == 0 {
            return self.refuse(&mut stream, Code::PROTOCOL_ERROR, Broken::Malformed("WINDOW_UPDATE of 0"));
        }
        stream.credit += by;
        if self.window_of(&stream) > frame::WINDOW_MAX {
            return self.refuse(&mut stream, Code::FLOW_CONTROL_ERROR, Broken::Malformed("a window above 2^31 - 1"));
        }
        self.widest = self.widest.max(stream.credit);
        self.feed(&mut stream);
        Ok(())
    }

    /// DATA for a stream that is closed.
    fn late(&mut self, id: u32) -> Result<(), Fatal> {
        if self.is_client || self.reset.contains(id) {
            return Ok(());
        }
        self.calm.wasted()?;
        self.forget(id, Code::STREAM_CLOSED);
        Ok(())
    }
}

/// Takes padding off (section 6.1).
pub(super) fn unpad(head: Head, payload: &mut BytesMut) -> Result<(), Fatal> {
    if !head.has(frame::PADDED) {
        return Ok(());
    }
    let padding = usize::from(*payload.first().ok_or(SIZE)?);
    payload.advance(1);
    let left = payload.len().checked_sub(padding).ok_or(protocol("more padding than payload"))?;
    payload.truncate(left);
    Ok(())
}
