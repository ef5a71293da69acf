//! HTTP/2 frame by frame: what RFC 9113 (and RFC 7541 for field compression) has to say about a client that does not
//! keep to it, and about one that does. Cases are named by the section they are about.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::Expect::{Alive, Answer, Closed, Connection, Stream};
use super::frames::*;
use super::{Between, Speaks, Tables, chosen, dechunked, eventually_is};

/// By what they are about.
const TABLES: Tables<Case> = &[
    ("the preface comes first", the_preface_comes_first),
    ("frames have a format and a size", frames_have_a_format_and_a_size),
    ("streams have a life", streams_have_a_life),
    ("each frame type has its rules", each_frame_type_has_its_rules),
    ("field blocks are decoded in one context", field_blocks_are_decoded_in_one_context),
    ("malformed requests do not pass", malformed_requests_do_not_pass),
    ("a list of fields has a limit", a_list_of_fields_has_a_limit),
    ("what follows the head may be malformed too", what_follows_the_head_may_be_malformed_too),
];

/// Runs the cases against what stands between, and panics with all that failed; says how many there were.
pub(crate) fn run<B: Between>() -> usize {
    let cases: Vec<(&str, Case)> =
        TABLES.iter().flat_map(|(table, cases)| cases().into_iter().map(|case| (*table, case))).collect();
    let cases = chosen(cases, B::ONE_IN, |(_, case)| std::mem::discriminant(&case.expect));
    for table in cases.chunk_by(|(one, _), (other, _)| one == other) {
        // With a backend of its own: what the table before it has sent, and given up, may come late and is not counted.
        let recorder = Recorder::start();
        let between = B::before(recorder.port, Speaks::Http1);
        let failed =
            table.iter().filter_map(|(table, case)| Some(format!("{table}: {}", case.failure(&between, &recorder)?)));
        settle(&between, failed.collect());
    }
    cases.len()
}

fn the_preface_comes_first() -> Vec<Case> {
    vec![
        raw("3.4 a preface byte by byte", in_pieces, Answer(1, "")),
        raw("3.4 empty SETTINGS", |p| p.send(&[PREFACE.into(), settings(&[]), get(1)]), Answer(1, "")),
        raw("3.4 SETTINGS are acknowledged", |p| p.send(&[PREFACE.into(), settings(&[])]), Expect::Acks(1)),
        raw("3.4 a bad preface", |p| p.send(&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into(), settings(&[])]), Closed),
        raw("3.4 PING before SETTINGS", |p| p.send(&[PREFACE.into(), ping(0, *b"pingping")]), PROTOCOL),
        raw("3.4 HEADERS before SETTINGS", |p| p.send(&[PREFACE.into(), get(1)]), PROTOCOL),
    ]
}

fn in_pieces(peer: &mut Peer) {
    for byte in [PREFACE, &settings(&[]), &get(1)].concat() {
        peer.send(&[vec![byte]]);
    }
}

fn frames_have_a_format_and_a_size() -> Vec<Case> {
    vec![
        case("4.1 an unknown frame type", |p| p.send(&[frame(0xfa, 0xff, 0, b"?"), get(1)]), Answer(1, "")),
        case(
            "4.1 an unknown frame type on an open stream",
            |p| p.send(&[post(1), frame(0xfa, 0xff, 1, b"?"), data(1, END_STREAM, b"four")]),
            Answer(1, " 4\n"),
        ),
        case(
            "4.1 undefined flags",
            |p| p.send(&[frame(HEADERS, END_STREAM | END_HEADERS | 0xd2, 1, &fields(GET))]),
            Answer(1, ""),
        ),
        case("4.1 the reserved bit of a stream", |p| p.send(&[get(0x8000_0001)]), Answer(1, "")),
        case(
            "4.2 DATA of SETTINGS_MAX_FRAME_SIZE",
            |p| p.send(&[post(1), data(1, END_STREAM, &[b'x'; 16_384])]),
            Answer(1, " 16384\n"),
        ),
        case(
            "4.2 DATA larger than SETTINGS_MAX_FRAME_SIZE",
            |p| p.send(&[post(1), data(1, END_STREAM, &vec![b'x'; 16_385])]),
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2 HEADERS larger than SETTINGS_MAX_FRAME_SIZE",
            |p| p.send(&[frame(HEADERS, END_STREAM | END_HEADERS, 1, &vec![0x82; 16_385])]),
            FRAME_SIZE,
        ),
        case(
            "4.2 SETTINGS larger than SETTINGS_MAX_FRAME_SIZE",
            |p| p.send(&[frame(SETTINGS, 0, 0, &vec![0xee; 16_386])]),
            FRAME_SIZE,
        ),
        case(
            "4.2 an unknown frame larger than SETTINGS_MAX_FRAME_SIZE",
            |p| p.send(&[frame(0xfa, 0, 0, &vec![0; 16_385])]),
            FRAME_SIZE,
        ),
        case(
            "5.5 an unknown frame within a field block",
            |p| p.send(&[frame(HEADERS, END_STREAM, 1, &fields(GET)), frame(0xfa, 0, 0, b"?"), continuation(1, b"")]),
            PROTOCOL,
        ),
    ]
}

fn streams_have_a_life() -> Vec<Case> {
    const GONE: Expect = Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]);
    vec![
        case(
            "5.1 DATA on an idle stream",
            |p| p.send(&[data(1, 0, b"x")]),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case("5.1 RST_STREAM on an idle stream", |p| p.send(&[reset(1)]), PROTOCOL),
        case("5.1 WINDOW_UPDATE on an idle stream", |p| p.send(&[window(1, 9)]), PROTOCOL),
        case("5.1 CONTINUATION on an idle stream", |p| p.send(&[continuation(1, &fields(GET))]), PROTOCOL),
        case("5.1 PRIORITY on an idle stream", |p| p.send(&[priority(3), get(5)]), Answer(5, "")),
        case("5.1 DATA after END_STREAM", |p| p.send(&[get(1), data(1, 0, b"x")]), Stream(1, &[STREAM_CLOSED])),
        case("5.1 HEADERS after END_STREAM", |p| p.send(&[get(1), get(1)]), GONE),
        case(
            "5.1 CONTINUATION after END_STREAM",
            |p| p.send(&[get(1), continuation(1, &fields(GET))]),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "5.1 WINDOW_UPDATE and PRIORITY after END_STREAM",
            |p| p.send(&[get(1), window(1, 9), priority(1)]),
            Answer(1, ""),
        ),
        case(
            "5.1 DATA after RST_STREAM",
            |p| p.send(&[post(1), reset(1), data(1, 0, b"x")]),
            Stream(1, &[STREAM_CLOSED]),
        ),
        case("5.1 HEADERS after RST_STREAM", |p| p.send(&[post(1), reset(1), get(1)]), GONE),
        case("5.1 PRIORITY after RST_STREAM", |p| p.send(&[post(1), reset(1), priority(1)]), Alive),
        case("5.1 DATA on a closed stream", |p| p.after_one(&[data(1, 0, b"x")]), Stream(1, &[STREAM_CLOSED])),
        case("5.1.1 a closed stream again", |p| p.after_one(&[get(1)]), GONE),
        case("5.1 WINDOW_UPDATE on a closed stream", |p| p.after_one(&[window(1, 9)]), Alive),
        case("5.1 RST_STREAM on a closed stream", |p| p.after_one(&[reset(1)]), Alive),
        case("5.1 PRIORITY on a closed stream", |p| p.after_one(&[priority(1)]), Alive),
        case("5.1.1 a smaller stream", |p| p.send(&[get(5), get(3)]), PROTOCOL),
        case("5.1.1 streams left out", |p| p.send(&[get(1), get(101)]), Answer(101, "")),
        case("5.1.1 the last stream", |p| p.send(&[get(0x7fff_ffff)]), Answer(0x7fff_ffff, "")),
        case(
            "5.1.2 more streams than SETTINGS_MAX_CONCURRENT_STREAMS",
            too_many_streams,
            Stream(2001, &[PROTOCOL_ERROR, REFUSED_STREAM]),
        ),
        case(
            "5.4.2 a malformed request beside a good one",
            |p| p.send(&[post(1), with(3, &literal(b"upgrade", b"1")), data(1, END_STREAM, b"four")]),
            Answer(1, " 4\n"),
        ),
        case(
            "5.3.2 PRIORITY that depends on itself is no reason to end the connection",
            |p| p.send(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])]),
            Alive,
        ),
    ]
}

