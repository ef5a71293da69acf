//! What is answered in place of a failure: another upstream's answer, or one that the configuration gives.

use std::io::Write;

use lictor_testkit::{Backend, RawServer, Sidecar, exchange, read_head, request};

use crate::LICTOR;

/// Nobody listens there.
const NOBODY: u16 = 1;

/// `users` at this port, with more, and `backup` at another, with more.
fn pair(users: u16, more: &str, backup: u16, backup_more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nupstreams:\n  \
         users: {{listen: 0, retry: {{attempts: 2, delays: [1ms]}}, static: ['127.0.0.1:{users}']{more}}}\n  \
         backup: {{listen: 0, retry: off, static: ['127.0.0.1:{backup}']{backup_more}}}\n"
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

fn fell_back(lictor: &Sidecar, upstream: &str, kind: &str) -> u32 {
    lictor.metric("lictor_fallbacks_total", &[("upstream", upstream), ("kind", kind)]) as u32
}

#[test]
fn the_configuration_answers_failures_and_nothing_else() {
    let backend = Backend::start("a");
    let body = r#"fallback: {body: '{"items":[]}'}, breaker: off"#;
    let lictor = pair(backend.port(), &format!(", {body}"), NOBODY, &format!(", {body}"));
    let ask = |upstream: &str, method: &str, headers: &[(&str, &str)]| {
        request(&lictor.address(upstream), method, "/1", headers, b"").unwrap()
    };
    for (status, answered, is_fixed) in
        [(200, 200, false), (301, 301, false), (404, 404, false), (429, 429, false), (500, 200, true), (503, 200, true)]
    {
        backend.answers(status);
        for method in ["GET", "POST", "DELETE"] {
            let answer = ask("users", method, &[]);
            let fallback = if is_fixed { "static" } else { "" };
            assert_eq!((answer.status, answer.header("x-lictor-fallback")), (answered, fallback), "{method} {status}");
            if is_fixed {
                assert_eq!(answer.text(), r#"{"items":[]}"#);
                assert_eq!(answer.header("content-type"), "application/json");
                assert!(!answer.header("x-request-id").is_empty());
            }
        }
    }
    let refused = ask("backup", "GET", &[]);
    assert_eq!((refused.status, refused.header("x-lictor-fallback")), (200, "static"), "no answer at all");
    assert_eq!((fell_back(&lictor, "users", "static"), fell_back(&lictor, "backup", "static")), (6, 1));

    let head = exchange(&lictor.address("backup"), b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "12", 0));
    // What would be no answer to whoever asked.
    let grpc = ask("backup", "POST", &[("Content-Type", "application/grpc"), ("TE", "trailers")]);
    assert_eq!((grpc.header("grpc-status"), grpc.header("x-lictor-fallback")), ("14", ""));
    let upgrade = ask("backup", "GET", &[("Connection", "upgrade"), ("Upgrade", "websocket")]);
    assert_eq!((upgrade.status, upgrade.header("x-lictor-fallback")), (502, ""));
    // A request that goes in circles: its own Via comes back.
    let via = ask("users", "GET", &[]).text();
    assert!(via.contains("items"), "{via}");

    let line = lictor.lines("request").into_iter().find(|line| line["fallback"] == "static").unwrap();
    assert_eq!((line["status"].as_u64(), line["upstream"].as_str()), (Some(200), Some("users")));
}

#[test]
fn an_answer_of_the_configurations_has_its_status_and_kind_by_route() {
    let routes = "routes: [{match: 'GET /html', fallback: {body: '<p>later</p>', status: 503, content_type: text/html}}, \
                  {match: 'GET /none', fallback: none}, {match: 'GET /empty', fallback: {body: '', status: 204}}]";
    let lictor = pair(NOBODY, &format!(", breaker: off, fallback: {{body: all}}, {routes}"), NOBODY, "");
    for (path, status, kind, body) in [
        ("/html", 503, "text/html", "<p>later</p>"),
        ("/empty", 204, "application/json", ""),
        ("/x", 200, "application/json", "all"),
    ] {
        let answer = lictor.get("users", path);
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text().as_str()),
            (status, kind, body),
            "{path}"
        );
    }
    assert_eq!(lictor.get("users", "/none").status, 502);
}

