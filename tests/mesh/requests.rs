//! What passes through, byte by byte.

use lictor_testkit::{Backend, Sidecar, eventually_is, exchange, request};

use crate::{LICTOR, caller_of};

#[test]
fn a_request_keeps_its_header_case_and_loses_what_belongs_to_the_connection() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], "");
    let bytes = b"GET /users/1?x=%20y HTTP/1.1\r\nHost: localhost\r\nX-CamelCase: Yes\r\nConnection: close, X-Mine\r\n\
        X-Mine: 1\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: deflate\r\n\r\n";
    let answer = exchange(&lictor.address("users"), bytes).unwrap();
    assert_eq!(answer.status, 200);
    let seen = answer.text().to_lowercase();
    for absent in ["x-mine", "proxy-connection", "keep-alive", "te: "] {
        assert!(!seen.contains(absent), "{absent} passed:\n{seen}");
    }
    for present in [
        "x-camelcase: yes",
        "host: users",
        "x-lictor-from: orders",
        "x-lictor-to: users/",
        "traceparent: 00-",
        "via: 1.1 lictor-",
    ] {
        assert!(seen.contains(present), "{present} is missing:\n{seen}");
    }
    assert!(answer.headers.iter().any(|(name, _)| name == "x-backend"));
}

#[test]
fn a_trace_and_a_request_id_are_continued() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], "");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "req-7")];
    let answer = request(&lictor.address("users"), "GET", "/", &headers, b"").unwrap();
    assert!(answer.text().contains(&format!("traceparent: 00-{trace}-")), "{}", answer.text());
    assert!(answer.text().contains("00f067aa0ba902b7-01"), "without spans of our own the caller's is the parent");
    assert_eq!((answer.header("x-request-id"), answer.header("x-trace-id")), ("req-7", trace));
}

#[test]
fn bodies_pass_both_ways_chunked_and_counted() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], "");
    let body = vec![b'x'; 300_000];
    let answer = request(&lictor.address("users"), "POST", "/", &[], &body).unwrap();
    assert!(answer.text().starts_with("a POST / HTTP/1.1 300000"), "{}", answer.text());
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let answer = exchange(&lictor.address("users"), chunked).unwrap();
    assert!(answer.text().starts_with("a POST / HTTP/1.1 11\n"), "{}", answer.text());
}

#[test]
fn upstreams_may_speak_http2() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], ", protocol: h2c");
    for _ in 0..3 {
        let answer = lictor.get("users", "/users/1");
        assert!(answer.text().starts_with("a GET /users/1 HTTP/2.0 0"), "{}", answer.text());
    }
    eventually_is(
        "one connection is shared",
        || lictor.metric("lictor_upstream_connections", &[]),
        |open| *open <= 2.0,
    );
}

#[test]
fn the_forward_proxy_reaches_its_services_and_nothing_else() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let proxy = lictor.address("forward");
    let absolute = request(&proxy, "GET", "http://users/by-url", &[("host", "users")], b"").unwrap();
    assert!(absolute.text().starts_with("a GET /by-url "), "{}", absolute.text());
    let by_host = request(&proxy, "GET", "/by-host", &[("host", "users:80")], b"").unwrap();
    assert!(by_host.text().starts_with("a GET /by-host "), "{}", by_host.text());
    let stranger = request(&proxy, "GET", "http://strangers/", &[], b"").unwrap();
    assert_eq!((stranger.status, stranger.header("x-lictor-reason")), (502, "unknown_upstream"));
    let loopback = request(&proxy, "GET", &format!("http://{}/", lictor.admin()), &[], b"").unwrap();
    assert_eq!((loopback.status, loopback.header("x-lictor-reason")), (403, "forbidden"));
    assert_eq!(backend.hits(), 2);
}

#[test]
fn trailers_pass() {
    use std::io::{Read, Write};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";
        stream.write_all(answer).unwrap();
    });
    let yaml = format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut client = std::net::TcpStream::connect(lictor.address("users")).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    serving.join().unwrap();
    assert!(answer.contains("hello") && answer.to_lowercase().contains("x-sum: 42"), "{answer}");
}

#[test]
fn websockets_are_joined() {
    use std::io::{Read, Write};
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = echo.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        stream.write_all(&said).unwrap();
        String::from_utf8(head).unwrap()
    });
    let yaml = format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut client = std::net::TcpStream::connect(lictor.address("users")).unwrap();
    client.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello");
    assert!(server.join().unwrap().to_lowercase().contains("upgrade: echo"));
}

#[test]
fn routes_have_policies_and_labels_of_their_own() {
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller_of(
        &[&backend],
        ", breaker: off, retry: {delays: [1ms]}, routes: [{match: 'GET /users/{id}', retry: off}]",
    );
    lictor.get("users", "/users/1");
    assert_eq!(backend.hits(), 1, "the route does not retry");
    lictor.get("users", "/other");
    assert_eq!(backend.hits(), 4, "the upstream does");
    let labelled = [("route", "/users/{id}"), ("code", "503")];
    assert!((lictor.metric("lictor_upstream_requests_total", &labelled) - 1.0).abs() < 0.1);
}

#[test]
fn a_header_picks_the_same_endpoint_again_and_again() {
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::start).into();
    let all: Vec<&Backend> = backends.iter().collect();
    let lictor = caller_of(&all, ", balance: {ring_hash: {header: X-User}}");
    let pick = |user: &str| {
        request(&lictor.address("users"), "GET", "/", &[("X-User", user)], b"").unwrap().header("x-backend").to_owned()
    };
    for user in ["ann", "bob", "cyd"] {
        let first = pick(user);
        assert!((0..5).all(|_| pick(user) == first));
    }
}

#[test]
fn a_requests_line_is_as_loud_as_its_status_is_said_to_be() {
    let backend = Backend::start("a");
    for (log, said) in [
        ("{}", [(200, Some("INFO")), (404, Some("ERROR")), (410, Some("ERROR")), (503, Some("ERROR"))]),
        (
            "{levels: {4xx: warn, 404: info, 5xx: error}}",
            [(200, Some("INFO")), (404, Some("INFO")), (410, Some("WARN")), (503, Some("ERROR"))],
        ),
        (
            "{access: errors, levels: {404: info, 410: warn}}",
            [(200, None), (404, None), (410, Some("WARN")), (503, Some("ERROR"))],
        ),
    ] {
        let yaml = format!(
            "registration: off\nlog: {log}\nupstreams: {{users: {{listen: 0, retry: off, breaker: off, static: ['127.0.0.1:{}']}}}}\n",
            backend.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        for (status, _) in said {
            backend.answers(status);
            assert_eq!(lictor.get("users", &format!("/{status}")).status, status);
        }
        // The last one is always told.
        eventually_is(
            "the lines are there",
            || lictor.lines("request"),
            |lines| lines.iter().any(|line| line["status"] == 503),
        );
        let lines = lictor.lines("request");
        for (status, level) in said {
            let line = lines.iter().find(|line| line["status"] == status);
            assert_eq!(line.and_then(|line| line["level"].as_str()), level, "{status} with {log}");
        }
    }
}
