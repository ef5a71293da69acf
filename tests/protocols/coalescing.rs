//! Equal requests at the same time: one is sent, the others wait for its answer, or for its place when its client leaves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};
use parking_lot::{Condvar, Mutex};

use crate::LICTOR;
use crate::corpora::frames::frame;

/// Those who wait.
const CROWD: usize = 20;

/// An instance that says whose requests came, and answers as soon as it is let.
struct Origin {
    server: RawServer,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// `X-Name` of each request.
    names: Vec<String>,
    /// So many are answered.
    passing: usize,
}

impl Origin {
    /// Each request is answered with `early` at once, and with `late` when it is let pass.
    fn start(early: &'static str, late: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let gate = Arc::new(Gate::default());
        let seen = Arc::clone(&gate);
        let server = RawServer::start(move |mut stream| {
            loop {
                let head = read_head(&mut stream).to_lowercase();
                let Some(name) = head.split("x-name: ").nth(1).and_then(|rest| rest.lines().next()) else { return };
                let _ = stream.write_all(early.as_bytes());
                let mut state = seen.state.lock();
                let number = state.names.len();
                state.names.push(name.to_owned());
                seen.changed.wait_while(&mut state, |state| state.passing <= number);
                drop(state);
                let late = late();
                let is_last = late.is_empty() || late.contains("Connection: close");
                if stream.write_all(late.as_bytes()).is_err() || is_last {
                    return;
                }
            }
        });
        Self { server, gate }
    }

    fn names(&self) -> Vec<String> {
        self.gate.state.lock().names.clone()
    }

    fn await_requests(&self, count: usize) -> Vec<String> {
        eventually_is("the instance is asked", || self.names(), |names| names.len() >= count)
    }

    /// Answers the first so many.
    fn let_pass(&self, count: usize) {
        self.gate.state.lock().passing = count;
        self.gate.changed.notify_all();
    }

    fn lictor(&self, workers: usize, policy: &str) -> Sidecar {
        let yaml = format!(
            "registration: off\nworkers: {workers}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}'], \
             retry: off, breaker: off, ejection: off{policy}}}\n",
            self.server.port()
        );
        Sidecar::serve(LICTOR, &yaml).up()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    /// A client leaves with its connection.
    Http2,
    /// All have one connection, and a client leaves by a reset.
    Streams,
}

/// A client that has asked.
struct Client {
    name: String,
    stream: TcpStream,
    /// Of HTTP/2; 0 otherwise.
    id: u32,
}

/// A field that is not in the static table (RFC 7541, section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let [name, value] = [name, value].map(|text| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat());
    [vec![0], name, value].concat()
}

impl Client {
    fn ask(address: &str, protocol: Protocol, shared: &TcpStream, number: usize, more: Option<(&str, &str)>) -> Self {
        let name = format!("client-{number}");
        if protocol == Protocol::Http1 {
            let mut stream = connect(address);
            let more = more.map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
            write!(stream, "GET /popular HTTP/1.1\r\nHost: users\r\nX-Name: {name}\r\n{more}\r\n").unwrap();
            return Self { name, stream, id: 0 };
        }
        let (mut stream, id) = match protocol {
            Protocol::Streams => (shared.try_clone().unwrap(), 2 * u32::try_from(number).unwrap() + 1),
            Protocol::Http1 | Protocol::Http2 => (greeted(address), 1),
        };
        // GET, http, /popular, users (RFC 7541, appendix A).
        let path = [&[0x04, 8], &b"/popular"[..]].concat();
        let authority = [&[0x01, 5], &b"users"[..]].concat();
        let more = more.map_or(Vec::new(), |(name, value)| literal(&name.to_lowercase(), value));
        let head = [vec![0x82, 0x86], path, authority, literal("x-name", &name), more].concat();
        stream.write_all(&frame(1, 0x5, id, &head)).unwrap();
        Self { name, stream, id }
    }

    fn leave(mut self, protocol: Protocol) {
        if protocol == Protocol::Streams {
            self.stream.write_all(&frame(3, 0, self.id, &8_u32.to_be_bytes())).unwrap();
        }
    }

