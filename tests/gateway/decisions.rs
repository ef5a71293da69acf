//! What a gateway decides is counted, each decision by what it was: whoever reads the metrics sees what was refused, and why.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lictor_testkit::{RawServer, Sidecar, eventually_is, free_ports, read_head};
use serde_json::json;

use crate::issuer::{SECRET, claims, in_seconds, sealed, shared};
use crate::keys::hash;
use crate::{Ask, BOTH, LICTOR, Version, ask, configuration, echo, field, gateway_of};

const KEY: &str = "partner-0123456789abcdefghij";
/// Of `secret`.
const PASSWORD: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
const REQUESTS: &str = "lictor_upstream_requests_total";
const AUTH: &str = "lictor_auth_decisions_total";
const LIMITS: &str = "lictor_limit_decisions_total";
const CORS: &str = "lictor_gateway_cors_decisions_total";
const APP: (&str, &str) = ("origin", "https://app.example");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const ASKS: (&str, &str) = ("access-control-request-method", "PUT");
const GZIP: (&str, &str) = ("accept-encoding", "gzip");

type Labels = &'static [(&'static str, &'static str)];

/// A request, the status of its answer, and the counter that it adds one to.
struct Case<'a> {
    ask: Ask<'a>,
    status: u16,
    counter: (&'static str, Labels),
}

fn get<'a>(target: &'a str, fields: &'a [(&'a str, &'a str)]) -> Ask<'a> {
    Ask { fields, ..Ask::get(target) }
}

