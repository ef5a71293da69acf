//! One connection that sends what costs it little and would cost us much, without an end: another client of the same
//! worker does not notice.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, RawServer, Sidecar, connect, eventually_is};

use super::LICTOR;
use crate::corpora::frames::{
    DATA, END_STREAM, HEADERS, PREFACE, block, data, frame, literal, ping, reset, settings, window,
};

/// What a flood sends in a second, how slow that share of the good requests may be, and how slow a probe. A program that is
/// not optimised, beside other tests, cannot take so much; and there the slowest request tells of the machine: a worker that
/// is held up holds up half of them.
pub(crate) const PACE: usize = if cfg!(debug_assertions) { 512 << 10 } else { 4 << 20 };
const SHARE: f64 = if cfg!(debug_assertions) { 0.5 } else { 0.99 };
const SLOWEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
const PROBE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
const STREAMS: u32 = 1000;
/// Requests of the good client in a second: alone it would leave nearly all of a processor.
pub(crate) const RATE: u32 = if cfg!(debug_assertions) { 40 } else { 100 };
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What is sent again and again over HTTP/2.
struct Flood {
    what: &'static str,
    /// The settings it begins with.
    opening: &'static [(u16, u32)],
    /// A thousand requests that nobody answers come before it.
    has_streams: bool,
    piece: fn(u32) -> Vec<u8>,
}