/// No answer can end while its window is nothing, so that all streams stay open. A client may have 1000.
fn too_many_streams(peer: &mut Peer) {
    peer.send(&[settings(&[(4, 0)])]);
    peer.read_until(|peer| peer.acks >= 2);
    let streams: Vec<Vec<u8>> = (0..=1000).map(|index| get(2 * index + 1)).collect();
    peer.send(&streams);
}

fn each_frame_type_has_its_rules() -> Vec<Case> {
    vec![
        case("6.1 DATA on stream 0", |p| p.send(&[data(0, 0, b"x")]), PROTOCOL),
        case(
            "6.1 padding as long as the payload",
            |p| p.send(&[post(1), data(1, PADDED | END_STREAM, b"\x05body")]),
            PROTOCOL,
        ),
        case("6.1 padding of DATA without a payload", |p| p.send(&[post(1), data(1, PADDED, b"")]), MALFORMED_FRAME),
        case(
            "6.1 padding is no content",
            |p| p.send(&[post(1), data(1, PADDED | END_STREAM, b"\x03body\0\0\0")]),
            Answer(1, " 4\n"),
        ),
        case(
            "6.1 nothing but padding",
            |p| p.send(&[post(1), data(1, PADDED | END_STREAM, b"\x03\0\0\0")]),
            Answer(1, " 0\n"),
        ),
        case("6.2 HEADERS on stream 0", |p| p.send(&[get(0)]), PROTOCOL),
        case("6.2 HEADERS on an even stream", |p| p.send(&[get(2)]), PROTOCOL),
        case(
            "6.2 padding longer than the payload",
            |p| p.send(&[frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[0xff][..], &fields(GET)].concat())]),
            PROTOCOL,
        ),
        case(
            "6.2 padding and a priority",
            |p| {
                let payload = [b"\x02\0\0\0\0\x0f", &fields(GET)[..], b"\0\0"].concat();
                p.send(&[frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITISED, 1, &payload)]);
            },
            Answer(1, ""),
        ),
        case(
            "6.2 a priority cut short",
            |p| p.send(&[frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED, 1, &[0, 0, 0])]),
            MALFORMED_FRAME,
        ),
        case("6.3 PRIORITY on stream 0", |p| p.send(&[priority(0)]), PROTOCOL),
        case(
            "6.3 PRIORITY of 4 bytes",
            |p| p.send(&[post(1), frame(PRIORITY, 0, 1, &[0; 4])]),
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        case("6.4 RST_STREAM on stream 0", |p| p.send(&[reset(0)]), PROTOCOL),
        case("6.4 RST_STREAM of 3 bytes", |p| p.send(&[post(1), frame(RST_STREAM, 0, 1, &[0; 3])]), FRAME_SIZE),
        case("6.4 RST_STREAM with an unknown code", |p| p.send(&[post(1), frame(RST_STREAM, 0, 1, &[0xee; 4])]), Alive),
        case("6.5 SETTINGS acknowledged with a payload", |p| p.send(&[frame(SETTINGS, ACK, 0, &[0; 6])]), FRAME_SIZE),
        case("6.5 SETTINGS of 5 bytes", |p| p.send(&[frame(SETTINGS, 0, 0, &[0; 5])]), FRAME_SIZE),
        case("6.5 SETTINGS on a stream", |p| p.send(&[post(1), frame(SETTINGS, 0, 1, &[])]), PROTOCOL),
        case("6.5.2 SETTINGS_ENABLE_PUSH of 2", |p| p.send(&[settings(&[(2, 2)])]), PROTOCOL),
        case(
            "6.5.2 SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
            |p| p.send(&[settings(&[(4, 1 << 31)])]),
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case("6.5.2 SETTINGS_MAX_FRAME_SIZE of 2^14 - 1", |p| p.send(&[settings(&[(5, 16_383)])]), PROTOCOL),
        case("6.5.2 SETTINGS_MAX_FRAME_SIZE of 2^24", |p| p.send(&[settings(&[(5, 1 << 24)])]), PROTOCOL),
        case("6.5.2 an unknown setting", |p| p.send(&[settings(&[(0xbabe, 7)]), get(1)]), Answer(1, "")),
        case(
            "6.5.2 SETTINGS_MAX_CONCURRENT_STREAMS of 0 is about the server's streams",
            |p| p.send(&[settings(&[(3, 0)]), get(1)]),
            Answer(1, ""),
        ),
        case("6.5.3 each SETTINGS is acknowledged", |p| p.send(&[settings(&[]), settings(&[(4, 9)])]), Expect::Acks(3)),
        case(
            "6.5.3 settings are applied in order",
            |p| p.send(&[settings(&[(4, 0), (4, 65_535)]), get(1)]),
            Answer(1, "via"),
        ),
        case(
            "6.6 PUSH_PROMISE from a client",
            |p| p.send(&[post(1), frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &fields(GET)].concat())]),
            PROTOCOL,
        ),
        case("6.7 PING is echoed", |p| p.send(&[ping(0, *b"\0echo\xff!!")]), Expect::Pong(*b"\0echo\xff!!")),
        case("6.7 PING nobody asked for", |p| p.send(&[ping(ACK, *b"surprise")]), Alive),
        case("6.7 PING on a stream", |p| p.send(&[post(1), frame(PING, 0, 1, &[0; 8])]), PROTOCOL),
        case("6.7 PING of 7 bytes", |p| p.send(&[frame(PING, 0, 0, &[0; 7])]), FRAME_SIZE),
        case("6.8 GOAWAY on a stream", |p| p.send(&[post(1), frame(GOAWAY, 0, 1, &[0; 8])]), PROTOCOL),
        case("6.8 GOAWAY of 7 bytes", |p| p.send(&[frame(GOAWAY, 0, 0, &[0; 7])]), MALFORMED_FRAME),
        case("6.8 what was asked before GOAWAY", |p| p.send(&[get(1), frame(GOAWAY, 0, 0, &[0; 8])]), Answer(1, "via")),
        case("6.9 WINDOW_UPDATE of 0 on a stream", |p| p.send(&[post(1), window(1, 0)]), Stream(1, &[PROTOCOL_ERROR])),
        case("6.9 WINDOW_UPDATE of 0 on the connection", |p| p.send(&[window(0, 0)]), PROTOCOL),
        case("6.9 WINDOW_UPDATE of 3 bytes", |p| p.send(&[frame(WINDOW_UPDATE, 0, 0, &[1; 3])]), FRAME_SIZE),
        case("6.9 the reserved bit of WINDOW_UPDATE", |p| p.send(&[window(0, 0x8000_0001), get(1)]), Answer(1, "")),
        case(
            "6.9.1 a stream's window above 2^31 - 1",
            |p| p.send(&[post(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)]),
            Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.1 the connection's window above 2^31 - 1",
            |p| p.send(&[window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)]),
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.2 SETTINGS that lift a stream's window above 2^31 - 1",
            |p| p.send(&[post(1), window(1, 0x7fff_ffff - 65_535), settings(&[(4, 65_536)])]),
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case("6.10 CONTINUATION without HEADERS", |p| p.send(&[post(1), continuation(1, b"")]), PROTOCOL),
        case(
            "6.10 CONTINUATION on another stream",
            |p| p.send(&[frame(HEADERS, END_STREAM, 1, &fields(GET)), continuation(3, b"")]),
            PROTOCOL,
        ),
        case(
            "6.10 CONTINUATION on stream 0",
            |p| p.send(&[frame(HEADERS, END_STREAM, 1, &fields(GET)), continuation(0, b"")]),
            PROTOCOL,
        ),
        case(
            "6.10 PING within a field block",
            |p| p.send(&[frame(HEADERS, END_STREAM, 1, &fields(GET)), ping(0, [0; 8]), continuation(1, b"")]),
            PROTOCOL,
        ),
        case(
            "6.10 HEADERS within a field block",
            |p| p.send(&[frame(HEADERS, END_STREAM, 1, &fields(GET)), get(3)]),
            PROTOCOL,
        ),
        case(
            "6.10 DATA within a field block",
            |p| p.send(&[frame(HEADERS, 0, 1, &fields(GET)), data(1, END_STREAM, b"x")]),
            PROTOCOL,
        ),
        case(
            "6.10 CONTINUATION, one of them empty",
            |p| {
                let block = fields(GET);
                let [first, second] = [&block[..3], &block[3..20]].map(|piece| frame(9, 0, 1, piece));
                let start = frame(HEADERS, END_STREAM, 1, b"");
                p.send(&[start, first, frame(9, 0, 1, b""), second, continuation(1, &block[20..])]);
            },
            Answer(1, ""),
        ),
    ]
}

