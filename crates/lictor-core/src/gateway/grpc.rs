//! What gRPC is on HTTP/2's wire ("PROTOCOL-HTTP2"), for those who translate it: its fields, its framing, and what its
//! statuses are in HTTP's terms.

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode};

use super::path::escaped;

pub(super) const GRPC: &[u8] = b"application/grpc";
pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// UNKNOWN: what no other says.
pub(super) const UNKNOWN: u16 = 2;
/// INTERNAL: who ends without a status has broken off.
pub(super) const INTERNAL: u16 = 13;

/// What follows the type's name: `+proto`; nothing before parameters. `None` where it is another type.
pub(super) fn suffix<'a>(kind: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let (name, suffix) = essence.split_at_checked(wanted.len())?;
    let is_it = name.eq_ignore_ascii_case(wanted) && (suffix.is_empty() || suffix.starts_with(b"+"));
    is_it.then_some(suffix)
}

/// Whether an answer is one of gRPC.
pub fn is_answer(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_grpc = |kind: &http::HeaderValue| suffix(kind.as_bytes(), GRPC).is_some();
    status == StatusCode::OK && headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// gRPC's status of an answer of HTTP's ("HTTP to gRPC Status Code Mapping").
pub(super) fn meaning(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => UNKNOWN,
    }
}

/// HTTP's status of one of gRPC's, as `google/rpc/code.proto` has it.
pub fn http_status(code: u16) -> StatusCode {
    let status = match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// 0 is success.
    pub code: u16,
    /// For people.
    pub message: String,
    /// `google.rpc.Status`, in base64.
    pub(super) details: Option<Box<[u8]>>,
}

impl Status {
    /// One of ours.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// That of trailers, or of a head without any; `None` where there is none.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let code = fields.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
        let message = fields.get(MESSAGE).map(|message| percent_decoded(message.as_bytes())).unwrap_or_default();
        Some(Self { code, message, details: fields.get(DETAILS).map(|details| details.as_bytes().into()) })
    }

    /// That of an answer that is not gRPC's.
    pub fn of_http(status: StatusCode) -> Self {
        Self::new(meaning(status), not_grpc(status))
    }
}

/// It never looks like success.
pub const NO_STATUS: &str = "the service ended without a status";

pub(super) fn not_grpc(status: StatusCode) -> String {
    format!("the service answered {} and not with gRPC", status.as_u16())
}

/// What is no escape stands for itself, as gRPC asks of who reads it.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = if *first == b'%' { escaped(after) } else { None };
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A message broke off, or the trailers came within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Where in a body of messages somebody is: a frame is a byte, a length of four, and so much.
#[derive(Debug, Default)]
pub(super) struct Place {
    prefix: [u8; FRAME],
    got: usize,
    left: usize,
}

impl Place {
    /// Goes on to the end of a message at most; how far that was, and whether it is there.
    pub(super) fn advance(&mut self, data: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        while self.got < FRAME {
            let Some(byte) = data.get(taken) else { return (taken, false) };
            self.prefix[self.got] = *byte;
            self.got += 1;
            taken += 1;
            let [_, a, b, c, d] = self.prefix;
            self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        }
        let more = self.left.min(data.len() - taken);
        self.left -= more;
        if self.left == 0 {
            self.got = 0;
        }
        (taken + more, self.got == 0)
    }

    /// It is within none.
    pub(super) fn is_between(&self) -> bool {
        self.got == 0
    }
}

/// What a message has before it on the wire: a byte that says how it is compressed, and four for its length.
pub const FRAME: usize = 5;

/// Takes messages out of a body, wherever that is cut; one at a time is held.
#[derive(Debug)]
pub struct Messages {
    held: BytesMut,
    most: usize,
}

impl Messages {
    /// None may be longer than `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { held: BytesMut::new(), most }
    }

    /// The next piece of the body.
    pub fn push(&mut self, data: &[u8]) {
        self.held.extend_from_slice(data);
    }

    /// The next message, once it is there; in words why it is not taken.
    pub fn take(&mut self) -> Result<Option<Bytes>, &'static str> {
        let [flags, a, b, c, d, ..] = self.held[..] else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flags != 0 {
            return Err("the service answered with a compressed message, which nobody asked for");
        }
        if length > self.most {
            return Err("the service answered with a message that is longer than `message_max`");
        }
        if self.held.len() < FRAME + length {
            return Ok(None);
        }
        self.held.advance(FRAME);
        Ok(Some(self.held.split_to(length).freeze()))
    }

    /// Bytes that wait for the rest of their message.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// It is within none.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }
}

/// A message as it goes on the wire.
pub(super) fn framed(message: &impl prost_reflect::prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(FRAME + length);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector has room for everything.
    let _ = message.encode(&mut frame);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_status_is_read_as_it_was_meant() {
        for (lines, expected) in [
            (&[("grpc-status", "0")][..], Some((0, ""))),
            (&[("grpc-status", "5"), ("grpc-message", "no%20such%20shelf")], Some((5, "no such shelf"))),
            (&[("grpc-status", "5"), ("grpc-message", "50%25 of %C3%A9")], Some((5, "50% of \u{e9}"))),
            (&[("grpc-status", "5"), ("grpc-message", "100%")], Some((5, "100%"))),
            (&[("grpc-status", "5"), ("grpc-message", "%zz%4")], Some((5, "%zz%4"))),
            (&[("grpc-status", "5"), ("grpc-message", "%FF")], Some((5, "\u{fffd}"))),
            (&[("grpc-status", "x")], Some((2, ""))),
            (&[("grpc-status", "")], Some((2, ""))),
            (&[("grpc-status", "-1")], Some((2, ""))),
            (&[("grpc-message", "x")], None),
        ] {
            let status = Status::of(&fields(lines));
            assert_eq!(status.as_ref().map(|status| (status.code, &*status.message)), expected, "{lines:?}");
        }
    }

    #[test]
    fn each_status_has_one_of_https() {
        let expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (code, status) in expected.into_iter().enumerate() {
            assert_eq!(http_status(code as u16).as_u16(), status, "{code}");
        }
        assert_eq!(http_status(17).as_u16(), 500);
        assert_eq!(http_status(u16::MAX).as_u16(), 500);
    }

    #[test]
    fn messages_are_found_wherever_a_body_is_cut() {
        let frame = |text: &[u8]| [&[0], &(text.len() as u32).to_be_bytes()[..], text].concat();
        let body = [frame(b"hello"), frame(b""), frame(b"x")].concat();
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let (mut messages, mut found) = (Messages::new(5), Vec::new());
                for piece in [&body[..first], &body[first..second], &body[second..]] {
                    messages.push(piece);
                    while let Some(message) = messages.take().unwrap() {
                        found.push(message);
                    }
                }
                assert!(messages.is_between());
                assert_eq!(found, [&b"hello"[..], b"", b"x"]);
            }
        }
        let refused = |frame: &[u8]| {
            let mut messages = Messages::new(5);
            messages.push(frame);
            messages.take().is_err()
        };
        assert!(refused(&[0, 0, 0, 0, 6]), "before it is held");
        assert!(refused(&[0, 255, 255, 255, 255]));
        assert!(refused(&[1, 0, 0, 0, 0]));
        assert!(!refused(&[0, 0, 0, 0, 5]));
    }
}
