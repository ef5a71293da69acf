//! HPACK: fields, compressed (RFC 7541). Reading does all of it. Writing refers to the static table and to nothing else:
//! a table to keep in step with the peer costs more here than the bytes that it would save.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::huffman;
use crate::http1::write::decimal;
use crate::rewrite::WriteHead;

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;

/// SETTINGS_HEADER_TABLE_SIZE, which we leave at its default (RFC 9113, section 6.5.2).
const TABLE_MAX: usize = 4096;
/// Strings are decoded into pieces of this much, which their fields share.
const SCRATCH: usize = 4096;
/// What an entry counts besides its name and value (RFC 7541, section 4.1).
const OVERHEAD: usize = 32;

/// A field, or a pseudo-field (RFC 9113, section 8.3).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Method(Method),
    Scheme(Bytes),
    Authority(Bytes),
    Path(Bytes),
    /// RFC 8441, section 4.
    Protocol(Bytes),
    Status(StatusCode),
    Regular(HeaderName, HeaderValue),
}

/// Why a field may not be (RFC 9113, section 8.2.1). It does not disturb the decoding of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The block cannot be decoded, and no later one can (RFC 7541, section 2.3.3 and others): COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable(pub(super) &'static str);

/// A name, as far as it is one.
#[derive(Clone, Debug)]
enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Regular(HeaderName),
    Invalid(Malformed),
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":status" => Self::Status,
            [b':', ..] => Self::Invalid(Malformed("a pseudo-field that is not known")),
            name => HeaderName::from_lowercase(name)
                .map_or(Self::Invalid(Malformed("a field's name is not a token in lower case")), Self::Regular),
        }
    }

    fn with(&self, value: Bytes, is_sensitive: bool) -> Result<Field, Malformed> {
        Ok(match self {
            Self::Method => {
                Field::Method(Method::from_bytes(&value).map_err(|_| Malformed("the method is not a token"))?)
            }
            Self::Scheme => Field::Scheme(value),
            Self::Authority => Field::Authority(value),
            Self::Path => Field::Path(value),
            Self::Protocol => Field::Protocol(value),
            Self::Status => {
                Field::Status(StatusCode::from_bytes(&value).map_err(|_| Malformed("the status is not one"))?)
            }
            Self::Regular(name) => {
                let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
                if is_space(value.first()) || is_space(value.last()) {
                    return Err(Malformed("there is space around a field's value"));
                }
                let mut value = HeaderValue::from_maybe_shared(value)
                    .map_err(|_| Malformed("a field's value has a control character"))?;
                value.set_sensitive(is_sensitive);
                Field::Regular(name.clone(), value)
            }
            Self::Invalid(malformed) => return Err(*malformed),
        })
    }
}

/// An entry of a table.
#[derive(Clone, Debug)]
struct Entry {
    name: Name,
    field: Result<Field, Malformed>,
    name_size: usize,
    size: usize,
}

impl Entry {
    fn new(name: Name, name_size: usize, value: Bytes) -> Self {
        let size = name_size + value.len() + OVERHEAD;
        Self { field: name.with(value, false), name, name_size, size }
    }
}

/// RFC 7541, appendix A.
static STATIC_TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(name, value): &(&'static str, &'static str)| {
        Entry::new(Name::of(name.as_bytes()), name.len(), Bytes::from_static(value.as_bytes()))
    };
    STATIC.iter().map(entry).collect()
});

/// One direction of a connection, as its receiver decodes it.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    size: usize,
    max: usize,
    scratch: BytesMut,
    string: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, max: TABLE_MAX, scratch: BytesMut::new(), string: Vec::new() }
    }
}

