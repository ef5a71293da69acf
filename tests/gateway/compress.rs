//! Which answers are compressed, what is said of them, and when their bytes go.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use lictor_testkit::{RawServer, Sidecar, connect, eventually, read_head};

use crate::wire::{Asked, Got, Lines, get};
use crate::{
    Ask, BOTH, LICTOR, Version, begun_http2, block, configuration, frame, gateway_of, lines, next_frame, status,
};

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

fn text() -> String {
    (0..400).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "line {number} of a text that is worth it");
        text
    })
}

/// What a browser reads.
fn plain(got: &Got) -> String {
    let mut text = Vec::new();
    match &*got.field("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&*got.body).read_to_end(&mut text).unwrap(),
        "br" => brotli::Decompressor::new(&*got.body, 4096).read_to_end(&mut text).unwrap(),
        "zstd" => unzstd(&got.body).read_to_end(&mut text).unwrap(),
        "" => got.body.as_slice().read_to_end(&mut text).unwrap(),
        other => panic!("{other}"),
    };
    String::from_utf8(text).unwrap()
}

/// As a browser reads it, which takes no window above 8 MiB (RFC 9659, section 3).
fn unzstd(coded: &[u8]) -> zstd::Decoder<'static, std::io::BufReader<&[u8]>> {
    let mut decoder = zstd::Decoder::new(coded).unwrap();
    decoder.window_log_max(23).unwrap();
    decoder
}

