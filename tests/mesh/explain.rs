//! What is told of a request afterwards, and beforehand.

use std::io::{Read, Write};

use lictor_testkit::{Answer, Backend, Sidecar, connect, eventually_is, free_ports, request};
use serde_json::Value as Json;

use crate::{LICTOR, caller_of};

/// The stories of the request that was answered so.
fn stories(lictor: &Sidecar, answer: &Answer) -> Vec<Json> {
    stories_of(lictor, answer.header("x-request-id"))
}

fn stories_of(lictor: &Sidecar, id: &str) -> Vec<Json> {
    let page = eventually_is(
        "the story is kept",
        || lictor.page(&format!("/requests/{id}")),
        |page| page["requests"].is_array(),
    );
    page["requests"].as_array().unwrap().clone()
}

/// Writes to an upstream's listener and reads until it ends.
fn send(lictor: &Sidecar, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(&lictor.address("users"));
    let mut answer = Vec::new();
    // A reset is an end too, at any time.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// HTTP/2's preface, SETTINGS, and a HEADERS frame with this field block (RFC 9113, section 6.2).
fn http2(block: &[u8]) -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, (block.len() >> 8) as u8, block.len() as u8, 1, 5, 0, 0, 0, 1];
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &head, block].concat()
}

/// Until there is one that the question is about.
fn listed(lictor: &Sidecar, question: &str) -> Vec<Json> {
    let listed = || lictor.page(&format!("/requests?limit=5000&{question}"))["requests"].as_array().unwrap().clone();
    eventually_is("a story is kept", listed, |stories| !stories.is_empty())
}

