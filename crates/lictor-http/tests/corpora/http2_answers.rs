//! An HTTP/2 server that keeps to nothing, frame by frame. Whatever it does, the client gets a 502 that says why, an
//! answer that visibly ends too early, or a well-formed one; and the next request gets its own. Cases are named by the
//! section of RFC 9113 that they are about.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::Expect::{Broken, Passed, Refused};
use super::frames::*;
use super::{Between, Fault, Speaks, Tables, Told, chosen, dechunked, eventually_is};

pub(crate) const ENDS: u8 = END_STREAM | END_HEADERS;
const PROTOCOL: Fault = Fault::Malformed;
const RESET: Fault = Fault::Ended;
/// 200, from the static table.
const OK: &[u8] = b"\x88";

/// By what they are about.
const TABLES: Tables<Case> = &[
    ("heads are strict", heads_are_strict),
    ("content is as long as it says", content_is_as_long_as_it_says),
    ("frames have rules", frames_have_rules),
    ("that are reset say so", that_are_reset_say_so),
];

fn heads_are_strict() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, block) in MALFORMED_HEADS {
        cases.push(case(*name, Refused(PROTOCOL), move |link, id| link.send(&[frame(HEADERS, ENDS, id, block)])));
    }
    cases.extend([
        case("8.2 a head from the static table", Passed(200, ""), |link, id| {
            link.send(&[frame(HEADERS, ENDS, id, OK)]);
        }),
        case("8.3.2 a status of four digits", Refused(PROTOCOL), |link, id| {
            link.send(&[frame(HEADERS, ENDS, id, &fields(&[(":status", "2000")]))]);
        }),
        case("8.2.1 a value with a control character", Refused(PROTOCOL), |link, id| {
            link.send(&[frame(HEADERS, ENDS, id, &[OK, &literal(b"x-a", b"a\x01b")].concat())]);
        }),
        case("6.2 padding and a priority", Passed(200, "x"), |link, id| {
            let payload = [&b"\x02\0\0\0\0\x0f"[..], OK, b"\0\0"].concat();
            link.send(&[frame(HEADERS, END_HEADERS | 0x28, id, &payload), data(id, END_STREAM, b"x")]);
        }),
        case("6.10 a head in CONTINUATION, byte by byte", Passed(200, "x"), |link, id| {
            let block = [OK, &literal(b"x-a", b"b")].concat();
            link.send(&[frame(HEADERS, 0, id, b"")]);
            for byte in &block {
                link.send(&[frame(9, 0, id, &[*byte])]);
            }
            link.send(&[continuation(id, b""), data(id, END_STREAM, b"x")]);
        }),
        case("10.5.1 a list of fields of 100 KiB", Refused(PROTOCOL), |link, id| {
            let more: Vec<u8> = (0..100).flat_map(|n| literal(format!("x-{n}").as_bytes(), &[b'x'; 1024])).collect();
            let block = [OK, &more].concat();
            let mut chunks = block.chunks(16_384);
            link.send(&[frame(HEADERS, END_STREAM, id, chunks.next().unwrap())]);
            chunks.for_each(|chunk| link.send(&[frame(9, 0, id, chunk)]));
            link.send(&[continuation(id, b"")]);
        }),
        case("RFC 7541, 5.2 Huffman", Passed(200, ""), |link, id| {
            link.send(&[frame(
                HEADERS,
                ENDS,
                id,
                b"\x88\0\x03x-a\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            )]);
        }),
        case("RFC 7541, 4 a table that changes its size, and evicts", Passed(200, ""), |link, id| {
            let mut block = b"\x3f\x11\x88".to_vec(); // 48: room for one entry
            block.extend(indexed(b"x-a", b"1"));
            block.extend(indexed(b"x-b", b"2"));
            block.push(0xbe);
            link.send(&[frame(HEADERS, ENDS, id, &block)]);
        }),
        case("RFC 7541, 2.3.3 an index that was evicted", Refused(PROTOCOL), |link, id| {
            let block = [&b"\x20\x3f\x11\x88"[..], &indexed(b"x-a", b"1"), &indexed(b"x-b", b"2"), b"\xbf"].concat();
            link.send(&[frame(HEADERS, ENDS, id, &block)]);
        }),
        case("RFC 7541, 4.2 a table larger than ours", Refused(PROTOCOL), |link, id| {
            link.send(&[frame(HEADERS, ENDS, id, b"\x3f\xe2\x1f\x88")]);
        }),
    ]);
    cases
}

const MALFORMED_HEADS: &[(&str, &[u8])] = &[
    ("8.3.2 no :status", b"\0\x03x-a\x01b"),
    ("8.3.2 nothing", b""),
    ("8.3.2 :status twice", b"\x88\x88"),
    ("8.3.2 a status that is no number", b"\x08\x03abc"),
    ("8.3.2 a status of two digits", b"\x08\x0220"),
    ("8.3 a request's pseudo-field", b"\x88\x84"),
    ("8.3 an unknown pseudo-field", b"\x88\0\x02:x\x01y"),
    ("8.3 :status after a field", b"\0\x03x-a\x01b\x88"),
    ("8.2.1 an uppercase name", b"\x88\0\x03X-A\x01b"),
    ("8.2.1 a name with a space", b"\x88\0\x03x a\x01b"),
    ("8.2.1 an empty name", b"\x88\0\0\x01b"),
    ("8.2.1 a value with LF", b"\x88\0\x03x-a\x03a\nb"),
    ("8.2.1 a value with NUL", b"\x88\0\x03x-a\x03a\0b"),
    ("8.2.1 a value that starts with a space", b"\x88\0\x03x-a\x02 b"),
    ("8.2.2 connection", b"\x88\0\x0aconnection\x05close"),
    ("8.2.2 transfer-encoding", b"\x88\0\x11transfer-encoding\x07chunked"),
    ("8.2.2 upgrade", b"\x88\0\x07upgrade\x01x"),
    ("8.1.1 content-length without content", b"\x88\x0f\x0d\x015"),
    ("8.1.1 content-length that is none", b"\x88\x0f\x0d\x01x"),
    ("8.1.1 two content-lengths that differ", b"\x88\x0f\x0d\x010\x0f\x0d\x011"),
    ("8.1 an interim answer with END_STREAM", b"\x08\x03103"),
    ("8.6 101", b"\x08\x03101"),
    ("RFC 7541, 6.1 index 0", b"\x80"),
    ("RFC 7541, 5.2 a string cut short", b"\x88\0\x03x-a\x05ab"),
];

fn content_is_as_long_as_it_says() -> Vec<Case> {
    let head = |id, length: &[u8]| frame(HEADERS, END_HEADERS, id, &[OK, &literal(b"content-length", length)].concat());
    vec![
        case("8.1.1 content-length kept", Passed(200, "hello"), move |link, id| {
            link.send(&[head(id, b"5"), data(id, 0, b"hel"), data(id, END_STREAM, b"lo")]);
        }),
        case("8.1.1 less than content-length", Broken, move |link, id| {
            link.send(&[head(id, b"9"), data(id, END_STREAM, b"hello")]);
        }),
        case("8.1.1 more than content-length", Broken, move |link, id| {
            link.send(&[head(id, b"3"), data(id, END_STREAM, b"hello")]);
        }),
        case("8.1.1 less, before trailers", Broken, move |link, id| {
            link.send(&[head(id, b"9"), data(id, 0, b"hello"), frame(HEADERS, ENDS, id, &literal(b"x-a", b"b"))]);
        }),
        case("8.1 DATA before HEADERS", Refused(PROTOCOL), |link, id| {
            link.send(&[data(id, 0, b"smuggled"), frame(HEADERS, END_HEADERS, id, OK), data(id, END_STREAM, b"hello")]);
        }),
        case("8.1 DATA and END_STREAM before HEADERS", Refused(PROTOCOL), |link, id| {
            link.send(&[data(id, END_STREAM, b"smuggled")]);
        }),
        case("8.1 DATA after 103", Refused(PROTOCOL), |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, b"\x08\x03103"), data(id, END_STREAM, b"smuggled")]);
        }),
        case("8.1 trailers", Passed(200, "hello"), |link, id| {
            let trailers = frame(HEADERS, ENDS, id, &literal(b"x-trailer", b"1"));
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, 0, b"hello"), trailers]);
        }),
        case("8.1 HEADERS again without END_STREAM", Broken, |link, id| {
            let trailers = frame(HEADERS, END_HEADERS, id, &literal(b"x-trailer", b"1"));
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, 0, b"hello"), trailers]);
        }),
        case("8.1 a pseudo-field in trailers", Broken, |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, 0, b"hello"), frame(HEADERS, ENDS, id, OK)]);
        }),
        case("8.1 DATA after the end", Passed(200, "hello"), |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, END_STREAM, b"hello"), data(id, 0, b"more")]);
        }),
        case("6.1 padding is no content", Passed(200, "body"), |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, PADDED | END_STREAM, b"\x03body\0\0\0")]);
        }),
        case("6.1 DATA without content, often", Passed(200, "x"), |link, id| {
            link.send(&[
                frame(HEADERS, END_HEADERS, id, OK),
                data(id, 0, b"").repeat(1000),
                data(id, END_STREAM, b"x"),
            ]);
        }),
        case("15.2 ten interim answers", Passed(200, "hello"), |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, b"\x08\x03103").repeat(10)]);
            link.send(&[frame(HEADERS, END_HEADERS, id, b"\x08\x03100"), head_and(id, b"hello")]);
        }),
        case("9.3.6 204 with content", Passed(204, ""), |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, b"\x89"), data(id, END_STREAM, b"x")]);
        }),
    ]
}

