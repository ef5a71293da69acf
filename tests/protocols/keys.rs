//! Keys of the configuration that nothing else here turns: each makes the difference that its page promises.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use lictor_testkit::{Backend, RawServer, Sidecar, eventually_is, read_head, request};

use crate::{LICTOR, caller};

fn of(yaml: &str) -> Sidecar {
    Sidecar::serve(LICTOR, &format!("registration: off\nservice: orders\n{yaml}")).up()
}

fn users(ports: &[u16], more: &str) -> String {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    format!("upstreams: {{users: {{listen: 0, static: [{}]{more}}}}}\n", endpoints.join(", "))
}

#[test]
fn deadline_ignore_lets_a_caller_wait_longer_than_it_said() {
    let backend = Backend::start("a");
    backend.delays(Duration::from_millis(400));
    let status = |more: &str| {
        let lictor = caller(&[backend.port()], more);
        request(&lictor.address("users"), "GET", "/", &[("X-Request-Timeout-Ms", "100")], b"").unwrap().status
    };
    assert_eq!((status(""), status(", deadline: ignore"), status(", deadline: propagate")), (504, 200, 504));
}

#[test]
fn breaker_error_rate_opens_by_share_of_so_many_requests() {
    let backend = Backend::start("a");
    let sent = |rate: &str| {
        let before = backend.hits();
        let breaker = format!("breaker: {{failure_threshold: 100, error_rate: {{{rate}}}}}");
        let lictor = caller(&[backend.port()], &format!(", retry: off, ejection: off, {breaker}"));
        for (status, count) in [(200, 5), (500, 5)] {
            backend.answers(status);
            for _ in 0..count {
                lictor.get("users", "/");
            }
        }
        backend.hits() - before
    };
    assert_eq!(sent("threshold: 50%, window: 10m, min_requests: 10"), 10, "the last one opened it");
    assert_eq!(sent("threshold: 25%, window: 10m, min_requests: 7"), 7, "two of seven");
    assert_eq!(sent("threshold: 25%, window: 10m, min_requests: 11"), 10);
}

#[test]
fn breaker_counts_for_the_whole_process_with_any_number_of_workers() {
    let backend = Backend::start("a");
    backend.answers(500);
    for workers in [1, 4] {
        let before = backend.hits();
        let more = ", retry: off, ejection: off, breaker: {failure_threshold: 6, error_rate: off}";
        let lictor = of(&format!("workers: {workers}\n{}", users(&[backend.port()], more)));
        for _ in 0..40 {
            lictor.get("users", "/"); // a connection each, so that each worker has some
        }
        assert_eq!(backend.hits() - before, 6, "{workers} workers");
    }
}

#[test]
fn ejection_takes_so_many_failures_and_so_many_endpoints() {
    let (one, two, good) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    one.answers(500);
    two.answers(500);
    let failed = |ejection: &str, workers: u32| {
        let more = format!(
            ", retry: off, breaker: off, balance: round_robin, slow_start: 0s, panic: 0%, ejection: {ejection}"
        );
        let endpoints = users(&[one.port(), two.port(), good.port()], &more);
        let lictor = of(&format!("workers: {workers}\n{endpoints}"));
        let before = one.hits() + two.hits();
        for _ in 0..60 {
            lictor.get("users", "/");
        }
        one.hits() + two.hits() - before
    };
    for workers in [1, 3] {
        let both = failed("{consecutive: 4, base: 10m, max: 10m, max_percent: 67}", workers);
        assert_eq!(both, 8, "four of each, by {workers} workers");
    }
    assert!(
        failed("{consecutive: 4, base: 10m, max: 10m, max_percent: 66}", 1) >= 25,
        "two of three are more than 66 %"
    );
    assert!(failed("off", 1) >= 38);
}

#[test]
fn pool_max_age_replaces_connections() {
    let server = RawServer::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let lictor = of(&format!("workers: 1\n{}", users(&[server.port()], ", pool: {idle: 10m, max_age: 10m}")));
    for _ in 0..5 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    assert_eq!(server.connections(), 1);
    let server = RawServer::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let lictor = of(&format!("workers: 1\n{}", users(&[server.port()], ", pool: {idle: 10m, max_age: 1ms}")));
    let asked = || {
        assert_eq!(lictor.get("users", "/").status, 200);
        server.connections()
    };
    eventually_is("connections that are too old are replaced", asked, |connections| *connections >= 5);
}

#[test]
fn retry_max_body_is_what_can_be_sent_again() {
    let backend = Backend::start("a");
    backend.answers(503);
    let attempts = |retry: &str, method: &str, routes: &str| {
        let before = backend.hits();
        let more = format!(", breaker: off, ejection: off, retry: {{attempts: 2, delays: [1ms]{retry}}}{routes}");
        let lictor = caller(&[backend.port()], &more);
        request(&lictor.address("users"), method, "/x", &[], &[b'x'; 1000]).unwrap();
        backend.hits() - before
    };
    assert_eq!((attempts("", "PUT", ""), attempts(", max_body: 999", "PUT", "")), (2, 1));
    assert_eq!(attempts(", max_body: 1000", "PUT", ""), 2);
    let harmless = ", routes: [{match: /x, idempotent: true}]";
    assert_eq!((attempts("", "POST", ""), attempts("", "POST", harmless)), (1, 2));
    assert_eq!(attempts(", methods: any", "POST", ", routes: [{match: /x, idempotent: false}]"), 1);
}

