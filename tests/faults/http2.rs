//! Instances that speak HTTP/2 and break, each in one way; and clients that do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use lictor_testkit::{Backend, RawServer, connect, eventually_is, read_head};
use rustix::process::Signal;

use crate::table::Fault;
use crate::upstream::one_of_three_is_killed;
use crate::{Instance, ask, caller};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// 200, from the static table.
const OK: &[u8] = b"\x88";
/// 200 and a content-length of a hundred.
const HUNDRED: &[u8] = b"\x88\x0f\x0d\x03100";

/// RFC 9113, section 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn head(id: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id, block)
}

fn data(id: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    frame(DATA, flags, id, content)
}

fn reset(id: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, id, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn well(id: u32) -> Vec<u8> {
    [head(id, OK), data(id, END_STREAM, b"ok")].concat()
}

/// One end of a connection.
struct Link {
    stream: TcpStream,
    /// It is to end.
    is_over: bool,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// Its sender says no more on this stream.
    fn ends_stream(&self) -> bool {
        self.is_last() || self.kind == RST_STREAM
    }

    /// It ends a request.
    fn is_last(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }
}

impl Link {
    /// A server's, which begins with these bytes.
    fn accept(mut stream: TcpStream, opening: &[u8]) -> Option<Self> {
        stream.read_exact(&mut [0; PREFACE.len()]).ok()?;
        let mut link = Self { stream, is_over: false };
        link.send(&[opening.to_vec()]);
        Some(link)
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        let _ = self.stream.write_all(&frames.concat()); // whether it arrives will be seen
    }

    /// Ends the connection in order, which a socket with unread bytes does not when it is closed.
    fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.is_over = true;
    }

    /// The next frame; SETTINGS and PING are answered. `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [l2, l1, l0, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l2, l1, l0]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(&[frame(SETTINGS, ACK, 0, b"")]),
            PING if flags & ACK == 0 => self.send(&[frame(PING, ACK, 0, &payload)]),
            _ => (),
        }
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}

/// A server that begins with these frames, and does this with each whole request, by its stream.
fn server(opening: &[Vec<u8>], answer: impl Fn(&mut Link, u32) + Send + Sync + 'static) -> RawServer {
    let opening = opening.concat();
    RawServer::start(move |stream| {
        let Some(mut link) = Link::accept(stream, &opening) else { return };
        while let Some(frame) = link.next() {
            if frame.is_last() {
                answer(&mut link, frame.stream);
            }
            if link.is_over {
                let _ = link.stream.read_to_end(&mut Vec::new());
                return;
            }
        }
    })
}

/// A row for a server that does this with each whole request.
fn row(what: &str, policy: &str, answer: impl Fn(&mut Link, u32) + Send + Sync + 'static) {
    row_of(what, policy, &server(&[settings(&[])], answer));
}

fn row_of(what: &str, policy: &str, bad: &RawServer) {
    let good = Backend::start("good");
    let policy = format!(", protocol: h2c{policy}");
    Fault { what, bad: bad.port(), good: good.port(), policy: &policy }.is_in_the_table();
}

#[test]
fn http2_upstream_reset_before_the_head() {
    row("h2c: RST_STREAM `REFUSED_STREAM`", "", |link, id| link.send(&[reset(id, REFUSED_STREAM)]));
    row("h2c: RST_STREAM `INTERNAL_ERROR` before the head", "", |link, id| link.send(&[reset(id, INTERNAL_ERROR)]));
}

#[test]
fn http2_upstream_reset_after_the_head() {
    for (code, name) in [(INTERNAL_ERROR, "INTERNAL_ERROR"), (REFUSED_STREAM, "REFUSED_STREAM")] {
        row(&format!("h2c: RST_STREAM `{name}` within the body"), "", move |link, id| {
            link.send(&[head(id, HUNDRED), data(id, 0, b"some"), reset(id, code)]);
        });
    }
}