fn field_blocks_are_decoded_in_one_context() -> Vec<Case> {
    vec![
        case("4.3 a request from the static table", |p| p.send(&[block(1, b"\x82\x86\x84")]), Answer(1, "a GET / ")),
        case("RFC 7541, 6.1 index 0", |p| p.send(&[with(1, b"\x80")]), COMPRESSION),
        case("RFC 7541, 2.3.3 an index beyond both tables", |p| p.send(&[with(1, b"\xbe")]), COMPRESSION),
        case("RFC 7541, 5.1 an integer without an end", |p| p.send(&[with(1, &[0xff; 20])]), COMPRESSION),
        case("RFC 7541, 5.2 a string cut short", |p| p.send(&[with(1, b"\0\x03x-a\x05ab")]), COMPRESSION),
        case("RFC 7541, 5.2 Huffman with EOS", |p| p.send(&[with(1, b"\0\x03x-a\x84\xff\xff\xff\xff")]), COMPRESSION),
        case("RFC 7541, 5.2 Huffman padded with zeros", |p| p.send(&[with(1, b"\0\x03x-a\x81\x18")]), COMPRESSION),
        case("RFC 7541, 5.2 Huffman padded with 8 bits", |p| p.send(&[with(1, b"\0\x03x-a\x82\x1f\xff")]), COMPRESSION),
        case(
            "RFC 7541, 6.3 a table larger than the limit",
            |p| p.send(&[block(1, b"\x3f\xe2\x1f\x82\x86\x84")]),
            COMPRESSION,
        ),
        case("RFC 7541, 4.2 a table size after a field", |p| p.send(&[with(1, b"\x20")]), COMPRESSION),
        case("RFC 7541, 4.2 a smaller table", |p| p.send(&[block(1, b"\x20\x82\x86\x84")]), Answer(1, "")),
        case(
            "RFC 7541, 5.2 Huffman",
            |p| p.send(&[with(1, b"\0\x03x-a\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff")]),
            Answer(1, "x-a: www.example.com\n"),
        ),
        case(
            "RFC 7541, 6.2.3 a field never indexed",
            |p| p.send(&[with(1, b"\x10\x03x-a\x01b")]),
            Answer(1, "x-a: b\n"),
        ),
        case(
            "RFC 7541, 2.3.2 a field of the request before",
            |p| p.send(&[with(1, b"\x40\x03x-a\x01b"), with(3, b"\xbe")]),
            Answer(3, "x-a: b\n"),
        ),
        case(
            "4.3 a field of a malformed request before",
            |p| p.send(&[with(1, b"\x40\x03x-a\x01b\0\x07upgrade\x01c"), with(3, b"\xbe")]),
            Answer(3, "x-a: b\n"),
        ),
        case(
            "4.3 a field of trailers on a stream that was reset",
            |p| {
                let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x40\x03x-a\x01b");
                p.send(&[post(1), window(1, 0x7fff_ffff), trailers, with(3, b"\xbe")]);
            },
            Answer(3, "x-a: b\n"),
        ),
    ]
}

fn malformed_requests_do_not_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, field, value) in MALFORMED_FIELDS {
        cases.push(Case::of(name, with(1, &literal(field, value)), MALFORMED));
    }
    for (name, field, value) in WELL_FORMED_FIELDS {
        cases.push(Case::of(name, with(1, &literal(field, value)), Answer(1, "")));
    }
    for (name, list) in MALFORMED_REQUESTS {
        cases.push(Case::of(name, block(1, &fields(list)), MALFORMED));
    }
    for (name, list, seen) in WELL_FORMED_REQUESTS {
        cases.push(Case::of(name, block(1, &fields(list)), Answer(1, seen)));
    }
    for case in &mut cases {
        case.counts_hits = true;
    }
    cases
}

