//! The gateway: strangers in front, services behind, raw sockets on both sides of the real lictor. Only what chooses by versions needs Consul.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod acme;
mod acme_scripted;
mod basic;
mod bodies;
mod cache;
mod client;
mod compress;
mod cors;
mod decisions;
mod descriptors;
mod errors;
mod explain;
mod forward;
mod from_consul;
mod grpc_web;
mod headers;
mod heads;
mod hosts;
mod issuer;
mod jwks;
mod jwt;
mod keys;
mod library;
mod limits;
mod listener;
mod location;
mod maintenance;
mod mirror;
mod open;
mod outsiders;
mod paths;
mod proxy_protocol;
mod redis;
mod redis_tls;
mod routes;
mod secrets;
mod split;
mod stats;
mod streams;
mod targets;
mod tls;
mod transcode;
mod when;
mod wire;

use std::io::{Read, Write};
use std::process::Command;

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, read_head};

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");

/// A gateway with these routes, and an upstream for each server, under its name.
fn gateway(servers: &[(&str, &RawServer)], routes: &str) -> Sidecar {
    gateway_with(servers, "", routes)
}

/// The same with more upstreams.
fn gateway_with(servers: &[(&str, &RawServer)], more: &str, routes: &str) -> Sidecar {
    Sidecar::serve(LICTOR, &configuration(servers, more, "", routes)).up()
}

/// The same with more keys of `gateway`, each a line that begins with two spaces.
fn gateway_of(servers: &[(&str, &RawServer)], keys: &str, routes: &str) -> Sidecar {
    Sidecar::serve(LICTOR, &configuration(servers, "", keys, routes)).up()
}

fn configuration(servers: &[(&str, &RawServer)], more: &str, keys: &str, routes: &str) -> String {
    let upstream =
        |(name, server): &(&str, &RawServer)| format!("  {name}: {{static: ['127.0.0.1:{}']}}\n", server.port());
    let upstreams: String = servers.iter().map(upstream).collect();
    format!(
        "registration: off\nservice: edge\nupstreams:\n{upstreams}{more}gateway:\n  listen: 127.0.0.1:0\n{keys}  routes:\n{routes}"
    )
}

/// A request's line in the log, which is written once its answer is out.
fn line_of(lictor: &Sidecar, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let found = || lictor.lines("request").into_iter().find(&is_it);
    eventually_is("its line is there", found, Option::is_some).unwrap()
}

/// All of the log: the line of a last request stands behind those of all that were answered before.
fn whole_log(lictor: &Sidecar) -> String {
    ask(lictor, Version::Http1, Ask::get("/the/last/line"));
    line_of(lictor, |line| line["path"] == "/the/last/line");
    lictor.log()
}

/// What a command prints.
fn says(words: &[&str]) -> String {
    let output = Command::new(LICTOR).args(words).env_clear().output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// A server that answers with its name and the head that it got.
fn echo(name: &'static str) -> RawServer {
    RawServer::start(move |mut stream| while echoed(&mut stream, name, "").is_some() {})
}

/// The same, which takes one request by each connection: they are as many as it was asked.
fn echo_once(name: &'static str) -> RawServer {
    RawServer::start(move |mut stream| {
        echoed(&mut stream, name, "Connection: close\r\n");
    })
}

/// One request; `None` where there is none any more.
fn echoed(stream: &mut std::net::TcpStream, name: &str, fields: &str) -> Option<()> {
    let head = read_head(stream);
    if head.is_empty() {
        return None;
    }
    let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    if field(&head, "transfer-encoding").is_some() {
        while !body.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            body.push(byte[0]);
        }
    }
    let text = format!("{name}\n{head}{}", String::from_utf8_lossy(&body));
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).ok()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|it| it.1)
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

const BOTH: [Version; 2] = [Version::Http1, Version::Http2];

/// A request, byte by byte.
#[derive(Clone, Copy)]
struct Ask<'a> {
    method: &'a str,
    /// `Host`, or `:authority`.
    host: &'a str,
    target: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl<'a> Ask<'a> {
    fn get(target: &'a str) -> Self {
        Self { method: "GET", host: "shop.example", target, fields: &[] }
    }
}

/// An answer. What could not be read is status 0.
#[derive(Clone, Debug)]
struct Told {
    status: u16,
    /// As it came: of HTTP/2 the field block, in which names that are not in HPACK's static table stand as they are.
    head: String,
    body: String,
}

impl Told {
    /// Who answered.
    fn server(&self) -> &str {
        if self.status == 200 { self.body.lines().next().unwrap_or_default() } else { "" }
    }

    /// What that was asked for.
    fn target(&self) -> &str {
        self.body.lines().nth(1).and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }
}

fn ask(lictor: &Sidecar, version: Version, ask: Ask<'_>) -> Told {
    ask_over(connect(&lictor.address("gateway")), version, ask)
}