/// Over HTTP/1.1: what it is, what it begins with, and what is sent again and again.
const HTTP1: [(&str, &str, &str); 10] = [
    ("requests ahead of an answer", "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("requests that are answered at once", "", "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"),
    ("requests that are refused", "", "GET / HTTP/1.1\r\n\r\n"),
    ("empty lines", "", "\r\n"),
    ("fields", "GET / HTTP/1.1\r\nHost: a\r\n", "A: b\r\n"),
    ("one field", "GET / HTTP/1.1\r\nHost: a\r\nA: ", "b"),
    ("a target", "GET /", "a"),
    ("chunks of a byte", CHUNKED, "1\r\nx\r\n"),
    ("chunk extensions", CHUNKED, "1;a=b\r\nx\r\n"),
    ("trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n"),
];
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

const FLOODS: &[Flood] = &[
    Flood {
        what: "SETTINGS full of windows",
        opening: &[],
        has_streams: true,
        piece: |_| {
            let windows: Vec<_> = (0..2730).map(|index| (INITIAL_WINDOW_SIZE, 65_535 + index % 2)).collect();
            settings(&windows)
        },
    },
    Flood {
        what: "SETTINGS of one window",
        opening: &[(INITIAL_WINDOW_SIZE, 0)],
        has_streams: true,
        piece: |turn| settings(&[(INITIAL_WINDOW_SIZE, turn % 2)]),
    },
    Flood { what: "empty SETTINGS", opening: &[], has_streams: true, piece: |_| settings(&[]) },
    Flood { what: "the connection's window", opening: &[], has_streams: true, piece: |_| window(0, 1) },
    Flood {
        what: "a stream's window",
        opening: &[],
        has_streams: true,
        piece: |turn| window(turn % STREAMS * 2 + 1, 1),
    },
    Flood { what: "PING", opening: &[], has_streams: true, piece: |_| ping(0, *b"flooding") },
    Flood { what: "PRIORITY", opening: &[], has_streams: true, piece: |_| frame(2, 0, 1, &[0; 5]) },
    Flood { what: "frames nobody knows", opening: &[], has_streams: true, piece: |_| frame(0xfa, 0, 1, b"") },
    Flood {
        what: "requests taken back",
        opening: &[],
        has_streams: false,
        piece: |turn| [get(turn * 2 + 1), reset(turn * 2 + 1)].concat(),
    },
    Flood {
        what: "DATA for a stream that is reset",
        opening: &[],
        has_streams: true,
        piece: |turn| match turn {
            0 => (0..500).flat_map(|id| frame(HEADERS, 0x4, id * 2 + 3001, &fields())).collect(),
            _ => data(3001, END_STREAM, b""),
        },
    },
    Flood {
        what: "DATA of a byte",
        opening: &[],
        has_streams: false,
        piece: |turn| match turn {
            0 => frame(HEADERS, 0x4, 1, &fields()),
            _ => frame(DATA, 0, 1, b"x"),
        },
    },
];

fn fields() -> Vec<u8> {
    [b"\x83\x86\x84", &literal(b"host", b"a")[..]].concat()
}

fn get(id: u32) -> Vec<u8> {
    block(id, &[b"\x82\x86\x84", &literal(b"host", b"a")[..]].concat())
}

#[test]
fn no_flood_keeps_its_worker_from_others() {
    nobody_else_notices("silent");
}

#[test]
fn no_flood_of_a_gateways_client_keeps_its_worker_from_others() {
    nobody_else_notices("gateway");
}

/// Floods of a client of this listener.
fn nobody_else_notices(listener: &str) {
    let good = Backend::start("good");
    // It takes requests and says nothing.
    let silent = RawServer::start(|mut stream| {
        let _ = stream.write_all(&settings(&[(3, 1 << 20)]));
        let mut sink = vec![0; 64 << 10];
        while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
    });
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nlog: {{access: off}}\nupstreams:\n  good: {{listen: 0, static: ['127.0.0.1:{}']}}\n  \
         silent: {{listen: 0, protocol: h2c, timeout: 60s, static: ['127.0.0.1:{}']}}\n\
         gateway: {{listen: '127.0.0.1:0', body_max: 1GiB, compress: on, limit: {{rate: 500000/1s, by: [ip]}}, auth: {{mode: optional, jwt: {{secret: {}}}}}, routes: {{/*: silent}}}}\n",
        good.port(),
        silent.port(),
        "0123456789abcdef".repeat(2)
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let http1 = HTTP1.iter().filter_map(|(what, opening, piece)| {
        failure(&lictor, listener, &format!("http: {what}"), opening.as_bytes(), 0, &|_| piece.as_bytes().to_vec())
    });
    let http2 = FLOODS.iter().filter_map(|flood| {
        let streams = if flood.has_streams { STREAMS } else { 0 };
        let gets = (0..streams).flat_map(|index| get(index * 2 + 1));
        let opening: Vec<u8> = [PREFACE, &settings(flood.opening)].concat().into_iter().chain(gets).collect();
        failure(&lictor, listener, flood.what, &opening, streams, &flood.piece)
    });
    let failures: Vec<String> = http2.chain(http1).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What others noticed, while a client that has begun like this, and has so many requests, sends such pieces.
fn failure(
    lictor: &Sidecar,
    listener: &str,
    what: &str,
    opening: &[u8],
    requests: u32,
    piece: &(dyn Fn(u32) -> Vec<u8> + Sync),
) -> Option<String> {
    let is_over = AtomicBool::new(false);
    let running = |count: u32| {
        let seen = || lictor.metric("lictor_upstream_in_flight", &[("upstream", "silent")]) as u32;
        eventually_is("so many requests run", seen, |seen| *seen == count);
    };
    let mut flooding = connect(&lictor.address(listener));
    flooding.write_all(opening).unwrap();
    let is_http2 = opening.starts_with(PREFACE);
    if is_http2 {
        running(requests); // they are requests like others: only then does the flood begin
    }
    let noticed = std::thread::scope(|scope| {
        scope.spawn(|| run(flooding, piece, &is_over));
        noticed(lictor, what, 2 * RATE, &is_over)
    });
    if is_http2 {
        running(0); // who is held up over HTTP/1.1 is not heard to leave
    }
    noticed
}

/// Sends at its pace until it is stopped or told to go, and reads what is said to it.
fn run(mut stream: TcpStream, piece: &dyn Fn(u32) -> Vec<u8>, is_over: &AtomicBool) {
    let (began, mut sent, mut turn) = (Instant::now(), 0, 0);
    let mut sink = vec![0; 64 << 10];
    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
    let is_long = || began.elapsed() > Duration::from_secs(60); // the good client has given up
    while !is_over.load(Relaxed) && !is_long() && !is_closed(&mut stream, &mut sink) {
        let mut bytes = Vec::new();
        while bytes.len() < 16 << 10 {
            bytes.extend(piece(turn));
            turn += 1;
        }
        stream.set_nonblocking(false).unwrap();
        match stream.write_all(&bytes) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => (), // who takes nothing more holds it up
        }
        sent += bytes.len();
        // Faster, it would measure who gets the processor.
        let due = began + Duration::from_secs_f64(sent as f64 / PACE as f64);
        #[expect(clippy::disallowed_methods, reason = "the pace of the attack")]
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// What a good client of the same worker, which sends so many requests, and who probes notice of a flood, if that is too much.
pub(crate) fn noticed(lictor: &Sidecar, what: &str, requests: u32, is_over: &AtomicBool) -> Option<String> {
    let (good, admin) = (lictor.address("good"), lictor.admin());
    let load = Load::start(&good, &[Method::GET], RATE);
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        load.await_more(u64::from(requests / 5));
        let began = Instant::now();
        let answer = lictor_testkit::get(&admin, "/live").map(|answer| answer.status);
        let took = if answer.is_ok_and(|status| status == 200) { began.elapsed() } else { Duration::MAX };
        slowest = slowest.max(took);
    }
    is_over.store(true, Relaxed);
    let tally = load.finish();
    let [slow, p99] = [SHARE, 0.99].map(|share| tally.percentile(share));
    let errors = tally.errors();
    let figures = format!(
        "{what}: {SHARE} of requests within {slow:?}, p99 {p99:?}, {errors} errors, the slowest probe {slowest:?}"
    );
    println!("{figures}");
    (slow > SLOWEST || errors > 0 || slowest > PROBE).then_some(figures)
}

fn is_closed(stream: &mut TcpStream, sink: &mut [u8]) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(sink) {
            Ok(1..) => (),
            Ok(0) => return true,
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
