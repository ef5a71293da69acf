//! What a client speaks, by what it says first; and the sockets below.

use std::io;
use std::time::Duration;

use lictor_http::buffers::ReadAhead;
use lictor_http::http2::PREFACE;
use lictor_http::sniff::{self, Spoken};
use lictor_http::stream::{Socket, Stream, unpace_loopback};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::pair;

/// What is made of a client that says this, and then ends or waits.
async fn version(words: &[u8], is_over: bool) -> (io::Result<Option<Spoken>>, usize) {
    let (server, mut client) = pair();
    client.write_all(words).await.unwrap();
    if is_over {
        client.shutdown().await.unwrap();
    }
    let (mut stream, mut read) = (Stream::from(server), ReadAhead::default());
    (sniff::version(&mut stream, &mut read).await, read.bytes.len())
}

/// RFC 9113, section 3.4.
#[tokio::test(start_paused = true)]
async fn the_preface_of_http2_tells_the_version() {
    for (words, spoken) in [
        (PREFACE, Some(Spoken::Http2)),
        (&PREFACE[..20], Some(Spoken::Http1)), // the clock ran out: it will be refused
        (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PRIVATE / HTTP/1.1\r\n", Some(Spoken::Http1)),
    ] {
        let (got, count) = version(words, false).await;
        assert_eq!((got.unwrap(), count), (spoken, words.len()), "{:?}", String::from_utf8_lossy(words));
    }
    assert_eq!(version(b"", true).await.0.unwrap(), None);
    assert_eq!(version(b"", false).await.0.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_first_line_tells_whether_it_is_http() {
    for (words, is_http) in [
        (&b"GET / HTTP/1.1\r\n"[..], true),
        (PREFACE, true),
        (b"SSH-2.0-OpenSSH_9.7\r\n", false),
        (b"PING\r\n", false),
        (b"GET / HT", false), // a server that speaks first must be let
        (b"", false),
    ] {
        let (server, mut client) = pair();
        client.write_all(words).await.unwrap();
        let (mut stream, mut read) = (Stream::from(server), ReadAhead::default());
        let got = sniff::is_http(&mut stream, &mut read, Duration::from_millis(100)).await.unwrap();
        assert_eq!((got, &read.bytes[..]), (is_http, words));
    }
}

#[tokio::test]
async fn a_socket_goes_from_one_thread_to_another() {
    let (one, two) = pair();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    unpace_loopback(SockRef::from(&accepted), &address);
    for (here, there) in [(Socket::Unix(one), Socket::Unix(two)), (Socket::Tcp(tcp), Socket::Tcp(accepted))] {
        here.set_nodelay().unwrap();
        let mut here = Stream::Plain(Socket::attach(here.detach().unwrap()).unwrap());
        let mut there = Stream::Plain(there);
        here.write_all(b"over here").await.unwrap();
        here.shutdown().await.unwrap();
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "over here");
    }
}