fn ask_over(mut stream: impl Read + Write, version: Version, ask: Ask<'_>) -> Told {
    match version {
        Version::Http1 => {
            let Ask { method, host, target, fields } = ask;
            let lines = lines(fields);
            let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
            told_http1(stream, text.as_bytes())
        }
        Version::Http2 => {
            let flags = if ask.method == "CONNECT" { 4 } else { 5 }; // bytes may follow
            let bytes = [begun_http2(), frame(1, flags, 1, &block(ask))].concat();
            let _ = stream.write_all(&bytes); // who is refused reads no answer
            told_http2(stream)
        }
    }
}

/// Writes a request and reads to the end.
fn told_http1(mut stream: impl Read + Write, request: &[u8]) -> Told {
    let _ = stream.write_all(request); // who is refused reads no answer
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // a reset is an end too
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (mut head, mut body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut interim = String::new();
    while matches!(status_of(head), 102..200) {
        interim += head;
        interim += "\r\n";
        (head, body) = body.split_once("\r\n\r\n").unwrap_or((body, ""));
    }
    Told { status: status_of(head), head: interim + head, body: body.to_owned() }
}

/// Of an answer's head in HTTP/1.1.
fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Fields as HTTP/1.1 has them.
fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect()
}

/// Posts `hi`, and these trailers behind it.
fn post_trailing(lictor: &Sidecar, version: Version, asked: Ask<'_>, trailers: &[(&str, &str)]) -> Told {
    let mut stream = connect(&lictor.address("gateway"));
    let fields = [asked.fields, &[("te", "trailers")]].concat();
    match version {
        Version::Http1 => {
            let Ask { host, target, .. } = asked;
            let text = format!(
                "POST {target} HTTP/1.1\r\nHost: {host}\r\n{}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n{}\r\n",
                lines(&fields),
                lines(trailers)
            );
            told_http1(stream, text.as_bytes())
        }
        Version::Http2 => {
            let head = block(Ask { method: "POST", fields: &fields, ..asked });
            let frames = [frame(1, 4, 1, &head), frame(0, 0, 1, b"hi"), frame(1, 5, 1, &literals(trailers))];
            stream.write_all(&[begun_http2(), frames.concat()].concat()).unwrap();
            told_http2(stream)
        }
    }
}

/// Reads one answer of HTTP/1.1 off a connection that stays: its body is as long as its head says.
fn told_on(stream: &mut impl Read) -> Told {
    let head = read_head(stream);
    let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let is_whole = stream.read_exact(&mut body).is_ok();
    let body = String::from_utf8_lossy(&body).into_owned();
    Told { status: if is_whole { status_of(&head) } else { 0 }, head, body }
}

/// Writes requests, and reads so many answers with bodies; their statuses.
fn pipelined(stream: &mut std::net::TcpStream, requests: &[u8], answers: usize) -> Vec<u16> {
    stream.write_all(requests).unwrap();
    (0..answers).map(|_| told_on(stream).status).collect()
}

/// A server of its own thread, for as long as this lives.
struct Served {
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Served {
    /// Does this with each connection.
    fn by<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            });
            let _ = runtime.block_on(stopped);
        });
        Self { port, stop: Some(stop) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }
}

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What stands before all else: the preface, and SETTINGS.
fn begun_http2() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()
}

fn block(ask: Ask<'_>) -> Vec<u8> {
    let own = [(":method", ask.method), (":scheme", "http"), (":authority", ask.host), (":path", ask.target)];
    literals(own.iter().chain(ask.fields))
}

/// Literals that are not indexed, and not in Huffman's code (RFC 7541, section 6.2.2).
fn literals<'a>(fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |text: &str, block: &mut Vec<u8>| {
        match text.len() {
            short @ 0..127 => block.push(short as u8),
            long => block.extend([127, ((long - 127) & 127) as u8 | 128, ((long - 127) >> 7) as u8]),
        }
        block.extend(text.as_bytes());
    };
    for (name, value) in fields {
        block.push(0);
        text(&name.to_ascii_lowercase(), &mut block);
        text(value, &mut block);
    }
    block
}

/// A frame that came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// Its stream's end: END_STREAM, RST_STREAM, or GOAWAY.
    fn ends_stream(&self) -> bool {
        matches!(self.kind, 3 | 7) || matches!(self.kind, 0 | 1) && self.flags & 1 == 1
    }
}

/// `None` when the connection ends.
fn next_frame(stream: &mut impl Read) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
}

fn told_http2(stream: impl Read) -> Told {
    told_until(stream, |_| false)
}

/// Reads an answer of HTTP/2 until it is over, or there is enough of it.
fn told_until(mut stream: impl Read, is_enough: impl Fn(&Told) -> bool) -> Told {
    let mut told = Told { status: 0, head: String::new(), body: String::new() };
    while let Some(frame) = next_frame(&mut stream) {
        let text = || String::from_utf8_lossy(&frame.payload);
        match frame.kind {
            0 => told.body += &text(),
            1 => {
                if told.status < 200 {
                    told.status = status(&frame.payload); // interim ones come before
                }
                told.head += &text();
            }
            _ => (),
        }
        if is_enough(&told) || frame.ends_stream() {
            break;
        }
    }
    told
}

/// `:status`, which comes first (RFC 7541, appendix A).
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).parse().unwrap_or_default(),
        other => panic!("not a status: {other:x?}"),
    }
}