/// Answers with what the target's query says: lines apart by `|`, and a text as long as is worth compressing.
fn origin() -> RawServer {
    RawServer::start(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            let Some(target) = head.split(' ').nth(1) else { return };
            let (path, lines) = target.split_once('?').unwrap_or((target, ""));
            let lines: String = lines
                .split('|')
                .filter(|line| !line.is_empty())
                .map(|line| line.replace('~', " ").replace('\'', "\"") + "\r\n")
                .collect();
            let (text, is_head) = (
                if path == "/tiny" || path == "/tiny-chunked" { "tiny".to_owned() } else { text() },
                head.starts_with("HEAD"),
            );
            let status = path.strip_prefix("/status/").unwrap_or("200");
            let answer = match path {
                "/chunked" | "/tiny-chunked" => format!(
                    "HTTP/1.1 200 OK\r\n{lines}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n{}",
                    if is_head {
                        String::new()
                    } else {
                        format!(
                            "{:x}\r\n{text}\r\n0\r\n{}\r\n",
                            text.len(),
                            if path == "/chunked" { "Content-Digest: x\r\nX-Sum: 1\r\n" } else { "" }
                        )
                    }
                ),
                _ if matches!(status, "204" | "304") => format!("HTTP/1.1 {status} X\r\n{lines}\r\n"),
                _ => format!(
                    "HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\n\r\n{}",
                    text.len(),
                    if is_head { "" } else { &text }
                ),
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn lictor(origin: &RawServer) -> Sidecar {
    let routes = "    - {path: /*, to: origin}\n    - {path: /off, to: origin, compress: off}\n    - {path: /gzip, to: origin, compress: {codings: [gzip], types: [image/x-own], min_size: 1}}\n    - {path: /asked, to: origin, compress: {with_credentials: true}}\n";
    gateway_of(&[("origin", origin)], "  compress: on\n", routes)
}

#[test]
fn a_client_gets_what_it_takes_of_what_may_be_compressed() {
    let origin = origin();
    let lictor = lictor(&origin);
    let json = "Content-Type:application/json";
    let rows: &[(&str, &str, Lines<'_>, &str, &str)] = &[
        // target, its lines, the request's fields, the coding, Vary
        ("/", json, &[GZIP], "gzip", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "gzip, deflate, br, zstd")], "zstd", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "gzip, deflate, br")], "br", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "gzip, br, zstd;q=0.9")], "br", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "br;q=0.1, zstd")], "zstd", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "br;q=0.1, gzip")], "gzip", "Accept-Encoding"),
        ("/", json, &[], "", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "identity")], "", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "gzip;q=0")], "", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "zstd;q=0")], "", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "deflate")], "", "Accept-Encoding"),
        ("/chunked", json, &[("accept-encoding", "zstd")], "zstd", "Accept-Encoding"),
        ("/tiny", json, &[("accept-encoding", "zstd, identity;q=0")], "zstd", "Accept-Encoding"),
        ("/gzip", "Content-Type:image/x-own", &[("accept-encoding", "zstd")], "", "Accept-Encoding"),
        ("/", json, &[("accept-encoding", "*;q=0, gzip")], "gzip", "Accept-Encoding"),
        ("/chunked", json, &[GZIP], "gzip", "Accept-Encoding"),
        ("/status/404", json, &[GZIP], "gzip", "Accept-Encoding"),
        ("/", "Content-Type:text/html|Vary:Origin", &[GZIP], "gzip", "Origin, Accept-Encoding"),
        ("/", "Content-Type:text/html|Vary:accept-encoding", &[GZIP], "gzip", "accept-encoding"),
        ("/tiny", json, &[GZIP], "", "Accept-Encoding"),
        ("/tiny-chunked", json, &[GZIP], "", "Accept-Encoding"),
        ("/tiny", json, &[("accept-encoding", "gzip, identity;q=0")], "gzip", "Accept-Encoding"),
        ("/", "Content-Type:image/png", &[GZIP], "", ""),
        ("/", "", &[GZIP], "", ""),
        ("/", "Content-Type:text/html|Cache-Control:no-transform", &[GZIP], "", ""),
        ("/", json, &[GZIP, ("cache-control", "no-transform")], "", ""),
        ("/", "Content-Type:text/event-stream", &[GZIP], "", ""),
        ("/", "Content-Type:application/grpc+proto", &[GZIP], "", ""),
        ("/", "Content-Type:application/grpc-web+proto", &[GZIP], "", ""),
        ("/", "Content-Type:application/x-ndjson", &[GZIP], "", ""),
        ("/", "Content-Type:multipart/x-mixed-replace;boundary=a", &[GZIP], "", ""),
        // A part of what would differ differs (RFC 9110, section 15.3.7).
        ("/status/206", "Content-Type:text/html|Content-Range:bytes~0-1/2", &[GZIP], "", "Accept-Encoding"),
        ("/status/206", "Content-Type:text/html|Content-Range:bytes~0-1/2", &[], "", "Accept-Encoding"),
        ("/status/206", "Content-Type:image/png|Content-Range:bytes~0-1/2", &[GZIP], "", ""),
        ("/off", json, &[GZIP], "", ""),
        ("/gzip", json, &[GZIP], "", ""),
        ("/gzip", "Content-Type:image/x-own", &[("accept-encoding", "br, gzip;q=0.1")], "gzip", "Accept-Encoding"),
        ("/", json, &[GZIP, ("cookie", "a=b")], "", "Accept-Encoding"),
        ("/", json, &[GZIP, ("authorization", "Bearer x")], "", "Accept-Encoding"),
        ("/", json, &[GZIP, ("x-api-key", "x")], "", "Accept-Encoding"),
        ("/", "Content-Type:text/html|Set-Cookie:a=b", &[GZIP], "", "Accept-Encoding"),
        ("/asked", json, &[GZIP, ("cookie", "a=b")], "gzip", "Accept-Encoding"),
    ];
    for version in BOTH {
        for (path, lines, fields, coding, vary) in rows {
            let target = format!("{path}?{lines}");
            let got = get(&lictor, version, Asked::get(&target, fields));
            let what = format!("{version:?} {target} {fields:?}: {:?} {}", got.headers, got.status);
            assert_eq!(
                (got.field("content-encoding"), got.field("vary")),
                ((*coding).to_owned(), (*vary).to_owned()),
                "{what}"
            );
            assert!(got.is_whole, "{what}");
            assert_eq!(plain(&got), if path.starts_with("/tiny") { "tiny".to_owned() } else { text() }, "{what}");
            assert!(coding.is_empty() || path.starts_with("/tiny") || got.body.len() < text().len() / 2, "{what}");
        }
        let coded = get(&lictor, version, Asked::get("/?Content-Type:text/html|Content-Encoding:br", &[GZIP]));
        assert_eq!(
            (coded.field("content-encoding"), coded.body.len()),
            ("br".to_owned(), text().len()),
            "it is coded already"
        );
    }
}

