//! Spans on their way out.

use std::io::{Read, Write};
use std::net::TcpListener;

use lictor_testkit::{Backend, Sidecar, eventually_is, request};

use crate::LICTOR;

fn traced(backend: &Backend, otlp: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\ntrace: {{otlp: '{otlp}', sample: 0%}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn sampled_call(lictor: &Sidecar) {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer =
        request(&lictor.address("users"), "GET", "/users/1", &[("traceparent", parent.as_str())], b"").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_sampled_request_is_a_span_over_otlp_http() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let backend = Backend::start("a");
    let lictor = traced(&backend, &url);
    sampled_call(&lictor);
    let (mut stream, _) = receiver.accept().unwrap();
    let mut seen = Vec::new();
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&TRACE[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let mut chunk = [0; 4096];
    while !seen.windows(16).any(|window| window == id) {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "it ended without the trace: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("POST /v1/traces HTTP/1.1"), "{text}");
    for part in ["service.name", "orders", "url.path", "/users/1", "attempt"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn a_sampled_request_is_a_span_over_otlp_grpc() {
    // It answers without a grpc-status, which the exporter complains about; that the call came is what counts.
    let (backend, receiver) = (Backend::start("a"), Backend::start("collector"));
    let yaml_url = format!("http://127.0.0.1:{}", receiver.port());
    let yaml = format!(
        "registration: off\nservice: orders\ntrace: {{otlp: '{yaml_url}', protocol: grpc}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    sampled_call(&lictor);
    eventually_is("the collector is called", || receiver.hits(), |hits| *hits >= 1);
}

#[test]
fn what_is_not_sampled_is_not_exported_and_a_dead_receiver_harms_nobody() {
    let [gone] = lictor_testkit::free_ports();
    let backend = Backend::start("a");
    let lictor = traced(&backend, &format!("http://127.0.0.1:{gone}"));
    for _ in 0..20 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    sampled_call(&lictor);
    eventually_is("the loss is told once", || lictor.log(), |log| log.contains("spans cannot be exported"));
    assert_eq!(lictor.get("users", "/").status, 200);
}