pub(crate) fn head_and(id: u32, body: &[u8]) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, id, OK), data(id, END_STREAM, body)].concat()
}

type Bytes = fn(u32) -> Vec<u8>;

fn frames_have_rules() -> Vec<Case> {
    let frames: &[(&str, Expect, Bytes)] = &[
        ("5.1 HEADERS on an even stream", Refused(PROTOCOL), |_| frame(HEADERS, ENDS, 2, OK)),
        ("5.1 HEADERS on an idle stream", Refused(PROTOCOL), |id| frame(HEADERS, ENDS, id + 200, OK)),
        ("5.1 DATA on an idle stream", Refused(PROTOCOL), |id| data(id + 200, 0, b"x")),
        ("5.1 RST_STREAM on an idle stream", Refused(PROTOCOL), |id| frame(RST_STREAM, 0, id + 200, &[0; 4])),
        ("5.1 WINDOW_UPDATE on an idle stream", Refused(PROTOCOL), |id| window(id + 200, 1)),
        ("6.1 DATA on stream 0", Refused(PROTOCOL), |_| data(0, 0, b"x")),
        ("6.1 more padding than payload", Refused(PROTOCOL), |id| data(id, PADDED, b"\x09x")),
        ("6.2 HEADERS on stream 0", Refused(PROTOCOL), |_| frame(HEADERS, ENDS, 0, OK)),
        ("4.2 a frame that is too large", Refused(PROTOCOL), |id| data(id, 0, &vec![0; 16_385])),
        ("6.4 RST_STREAM of 3 bytes", Refused(PROTOCOL), |id| frame(RST_STREAM, 0, id, &[0; 3])),
        ("6.5 SETTINGS of 5 bytes", Refused(PROTOCOL), |_| frame(SETTINGS, 0, 0, &[0; 5])),
        ("6.5.2 SETTINGS_ENABLE_PUSH of 1", Refused(PROTOCOL), |_| settings(&[(2, 1)])),
        ("6.5.2 SETTINGS_INITIAL_WINDOW_SIZE of 2^31", Refused(PROTOCOL), |_| settings(&[(4, 1 << 31)])),
        ("6.5.2 SETTINGS_MAX_FRAME_SIZE of 1", Refused(PROTOCOL), |_| settings(&[(5, 1)])),
        ("6.6 PUSH_PROMISE", Refused(PROTOCOL), |id| frame(5, END_HEADERS, id, b"\0\0\0\x02\x82\x86\x84")),
        ("6.7 PING of 7 bytes", Refused(PROTOCOL), |_| frame(PING, 0, 0, &[0; 7])),
        ("6.8 GOAWAY of 7 bytes", Refused(PROTOCOL), |_| frame(GOAWAY, 0, 0, &[0; 7])),
        ("6.9 WINDOW_UPDATE of 0", Refused(PROTOCOL), |id| window(id, 0)),
        ("6.9 WINDOW_UPDATE of 0 on the connection", Refused(PROTOCOL), |_| window(0, 0)),
        ("6.9.1 a window above 2^31 - 1", Refused(PROTOCOL), |id| window(id, 0x7fff_ffff)),
        ("6.9.1 the connection's window above 2^31 - 1", Refused(PROTOCOL), |_| window(0, 0x7fff_ffff)),
        ("6.10 CONTINUATION without HEADERS", Refused(PROTOCOL), |id| continuation(id, OK)),
        ("6.10 PING within a field block", Refused(PROTOCOL), |id| {
            [frame(HEADERS, 0, id, OK), ping(0, [0; 8])].concat()
        }),
        ("10.5 CONTINUATION without an end", Refused(PROTOCOL), |id| {
            [frame(HEADERS, 0, id, OK), frame(9, 0, id, &literal(b"x-a", &[b'x'; 9000])).repeat(40)].concat()
        }),
        ("4.1 an unknown frame", Passed(200, "x"), |id| [frame(0xfa, 0xff, id, b"?"), head_and(id, b"x")].concat()),
        ("6.5.2 an unknown setting", Passed(200, "x"), |id| [settings(&[(0xbabe, 7)]), head_and(id, b"x")].concat()),
        ("6.5.2 SETTINGS_HEADER_TABLE_SIZE of 0", Passed(200, "x"), |id| {
            [settings(&[(1, 0)]), head_and(id, b"x")].concat()
        }),
        ("6.7 a PING nobody asked for", Passed(200, "x"), |id| [ping(ACK, [7; 8]), head_and(id, b"x")].concat()),
        ("6.7 many PINGs", Passed(200, "x"), |id| [ping(0, [7; 8]).repeat(900), head_and(id, b"x")].concat()),
        ("6.3 PRIORITY", Passed(200, "x"), |id| [frame(2, 0, id, &[0, 0, 0, 0, 9]), head_and(id, b"x")].concat()),
        ("6.6 a stream closed long ago", Passed(200, "x"), |id| [window(1, 9), head_and(id, b"x")].concat()),
    ];
    let cases =
        frames.iter().map(|(name, expect, bytes)| case(*name, *expect, move |link, id| link.send(&[bytes(id)])));
    cases.collect()
}

