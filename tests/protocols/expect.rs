//! `Expect: 100-continue` (RFC 9110, section 10.1.1): the instance is asked before the client is told to go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use lictor_testkit::{Backend, RawServer, connect, read_head};
use parking_lot::Mutex;

use crate::caller;

const HEAD: &str = "POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

/// An instance that tells of each head, and says what it is told to.
struct Instance {
    server: RawServer,
    heads: Receiver<String>,
    say: Sender<&'static [u8]>,
}

impl Instance {
    fn start() -> Self {
        let (told, heads) = channel();
        let (say, said) = channel::<&'static [u8]>();
        let (told, said) = (Mutex::new(told), Mutex::new(said));
        let server = RawServer::start(move |mut stream: TcpStream| {
            let head = read_head(&mut stream);
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let early = stream.read(&mut [0; 16]).unwrap_or_default();
            assert_eq!(early, 0, "nothing comes before it is asked for");
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            told.lock().send(head).unwrap();
            while let Ok(words) = said.lock().recv() {
                if words.is_empty() {
                    let mut body = [0; 5];
                    stream.read_exact(&mut body).unwrap();
                    assert_eq!(&body, b"12345");
                } else if stream.write_all(words).is_err() {
                    return;
                }
            }
        });
        Self { server, heads, say }
    }
}

#[test]
fn the_instance_is_asked_first() {
    let instance = Instance::start();
    let lictor = caller(&[instance.server.port()], "");
    let mut client = connect(&lictor.address("users"));
    client.write_all(HEAD.as_bytes()).unwrap();
    let head = instance.heads.recv_timeout(Duration::from_secs(20)).unwrap().to_lowercase();
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    for words in [
        &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        instance.say.send(words).unwrap();
    }
    let first = read_head(&mut client);
    let (interim, hints) = if first.starts_with("HTTP/1.1 100") {
        (first, read_head(&mut client))
    } else {
        (read_head(&mut client), first)
    };
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n", "whole, and once");
    assert!(hints.starts_with("HTTP/1.1 103"), "{hints}");
    client.write_all(b"12345").unwrap();
    let last = read_head(&mut client);
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
}

/// The client has sent nothing, and need not.
#[test]
fn what_the_instance_refuses_is_not_asked_for() {
    for answer in [
        &b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let instance = Instance::start();
        let lictor = caller(&[instance.server.port()], "");
        let mut client = connect(&lictor.address("users"));
        client.write_all(HEAD.as_bytes()).unwrap();
        instance.heads.recv_timeout(Duration::from_secs(20)).unwrap();
        instance.say.send(answer).unwrap();
        let head = read_head(&mut client).to_lowercase();
        assert!(head.starts_with("http/1.1 4") && head.contains("connection: close"), "{head}");
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("HTTP/1.1"), "no 100 after the answer has begun: {rest}");
    }
}

/// Over both versions an instance that says nothing is not waited for without end.
#[test]
fn an_instance_that_says_nothing_is_not_waited_for() {
    let instance = Instance::start();
    let lictor = caller(&[instance.server.port()], "");
    let began = Instant::now();
    let mut client = connect(&lictor.address("users"));
    client.write_all(HEAD.as_bytes()).unwrap();
    instance.heads.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    client.write_all(b"12345").unwrap();
    for words in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
        instance.say.send(words).unwrap();
    }
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));

    let backend = Backend::start("a");
    for protocol in ["http1", "h2c"] {
        let lictor = caller(&[backend.port()], &format!(", protocol: {protocol}"));
        let mut client = connect(&lictor.address("users"));
        client.write_all(HEAD.as_bytes()).unwrap();
        assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n", "{protocol}");
        client.write_all(b"12345").unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200"), "{protocol}");
    }
}

/// HTTP/1.0 has no 100, nobody waits for one before no content, and who sends at once waits for none.
#[test]
fn who_waits_for_nothing_is_told_nothing() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], "");
    for (head, sent) in [
        (HEAD.replace("HTTP/1.1", "HTTP/1.0"), "12345"),
        (HEAD.replace("Length: 5", "Length: 0"), ""),
        (HEAD.replace("POST", "GET").replace("Content-Length: 5\r\n", ""), ""),
        (HEAD.to_owned(), "12345"),
    ] {
        let mut client = connect(&lictor.address("users"));
        client.write_all(format!("{head}{sent}").as_bytes()).unwrap();
        let answer = read_head(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200"), "{head}: {answer}");
    }
}