const MALFORMED_FIELDS: &[(&str, &[u8], &[u8])] = &[
    ("8.2.1 an uppercase name", b"X-Upper", b"1"),
    ("8.2.1 a name with a space", b"x a", b"1"),
    ("8.2.1 a name with a colon", b"x:a", b"1"),
    ("8.2.1 a name with NUL", b"x\0a", b"1"),
    ("8.2.1 a name with LF", b"x\na", b"1"),
    ("8.2.1 a name with DEL", b"x\x7fa", b"1"),
    ("8.2.1 a name with a byte above 127", b"x\xe4", b"1"),
    ("8.2.1 an empty name", b"", b"1"),
    ("8.2.1 a value with NUL", b"x-a", b"a\0b"),
    ("8.2.1 a value with CR", b"x-a", b"a\rb"),
    ("8.2.1 a value with LF", b"x-a", b"a\nb"),
    ("8.2.1 a value with CR LF and a field", b"x-a", b"a\r\nx-b: c"),
    ("8.2.1 a value that starts with a space", b"x-a", b" a"),
    ("8.2.1 a value that starts with a tab", b"x-a", b"\ta"),
    ("8.2.1 a value that ends with a space", b"x-a", b"a "),
    ("8.2.1 a value that ends with a tab", b"x-a", b"a\t"),
    ("8.2.2 connection", b"connection", b"keep-alive"),
    ("8.2.2 keep-alive", b"keep-alive", b"timeout=5"),
    ("8.2.2 proxy-connection", b"proxy-connection", b"keep-alive"),
    ("8.2.2 transfer-encoding", b"transfer-encoding", b"chunked"),
    ("8.2.2 upgrade", b"upgrade", b"websocket"),
    ("8.2.2 te other than trailers", b"te", b"gzip"),
    ("8.2.2 te with more than trailers", b"te", b"trailers, deflate"),
    ("8.3 a pseudo-header after a field", b":authority", b"users"),
    ("8.1.1 content-length without content", b"content-length", b"5"),
    ("8.1.1 content-length that is no number", b"content-length", b"five"),
    ("8.1.1 a negative content-length", b"content-length", b"-1"),
    ("8.1.1 content-length with a sign", b"content-length", b"+0"),
];

const WELL_FORMED_FIELDS: &[(&str, &[u8], &[u8])] = &[
    ("8.2.1 a value with bytes above 127", b"x-a", b"\xe4\xff"),
    ("8.2.1 a value with a tab inside", b"x-a", b"a\tb"),
    ("8.2.1 an empty value", b"x-a", b""),
    ("8.2.2 te: trailers", b"te", b"trailers"),
    ("8.1.1 content-length of 0", b"content-length", b"0"),
    ("5.2 of RFC 9218, a priority field", b"priority", b"u=1, i"),
];

const MALFORMED_REQUESTS: &[(&str, Fields)] = &[
    ("8.3 an unknown pseudo-header", &[METHOD, SCHEME, PATH, (":version", "2")]),
    ("8.3 a response's pseudo-header", &[METHOD, SCHEME, PATH, (":status", "200")]),
    ("8.3 :method twice", &[METHOD, METHOD, SCHEME, PATH]),
    ("8.3 :scheme twice", &[METHOD, SCHEME, SCHEME, PATH]),
    ("8.3 :path twice", &[METHOD, SCHEME, PATH, PATH]),
    ("8.3 :authority twice", &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]),
    ("8.3 pseudo-headers after a field", &[METHOD, SCHEME, ("x-a", "b"), PATH]),
    ("8.3.1 no :method", &[SCHEME, PATH, AUTHORITY]),
    ("8.3.1 no :scheme", &[METHOD, PATH, AUTHORITY]),
    ("8.3.1 no :path", &[METHOD, SCHEME, AUTHORITY]),
    ("8.3.1 no pseudo-header", &[("host", "users")]),
    ("8.3.1 an empty :path", &[METHOD, SCHEME, (":path", ""), AUTHORITY]),
    ("8.3.1 an empty :method", &[(":method", ""), SCHEME, PATH, AUTHORITY]),
    ("8.3.1 a :method that is no token", &[(":method", "GE T"), SCHEME, PATH, AUTHORITY]),
    ("8.3.1 :path without a slash", &[METHOD, SCHEME, (":path", "users"), AUTHORITY]),
    ("8.3.1 :path with a space", &[METHOD, SCHEME, (":path", "/a HTTP/1.1"), AUTHORITY]),
    ("8.3.1 :path with CR LF", &[METHOD, SCHEME, (":path", "/a\r\nx: y"), AUTHORITY]),
    ("8.3.1 :path of * for GET", &[METHOD, SCHEME, (":path", "*"), AUTHORITY]),
    ("8.3.1 :authority with CR LF", &[METHOD, SCHEME, PATH, (":authority", "users\r\nx: y")]),
    ("8.3.1 :authority with a user", &[METHOD, SCHEME, PATH, (":authority", "user:secret@users")]),
    ("8.3.1 CONNECT to a user", &[(":method", "CONNECT"), (":authority", "user:secret@users:80")]),
    ("8.3.1 host with a user", &[METHOD, SCHEME, PATH, ("host", "user:secret@users")]),
    ("8.3.1 :scheme with a space", &[METHOD, (":scheme", "ht tp"), PATH, AUTHORITY]),
    (
        "8.1.1 two content-lengths that differ",
        &[METHOD, SCHEME, PATH, ("content-length", "0"), ("content-length", "1")],
    ),
    ("8.5 CONNECT with :scheme and :path", &[(":method", "CONNECT"), SCHEME, PATH, (":authority", "users:80")]),
    ("8.5 CONNECT without :authority", &[(":method", "CONNECT")]),
];

const WELL_FORMED_REQUESTS: &[(&str, Fields, &str)] = &[
    ("8.3.1 host instead of :authority", &[METHOD, SCHEME, PATH, ("host", "users")], "a GET / "),
    ("8.3.1 :path of * for OPTIONS", &[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY], "a OPTIONS * "),
    ("8.3.1 a query", &[METHOD, SCHEME, (":path", "/a?b=%20c"), AUTHORITY], "a GET /a "),
    ("8.3.1 pseudo-headers in another order", &[AUTHORITY, PATH, SCHEME, METHOD], "a GET / "),
    (
        "8.2.3 cookie crumbs are put together for HTTP/1.1",
        &[METHOD, SCHEME, PATH, ("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")],
        "cookie: a=1; c=2\n",
    ),
];