fn that_are_reset_say_so() -> Vec<Case> {
    let mut cases = Vec::new();
    for code in 0..15_u32 {
        let reset = move |id| frame(RST_STREAM, 0, id, &code.to_be_bytes());
        let head = |id| frame(HEADERS, END_HEADERS, id, OK);
        cases.push(case(format!("6.4 code {code} before the head"), Refused(RESET), move |link, id| {
            link.send(&[reset(id)]);
        }));
        cases.push(case(format!("6.4 code {code} after 103"), Refused(RESET), move |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, b"\x08\x03103"), reset(id)]);
        }));
        cases.push(case(format!("6.4 code {code} after the head"), Broken, move |link, id| {
            link.send(&[head(id), reset(id)]);
        }));
        cases.push(case(format!("6.4 code {code} within the body"), Broken, move |link, id| {
            link.send(&[head(id), data(id, 0, b"some"), reset(id)]);
        }));
        cases.push(case(format!("6.4 code {code} after the end"), Passed(200, "all"), move |link, id| {
            link.send(&[head_and(id, b"all"), reset(id)]);
        }));
    }
    cases.extend([
        case("6.8 GOAWAY, and the answer", Passed(200, "all"), |link, id| {
            link.send(&[frame(GOAWAY, 0, 0, &[id.to_be_bytes(), [0; 4]].concat()), head_and(id, b"all")]);
        }),
        case("6.8 GOAWAY with a last stream below ours", Refused(RESET), |link, _| {
            link.send(&[frame(GOAWAY, 0, 0, &[0; 8])]);
        }),
        case("6.8 GOAWAY, and the end", Refused(RESET), |link, id| {
            link.send(&[frame(GOAWAY, 0, 0, &[id.to_be_bytes(), [0; 4]].concat())]);
            link.is_over = true;
        }),
        case("5.4.1 the end within the body", Broken, |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, 0, b"some")]);
            link.is_over = true;
        }),
        case("5.4.1 the end within a frame", Broken, |link, id| {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK), data(id, END_STREAM, b"some")[..11].to_vec()]);
            link.is_over = true;
        }),
        case("5.4.1 the end before the head", Refused(RESET), |link, _| link.is_over = true),
    ]);
    cases
}

