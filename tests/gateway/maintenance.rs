//! A gateway, or a route of it, is in maintenance.

use std::io::{Read, Write};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lictor_testkit::{Consul, RawServer, Sidecar, connect, eventually_is, read_head, scratch};
use serde_json::json;

use crate::from_consul::register;
use crate::issuer::{SECRET, claims, shared};
use crate::{Ask, BOTH, LICTOR, Told, Version, ask, ask_over, echo, echo_once, field, gateway_of, line_of};

const ROUTES: &str = "  - {path: /a/*, to: one}
  - {path: /a/*, methods: [POST], to: one}
  - {path: /here, to: one, maintenance: {retry_after: 7s, allow: [127.0.0.0/8]}}
  - {path: /away, to: one, maintenance: {retry_after: 7s}}
  - {path: /on, to: one, maintenance: true}
  - {path: /up, to: one, maintenance: off}
  - {path: /moved, redirect: /a/x}
  - {path: /told, respond: {body: hello}}\n";

fn get(lictor: &Sidecar, version: Version, target: &str, fields: &[(&str, &str)]) -> Told {
    ask(lictor, version, Ask { fields, ..Ask::get(target) })
}

fn await_status(lictor: &Sidecar, target: &str, status: u16) {
    for version in BOTH {
        eventually_is(target, || get(lictor, version, target, &[]).status, |seen| *seen == status);
    }
}

/// What each of these is answered, by either version.
fn assert_statuses(lictor: &Sidecar, expected: &[(&str, u16)]) {
    for version in BOTH {
        for (target, status) in expected {
            assert_eq!(get(lictor, version, target, &[]).status, *status, "{version:?} {target}");
        }
    }
}

fn says(lictor: &Sidecar, words: &[&str]) -> String {
    let (file, admin) = (lictor.file(), lictor.admin());
    crate::says(&[words, &["-c", file.to_str().unwrap(), "--admin", &admin]].concat())
}

fn order(lictor: &Sidecar, words: &[&str]) -> String {
    says(lictor, &[&["maintenance"], words].concat())
}

fn retry_after(lictor: &Sidecar, target: &str) -> u64 {
    let told = get(lictor, Version::Http1, target, &[]);
    field(&told.head, "retry-after").and_then(|wait| wait.parse().ok()).unwrap_or_default()
}

fn routes_in_maintenance(lictor: &Sidecar) -> u64 {
    lictor.metric("lictor_gateway_maintenance_routes", &[]) as u64
}

#[test]
fn one_command_puts_the_gateway_into_maintenance_and_out_again() {
    let one = echo_once("one");
    let keys = "  cors: {origins: ['https://app.example']}\n  errors: problem\n  maintenance: {retry_after: 90s}\n";
    let lictor = gateway_of(&[("one", &one)], keys, ROUTES);
    let at_rest =
        [("/a/x", 200), ("/here", 200), ("/away", 200), ("/on", 503), ("/up", 200), ("/moved", 308), ("/told", 200)];
    assert_statuses(&lictor, &at_rest);
    assert_eq!(routes_in_maintenance(&lictor), 1);
    let told = order(&lictor, &["on"]);
    assert!(told.contains("at this gateway; until a restart: `consul.snapshot` would keep it"), "{told}");
    assert!(told.contains("in maintenance: /a/* on, /away on"), "{told}");
    await_status(&lictor, "/a/x", 503);
    let before = one.connections();
    assert_statuses(
        &lictor,
        &[("/a/x", 503), ("/away", 503), ("/on", 503), ("/moved", 503), ("/told", 503), ("/none", 404)],
    );
    for version in BOTH {
        let told = get(&lictor, version, "/a/x", &[("origin", "https://app.example")]);
        assert!(told.head.contains("https://app.example") && told.head.contains("problem+json"), "{told:?}");
        assert!(told.body.contains("maintenance"), "{told:?}");
        // A client's own word of where it comes from is no word.
        let forged = [("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1"), ("forwarded", "for=127.0.0.1")];
        assert_eq!(get(&lictor, version, "/away", &forged).status, 503);
        assert_eq!(ask(&lictor, version, Ask { method: "POST", ..Ask::get("/a/x") }).status, 503, "of that label, too");
        let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
        assert_eq!(
            ask(&lictor, version, Ask { method: "OPTIONS", fields: &preflight, ..Ask::get("/a/x") }).status,
            204
        );
    }
    assert_eq!((retry_after(&lictor, "/a/x"), retry_after(&lictor, "/away")), (90, 7));
    assert_eq!(one.connections(), before, "nobody behind it is asked for what is refused");
    assert_statuses(&lictor, &[("/here", 200), ("/up", 200)]);
    let line = line_of(&lictor, |line| line["reason"] == "maintenance" && line["route"] == "/a/*");
    assert_eq!(line["status"], 503, "{line}");
    lictor.post("/reload");
    assert_statuses(&lictor, &[("/a/x", 503), ("/up", 200)]);

    let told = order(&lictor, &["off"]);
    assert!(told.contains("still in maintenance, by the configuration or other orders: /on on"), "{told}");
    await_status(&lictor, "/a/x", 200);
    assert_statuses(&lictor, &at_rest);
}

#[test]
fn an_order_is_about_a_route_and_ends_by_itself() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], "", ROUTES);
    for (words, message) in [
        (&["on", "--route", "/nowhere"][..], "no route is named /nowhere"),
        (&["on", "--route", "/A/*"], "no route is named /A/*"),
        (&["on", "--for", "0s"], "more than nothing"),
        (&["on", "--for", "31d"], "at most 30d"),
        (&["on", "--for", "soon"], "takes a duration"),
        (&["off", "--for", "5m"], "has no `for`"),
        (&["perhaps"], "invalid value"),
    ] {
        let told = order(&lictor, words);
        assert!(told.contains(message), "{words:?}: {told}");
    }
    for (page, status) in
        [("/maintenance", 400), ("/maintenance?state=maybe", 400), ("/maintenance?state=on&for=x", 400)]
    {
        assert_eq!(lictor.post(page).status, status, "{page}");
    }
    assert_eq!(lictor.get("admin", "/maintenance?state=on").status, 405);
    assert_eq!(routes_in_maintenance(&lictor), 1);

    let told = order(&lictor, &["on", "--route", "/a/*", "--for", "1h"]);
    assert!(told.contains("/a/* until ") && told.contains("/on on") && !told.contains("/away"), "{told}");
    await_status(&lictor, "/a/x", 503);
    let wait = retry_after(&lictor, "/a/x");
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_statuses(&lictor, &[("/away", 200), ("/told", 200)]);
    assert_eq!(routes_in_maintenance(&lictor), 3);
    let health = lictor.page("/health");
    assert_eq!(health["checks"]["maintenance"]["status"], "warning", "{health}");
    assert_eq!(health["checks"]["maintenance"]["message"], "3 of 8 routes in maintenance", "{health}");
    assert_eq!((&health["status"], &lictor.page("/ready")["status"]), (&"healthy".into(), &"ready".into()));
    let table = says(&lictor, &["routes"]);
    let row = table.lines().find(|line| line.contains("/a/*")).unwrap_or_default();
    assert!(table.contains("maintenance") && row.contains("until "), "{table}");
    let frame = lictor.page("/ui/data");
    let row = frame["gateway"]["rows"].as_array().unwrap().iter().find(|row| row["route"] == "/a/*").unwrap();
    assert!(row["maintenance"].as_str().unwrap().starts_with("until "), "{row}");
    let told = says(&lictor, &["explain", "GET", "http://shop.example/a/x"]);
    assert!(told.contains("the route /a/* is in maintenance (until "), "{told}");
    let told = says(&lictor, &["explain", "GET", "http://shop.example/away"]);
    assert!(!told.contains("maintenance"), "{told}");

    // The longer of both holds; and a route that says `off` obeys an order about itself.
    order(&lictor, &["on"]);
    order(&lictor, &["off", "--route", "/a/*"]);
    assert_statuses(&lictor, &[("/a/x", 503), ("/up", 200)]);
    order(&lictor, &["on", "--route", "/up"]);
    await_status(&lictor, "/up", 503);
    assert!(order(&lictor, &["off"]).contains("/on on"));
    await_status(&lictor, "/up", 200);
    order(&lictor, &["on", "--route", "/a/*", "--for", "1ms"]);
    await_status(&lictor, "/a/x", 200);
    assert_eq!(routes_in_maintenance(&lictor), 1);
    let told = || lictor.lines("what is in maintenance by order").len();
    eventually_is("the log has the orders", told, |count| *count >= 4);
}

#[test]
fn who_looks_after_it_is_served() {
    let one = echo("one");
    let keys = format!(
        "  trusted_proxies: [127.0.0.1]\n  auth: {{mode: optional, jwt: {{secret: {SECRET}}}}}\n  maintenance:\n    enabled: true\n    allow: {{addresses: [192.0.2.0/24, '2001:db8::/32'], headers: {{X-Preview: open sesame}}, claims: {{role: [ops, admin]}}}}\n"
    );
    let routes = "  - {path: /*, to: one}\n  - {path: /strict, to: one, auth: required}\n  - {path: /open, to: one, auth: none}\n  - {path: /closed, to: one, maintenance: {allow: []}}\n  - {path: /rich, to: one, auth: {require: {roles: gold}}}\n";
    let lictor = gateway_of(&[("one", &one)], &keys, routes);
    let bearer = |role: &str| format!("Bearer {}", shared(&claims(json!({"role": role}))));
    let (ops, user) = (bearer("ops"), bearer("user"));
    let forged = format!("{ops}x");
    for (fields, statuses) in [
        (&[][..], [503; 4]),
        (&[("x-forwarded-for", "192.0.2.7")], [200, 401, 200, 503]),
        (&[("x-forwarded-for", "2001:db8::7")], [200, 401, 200, 503]),
        (&[("x-forwarded-for", "198.51.100.7")], [503; 4]),
        (&[("x-forwarded-for", "192.0.2.7, 198.51.100.7")], [503; 4]),
        (&[("x-forwarded-for", "198.51.100.7, 192.0.2.7")], [200, 401, 200, 503]),
        (&[("x-forwarded-for", "nobody")], [503; 4]),
        (&[("x-preview", "open sesame")], [200, 401, 200, 503]),
        (&[("x-preview", "Open sesame")], [503; 4]),
        (&[("x-preview", "")], [503; 4]),
        (&[("x-preview", "open sesame"), ("x-preview", "open sesame")], [503; 4]),
        (&[("authorization", &*ops)], [200, 200, 503, 503]),
        (&[("authorization", &*user)], [503; 4]),
        (&[("authorization", &*forged)], [503; 4]),
    ] {
        for version in BOTH {
            let asked = ["/x", "/strict", "/open", "/closed"];
            let told = asked.map(|target| get(&lictor, version, target, fields));
            assert_eq!(told.each_ref().map(|told| told.status), statuses, "{version:?} {fields:?}: {told:?}");
            let challenged = told.iter().filter(|told| told.status == 503 && told.head.contains("Bearer"));
            assert_eq!(challenged.count(), 0, "{version:?} {fields:?}: {told:?}");
        }
    }
    for (field, is_served) in [("X-Preview: open sesame", true), ("X-Preview: no", false)] {
        let told = says(&lictor, &["explain", "GET", "http://shop.example/x", "-H", field]);
        assert_eq!(told.contains("is in maintenance (on), but for `maintenance.allow`"), !is_served, "{told}");
    }
    let explained = |target: &str| {
        let url = format!("http://shop.example{target}");
        says(&lictor, &["explain", "GET", &url, "-H", &format!("Authorization: {ops}")])
    };
    let told = explained("/x");
    assert!(told.contains("It would go to ") && !told.contains("is in maintenance"), "{told}");
    // Who may pass, and may not have what is there, hears of maintenance, as the others do.
    for version in BOTH {
        assert_eq!(get(&lictor, version, "/rich", &[("authorization", &ops)]).status, 503, "{version:?}");
    }
    let told = explained("/rich");
    assert!(told.contains("is in maintenance"), "{told}");
}

#[test]
fn what_the_gateway_answers_before_any_route_goes_on() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], "  redirect_http: 127.0.0.1:0\n", ROUTES);
    order(&lictor, &["on"]);
    await_status(&lictor, "/a/x", 503);
    for version in BOTH {
        let stream = connect(&lictor.address("redirect_http"));
        assert_eq!(ask_over(stream, version, Ask::get("/a/x")).status, 301, "{version:?}");
    }
}

const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
const SOCKET: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn what_is_open_goes_on_and_every_kind_of_request_is_refused() {
    let events = RawServer::start(|mut stream| {
        let _ = (read_head(&mut stream), stream.write_all(EVENTS));
        let _ = (stream.read(&mut [0; 64]), ()); // until it is left
    });
    let socket = RawServer::start(|mut stream| {
        let _ = (read_head(&mut stream), stream.write_all(SOCKET));
        let mut bytes = [0; 4];
        while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
    });
    let routes = "  - {path: /events, to: events}\n  - {path: /socket, to: socket}\n  - {path: /svc/*, to: events}\n";
    let lictor = gateway_of(&[("events", &events), ("socket", &socket)], "", routes);
    let open = |target: &str, fields: &str| {
        let mut stream = connect(&lictor.address("gateway"));
        write!(stream, "GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n").unwrap();
        let head = read_head(&mut stream);
        (stream, head)
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: echo\r\n";
    let (mut told, head) = open("/events", "");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (mut carried, head) = open("/socket", upgrade);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    order(&lictor, &["on", "--for", "10m"]);
    await_status(&lictor, "/events", 503);
    let mut bytes = [0; 4];
    carried.write_all(b"ping").unwrap();
    carried.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    told.read_exact(&mut [0; 9]).unwrap(); // a chunk's begin, at least
    for (target, fields) in [("/socket", upgrade), ("/events", "Accept: text/event-stream\r\n"), ("/events", "")] {
        let (_, head) = open(target, fields);
        assert!(
            head.starts_with("HTTP/1.1 503 ") && field(&head, "retry-after").is_some(),
            "{target} {fields}: {head}"
        );
    }
    let call = [("content-type", "application/grpc"), ("te", "trailers")];
    let called = ask(&lictor, Version::Http2, Ask { method: "POST", fields: &call, ..Ask::get("/svc/Call") });
    assert!(called.status == 200 && called.head.contains("grpc-status\u{2}14"), "{called:?}");
}

#[test]
fn an_order_is_remembered_through_a_restart() {
    let one = echo("one");
    let snapshot = scratch("maintenance").join("snapshot");
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{snapshot: {{path: '{}'}}}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway: {{listen: '127.0.0.1:0', routes: {{/*: one}}}}\n",
        snapshot.display(),
        one.port()
    );
    let mut lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_statuses(&lictor, &[("/x", 200)]);
    let told = order(&lictor, &["on"]);
    assert!(told.contains("after a restart, too"), "{told}");
    await_status(&lictor, "/x", 503);
    assert!(lictor.terminate().success());
    let mut again = Sidecar::serve(LICTOR, &yaml).up();
    assert_statuses(&again, &[("/x", 503)]); // from the first request
    assert!(order(&again, &["off"]).contains("nothing is in maintenance"));
    await_status(&again, "/x", 200);
    assert!(again.terminate().success());
    let last = Sidecar::serve(LICTOR, &yaml).up();
    assert_statuses(&last, &[("/x", 200)]);
}

#[test]
fn by_kv_it_holds_for_all_gateways_and_for_those_that_come_later() {
    let (mut consul, one) = (Consul::dev(), echo("one"));
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{address: '{}', kv: {{maintenance: 'ops/${{service}}'}}}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway: {{listen: '127.0.0.1:0', routes: [{{path: /*, to: one}}, {{path: /up, to: one, maintenance: off}}]}}\n",
        consul.url(),
        one.port()
    );
    let [first, second] = [(); 2].map(|()| Sidecar::serve(LICTOR, &yaml).up());
    assert_statuses(&first, &[("/x", 200)]);
    assert!(order(&first, &["on", "--route", "/nowhere"]).contains("no route is named /nowhere"));
    let told = order(&first, &["on"]);
    assert!(told.contains("ops/edge is written, for all gateways that read it; in maintenance: /* on"), "{told}");
    await_status(&first, "/x", 503);
    await_status(&second, "/x", 503);
    assert_statuses(&second, &[("/up", 200)]);
    assert_eq!(first.post("/maintenance?state=off").status, 409);
    let third = Sidecar::serve(LICTOR, &yaml).up();
    assert_statuses(&third, &[("/x", 503)]); // from the first request once it is up
    order(&second, &["off"]);
    for lictor in [&first, &second, &third] {
        await_status(lictor, "/x", 200);
    }
    // What is no order counts as none.
    order(&first, &["on"]);
    await_status(&first, "/x", 503);
    consul.put("/v1/kv/ops/edge", &"nonsense".into());
    await_status(&first, "/x", 200);
    assert!(first.log().contains("what is in KV is not of `lictor maintenance`"));
    order(&first, &["on"]);
    await_status(&first, "/x", 503);
    consul.kill();
    assert!(order(&first, &["off"]).contains("cannot read ops/edge"));
    assert_statuses(&first, &[("/x", 503)]); // Consul is away, and it stays as it was
}

#[test]
fn by_kv_a_route_that_a_service_claims_is_named_by_its_place() {
    let (consul, one, orders) = (Consul::dev(), echo("one"), echo("orders"));
    register(&consul, "orders", &orders, &["lictor.route=/api/orders/{id}"]);
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{address: '{}', kv: true}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway:\n  listen: 127.0.0.1:0\n  from_consul: {{allow: {{orders: /api/orders/*}}}}\n  routes: [{{path: /up, to: one, maintenance: off}}]\n",
        consul.url(),
        one.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    await_status(&lictor, "/api/orders/1", 200);
    for route in ["/nowhere", "/api/orders/{id}", "/api/orders/1", "/api/Orders/*"] {
        let told = order(&lictor, &["on", "--route", route]);
        let words = [&*format!("no route is named {route};"), "or a place of `gateway.from_consul.allow`"];
        assert!(words.iter().all(|words| told.contains(words)), "{told}");
        assert!(consul.json("/v1/kv/lictor/edge/maintenance").is_null(), "{route}");
    }
    let claimed = "no route of the configuration is in maintenance; those that services claim are as it was ordered";
    for (words, message, status) in [
        (&["on", "--route", "/api/orders/*"][..], claimed, 503),
        (&["off", "--route", "/api/orders/*"], "nothing is in maintenance", 200),
        (&["on"], claimed, 503),
        (&["off", "--route", "/up"], claimed, 503),
        (&["on", "--route", "/up"], "in maintenance: /up on", 503),
        (&["off"], "nothing is in maintenance", 200),
    ] {
        let told = order(&lictor, words);
        assert!(told.contains(message), "{words:?}: {told}");
        await_status(&lictor, "/api/orders/1", status);
    }
}

#[test]
fn what_the_configuration_has_on_is_shown_without_consul_too() {
    let one = echo("one");
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{address: 'http://127.0.0.1:9', kv: true}}\nlifecycle: {{start_timeout: 1s}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway: {{listen: '127.0.0.1:0', routes: [{{path: /*, to: one}}, {{path: /on, to: one, maintenance: true}}]}}\n",
        one.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    assert_statuses(&lictor, &[("/x", 200), ("/on", 503)]);
    assert_eq!(routes_in_maintenance(&lictor), 1);
    let health = lictor.page("/health");
    assert_eq!(health["checks"]["maintenance"]["message"], "1 of 2 routes in maintenance", "{health}");
    let words = "nothing is known of orders about the gateway's maintenance yet";
    eventually_is(words, || lictor.log(), |log| log.contains(words));
}

#[test]
fn what_is_no_order_is_told_once_for_each_time_that_it_is_written() {
    let (one, asked) = (echo("one"), AtomicU64::new(0));
    // An agent whose waits end at once: `nonsense` is there three times, then `{}`, then an order.
    let agent = RawServer::saying(move |head| {
        if !head.starts_with("GET ") {
            return String::new();
        }
        if !head.starts_with("GET /v1/kv/lictor/edge/maintenance") {
            return "HTTP/1.1 404 Not Found\r\nX-Consul-Index: 1\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        let before = asked.fetch_add(1, Relaxed);
        let (written, value) = match before {
            0..3 => (7, "bm9uc2Vuc2U="),
            3..6 => (8, "e30="),
            _ => (9, "W3sicm91dGUiOm51bGwsInVudGlsX21zIjpudWxsfV0="),
        };
        let body = format!(r#"[{{"ModifyIndex":{written},"Value":"{value}"}}]"#);
        let index = format!("X-Consul-Index: {}\r\nContent-Length: {}", 10 + before, body.len());
        format!("HTTP/1.1 200 OK\r\n{index}\r\n\r\n{body}")
    });
    let yaml = format!(
        "registration: off\nservice: edge\nconsul: {{address: 'http://127.0.0.1:{}', kv: true}}\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway: {{listen: '127.0.0.1:0', routes: {{/*: one}}}}\n",
        agent.port(),
        one.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    await_status(&lictor, "/x", 503);
    eventually_is("the order", || lictor.lines("what is in maintenance by order").len(), |count| *count == 1);
    let told = lictor.lines("what is in KV is not of `lictor maintenance`: nothing is ordered");
    assert_eq!(told.len(), 2, "{told:?}");
}