impl Decoder {
    /// Decodes a block, and hands each field over with the size that it counts for.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(Result<Field, Malformed>, usize),
    ) -> Result<(), Undecodable> {
        let mut has_begun = false;
        while let Some(first) = block.first().copied() {
            match first {
                0x80.. => {
                    let entry = self.entry(integer(&mut block, 7)?)?;
                    take(entry.field.clone(), entry.size);
                }
                0x40.. => {
                    let (name, name_size) = self.name(&mut block, 6)?;
                    let value = self.string(&mut block)?;
                    // Apart from the piece that it lies in: it may stay for long.
                    let entry = Entry::new(name, name_size, Bytes::copy_from_slice(&value));
                    take(entry.field.clone(), entry.size);
                    self.insert(entry);
                }
                0x20.. => {
                    let max = integer(&mut block, 5)?;
                    if has_begun {
                        return Err(Undecodable("the table's size changes within a block"));
                    }
                    if max > TABLE_MAX {
                        return Err(Undecodable("the table would be larger than allowed"));
                    }
                    self.max = max;
                    self.evict(0);
                    continue;
                }
                _ => {
                    let is_sensitive = first & 0x10 != 0;
                    let (name, name_size) = self.name(&mut block, 4)?;
                    let value = self.string(&mut block)?;
                    let size = name_size + value.len() + OVERHEAD;
                    take(name.with(value, is_sensitive), size);
                }
            }
            has_begun = true;
        }
        self.string.shrink_to(SCRATCH); // a large one is seldom, a connection may stay for long
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<&Entry, Undecodable> {
        let index = index.checked_sub(1).ok_or(Undecodable("index 0"))?;
        STATIC_TABLE
            .get(index)
            .or_else(|| self.table.get(index - STATIC.len()))
            .ok_or(Undecodable("an index beyond the table"))
    }

    fn name(&mut self, block: &mut &[u8], prefix: u32) -> Result<(Name, usize), Undecodable> {
        let index = integer(block, prefix)?;
        if index > 0 {
            let entry = self.entry(index)?;
            return Ok((entry.name.clone(), entry.name_size));
        }
        let (text, is_code) = text(block)?;
        if !is_code {
            return Ok((Name::of(text), text.len()));
        }
        self.read(text)?;
        Ok((Name::of(&self.string), self.string.len()))
    }

    fn string(&mut self, block: &mut &[u8]) -> Result<Bytes, Undecodable> {
        let (text, is_code) = text(block)?;
        let string = if is_code {
            self.read(text)?;
            &self.string
        } else {
            text
        };
        if self.scratch.capacity() < string.len() {
            self.scratch = BytesMut::with_capacity(string.len().max(SCRATCH));
        }
        self.scratch.extend_from_slice(string);
        Ok(self.scratch.split().freeze())
    }

    fn read(&mut self, code: &[u8]) -> Result<(), Undecodable> {
        self.string.clear();
        let string = &mut self.string;
        huffman::decode(code, |byte| string.push(byte)).map_err(|_| Undecodable("a string that is not Huffman code"))
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        if entry.size <= self.max {
            self.size += entry.size;
            self.table.push_front(entry);
        }
    }

    /// Makes room (RFC 7541, sections 4.3 and 4.4).
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

/// RFC 7541, section 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Undecodable> {
    const CUT: Undecodable = Undecodable("an integer that is cut short");
    let (first, mut rest) = block.split_first().ok_or(CUT)?;
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(CUT)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(Undecodable("an integer that is too large"));
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// RFC 7541, section 5.2: a string, and whether it is Huffman code.
fn text<'a>(block: &mut &'a [u8]) -> Result<(&'a [u8], bool), Undecodable> {
    let is_code = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Undecodable("a string that is cut short"))?;
    *block = rest;
    Ok((text, is_code))
}

/// A block that is being written.
#[derive(Debug)]
pub(crate) struct Encoder<'a>(pub(super) &'a mut BytesMut);

#[cfg(any(fuzzing, test))]
impl<'a> Encoder<'a> {
    pub(crate) fn of(block: &'a mut BytesMut) -> Self {
        Self(block)
    }
}