pub(crate) fn slow_clients_hold_up_nobody_else_at_their_server<B: Between>() {
    let server = Server::http2(|link, id, path| match path {
        "/much" => {
            link.send(&[frame(HEADERS, END_HEADERS, id, OK)]);
            // As much as the stream's window takes.
            (0..16).for_each(|_| link.send(&[data(id, 0, &[b'x'; 16_384])]));
        }
        _ => link.send(&[head_and(id, &[b'y'; 16_000])]),
    });
    let between = B::before(server.port, Speaks::Http2);
    let address = between.address();
    // Forty answers whose client has no window for them.
    let mut idle = TcpStream::connect(&address).unwrap();
    let asks = (0..40).map(|index| {
        block(
            2 * index + 1,
            &fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/much"), (":authority", "users")]),
        )
    });
    let opening = [PREFACE.to_vec(), settings(&[(4, 0)])].into_iter().chain(asks).collect::<Vec<_>>().concat();
    idle.write_all(&opening).unwrap();
    eventually_is("forty are on their way", || server.asked(), |asked| *asked == 40);
    let got = ask(&address, "GET", "/", b"");
    assert_eq!((got.status, got.body.len(), got.is_whole), (200, 16_000, true));
    assert_eq!(server.accepted(), 1);
}

pub(crate) fn an_upload_waits_for_each_window<B: Between>() {
    // Windows of 1,000 bytes, opened one by one; of nothing at first; and a lowered one.
    let server = Server::start(|stream| {
        let mut link = Link::new(stream);
        link.returns_windows = false;
        link.send(&[settings(&[(4, 0)])]);
        let mut got = 0_usize;
        while let Some(frame) = link.next() {
            match frame.kind {
                HEADERS => link.send(&[settings(&[(4, 1000)])]),
                DATA => {
                    assert!(frame.payload.len() <= 1000, "{}", frame.payload.len());
                    got += frame.payload.len();
                    let by = frame.payload.len() as u32;
                    if frame.flags & END_STREAM != 0 {
                        link.send(&[head_and(frame.stream, got.to_string().as_bytes())]);
                        got = 0;
                    } else if by > 0 {
                        link.send(&[window(frame.stream, by), window(0, by)]);
                    }
                }
                _ => (),
            }
        }
    });
    let between = B::before(server.port, Speaks::Http2);
    let body = vec![b'x'; 10 << 20];
    let got = ask(&between.address(), "POST", "/", &body);
    assert_eq!((got.status, got.body.as_str()), (200, "10485760"));
}

