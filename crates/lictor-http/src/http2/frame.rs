//! Frames (RFC 9113, section 4): their heads, and how the small ones are written.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// What a client says first (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEAD: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE, which we leave at its default: no frame that we send or take has a longer payload.
pub(super) const PAYLOAD_MAX: usize = 16_384;
/// Section 6.9.1.
pub(super) const WINDOW_MAX: i64 = (1 << 31) - 1;
/// Section 6.9.2.
pub(super) const WINDOW_DEFAULT: i64 = 65_535;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITISED: u8 = 0x20;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441, section 3.
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// An error code (section 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The end without an error.
    pub const NO_ERROR: Self = Self(0);
    /// What came is not HTTP/2.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Who says it is at fault.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More came than the window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// Something came on a stream that had ended.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has the wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The request was not looked at (section 8.7).
    pub const REFUSED_STREAM: Self = Self(7);
    /// Nobody wants it any more.
    pub const CANCEL: Self = Self(8);
    /// A field block cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The peer makes too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// The head at the beginning of these bytes, if it is whole.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = *bytes.first_chunk()?;
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]) })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a frame's head.
pub(super) fn head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(length <= PAYLOAD_MAX, "no longer frame is sent");
    let [_, l2, l1, l0] = (length as u32).to_be_bytes();
    let [s3, s2, s1, s0] = stream.to_be_bytes();
    out.extend_from_slice(&[l2, l1, l0, kind, flags, s3, s2, s1, s0]);
}

pub(super) fn settings(out: &mut BytesMut, settings: &[(u16, u32)]) {
    head(out, settings.len() * 6, SETTINGS, 0, 0);
    for (name, value) in settings {
        out.put_u16(*name);
        out.put_u32(*value);
    }
}

pub(super) fn window_update(out: &mut BytesMut, stream: u32, by: u32) {
    head(out, 4, WINDOW_UPDATE, 0, stream);
    out.put_u32(by);
}

pub(super) fn reset(out: &mut BytesMut, stream: u32, code: Code) {
    head(out, 4, RST_STREAM, 0, stream);
    out.put_u32(code.0);
}

pub(super) fn ping(out: &mut BytesMut, flags: u8, payload: [u8; 8]) {
    head(out, 8, PING, flags, 0);
    out.extend_from_slice(&payload);
}

pub(super) fn goaway(out: &mut BytesMut, last: u32, code: Code, why: &str) {
    head(out, 8 + why.len(), GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(code.0);
    out.extend_from_slice(why.as_bytes());
}
