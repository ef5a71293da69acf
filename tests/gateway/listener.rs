//! The listener: what any listener takes, with a table whose literal keys are all there.

use std::io::{Read, Write};
use std::net::TcpStream;

use lictor_testkit::{Authority, Sidecar, connect, eventually_is, get_over, read_head, tls_client};
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};

use crate::{Ask, BOTH, LICTOR, Version, ask, configuration, echo, field};

/// A gateway whose listener has this too, in front of a server.
fn listening(more: &str, port: u16) -> Sidecar {
    let yaml = format!(
        "registration: off\ngateway: {{listen: {{address: '127.0.0.1:0', {more}}}, routes: [{{path: /x, methods: [GET], headers: {{X-A: 1}}, to: one, idempotent: true}}, {{path: /*, to: one}}]}}\nupstreams: {{one: {{static: ['127.0.0.1:{port}']}}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

#[test]
fn it_speaks_tls_asks_for_certificates_and_ends_old_connections() {
    let (authority, one) = (Authority::new(), echo("one"));
    let pair = authority.issue("server", &["localhost"]);
    let (cert, key, ca) = (pair.cert.display(), pair.key.display(), authority.ca());
    let plain = format!("tls: {{cert: '{cert}', key: '{key}'}}");
    let asks = format!("tls: {{cert: '{cert}', key: '{key}', client_ca: '{}'}}", ca.display());
    let identity = authority.issue("client", &["orders"]);
    for (tls, shown, is_served) in [(&plain, None, true), (&asks, None, false), (&asks, Some(&identity), true)] {
        let lictor = listening(tls, one.port());
        let config = authority.client_config(&[], &[&TLS12, &TLS13], shown);
        let mut client = tls_client(&config, &lictor.address("gateway"), "localhost");
        let answer = get_over(&mut client, "/x");
        let is_told =
            |answer: &String| answer.contains("GET /x HTTP/1.1") && answer.contains("x-forwarded-proto: https");
        assert_eq!(answer.as_ref().is_ok_and(is_told), is_served, "{answer:?}");
    }
    let lictor = listening("max_connection_age: 200ms", one.port());
    let mut client = connect(&lictor.address("gateway"));
    let is_last = || {
        client.write_all(b"HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_head(&mut client).to_lowercase()
    };
    eventually_is("the connection's last answer says so", is_last, |head| head.contains("connection: close"));
}

#[test]
fn a_route_is_for_its_methods_and_fields() {
    let one = echo("one");
    let lictor = listening("max_connection_age: none", one.port());
    let routed = |version: Version, method: &str, fields: &[(&str, &str)]| {
        let told = ask(&lictor, version, Ask { method, fields, ..Ask::get("/x") });
        assert_eq!(told.server(), "one", "{told:?}");
        let lines = lictor.lines("request");
        lines.last().and_then(|line| line["route"].as_str()).unwrap_or_default().to_owned()
    };
    // The line is written once the answer is out.
    for version in BOTH {
        let eventually = |method: &str, fields: &[(&str, &str)], route: &str| {
            eventually_is(route, || routed(version, method, fields), |told| told == route);
        };
        eventually("GET", &[("x-a", "1")], "/x");
        eventually("GET", &[("x-a", "2")], "/*");
        eventually("GET", &[("x-a", "1")], "/x");
        eventually("POST", &[("x-a", "1")], "/*");
        eventually("GET", &[("x-a", "1")], "/x");
        eventually("GET", &[], "/*");
    }
}

#[test]
fn who_keeps_a_connection_to_a_gateway_that_leaves_is_told_to_come_again() {
    const TARGETS: [&str; 3] = ["/x/1", "/told", "/none"];
    let one = echo("one");
    let routes = "    - {path: /x/*, to: one}\n    - {path: /told, respond: {body: told}}\n";
    let text = configuration(&[("one", &one)], "", "", routes);
    let mut lictor = Sidecar::serve(LICTOR, &format!("{text}lifecycle: {{drain_delay: 60s}}\n")).up();
    let says = |stream: &mut TcpStream, target: &str| {
        write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = read_head(stream).to_lowercase();
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).unwrap();
        field(&head, "connection").unwrap_or_default().to_owned()
    };
    for (name, status, told) in
        [("as it is", 200, ""), ("/drain", 503, "close"), ("/undrain", 200, ""), ("SIGTERM", 503, "close")]
    {
        // Some come before and some after; nobody who waits is left.
        let mut kept = TARGETS.map(|target| (target, connect(&lictor.address("gateway"))));
        for (target, stream) in kept.iter_mut().filter(|_| name != "/undrain") {
            assert_eq!(says(stream, target), "", "{name} {target}, before");
        }
        match name {
            "/drain" | "/undrain" => assert_eq!(lictor.post(name).status, 200),
            "SIGTERM" => lictor.signal(Signal::TERM),
            _ => (),
        }
        eventually_is(name, || lictor.get("admin", "/ready").status, |ready| *ready == status);
        for (target, stream) in &mut kept {
            assert_eq!(says(stream, target), told, "{name} {target}, kept");
            assert_eq!(says(&mut connect(&lictor.address("gateway")), target), told, "{name} {target}, new");
        }
    }
    lictor.signal(Signal::TERM); // again: nothing is waited for
    assert!(lictor.wait().success());
}