#[test]
fn what_is_said_of_other_bytes_goes_and_what_the_client_knows_is_known_again() {
    let origin = origin();
    let lictor = lictor(&origin);
    let lines =
        "Content-Type:text/html|ETag:'a'|Accept-Ranges:bytes|Digest:x|Content-Digest:x|Repr-Digest:x|Content-MD5:x";
    for version in BOTH {
        let target = format!("/?{lines}");
        let coded = get(&lictor, version, Asked::get(&target, &[GZIP]));
        assert_eq!((&*coded.field("etag"), &*coded.field("content-encoding")), ("W/\"a\"", "gzip"), "{coded:?}");
        let plain = get(&lictor, version, Asked::get(&target, &[]));
        assert_eq!((&*plain.field("etag"), &*plain.field("content-encoding")), ("\"a\"", ""));
        for name in ["accept-ranges", "digest", "content-digest", "repr-digest", "content-md5"] {
            assert!(!coded.headers.contains_key(name) && plain.headers.contains_key(name), "{name}");
        }
        assert!(!coded.headers.contains_key("content-length"));
        // HEAD has GET's head, and no body.
        let head = get(&lictor, version, Asked { method: "HEAD", ..Asked::get(&target, &[GZIP]) });
        for name in ["content-encoding", "vary", "etag", "content-type", "content-length", "accept-ranges"] {
            assert_eq!(head.field(name), coded.field(name), "{version:?} {name}");
        }
        assert!(head.body.is_empty() && head.is_whole);
        let head =
            get(&lictor, version, Asked { method: "HEAD", ..Asked::get("/tiny?Content-Type:text/html", &[GZIP]) });
        assert_eq!((&*head.field("content-encoding"), &*head.field("content-length")), ("", "4"));
        // What describes the bytes comes off the trailers too.
        let takes: &[_] = match version {
            Version::Http1 => &[("te", "trailers"), ("connection", "TE")],
            Version::Http2 => &[("te", "trailers")],
        };
        let coded: Vec<_> = [&[GZIP], takes].concat();
        let trailed = get(&lictor, version, Asked::get("/chunked?Content-Type:text/html", &coded));
        assert!(
            trailed.trailers.contains_key("x-sum") && !trailed.trailers.contains_key("content-digest"),
            "{trailed:?}"
        );
        let trailed = get(&lictor, version, Asked::get("/chunked?Content-Type:text/html", takes));
        assert!(trailed.trailers.contains_key("content-digest"), "{trailed:?}");
        for (known, told) in [("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\"")] {
            let fields = [GZIP, ("if-none-match", known)];
            let same = get(&lictor, version, Asked::get("/status/304?ETag:'a'", &fields));
            assert_eq!(
                (same.status, &*same.field("etag"), &*same.field("vary")),
                (304, told, "Accept-Encoding"),
                "{same:?}"
            );
            assert!(!same.headers.contains_key("content-encoding"));
        }
        let none = get(&lictor, version, Asked::get("/status/204?Content-Type:text/html", &[GZIP]));
        assert!(none.status == 204 && !none.headers.contains_key("content-encoding"), "{none:?}");
    }
}

