//! Streams that stay open, over both versions: what lets them through, and what does not end them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};

use crate::issuer::{SECRET, claims, shared};
use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask, begun_http2, block, configuration, echo, forward, frame, gateway_of, lines,
    next_frame, status, told_on, told_until,
};

/// A kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A WebSocket: by an upgrade, or by extended CONNECT.
    Socket,
    /// Events that come while the request's body still goes.
    Events,
    /// A call of gRPC with streams both ways.
    Call,
}

/// All that there are.
pub(crate) const STREAMS: [(Kind, Version); 5] = [
    (Kind::Socket, Version::Http1),
    (Kind::Socket, Version::Http2),
    (Kind::Events, Version::Http1),
    (Kind::Events, Version::Http2),
    (Kind::Call, Version::Http2),
];

/// What it says does not matter: one byte, so that it is never in pieces.
const WORD: &[u8] = b"~";

/// A server that says yes and sends back what comes; chunks are chunks on their way back too.
pub(crate) fn echoing() -> RawServer {
    RawServer::start(|mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        let answer = if head.is_empty() {
            return;
        } else if head.contains("\r\nupgrade: ") {
            "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        } else if head.contains("application/grpc") {
            "200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n"
        } else {
            "200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        };
        if stream.write_all(format!("HTTP/1.1 {answer}\r\n").as_bytes()).is_ok() {
            let mut back = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut stream, &mut back);
        }
    })
}

/// A stream that is open.
pub(crate) struct Open {
    stream: TcpStream,
    kind: Kind,
    version: Version,
    /// The last stream of its connection.
    last: u32,
}

impl Open {
    /// Asks for it; else what was answered instead.
    pub(crate) fn ask(
        lictor: &Sidecar,
        (kind, version): (Kind, Version),
        target: &str,
        token: Option<&str>,
    ) -> Result<Self, Told> {
        let mut stream = connect(&lictor.address("gateway"));
        let mut fields: Vec<_> = match (kind, version) {
            (Kind::Socket, Version::Http1) => vec![
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
            (Kind::Socket, Version::Http2) => vec![(":protocol", "websocket")],
            (Kind::Events, Version::Http1) => vec![("accept", "text/event-stream"), ("transfer-encoding", "chunked")],
            (Kind::Events, Version::Http2) => vec![("accept", "text/event-stream")],
            (Kind::Call, _) => vec![("content-type", "application/grpc"), ("te", "trailers")],
        };
        fields.extend(token.map(|token| ("authorization", token)));
        let method = match (kind, version) {
            (Kind::Socket, Version::Http1) => "GET",
            (Kind::Socket, Version::Http2) => "CONNECT",
            _ => "POST",
        };
        let asked = Ask { method, fields: &fields, ..Ask::get(target) };
        let told = match version {
            Version::Http1 => {
                let lines = lines(&fields);
                write!(stream, "{method} {target} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", asked.host).unwrap();
                told_on(&mut stream)
            }
            Version::Http2 => {
                stream.write_all(&[begun_http2(), frame(1, 4, 1, &block(asked))].concat()).unwrap();
                told_until(&mut stream, |told| told.status == 200)
            }
        };
        let is_open = told.status == if (kind, version) == STREAMS[0] { 101 } else { 200 };
        if is_open { Ok(Self { stream, kind, version, last: 1 }) } else { Err(told) }
    }

    fn say(&mut self) {
        let bytes = match (self.version, self.kind) {
            (Version::Http1, Kind::Socket) => WORD.to_vec(),
            (Version::Http1, _) => [b"1\r\n", WORD, b"\r\n"].concat(),
            (Version::Http2, _) => frame(0, 0, 1, WORD),
        };
        self.stream.write_all(&bytes).unwrap();
    }

    /// Says something, and waits until it comes back.
    pub(crate) fn talk(&mut self) {
        self.say();
        let mut back = Vec::new();
        while !back.ends_with(WORD) {
            match self.version {
                Version::Http1 => {
                    let mut byte = [0];
                    self.stream.read_exact(&mut byte).unwrap();
                    back.extend(byte);
                }
                Version::Http2 => {
                    let frame = next_frame(&mut self.stream).expect("it is open");
                    assert!(frame.stream != 1 || !frame.ends_stream(), "it is open: {frame:?}");
                    if (frame.kind, frame.stream) == (0, 1) {
                        back.extend(frame.payload);
                    }
                }
            }
        }
    }

    /// The status of another request on its connection, which HTTP/2 alone can have.
    fn meanwhile(&mut self, target: &str) -> u16 {
        self.last += 2;
        self.stream.write_all(&frame(1, 5, self.last, &block(Ask::get(target)))).unwrap();
        loop {
            let frame = next_frame(&mut self.stream).expect("it is open");
            if (frame.kind, frame.stream) == (1, self.last) {
                return status(&frame.payload);
            }
        }
    }

    /// All that comes until the end, and whether that is one: a stream may be cut off too.
    pub(crate) fn rest(mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        if self.version == Version::Http1 {
            let ended = self.stream.read_to_end(&mut bytes);
            let is_open = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!ended.as_ref().is_err_and(is_open), "{:?} is still open", self.kind);
            return (bytes, ended.is_ok());
        }
        loop {
            let frame = next_frame(&mut self.stream).expect("a frame that ends it");
            if frame.kind == 0 {
                bytes.extend(&frame.payload);
            }
            if frame.ends_stream() {
                return (bytes, matches!(frame.kind, 0 | 1));
            }
        }
    }
}