fn shows(text: &str) -> [(&'static str, &str); 1] {
    [("authorization", text)]
}

fn session(text: &str) -> [(&'static str, &str); 1] {
    [("x-session", text)]
}

/// Asks over both versions; each adds one.
fn check(lictor: &Sidecar, cases: &[Case<'_>]) {
    for (number, Case { ask: asked, status, counter: (name, labels) }) in cases.iter().enumerate() {
        for version in BOTH {
            let before = lictor.metric(name, labels);
            let told = ask(lictor, version, *asked);
            assert_eq!(told.status, *status, "{number} {version:?} {name} {labels:?}: {told:?}");
            let what = format!("{number} {version:?}: {name} {labels:?}");
            let now = || lictor.metric(name, labels);
            eventually_is(&what, now, |now| (*now - before - 1.0).abs() < 0.5);
        }
    }
}

/// Answers as `X-Session` says.
fn judge() -> RawServer {
    RawServer::start(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            let status = match field(&head, "x-session").unwrap_or_default() {
                "yes" => "200 OK",
                "no" => "403 Forbidden",
                _ => "500 Broken",
            };
            if write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    })
}

#[test]
fn who_asks_is_counted_by_the_way_in_which_he_has_tried() {
    let (one, judge) = (echo("one"), judge());
    let keys = format!(
        "  auth:\n    jwt: {{name: idp, secret: {SECRET}}}\n    keys: {{clients: {{partner: '{}'}}}}\n    basic: {{users: {{ada: '{PASSWORD}'}}}}\n    forward: {{to: judge, path: /, headers_out: [X-Session]}}\n",
        hash(KEY)
    );
    let routes = "    - {path: /*, to: one}\n    - {path: /maybe, to: one, auth: optional}\n    - {path: /scoped, to: one, auth: {require: {scopes: [write]}}}\n";
    let lictor = gateway_of(&[("one", &one), ("judge", &judge)], &keys, routes);
    let bearer = |claims: &serde_json::Value| format!("Bearer {}", shared(claims));
    let (good, over) = (bearer(&claims(json!({}))), bearer(&claims(json!({"exp": in_seconds(-3600)}))));
    let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
    let (right, wrong, nobody) = (basic("ada:secret"), basic("ada:guess"), basic("eve:secret"));
    let case = |ask, status, labels| Case { ask, status, counter: (AUTH, labels) };
    check(
        &lictor,
        &[
            case(get("/", &[]), 401, &[("provider", ""), ("decision", "missing")]),
            case(get("/maybe", &[]), 200, &[("provider", ""), ("decision", "anonymous")]),
            case(get("/", &shows(&good)), 200, &[("provider", "idp"), ("decision", "allowed")]),
            case(get("/", &shows(&over)), 401, &[("provider", "idp"), ("decision", "expired")]),
            case(get("/scoped", &shows(&good)), 403, &[("provider", "idp"), ("decision", "scope")]),
            case(get("/", &shows("Bearer a.b")), 401, &[("provider", ""), ("decision", "not_compact")]),
            case(get("/", &[("x-api-key", KEY)]), 200, &[("provider", "keys"), ("decision", "allowed")]),
            case(get("/", &[("x-api-key", "wrong")]), 401, &[("provider", "keys"), ("decision", "unknown_key")]),
            case(get("/maybe", &[("x-api-key", "wrong")]), 401, &[("provider", "keys"), ("decision", "unknown_key")]),
            case(get("/", &shows(&right)), 200, &[("provider", "basic"), ("decision", "allowed")]),
            case(get("/", &shows(&wrong)), 401, &[("provider", "basic"), ("decision", "unknown_key")]),
            case(get("/", &shows(&nobody)), 401, &[("provider", "basic"), ("decision", "unknown_key")]),
            case(get("/", &session("yes")), 200, &[("provider", "forward"), ("decision", "allowed")]),
            case(get("/", &session("no")), 403, &[("provider", "forward"), ("decision", "denied")]),
            case(get("/", &session("broken")), 503, &[("provider", "forward"), ("decision", "unavailable")]),
            case(
                get("/", &[("authorization", &good), ("x-api-key", KEY)]),
                400,
                &[("provider", ""), ("decision", "several_credentials")],
            ),
            // And by its route, whatever it was refused for.
            Case {
                ask: get("/scoped", &shows(&good)),
                status: 403,
                counter: (
                    REQUESTS,
                    &[("upstream", ""), ("route", "/scoped"), ("code", "403"), ("reason", "forbidden")],
                ),
            },
        ],
    );
}

#[test]
fn a_service_that_does_not_answer_and_is_passed_by_is_counted() {
    let one = echo("one");
    let [nobody] = free_ports();
    let more = format!("  judge: {{static: ['127.0.0.1:{nobody}'], retry: off}}\n");
    let keys = "  auth: {forward: {to: judge, path: /, headers_out: [X-Session], fail_open: true}}\n";
    let yaml = configuration(&[("one", &one)], &more, keys, "    - {path: /*, to: one}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let counter = (AUTH, &[("provider", "forward"), ("decision", "fail_open")][..]);
    check(&lictor, &[Case { ask: get("/", &[("x-session", "yes")]), status: 200, counter }]);
}

#[test]
fn what_limits_and_bounds_refuse_is_counted_by_its_route() {
    let [nobody] = free_ports();
    let routes = "    - {path: /few, respond: {body: few}, limit: {rate: 1/1h, by: [header: X-Id]}}
    - {path: /dry, respond: {body: dry}, limit: {rate: 1/1h, by: [], enforce: false}}
    - {path: /redis, respond: {body: redis}, limit: {rate: 1/1h, by: [], mode: redis, if_unreachable: refuse}}
    - {path: /short, respond: {body: short}, body_max: 10}
    - {path: /headed, respond: {body: headed}, head_max: 1KiB}
    - {path: /moved, redirect: {to: 'https://shop.example/new'}}\n";
    let yaml = format!(
        "registration: off\nservice: edge\nredis: 127.0.0.1:{nobody}\ngateway:\n  listen: 127.0.0.1:0\n  routes:\n{routes}"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for target in ["/few", "/dry"] {
        assert_eq!(ask(&lictor, Version::Http1, get(target, &[("x-id", "1")])).status, 200);
    }
    let long = "x".repeat(2000);
    let id = [("x-id", "1")];
    let case = |ask, status, counter, labels| Case { ask, status, counter: (counter, labels) };
    check(
        &lictor,
        &[
            case(get("/few", &id), 429, LIMITS, &[("limit", "/few"), ("decision", "refused")]),
            case(get("/few", &id), 429, REQUESTS, &[("route", "/few"), ("code", "429"), ("reason", "rate_limited")]),
            case(get("/dry", &[]), 200, LIMITS, &[("limit", "/dry"), ("decision", "would_refuse")]),
            case(get("/dry", &[]), 200, REQUESTS, &[("route", "/dry"), ("code", "200"), ("reason", "")]),
            case(get("/redis", &[]), 503, LIMITS, &[("limit", "/redis"), ("decision", "unavailable")]),
            case(get("/redis", &[]), 503, "lictor_limit_redis_failures_total", &[("cause", "down")]),
            case(
                get("/redis", &[]),
                503,
                REQUESTS,
                &[("route", "/redis"), ("code", "503"), ("reason", "limit_unavailable")],
            ),
            case(
                get("/headed", &[("x-long", &long)]),
                431,
                REQUESTS,
                &[("route", "/headed"), ("code", "431"), ("reason", "headers_too_large")],
            ),
            case(get("/moved", &[]), 308, REQUESTS, &[("upstream", ""), ("route", "/moved"), ("code", "308")]),
            case(get("/none", &[]), 404, REQUESTS, &[("route", ""), ("code", "404"), ("reason", "no_route")]),
            case(get("/a%5cb", &[]), 400, REQUESTS, &[("route", ""), ("code", "400"), ("reason", "bad_request")]),
        ],
    );
    let large = Ask { method: "POST", fields: &[("content-length", "11")], ..Ask::get("/short") };
    assert_eq!(ask(&lictor, Version::Http1, large).status, 413);
    let labels = [("route", "/short"), ("code", "413"), ("reason", "body_too_large")];
    eventually_is("a body is refused", || lictor.metric(REQUESTS, &labels), |count| (*count - 1.0).abs() < 0.5);
}

#[test]
fn what_pages_are_told_is_counted() {
    let one = echo("one");
    let keys = "  cors: {origins: ['https://app.example'], methods: [GET, PUT]}\n";
    let routes = "    - {path: /*, to: one}\n    - {path: /off, to: one, cors: off}\n    - {path: /own, to: one, cors: {origins: ['https://evil.example']}}\n";
    let lictor = gateway_of(&[("one", &one)], keys, routes);
    let all = || lictor.metric(CORS, &[]);
    let case = |ask, status, word| Case { ask, status, counter: (CORS, word) };
    let options = |fields| Ask { method: "OPTIONS", fields, ..Ask::get("/") };
    check(
        &lictor,
        &[
            case(get("/", &[APP]), 200, &[("decision", "allowed")]),
            case(get("/", &[EVIL]), 200, &[("decision", "unlisted")]),
            case(get("/own", &[EVIL]), 200, &[("decision", "allowed")]),
            case(get("/own", &[APP]), 200, &[("decision", "unlisted")]),
            case(get("/", &[APP, APP]), 200, &[("decision", "unlisted")]),
            case(options(&[APP, ASKS]), 204, &[("decision", "preflight")]),
            case(options(&[EVIL, ASKS]), 204, &[("decision", "preflight_unlisted")]),
            case(options(&[APP]), 200, &[("decision", "allowed")]),
        ],
    );
    let before = all();
    for version in BOTH {
        assert_eq!(ask(&lictor, version, get("/off", &[APP])).status, 200);
        assert_eq!(ask(&lictor, version, get("/", &[])).status, 200);
    }
    assert!((all() - before).abs() < 0.5, "where nobody asks and where nothing is said, nothing is counted");
    let socket = [EVIL, ("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(ask(&lictor, Version::Http1, get("/", &socket)).status, 403);
    eventually_is(
        "a socket of another page is refused",
        || lictor.metric(CORS, &[("decision", "refused")]),
        |count| (*count - 1.0).abs() < 0.5,
    );
}

#[test]
fn a_preflight_about_nothing_is_counted_too() {
    let keys = "  cors: {origins: ['https://app.example'], methods: [GET]}\n";
    let lictor = gateway_of(&[], keys, "    - {path: /one, respond: {body: one}}\n");
    let options = Ask { method: "OPTIONS", fields: &[APP, ASKS], ..Ask::get("/none") };
    let case = |ask, status, labels| Case { ask, status, counter: (CORS, labels) };
    check(
        &lictor,
        &[
            case(options, 204, &[("decision", "preflight")]),
            case(get("/none", &[APP]), 404, &[("decision", "allowed")]),
            case(get("/none", &[EVIL]), 404, &[("decision", "unlisted")]),
        ],
    );
}

#[test]
fn why_an_answer_goes_as_it_is_is_counted() {
    let text = "x".repeat(2000);
    let told = RawServer::saying(move |head| {
        let fields = match head.split(' ').nth(1).unwrap_or_default() {
            "/coded" => "Content-Type: text/plain\r\nContent-Encoding: br\r\n",
            "/fixed" => "Content-Type: text/plain\r\nCache-Control: no-transform\r\n",
            "/image" => "Content-Type: image/png\r\n",
            "/events" => "Content-Type: text/event-stream\r\n",
            "/cookie" => "Content-Type: text/plain\r\nSet-Cookie: a=b\r\n",
            "/tiny" => return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            "/none" => return "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            _ => "Content-Type: text/plain\r\n",
        };
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{text}", text.len())
    });
    let lictor = gateway_of(&[("told", &told)], "  compress: on\n", "    - {path: /*, to: told}\n");
    let case = |target, status, reason| {
        let counter = ("lictor_gateway_uncompressed_total", reason);
        Case { ask: get(target, &[GZIP]), status, counter }
    };
    check(
        &lictor,
        &[
            case("/coded", 200, &[("reason", "coded")]),
            case("/fixed", 200, &[("reason", "no_transform")]),
            case("/image", 200, &[("reason", "type")]),
            case("/events", 200, &[("reason", "stream")]),
            case("/cookie", 200, &[("reason", "credentials")]),
            case("/tiny", 200, &[("reason", "small")]),
            case("/none", 204, &[("reason", "status")]),
            Case {
                ask: get("/text", &[]),
                status: 200,
                counter: ("lictor_gateway_uncompressed_total", &[("reason", "unwanted")]),
            },
            Case {
                ask: get("/text", &[GZIP]),
                status: 200,
                counter: ("lictor_gateway_compressed_total", &[("coding", "gzip")]),
            },
        ],
    );
}

/// How many series there are, and all that is said of them.
fn series(lictor: &Sidecar) -> (usize, String) {
    let text = lictor.get("admin", "/metrics").text();
    (text.lines().filter(|line| !line.starts_with('#')).count(), text)
}

#[test]
fn labels_are_words_of_the_configuration() {
    let one = echo("one");
    let keys = format!(
        "  cors: {{origins: ['https://app.example']}}\n  compress: on\n  limit: [{{rate: 1000000/1h, by: [header: X-Id]}}, {{rate: 1000000/1h, by: [route, user, ip]}}]\n  auth:\n    mode: optional\n    jwt: {{name: idp, secret: {SECRET}}}\n    keys: {{clients: {{partner: '{}'}}}}\n    basic: {{users: {{ada: '{PASSWORD}'}}}}\n",
        hash(KEY)
    );
    let routes = "    - {path: /any/*, to: one}\n    - {path: '/users/{id}', to: one, limit: off, auth: none}\n";
    let lictor = gateway_of(&[("one", &one)], &keys, routes);
    // Each has a word of its own in every place where a client may have one.
    let asked = |version: Version, number: usize| {
        let word = format!("r4ndom{version:?}{number}");
        let target = match number % 3 {
            0 => format!("/any/{word}?{word}={word}"),
            1 => format!("/users/{word}"),
            _ => format!("/{word}"),
        };
        let host = format!("{word}.example");
        let method = if number.is_multiple_of(4) { "GET".to_owned() } else { word.to_uppercase() };
        let token = sealed(
            SECRET,
            &json!({"alg": "HS256", "kid": &word}).to_string(),
            &claims(json!({"sub": &word, "iss": &word})).to_string(),
        );
        let shown = match number % 7 {
            0 => ("authorization", format!("Bearer {token}")),
            // A few: to compare a password is dear.
            1 if number < 28 => {
                ("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{word}:{word}"))))
            }
            2 => ("x-api-key", word.clone()),
            3 => ("authorization", format!("{word} {word}")),
            4 => ("content-type", format!("application/grpc+{word}")),
            _ => ("accept-encoding", word.clone()),
        };
        let origin = format!("https://{word}.example");
        let fields: [(&str, &str); 5] =
            [(shown.0, &*shown.1), ("origin", &origin), ("x-id", &word), ("user-agent", &word), (&word, &word)];
        ask(&lictor, version, Ask { method: &method, host: &host, target: &target, fields: &fields }).status
    };
    // How many were not even heard to their end.
    let all = |numbers: std::ops::Range<usize>| -> usize {
        let unheard = |version| numbers.clone().filter(|number| asked(version, *number) == 0).count();
        BOTH.map(unheard).iter().sum()
    };
    // Once in each way: 84 is the least common multiple.
    let refused = all(0..420);
    let counted = |count: usize| {
        let requests = || lictor.metric(REQUESTS, &[]) as usize;
        eventually_is("all are counted", requests, |seen| *seen >= count);
    };
    counted(840 - refused);
    let before = series(&lictor).0;
    let more = all(420..1_500);
    counted(3_000 - refused - more);
    let (after, text) = series(&lictor);
    assert_eq!(after, before, "{text}");
    for route in ["/any/*", "/users/{id}"] {
        let sent_on = lictor.metric(REQUESTS, &[("upstream", "one"), ("route", route)]);
        let timed = lictor.metric("lictor_gateway_request_duration_seconds_count", &[("route", route)]);
        assert!(sent_on > 200.0 && (sent_on - timed).abs() < 0.5, "{route}: {sent_on} sent on, {timed} timed");
    }
    assert!(!text.to_lowercase().contains("r4ndom"), "{text}");
    for route in ["/any/*", "/users/{id}", ""] {
        assert!(lictor.metric(REQUESTS, &[("route", route)]) > 500.0, "the control: {route}: {text}");
    }
}

#[test]
fn a_method_of_grpc_is_a_label_once_its_service_has_taken_it() {
    let calls = RawServer::saying(|head| {
        let status = if head.contains("/shop.Cart/Add ") { 0 } else { 12 };
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: {status}\r\nContent-Length: 0\r\n\r\n"
        )
    });
    let lictor = gateway_of(&[("calls", &calls)], "", "    - {path: /shop.Cart/*, to: calls}\n");
    let counted =
        |method: &str| lictor.metric("grpc_requests_total", &[("service", "calls"), ("method", method)]) as usize;
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    for (number, version) in BOTH.into_iter().enumerate() {
        for target in ["/shop.Cart/Made-up", "/shop.Cart/Add"] {
            let told = ask(&lictor, version, Ask { method: "POST", fields: &fields, ..Ask::get(target) });
            assert_eq!(told.status, 200, "{version:?} {target}: {told:?}");
        }
        let all = || ["other", "/shop.Cart/Add", "/shop.Cart/Made-up"].map(counted);
        eventually_is("they are counted", all, |counts| *counts == [number + 1, number + 1, 0]);
    }
}