/// Writes a part of its answer and waits until it may go on.
fn slow(may_go_on: Arc<AtomicBool>, kind: &'static str) -> RawServer {
    RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let half = text();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{half}", half.len() * 2);
            let is_gone = stream.write_all(head.as_bytes()).is_err();
            eventually("the client has the first half", || {
                if may_go_on.load(Relaxed) || is_gone { Ok(()) } else { Err(()) }
            });
            if stream.write_all(half.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn what_is_there_goes_on_while_the_upstream_pauses() {
    for (kind, asked, coding) in [
        ("text/plain", "gzip", "gzip"),
        ("text/plain", "br", "br"),
        ("text/plain", "zstd", "zstd"),
        ("text/event-stream", "gzip", ""),
    ] {
        for version in BOTH {
            let may_go_on = Arc::new(AtomicBool::new(false));
            let origin = slow(Arc::clone(&may_go_on), kind);
            let lictor = lictor(&origin);
            let mut stream = connect(&lictor.address("gateway"));
            let fields = [("accept-encoding", asked)];
            let bytes = match version {
                Version::Http1 => {
                    format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", lines(&fields)).into_bytes()
                }
                Version::Http2 => {
                    [begun_http2(), frame(1, 5, 1, &block(Ask { fields: &fields, ..Ask::get("/") }))].concat()
                }
            };
            stream.write_all(&bytes).unwrap();
            let what = format!("{version:?} {kind} {asked}");
            let mut came = Vec::new();
            let mut body = Vec::new();
            while partly(coding, &body) != text() {
                let is_over = more(&mut stream, version, &mut came, &mut body);
                assert!(!is_over, "{what}: it ended before the second half was let go");
            }
            may_go_on.store(true, Relaxed);
            while !more(&mut stream, version, &mut came, &mut body) {}
            assert_eq!(partly(coding, &body), text().repeat(2), "{what}");
        }
    }
}

/// Reads what comes next, of all that came; the body until there; whether that was all.
fn more(stream: &mut TcpStream, version: Version, came: &mut Vec<u8>, body: &mut Vec<u8>) -> bool {
    match version {
        Version::Http1 => {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap();
            came.extend_from_slice(&piece[..count]);
            let has_head = came.windows(4).any(|part| part == b"\r\n\r\n");
            let got = if has_head { crate::wire::parse(came, false) } else { Got::default() };
            assert!(count > 0 || got.is_whole, "it broke off");
            *body = got.body;
            count == 0
        }
        Version::Http2 => {
            let frame = next_frame(stream).expect("it goes on");
            assert!(!matches!(frame.kind, 3 | 7), "it broke off: {frame:?}");
            if frame.kind == 0 {
                body.extend_from_slice(&frame.payload);
            }
            frame.ends_stream()
        }
    }
}

/// What can be read of a body that is not over.
fn partly(coding: &str, coded: &[u8]) -> String {
    let mut text = Vec::new();
    let _ = match coding {
        "gzip" => flate2::read::GzDecoder::new(coded).read_to_end(&mut text),
        "zstd" => unzstd(coded).read_to_end(&mut text),
        "" => return String::from_utf8(coded.to_vec()).unwrap(),
        _ => brotli::Decompressor::new(coded, 4096).read_to_end(&mut text),
    };
    String::from_utf8(text).unwrap()
}

/// Asks for an answer that does not end, and says whether it is compressed.
fn begun(lictor: &Sidecar, version: Version) -> (TcpStream, bool) {
    let mut stream = connect(&lictor.address("gateway"));
    let head = match version {
        Version::Http1 => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
            read_head(&mut stream)
        }
        Version::Http2 => {
            let asked = block(Ask { fields: &[GZIP], ..Ask::get("/") });
            stream.write_all(&[begun_http2(), frame(1, 5, 1, &asked)].concat()).unwrap();
            loop {
                let frame = next_frame(&mut stream).expect("an answer");
                if frame.kind == 1 {
                    assert_eq!(status(&frame.payload), 200);
                    break String::from_utf8_lossy(&frame.payload).into_owned();
                }
            }
        }
    };
    assert!(head.contains("text/plain"), "{head}");
    (stream, head.contains("gzip"))
}

#[test]
fn so_many_are_compressed_at_a_time_and_more_go_as_they_are() {
    const AT_MOST: usize = 256;
    let half = text();
    let endless = RawServer::start(move |mut stream| {
        if read_head(&mut stream).is_empty() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n{half}");
        let _ = stream.write_all(head.as_bytes());
        read_head(&mut stream); // until it is given up
    });
    let more = format!("  endless: {{static: ['127.0.0.1:{}'], limits: {{max_connections: 300}}}}\n", endless.port());
    let text = configuration(&[], &more, "  compress: on\n", "    - {path: /*, to: endless}\n");
    let lictor = Sidecar::serve(LICTOR, &text).up();
    let mut all: Vec<_> = (0..AT_MOST).map(|number| begun(&lictor, BOTH[number % 2])).collect();
    assert!(all.iter().all(|(_, is_coded)| *is_coded), "as many as may be");
    for version in BOTH {
        assert!(!begun(&lictor, version).1, "{version:?}: one more");
    }
    let full = || lictor.metric("lictor_gateway_uncompressed_total", &[("reason", "full")]) as u64;
    eventually("they are counted", || if full() == 2 { Ok(()) } else { Err(full()) });
    for version in BOTH {
        drop(all.pop());
        let again = eventually("there is room again", || {
            let (stream, is_coded) = begun(&lictor, version);
            if is_coded { Ok(stream) } else { Err(full()) }
        });
        all.push((again, true));
    }
}

#[test]
fn a_body_that_breaks_off_has_no_end_and_one_of_megabytes_has() {
    let broken = RawServer::start(|mut stream| {
        if !read_head(&mut stream).is_empty() {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99999\r\n\r\n{}",
                text()
            );
        }
    });
    let large = RawServer::saying(|_| {
        let text = text().repeat(400);
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    });
    let routes = "    - {path: /broken, to: broken}\n    - {path: /large, to: large}\n";
    let more = format!("  broken: {{static: ['127.0.0.1:{}'], breaker: off, ejection: off}}\n", broken.port());
    let text_of = configuration(&[("large", &large)], &more, "  compress: on\n", routes);
    let lictor = Sidecar::serve(LICTOR, &text_of).up();
    for version in BOTH {
        for coding in ["gzip", "br", "zstd"] {
            let fields = [("accept-encoding", coding)];
            let got = get(&lictor, version, Asked::get("/broken", &fields));
            assert!(!got.is_whole && got.field("content-encoding") == coding, "{version:?} {coding}: {got:?}");
            let got = get(&lictor, version, Asked::get("/large", &fields));
            assert!(got.is_whole && plain(&got) == text().repeat(400), "{version:?} {coding}");
        }
    }
    for coding in ["gzip", "br", "zstd"] {
        assert!(lictor.metric("lictor_gateway_compressed_total", &[("coding", coding)]) >= 4.0, "{coding}");
    }
}

#[test]
fn a_gateways_own_answer_is_compressed_like_another() {
    let body = "x".repeat(3000);
    let routes = format!("    - {{path: /told, respond: {{body: '{body}', content_type: text/plain}}}}\n");
    let lictor = gateway_of(&[], "  compress: {min_size: 2KiB}\n", &routes);
    for version in BOTH {
        let got = get(&lictor, version, Asked::get("/told", &[GZIP]));
        assert_eq!((&*got.field("content-encoding"), plain(&got)), ("gzip", body.clone()), "{version:?}");
        let head = get(&lictor, version, Asked { method: "HEAD", ..Asked::get("/told", &[GZIP]) });
        assert_eq!((&*head.field("content-encoding"), &*head.field("content-length")), ("gzip", ""), "{version:?}");
        let none = get(&lictor, version, Asked::get("/none", &[GZIP]));
        assert_eq!((none.status, &*none.field("content-encoding")), (404, ""));
    }
}