    /// The status and the body.
    fn answer(mut self, protocol: Protocol) -> (u16, String) {
        assert_ne!(protocol, Protocol::Streams, "they share a socket");
        let mut body = String::new();
        if protocol == Protocol::Http1 {
            let head = read_head(&mut self.stream);
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
            let _ = self.stream.read_to_string(&mut body);
            return (status, body);
        }
        read_frames(&mut self.stream, 1).remove(&1).unwrap_or_default()
    }
}

/// A connection of HTTP/2.
fn greeted(address: &str) -> TcpStream {
    let mut stream = connect(address);
    let greeting = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    stream.write_all(&greeting).unwrap();
    stream
}

/// Reads until so many streams have ended: status and body of each.
fn read_frames(stream: &mut TcpStream, count: usize) -> std::collections::HashMap<u32, (u16, String)> {
    let mut answers: std::collections::HashMap<u32, (u16, String)> = std::collections::HashMap::new();
    let mut ended = 0;
    while ended < count {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            0 => answers.entry(id).or_default().1 += &String::from_utf8_lossy(&payload),
            1 if payload[0] == 0x88 => answers.entry(id).or_default().0 = 200,
            1 => answers.entry(id).or_default().0 = 1, // another one
            3 => ended += 1,
            _ => continue,
        }
        if head[3] < 2 && head[4] & 1 != 0 {
            ended += 1;
        }
    }
    answers
}

/// A front, and those who wait behind it.
fn crowd(origin: &Origin, lictor: &Sidecar, protocol: Protocol, waiting: usize) -> (Vec<Client>, TcpStream) {
    let address = lictor.address("users");
    let shared = if protocol == Protocol::Streams { greeted(&address) } else { connect(&address) };
    let mut clients = vec![Client::ask(&address, protocol, &shared, 0, None)];
    origin.await_requests(1);
    clients.extend((1..=waiting).map(|number| Client::ask(&address, protocol, &shared, number, None)));
    let connections = if protocol == Protocol::Streams { 1 } else { waiting + 2 };
    eventually_is("all were read", || unread(&address), |unread| *unread == vec![0; connections]);
    (clients, shared)
}

/// Bytes that clients of this address have sent and nobody has read, for each connection.
fn unread(address: &str) -> Vec<u64> {
    let port = format!(":{:04X}", address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row.len() > 4 && row[1].ends_with(&port) && row[3] == "01");
    ours.map(|row| u64::from_str_radix(row[4].split(':').nth(1).unwrap(), 16).unwrap()).collect()
}

/// The client whose request the instance got last.
fn take_front(clients: &mut Vec<Client>, names: &[String]) -> Client {
    let place = clients.iter().position(|client| Some(&client.name) == names.last());
    clients.remove(place.unwrap_or_else(|| panic!("{names:?}")))
}

fn ok() -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole".to_owned()
}

#[test]
fn a_front_that_leaves_is_replaced_by_one_of_those_who_wait() {
    let all = [Protocol::Http1, Protocol::Http2, Protocol::Streams];
    let tried = all.iter().flat_map(|protocol| [1, 2].map(|workers| (*protocol, workers)));
    for ((protocol, workers), leaving) in tried.flat_map(|tried| [1, 2, 5].map(|leaving| (tried, leaving))) {
        let what = format!("{protocol:?}, {workers} workers, {leaving} leave");
        let origin = Origin::start("", ok);
        let lictor = origin.lictor(workers, ", cache: 60s");
        let (mut clients, mut shared) = crowd(&origin, &lictor, protocol, CROWD);
        for left in 1..=leaving {
            take_front(&mut clients, &origin.names()).leave(protocol);
            let names = origin.await_requests(left + 1);
            assert_eq!(names.len(), left + 1, "{what}: one more for each that left");
        }
        origin.let_pass(usize::MAX);
        let answers: Vec<(u16, String)> = if protocol == Protocol::Streams {
            read_frames(&mut shared, clients.len()).into_values().collect()
        } else {
            clients.into_iter().map(|client| client.answer(protocol)).collect()
        };
        assert_eq!(answers, vec![(200, "whole".to_owned()); CROWD + 1 - leaving], "{what}");
        assert_eq!(origin.names().len(), leaving + 1, "{what}");
        let shared = lictor.metric("lictor_cache_requests_total", &[("result", "coalesced")]) as usize;
        assert_eq!(shared, CROWD - leaving, "{what}");
    }
}

