//! One instance that answers with what costs it little and would cost us much, without an end: clients of other upstreams
//! of the same worker do not notice, and neither does who asks how the sidecar is.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_testkit::{Backend, RawServer, Sidecar, connect, read_head};

use super::LICTOR;
use crate::corpora::frames::{
    END_HEADERS, GOAWAY, HEADERS, RST_STREAM, continuation, data, frame, literal, ping, settings, window,
};
use crate::floods::{PACE, RATE, noticed};

/// What is said again and again.
struct Flood {
    what: &'static str,
    opening: fn() -> Vec<u8>,
    piece: fn(u32) -> Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

const HTTP1: &[Flood] = &[
    Flood { what: "103", opening: Vec::new, piece: |_| text("HTTP/1.1 103\r\n\r\n") },
    Flood {
        what: "103 with a field",
        opening: Vec::new,
        piece: |_| text("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    },
    Flood { what: "100", opening: Vec::new, piece: |_| text("HTTP/1.1 100 Continue\r\n\r\n") },
    Flood { what: "102", opening: Vec::new, piece: |_| text("HTTP/1.1 102 Processing\r\n\r\n") },
    Flood { what: "199", opening: Vec::new, piece: |_| text("HTTP/1.1 199 x\r\n\r\n") },
    Flood { what: "fields", opening: || text("HTTP/1.1 200 OK\r\n"), piece: |_| text("A: b\r\n") },
    Flood { what: "one field", opening: || text("HTTP/1.1 200 OK\r\nA: "), piece: |_| text("bbbb") },
    Flood { what: "a status line", opening: || text("HTTP/1.1 200 "), piece: |_| text("OK") },
    Flood { what: "empty lines", opening: Vec::new, piece: |_| text("\r\n") },
    Flood { what: "chunks of a byte", opening: chunked, piece: |_| text("1\r\nx\r\n") },
    Flood { what: "chunk extensions", opening: chunked, piece: |_| text("1;a=b\r\nx\r\n") },
    Flood { what: "one extension", opening: || [chunked(), text("1;")].concat(), piece: |_| text("a") },
    Flood { what: "trailers", opening: || [chunked(), text("0\r\n")].concat(), piece: |_| text("A: b\r\n") },
    Flood { what: "content", opening: || text("HTTP/1.1 200 OK\r\n\r\n"), piece: |_| text("x") },
    Flood {
        what: "answers that nobody asked for",
        opening: Vec::new,
        piece: |_| text("HTTP/1.1 204 No Content\r\n\r\n"),
    },
];

const HTTP2: &[Flood] = &[
    Flood { what: "103", opening: Vec::new, piece: |_| head(1, b"\x08\x03103", b"") },
    Flood {
        what: "103 with a field",
        opening: Vec::new,
        piece: |_| head(1, b"\x08\x03103", &literal(b"link", b"</a>")),
    },
    Flood { what: "103 of indexed fields", opening: Vec::new, piece: |_| head(1, b"\x08\x03103", &[0x90; 100]) },
    Flood { what: "100", opening: Vec::new, piece: |_| head(1, b"\x08\x03100", b"") },
    Flood { what: "empty DATA", opening: ok, piece: |_| data(1, 0, b"") },
    Flood { what: "DATA of a byte", opening: ok, piece: |_| data(1, 0, b"x") },
    Flood { what: "padding", opening: ok, piece: |_| frame(0, 8, 1, &[9; 10]) },
    Flood { what: "trailers", opening: ok, piece: |_| frame(HEADERS, 5, 1, &literal(b"a", b"b")) },
    Flood { what: "heads", opening: ok, piece: |_| head(1, b"\x88", b"") },
    Flood {
        what: "field blocks without an end",
        opening: || frame(HEADERS, 0, 1, b"\x88"),
        piece: |_| frame(9, 0, 1, b""),
    },
    Flood {
        what: "field blocks in pieces",
        opening: Vec::new,
        piece: |_| [frame(HEADERS, 0, 1, b"\x08\x03103"), continuation(1, &literal(b"a", b"b"))].concat(),
    },
    Flood { what: "PING", opening: Vec::new, piece: |_| ping(0, *b"flooding") },
    Flood { what: "answers to PING", opening: Vec::new, piece: |_| ping(1, *b"flooding") },
    Flood { what: "empty SETTINGS", opening: Vec::new, piece: |_| settings(&[]) },
    Flood { what: "SETTINGS of a window", opening: Vec::new, piece: |turn| settings(&[(4, 65_535 + turn % 2)]) },
    Flood { what: "SETTINGS of a limit", opening: Vec::new, piece: |turn| settings(&[(3, turn % 2)]) },
    Flood { what: "the connection's window", opening: Vec::new, piece: |_| window(0, 1) },
    Flood { what: "a stream's window", opening: Vec::new, piece: |_| window(1, 1) },
    Flood { what: "PRIORITY", opening: Vec::new, piece: |_| frame(2, 0, 1, &[0; 5]) },
    Flood { what: "RST_STREAM", opening: Vec::new, piece: |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]) },
    Flood { what: "GOAWAY", opening: Vec::new, piece: |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]) },
    Flood { what: "frames nobody knows", opening: Vec::new, piece: |_| frame(0xfa, 0, 1, b"") },
];