pub(crate) fn an_early_answer_ends_the_upload_and_reaches_the_client<B: Between>() {
    let server = Server::http2_at_once(|link, id, _| {
        link.send(&[
            frame(HEADERS, END_HEADERS, id, &fields(&[(":status", "413")])),
            data(id, END_STREAM, b"too much"),
        ]);
        link.send(&[frame(RST_STREAM, 0, id, &0_u32.to_be_bytes())]);
    });
    let between = B::before(server.port, Speaks::Http2);
    for _ in 0..5 {
        let got = ask(&between.address(), "POST", "/", &vec![b'x'; 4 << 20]);
        assert_eq!((got.status, got.body.as_str()), (413, "too much"), "{got:?}");
    }
    assert_eq!(server.accepted(), 1);
}

pub(crate) fn a_client_that_goes_is_a_cancel_within_100_ms<B: Between>() {
    let cancelled = Arc::new(Mutex::new(None));
    let told = Arc::clone(&cancelled);
    let server = Server::start(move |stream| {
        let mut link = Link::new(stream);
        link.send(&[settings(&[])]);
        while let Some(frame) = link.next() {
            if frame.kind == RST_STREAM {
                *told.lock() = Some((frame.payload, Instant::now()));
            }
        }
    });
    let between = B::before(server.port, Speaks::Http2);
    let mut client = TcpStream::connect(between.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
    eventually_is("it is asked", || server.accepted(), |accepted| *accepted == 1);
    eventually_is("it is on its way", || server.frames(), |frames| *frames >= 3);
    let went = Instant::now();
    drop(client);
    eventually_is("it is cancelled", || cancelled.lock().clone(), Option::is_some);
    let (code, at) = cancelled.lock().clone().unwrap();
    assert_eq!(code, CANCEL.to_be_bytes());
    assert!(at - went < Duration::from_millis(100), "{:?}", at - went);
}

/// Both sides send 8 MiB at the same time, through windows that take one frame.
pub(crate) fn both_sides_stream_at_the_same_time<B: Between>() {
    const ALL: usize = 8 << 20;
    const FRAME: usize = 16_384;
    let server = Server::start(|stream| {
        let mut link = Link::new(stream);
        link.send(&[settings(&[(4, FRAME as u32)])]);
        while let Some(frame) = link.next() {
            match frame.kind {
                HEADERS => link.send(&[super::frames::frame(HEADERS, END_HEADERS, frame.stream, OK)]),
                DATA => link.send(&[data(frame.stream, frame.flags & END_STREAM, &frame.payload)]),
                _ => (),
            }
        }
    });
    let between = B::before(server.port, Speaks::Http2);
    let mut client = Link::of(TcpStream::connect(between.address()).unwrap());
    let post = fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "users")]);
    let head = frame(HEADERS, END_HEADERS, 1, &post);
    client.send(&[PREFACE.into(), settings(&[(4, FRAME as u32)]), head]);
    let (mut sent, mut echoed, mut is_ended) = (0, 0, false);
    while !is_ended {
        // No more than what fits into the windows along the way.
        while sent < ALL && sent - echoed < 8 * FRAME {
            let flags = if sent + FRAME == ALL { END_STREAM } else { 0 };
            client.send(&[data(1, flags, &vec![b'x'; FRAME])]);
            sent += FRAME;
        }
        let frame = client.next().expect("it goes on");
        assert!(frame.kind != RST_STREAM && frame.kind != GOAWAY, "{frame:?} after {echoed}");
        if frame.kind == DATA {
            echoed += frame.payload.len();
            is_ended = frame.flags & END_STREAM != 0;
        }
    }
    assert_eq!(echoed, ALL);
}

