//! The forward proxy: names of services and addresses of their endpoints, by URL or by CONNECT, and nothing else.

use std::io::{Read, Write};

use lictor_testkit::{Backend, RawServer, Sidecar, connect, eventually_is, read_head, request};

use crate::LICTOR;

fn proxy(port: u16, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{static: ['127.0.0.1:{port}']{more}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// Asks for a tunnel; the head that comes back, and what follows it.
fn tunnel(lictor: &Sidecar, target: &str) -> (String, std::net::TcpStream) {
    let mut stream = connect(&lictor.address("forward"));
    write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    (head, stream)
}

#[test]
fn a_tunnel_leads_to_a_service_by_name() {
    let echo = RawServer::echo();
    let lictor = proxy(echo.port(), "");
    for target in ["users:80", "users.service.consul:443", &format!("127.0.0.1:{}", echo.port())] {
        let (head, mut stream) = tunnel(&lictor, target);
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {head}");
        stream.write_all(b"anything").unwrap();
        let mut back = [0; 8];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"anything");
    }
    let done = || lictor.lines("request");
    let lines = eventually_is("the tunnels are logged", done, |lines| lines.len() == 3);
    assert_eq!((lines[0]["method"].as_str(), lines[0]["bytes"].as_u64()), (Some("CONNECT"), Some(8)));
}

#[test]
fn a_tunnel_leads_nowhere_else() {
    let backend = Backend::start("a");
    let stranger = Backend::start("stranger");
    let lictor = proxy(backend.port(), "");
    let by_port = format!("127.0.0.1:{}", stranger.port());
    let admin = lictor.admin();
    for (target, status, reason) in [
        (by_port.as_str(), 403, "forbidden"),
        (admin.as_str(), 403, "forbidden"),
        ("169.254.169.254:80", 403, "forbidden"),
        ("[::1]:80", 403, "forbidden"),
        ("[::ffff:127.0.0.1]:80", 403, "forbidden"),
        ("localhost:80", 502, "unknown_upstream"),
        ("example.org:443", 502, "unknown_upstream"),
        ("0x7f000001:80", 502, "unknown_upstream"),
        ("2130706433:80", 502, "unknown_upstream"),
    ] {
        let (head, _) = tunnel(&lictor, target);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {head}");
        assert!(head.contains(reason), "{target}: {head}");
        let by_url = request(&lictor.address("forward"), "GET", &format!("http://{target}/"), &[], b"").unwrap();
        assert_eq!((by_url.status, by_url.header("x-lictor-reason")), (status, reason), "{target}");
    }
    assert_eq!((backend.hits(), stranger.hits()), (0, 0));
}

#[test]
fn a_tunnel_is_not_for_the_listener_of_an_upstream() {
    let backend = Backend::start("a");
    let lictor = crate::caller(&[backend.port()], "");
    let answer = request(&lictor.address("users"), "CONNECT", "users:80", &[], b"").unwrap();
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (400, "bad_request"));
}

#[test]
fn an_address_of_an_endpoint_is_that_endpoint() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams:\n  users: {{static: ['127.0.0.1:{}', '127.0.0.1:{}']}}\n",
        one.port(),
        two.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let url = format!("http://127.0.0.1:{}/here", two.port());
    for _ in 0..5 {
        let answer = request(&lictor.address("forward"), "GET", &url, &[], b"").unwrap();
        assert!(answer.text().starts_with("two GET /here "), "{}", answer.text());
    }
    assert_eq!(one.hits(), 0);
}

#[test]
fn a_tunnel_that_cannot_be_made_says_why() {
    let [dead] = lictor_testkit::free_ports();
    let lictor = proxy(dead, ", retry: off");
    let (head, _) = tunnel(&lictor, "users:80");
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("connect_refused"), "{head}");
}

#[test]
fn what_follows_a_connect_at_once_is_not_lost() {
    let echo = RawServer::echo();
    let lictor = proxy(echo.port(), "");
    let mut stream = connect(&lictor.address("forward"));
    stream.write_all(b"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\n\r\nearly").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"early");
}