fn what_follows_the_head_may_be_malformed_too() -> Vec<Case> {
    const ENDS: u8 = END_STREAM | END_HEADERS;
    let well_formed = [
        case(
            "8.1 trailers",
            |p| p.send(&[post(1), data(1, 0, b"four"), frame(HEADERS, ENDS, 1, &literal(b"x-trailer", b"1"))]),
            Answer(1, " 4\n"),
        ),
        case(
            "8.1 trailers without DATA",
            |p| p.send(&[post(1), frame(HEADERS, ENDS, 1, &literal(b"x-trailer", b"1"))]),
            Answer(1, " 0\n"),
        ),
        case(
            "8.1.1 content-length that is kept",
            |p| p.send(&[counted(1, "6"), data(1, 0, b"one"), data(1, END_STREAM, b"two")]),
            Answer(1, " 6\n"),
        ),
        case(
            "8.1 DATA without content",
            |p| p.send(&[post(1), data(1, 0, b""), data(1, 0, b"x"), data(1, END_STREAM, b"")]),
            Answer(1, " 1\n"),
        ),
    ];
    let malformed = [
        case(
            "8.1 HEADERS again without END_STREAM",
            |p| p.send(&[post(1), frame(HEADERS, END_HEADERS, 1, &literal(b"x-trailer", b"1"))]),
            MALFORMED,
        ),
        case(
            "8.1 DATA after trailers",
            |p| p.send(&[post(1), frame(HEADERS, ENDS, 1, &literal(b"x-trailer", b"1")), data(1, 0, b"x")]),
            Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "8.1 a pseudo-header in trailers",
            |p| p.send(&[post(1), frame(HEADERS, ENDS, 1, &fields(&[PATH]))]),
            MALFORMED,
        ),
        case(
            "8.1 an uppercase name in trailers",
            |p| p.send(&[post(1), frame(HEADERS, ENDS, 1, &literal(b"X-Trailer", b"1"))]),
            MALFORMED,
        ),
        case(
            "8.2.2 transfer-encoding in trailers",
            |p| p.send(&[post(1), frame(HEADERS, ENDS, 1, &literal(b"transfer-encoding", b"chunked"))]),
            MALFORMED,
        ),
        case(
            "8.1.1 less than content-length",
            |p| p.send(&[counted(1, "10"), data(1, END_STREAM, b"12345")]),
            MALFORMED,
        ),
        case(
            "8.1.1 less than content-length, before trailers",
            |p| {
                let trailers = frame(HEADERS, ENDS, 1, &literal(b"x-trailer", b"1"));
                p.send(&[counted(1, "10"), data(1, 0, b"12345"), trailers]);
            },
            MALFORMED,
        ),
        case(
            "8.1.1 more than content-length",
            |p| p.send(&[counted(1, "5"), data(1, END_STREAM, b"0123456789")]),
            MALFORMED,
        ),
        case(
            "8.1.1 content after content-length of 0",
            |p| p.send(&[counted(1, "0"), data(1, END_STREAM, b"1")]),
            MALFORMED,
        ),
    ];
    // Such a body has no end: what the backend gets is not whole.
    let malformed = malformed.map(|case| Case { is_never_whole: true, ..case });
    well_formed.into_iter().chain(malformed).collect()
}

/// Frames without number cost little and stop nobody else; says how many kinds there were.
pub(crate) fn floods<B: Between>() -> usize {
    let recorder = Recorder::start();
    let between = B::before(recorder.port, Speaks::Http1);
    settle(&between, FLOODS.iter().filter_map(|flood| flood.failure(&between)).collect());
    FLOODS.len()
}

/// Frames without number from one client, which reads nothing meanwhile.
struct Flood {
    name: &'static str,
    opening: fn() -> Vec<u8>,
    round: fn(u32) -> Vec<u8>,
    rounds: u32,
    /// The connection cannot be kept: it must be ended.
    must_end: bool,
    /// How much memory it may cost.
    mib: u64,
}

const FLOODS: &[Flood] = &[
    Flood {
        name: "10.5 CONTINUATION without an end (CVE-2024-27316)",
        opening: || frame(HEADERS, END_STREAM, 1, &fields(GET)),
        round: |round| frame(9, 0, 1, &literal(format!("x-{round}").as_bytes(), &[b'x'; 1000])),
        rounds: 100_000,
        must_end: true,
        mib: 32,
    },
    Flood {
        name: "10.5 empty CONTINUATION without an end",
        opening: || frame(HEADERS, END_STREAM, 1, &fields(GET)),
        round: |_| frame(9, 0, 1, b""),
        rounds: 200_000,
        must_end: true,
        mib: 32,
    },
    Flood {
        name: "10.5 a field list that is small only on the wire",
        opening: || frame(HEADERS, END_STREAM, 1, &[&fields(GET)[..], &indexed(b"x-a", &[b'x'; 4000])].concat()),
        round: |_| frame(9, 0, 1, &[0xbe; 16_000]),
        rounds: 1000,
        must_end: true,
        mib: 32,
    },
    Flood {
        name: "10.5 requests that are reset at once (CVE-2023-44487)",
        opening: Vec::new,
        round: |round| [get(2 * round + 1), reset(2 * round + 1)].concat(),
        rounds: 20_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 requests that have to be reset (CVE-2025-8671)",
        opening: Vec::new,
        round: |round| [get(2 * round + 1), window(2 * round + 1, 0x7fff_ffff)].concat(),
        rounds: 20_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 malformed requests",
        opening: Vec::new,
        round: |round| with(2 * round + 1, &literal(b"upgrade", b"1")),
        rounds: 20_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 SETTINGS (CVE-2019-9515)",
        opening: Vec::new,
        round: |round| settings(&[(4, round)]),
        rounds: 100_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 PING (CVE-2019-9512)",
        opening: Vec::new,
        round: |_| ping(0, *b"pingping"),
        rounds: 200_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 DATA without content (CVE-2019-9518)",
        opening: || post(1),
        round: |_| data(1, 0, b""),
        rounds: 200_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 DATA that is all padding",
        opening: || post(1),
        round: |_| data(1, PADDED, &[&[255][..], &[0; 255]].concat()),
        rounds: 20_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 PRIORITY (CVE-2019-9513)",
        opening: Vec::new,
        round: |round| priority(2 * round + 1),
        rounds: 200_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 WINDOW_UPDATE",
        opening: Vec::new,
        round: |_| window(0, 1),
        rounds: 200_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 unknown frames",
        opening: Vec::new,
        round: |_| frame(0xfa, 0, 0, b"?"),
        rounds: 200_000,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 answers without a window",
        opening: || settings(&[(4, 0)]),
        round: |round| block(2 * round + 1, &fields(&[METHOD, SCHEME, (":path", "/bytes/4000000"), AUTHORITY])),
        rounds: 200,
        must_end: false,
        mib: 32,
    },
    Flood {
        name: "10.5 answers that nobody takes (CVE-2019-9517)",
        opening: || settings(&[(4, 0x7fff_ffff)]),
        round: |round| block(2 * round + 1, &fields(&[METHOD, SCHEME, (":path", "/bytes/4000000"), AUTHORITY])),
        rounds: 200,
        must_end: false,
        mib: 32,
    },
];

