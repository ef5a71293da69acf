//! Upgrades between HTTP/1.1 and HTTP/2 (RFC 8441), in all four combinations, and those that are refused.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use lictor_testkit::{RawServer, connect, read_head};
use parking_lot::Mutex;

use crate::caller;

/// An HTTP/1.1 server that accepts upgrades to `websocket` and echoes.
fn http1_echo() -> RawServer {
    RawServer::start(|mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        if !head.contains("\r\nupgrade: websocket\r\n") || !head.contains("\r\nsec-websocket-key: ") {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        stream.write_all(switch).unwrap();
        let mut back = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut back);
    })
}

/// An HTTP/2 server that accepts extended CONNECT and echoes.
fn http2_echo() -> RawServer {
    RawServer::start(|stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection =
                h2::server::Builder::new().enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let protocol = request.extensions().get::<h2::ext::Protocol>();
                let is_wanted = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
                assert!(!request.headers().contains_key("sec-websocket-key"), "not in HTTP/2");
                if !is_wanted {
                    respond.send_response(http::Response::builder().status(400).body(()).unwrap(), true).unwrap();
                    continue;
                }
                let head = http::Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
                let mut sender = respond.send_response(head, false).unwrap();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        body.flow_control().release_capacity(data.len()).unwrap();
                        sender.send_data(data, false).unwrap();
                    }
                });
            }
        });
    })
}

/// Upgrades by HTTP/1.1 and says hello.
fn by_http1(address: &str) -> String {
    let mut client = connect(address);
    client
        .write_all(
            b"GET /chat HTTP/1.1\r\nHost: users\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    head.to_lowercase()
}

/// Upgrades by extended CONNECT and says hello.
fn by_http2(address: &str) -> http::HeaderMap {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await; // until the server's SETTINGS are there
        }
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://users/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut bytes) = sender.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        bytes.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let (head, mut body) = response.into_parts();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        head.headers
    })
}

/// HTTP/1.0 has no 101: such a wish is not there (RFC 9110, section 7.8).
#[test]
fn no_client_upgrades_by_http10() {
    let echo = http1_echo();
    let lictor = caller(&[echo.port()], "");
    let asked = |version: &str| {
        let mut client = connect(&lictor.address("users"));
        let text = format!(
            "GET /chat HTTP/{version}\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(text.as_bytes()).unwrap();
        read_head(&mut client).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!([asked("1.1"), asked("1.0"), asked("1.1")], ["101", "400", "101"], "the service sees no wish");
}

#[test]
fn http1_to_http1() {
    let echo = http1_echo();
    let lictor = caller(&[echo.port()], "");
    let head = by_http1(&lictor.address("users"));
    assert!(
        head.contains("sec-websocket-accept: x\r\n") && head.contains("sec-websocket-protocol: chat\r\n"),
        "{head}"
    );
}

#[test]
fn http1_to_http2() {
    let echo = http2_echo();
    let lictor = caller(&[echo.port()], ", protocol: h2c");
    let head = by_http1(&lictor.address("users"));
    // RFC 6455, section 1.3.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
}

#[test]
fn http2_to_http1() {
    let echo = http1_echo();
    let lictor = caller(&[echo.port()], "");
    let headers = by_http2(&lictor.address("users"));
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    assert!(!headers.contains_key("sec-websocket-accept") && !headers.contains_key("upgrade"), "{headers:?}");
}

#[test]
fn http2_to_http2() {
    let echo = http2_echo();
    let lictor = caller(&[echo.port()], ", protocol: h2c");
    assert_eq!(by_http2(&lictor.address("users"))["sec-websocket-protocol"], "chat");
}

/// What a server was asked, in lower case.
type Seen = Arc<Mutex<Vec<String>>>;

/// An HTTP/1.1 server that refuses whatever it is asked, and tells us what that was.
fn http1_noting() -> (RawServer, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let server = RawServer::saying(move |head| {
        noted.lock().push(head.to_lowercase());
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    });
    (server, seen)
}

/// The same by HTTP/2: what an extended CONNECT asks for stands first.
fn http2_noting() -> (RawServer, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let server = RawServer::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection =
                h2::server::Builder::new().enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let protocol = request.extensions().get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
                let wish = protocol.map_or_else(String::new, |protocol| format!("upgrade: {protocol}\n"));
                noted.lock().push(format!("{wish}{:?}", request.headers()).to_lowercase());
                respond.send_response(http::Response::builder().status(403).body(()).unwrap(), true).unwrap();
            }
        });
    });
    (server, seen)
}

const SETTINGS: &str = "AAMAAABkAAQAAP__";

/// Whether the wish by HTTP/1.1 is answered by the server.
fn wished_by_http1(address: &str, protocol: &str) -> bool {
    let mut client = connect(address);
    let text = format!(
        "GET / HTTP/1.1\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nHTTP2-Settings: {SETTINGS}\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    );
    client.write_all(text.as_bytes()).unwrap();
    read_head(&mut client).starts_with("HTTP/1.1 403")
}

/// Whether the wish by extended CONNECT is answered by the server.
fn wished_by_http2(address: &str, protocol: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await; // until the server's SETTINGS are there
        }
        let request =
            Request::builder().method(Method::CONNECT).uri("http://users/").header("http2-settings", SETTINGS);
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
        let (response, _bytes) = sender.send_request(request, false).unwrap();
        response.await.is_ok_and(|response| response.status() == StatusCode::FORBIDDEN)
    })
}

#[test]
fn no_client_asks_for_h2c_in_any_form() {
    for (protocol, (server, seen)) in [("http1", http1_noting()), ("h2c", http2_noting())] {
        let lictor = caller(&[server.port()], &format!(", protocol: {protocol}, retry: off"));
        let address = lictor.address("users");
        for (wish, is_one) in [
            ("websocket", true),
            ("h2c", false),
            ("H2C", false),
            ("h2c-14", false),
            ("websocket, h2c", false),
            ("h2c,websocket", false),
            ("h2c, \u{fc}", false),
            ("HTTP/2.0", false),
            ("TLS/1.0", false),
        ] {
            // Without that wish it is a request like any in HTTP/1.1; in HTTP/2 it is none.
            assert!(wished_by_http1(&address, wish), "{protocol} {wish}");
            assert_eq!(wished_by_http2(&address, wish), is_one, "{protocol} {wish}");
            let seen = std::mem::take(&mut *seen.lock());
            assert_eq!(seen.len(), 1 + usize::from(is_one), "{protocol} {wish}: {seen:?}");
            for head in seen {
                assert_eq!(head.contains("upgrade: websocket"), is_one, "{protocol} {wish}: {head}");
                assert!(is_one || !head.contains("upgrade"), "{protocol} {wish}: {head}");
                assert!(!head.contains("http2-settings") && !head.contains("h2c"), "{protocol} {wish}: {head}");
            }
        }
    }
}

#[test]
fn a_refused_upgrade_is_passed_on() {
    let server = RawServer::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let lictor = caller(&[server.port()], "");
    let bytes = b"GET / HTTP/1.1\r\nHost: users\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = connect(&lictor.address("users"));
    client.write_all(bytes).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 403"));
}

#[test]
fn an_upgraded_connection_outlives_the_timeout_of_requests() {
    let echo = http1_echo();
    let lictor = caller(&[echo.port()], ", timeout: 200ms");
    let mut client = connect(&lictor.address("users"));
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101"));
    client.set_read_timeout(Some(std::time::Duration::from_millis(600))).unwrap();
    let silent = client.read(&mut [0]).unwrap_err();
    assert!(matches!(silent.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silent}");
    client.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
}