fn chunked() -> Vec<u8> {
    text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn ok() -> Vec<u8> {
    head(1, b"\x88", b"")
}

fn head(stream: u32, status: &[u8], more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[status, more].concat())
}

impl Flood {
    /// Sends on every connection that asks something, at its pace, until it is stopped or told to go.
    fn instance(&'static self, is_http2: bool, is_over: &Arc<AtomicBool>) -> RawServer {
        let is_over = Arc::clone(is_over);
        RawServer::start(move |mut stream| {
            if is_http2 {
                let mut asked = [0; 25];
                if stream.read_exact(&mut asked).is_err() || stream.write_all(&settings(&[])).is_err() {
                    return;
                }
            } else if read_head(&mut stream).is_empty() {
                return;
            }
            if stream.write_all(&(self.opening)()).is_err() {
                return;
            }
            let (began, mut sent, mut turn) = (Instant::now(), 0, 0);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
            while !is_over.load(Relaxed) && began.elapsed() < Duration::from_secs(60) && !is_closed(&mut stream) {
                let mut bytes = Vec::new();
                while bytes.len() < 16 << 10 {
                    bytes.extend((self.piece)(turn));
                    turn += 1;
                }
                match stream.write_all(&bytes) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return,
                    _ => (), // a client that takes nothing more is one that holds it up
                }
                sent += bytes.len();
                let due = began + Duration::from_secs_f64(sent as f64 / self.pace() as f64);
                #[expect(clippy::disallowed_methods, reason = "the pace of the attack")]
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        })
    }

    /// Bytes a second. Faster, it would measure who gets the processor: a head, and an indexed field, is few bytes and more
    /// work for a binary that is not optimised than thirty bytes of anything else.
    fn pace(&self) -> usize {
        match self.what {
            "103 of indexed fields" => PACE / 16,
            what if what.starts_with('1') => PACE / 8,
            _ => PACE,
        }
    }

    /// What others noticed.
    fn failure(&self, lictor: &Sidecar, name: &str, is_over: &AtomicBool) -> Option<String> {
        std::thread::scope(|scope| {
            scope.spawn(|| ask(&lictor.address(name), is_over));
            noticed(lictor, &format!("{name}, {}", self.what), RATE / 2, is_over)
        })
    }
}

/// Asks the bad instance, again whenever there was an answer, and reads what comes.
fn ask(address: &str, is_over: &AtomicBool) {
    let mut sink = vec![0; 64 << 10];
    while !is_over.load(Relaxed) {
        let mut stream = connect(address);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bad\r\nTE: trailers\r\nConnection: close, te\r\n\r\n").unwrap();
        while !is_over.load(Relaxed) {
            match stream.read(&mut sink) {
                Ok(1..) => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                Ok(0) | Err(_) => break,
            }
        }
    }
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut sink = [0; 4 << 10];
    let is_closed = loop {
        match stream.read(&mut sink) {
            Ok(1..) => (),
            Ok(0) => break true,
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    is_closed
}

fn all() -> impl Iterator<Item = (String, bool, &'static Flood)> {
    let named = |protocol: &'static str, floods: &'static [Flood]| {
        floods.iter().enumerate().map(move |(number, flood)| (format!("{protocol}-{number}"), protocol == "h2c", flood))
    };
    named("http", HTTP1).chain(named("h2c", HTTP2))
}

#[test]
fn no_flood_of_an_instance_keeps_its_worker_from_others() {
    let good = Backend::start("good");
    let mut yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nupstreams:\n  good: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        good.port()
    );
    let instances: Vec<_> = all()
        .map(|(name, is_http2, flood)| {
            let is_over = Arc::new(AtomicBool::new(false));
            let server = flood.instance(is_http2, &is_over);
            let protocol = if is_http2 { "h2c" } else { "http" };
            yaml += &format!(
                "  {name}: {{listen: 0, protocol: {protocol}, retry: off, breaker: off, ejection: off, static: ['127.0.0.1:{}']}}\n",
                server.port()
            );
            (server, is_over)
        })
        .collect();
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let failures: Vec<String> = all()
        .zip(&instances)
        .filter_map(|((name, _, flood), (_, is_over))| flood.failure(&lictor, &name, is_over))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What an instance says before its answer has an end, also for who speaks HTTP/2 to us.
#[test]
fn interim_answers_without_end_are_a_protocol_error() {
    for (is_http2, flood) in [(false, &HTTP1[0]), (false, &HTTP1[2]), (true, &HTTP2[0]), (true, &HTTP2[3])] {
        let is_over = Arc::new(AtomicBool::new(false));
        let server = flood.instance(is_http2, &is_over);
        let more = if is_http2 { ", protocol: h2c, retry: off" } else { ", retry: off" };
        let lictor = crate::caller(&[server.port()], more);
        let answer = lictor.get("users", "/");
        is_over.store(true, Relaxed);
        // Those that were told are before it.
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let is_refused = answer.header("x-lictor-reason") == "protocol_error" || text.contains("protocol_error");
        assert!(is_refused, "{}, HTTP/2 {is_http2}: {} {text}", flood.what, answer.status);
    }
}