impl Flood {
    fn failure(&self, between: &impl Between) -> Option<String> {
        let address = between.address();
        let before = between.resident();
        // For so long memory has not grown: what was poured has had its effect.
        let quiet = before.map_or(Duration::ZERO, |_| Duration::from_secs(1));
        let (mut peak, mut grown, mut answered) = (before, Instant::now(), 0);
        let mut objections = Vec::new();
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| self.pour(&address));
            let mut neighbour = Peer::open(&address);
            while objections.is_empty() && !(flooding.is_finished() && grown.elapsed() > quiet) {
                let stream = 2 * answered + 1;
                let began = Instant::now();
                neighbour.send(&[get(stream)]);
                if let Some(objection) = Answer(stream, "").objection(&mut neighbour) {
                    objections.push(format!("the neighbour's request {answered}, {:?}: {objection}", began.elapsed()));
                }
                answered += 1;
                let resident = between.resident();
                if resident > peak.map(|peak| peak + (256 << 10)) {
                    (peak, grown) = (resident, Instant::now());
                }
            }
            let mut flooder = flooding.join().unwrap(); // its connection was there until now
            if self.must_end {
                objections.extend(Closed.objection(&mut flooder));
            }
        });
        if let (Some(before), Some(peak)) = (before, peak)
            && peak.saturating_sub(before) > self.mib << 20
        {
            objections.push(format!("resident memory grew from {} to {} KiB", before >> 10, peak >> 10));
        }
        let fresh = Case::of("", get(1), Answer(1, "")).objection(&mut Peer::open(&address));
        objections.extend(fresh);
        (!objections.is_empty()).then(|| format!("{}: {}", self.name, objections.join("; ")))
    }

    /// Writes until all is written, or until no more of it is taken.
    fn pour(&self, address: &str) -> Peer {
        let mut peer = Peer::open(address);
        let mut bytes = (self.opening)();
        for round in 0..self.rounds {
            bytes.extend((self.round)(round));
            if bytes.len() > 64 << 10 || round + 1 == self.rounds {
                if peer.stream.write_all(&bytes).is_err() {
                    break;
                }
                bytes.clear();
            }
        }
        peer
    }
}

/// 10.5, CVE-2023-44487 at a pace that no count of streams stops: each request is on its way when it is reset.
pub(crate) fn requests_reset_on_their_way_are_forgotten<B: Between>() {
    const AT_ONCE: u32 = 100;
    let recorder = Recorder::start();
    let between = B::before(recorder.port, Speaks::Http1);
    let address = between.address();
    let mut neighbour = Peer::open(&address);
    let mut peer = Peer::open(&address);
    let before = between.resident();
    for round in 0..50_u32 {
        let streams = (round * AT_ONCE..(round + 1) * AT_ONCE).map(|index| 2 * index + 1);
        let asks =
            streams.clone().map(|stream| block(stream, &fields(&[METHOD, SCHEME, (":path", "/silent"), AUTHORITY])));
        let payload = u64::from(round).to_be_bytes();
        peer.send(&asks.chain([ping(0, payload)]).collect::<Vec<_>>());
        let objection = Expect::Pong(payload).objection(&mut peer);
        if peer.goaway == Some(ENHANCE_YOUR_CALM) {
            break; // that would do as well
        }
        assert_eq!(objection, None);
        neighbour.send(&[get(2 * round + 1)]);
        assert_eq!(Answer(2 * round + 1, "").objection(&mut neighbour), None, "round {round}");
        peer.send(&streams.map(reset).collect::<Vec<_>>());
        if let (Some(before), Some(now)) = (before, between.resident()) {
            assert!(now < before + (32 << 20), "round {round}: {} KiB", now >> 10);
        }
    }
    // The backend sees that nobody waits any more.
    eventually_is("the backend's connections end", || Arc::strong_count(&recorder.whole), |count| *count < 10);
    settle(&between, Vec::new());
}

fn a_list_of_fields_has_a_limit() -> Vec<Case> {
    let mut huge = Vec::new();
    for index in 0..100 {
        huge.extend(literal(format!("x-{index}").as_bytes(), &[b'x'; 1000]));
    }
    let many: Vec<u8> = (0..20_000).flat_map(|_| literal(b"a", b"")).collect();
    let indexed = [indexed(b"x-a", &[b'x'; 4000]), vec![0xbe; 1000]].concat();
    let cases = [("100 KiB", huge), ("20 000 short fields", many), ("4 MB of a table's entry", indexed)];
    let cases = cases.map(|(name, more)| {
        let block = [fields(GET), more].concat();
        let mut chunks = block.chunks(16_384);
        let mut bytes = frame(HEADERS, END_STREAM, 1, chunks.next().unwrap());
        for chunk in chunks {
            bytes.extend(frame(9, 0, 1, chunk));
        }
        bytes.extend(continuation(1, b""));
        let codes = &[PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM];
        let name = format!("10.5.1 {name}");
        Case { counts_hits: true, ..Case::of(name.leak(), bytes, Stream(1, codes)) }
    });
    cases.into()
}

pub(crate) fn a_window_holds_back_its_stream_and_no_other<B: Between>() {
    const ALL: usize = 1_000_000;
    let recorder = Recorder::start();
    let between = B::before(recorder.port, Speaks::Http1);
    let address = between.address();
    let asks = |stream, bytes: usize| {
        let path = format!("/bytes/{bytes}");
        block(stream, &fields(&[METHOD, SCHEME, (":path", &path), AUTHORITY]))
    };
    let got = |peer: &Peer, stream| peer.streams.get(&stream).map_or(0, |seen: &Seen| seen.body.len());

    // 6.9.1: 65,535 bytes and no more, while a neighbour gets all of its answer.
    let mut peer = Peer::open(&address);
    peer.send(&[asks(1, ALL)]);
    assert!(peer.read_until(|peer| got(peer, 1) >= 65_535), "{peer:?}");
    peer.send(&[asks(3, 50_000)]);
    assert_eq!(Answer(3, "xxx").objection(&mut peer), None);
    assert_eq!((got(&peer, 3), got(&peer, 1)), (50_000, 65_535));

    // 6.9.2: a smaller initial window counts for streams that are open, and may make their windows negative.
    peer.send(&[settings(&[(4, 1000)])]);
    assert!(peer.read_until(|peer| peer.acks == 2), "{peer:?}");
    peer.send(&[window(1, 64_535), asks(5, 5000)]);
    assert!(peer.read_until(|peer| got(peer, 5) >= 1000), "{peer:?}");
    assert_eq!(Alive.objection(&mut peer), None);
    assert_eq!((got(&peer, 5), got(&peer, 1)), (1000, 65_535), "the window of 1 is 0, that of 5 is used up");
    peer.send(&[window(1, 500)]);
    assert!(peer.read_until(|peer| got(peer, 1) >= 66_035), "{peer:?}");

    // 6.9.2: a larger one too.
    peer.send(&[settings(&[(4, 3000)])]);
    assert!(peer.read_until(|peer| got(peer, 5) >= 3000 && got(peer, 1) >= 68_035), "{peer:?}");
    peer.send(&[ping(0, *b"and now?")]);
    assert_eq!(Expect::Pong(*b"and now?").objection(&mut peer), None);
    assert_eq!((got(&peer, 5), got(&peer, 1)), (3000, 68_035));

    // What was held back was not lost.
    peer.send(&[window(1, 10_000_000), window(5, 10_000)]);
    assert_eq!(Answer(1, "xxx").objection(&mut peer), None);
    assert_eq!(Answer(5, "xxx").objection(&mut peer), None);
    assert_eq!((got(&peer, 5), got(&peer, 1)), (5000, ALL));

    // 6.9: the connection's window, which this client leaves at 65,535, holds back all of its streams together.
    let mut peer = Peer::connect(&address);
    peer.send(&[PREFACE.into(), settings(&[(1, 0), (4, 1 << 20)]), asks(1, 60_000), asks(3, 60_000)]);
    assert!(peer.read_until(|peer| got(peer, 1) + got(peer, 3) >= 65_535), "{peer:?}");
    peer.send(&[ping(0, *b"and now?")]);
    assert_eq!(Expect::Pong(*b"and now?").objection(&mut peer), None);
    assert_eq!(got(&peer, 1) + got(&peer, 3), 65_535);
    peer.send(&[window(0, 1 << 20)]);
    assert_eq!(Answer(1, "xxx").objection(&mut peer), None);
    assert_eq!(Answer(3, "xxx").objection(&mut peer), None);

    // 6.9.1: DATA that no window allows, for a backend that takes nothing.
    let mut peer = Peer::open(&address);
    peer.send(&[frame(HEADERS, END_HEADERS, 1, &fields(&[(":method", "POST"), SCHEME, (":path", "/stall")]))]);
    let much = data(1, 0, &[b'x'; 16_384]);
    for _ in 0..2000 {
        if peer.stream.write_all(&much).is_err() {
            break;
        }
    }
    assert_eq!(Stream(1, &[FLOW_CONTROL_ERROR]).objection(&mut peer), None);
    settle(&between, Vec::new());
}

