//! Blocks of the RFC, of a reference, and our own, read.

use std::collections::VecDeque;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::table::{OVERHEAD, STATIC, TABLE_MAX};
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
            prop_assert_eq!(decoder.table.entries.len(), reference.table.len());
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
        assert_eq!((decoder.table.entries.len(), decoder.table.size), (3, 164));
    }
}

/// RFC 7541, appendix C.6, with a table of 256.
#[test]
fn old_entries_make_room_for_new_ones() {
    let mut decoder = Decoder::default();
    decoder.table.resize(256).unwrap();
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let told = shown(&mut decoder, &hex(first));
    assert_eq!(told[..2], [":status: 302", "cache-control: private"]);
    assert_eq!(decoder.table.size, 222);
    assert_eq!(shown(&mut decoder, &hex("4883 640e ffc1 c0bf"))[0], ":status: 307");
    assert_eq!(decoder.table.size, 222);
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d \
                 d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 \
                 3d50 07";
    let told = shown(&mut decoder, &hex(third));
    assert_eq!(told[0], ":status: 200");
    assert_eq!(told[5], "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    assert_eq!((decoder.table.entries.len(), decoder.table.size), (3, 215));
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
    let [Field::Method(get), Field::Method(patch), Field::Scheme(scheme), rest @ ..] = &fields[..] else { panic!() };
    assert_eq!((get, patch, &scheme[..]), (&Method::GET, &Method::PATCH, &b"http"[..]));
    let [Field::Authority(_), Field::Path(path), Field::Status(ok), Field::Status(teapot), regular @ ..] = rest else {
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
    assert!(decoder.table.entries.is_empty());
}

#[test]
fn every_cut_of_a_block_is_refused_or_decodes_to_its_beginning() {
    let before = hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    let block = hex("8287 85be 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    let decoded = |block: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.decode(&before, |_, _| ()).unwrap();
        let mut fields = Vec::new();
        let result = decoder.decode(block, |field, _| fields.push(field));
        (fields, result)
    };
    let (whole, result) = decoded(&block);
    assert_eq!((whole.len(), result), (5, Ok(())));
    let ends = [0, 1, 2, 3, 4]; // of fields: elsewhere it is cut within one
    for end in 0..block.len() {
        let (fields, result) = decoded(&block[..end]);
        assert!(fields.len() < whole.len() && whole.starts_with(&fields), "{fields:?}");
        assert_eq!(result.is_ok(), ends.contains(&end), "{end}");
    }
}