#[test]
fn another_upstream_answers_what_is_harmless_to_send_again() {
    let (users, backup) = (Backend::start("a"), Backend::start("b"));
    for protocol in ["http1", "h2c"] {
        let more = format!(", protocol: {protocol}");
        let lictor = pair(users.port(), ", breaker: off, fallback: {upstream: backup}", backup.port(), &more);
        let ask = |method: &str, headers: &[(&str, &str)], body: &[u8]| {
            let answer = request(&lictor.address("users"), method, "/1", headers, body).unwrap();
            (
                answer.status,
                answer.header("x-backend").to_owned(),
                answer.header("x-lictor-fallback").to_owned(),
                answer.text(),
            )
        };
        let by = |by: &str, status: u16| {
            let told = if by == "b" { "upstream;name=backup" } else { "" };
            (status, by.to_owned(), told.to_owned())
        };
        let short = |(status, by, told, _): (u16, String, String, String)| (status, by, told);
        users.answers(200);
        assert_eq!(short(ask("GET", &[], b"")), by("a", 200));
        users.answers(404);
        assert_eq!(short(ask("GET", &[], b"")), by("a", 404));
        users.answers(503);
        assert_eq!(short(ask("GET", &[], b"")), by("b", 200));
        assert_eq!(short(ask("POST", &[], b"x")), by("a", 503), "a second processing might do harm");
        let put = ask("PUT", &[], b"hello");
        assert!(put.3.starts_with("b PUT /1 ") && put.3.contains(" 5\n"), "{}", put.3);
        assert!(put.3.contains("x-lictor-to: backup/"), "{}", put.3);
        assert_eq!(short(ask("POST", &[("Idempotency-Key", "1")], b"x")), by("b", 200));
        let large = vec![b'x'; 200_000];
        assert_eq!(ask("PUT", &[], &large).0, 503, "the body is gone");
        assert_eq!(fell_back(&lictor, "users", "upstream"), 3);
        let requests =
            |upstream: &str| lictor.metric("lictor_upstream_requests_total", &[("upstream", upstream)]) as u32;
        assert_eq!((requests("users"), requests("backup")), (7, 3), "a request that falls is one of both");
        let line = lictor.lines("request").into_iter().find(|line| line["fallback"] == "upstream").unwrap();
        assert_eq!((line["upstream"].as_str(), line["instead_of"].as_str()), (Some("backup"), Some("users")));
        assert_eq!(line["attempts"].as_str().unwrap().matches('=').count(), 3, "two at users, one at backup: {line}");
        let id = line["request_id"].as_str().unwrap();
        let story = lictor.get("admin", &format!("/requests/{id}?as=text")).text();
        assert!(story.contains("the upstream that stands in"), "{story}");
    }
}

#[test]
fn what_never_left_may_go_to_another_upstream_whatever_its_method() {
    let backup = Backend::start("b");
    let lictor = pair(NOBODY, ", fallback: {upstream: backup}, breaker: {failure_threshold: 2}", backup.port(), "");
    for count in 1..=6 {
        let answer = request(&lictor.address("users"), "POST", "/1", &[], b"hello").unwrap();
        assert!(answer.status == 200 && answer.text().starts_with("b POST /1 HTTP/1.1 5\n"), "{}", answer.text());
        assert_eq!(fell_back(&lictor, "users", "upstream"), count);
    }
    assert_eq!(lictor.page("/breakers")["users"]["state"], "open", "some of them by the breaker");
}

#[test]
fn two_that_stand_in_for_each_other_do_not_go_in_circles() {
    let lictor = pair(NOBODY, ", fallback: {upstream: backup}", NOBODY, ", fallback: {upstream: users, body: last}");
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-fallback")), (502, ""), "backup's own fallback is not asked");
    let answer = lictor.get("backup", "/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "last"), "when users has no answer either");
    assert_eq!((fell_back(&lictor, "backup", "static"), fell_back(&lictor, "users", "upstream")), (1, 0));
}

#[test]
fn an_earlier_answer_comes_before_another_upstream() {
    let (users, backup) = (Backend::start("a"), Backend::start("b"));
    let lictor = pair(users.port(), ", fallback: {stale: 10m, upstream: backup, body: last}", backup.port(), "");
    assert_eq!(lictor.get("users", "/kept").status, 200);
    users.answers(500);
    let told = |path: &str| lictor.get("users", path).header("x-lictor-fallback").to_owned();
    assert!(told("/kept").starts_with("stale;age="));
    assert_eq!(told("/new"), "upstream;name=backup");
    assert_eq!(lictor.get("users", "/new").header("x-backend"), "b", "what stood in is not kept as the answer");
    backup.answers(500);
    assert_eq!(told("/newer"), "static");
    let page = lictor.page("/explain?method=GET&upstream=users&path=/");
    let fallback: Vec<&str> =
        page["policy"]["fallback"].as_array().unwrap().iter().filter_map(|it| it.as_str()).collect();
    assert_eq!(fallback, ["stale up to 600000 ms", "upstream backup", "static 200"]);
}

#[test]
fn an_answer_that_breaks_off_is_not_replaced() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let backup = Backend::start("b");
    let lictor = pair(server.port(), ", fallback: {upstream: backup, body: last}", backup.port(), "");
    let whole = request(&lictor.address("users"), "GET", "/", &[], b"");
    assert!(whole.is_err() || whole.is_ok_and(|answer| answer.body == b"half"), "its head was passed on already");
    assert_eq!(backup.hits(), 0);
}
