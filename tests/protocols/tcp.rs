//! `protocol: tcp`: connections are carried, whatever is said on them; `protocol: auto` finds out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Instant;

use lictor_testkit::{Backend, RawServer, Sidecar, connect, eventually_is, free_ports, get};
use rustix::process::Signal;

use crate::caller;

/// Says a line and reads as much back.
fn echoes(stream: &mut (impl Read + Write), line: &str) {
    stream.write_all(line.as_bytes()).unwrap();
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), line);
}

fn carried(lictor: &Sidecar, reason: &str, count: f64) {
    let labels = [("upstream", "users"), ("reason", reason)];
    let counted = || lictor.metric("lictor_tcp_connections_total", &labels);
    eventually_is("the connection is counted", counted, |counted| (*counted - count).abs() < 0.1);
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    let echo = RawServer::echo();
    let lictor = caller(&[echo.port()], ", protocol: tcp");
    let mut client = connect(&lictor.address("users"));
    echoes(&mut client, "*1\r\n$4\r\nPING\r\n");
    echoes(&mut client, "\0\u{7f} not text");
    drop(client);
    carried(&lictor, "", 1.0);
    let sent = lictor.metric("lictor_tcp_bytes_total", &[("upstream", "users"), ("direction", "sent")]);
    assert!((sent - 25.0).abs() < 0.1, "{sent}");
    let lines = eventually_is("it is logged", || lictor.lines("connection"), |lines| lines.len() == 1);
    assert_eq!((lines[0]["upstream"].as_str(), lines[0]["received"].as_u64()), (Some("users"), Some(25)));
    assert_eq!(lines[0]["endpoint"].as_str().unwrap(), format!("127.0.0.1:{}", echo.port()));
}

#[test]
fn a_side_that_is_done_with_sending_goes_on_receiving() {
    let counter = RawServer::start(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap(); // until the client is done
        stream.write_all(all.len().to_string().as_bytes()).unwrap();
    });
    let lictor = caller(&[counter.port()], ", protocol: tcp");
    let mut client = connect(&lictor.address("users"));
    client.write_all(&vec![b'x'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "100000");
    carried(&lictor, "", 1.0);
}

#[test]
fn a_server_may_speak_first() {
    let greeter = || {
        RawServer::start(|mut stream| {
            stream.write_all(b"hello\n").unwrap();
            let _ = stream.read(&mut [0; 16]);
        })
    };
    for protocol in ["tcp", "auto"] {
        let server = greeter();
        let lictor = caller(&[server.port()], &format!(", protocol: {protocol}"));
        let mut client = connect(&lictor.address("users"));
        let mut greeting = [0; 6];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello\n", "{protocol}");
    }
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let echo = RawServer::echo();
    let [dead] = free_ports();
    let lictor = caller(&[dead, echo.port()], ", protocol: tcp, balance: round_robin, retry: {delays: [1ms]}");
    for _ in 0..6 {
        echoes(&mut connect(&lictor.address("users")), "hello");
    }
    assert!(lictor.metric("lictor_retries_total", &[("upstream", "users")]) >= 2.0);
}

#[test]
fn without_an_endpoint_the_connection_ends_and_the_log_says_why() {
    let [dead] = free_ports();
    let lictor = caller(&[dead], ", protocol: tcp, retry: off");
    let mut client = connect(&lictor.address("users"));
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    carried(&lictor, "connect_refused", 1.0);
    let lines = eventually_is("it is logged", || lictor.lines("connection"), |lines| lines.len() == 1);
    let detail = lines[0]["detail"].as_str().unwrap();
    assert_eq!(detail, format!("connection refused by 127.0.0.1:{dead}"));
}

#[test]
fn silence_ends_a_connection_and_traffic_does_not() {
    let echo = RawServer::echo();
    let lictor = caller(&[echo.port()], ", protocol: tcp, idle_timeout: 300ms");
    let mut client = connect(&lictor.address("users"));
    let began = Instant::now();
    while began.elapsed().as_millis() < 700 {
        echoes(&mut client, "still here");
    }
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    carried(&lictor, "timeout", 1.0);
}

#[test]
fn a_breaker_opens_for_connections_too() {
    let [dead] = free_ports();
    let lictor = caller(&[dead], ", protocol: tcp, retry: off, breaker: {failure_threshold: 2}, ejection: off");
    for _ in 0..4 {
        assert_eq!(connect(&lictor.address("users")).read(&mut [0]).unwrap_or(0), 0);
    }
    carried(&lictor, "connect_refused", 2.0);
    carried(&lictor, "breaker_open", 2.0);
}

#[test]
fn connections_are_let_end_when_it_stops() {
    let echo = RawServer::echo();
    let mut lictor = caller(&[echo.port()], ", protocol: tcp");
    let mut client = connect(&lictor.address("users"));
    echoes(&mut client, "before");
    lictor.signal(Signal::TERM);
    eventually_is("it is stopping", || lictor.log(), |log| log.contains("\"leaving\""));
    echoes(&mut client, "while it stops");
    drop(client);
    assert!(lictor.wait().success());
}

#[test]
fn detection_tells_http_from_the_rest_on_one_listener() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", protocol: auto");
    let address = lictor.address("users");
    let http1 = get(&address, "/users/1").unwrap();
    assert!(http1.text().starts_with("a GET /users/1 HTTP/1.1"), "{}", http1.text());
    assert!(http1.text().contains("x-lictor-to"), "it went through the request path");
    let http2 = std::process::Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", &format!("http://{address}/users/2")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&http2.stdout);
    assert!(text.starts_with("a GET /users/2 HTTP/2.0"), "{text}");
    // An endpoint that does not speak HTTP gets the bytes as they are, the first of them included.
    let echo = RawServer::echo();
    let lictor = caller(&[echo.port()], ", protocol: auto");
    for line in ["PING\r\n", "*1\r\n$4\r\nPING\r\n", "\0\0\0\u{8}\u{4}", "GET key\r\n"] {
        echoes(&mut connect(&lictor.address("users")), line);
    }
}

#[test]
fn detection_waits_no_longer_than_it_says() {
    let echo = RawServer::echo();
    let lictor = caller(&[echo.port()], ", protocol: auto");
    let mut client = connect(&lictor.address("users"));
    client.write_all(b"GET ").unwrap(); // may become HTTP
    let began = Instant::now();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    let took = began.elapsed().as_millis();
    assert!((80..2_000).contains(&took), "{took} ms");
}

#[test]
fn an_address_that_is_gone_is_not_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let lictor = caller(&[port], ", protocol: tcp, connect_timeout: 200ms, retry: off");
    assert_eq!(connect(&lictor.address("users")).read(&mut [0]).unwrap_or(0), 0);
    let attempts = lictor.metric("lictor_upstream_attempts_total", &[("outcome", "connect_refused")]);
    assert!((attempts - 1.0).abs() < 0.1);
}
