//! Keys of the configuration that nothing else here turns: each makes the difference that its page promises.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use lictor_testkit::{
    Authority, Backend, RawServer, Sidecar, connect, eventually_is, get_over, read_head, request, tls_client,
};
use parking_lot::{Condvar, Mutex};
use rustls::version::{TLS12, TLS13};

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

/// What counts as a failure: each with statuses that open it, and that do not.
#[test]
fn breaker_failure_says_what_counts() {
    let backend = Backend::start("a");
    let opens = |failure: &str, status: u16| {
        backend.answers(status);
        let breaker = format!("breaker: {{failure_threshold: 2, error_rate: off, failure: {failure}}}");
        let lictor = caller(&[backend.port()], &format!(", retry: off, ejection: off, {breaker}"));
        (0..3).map(|_| lictor.get("users", "/").header("x-lictor-reason").to_owned()).any(|it| it == "breaker_open")
    };
    assert_eq!((opens("[5xx]", 500), opens("[503]", 500), opens("[503]", 503)), (true, false, true));
    assert_eq!((opens("[429]", 429), opens("[5xx]", 429), opens("[connect_failure]", 503)), (true, false, false));
}

/// Requests wait here for as long as it is shut.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    waiting: Mutex<usize>,
}

#[test]
fn breaker_half_open_max_is_how_many_probes_there_are_at_a_time() {
    for probes in [1, 3] {
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let backend = RawServer::start(move |mut stream| {
            while read_head(&mut stream).contains("\r\n") {
                let mut is_shut = held.is_shut.lock();
                let status = if *is_shut { "200 OK" } else { "500 Oh" };
                if *is_shut {
                    *held.waiting.lock() += 1;
                    held.opened.wait_while(&mut is_shut, |is_shut| *is_shut);
                }
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let breaker = format!("breaker: {{failure_threshold: 1, recovery_timeout: 100ms, half_open_max: {probes}}}");
        let lictor = caller(&[backend.port()], &format!(", retry: off, ejection: off, timeout: none, {breaker}"));
        assert_eq!(lictor.get("users", "/").status, 500);
        // The answer is there before it is judged.
        eventually_is("it is open", || lictor.page("/breakers")["users"]["opened_total"].clone(), |count| *count == 1);
        *gate.is_shut.lock() = true;
        let address: Arc<str> = lictor.address("users").into();
        let ask = || {
            let address = Arc::clone(&address);
            std::thread::spawn(move || request(&address, "GET", "/", &[], b"").map_or(0, |answer| answer.status));
            *gate.waiting.lock()
        };
        eventually_is("probes are sent", ask, |waiting| *waiting == probes);
        for _ in 0..5 {
            assert_eq!(lictor.get("users", "/").header("x-lictor-reason"), "breaker_open", "{probes} are enough");
        }
        assert_eq!((*gate.waiting.lock(), &lictor.page("/breakers")["users"]["state"]), (probes, &"half-open".into()));
        *gate.is_shut.lock() = false;
        gate.opened.notify_all();
    }
}

#[test]
fn breaker_success_threshold_is_how_many_good_probes_close_it_and_recovery_timeout_when_they_go() {
    let backend = Backend::start("a");
    for threshold in [1, 2, 4] {
        let breaker =
            format!("breaker: {{failure_threshold: 1, recovery_timeout: 100ms, success_threshold: {threshold}}}");
        let lictor = caller(&[backend.port()], &format!(", retry: off, ejection: off, {breaker}"));
        backend.answers(500);
        assert_eq!(lictor.get("users", "/").status, 500);
        backend.answers(200);
        eventually_is("the first one is sent", || lictor.get("users", "/").status, |status| *status == 200);
        let state = || lictor.page("/breakers")["users"]["state"].clone();
        for _ in 1..threshold {
            assert_eq!(state(), "half-open", "of {threshold}");
            assert_eq!(lictor.get("users", "/").status, 200);
        }
        assert_eq!(state(), "closed", "of {threshold}");
    }
    let lictor = caller(&[backend.port()], ", retry: off, breaker: {failure_threshold: 1, recovery_timeout: 1h}");
    backend.answers(500);
    assert_eq!(lictor.get("users", "/").status, 500);
    let next = lictor.page("/breakers")["users"]["next_probe_ms"].as_u64().unwrap();
    assert!((1000..=5000).contains(&next), "5 s at first, however long it may be: {next}");
}

#[test]
fn breaker_slow_call_window_is_how_far_back_slow_answers_count() {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_millis(60));
    for (window, is_open) in [("10m", true), ("100ms", false)] {
        let slow_call = format!("slow_call: {{over: 20ms, ratio: 50%, min_requests: 4, window: {window}}}");
        let lictor = caller(&[backend.port()], &format!(", breaker: {{{slow_call}}}"));
        let statuses: Vec<u16> = (0..6).map(|_| lictor.get("users", "/").status).collect();
        assert_eq!(statuses.contains(&503), is_open, "{window}: {statuses:?}");
    }
}

#[test]
fn hedge_max_is_how_many_copies_there_are_of_one_request() {
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    let ports = backends.each_ref().map(Backend::port);
    for max in [1, 2] {
        let before: u64 = backends.iter().map(Backend::hits).sum();
        for backend in &backends {
            backend.delays(Duration::from_millis(1500));
        }
        let lictor =
            caller(&ports, &format!(", hedge: {{after: 10ms, max: {max}}}, retry: {{budget: {{ratio: 100%}}}}"));
        assert_eq!(lictor.get("users", "/").status, 200);
        assert_eq!(backends.iter().map(Backend::hits).sum::<u64>() - before, 1 + max, "max: {max}");
    }
}

#[test]
fn retry_on_says_what_is_tried_again() {
    let backend = Backend::start("a");
    let attempts = |on: &str, status: u16| {
        let before = backend.hits();
        backend.answers(status);
        let retry = format!("retry: {{attempts: 3, delays: [1ms], on: {on}}}");
        caller(&[backend.port()], &format!(", breaker: off, ejection: off, {retry}")).get("users", "/");
        backend.hits() - before
    };
    assert_eq!((attempts("[500]", 500), attempts("[500]", 503), attempts("[503]", 503)), (3, 1, 3));
    assert_eq!((attempts("[5xx]", 501), attempts("[reset]", 503), attempts("[429, 500]", 429)), (3, 1, 3));
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
fn trace_service_name_and_resource_are_told_of_the_spans() {
    let backend = Backend::start("a");
    for (more, there, not_there) in [
        ("", &["orders"][..], "wanted"),
        (", service_name: wanted", &["wanted"], "orders"),
        (
            ", resource: {deployment.environment: staging, team: 7}",
            &["deployment.environment", "staging", "team"],
            "wanted",
        ),
    ] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (kept, none) = (Arc::clone(&told), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let receiver = RawServer::start(move |mut stream| {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                kept.lock().extend_from_slice(&chunk[..count]);
                let _ = stream.write_all(none.as_bytes());
            }
        });
        let trace = format!(
            "trace: {{otlp: 'http://127.0.0.1:{}', protocol: http/protobuf, sample: 100%{more}}}\n",
            receiver.port()
        );
        let lictor = of(&format!("{trace}{}", users(&[backend.port()], "")));
        lictor.get("users", "/");
        let text = || String::from_utf8_lossy(&told.lock()).into_owned();
        let text = eventually_is(more, text, |text| there.iter().all(|part| text.contains(part)));
        assert!(!text.contains(not_there), "{more}: {text}");
    }
}

/// The forward proxy's listener takes what an upstream's takes (`tls.rs`, `streams.rs`).
#[test]
fn outbound_proxy_speaks_tls_asks_for_certificates_and_ends_old_connections() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let pair = authority.issue("server", &["localhost"]);
    let lictor = |more: &str| {
        of(&format!("outbound: {{proxy: {{address: '127.0.0.1:0', {more}}}}}\n{}", users(&[backend.port()], "")))
    };
    let (cert, key, ca) = (pair.cert.display(), pair.key.display(), authority.ca());
    let plain = format!("tls: {{cert: '{cert}', key: '{key}'}}");
    let asks = format!("tls: {{cert: '{cert}', key: '{key}', client_ca: '{}'}}", ca.display());
    let identity = authority.issue("client", &["orders"]);
    for (tls, shown, is_served) in [(&plain, None, true), (&asks, None, false), (&asks, Some(&identity), true)] {
        let lictor = lictor(tls);
        let config = authority.client_config(&[], &[&TLS12, &TLS13], shown);
        let mut client = tls_client(&config, &lictor.address("forward"), "localhost");
        let answer = get_over(&mut client, "http://users/x");
        assert_eq!(answer.as_ref().is_ok_and(|answer| answer.contains("a GET /x")), is_served, "{answer:?}");
    }
    let lictor = lictor("max_connection_age: 200ms");
    let mut client = connect(&lictor.address("forward"));
    let is_last = || {
        client.write_all(b"HEAD http://users/ HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        read_head(&mut client).to_lowercase()
    };
    eventually_is("the connection's last answer says so", is_last, |head| head.contains("connection: close"));
}

#[test]
fn outbound_env_and_proxy_env_are_what_the_application_is_told() {
    for (outbound, url, proxy) in [
        ("{proxy: 0}", "http://127.0.0.1:", ""),
        ("{proxy: 0, env: false}", "", ""),
        ("{proxy: 0, proxy_env: true}", "http://127.0.0.1:", "http://127.0.0.1:"),
        ("{proxy: 0, env: false, proxy_env: true}", "", "http://127.0.0.1:"),
        ("{proxy_env: true}", "http://127.0.0.1:", ""),
    ] {
        let yaml = format!("registration: off\noutbound: {outbound}\n{}", users(&[1], ""));
        let script = "echo \"told url=[$USERS_URL] proxy=[$HTTP_PROXY] direct=[$NO_PROXY]\"";
        let mut lictor = Sidecar::start(LICTOR, &yaml, &[], &["run"], &["--", "sh", "-c", script]);
        assert!(lictor.wait().success(), "{outbound}");
        let log = eventually_is(outbound, || lictor.log(), |log| log.contains("told url="));
        let told = |name: &str| {
            let value = log.split(&format!("{name}=[")).nth(1).and_then(|rest| rest.split(']').next());
            value.unwrap().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
        };
        assert_eq!((told("url"), told("proxy")), (url.to_owned(), proxy.to_owned()), "{outbound}");
        assert_eq!(log.contains("localhost"), !proxy.is_empty(), "{outbound}: {log}");
    }
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