#[test]
fn http2_upstream_goaway() {
    row("h2c: GOAWAY `NO_ERROR`, ours is not looked at", "", |link, _| {
        link.send(&[goaway(0, 0)]);
        link.end();
    });
    row("h2c: GOAWAY `NO_ERROR`, ours is still answered", "", |link, id| {
        link.send(&[goaway(id, 0), well(id)]);
        link.end();
    });
    row("h2c: GOAWAY `NO_ERROR`, ours is promised an answer that does not come", "", |link, id| {
        link.send(&[goaway(id, 0)]);
        link.end();
    });
    row("h2c: GOAWAY `ENHANCE_YOUR_CALM`, ours is not looked at", "", |link, _| {
        link.send(&[goaway(0, ENHANCE_YOUR_CALM)]);
        link.end();
    });
    row("h2c: GOAWAY `INTERNAL_ERROR` within the body", "", |link, id| {
        link.send(&[head(id, HUNDRED), data(id, 0, b"some"), goaway(id, INTERNAL_ERROR)]);
        link.end();
    });
}

#[test]
fn http2_upstream_connection_that_ends() {
    row("h2c: FIN after the request", "", |link, _| link.end());
    row("h2c: FIN within the body", "", |link, id| {
        link.send(&[head(id, OK), data(id, 0, b"some")]);
        link.end();
    });
}

#[test]
fn http2_upstream_content_of_another_length() {
    row("h2c: less body than `content-length` (RFC 9113, 8.1.1)", "", |link, id| {
        link.send(&[head(id, HUNDRED), data(id, END_STREAM, b"some")]);
    });
    row("h2c: more body than `content-length`", "", |link, id| {
        link.send(&[head(id, b"\x88\x0f\x0d\x012"), data(id, END_STREAM, b"ok and more")]);
    });
}