// --- Cases.

/// Bytes, and what has to come of them.
struct Case {
    name: &'static str,
    act: Box<dyn Fn(&mut Peer)>,
    expect: Expect,
    /// It writes its own preface.
    is_raw: bool,
    /// The backend gets one request for an answer, and otherwise none.
    counts_hits: bool,
    /// The backend may get a request, but not its end.
    is_never_whole: bool,
}

/// What the RFC asks for.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A connection error with one of these codes (section 5.4.1); the connection ends.
    Connection(&'static [u32]),
    /// A stream error with one of these codes (section 5.4.2), or the same as a connection error, or a status 4xx.
    Stream(u32, &'static [u32]),
    /// The connection ends, whatever is said before.
    Closed,
    /// The stream is answered with 200 and a body in which this occurs.
    Answer(u32, &'static str),
    /// Nothing; the connection goes on, and so does another stream.
    Alive,
    /// So many SETTINGS are acknowledged.
    Acks(u32),
    /// PING is answered with this.
    Pong([u8; 8]),
}

const PROTOCOL: Expect = Connection(&[PROTOCOL_ERROR]);
const FRAME_SIZE: Expect = Connection(&[FRAME_SIZE_ERROR]);
const MALFORMED_FRAME: Expect = Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
const COMPRESSION: Expect = Connection(&[COMPRESSION_ERROR]);
const MALFORMED: Expect = Stream(1, &[PROTOCOL_ERROR]);

fn case(name: &'static str, act: fn(&mut Peer), expect: Expect) -> Case {
    Case { name, act: Box::new(act), expect, is_raw: false, counts_hits: false, is_never_whole: false }
}

/// A case that writes its own preface.
fn raw(name: &'static str, act: fn(&mut Peer), expect: Expect) -> Case {
    Case { is_raw: true, ..case(name, act, expect) }
}

/// The end of a group: all is well.
fn settle(between: &impl Between, mut failures: Vec<String>) {
    let fresh = Case::of("", get(1), Answer(1, "")).objection(&mut Peer::open(&between.address()));
    failures.extend(fresh.map(|objection| format!("a good request afterwards: {objection}")));
    failures.extend(between.complaints());
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

impl Case {
    /// A case that only sends bytes.
    fn of(name: &'static str, bytes: Vec<u8>, expect: Expect) -> Self {
        let act = move |peer: &mut Peer| peer.send(std::slice::from_ref(&bytes));
        Self { name, act: Box::new(act), expect, is_raw: false, counts_hits: false, is_never_whole: false }
    }

    fn failure(&self, between: &impl Between, backend: &Recorder) -> Option<String> {
        let address = between.address();
        let (asked, whole) = (backend.asked.load(Relaxed), backend.whole.lock().len());
        let mut peer = if self.is_raw { Peer::connect(&address) } else { Peer::open(&address) };
        let mut objections: Vec<String> = self.objection(&mut peer).into_iter().collect();
        if self.counts_hits || self.is_never_whole {
            // What has passed has done so before the next request.
            objections.extend(Self::of("", get(1), Answer(1, "")).objection(&mut Peer::open(&address)));
        }
        if self.counts_hits {
            let (hits, due) = (backend.asked.load(Relaxed) - asked, 1 + u64::from(matches!(self.expect, Answer(..))));
            if hits != due {
                objections.push(format!("the backend got {hits} requests instead of {due}"));
            }
        }
        if self.is_never_whole {
            let passed: Vec<String> =
                backend.whole.lock()[whole..].iter().filter(|text| text.starts_with("POST")).cloned().collect();
            if !passed.is_empty() {
                objections.push(format!("the backend got, whole: {passed:?}"));
            }
        }
        self.told(objections)
    }

    fn objection(&self, peer: &mut Peer) -> Option<String> {
        (self.act)(peer);
        self.expect.objection(peer)
    }

    fn told(&self, objections: Vec<String>) -> Option<String> {
        (!objections.is_empty()).then(|| format!("{}: {}", self.name, objections.join("; ")))
    }
}

impl Expect {
    /// Reads until the case is decided; says what is wrong with what came.
    fn objection(self, peer: &mut Peer) -> Option<String> {
        let is_met = match self {
            Connection(codes) => {
                peer.read_until(|peer| peer.is_closed);
                peer.is_closed && peer.goaway.is_none_or(|code| codes.contains(&code))
            }
            Closed => peer.read_until(|peer| peer.is_closed),
            Stream(stream, codes) => {
                peer.read_until(|peer| peer.is_over(stream));
                let seen = peer.streams.get(&stream);
                match (seen.and_then(|seen| seen.reset), peer.goaway) {
                    _ if seen.is_some_and(|seen| (400..500).contains(&seen.status)) => true,
                    (Some(code), _) | (None, Some(code)) => codes.contains(&code),
                    (None, None) => peer.is_closed && seen.is_none_or(|seen| !seen.is_ended),
                }
            }
            Answer(stream, text) => {
                peer.read_until(|peer| peer.is_over(stream));
                peer.streams.get(&stream).is_some_and(|seen| {
                    seen.status == 200 && seen.is_ended && String::from_utf8_lossy(&seen.body).contains(text)
                })
            }
            Alive => {
                peer.send(&[get(9999), ping(0, *b"still up")]);
                return Self::Pong(*b"still up").objection(peer).or_else(|| Answer(9999, "").objection(peer));
            }
            Self::Acks(count) => peer.read_until(|peer| peer.acks >= count) && peer.acks == count,
            Self::Pong(payload) => peer.read_until(|peer| peer.pongs.contains(&payload)),
        };
        (!is_met || peer.is_oversized).then(|| format!("expected {self:?}, got {peer:?}"))
    }
}

// --- A client that keeps to nothing.

/// A connection and all that came on it.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    streams: BTreeMap<u32, Seen>,
    /// The code of the last GOAWAY.
    goaway: Option<u32>,
    acks: u32,
    pongs: Vec<[u8; 8]>,
    is_closed: bool,
    /// A frame was larger than this client allows.
    is_oversized: bool,
}

/// What came on a stream.
#[derive(Default)]
struct Seen {
    status: u16,
    body: Vec<u8>,
    is_ended: bool,
    reset: Option<u32>,
}

impl Peer {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            streams: BTreeMap::new(),
            goaway: None,
            acks: 0,
            pongs: Vec::new(),
            is_closed: false,
            is_oversized: false,
        }
    }

    /// With prefaces exchanged and settings acknowledged. The response's fields are not to use the dynamic table, and
    /// the connection's window never ends.
    fn open(address: &str) -> Self {
        let mut peer = Self::connect(address);
        peer.send(&[PREFACE.into(), settings(&[(1, 0)]), window(0, 1 << 30), frame(SETTINGS, ACK, 0, b"")]);
        assert!(peer.read_until(|peer| peer.acks == 1), "no handshake: {peer:?}");
        peer
    }

    /// Whether it arrived will be seen from the answer.
    fn send(&mut self, frames: &[Vec<u8>]) {
        let _ = self.stream.write_all(&frames.concat());
    }

    /// Sends when a request on stream 1 has been answered.
    fn after_one(&mut self, frames: &[Vec<u8>]) {
        self.send(&[get(1)]);
        let objection = Answer(1, "").objection(self);
        assert_eq!(objection, None);
        self.streams.clear();
        self.send(frames);
    }

    /// No more is to come for this stream.
    fn is_over(&self, stream: u32) -> bool {
        let is_stream_over = self.streams.get(&stream).is_some_and(|seen| seen.is_ended || seen.reset.is_some());
        is_stream_over || self.is_closed || self.goaway.is_some_and(|code| code != NO_ERROR)
    }

    /// Reads frames until this is so; false when it does not become so in time, or never can.
    fn read_until(&mut self, is_so: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(8);
        while !is_so(self) {
            if self.take() {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if self.is_closed || left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.is_closed = true,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
                Err(_) => self.is_closed = true,
            }
        }
        true
    }

    /// Takes one frame from what was read, if there is a whole one.
    fn take(&mut self) -> bool {
        let Some(head) = self.buffer.first_chunk::<9>() else { return false };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if self.buffer.len() < 9 + length {
            return false;
        }
        let payload: Vec<u8> = self.buffer.drain(..9 + length).skip(9).collect();
        self.is_oversized |= length > 16_384;
        let word = |from: usize| payload[from..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let ends = flags & END_STREAM != 0;
        match kind {
            DATA | HEADERS => {
                let seen = self.streams.entry(stream).or_default();
                seen.is_ended |= ends;
                match (kind, seen.status) {
                    (DATA, _) => seen.body.extend_from_slice(&payload),
                    (_, ..200) => seen.status = status(&payload),
                    _ => (), // trailers
                }
            }
            RST_STREAM => self.streams.entry(stream).or_default().reset = Some(word(0)),
            SETTINGS if flags & ACK != 0 => self.acks += 1,
            PING if flags & ACK != 0 => self.pongs.extend(payload.first_chunk::<8>()),
            GOAWAY => self.goaway = Some(word(4)),
            _ => (),
        }
        true
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (stream, seen) in self.streams.iter().rev().take(3) {
            let Seen { status, body, is_ended, reset } = seen;
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]);
            write!(f, "{stream}: {status} {start:?} ({}) is_ended {is_ended} reset {reset:?}, ", body.len())?;
        }
        let Self { goaway, acks, pongs, is_closed, is_oversized, buffer, .. } = self;
        write!(f, "goaway {goaway:?}, is_closed {is_closed}, acks {acks}, pongs {}", pongs.len())?;
        write!(
            f,
            ", is_oversized {is_oversized}, unread {:?}",
            String::from_utf8_lossy(&buffer[..buffer.len().min(40)])
        )
    }
}