#[test]
fn heads_that_cannot_be_read_have_a_story_and_push_no_other_out() {
    let [gone] = free_ports();
    let yaml =
        format!("registration: off\nupstreams: {{users: {{listen: 0, retry: off, static: ['127.0.0.1:{gone}']}}}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let failed = lictor.get("users", "/before").header("x-request-id").to_owned();
    let malformed = http2(&[0x82, 0x86, 0x84, 0, 1, b'X', 1, b'1']); // a name in upper case (section 8.2.1)
    for (bytes, version, detail) in [
        (b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n".to_vec(), "HTTP/1.1", "name"),
        (malformed, "HTTP/2", ""),
        (http2(&[0x80]), "HTTP/2", ""), // index 0 (RFC 7541, section 6.1)
    ] {
        let before = lictor.page("/requests?path=(unreadable")["matching"].as_u64().unwrap();
        let answer = String::from_utf8_lossy(&send(&lictor, &bytes)).into_owned();
        let page = eventually_is(
            "it is kept",
            || lictor.page("/requests?path=(unreadable"),
            |page| page["matching"].as_u64() == Some(before + 1),
        );
        let line = &page["requests"][0];
        assert_eq!((&line["kept"], &line["reason"]), (&Json::from("refused"), &Json::from("bad_request")), "{line}");
        let story = &stories_of(&lictor, line["id"].as_str().unwrap())[0];
        assert_eq!((story["method"].as_str(), story["status"].as_u64()), (Some(version), Some(400)), "{story}");
        assert!(story["detail"].as_str().is_some_and(|told| !told.is_empty() && told.contains(detail)), "{story}");
        assert!(version != "HTTP/1.1" || answer.contains(line["id"].as_str().unwrap()), "{answer}");
        let logged = || lictor.lines("refused").into_iter().any(|logged| logged["request_id"] == line["id"]);
        eventually_is("the log has it", logged, |is_there| *is_there);
    }
    let labels = [("code", "400"), ("reason", "bad_request")];
    assert!((lictor.metric("lictor_requests_refused_total", &labels) - 3.0).abs() < 0.1);

    for _ in 0..150 {
        send(&lictor, b"\x16\x03\x01 nonsense\r\n\r\n");
    }
    let all = || lictor.page("/requests?path=(unreadable")["matching"].clone();
    eventually_is("a hundred are kept", all, |count| *count == 100);
    assert_eq!(stories_of(&lictor, &failed).len(), 1, "the failure before is still there");
}

#[test]
fn an_http2_head_that_is_too_long_is_answered_with_its_story() {
    let lictor = caller_of(&[&Backend::start("a")], "");
    // A field of 3,900 bytes is put into the table, and named twenty times (RFC 7541, sections 6.2.1 and 6.1).
    let field = [&[0x82, 0x86, 0x84, 0x40, 1, b'x', 0x7f, 0xbd, 0x1d], &[b'a'; 3900][..]].concat();
    let answer = send(&lictor, &http2(&[&field[..], &[0xbe; 20]].concat()));
    let told = &listed(&lictor, "reason=headers_too_large")[0];
    assert_eq!(told["status"], 431, "{told}");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("headers_too_large") && text.contains(told["id"].as_str().unwrap()), "{text:?}");
}

#[test]
fn a_tcp_connection_that_cannot_be_made_has_its_story() {
    let [one, other] = free_ports();
    let yaml = format!(
        "registration: off\nupstreams:\n  users:\n    {{listen: 0, protocol: tcp, retry: {{attempts: 2, delays: [1ms]}}, static: ['127.0.0.1:{one}', '127.0.0.1:{other}']}}\n"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_eq!(send(&lictor, b"hello"), b"");
    let id = listed(&lictor, "upstream=users&reason=connect_refused")[0]["id"].as_str().unwrap().to_owned();
    let story = &stories_of(&lictor, &id)[0];
    assert_eq!((story["method"].as_str(), story["status"].as_u64()), (Some("TCP"), Some(502)), "{story}");
    let attempts = story["attempts"].as_array().unwrap();
    let mut tried: Vec<&str> = attempts.iter().map(|attempt| attempt["address"].as_str().unwrap()).collect();
    tried.sort_unstable();
    let mut expected = [format!("127.0.0.1:{one}"), format!("127.0.0.1:{other}")];
    expected.sort_unstable();
    assert_eq!(tried, expected, "{story}");
    assert!(attempts.iter().all(|attempt| attempt["outcome"] == "connect_refused"), "{story}");
    assert_eq!((&attempts[0]["then"]["is_retried"], &attempts[1]["then"]["is_retried"]), (&true.into(), &false.into()));
    assert_eq!(lictor.lines("connection")[0]["request_id"], *id);
    let told = std::process::Command::new(LICTOR).args(["explain", &id, "--admin", &lictor.admin()]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(
        text.starts_with("TCP connection to users: 502 after") && text.contains("lictor says connect_refused"),
        "{text}"
    );
}

#[test]
fn attempts_of_a_connect_are_told_and_counted_once() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\noutbound: {{proxy: 0}}\nupstreams: {{users: {{listen: 0, static: ['127.0.0.1:{}']}}}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut stream = connect(&lictor.address("forward"));
    stream.write_all(b"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let count = lictor.metric("lictor_upstream_attempts_total", &[("outcome", "connected")]);
    assert!((count - 1.0).abs() < 0.1, "{count}");
}

#[test]
fn a_failed_request_has_its_whole_story() {
    let (down, backend) = (free_ports::<1>(), Backend::start("b"));
    backend.answers(503);
    let yaml = format!(
        "registration: off
upstreams:
  users:
    listen: 0
    balance: round_robin
    breaker: off
    static: ['127.0.0.1:{}', '127.0.0.1:{}']
    routes: [{{match: 'GET /users/{{id}}', retry: {{attempts: 2, delays: [1ms]}}, timeout: 7s}}]
",
        down[0],
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let headers = [("X-Request-ID", "order-17"), ("X-Request-Timeout-Ms", "5000")];
    let answer = request(&lictor.address("users"), "GET", "/users/1?token=secret", &headers, b"").unwrap();
    assert_eq!((answer.status, answer.header("x-request-id")), (503, "order-17"));
    let all = stories(&lictor, &answer);
    assert_eq!(all.len(), 1);
    let story = &all[0];
    let text = |key: &str| story[key].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("method"), text("path"), text("upstream")), ("GET".into(), "/users/1".into(), "users".into()));
    assert_eq!(
        (text("kept"), text("route"), text("direction")),
        ("failed".into(), "/users/{id}".into(), "outbound".into())
    );
    assert_eq!(
        (&story["status"], &story["deadline_ms"], &story["policy"]["timeout_ms"]),
        (&503.into(), &5000.into(), &7000.into())
    );
    assert_eq!((&story["policy"]["attempts"], &story["breaker"]["state"]), (&2.into(), &"closed".into()));
    assert!(story["retry_budget_remaining"].as_f64().unwrap() < 1.0, "{story}");
    let attempts = story["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{story:#}");
    let refused = attempts.iter().position(|attempt| attempt["outcome"] == "connect_refused").unwrap();
    assert!(attempts[refused]["detail"].as_str().unwrap().contains("connection refused by"), "{story:#}");
    assert_eq!(attempts[1 - refused]["detail"], "answered 503");
    assert_eq!((&attempts[0]["then"]["is_retried"], &attempts[1]["then"]["is_retried"]), (&true.into(), &false.into()));
    assert_eq!(attempts[1]["then"]["why"], "all attempts that the policy allows were made");
    assert!(attempts[1]["began_ms"].as_f64() > attempts[0]["began_ms"].as_f64());
    assert!(!story.to_string().contains("secret"), "a query is nobody's business: {story}");
}

#[test]
fn requests_are_listed_newest_first_and_by_what_is_asked() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.answers(500);
    let yaml = format!(
        "registration: off
workers: 2
upstreams:
  bad: {{listen: 0, retry: off, breaker: off, static: ['127.0.0.1:{}']}}
  good: {{listen: 0, static: ['127.0.0.1:{}']}}
  none: {{listen: 0, retry: off, static: ['127.0.0.1:{}']}}
",
        bad.port(),
        good.port(),
        free_ports::<1>()[0]
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let ask = |upstream: &str, id: &str| {
        request(&lictor.address(upstream), "GET", &format!("/{id}"), &[("X-Request-ID", id)], b"").unwrap().status
    };
    assert_eq!((ask("bad", "one"), ask("none", "two"), ask("bad", "three")), (500, 502, 500));
    (0..5).for_each(|number| assert_eq!(ask("good", &format!("good-{number}")), 200));
    let ids = |query: &str| {
        let page = lictor.page(&format!("/requests{query}"));
        let ids = page["requests"].as_array().unwrap().iter();
        ids.map(|story| story["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually_is("all failures are kept", || ids("?status=5xx"), |ids| ids == &["three", "two", "one"]);
    assert_eq!(ids("?upstream=bad&limit=1"), ["three"]);
    assert_eq!(ids("?reason=connect_refused"), ["two"]);
    assert_eq!(ids("?status=500&path=/o"), ["one"]);
    let good = ids("?upstream=good");
    assert!(good.len() < 5 && !good.is_empty(), "of good requests a sample is kept, each worker's first: {good:?}");
    let wrong = lictor_testkit::get(&lictor.admin(), "/requests?status=often").unwrap();
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert_eq!(lictor_testkit::get(&lictor.admin(), "/requests/nobody").unwrap().status, 404);
}

#[test]
fn a_post_that_is_not_repeated_says_why() {
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller_of(&[&backend], ", breaker: off");
    let answer = request(&lictor.address("users"), "POST", "/orders", &[("X-Request-ID", "p1")], b"order").unwrap();
    let then = &stories(&lictor, &answer)[0]["attempts"][0]["then"];
    assert_eq!(then["why"], "POST without Idempotency-Key: a second processing might do harm", "{then}");
}

/// What `lictor explain` prints.
fn told(lictor: &Sidecar, what: &[&str]) -> String {
    let output = std::process::Command::new(LICTOR)
        .args(["explain", "--admin", &lictor.admin()])
        .args(what)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_person_is_told_the_story_in_prose() {
    let [port] = free_ports();
    let yaml = format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let headers = [("X-Request-ID", "3 a.m./17")];
    let answer = request(&lictor.address("users"), "GET", "/users/1", &headers, b"").unwrap();
    assert_eq!(answer.status, 502);
    stories_of(&lictor, "3%20a.m.%2F17");
    let text = told(&lictor, &["3 a.m./17"]);
    for part in [
        "GET /users/1 to users: 502 after ",
        ", 3 attempts\n",
        "lictor says connect_refused: users: 3 attempts failed; last: connection refused by",
        "What now: nothing listens there",
        "  1: connection refused by 127.0.0.1:",
        "tried again after ",
        "  3: connection refused by 127.0.0.1:",
        "not tried again: all attempts that the policy allows were made",
        "Policy: no route of its own; timeout 30000 ms",
        "breaker closed (failures in a row: 1;",
        "its caller set no deadline",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn a_request_is_explained_before_it_is_sent() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let yaml = format!(
        "registration: off
workers: 1
upstreams:
  users:
    listen: 0
    balance: round_robin
    static: ['127.0.0.1:{}', '127.0.0.1:{}']
    routes: [{{match: 'POST /orders', timeout: 7s}}]
",
        a.port(),
        b.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let page = |query: &str| lictor.page(&format!("/explain?upstream=users&{query}"));
    for _ in 0..4 {
        let picked = page("path=/")["picked"].as_str().unwrap().to_owned();
        assert_eq!(page("path=/")["picked"], picked, "asking does not take a turn");
        let name = lictor.get("users", "/").header("x-backend").to_owned();
        assert_eq!(picked, format!("127.0.0.1:{}", if name == "a" { a.port() } else { b.port() }));
    }
    assert_eq!(a.hits() + b.hits(), 4, "nothing else was sent");
    let order = page("method=POST&path=/orders%3Fx=1&header=X-Request-Timeout-Ms:50");
    assert_eq!((&order["route"]["path"], &order["policy"]["timeout_ms"]), (&"/orders".into(), &7000.into()));
    assert_eq!((&order["is_idempotent"], &order["deadline_ms"]), (&false.into(), &50.into()));
    let origin = &order["origins"]["timeout"];
    assert!(origin["value"] == "7s" && origin["origin"].as_str().unwrap().contains("lictor.yaml:8:"), "{origin}");
    let after = |page: &Json, reason: &str| {
        let mut cases = page["on_failure"].as_array().unwrap().iter();
        cases.find(|case| case["reason"] == reason).unwrap().clone()
    };
    assert_eq!(after(&order, "connect_refused")["is_retried"], true);
    assert!(after(&order, "status")["why"].as_str().unwrap().starts_with("POST without Idempotency-Key"));
    let keyed = page("method=POST&path=/orders&header=Idempotency-Key:k");
    assert_eq!((&keyed["is_idempotent"], &after(&keyed, "status")["is_retried"]), (&true.into(), &true.into()));
    let shares: Vec<f64> =
        order["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["share"].as_f64().unwrap()).collect();
    assert_eq!(shares, [0.5, 0.5]);
    let nobody = lictor_testkit::get(&lictor.admin(), "/explain?upstream=nobody").unwrap();
    assert!(nobody.status == 404 && nobody.text().contains("unknown_upstream"), "{}", nobody.text());
    let text = told(&lictor, &["POST", "users", "/orders", "-H", "Idempotency-Key: k"]);
    for part in
        ["It would go to 127.0.0.1:", "Policy: route POST /orders; timeout 7000 ms", "7s", "again after 100 ms", "50 %"]
    {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
}

#[test]
fn an_open_breaker_is_explained() {
    let backend = Backend::start("a");
    backend.answers(500);
    let lictor = caller_of(&[&backend], ", retry: off");
    (0..5).for_each(|_| assert_eq!(lictor.get("users", "/").status, 500));
    let page = lictor.page("/explain?upstream=users");
    assert_eq!((&page["refused"]["reason"], &page["refused"]["status"]), (&"breaker_open".into(), &503.into()));
    assert_eq!(page["breaker"]["cause"], "status");
    let text = told(&lictor, &["GET", "users", "/"]);
    assert!(text.contains("It would not be sent: 503 breaker_open: the circuit breaker is open"), "{text}");
}

const DEBUG: (&str, &str) = ("X-Lictor-Debug", "1");

#[test]
fn an_answer_tells_how_it_came_about_to_who_asks() {
    let (good, [gone]) = (Backend::start("good"), free_ports());
    let yaml = format!(
        "registration: off
workers: 1
upstreams:
  users: {{listen: 0, balance: round_robin, static: ['127.0.0.1:{gone}', '127.0.0.1:{}']}}
  kept: {{listen: 0, cache: 1m, static: ['127.0.0.1:{}']}}
",
        good.port(),
        good.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let ask = |upstream: &str, headers: &[(&str, &str)]| {
        request(&lictor.address(upstream), "GET", "/", headers, b"").unwrap()
    };
    // They take turns: one of two requests comes to the one that is gone first.
    let answers = [ask("users", &[DEBUG]), ask("users", &[DEBUG])];
    let answer = answers.iter().find(|answer| answer.header("x-lictor-attempts").contains(", ")).unwrap();
    assert_eq!(
        (answer.status, answer.header("x-lictor-upstream")),
        (200, &*format!("users/127.0.0.1:{}", good.port()))
    );
    let attempts = answer.header("x-lictor-attempts");
    assert!(attempts.contains("=200(") && attempts.contains("=connect_refused("), "{attempts}");
    let timing = answer.header("server-timing");
    let times: Vec<f64> =
        timing.split("dur=").skip(1).map(|time| time.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(timing.starts_with("lictor;dur=") && timing.contains(", upstream;dur=") && times.len() == 2, "{timing}");
    assert!(!answer.text().contains("x-lictor-debug"), "it goes no further: {}", answer.text());
    assert_eq!(stories(&lictor, answer)[0]["kept"], "asked");
    for headers in [&[][..], &[DEBUG, ("X-Forwarded-For", "10.0.0.1")], &[("X-Lictor-Debug", "0")]] {
        let answer = ask("users", headers);
        assert_eq!((answer.status, answer.header("x-lictor-upstream"), answer.header("server-timing")), (200, "", ""));
    }
    assert_ne!(ask("kept", &[DEBUG]).header("x-lictor-upstream"), "");
    let kept = ask("kept", &[]);
    assert!(!kept.header("age").is_empty() && kept.header("x-lictor-upstream").is_empty(), "{kept:?}");
    assert!(ask("kept", &[DEBUG]).header("server-timing").contains("upstream;dur=0"));
}

/// Reads the tap until something of it is as wanted.
fn await_line(tap: &mut impl std::io::BufRead, wanted: impl Fn(&str) -> bool) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(tap.read_line(&mut line).unwrap(), 0, "the tap ended");
        if wanted(&line) {
            return line;
        }
    }
}

fn listen(lictor: &Sidecar, query: &str) -> std::io::BufReader<std::net::TcpStream> {
    use std::io::Write;
    let mut stream = connect(&lictor.admin());
    write!(stream, "GET /tap{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut tap = std::io::BufReader::new(stream);
    await_line(&mut tap, |line| line.starts_with(": listening"));
    tap
}

#[test]
fn a_tap_shows_heads_as_requests_end_without_their_secrets() {
    let (good, bad) = (Backend::start("good"), Backend::start("bad"));
    bad.answers(500);
    let yaml = format!(
        "registration: off
upstreams:
  good: {{listen: 0, static: ['127.0.0.1:{}']}}
  bad: {{listen: 0, retry: off, static: ['127.0.0.1:{}']}}
",
        good.port(),
        bad.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut all = listen(&lictor, "");
    let mut failed = listen(&lictor, "?status=5xx&path=/b");
    let secrets = [
        ("Authorization", "Bearer hunter2"),
        ("Cookie", "session=hunter2"),
        ("X-Service-Auth", "hunter2"),
        ("X-Consul-Token", "hunter2"),
        ("User-Agent", "test/1"),
    ];
    assert_eq!(request(&lictor.address("good"), "GET", "/a?password=hunter2", &secrets, b"").unwrap().status, 200);
    assert_eq!(lictor.get("bad", "/b").status, 500);
    let data = |line: &str| serde_json::from_str::<Json>(line.trim_start_matches("data: ")).unwrap();
    let is_data = |line: &str| line.starts_with("data: ");
    let first = await_line(&mut all, is_data);
    assert!(!first.contains("hunter2"), "{first}");
    let first = data(&first);
    assert_eq!((&first["path"], &first["status"], &first["upstream"]), (&"/a".into(), &200.into(), &"good".into()));
    let has = |fields: &Json, name: &str, value: &str| {
        fields.as_array().unwrap().iter().any(|field| field[0] == name && field[1] == value)
    };
    assert!(has(&first["request_headers"], "authorization", "***"), "{first}");
    assert!(
        has(&first["request_headers"], "user-agent", "test/1") && has(&first["response_headers"], "x-backend", "good")
    );
    assert_eq!(data(&await_line(&mut all, is_data))["path"], "/b");
    assert_eq!(data(&await_line(&mut failed, is_data))["upstream"], "bad", "the other one was not asked for");
}

#[test]
fn the_command_prints_a_line_a_request() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], "");
    let child = std::process::Command::new(LICTOR)
        .args(["tap", "--upstream", "users", "--headers", "--count", "2", "--admin", &lictor.admin()])
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let users = lictor.address("users");
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (over, asking) = (
        std::sync::Arc::clone(&is_over),
        std::thread::spawn({
            let is_over = std::sync::Arc::clone(&is_over);
            move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    request(&users, "GET", "/tapped", &[("Cookie", "hunter2")], b"").unwrap();
                }
            }
        }),
    );
    let output = child.wait_with_output().unwrap();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    asking.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.matches(" 200 GET /tapped users 127.0.0.1:").count() == 2, "{text}");
    assert!(text.contains("  > cookie: ***\n") && text.contains("  < x-backend: a\n"), "{text}");
}