#[test]
fn http2_upstream_garbage() {
    row("h2c: a frame of a stream that nobody opened", "", |link, id| link.send(&[data(id + 100, 0, b"what?")]));
    let bad = RawServer::start(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"\x15\x03\x01\x00\x02\x02\x46 what is this?\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    row_of("h2c: no HTTP/2", "", &bad);
    let bad = RawServer::start(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    row_of("h2c: the instance speaks HTTP/1.1", "", &bad);
}

#[test]
fn http2_upstream_without_a_window_for_uploads() {
    let bad = server(&[settings(&[(4, 0)])], |link, id| link.send(&[well(id)]));
    row_of("h2c: no window for uploads, `timeout` passes", ", timeout: 400ms", &bad);
}

#[test]
fn http2_upstream_slow_heads() {
    row("h2c: no head within `timeout`", ", timeout: 400ms", |_, _| ());
    row("h2c: no head within `per_try_timeout`", ", per_try_timeout: 400ms", |_, _| ());
}

#[test]
fn http2_upstream_slow_bodies() {
    row("h2c: the body stalls for `timeout`", ", timeout: 400ms", |link, id| link.send(&[head(id, HUNDRED)]));
    row("h2c: a slow body that takes twice `timeout`", ", timeout: 300ms", |link, id| {
        link.send(&[head(id, b"\x88\x0f\x0d\x0220")]);
        for byte in 1..=20 {
            link.send(&[data(id, u8::from(byte == 20) * END_STREAM, b".")]);
            #[expect(clippy::disallowed_methods, reason = "how slow it is, is what is tested")]
            std::thread::sleep(Duration::from_millis(30));
        }
    });
}

#[test]
fn http2_upstream_without_settings() {
    let bad = RawServer::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    row_of("h2c: no SETTINGS and no answer, `per_try_timeout` passes", ", per_try_timeout: 400ms", &bad);
    let bad = server(&[], |link, id| link.send(&[well(id)]));
    row_of("h2c: an answer without SETTINGS before it", "", &bad);
}

#[test]
fn http2_upstream_stopped_process() {
    let (bad, good) = (Instance::start("bad"), Backend::start("good"));
    bad.signal(Signal::STOP);
    for (limit, name) in [("timeout", "timeout"), ("per_try_timeout", "per_try_timeout")] {
        let what = format!("h2c: the process hangs (SIGSTOP), `{name}` passes");
        let policy = format!(", protocol: h2c, {limit}: 400ms");
        Fault { what: &what, bad: bad.port, good: good.port(), policy: &policy }.is_in_the_table();
    }
    let lictor = caller(&[bad.port], ", protocol: h2c, timeout: 400ms");
    assert_eq!(ask(&lictor.address("users"), "GET").reason, "timeout");
    bad.signal(Signal::CONT);
    eventually_is("it answers again", || ask(&lictor.address("users"), "GET").status, |status| *status == 200);
}

#[test]
fn http2_upstream_killed_under_load_costs_no_get() {
    one_of_three_is_killed("h2c");
}

/// To a client over HTTP/2 an answer that is cut off ends with a reset, not with an end.
#[test]
fn http2_upstream_cut_off_is_a_reset_to_http2_clients() {
    let bad = server(&[settings(&[])], |link, id| {
        link.send(&[head(id, OK), data(id, 0, b"some"), reset(id, REFUSED_STREAM)]);
    });
    let lictor = caller(&[bad.port()], ", protocol: h2c");
    let mut client = client(&lictor.address("users"), &settings(&[]));
    client.send(&[get(1)]);
    let last = std::iter::from_fn(|| client.next()).find(|frame| frame.stream == 1 && frame.ends_stream()).unwrap();
    // Not REFUSED_STREAM: whoever reads that may send the request again (RFC 9113, section 8.7).
    assert_eq!((last.kind, last.payload), (RST_STREAM, INTERNAL_ERROR.to_be_bytes().to_vec()));
}

#[test]
fn http2_upstream_that_lets_us_have_one_stream_gets_one_at_a_time() {
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    let bad = RawServer::start(move |stream| {
        let Some(mut link) = Link::accept(stream, &settings(&[(3, 1)])) else { return };
        let open = Arc::new(AtomicUsize::new(0));
        while let Some(frame) = link.next() {
            let id = frame.stream;
            match () {
                () if !frame.is_last() => (),
                () if open.swap(1, Relaxed) == 1 => {
                    counted.fetch_add(1, Relaxed);
                    link.send(&[reset(id, REFUSED_STREAM)]);
                }
                () => {
                    let (mut back, open) = (link.stream.try_clone().unwrap(), Arc::clone(&open));
                    std::thread::spawn(move || {
                        #[expect(clippy::disallowed_methods, reason = "how slow it is, is what is tested")]
                        std::thread::sleep(Duration::from_millis(20));
                        open.store(0, Relaxed);
                        let _ = back.write_all(&well(id));
                    });
                }
            }
        }
    });
    let lictor = caller(&[bad.port()], ", protocol: h2c, retry: off");
    let users = lictor.address("users");
    // From the first moment on, when the instance has not said yet that it takes one.
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..24).map(|_| scope.spawn(|| ask(&users, "POST"))).collect();
        for asked in asks {
            let seen = asked.join().unwrap();
            assert_eq!((seen.status, seen.reason.as_str()), (200, ""), "{seen:?}, {} refused", refused.load(Relaxed));
        }
    });
    let (connections, refused) = (bad.connections(), refused.load(Relaxed));
    eprintln!("24 POSTs at a time, one stream each: {connections} connections, {refused} streams refused");
    assert!(connections > 1, "the others have connections of their own");
}