pub(crate) fn interim_answers_pass_to_clients_of_both_versions<B: Between>() {
    let http2 = Server::http2(|link, id, _| {
        let hints = [&b"\x08\x03103"[..], &literal(b"link", b"</a.css>")].concat();
        link.send(&[frame(HEADERS, END_HEADERS, id, &hints), head_and(id, b"hello")]);
    });
    let http1 = Server::start(|mut stream: TcpStream| {
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
            let answer =
                "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    for (port, speaks) in [(http2.port, Speaks::Http2), (http1.port, Speaks::Http1)] {
        let between = B::before(port, speaks);
        let address = between.address();
        let mut old = TcpStream::connect(&address).unwrap();
        old.write_all(b"GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{speaks:?}: {text}"
        );
        let mut new = Link::of(TcpStream::connect(&address).unwrap());
        let get = fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "users")]);
        new.send(&[PREFACE.into(), settings(&[]), block(1, &get)]);
        let mut heads = Vec::new();
        loop {
            let frame = new.next().expect("an answer");
            match frame.kind {
                HEADERS => heads.push(frame.payload),
                DATA if frame.flags & END_STREAM != 0 => break,
                _ => (),
            }
        }
        assert_eq!(heads.len(), 2, "{speaks:?}: {heads:?}");
        assert!(heads[0].windows(8).any(|part| part == b"</a.css>") && heads[1][0] == 0x88, "{speaks:?}: {heads:?}");
    }
}

// --- Cases.

/// What a server does with a request on this stream.
type Act = Box<dyn Fn(&mut Link, u32) + Send + Sync>;

