//! Streams that outlive the token that opened them.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};
use serde_json::json;

use crate::issuer::{SECRET, claims, in_seconds, shared};
use crate::{Ask, BOTH, LICTOR, Told, Version, ask, block, configuration, frame, gateway_of};

/// Long enough to be used, whatever else this machine does.
const LIFE: i64 = 5;

/// Begins with these bytes, and says no more until it is left.
fn beginning(bytes: &'static [u8]) -> RawServer {
    RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() && stream.write_all(bytes).is_ok() {
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
fn until_the_end(lictor: &Sidecar, version: Version, fields: &[(&str, &str)]) -> Told {
    let began = Instant::now();
    let token = short_lived();
    let told = ask(lictor, version, Ask { fields: &[&[("authorization", &*token)], fields].concat(), ..Ask::get("/") });
    let took = began.elapsed();
    assert_eq!(told.status, 200, "{version:?}: {told:?}");
    assert!(took > Duration::from_secs(LIFE as u64 - 2), "{version:?}: it ended after {took:?}");
    assert!(took < Duration::from_secs(25), "{version:?}: it ended after {took:?}");
    told
}

#[test]
fn events_end_with_the_token_as_if_they_were_all() {
    let one = beginning(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
    );
    let lictor = gateway(&one);
    for version in BOTH {
        let told = until_the_end(&lictor, version, &[]);
        assert!(told.body.contains("data: 1\n\n"), "{told:?}");
        assert!(version == Version::Http2 || told.body.ends_with("\r\n0\r\n\r\n"), "{told:?}");
    }
    let said = || lictor.log().matches("\"reason\":\"unauthenticated\"").count();
    eventually_is("the log says why", said, |count| *count == 2);
}

#[test]
fn other_streams_break_off_and_what_is_no_stream_goes_on() {
    let one = beginning(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n",
    );
    let lictor = gateway(&one);
    let told = until_the_end(&lictor, Version::Http1, &[]);
    assert!(told.body.contains("{}\n") && !told.body.contains("\r\n0\r\n"), "{told:?}");
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
    let told = until_the_end(&lictor, Version::Http2, &fields);
    assert!(told.head.contains("grpc-status\u{2}16"), "{told:?}");
}

/// Opens a socket, and reads what comes until the end or for so long.
fn socket(lictor: &Sidecar, target: &str, at_most: Duration) -> (Vec<u8>, bool) {
    let token = short_lived();
    let mut stream = connect(&lictor.address("gateway"));
    let text = format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (began, mut bytes) = (Instant::now(), Vec::new());
    let mut part = [0; 1024];
    while began.elapsed() < at_most {
        match stream.read(&mut part) {
            Ok(0) => return (bytes, true),
            Ok(read) => bytes.extend(&part[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
            Err(_) => return (bytes, true),
        }
    }
    (bytes, false)
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_socket_is_closed_and_told_why_where_that_does_not_break_a_frame() {
    let whole = beginning(Box::leak([SWITCHED.as_bytes(), &[0x81, 2, b'h', b'i']].concat().into_boxed_slice()));
    let lictor = gateway(&whole);
    let (bytes, is_over) = socket(&lictor, "/", Duration::from_secs(25));
    assert!(is_over && bytes.starts_with(&[0x81, 2, b'h', b'i', 0x88]), "{bytes:x?}");
    let why = &bytes[4..];
    assert_eq!((usize::from(why[1]) + 2, &why[2..4]), (why.len(), &[0x03, 0xf0][..]), "1008: {bytes:x?}");
    let (bytes, is_over) = socket(&lictor, "/long/", Duration::from_secs(LIFE as u64 + 2));
    assert_eq!((bytes, is_over), (vec![0x81, 2, b'h', b'i'], false), "it goes on");

    let part = beginning(Box::leak([SWITCHED.as_bytes(), &[0x81, 5, b'h', b'i']].concat().into_boxed_slice()));
    let lictor = gateway(&part);
    let (bytes, is_over) = socket(&lictor, "/", Duration::from_secs(25));
    assert_eq!((bytes, is_over), (vec![0x81, 5, b'h', b'i'], true), "within a frame nothing of ours is said");
}

#[test]
fn a_socket_that_is_open_after_the_drain_timeout_is_closed_by_a_frame() {
    let whole: &[u8] = Box::leak([SWITCHED.as_bytes(), &[0x81, 2, b'h', b'i']].concat().into_boxed_slice());
    let part: &[u8] = Box::leak([SWITCHED.as_bytes(), &[0x81, 5, b'h', b'i']].concat().into_boxed_slice());
    let socket = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let http2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &block(Ask { method: "CONNECT", fields: &socket, ..Ask::get("/") })),
    ];
    let http1 = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (asked, version) in [(http1.as_bytes().to_vec(), Version::Http1), (http2.concat(), Version::Http2)] {
        for (says, is_told) in [(whole, true), (part, false)] {
            let one = beginning(says);
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
