//! The longest body that a route takes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use lictor_testkit::{RawServer, connect, read_head};

use crate::{
    Ask, LICTOR, Told, begun_http2, block, configuration, echo, frame, gateway_of, line_of, told_http1, told_http2,
};

fn posted(lictor: &lictor_testkit::Sidecar, target: &str, fields: &str, body: &[u8]) -> Told {
    let head = format!("POST {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{fields}\r\n");
    told_http1(connect(&lictor.address("gateway")), &[head.as_bytes(), body].concat())
}

fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in pieces {
        body.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// Over HTTP/2, in frames of at most so many bytes, with or without a length.
fn posted_http2(
    lictor: &lictor_testkit::Sidecar,
    target: &str,
    length: Option<usize>,
    body: &[u8],
    piece: usize,
) -> Told {
    let text = length.map(|length| length.to_string()).unwrap_or_default();
    let fields = [("content-length", text.as_str())];
    let fields = if length.is_some() { &fields[..] } else { &[] };
    let mut stream = connect(&lictor.address("gateway"));
    stream.write_all(&begun_http2()).unwrap();
    stream.write_all(&frame(1, 4, 1, &block(Ask { method: "POST", fields, ..Ask::get(target) }))).unwrap();
    let pieces: Vec<&[u8]> = body.chunks(piece).collect();
    for (at, data) in pieces.iter().enumerate() {
        let flags = u8::from(at + 1 == pieces.len());
        if stream.write_all(&frame(0, flags, 1, data)).is_err() {
            break;
        }
    }
    told_http2(stream)
}

#[test]
fn a_body_is_as_long_as_its_route_takes_however_it_is_framed() {
    let one = echo("one");
    let routes = "  - {path: /*, to: one}\n  - {path: /more, to: one, body_max: 3KiB}\n  - {path: /any, to: one, body_max: none}\n  - {path: /told, respond: {body: told}}\n";
    let lictor = gateway_of(&[("one", &one)], "  body_max: 2KiB\n", routes);
    for (target, length, status) in [
        ("/", 2_047, 200),
        ("/", 2_048, 200),
        ("/", 2_049, 413),
        ("/", 60_000, 413),
        ("/more", 2_049, 200),
        ("/more", 3_073, 413),
        ("/any", 60_000, 200),
        ("/told", 2_048, 200),
    ] {
        let body = vec![b'x'; length];
        let told = posted(&lictor, target, &format!("Content-Length: {length}\r\n"), &body);
        assert_eq!(told.status, status, "by length {target} {length}: {told:?}");
        let is_told = |told: &Told| status != 413 || told.body.contains("body_too_large");
        assert!(is_told(&told), "{told:?}");
        for piece in [7, 1_000, 70_000] {
            let pieces: Vec<&[u8]> = body.chunks(piece).collect();
            let told = posted(&lictor, target, "Transfer-Encoding: chunked\r\n", &chunked(&pieces));
            // What answers without looking at the body refuses only what the head says.
            assert_eq!(told.status, status, "chunked by {piece} {target} {length}: {told:?}");
            assert!(is_told(&told), "{told:?}");
        }
        // What fits into the windows that a server begins with.
        if length <= 60_000 {
            for declared in [None, Some(length)] {
                for piece in [100, 16_384] {
                    let told = posted_http2(&lictor, target, declared, &body, piece);
                    assert_eq!(told.status, status, "HTTP/2 {declared:?} by {piece} {target} {length}: {told:?}");
                    assert!(is_told(&told), "{told:?}");
                }
            }
        }
    }
    let told = posted(&lictor, "/told", "Content-Length: 2049\r\n", &[b'x'; 2_049]);
    assert_eq!(told.status, 413, "an answer of the gateway's own is no way around: {told:?}");
}

#[test]
fn what_is_too_long_by_its_head_is_not_asked_for_and_never_sent() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let one = RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() {
            counted.fetch_add(1, Relaxed);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let lictor = gateway_of(&[("one", &one)], "  body_max: 10\n", "  - {path: /*, to: one}\n");
    let mut stream = connect(&lictor.address("gateway"));
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        .unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 413 "), "no 100 before it: {head}");
    assert_eq!(hits.load(Relaxed), 0);
    // The control.
    let mut stream = connect(&lictor.address("gateway"));
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        .unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 100 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn a_body_that_grows_too_long_is_told_so_once_and_no_instance_is_blamed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    // It reads all, and answers when it has all.
    let one = RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() {
            counted.fetch_add(1, Relaxed);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let upstream = format!(
        "  one: {{static: ['127.0.0.1:{}'], retry: {{methods: any, delays: [1ms]}}, breaker: {{failure_threshold: 1}}}}\n",
        one.port()
    );
    let text = configuration(&[], &upstream, "  body_max: 100KiB\n", "  - {path: /*, to: one}\n");
    let lictor = lictor_testkit::Sidecar::serve(LICTOR, &text).up();
    let body = vec![b'x'; 300_000];
    let pieces: Vec<&[u8]> = body.chunks(10_000).collect();
    let told = posted(&lictor, "/", "Transfer-Encoding: chunked\r\n", &chunked(&pieces));
    assert_eq!(told.status, 413, "the client reads why, though it sends on: {told:?}");
    let line = line_of(&lictor, |line| line["status"] == 413);
    assert_eq!(line["reason"], "body_too_large");
    // Or never, where it was too long before the service had its head.
    assert!(hits.load(Relaxed) <= 1, "it is not sent again");
    assert_eq!(lictor.page("/breakers")["one"]["state"], "closed");
}
