//! Writing: heads, and bodies by length or in chunks, small parts gathered and large ones passed through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::SizeHint;
use tokio::io::AsyncWrite;

use crate::buffers;
use crate::digits::{decimal, hexadecimal};
use crate::spelling::Spelling;
use crate::stream::Stream;
use crate::writer::WriteHead;

/// A part up to this size is copied to where the head is; a larger one is written from where it lies.
const COPY_MAX: usize = 4 << 10;
/// No more is gathered before it is written.
const GATHER_MAX: usize = 64 << 10;

/// After so much of a body it is other connections' turn: two fast sockets would keep their thread busy for megabytes.
pub(super) const TURN_MAX: u64 = 256 << 10;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or nobody reads it.
    None,
    /// So many bytes are left.
    Length(u64),
    /// In chunks (RFC 9112, section 7.1).
    Chunked,
    /// The end of the connection ends it.
    UntilClose,
}

impl Framing {
    /// How a request's body of this size is written. A request without one says so where its method makes one likely (RFC
    /// 9110, section 8.6).
    pub fn of_request(method: &Method, size: &SizeHint) -> Self {
        match size.exact() {
            Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

/// A head that is being written, and how the other side spelled its own.
#[derive(Debug)]
pub struct HeadFields<'a> {
    /// Where it is written.
    pub out: &'a mut Outgoing,
    /// How names of fields that pass are written.
    pub spelling: &'a Spelling,
}

impl WriteHead for HeadFields<'_> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        // How long the body is, is written when that is certain.
        if *name != CONTENT_LENGTH {
            self.out.field(name, value, self.spelling);
        }
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        self.out.line(name.as_str().as_bytes(), value);
    }
}

/// The body is not as long as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength;

/// What is to be written.
#[derive(Debug)]
pub struct Outgoing {
    buffer: BytesMut,
    /// A part that is too large to copy, and what follows it.
    data: Bytes,
    tail: &'static [u8],
    written: u64,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { buffer: buffers::take(), data: Bytes::new(), tail: b"", written: 0 }
    }
}

impl Outgoing {
    /// All of it is written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Nothing may be added before it is written.
    pub fn is_full(&self) -> bool {
        !self.data.is_empty() || !self.tail.is_empty() || self.buffer.len() >= GATHER_MAX
    }

    /// What would be written first.
    pub fn gathered(&self) -> &[u8] {
        &self.buffer
    }

    /// Bytes that the connection has taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The first line of a request, whose target is written as it is.
    pub fn request_line(&mut self, method: &Method, target: &str) {
        self.buffer.reserve(method.as_str().len() + target.len() + 512);
        for part in [method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"] {
            self.buffer.extend_from_slice(part);
        }
    }

    /// The first line of an answer, with the reason phrase of the spelling, else the usual one.
    pub fn status_line(&mut self, status: StatusCode, spelling: &Spelling) {
        self.buffer.reserve(1024);
        let reason = spelling.reason().unwrap_or_else(|| status.canonical_reason().unwrap_or("").as_bytes());
        for part in [b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason, b"\r\n"] {
            self.buffer.extend_from_slice(part);
        }
    }

    /// A status line, and all fields but those that say how long the body is.
    pub(super) fn answer(&mut self, status: StatusCode, headers: &HeaderMap, spelling: &Spelling) {
        self.status_line(status, spelling);
        self.fields(headers, spelling);
    }

    /// All fields but those that say how long the body is.
    pub fn fields(&mut self, headers: &HeaderMap, spelling: &Spelling) {
        for (name, value) in headers {
            if *name != TRANSFER_ENCODING && *name != CONTENT_LENGTH {
                self.field(name, value, spelling);
            }
        }
    }

    /// A field of the other side's, as it was written there.
    fn field(&mut self, name: &HeaderName, value: &HeaderValue, spelling: &Spelling) {
        match spelling.line(name, value) {
            Some(line) => self.buffer.extend_from_slice(line),
            None => self.line(spelling.of(name), value.as_bytes()),
        }
    }

    /// A field of our own. Neither name nor value may have a line end.
    pub fn line(&mut self, name: &[u8], value: &[u8]) {
        self.buffer.reserve(name.len() + value.len() + 4);
        self.buffer.extend_from_slice(name);
        self.buffer.extend_from_slice(b": ");
        self.buffer.extend_from_slice(value);
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// A field whose value is a number, in decimal digits.
    pub fn number(&mut self, name: &HeaderName, number: u64) {
        let mut digits = [0; 20];
        self.line(name.as_str().as_bytes(), decimal(number, &mut digits));
    }

    /// The fields that say how long the body is, and the head's end.
    pub fn end_head(&mut self, framing: Framing) {
        match framing {
            Framing::Length(length) => self.number(&CONTENT_LENGTH, length),
            Framing::Chunked => self.line(b"transfer-encoding", b"chunked"),
            Framing::None | Framing::UntilClose => (),
        }
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// `Connection: keep-alive` or `close` (RFC 9112, section 9.3).
    pub fn keep_alive(&mut self, is_kept: bool) {
        let value: &[u8] = if is_kept { b"keep-alive" } else { b"close" };
        self.line(CONNECTION.as_str().as_bytes(), value);
    }

    /// A part of the body, written as the framing says, which counts what is left. Nothing may be added while it
    /// [is full](Self::is_full).
    pub fn data(&mut self, framing: &mut Framing, data: Bytes) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match framing {
            Framing::None => return Ok(()),
            Framing::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?,
            Framing::Chunked => {
                let mut digits = [0; 16];
                self.buffer.extend_from_slice(hexadecimal(data.len(), &mut digits));
                self.buffer.extend_from_slice(b"\r\n");
            }
            Framing::UntilClose => (),
        }
        let tail: &'static [u8] = if *framing == Framing::Chunked { b"\r\n" } else { b"" };
        if data.len() <= COPY_MAX {
            self.buffer.reserve(data.len() + tail.len());
            self.buffer.extend_from_slice(&data);
            self.buffer.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
        Ok(())
    }

    /// The end of the body, with trailers where they can be written: in chunks.
    pub fn end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match framing {
            Framing::Length(1..) => Err(WrongLength),
            Framing::Chunked => {
                debug_assert!(self.data.is_empty(), "written before the end is added");
                self.buffer.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    self.fields(trailers, &Spelling::default());
                }
                self.buffer.extend_from_slice(b"\r\n");
                Ok(())
            }
            Framing::None | Framing::Length(0) | Framing::UntilClose => Ok(()),
        }
    }

    /// Writes until nothing is left, and flushes.
    pub fn poll_write(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(context, &self.buffer))?
            } else {
                let slices = [&self.buffer[..], &self.data[..], self.tail].map(IoSlice::new);
                ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            self.advance(written);
        }
        Pin::new(stream).poll_flush(context)
    }

    fn advance(&mut self, mut written: usize) {
        let count = written.min(self.buffer.len());
        if count == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.advance(count);
        }
        written -= count;
        let count = written.min(self.data.len());
        if count == self.data.len() {
            self.data = Bytes::new(); // and with it the buffer that it is a part of, for the next read
        } else {
            self.data.advance(count);
        }
        self.tail = &self.tail[written - count..];
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        let mut out = Outgoing::default();
        let mut framing = Framing::Length(5);
        assert_eq!(out.data(&mut framing, Bytes::from_static(b"hell")), Ok(()));
        assert_eq!(out.end(framing, None), Err(WrongLength));
        assert_eq!(out.data(&mut framing, Bytes::from_static(b"o!")), Err(WrongLength));
    }
}