#[test]
fn http2_upstream_connections_that_carry_nothing_are_closed() {
    let open = Arc::new(AtomicUsize::new(0));
    let server = counting(&open);
    let lictor = caller(&[server.port()], ", protocol: h2c, pool: {idle: 1s}");
    assert_eq!(ask(&lictor.address("users"), "GET").status, 200);
    assert_eq!(open.load(Relaxed), 1);
    eventually_is("the connection is closed", || open.load(Relaxed), |open| *open == 0);
    assert_eq!(ask(&lictor.address("users"), "GET").status, 200);
}

#[test]
fn http2_upstream_connections_to_instances_that_left_are_closed() {
    let (open, good) = (Arc::new(AtomicUsize::new(0)), Backend::start("good"));
    let server = counting(&open);
    let lictor = caller(&[server.port()], ", protocol: h2c, pool: {idle: 1h}");
    assert_eq!(ask(&lictor.address("users"), "GET").status, 200);
    assert_eq!(open.load(Relaxed), 1);
    let yaml = std::fs::read_to_string(lictor.file()).unwrap();
    lictor.rewrite(&yaml.replace(&server.port().to_string(), &good.port().to_string()));
    assert_eq!(lictor.post("/reload").status, 200);
    eventually_is("the connection is closed", || open.load(Relaxed), |open| *open == 0);
    assert_eq!(ask(&lictor.address("users"), "GET").status, 200);
}

/// A server that is well, and counts connections that are open.
fn counting(open: &Arc<AtomicUsize>) -> RawServer {
    let counted = Arc::clone(open);
    RawServer::start(move |stream| {
        let Some(mut link) = Link::accept(stream, &settings(&[])) else { return };
        counted.fetch_add(1, Relaxed);
        while let Some(frame) = link.next() {
            if frame.is_last() {
                link.send(&[well(frame.stream)]);
            }
        }
        counted.fetch_sub(1, Relaxed);
    })
}

#[test]
fn http2_client_that_opens_no_window_loses_its_streams() {
    const STREAMS: u32 = 100;
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let endless = RawServer::start(move |mut stream| {
        read_head(&mut stream);
        counted.fetch_add(1, Relaxed);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 16384]).is_ok() {}
        counted.fetch_sub(1, Relaxed);
    });
    let lictor = caller(&[endless.port()], ", timeout: 2s");
    let before = lictor.resident();
    let mut client = client(&lictor.address("users"), &settings(&[(4, 0)]));
    client.send(&(0..STREAMS).map(|index| get(2 * index + 1)).collect::<Vec<_>>());
    eventually_is("all are asked for", || open.load(Relaxed), |open| *open == STREAMS as usize);
    eprintln!("{STREAMS} streams without a window: {} KiB", lictor.resident().saturating_sub(before) >> 10);
    // It reads all the time, and would answer PINGs.
    for _ in 0..STREAMS {
        let last = std::iter::from_fn(|| client.next()).find(Frame::ends_stream).expect("each is ended");
        assert_eq!((last.kind, last.payload), (RST_STREAM, CANCEL.to_be_bytes().to_vec()));
    }
    eventually_is("the instance is cancelled", || open.load(Relaxed), |open| *open == 0);
    let metric = |name, reason| lictor.metric(name, &[("upstream", "users"), ("reason", reason)]) as u32;
    assert_eq!(metric("lictor_upstream_requests_total", "client_gone"), STREAMS);
    assert_eq!(lictor.metric("lictor_upstream_in_flight", &[("upstream", "users")]) as u32, 0);
    assert_eq!(lictor.page("/breakers")["users"]["state"], "closed");
    // The connection is as good as before.
    client.send(&[frame(PING, 0, 0, b"are you?")]);
    let pong = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == PING).expect("it is answered");
    assert_eq!(pong.payload, b"are you?");
}

/// A client that begins with these frames.
fn client(address: &str, opening: &[u8]) -> Link {
    let mut link = Link { stream: connect(address), is_over: false };
    link.send(&[PREFACE.to_vec(), opening.to_vec()]);
    link
}

/// GET / of users.
fn get(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id, b"\x82\x86\x84\x01\x05users")
}
