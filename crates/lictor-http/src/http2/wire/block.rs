//! Field blocks that come (RFC 9113, section 4.3): put together from their frames, decoded, and made requests, answers or
//! trailers of. What makes a list of fields one of these is [`Message`]'s.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use tokio::time::Instant;

use super::super::frame::{self, Code, Head};
use super::super::hpack::Malformed;
use super::super::message::{LIST_MAX, Message, content_length};
use super::receive::{Event, Unanswered, unpad};
use super::state::{Block, Fatal, SIZE, STREAMS_MAX, Wire, protocol};
use super::stream::{Broken, Stream, wake};
use crate::framing::{Length, of_answer};

/// A compressed block is not longer, in all its frames.
pub(super) const BLOCK_MAX: usize = 2 * LIST_MAX;
/// And there are no more of these.
const BLOCK_FRAMES_MAX: u32 = 64;

impl Wire {
    /// Section 6.2.
    pub(super) fn headers(&mut self, head: Head, mut payload: BytesMut) -> Result<Option<Event>, Fatal> {
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
    pub(super) fn continuation(&mut self, head: Head, payload: BytesMut) -> Result<Option<Event>, Fatal> {
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
    pub(in crate::http2) fn block_began(&self) -> Option<Instant> {
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
            let is_late = self.reset.contains(id);
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
        if let Some(why) = message.too_large() {
            self.calm.wasted()?;
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let unanswered = Some(Unanswered { id, is_end });
            return Ok(Some(Event::Refused(status, why, unanswered)));
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
        let mut stream = Stream::new(id);
        stream.left = length;
        stream.is_ended = is_end;
        let stream = Rc::new(RefCell::new(stream));
        self.streams.push((id, Rc::clone(&stream)));
        Ok(Some(Event::Request(request, stream)))
    }

    fn answer(&mut self, stream: &mut Stream, message: Message, is_end: bool) -> Result<(), Fatal> {
        let broken = |why| Broken::Malformed(why);
        if let Some(why) = message.too_large() {
            return self.refuse(stream, Code::PROTOCOL_ERROR, broken(why));
        }
        let size = message.size();
        let (response, told) = match message.into_response() {
            Ok(answer) => answer,
            Err(Malformed(why)) => return self.refuse(stream, Code::PROTOCOL_ERROR, broken(why)),
        };
        let status = response.status();
        if status.is_informational() {
            if is_end || status == StatusCode::SWITCHING_PROTOCOLS {
                return self.refuse(stream, Code::PROTOCOL_ERROR, broken("an interim answer that is none"));
            }
            if let Err(why) = stream.prelude.hear(size) {
                return self.refuse(stream, Code::PROTOCOL_ERROR, broken(why));
            }
            stream.hear(status, response.into_parts().0.headers);
            return Ok(());
        }
        stream.left = match of_answer(stream.kind, status, told) {
            Length::Exactly(length) => Some(length),
            Length::UntilClose | Length::Chunked => None,
        };
        if is_end && matches!(stream.left, Some(1..)) {
            return self.refuse(stream, Code::PROTOCOL_ERROR, broken("content-length without content"));
        }
        stream.head = Some(response);
        stream.is_answered = true;
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
        let is_too_large = message.too_large().is_some();
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
}