impl Encoder<'_> {
    pub(crate) fn method(&mut self, method: &Method) {
        match *method {
            Method::GET => self.indexed(2),
            Method::POST => self.indexed(3),
            ref other => self.literal(2, other.as_str().as_bytes(), false),
        }
    }

    pub(crate) fn scheme(&mut self, is_encrypted: bool) {
        self.indexed(if is_encrypted { 7 } else { 6 });
    }

    pub(crate) fn authority(&mut self, authority: &[u8]) {
        self.literal(1, authority, false);
    }

    pub(crate) fn path(&mut self, path: &[u8]) {
        if path == b"/" { self.indexed(4) } else { self.literal(4, path, false) }
    }

    pub(crate) fn protocol(&mut self, protocol: &[u8]) {
        self.field(b":protocol", protocol, false);
    }

    pub(super) fn status(&mut self, status: StatusCode) {
        match status.as_u16() {
            200 => self.indexed(8),
            204 => self.indexed(9),
            206 => self.indexed(10),
            304 => self.indexed(11),
            400 => self.indexed(12),
            404 => self.indexed(13),
            500 => self.indexed(14),
            _ => self.literal(8, status.as_str().as_bytes(), false),
        }
    }

    /// Sensitive ones are not to be kept in any table (RFC 7541, section 7.1.3).
    pub(super) fn field(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        let index = static_name(name);
        if index > 0 {
            return self.literal(index, value, is_sensitive);
        }
        self.0.reserve(name.len() + value.len() + 12);
        self.0.extend_from_slice(&[if is_sensitive { 0x10 } else { 0 }]);
        self.text(name);
        self.text(value);
    }

    pub(super) fn number(&mut self, name: &[u8], number: u64) {
        self.field(name, decimal(number, &mut [0; 20]), false);
    }

    /// The table's size is 0 from now on: what a peer hears that has made it smaller (RFC 7541, section 4.2).
    pub(super) fn without_table(&mut self) {
        self.0.extend_from_slice(&[0x20]);
    }

    fn indexed(&mut self, index: u8) {
        self.0.extend_from_slice(&[0x80 | index]);
    }

    fn literal(&mut self, name: u8, value: &[u8], is_sensitive: bool) {
        self.0.reserve(value.len() + 8);
        self.integer(usize::from(name), 4, if is_sensitive { 0x10 } else { 0 });
        self.text(value);
    }

    fn text(&mut self, text: &[u8]) {
        self.integer(text.len(), 7, 0);
        self.0.extend_from_slice(text);
    }

    fn integer(&mut self, mut value: usize, prefix: u32, flags: u8) {
        let mask = (1 << prefix) - 1;
        if value < mask {
            return self.0.extend_from_slice(&[flags | value as u8]);
        }
        self.0.extend_from_slice(&[flags | mask as u8]);
        value -= mask;
        while value >= 0x80 {
            self.0.extend_from_slice(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.0.extend_from_slice(&[value as u8]);
    }
}

impl WriteHead for Encoder<'_> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        // What belongs to an upgrade in HTTP/1.1 is said in pseudo-fields (RFC 8441, section 5).
        if !matches!(*name, UPGRADE | CONNECTION | SEC_WEBSOCKET_KEY) {
            self.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        if *name != CONNECTION {
            self.field(name.as_str().as_bytes(), value, false);
        }
    }
}