/// The status at the start of a field block that does not use the dynamic table; 0 when it is none.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let Some(start) = block.iter().position(|byte| *byte != 0x20) else { return 0 }; // updates of the table's size
    match block[start] {
        byte @ 0x88..=0x8e => INDEXED[usize::from(byte - 0x88)],
        _ => block.get(start + 2..).map_or(0, |value| digits(value, block[start + 1])),
    }
}

/// Three digits, as they are or with Huffman's code: 0 to 2 have five bits, the others six.
fn digits(value: &[u8], length: u8) -> u16 {
    if length & 0x80 == 0 {
        return value.get(..3).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
    }
    let mut bits = value.iter().take(4).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    bits <<= 8 * 4_usize.saturating_sub(value.len());
    let mut number = 0;
    for _ in 0..3 {
        let five = bits >> 27;
        let (digit, width) = if five < 3 { (five, 5) } else { ((bits >> 26) - 0b01_1001 + 3, 6) };
        number = number * 10 + digit as u16;
        bits <<= width;
    }
    number
}

// --- A backend that knows whether a request was whole.

/// An HTTP/1.1 server that keeps the requests it got to their end. It answers with what it was asked, how long the body
/// was and the fields; `/bytes/N` with N bytes, and `/silent` not at all; of a body for `/stall` it reads nothing. Each of
/// its connections holds on to `whole`.
struct Recorder {
    port: u16,
    whole: Arc<Mutex<Vec<String>>>,
    /// Heads so far.
    asked: Arc<AtomicU64>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (whole, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (kept, counted) = (Arc::clone(&whole), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, counted) = (Arc::clone(&kept), Arc::clone(&counted));
                std::thread::spawn(move || record(stream, &kept, &counted));
            }
        });
        Self { port, whole, asked }
    }
}

/// Serves one connection until it ends.
fn record(mut stream: TcpStream, whole: &Mutex<Vec<String>>, asked: &AtomicU64) {
    let mut received = Vec::new();
    let mut is_counted = false;
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if !std::mem::replace(&mut is_counted, true) {
            asked.fetch_add(1, Relaxed);
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path == "/stall" {
            loop {
                std::thread::park();
            }
        }
        if path == "/silent" || !is_whole(&head.to_lowercase(), body) {
            continue;
        }
        let answer = match path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
            Some(length) => "x".repeat(length),
            None => told(head, body),
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        whole.lock().push(text);
        received.clear();
        is_counted = false;
    }
}

/// What was asked, how long the body was, and the fields.
fn told(head: &str, body: &str) -> String {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let length = if is_chunked { dechunked(body).0.len() } else { body.len() };
    let mut text = format!("a {method} {path} {length}\n");
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        text += &format!("{}: {value}\n", name.to_lowercase());
    }
    text
}

fn is_whole(head: &str, body: &str) -> bool {
    if head.contains("transfer-encoding: chunked") {
        return (body.starts_with("0\r\n") || body.contains("\r\n0\r\n")) && body.ends_with("\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