#[test]
fn a_front_that_leaves_within_its_answer_is_replaced_too() {
    let origin = Origin::start("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwh", || "ole".to_owned());
    let lictor = origin.lictor(2, ", cache: 60s");
    let (mut clients, _shared) = crowd(&origin, &lictor, Protocol::Http1, CROWD);
    for left in 1..=2 {
        let mut front = take_front(&mut clients, &origin.names());
        assert!(read_head(&mut front.stream).starts_with("HTTP/1.1 200"));
        front.leave(Protocol::Http1);
        assert_eq!(origin.await_requests(left + 1).len(), left + 1);
    }
    origin.let_pass(usize::MAX);
    for client in clients {
        assert_eq!(client.answer(Protocol::Http1), (200, "whole".to_owned()));
    }
    assert_eq!(origin.names().len(), 3);
}

#[test]
fn whose_own_time_is_over_leaves_its_place_and_says_nothing_for_the_others() {
    let origin = Origin::start("", ok);
    let lictor = origin.lictor(1, ", cache: 60s");
    let (address, unused) = (lictor.address("users"), connect(&lictor.address("users")));
    let began = Instant::now();
    let ask =
        |number, time| Client::ask(&address, Protocol::Http1, &unused, number, Some(("X-Request-Timeout-Ms", time)));
    let front = ask(0, "1000");
    origin.await_requests(1);
    let patient: Vec<Client> = (1..=CROWD).map(|number| ask(number, "25000")).collect();
    let hasty: Vec<Client> = (CROWD + 1..=CROWD + 3).map(|number| ask(number, "1500")).collect();
    assert_eq!(front.answer(Protocol::Http1).0, 504);
    assert_eq!(origin.await_requests(2).len(), 2);
    for client in hasty {
        assert_eq!(client.answer(Protocol::Http1).0, 504, "by its own time, though the front has more");
    }
    assert!(began.elapsed() >= Duration::from_millis(1500));
    assert_eq!(origin.names().len(), 2);
    origin.let_pass(usize::MAX);
    for client in patient {
        assert_eq!(client.answer(Protocol::Http1), (200, "whole".to_owned()));
    }
    assert_eq!(origin.names().len(), 2);
}

/// All go at once, not one after another.
#[test]
fn an_answer_that_is_not_for_all_lets_all_go_by_themselves() {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno";
    let stand_in = ", fallback: {body: none}";
    let trailers = "2\r\nme\r\n0\r\nX-Sum: 1\r\n\r\n";
    for (what, said, policy) in [
        ("private", ok("Cache-Control: private\r\nContent-Length: 2\r\n", "me"), ""),
        ("with a cookie", ok("Set-Cookie: a=b\r\nContent-Length: 2\r\n", "me"), ""),
        ("without a life", ok("Cache-Control: no-store\r\nContent-Length: 2\r\n", "me"), ""),
        ("a failure", busy.to_owned(), ""),
        ("a failure, with a stand-in", busy.to_owned(), stand_in),
        ("none", String::new(), ""),
        ("none, with a stand-in", String::new(), stand_in),
        ("not HTTP", "what?\r\n\r\n".to_owned(), ""),
        ("half a body", ok("Content-Length: 90\r\nConnection: close\r\n", "half"), ""),
        ("too large, as it says", ok("Content-Length: 999999\r\n", "begins"), ""),
        ("too large", ok("Transfer-Encoding: chunked\r\n", &format!("50000\r\n{}", "a".repeat(0x50000))), ""),
        ("with trailers", ok("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", trailers), ""),
        ("a stream", ok("Content-Type: text/event-stream\r\n", "data: 1\n\n"), ""),
    ] {
        let origin = Origin::start("", move || said.clone());
        let lictor = origin.lictor(2, &format!(", cache: 60s{policy}"));
        let (_clients, _shared) = crowd(&origin, &lictor, Protocol::Http1, CROWD);
        assert_eq!(origin.names().len(), 1, "{what}");
        origin.let_pass(1);
        let all = || origin.names().len();
        eventually_is(&format!("all go, none of them answered: {what}"), all, |count| *count == CROWD + 1);
    }
}