/// The static table's first index for a name, 0 for none.
fn static_name(name: &[u8]) -> u8 {
    // What comes most is not there: it need not be searched for.
    match name {
        [b'x', b'-', ..] | b"traceparent" | b"tracestate" | b"te" => 0,
        b"accept" => 19,
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn shown(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        decoder
            .decode(block, |field, _| {
                fields.push(match field.unwrap() {
                    Field::Method(method) => format!(":method: {method}"),
                    Field::Scheme(value) => format!(":scheme: {}", value.escape_ascii()),
                    Field::Authority(value) => format!(":authority: {}", value.escape_ascii()),
                    Field::Path(value) => format!(":path: {}", value.escape_ascii()),
                    Field::Protocol(value) => format!(":protocol: {}", value.escape_ascii()),
                    Field::Status(status) => format!(":status: {}", status.as_u16()),
                    Field::Regular(name, value) => format!("{name}: {}", value.to_str().unwrap()),
                });
            })
            .unwrap();
        fields
    }

    /// An encoder that uses all there is: both tables, changes of size, strings of any length.
    struct Reference {
        table: VecDeque<(String, String)>,
        max: usize,
    }

    impl Reference {
        fn evict(&mut self) {
            let size = |table: &VecDeque<(String, String)>| -> usize {
                table.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum()
            };
            while size(&self.table) > self.max {
                self.table.pop_back();
            }
        }

        fn write(&mut self, out: &mut BytesMut, name: &str, value: &str, is_kept: bool) {
            let at = self.table.iter().position(|(kept, other)| kept == name && other == value);
            let mut encoder = Encoder(out);
            if let Some(at) = at {
                return encoder.integer(62 + at, 7, 0x80);
            }
            let named = self.table.iter().position(|(kept, _)| kept == name).map_or(0, |at| 62 + at);
            encoder.integer(named, if is_kept { 6 } else { 4 }, if is_kept { 0x40 } else { 0 });
            if named == 0 {
                encoder.text(name.as_bytes());
            }
            encoder.text(value.as_bytes());
            if is_kept {
                self.table.push_front((name.to_owned(), value.to_owned()));
                self.evict();
            }
        }
    }

    proptest! {
        #[test]
        fn any_lists_decode_to_what_they_were(
            blocks in vec((option::of(0_usize..4097), vec(("x-[a-c]{0,40}", "[ -~&&[^ ]]{0,300}", any::<bool>()), 0..12)), 1..12)
        ) {
            let mut reference = Reference { table: VecDeque::new(), max: TABLE_MAX };
            let mut decoder = Decoder::default();
            for (max, list) in blocks {
                let mut block = BytesMut::new();
                if let Some(max) = max {
                    reference.max = max;
                    reference.evict();
                    Encoder(&mut block).integer(max, 5, 0x20);
                }
                for (name, value, is_kept) in &list {
                    reference.write(&mut block, name, value, *is_kept);
                }
                let expected: Vec<String> = list.iter().map(|(name, value, _)| format!("{name}: {value}")).collect();
                prop_assert_eq!(shown(&mut decoder, &block), expected.clone());
                prop_assert_eq!(decoder.table.len(), reference.table.len());
                let mut ours = BytesMut::new();
                for (name, value, is_sensitive) in &list {
                    Encoder(&mut ours).field(name.as_bytes(), value.as_bytes(), *is_sensitive);
                }
                prop_assert_eq!(shown(&mut Decoder::default(), &ours), expected);
            }
        }
    }

    /// RFC 7541, appendices C.3 and C.4: the same three requests, without and with Huffman code.
    #[test]
    fn requests_of_the_rfc_decode_in_one_context() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let code = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, code] {
            let mut decoder = Decoder::default();
            let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
            assert_eq!(shown(&mut decoder, &hex(blocks[0])), first);
            assert_eq!(shown(&mut decoder, &hex(blocks[1]))[3..], [first[3], "cache-control: no-cache"]);
            let third = [":method: GET", ":scheme: https", ":path: /index.html", first[3], "custom-key: custom-value"];
            assert_eq!(shown(&mut decoder, &hex(blocks[2])), third);
            assert_eq!((decoder.table.len(), decoder.size), (3, 164));
        }
    }

    /// RFC 7541, appendix C.6, with a table of 256.
    #[test]
    fn old_entries_make_room_for_new_ones() {
        let mut decoder = Decoder { max: 256, ..Decoder::default() };
        let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                     29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        let told = shown(&mut decoder, &hex(first));
        assert_eq!(told[..2], [":status: 302", "cache-control: private"]);
        assert_eq!(decoder.size, 222);
        assert_eq!(shown(&mut decoder, &hex("4883 640e ffc1 c0bf"))[0], ":status: 307");
        assert_eq!(decoder.size, 222);
        let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d \
                     d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 \
                     3d50 07";
        let told = shown(&mut decoder, &hex(third));
        assert_eq!(told[0], ":status: 200");
        assert_eq!(told[5], "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
        assert_eq!((decoder.table.len(), decoder.size), (3, 215));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = BytesMut::new();
        let mut encoder = Encoder(&mut block);
        encoder.method(&Method::GET);
        encoder.method(&Method::PATCH);
        encoder.scheme(false);
        encoder.authority(b"users");
        encoder.path(b"/a?b");
        encoder.status(StatusCode::OK);
        encoder.status(StatusCode::IM_A_TEAPOT);
        for (name, value) in STATIC.iter().filter(|(name, _)| !name.starts_with(':')) {
            encoder.field(name.as_bytes(), value.as_bytes(), false);
        }
        let long = "v".repeat(70_000);
        encoder.field(b"x-long", long.as_bytes(), true);
        let mut decoder = Decoder::default();
        let mut fields = Vec::new();
        decoder.decode(&block, |field, _| fields.push(field.unwrap())).unwrap();
        let [Field::Method(get), Field::Method(patch), Field::Scheme(scheme), rest @ ..] = &fields[..] else {
            panic!()
        };
        assert_eq!((get, patch, &scheme[..]), (&Method::GET, &Method::PATCH, &b"http"[..]));
        let [Field::Authority(_), Field::Path(path), Field::Status(ok), Field::Status(teapot), regular @ ..] = rest
        else {
            panic!()
        };
        assert_eq!((&path[..], ok.as_u16(), teapot.as_u16()), (&b"/a?b"[..], 200, 418));
        let (last, others) = regular.split_last().unwrap();
        for (field, (name, value)) in others.iter().zip(STATIC.iter().filter(|(name, _)| !name.starts_with(':'))) {
            let expected = Field::Regular(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(*field, expected);
        }
        let Field::Regular(_, value) = last else { panic!() };
        assert!(value.is_sensitive() && value.len() == 70_000);
        assert!(decoder.table.is_empty());
    }

    #[test]
    fn every_cut_of_a_block_is_refused_or_decodes_to_its_beginning() {
        let block = hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        for end in 0..block.len() {
            let mut decoder = Decoder::default();
            let _ = decoder.decode(&hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"), |_, _| ());
            let _ = decoder.decode(&block[..end], |field, _| assert!(field.is_ok()));
        }
    }
}
