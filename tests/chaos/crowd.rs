//! Very many clients at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use lictor_testkit::{Backend, Load, connect, eventually_is, read_head};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::caller;

const CONNECTIONS: usize = 15_000;
const RATE: u32 = 100;
/// Of resident memory for each connection that has been used and is idle.
const BYTES_EACH: u64 = 8 << 10;

#[test]
#[ignore = "opens 15,000 connections: `make chaos`"]
fn fifteen_thousand_connections_cost_little_and_delay_nobody() {
    let most = getrlimit(Resource::Nofile).maximum;
    assert!(most.is_none_or(|most| most > CONNECTIONS as u64 + 1000), "at most {most:?} files may be open");
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let backend = Backend::start("good");
    let lictor = caller(&[format!("127.0.0.1:{}", backend.port())], "");
    let address = lictor.address("users");
    let calm = p99(&address);
    let before = lictor.resident();
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&address)).collect();
    clients.iter_mut().for_each(ask);
    let each = lictor.resident().saturating_sub(before) / CONNECTIONS as u64;
    let crowded = p99(&address);
    eprintln!("{CONNECTIONS} connections: {each} bytes each; p99 {calm:.1?} without, {crowded:.1?} with them");
    clients.iter_mut().for_each(ask); // all of them are still served
    assert!(each < BYTES_EACH, "{each} bytes each");
    assert!(crowded < calm + Duration::from_secs(1), "{crowded:?} instead of {calm:?}");
    drop(clients);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", lictor.pid())).unwrap().count();
    eventually_is("their files are closed", open, |count| *count < 300);
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"GET /health HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
    let head = read_head(client);
    assert!(head.starts_with("HTTP/1.1 200"), "{head:?}");
    client.read_exact(&mut [0; 2]).unwrap();
}

/// Of good clients' requests for some seconds; none fails.
fn p99(address: &str) -> Duration {
    let load = Load::start(address, &[Method::GET], RATE);
    load.await_more(300);
    let tally = load.finish();
    tally.assert_flawless();
    tally.percentile(0.99)
}