#[test]
fn streams_outlive_a_reload_that_takes_their_route() {
    let (one, two) = (echoing(), echo("two"));
    let with = |keys: &str, routes: &str| configuration(&[("one", &one), ("two", &two)], "", keys, routes);
    let lictor = Sidecar::serve(LICTOR, &with("", "  - {path: /*, to: one}\n")).up();
    let mut streams = STREAMS.map(|kind| Open::ask(&lictor, kind, "/", None).unwrap_or_else(|told| panic!("{told:?}")));
    streams.iter_mut().for_each(Open::talk);
    let auth = format!("  auth: {{mode: none, jwt: {{secret: {SECRET}}}}}\n");
    let asked = with(&auth, "  - {path: /*, to: two, auth: required}\n");
    let gone = with("", "  - {path: /other, to: two}\n");
    let clashing = with("", "  - {path: /*, to: one}\n  - {path: /*, to: two}\n");
    let bearer = format!("Bearer {}", shared(&claims(serde_json::json!({}))));
    for (what, yaml, is_taken, next, next_with_token) in [
        ("to another, for a token", &asked, true, 401, 200),
        ("no good", &clashing, false, 401, 200),
        ("gone", &gone, true, 404, 404),
        ("no good again", &clashing, false, 404, 404),
    ] {
        lictor.rewrite(yaml);
        let status = lictor.post("/reload").status;
        assert_eq!(status == 200, is_taken, "{what}: {status}");
        for version in BOTH {
            let told = || ask(&lictor, version, Ask::get("/"));
            eventually_is(&format!("{what}: whoever comes asks by the new routes"), told, |told| told.status == next);
            let fields = [("authorization", &*bearer)];
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/") });
            assert_eq!(told.status, next_with_token, "{what}: {told:?}");
            assert!(next_with_token != 200 || told.server() == "two", "{what}: {told:?}");
        }
        for stream in &mut streams {
            stream.talk();
            if stream.version == Version::Http2 {
                let what = format!("{what}: so does the next request beside {:?}", stream.kind);
                eventually_is(&what, || stream.meanwhile("/"), |status| *status == next);
                stream.talk();
            }
        }
    }
    assert_eq!(one.connections(), STREAMS.len(), "they are those that were opened");
}

#[test]
fn what_follows_an_upgrade_is_no_body_and_what_a_stream_sends_is() {
    let one = echoing();
    let routes = "  - {path: /*, to: one}\n  - {path: /any, to: one, body_max: none}\n";
    let lictor = gateway_of(&[("one", &one)], "  body_max: 10\n", routes);
    for kind in STREAMS.into_iter().filter(|(kind, _)| *kind != Kind::Events) {
        for target in ["/", "/any"] {
            let mut open = Open::ask(&lictor, kind, target, None).unwrap_or_else(|told| panic!("{told:?}"));
            (0..10).for_each(|_| open.talk());
            if kind.0 == Kind::Socket || target == "/any" {
                (0..10).for_each(|_| open.talk());
                continue;
            }
            open.say();
            let (bytes, _) = open.rest(); // it ends
            assert!(!bytes.ends_with(WORD), "{kind:?}: nothing more comes back");
        }
    }
}

#[test]
fn streams_are_let_through_by_what_lets_others_through() {
    let (one, service) = (echoing(), forward::Service::start());
    let keys = forward::forward(", answer_max: 64KiB");
    let lictor = forward::gateway(&one, &service, &keys, forward::ROUTES);
    // gRPC is told no in its own words.
    for kind in STREAMS.into_iter().filter(|(kind, _)| *kind != Kind::Call) {
        for (case, status, reason) in forward::ANSWERS {
            let before = one.connections();
            match Open::ask(&lictor, kind, "/", Some(&format!("Bearer {case}"))) {
                Ok(mut open) => {
                    open.talk();
                    assert_eq!(status, 200, "{kind:?} {case} is let through");
                }
                Err(told) => {
                    assert!(told.status == status && told.body.contains(reason), "{kind:?} {case}: {told:?}");
                }
            }
            let asked = one.connections() - before;
            assert_eq!(asked, usize::from(status == 200), "nobody behind is asked but for who may: {kind:?} {case}");
        }
    }
}
