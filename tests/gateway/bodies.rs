//! The longest body that a route takes.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use lictor_testkit::{RawServer, connect, read_head};

use crate::{
    Ask, BOTH, Frame, LICTOR, Told, Version, begun_http2, block, configuration, echo, frame, gateway_of, line_of,
    lines, next_frame, status, told_http1, told_http2,
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

/// Asks with a body of this length to go on, and sends it once it may: each status that comes.
fn expecting(lictor: &lictor_testkit::Sidecar, version: Version, length: usize) -> Vec<u16> {
    let mut stream = connect(&lictor.address("gateway"));
    let text = length.to_string();
    let fields = [("expect", "100-continue"), ("content-length", &*text)];
    let asked = Ask { method: "POST", fields: &fields, ..Ask::get("/") };
    let head = match version {
        Version::Http1 => format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{}\r\n", lines(&fields)).into_bytes(),
        Version::Http2 => [begun_http2(), frame(1, 4, 1, &block(asked))].concat(),
    };
    stream.write_all(&head).unwrap();
    let body = vec![b'x'; length];
    let mut statuses = Vec::new();
    loop {
        let status = match version {
            Version::Http1 => read_head(&mut stream).split(' ').nth(1).map_or(0, |status| status.parse().unwrap()),
            Version::Http2 => loop {
                match next_frame(&mut stream).expect("an answer") {
                    Frame { kind: 1, payload, .. } => break status(&payload),
                    frame => assert!(!frame.ends_stream(), "an answer: {frame:?}"),
                }
            },
        };
        statuses.push(status);
        if status != 100 {
            return statuses;
        }
        let bytes = if version == Version::Http1 { body.clone() } else { frame(0, 1, 1, &body) };
        stream.write_all(&bytes).unwrap();
    }
}

#[test]
fn what_is_too_long_by_its_head_is_not_asked_for_and_never_sent() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let one = RawServer::start(move |mut stream| {
        if !read_head(&mut stream).is_empty() {
            counted.fetch_add(1, Relaxed);
            let _ = stream.read_exact(&mut [0; 10]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let lictor = gateway_of(&[("one", &one)], "  body_max: 10\n", "  - {path: /*, to: one}\n");
    for version in BOTH {
        assert_eq!(expecting(&lictor, version, 11), [413], "{version:?}: no 100 before it");
    }
    assert_eq!(hits.load(Relaxed), 0);
    for version in BOTH {
        assert_eq!(expecting(&lictor, version, 10), [100, 200], "{version:?}: the control");
    }
    assert_eq!(hits.load(Relaxed), 2);
}

/// Over HTTP/2, without a length, as the windows allow and until there is an answer: that, and the code by which its stream is reset.
fn grown_http2(lictor: &lictor_testkit::Sidecar, length: usize) -> (Told, Option<u32>) {
    let mut stream = connect(&lictor.address("gateway"));
    let head = block(Ask { method: "POST", ..Ask::get("/") });
    stream.write_all(&[begun_http2(), frame(1, 4, 1, &head)].concat()).unwrap();
    let mut told = Told { status: 0, head: String::new(), body: String::new() };
    // Of the connection and of the stream (RFC 9113, section 6.9.2).
    let (mut windows, mut left) = ([65_535_i64; 2], length);
    loop {
        let piece = left.min(10_000);
        if told.status == 0 && piece > 0 && windows.iter().all(|window| *window >= piece as i64) {
            left -= piece;
            windows = windows.map(|window| window - piece as i64);
            stream.write_all(&frame(0, u8::from(left == 0), 1, &vec![b'x'; piece])).unwrap();
            continue;
        }
        let Some(Frame { kind, flags, stream: id, payload }) = next_frame(&mut stream) else { return (told, None) };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte));
        match kind {
            0 => told.body += &String::from_utf8_lossy(&payload),
            1 => told.status = status(&payload),
            3 if id == 1 => return (told, Some(number(&payload) as u32)),
            4 if flags == 0 => {
                let initial = payload.chunks(6).filter(|setting| setting[..2] == [0, 4]);
                initial.for_each(|setting| windows[1] += number(&setting[2..]) - 65_535);
            }
            8 => windows[usize::from(id == 1)] += number(&payload),
            _ => (),
        }
        if left == 0 && kind < 2 && flags & 1 == 1 {
            return (told, None);
        }
    }
}

#[test]
fn a_body_that_grows_too_long_over_http2_is_no_error_of_its_stream() {
    // It reads all, and answers when it has all.
    let one = RawServer::start(|mut stream| {
        let (mut end, mut byte) = (read_head(&mut stream).into_bytes(), [0]);
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            end.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nwhole");
    });
    let lictor = gateway_of(&[("one", &one)], "  body_max: 200KiB\n", "  - {path: /*, to: one}\n");
    let (told, code) = grown_http2(&lictor, 200 << 10);
    assert_eq!((told.status, &*told.body, code), (200, "whole", None), "the control");
    let (told, code) = grown_http2(&lictor, 8 << 20);
    assert!(told.status == 413 && told.body.ends_with('}') && told.body.contains("body_too_large"), "{told:?}");
    assert_eq!(code, Some(0), "NO_ERROR: {told:?}");
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

/// Answers at once with a part, and then waits for the request's end; `h2c` by prior knowledge.
fn early(protocol: &str) -> RawServer {
    if protocol == "h2c" {
        return RawServer::start(|mut stream| {
            let mut preface = [0; 24];
            if stream.read_exact(&mut preface).is_err() || stream.write_all(&frame(4, 0, 0, b"")).is_err() {
                return;
            }
            while let Some(Frame { kind, stream: id, .. }) = next_frame(&mut stream) {
                // `:status: 200` (RFC 7541, appendix A).
                if kind == 1 && stream.write_all(&[frame(1, 4, id, &[0x88]), frame(0, 0, id, b"~")].concat()).is_err() {
                    return;
                }
            }
        });
    }
    RawServer::start(|mut stream| {
        if !read_head(&mut stream).is_empty()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n~\r\n").is_ok()
        {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    })
}

#[test]
fn an_answer_that_has_begun_ends_with_its_question_and_no_instance_is_blamed() {
    let long = [b"2800\r\n".to_vec(), vec![b'x'; 0x2800], b"\r\n".to_vec()].concat();
    let long_frame = frame(0, 0, 1, &vec![b'x'; 0x2800]);
    for protocol in ["http", "h2c"] {
        let one = early(protocol);
        let upstream = format!(
            "  one: {{protocol: {protocol}, static: ['127.0.0.1:{}'], breaker: {{failure_threshold: 1}}}}\n",
            one.port()
        );
        let text = configuration(&[], &upstream, "  body_max: 10000\n", "  - {path: /*, to: one}\n");
        let lictor = lictor_testkit::Sidecar::serve(LICTOR, &text).up();
        for (name, version, wrong, reason) in [
            ("/long", Version::Http1, &long[..], "body_too_large"),
            ("/malformed", Version::Http1, b"nonsense\r\n", "bad_request"),
            ("/cut", Version::Http1, b"", "client_gone"),
            ("/long2", Version::Http2, &long_frame, "body_too_large"),
            ("/cut2", Version::Http2, b"", "client_gone"),
        ] {
            let mut stream = connect(&lictor.address("gateway"));
            let asked = Ask { method: "POST", ..Ask::get(name) };
            match version {
                Version::Http1 => {
                    write!(stream, "POST {name} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n~\r\n")
                        .unwrap();
                    assert!(read_head(&mut stream).contains(" 200 "), "{protocol} {name}");
                }
                Version::Http2 => {
                    let head = frame(1, 4, 1, &block(asked));
                    stream.write_all(&[begun_http2(), head, frame(0, 0, 1, b"~")].concat()).unwrap();
                    let came = std::iter::from_fn(|| next_frame(&mut stream)).find(|came| came.kind == 1);
                    assert_eq!(came.map(|head| status(&head.payload)), Some(200), "{protocol} {name}");
                }
            }
            if wrong.is_empty() {
                drop(stream);
            } else {
                stream.write_all(wrong).unwrap();
                // Till the connection is over, or the stream is.
                let mut frames = std::iter::from_fn(|| next_frame(&mut stream));
                match version {
                    Version::Http1 => drop(std::io::copy(&mut stream, &mut std::io::sink())),
                    Version::Http2 => assert!(frames.any(|frame| frame.kind == 3), "{protocol} {name}"),
                }
            }
            let line = line_of(&lictor, |line| line["path"] == name);
            assert_eq!((&line["status"], &line["reason"]), (&200.into(), &reason.into()), "{protocol} {line}");
        }
        assert_eq!(lictor.page("/breakers")["one"]["state"], "closed", "{protocol}");
        let ejections = lictor.metric("lictor_endpoint_ejections_total", &[]);
        assert!(ejections.abs() < 0.5, "{protocol}: {ejections}");
    }
}
