//! Streams that outlive the token that opened them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};
use serde_json::json;

use crate::issuer::{SECRET, claims, in_seconds, shared};
use crate::open::{Kind, Open, STREAMS, echoing};
use crate::wire::{Asked, Got, get};
use crate::{Ask, BOTH, LICTOR, Version, ask, begun_http2, block, configuration, frame, gateway_of};

/// Long enough to be used, whatever else this machine does.
const LIFE: i64 = 5;

/// Begins with these bytes, and says no more until it is left.
fn beginning(bytes: impl Into<Vec<u8>>) -> RawServer {
    let bytes = bytes.into();
    RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() && stream.write_all(&bytes).is_ok() {
            while matches!(stream.read(&mut [0; 1024]), Ok(read) if read > 0) {}
        }
    })
}

fn gateway(server: &RawServer) -> Sidecar {
    let auth = format!("  auth: {{jwt: {{secret: {SECRET}, leeway: 0s}}}}\n");
    let routes = "    - {path: /*, to: one}\n    - {path: /long/*, to: one, auth: {stream_expiry: ignore}}\n";
    gateway_of(&[("one", server)], &auth, routes)
}

fn short_lived() -> String {
    format!("Bearer {}", shared(&claims(json!({"exp": in_seconds(LIFE)}))))
}

/// Asks, and waits for the end that comes by itself.
fn until_the_end(lictor: &Sidecar, version: Version, fields: &[(&str, &str)]) -> Got {
    let began = Instant::now();
    let token = short_lived();
    let got = get(lictor, version, Asked::get("/", &[&[("authorization", &*token)], fields].concat()));
    let took = began.elapsed();
    assert_eq!(got.status, 200, "{version:?}: {got:?}");
    assert!(took > Duration::from_secs(LIFE as u64 - 2), "{version:?}: it ended after {took:?}");
    assert!(took < Duration::from_secs(25), "{version:?}: it ended after {took:?}");
    got
}

#[test]
fn events_end_with_the_token_as_if_they_were_all() {
    let one = beginning(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
    );
    let lictor = gateway(&one);
    for version in BOTH {
        let got = until_the_end(&lictor, version, &[]);
        assert!(got.body == b"data: 1\n\n" && got.is_whole, "{version:?} {got:?}");
    }
    let said = || lictor.log().matches("\"reason\":\"unauthenticated\"").count();
    eventually_is("the log says why", said, |count| *count == 2);
}

#[test]
fn other_streams_break_off_and_what_is_no_stream_goes_on() {
    std::thread::scope(|scope| {
        for kind in ["application/x-ndjson", "multipart/x-mixed-replace; boundary=b"] {
            for version in BOTH {
                scope.spawn(move || {
                    let one = beginning(format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{{}}\n\r\n"
                    ));
                    let got = until_the_end(&gateway(&one), version, &[]);
                    assert!(got.body == b"{}\n" && !got.is_whole, "{version:?} {kind}: {got:?}");
                });
            }
        }
    });
    let plain = RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nhi");
            // A download that takes its time; its client says nothing meanwhile.
            stream.set_read_timeout(Some(Duration::from_secs(LIFE as u64 + 1))).unwrap();
            let _ = stream.read(&mut [0]);
            let _ = stream.write_all(b"ho");
        }
    });
    let lictor = gateway(&plain);
    let token = short_lived();
    let told = ask(&lictor, Version::Http1, Ask { fields: &[("authorization", &*token)], ..Ask::get("/") });
    assert_eq!((told.status, &*told.body), (200, "hiho"));
}

#[test]
fn a_call_of_grpc_ends_with_a_status() {
    let one = beginning(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\0\0\0\0\0\r\n",
    );
    let lictor = gateway(&one);
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let got = until_the_end(&lictor, Version::Http2, &fields);
    assert!(got.is_whole && got.trailers.get("grpc-status").is_some_and(|status| status == "16"), "{got:?}");
}

#[test]
fn where_that_is_ignored_streams_go_on_when_their_token_is_over() {
    let one = echoing();
    let lictor = gateway(&one);
    let token = short_lived();
    let opened = STREAMS.map(|kind| {
        let open = |target| Open::ask(&lictor, kind, target, Some(&token)).unwrap_or_else(|told| panic!("{told:?}"));
        (open("/"), open("/long/"))
    });
    for (closing, mut going) in opened {
        going.talk();
        closing.rest(); // its end is when the token is over
        going.talk();
    }
    let told = ask(&lictor, Version::Http1, Ask { fields: &[("authorization", &*token)], ..Ask::get("/long/") });
    assert_eq!(told.status, 401, "no other begins with it");
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_socket_is_closed_and_told_why_where_that_does_not_break_a_frame() {
    for version in BOTH {
        let until_the_end = |says: &[u8]| {
            let one = beginning([SWITCHED.as_bytes(), says].concat());
            let lictor = gateway(&one);
            let socket = Open::ask(&lictor, (Kind::Socket, version), "/", Some(&short_lived()));
            socket.unwrap_or_else(|told| panic!("{told:?}")).rest()
        };
        let (bytes, is_end) = until_the_end(&[0x81, 2, b'h', b'i']);
        assert!(is_end && bytes.starts_with(&[0x81, 2, b'h', b'i', 0x88]), "{version:?} {bytes:x?}");
        let why = &bytes[4..];
        assert_eq!((usize::from(why[1]) + 2, &why[2..4]), (why.len(), &[0x03, 0xf0][..]), "1008: {bytes:x?}");
        let (bytes, _) = until_the_end(&[0x81, 5, b'h', b'i']);
        assert_eq!(bytes, [0x81, 5, b'h', b'i'], "{version:?}: within a frame nothing of ours is said");
    }
}

#[test]
fn a_socket_that_is_open_after_the_drain_timeout_is_closed_by_a_frame() {
    let whole = [SWITCHED.as_bytes(), &[0x81, 2, b'h', b'i']].concat();
    let part = [SWITCHED.as_bytes(), &[0x81, 5, b'h', b'i']].concat();
    let socket = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let http2 = [begun_http2(), frame(1, 4, 1, &block(Ask { method: "CONNECT", fields: &socket, ..Ask::get("/") }))];
    let http1 = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (asked, version) in [(http1.as_bytes().to_vec(), Version::Http1), (http2.concat(), Version::Http2)] {
        for (says, is_told) in [(&whole, true), (&part, false)] {
            let one = beginning(says.clone());
            let text = configuration(&[("one", &one)], "", "", "    - {path: /*, to: one}\n");
            let text = format!("{text}lifecycle: {{drain_delay: 100ms, drain_timeout: 500ms}}\n");
            let mut lictor = Sidecar::serve(LICTOR, &text).up();
            let mut stream = connect(&lictor.address("gateway"));
            stream.write_all(&asked).unwrap();
            let (mut bytes, mut byte) = (Vec::new(), [0]);
            while !bytes.ends_with(b"hi") {
                stream.read_exact(&mut byte).unwrap();
                bytes.push(byte[0]);
            }
            assert!(lictor.terminate().success(), "{}", lictor.log());
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest); // a reset is an end too
            // Status 1001 (RFC 6455, section 7.4.1), and why.
            let closing = [&[0x88, 42, 0x03, 0xe9], &b"this proxy stops, or has other rules now"[..]].concat();
            let is_closed = rest.windows(closing.len()).any(|part| part == closing);
            assert_eq!(is_closed, is_told, "{version:?}: {}", String::from_utf8_lossy(&rest));
            let line = crate::line_of(&lictor, |line| line["path"] == "/");
            assert_eq!(line["reason"], "draining", "{version:?} {line}");
        }
    }
}
