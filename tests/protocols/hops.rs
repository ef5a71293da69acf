//! What is for the next hop alone, and what counts hops: `Max-Forwards`, `Via` of interim answers, and the trailers that
//! `Connection` names (RFC 9110, section 7.6). Each over both versions and through each kind of listener.

use std::io::{Read, Write};

use lictor_testkit::{Backend, RawServer, Sidecar, connect, exchange, read_head};

use crate::LICTOR;

/// A sidecar with upstreams of both versions, the forward proxy and `inbound`, which lead to these.
fn lictor(old: u16, new: u16) -> Sidecar {
    let yaml = format!(
        "service: orders\nport: {old}\nregistration: off\noutbound: {{proxy: 0}}\ninbound: {{listen: '127.0.0.1:0'}}\n\
         upstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{old}']}}\n  new: {{listen: 0, static: ['127.0.0.1:{new}'], protocol: h2c}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// A request over HTTP/1.1: the status, and the text behind it.
fn old_client(address: &str, method: &str, target: &str, fields: &str) -> (u16, String) {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: users\r\n{fields}Connection: close\r\n\r\n");
    let answer = exchange(address, head.as_bytes()).unwrap_or_else(|error| panic!("{head}: {error}"));
    (answer.status, answer.text())
}

/// The same over HTTP/2; and the `Via` of each interim answer, and the trailers.
fn new_client(address: &str, method: &str, fields: &[(&str, &str)]) -> (u16, String, Vec<String>, http::HeaderMap) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri("http://users/x");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (mut response, _) = sender.ready().await.unwrap().send_request(request.body(()).unwrap(), true).unwrap();
        let mut vias = Vec::new();
        while let Some(interim) = std::future::poll_fn(|context| response.poll_informational(context)).await {
            vias.push(interim.unwrap().headers().get("via").map_or("", |via| via.to_str().unwrap()).to_owned());
        }
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        (head.status.as_u16(), String::from_utf8(text).unwrap(), vias, trailers)
    })
}

#[test]
fn trace_and_options_go_as_far_as_max_forwards_says() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let lictor = lictor(old.port(), new.port());
    for (listener, target) in [("users", "/x"), ("new", "/x"), ("forward", "http://users/x"), ("inbound", "/x")] {
        let address = lictor.address(listener);
        for (method, forwards, told) in [
            ("OPTIONS", "0", None),
            ("TRACE", "0", None),
            ("OPTIONS", "1", Some("0")),
            ("TRACE", "7", Some("6")),
            ("OPTIONS", "soon", Some("soon")),
            ("GET", "0", Some("0")),
            ("DELETE", "7", Some("7")),
        ] {
            let row = format!("{listener}: {method} with {forwards}");
            let before = old.hits() + new.hits();
            let (status, text) =
                old_client(&address, method, target, &format!("Max-Forwards: {forwards}\r\nX-A: b\r\n"));
            let (newer, newer_text, ..) = new_client(&address, method, &[("max-forwards", forwards), ("x-a", "b")]);
            assert_eq!((status, newer), (200, 200), "{row}");
            for text in [text, newer_text] {
                match told {
                    Some(told) => assert!(text.contains(&format!("\nmax-forwards: {told}\n")), "{row}: {text}"),
                    // The last one answers itself; to a TRACE with what it was sent.
                    None if method == "TRACE" => {
                        assert!(text.starts_with("TRACE /x HTTP/"), "{row}: {text}");
                        assert!(
                            text.contains("\r\nx-a: b\r\n") && text.contains("\r\nhost: users\r\n"),
                            "{row}: {text}"
                        );
                    }
                    None => assert_eq!(text, "", "{row}"),
                }
            }
            assert_eq!(old.hits() + new.hits() - before, if told.is_some() { 2 } else { 0 }, "{row}");
        }
    }
    let (status, text) = old_client(&lictor.address("users"), "OPTIONS", "*", "Max-Forwards: 0\r\n");
    assert_eq!((status, text.as_str()), (200, ""), "of the server as a whole");
}

#[test]
fn interim_answers_of_a_proxy_have_its_via_and_a_gateways_need_none() {
    let server = RawServer::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.0 fred\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let lictor = lictor(server.port(), server.port());
    for (listener, target, has_ours) in
        [("forward", "http://users/x", true), ("users", "/x", false), ("inbound", "/x", false)]
    {
        let address = lictor.address(listener);
        let mut client = connect(&address);
        write!(client, "GET {target} HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        let hints = read_head(&mut client).to_lowercase();
        assert!(hints.starts_with("http/1.1 103") && hints.contains("via: 1.0 fred"), "{hints}");
        assert_eq!(hints.contains("via: 1.1 lictor-"), has_ours, "{listener}: {hints}");
        if has_ours {
            let (_, _, vias, _) = new_client(&address, "GET", &[]);
            assert_eq!(vias, ["1.0 fred"], "the first of its lines");
        }
    }
}

/// In both directions, and to clients of both versions.
#[test]
fn trailers_that_connection_names_are_not_passed_on() {
    let chunks = "Transfer-Encoding: chunked\r\nConnection: X-Hop, x-other\r\nTrailer: X-Hop, X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Hop: 1\r\nX-Other: 1\r\nX-Sum: 2\r\n\r\n";
    let (told, heard) = std::sync::mpsc::channel::<String>();
    let told = parking_lot::Mutex::new(told);
    let answer = format!("HTTP/1.1 200 OK\r\n{chunks}");
    let server = RawServer::start(move |mut stream| {
        loop {
            let mut request = read_head(&mut stream).to_lowercase();
            if request.is_empty() {
                return;
            }
            if request.contains("chunked") {
                request += &read_head(&mut stream).to_lowercase(); // up to the end of the trailers
            }
            let _ = told.lock().send(request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let lictor = lictor(server.port(), server.port());
    for (listener, target) in [("users", "/x"), ("forward", "http://users/x"), ("inbound", "/x")] {
        let address = lictor.address(listener);
        let mut client = connect(&address);
        let close = "Connection: close, te\r\nTE: trailers\r\n";
        write!(client, "POST {target} HTTP/1.1\r\nHost: users\r\n{close}{chunks}").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        for (what, text) in [("request", heard.recv().unwrap()), ("answer", answer.to_lowercase())] {
            assert!(text.contains("\r\nx-sum: 2\r\n"), "{listener}, {what}: {text}");
            assert!(!text.contains("x-hop: 1") && !text.contains("x-other: 1"), "{listener}, {what}: {text}");
        }
        let (_, _, _, trailers) = new_client(&address, "GET", &[("te", "trailers")]);
        heard.recv().unwrap();
        assert_eq!(
            (trailers.len(), trailers.get("x-sum").map(http::HeaderValue::as_bytes)),
            (1, Some(&b"2"[..])),
            "{listener}"
        );
    }
}
