//! Building blocks: what an application asks of Consul through the real lictor and a real Consul.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]
#![allow(clippy::print_stdout, reason = "figures for docs/reliability.md; --nocapture shows them")]

mod access;
mod config;
mod locks;
mod meta;
mod openapi;
mod saga;
mod services;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use lictor_testkit::{Answer, Consul, Sidecar, connect, request};
use serde_json::Value as Json;

const LICTOR: &str = env!("CARGO_BIN_EXE_lictor");
const TOKEN: &str = "0123456789abcdef";
const AUTHORIZATION: &str = "Bearer 0123456789abcdef";

/// A sidecar with these blocks, and no registration.
fn sidecar(consul: &Consul, blocks: &str) -> Sidecar {
    sidecar_with(consul, blocks, "")
}

/// The same with more configuration.
fn sidecar_with(consul: &Consul, blocks: &str, more: &str) -> Sidecar {
    Sidecar::serve(LICTOR, &yaml(consul, blocks, more)).up()
}

fn yaml(consul: &Consul, blocks: &str, more: &str) -> String {
    format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nbuilding_blocks: {{token: {TOKEN}, {blocks}}}\n{more}",
        consul.url()
    )
}

/// A request of the application.
fn ask(lictor: &Sidecar, method: &str, path: &str, body: &[u8]) -> Answer {
    request(&lictor.admin(), method, path, &[("Authorization", AUTHORIZATION)], body).unwrap()
}

/// The same, with what it is answered as JSON.
fn asked(lictor: &Sidecar, method: &str, path: &str, body: &[u8]) -> (u16, Json) {
    let answer = ask(lictor, method, path, body);
    let text = answer.text();
    (answer.status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}")))
}

/// Server-sent events, as they come.
#[derive(Debug)]
struct Stream {
    lines: BufReader<TcpStream>,
}

/// An event's kind and data.
type Event = (String, Json);

impl Stream {
    /// Panics with the answer, if it is none.
    fn open(lictor: &Sidecar, method: &str, path: &str) -> Self {
        Self::try_open(lictor, method, path).unwrap_or_else(|answer| panic!("{method} {path}: {answer}"))
    }

    /// The error is the head of another answer.
    fn try_open(lictor: &Sidecar, method: &str, path: &str) -> Result<Self, String> {
        let mut stream = connect(&lictor.admin());
        stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).unwrap() > 0 {}
        let is_stream = head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream");
        if is_stream { Ok(Self { lines }) } else { Err(head) }
    }

    /// The next event's data as it is sent; it is of this kind.
    fn line(&mut self, expected: &str) -> String {
        let (kind, data) = self.next_line().unwrap_or_else(|| panic!("the stream has ended; {expected} was expected"));
        assert_eq!(kind, expected, "{data}");
        data
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Event> {
        self.next_line().map(|(kind, data)| (kind, serde_json::from_str(&data).unwrap()))
    }

    /// The same with its data as it is sent. Comments, and the lengths of chunks, are passed over.
    fn next_line(&mut self) -> Option<(String, String)> {
        let mut kind = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or_default() == 0 {
                return None;
            }
            if let Some(named) = line.trim_end().strip_prefix("event: ") {
                named.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((kind, data.to_owned()));
            } else if line == "0\r\n" {
                return None;
            }
        }
    }

    /// The next event's data, which is of this kind.
    fn data(&mut self, expected: &str) -> Json {
        let (kind, data) = self.next().unwrap_or_else(|| panic!("the stream has ended; {expected} was expected"));
        assert_eq!(kind, expected, "{data}");
        data
    }

    /// Events of this kind until one has it.
    fn await_data(&mut self, expected: &str, claim: impl Fn(&Json) -> bool) -> Json {
        loop {
            let data = self.data(expected);
            if claim(&data) {
                return data;
            }
        }
    }
}