#[test]
fn retry_jitter_and_backoff_are_waits() {
    let backend = Backend::start("a");
    backend.answers(503);
    let took = |retry: &str| {
        let lictor =
            caller(&[backend.port()], &format!(", breaker: off, ejection: off, retry: {{attempts: 2, {retry}}}"));
        let began = std::time::Instant::now();
        lictor.get("users", "/");
        began.elapsed()
    };
    assert!(took("delays: [600ms], jitter: 0%") >= Duration::from_millis(600));
    assert!(took("delays: [600ms], jitter: 10%") >= Duration::from_millis(540));
    assert!(took("backoff: {initial: 1ms, factor: 1, max: 1ms, jitter: full}") < Duration::from_millis(600));
}

#[test]
fn cache_coalesce_off_asks_for_each() {
    for (coalesce, asked) in [(true, 1), (false, 4)] {
        let backend = Backend::start("a");
        backend.delays(Duration::from_millis(500));
        let lictor = caller(&[backend.port()], &format!(", cache: {{ttl: 1m, coalesce: {coalesce}}}"));
        let address: Arc<str> = lictor.address("users").into();
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let address = Arc::clone(&address);
                std::thread::spawn(move || request(&address, "GET", "/", &[], b"").unwrap().status)
            })
            .collect();
        for asking in asking {
            assert_eq!(asking.join().unwrap(), 200);
        }
        assert_eq!(backend.hits(), asked, "coalesce: {coalesce}");
    }
}

#[test]
fn trace_keys_say_which_headers_are_sent_and_echoed() {
    let backend = Backend::start("a");
    for (trace, sent, not_sent, is_echoed) in [
        ("{}", &["traceparent: 00-", "x-trace-id: "][..], &["b3: ", "x-b3-traceid: "][..], true),
        ("{legacy_headers: false}", &["traceparent: 00-"], &["x-trace-id: ", "b3: "], false),
        ("{propagate: [b3]}", &["\nb3: "], &["traceparent: ", "x-b3-traceid: "], true),
        ("{propagate: [w3c, b3multi]}", &["traceparent: ", "x-b3-traceid: "], &["\nb3: "], true),
    ] {
        let lictor = of(&format!("trace: {trace}\n{}", users(&[backend.port()], "")));
        let answer = lictor.get("users", "/");
        let seen = answer.text().to_lowercase();
        assert!(sent.iter().all(|header| seen.contains(header)), "{trace}: {seen}");
        assert!(!not_sent.iter().any(|header| seen.contains(header)), "{trace}: {seen}");
        assert_eq!(!answer.header("x-trace-id").is_empty(), is_echoed, "{trace}");
    }
    let flag = |trace: &str| {
        let lictor = of(&format!("trace: {trace}\n{}", users(&[backend.port()], "")));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let answer = request(&lictor.address("users"), "GET", "/", &[("traceparent", parent)], b"").unwrap().text();
        let line = answer.lines().find(|line| line.starts_with("traceparent: ")).unwrap().to_owned();
        line[line.len() - 2..].to_owned()
    };
    assert_eq!((flag("{sample: 0%}"), flag("{sample: 0%, parent_based: false}")), ("01".to_owned(), "00".to_owned()));
}

#[test]
fn metrics_compat_and_otel_are_names_of_others() {
    let backend = Backend::start("a");
    let names = |metrics: &str| {
        let app = format!("port: {}\ninbound: {{listen: '127.0.0.1:0'}}\n", backend.port());
        let lictor = of(&format!("metrics: {metrics}\n{app}{}", users(&[backend.port()], "")));
        lictor.get("users", "/");
        lictor.get("inbound", "/");
        let text = eventually_is(
            "it is counted",
            || lictor.get("admin", "/metrics").text(),
            |text| text.contains("lictor_upstream_requests_total{"),
        );
        (text.contains("\nhttp_requests_total{"), text.contains("\nhttp_client_request_duration_seconds"))
    };
    assert_eq!(names("{}"), (true, false));
    assert_eq!(names("{compat: false, otel: true}"), (false, true));
}

#[test]
fn inbound_verify_service_token_off_asks_for_none() {
    let backend = Backend::start("a");
    let status = |verify: &str| {
        let lictor = of(&format!(
            "port: {}\nservice_token: t0ken\ninbound: {{listen: '127.0.0.1:0'{verify}}}\n",
            backend.port()
        ));
        lictor.get("inbound", "/").status
    };
    assert_eq!((status(""), status(", verify_service_token: false")), (401, 200));
}

#[test]
fn a_server_that_says_nothing_is_given_up_after_per_try_timeout() {
    let silent = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = stream.flush();
        read_head(&mut stream); // until it is closed
    });
    let good = Backend::start("b");
    let lictor =
        caller(&[silent.port(), good.port()], ", per_try_timeout: 200ms, balance: round_robin, retry: {delays: [1ms]}");
    for _ in 0..2 {
        assert_eq!(lictor.get("users", "/").header("x-backend"), "b");
    }
}