/// That, and what may become of it.
struct Case {
    name: String,
    expect: Expect,
    act: Act,
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    /// 502 that says this.
    Refused(Fault),
    /// 502, or an answer that is seen to be cut.
    Broken,
    /// This status and this body, whole.
    Passed(u16, &'static str),
}

fn case(name: impl Into<String>, expect: Expect, act: impl Fn(&mut Link, u32) + Send + Sync + 'static) -> Case {
    Case { name: name.into(), expect, act: Box::new(act) }
}

/// Gives the answers through what stands between, a good request after each, and panics with everything that was wrong;
/// says how many there were.
pub(crate) fn run<B: Between>() -> usize {
    let cases = TABLES.iter().flat_map(|(_, cases)| cases()).collect();
    let cases = Arc::new(chosen(cases, B::ONE_IN, |case| std::mem::discriminant(&case.expect)));
    let acts = Arc::clone(&cases);
    let server = Server::http2(move |link, id, path| {
        let index: Option<usize> = path.strip_prefix("/case/").and_then(|index| index.parse().ok());
        match index {
            Some(index) => (acts[index].act)(link, id),
            None => link.send(&[head_and(id, path.as_bytes())]),
        }
    });
    let between = B::before(server.port, Speaks::Http2);
    let address = between.address();
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let got = ask(&address, "GET", &format!("/case/{index}"), b"");
        let is_refusal = |fault| got.status == 502 && got.is_whole && B::is_refusal(&got.told(), fault);
        let is_met = match case.expect {
            Refused(fault) => is_refusal(Some(fault)),
            Broken => is_refusal(None) || !got.is_whole,
            Passed(status, body) => got.status == status && got.body == body && got.is_whole,
        };
        if !is_met {
            wrong.push(format!("{}: expected {:?}, got {got:?}", case.name, case.expect));
        }
        let path = format!("/good/{index}");
        let good = ask(&address, "GET", &path, b"");
        if good.status != 200 || good.body != path {
            wrong.push(format!("after {}: {good:?}", case.name));
        }
    }
    wrong.extend(between.complaints());
    assert!(wrong.is_empty(), "{} wrong of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    cases.len()
}

// --- A client of HTTP/1.1.

#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) is_whole: bool,
}

impl Got {
    pub(crate) fn told(&self) -> Told<'_> {
        Told { status: self.status, fields: &self.fields, body: self.body.as_bytes() }
    }

    fn new(status: u16, head: &str, body: String, is_whole: bool) -> Self {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { status, fields, body, is_whole }
    }
}

/// Asks on a connection of its own. Its own timeout is far above what anything here may take.
pub(crate) fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> Got {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: users\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let body = body.to_vec();
    let writing = std::thread::spawn(move || {
        let _ = writer.write_all(&body); // an early answer ends it
    });
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(_) => break,
        }
    }
    drop(stream);
    writing.join().unwrap();
    parse(&String::from_utf8_lossy(&bytes))
}

/// Takes the final answer apart.
fn parse(text: &str) -> Got {
    let mut rest = text;
    loop {
        let Some((head, body)) = rest.split_once("\r\n\r\n") else {
            return Got::new(0, rest, String::new(), false);
        };
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let (body, is_whole) = match length {
            Some(length) => (body.to_owned(), body.len() == length),
            None if head.contains("transfer-encoding: chunked") => dechunked(body),
            None => (body.to_owned(), matches!(status, 204 | 304)),
        };
        return Got::new(status, &head, body, is_whole);
    }
}

// --- A server that keeps to nothing.

pub(crate) struct Server {
    pub(crate) port: u16,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
pub(crate) struct Counts {
    accepted: u32,
    open: u32,
    frames: u32,
    asked: u32,
}

thread_local! {
    static COUNTS: std::cell::RefCell<Option<Arc<Mutex<Counts>>>> = const { std::cell::RefCell::new(None) };
}

impl Server {
    /// Serves each connection in a thread of its own.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (serve, counted) = (Arc::new(serve), Arc::clone(&counts));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (serve, counts) = (Arc::clone(&serve), Arc::clone(&counted));
                counts.lock().accepted += 1;
                counts.lock().open += 1;
                std::thread::spawn(move || {
                    COUNTS.set(Some(Arc::clone(&counts)));
                    stream.set_nodelay(true).unwrap();
                    serve(stream);
                    counts.lock().open -= 1;
                });
            }
        });
        Self { port, counts }
    }

    /// Answers each request when it is whole, by its stream and path.
    pub(crate) fn http2(answer: impl Fn(&mut Link, u32, &str) + Send + Sync + 'static) -> Self {
        Self::answering(END_STREAM, answer)
    }

    /// Answers each request by its head.
    pub(crate) fn http2_at_once(answer: impl Fn(&mut Link, u32, &str) + Send + Sync + 'static) -> Self {
        Self::answering(0, answer)
    }

    pub(crate) fn answering(awaits: u8, answer: impl Fn(&mut Link, u32, &str) + Send + Sync + 'static) -> Self {
        Self::start(move |stream| {
            let mut link = Link::new(stream);
            link.send(&[settings(&[])]);
            let mut paths = std::collections::BTreeMap::new();
            while let Some(frame) = link.next() {
                if frame.kind == HEADERS {
                    paths.insert(frame.stream, path(&frame.payload));
                }
                if matches!(frame.kind, HEADERS | DATA)
                    && frame.flags & awaits == awaits
                    && let Some(path) = paths.remove(&frame.stream)
                {
                    COUNTS.with_borrow(|counts| counts.as_ref().unwrap().lock().asked += 1);
                    answer(&mut link, frame.stream, &path);
                }
                if link.is_over {
                    return;
                }
            }
        })
    }

    pub(crate) fn accepted(&self) -> u32 {
        self.counts.lock().accepted
    }

    pub(crate) fn open(&self) -> u32 {
        self.counts.lock().open
    }

    pub(crate) fn frames(&self) -> u32 {
        self.counts.lock().frames
    }

    pub(crate) fn asked(&self) -> u32 {
        self.counts.lock().asked
    }
}

