//! Things that break on either side of the real lictor: `upstream`, whose rows are the table in `docs/reliability.md`, and
//! `client`. Only `secrets` needs a Consul.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

mod admin;
mod client;
mod clock;
mod dial;
mod http2;
mod late;
mod overload;
mod secrets;
mod table;
mod upstream;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};

use lictor_testkit::{Sidecar, connect, eventually, free_ports, lictor};
use rustix::process::{Pid, Signal, kill_process};

/// A caller with one upstream, `users`, whose endpoints are at these ports.
fn caller(ports: &[u16], more: &str) -> Sidecar {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nupstreams:\n  users: {{listen: 0, static: [{}]{more}}}\n",
        endpoints.join(", ")
    );
    Sidecar::serve(lictor(), &yaml).up()
}

/// A backend in a process of its own.
#[derive(Debug)]
struct Instance {
    process: Child,
    port: u16,
}

impl Instance {
    fn start(name: &str) -> Self {
        let [port] = free_ports();
        let process = Command::new(env!("CARGO_BIN_EXE_instance")).args([name, &port.to_string()]).spawn().unwrap();
        eventually("the instance listens", || TcpStream::connect(("127.0.0.1", port)));
        Self { process, port }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a client sees of an answer, also of one that breaks off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// 0 when there is none.
    status: u16,
    reason: String,
    /// `error` of `Proxy-Status`.
    error: String,
    body: String,
    /// It ended as its head said.
    is_whole: bool,
}

/// One request on a connection of its own.
fn ask(address: &str, method: &str) -> Seen {
    let mut stream = connect(address);
    let body = if method == "POST" { "order" } else { "" };
    let length = if method == "POST" { "Content-Length: 5\r\n" } else { "" };
    let request = format!("{method} / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n{length}\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    seen(&String::from_utf8_lossy(&answer))
}

fn seen(answer: &str) -> Seen {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Seen::default() };
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map_or("", |(_, value)| value)
    };
    let error = field("proxy-status").split("error=").nth(1).unwrap_or("").split(';').next().unwrap_or("");
    let length = field("content-length").parse().ok();
    Seen {
        status: head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0),
        reason: field("x-lictor-reason").to_owned(),
        error: error.to_owned(),
        body: body.to_owned(),
        is_whole: length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| body.len() == length),
    }
}
