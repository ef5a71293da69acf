//! Frames of HTTP/2 (RFC 9113, section 6) and their fields, byte by byte.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 0x20;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) type Fields = &'static [(&'static str, &'static str)];

pub(crate) const METHOD: (&str, &str) = (":method", "GET");
pub(crate) const SCHEME: (&str, &str) = (":scheme", "http");
pub(crate) const PATH: (&str, &str) = (":path", "/");
pub(crate) const AUTHORITY: (&str, &str) = (":authority", "users");
pub(crate) const GET: Fields = &[METHOD, SCHEME, PATH, AUTHORITY];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

pub(crate) fn priority(stream: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 15])
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload = pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

pub(crate) fn ping(flags: u8, payload: [u8; 8]) -> Vec<u8> {
    frame(PING, flags, 0, &payload)
}

pub(crate) fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// The last one of its field block.
pub(crate) fn continuation(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(9, END_HEADERS, stream, block)
}

/// A request without a body, from its field block.
pub(crate) fn block(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

pub(crate) fn get(stream: u32) -> Vec<u8> {
    block(stream, &fields(GET))
}

/// The same with more at the end of its field block.
pub(crate) fn with(stream: u32, more: &[u8]) -> Vec<u8> {
    block(stream, &[&fields(GET), more].concat())
}

/// A request whose body is yet to come.
pub(crate) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(&[(":method", "POST"), SCHEME, PATH, AUTHORITY]))
}

/// The same with its length.
pub(crate) fn counted(stream: u32, length: &str) -> Vec<u8> {
    let list = [(":method", "POST"), SCHEME, PATH, AUTHORITY, ("content-length", length)];
    frame(HEADERS, END_HEADERS, stream, &fields(&list))
}

pub(crate) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// A field that leaves the dynamic table as it is (RFC 7541, section 6.2.2).
pub(crate) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0], &string(name)[..], &string(value)].concat()
}

/// A field that becomes the dynamic table's first, which is index 62, or 0xbe on the wire.
pub(crate) fn indexed(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40], &string(name)[..], &string(value)].concat()
}

/// Its length with a prefix of seven bits, and the bytes as they are (RFC 7541, section 5).
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    if bytes.len() < 127 {
        encoded.push(bytes.len() as u8);
    } else {
        encoded.push(127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            encoded.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        encoded.push(rest as u8);
    }
    [&encoded[..], bytes].concat()
}