/// One end of a connection.
pub(crate) struct Link {
    stream: TcpStream,
    read: Vec<u8>,
    pub(crate) acks: u32,
    /// The connection is to end.
    pub(crate) is_over: bool,
    /// Nothing is answered any more, not even PING.
    pub(crate) is_mute: bool,
    pub(crate) returns_windows: bool,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Link {
    /// Of a server: the client's preface is taken.
    pub(crate) fn new(stream: TcpStream) -> Self {
        let mut link = Self::of(stream);
        let mut preface = [0; 24];
        if link.stream.read_exact(&mut preface).is_ok() {
            assert_eq!(preface, PREFACE);
        }
        link
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, read: Vec::new(), acks: 0, is_over: false, is_mute: false, returns_windows: true }
    }

    /// Whether it arrives will be seen.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        let _ = self.stream.write_all(&frames.concat());
    }

    /// The next frame; what has to be answered is. `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let frame = loop {
            if let Some(head) = self.read.first_chunk::<9>() {
                let [l2, l1, l0, kind, flags, stream @ ..] = *head;
                let end = 9 + u32::from_be_bytes([0, l2, l1, l0]) as usize;
                if self.read.len() >= end {
                    let payload = self.read.drain(..end).skip(9).collect();
                    break Frame { kind, flags, stream: u32::from_be_bytes(stream), payload };
                }
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(count @ 1..) => self.read.extend_from_slice(&chunk[..count]),
                Ok(0) | Err(_) => return None,
            }
        };
        COUNTS.with_borrow(|counts| {
            if let Some(counts) = counts {
                counts.lock().frames += 1;
            }
        });
        let is_ack = frame.flags & ACK != 0;
        match frame.kind {
            _ if self.is_mute => (),
            SETTINGS if is_ack => self.acks += 1,
            SETTINGS => self.send(&[super::frames::frame(SETTINGS, ACK, 0, b"")]),
            PING if !is_ack => self.send(&[ping(ACK, *frame.payload.first_chunk().unwrap())]),
            DATA if self.returns_windows && !frame.payload.is_empty() => {
                let by = frame.payload.len() as u32;
                self.send(&[window(0, by), window(frame.stream, by)]);
            }
            _ => (),
        }
        Some(frame)
    }
}

/// The :path of a field block that uses neither the dynamic table nor Huffman code, which ours do not.
fn path(block: &[u8]) -> String {
    let mut rest = block;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            0x84 => return "/".to_owned(),
            0x80.. | 0x20..0x40 => continue,
            _ => (),
        }
        let index = first & 15;
        let mut name = Vec::new();
        match index {
            0 => name = text(&mut rest),
            15 => {
                while rest[0] & 0x80 != 0 {
                    rest = &rest[1..];
                }
                rest = &rest[1..];
            }
            _ => (),
        }
        let value = text(&mut rest);
        if index == 4 || name == b":path" {
            return String::from_utf8(value).unwrap();
        }
    }
    String::new()
}

fn text(rest: &mut &[u8]) -> Vec<u8> {
    let mut length = usize::from(rest[0] & 127);
    *rest = &rest[1..];
    if length == 127 {
        let mut shift = 0;
        loop {
            let byte = rest[0];
            *rest = &rest[1..];
            length += usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
    }
    let (text, after) = rest.split_at(length);
    *rest = after;
    text.to_vec()
}
