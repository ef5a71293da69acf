//! Whose pages may read the answers: over both versions, of every kind of answer.

use std::io::Write;
use std::sync::Arc;

use lictor_testkit::{Authority, Pair, RawServer, Sidecar, connect, eventually_is, free_ports, read_head};
use parking_lot::Mutex;
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::issuer::{SECRET, claims, sealed, shared};
use crate::tls::tls_over;
use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask, ask_over, begun_http2, block, configuration, echo, field, frame, gateway_of,
    lines, pipelined, told_http1, told_http2,
};

const APP: &str = "https://app.example";
const KEYS: &str = "  cors: {origins: ['https://app.example', 'https://*.app.example'], methods: [GET, PUT], headers: [Content-Type, X-Token], expose: [X-Total], credentials: true, max_age: 10m}\n";

/// Whose pages may read, and whose may not.
const ORIGINS: [(&str, bool); 7] = [
    (APP, true),
    ("https://a.b.app.example", true),
    ("https://APP.example", false),
    ("https://app.example.evil.example", false),
    ("https://evilapp.example", false),
    ("http://app.example", false),
    ("null", false),
];

/// Whether an answer has this field. In HTTP/2 the names that HPACK's static table has are their numbers there (RFC 7541,
/// appendix A), and a length stands before each text.
pub(crate) fn has(told: &Told, version: Version, name: &str, value: &str) -> bool {
    if version == Version::Http1 {
        return field(&told.head, name).is_some_and(|own| own == value);
    }
    let text = |text: &str| format!("{}{text}", char::from(text.len() as u8));
    told.head.contains(&format!("{}{}", numbered(name).unwrap_or_else(|| text(name)), text(value)))
}

fn numbered(name: &str) -> Option<String> {
    let known = [
        ("access-control-allow-origin", 20),
        ("content-type", 31),
        ("server", 54),
        ("strict-transport-security", 56),
        ("vary", 59),
    ];
    let number = known.iter().find(|(known, _)| *known == name)?.1;
    Some(format!("\u{f}{}", char::from(number - 15)))
}

/// Whether it says anything of whose pages may read it.
fn is_told(told: &Told) -> bool {
    told.head.contains("access-control-") || told.head.contains(&numbered("access-control-allow-origin").unwrap())
}

fn allows(told: &Told, version: Version, origin: &str) -> bool {
    has(told, version, "access-control-allow-origin", origin)
        && has(told, version, "access-control-allow-credentials", "true")
}

/// A server that says of its own what it thinks of it.
fn opinionated() -> RawServer {
    RawServer::start(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: https://own.example\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Own\r\nAccess-Control-Allow-Private-Network: true\r\nVary: Accept\r\n\r\nhi";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn only_pages_that_are_listed_read_answers_and_every_answer_says_that_it_differs() {
    let (one, own) = (echo("one"), opinionated());
    let lictor =
        gateway_of(&[("one", &one), ("own", &own)], KEYS, "  - {path: /*, to: one}\n  - {path: /own, to: own}\n");
    for version in BOTH {
        for target in ["/", "/own"] {
            for (origin, is_listed) in ORIGINS.into_iter().chain([("", false)]) {
                let fields = [("Origin", origin)];
                let fields = if origin.is_empty() { &[][..] } else { &fields };
                let told = ask(&lictor, version, Ask { fields, ..Ask::get(target) });
                assert_eq!(told.status, 200, "{version:?} {target} {origin}: {told:?}");
                assert_eq!(is_told(&told), is_listed, "{version:?} {target} {origin}: {told:?}");
                assert!(!is_listed || allows(&told, version, origin), "{version:?} {target} {origin}: {told:?}");
                assert!(!is_listed || has(&told, version, "access-control-expose-headers", "X-Total"), "{told:?}");
                let vary = if target == "/own" { "Accept, Origin" } else { "Origin" };
                assert!(has(&told, version, "vary", vary), "{version:?} {target} {origin}: {told:?}");
                assert!(
                    !told.head.contains("own.example") && !told.head.contains("X-Own"),
                    "{version:?} {target}: {told:?}"
                );
            }
        }
    }
}

#[test]
fn a_preflight_is_answered_without_a_call_and_other_options_are_requests() {
    let one = echo("one");
    let routes = "  - {path: /*, methods: [GET, PUT, OPTIONS], to: one}
  - {path: /put, methods: [PUT], to: one}
  - {path: /own, to: one, cors: '*'}
  - {path: /off, to: one, cors: off}
  - {path: /told, respond: {body: told}}\n";
    let lictor = gateway_of(&[("one", &one)], KEYS, routes);
    let preflight = |version, target, origin, method| {
        let fields = [("Origin", origin), ("Access-Control-Request-Method", method)];
        ask(&lictor, version, Ask { method: "OPTIONS", fields: &fields, ..Ask::get(target) })
    };
    for version in BOTH {
        for target in ["/", "/put", "/told", "/put?x=1"] {
            for (origin, is_listed) in ORIGINS {
                let told = preflight(version, target, origin, "PUT");
                let what = format!("{version:?} {target} {origin}: {told:?}");
                assert!(told.status == 204 && told.body.is_empty(), "{what}");
                assert_eq!((allows(&told, version, origin), is_told(&told)), (is_listed, is_listed), "{what}");
                for (name, value) in [
                    ("access-control-allow-methods", "GET, PUT"),
                    ("access-control-allow-headers", "Content-Type, X-Token"),
                    ("access-control-max-age", "600"),
                ] {
                    assert_eq!(has(&told, version, name, value), is_listed, "{name}: {what}");
                }
                let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
                assert!(has(&told, version, "vary", vary), "{what}");
            }
        }
        let told = preflight(version, "/own", "https://any.example", "DELETE");
        assert!(told.status == 204 && has(&told, version, "access-control-allow-origin", "*"), "{version:?}: {told:?}");
        assert!(!told.head.contains("credentials"), "{version:?}: {told:?}");
        // Where nothing is said of it, and where it is none, it is a request like any.
        assert_eq!(preflight(version, "/off", APP, "PUT").server(), "one", "{version:?}");
        for fields in [&[("Origin", APP)][..], &[("Access-Control-Request-Method", "PUT")], &[]] {
            let told = ask(&lictor, version, Ask { method: "OPTIONS", fields, ..Ask::get("/") });
            assert_eq!(told.server(), "one", "{version:?} {fields:?}: {told:?}");
        }
    }
    let called = || {
        let lines = lictor.lines("request");
        let (told, sent): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["status"] == 204);
        (told.iter().filter(|line| line["upstream"].is_string()).count(), told.len(), sent.len())
    };
    let counted = eventually_is("all are logged", called, |(_, told, sent)| told + sent == 66);
    assert_eq!(counted, (0, 58, 8), "no call for any of the preflights");
}

#[test]
fn any_field_and_no_time_are_said_as_browsers_read_them() {
    let routes = "  - {path: /any, respond: {body: any}, cors: {origins: ['https://app.example'], headers: ['*', Authorization], max_age: none}}\n";
    let lictor = gateway_of(&[], "", routes);
    for version in BOTH {
        let fields = [
            ("Origin", APP),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization,x-whatever"),
        ];
        let told = ask(&lictor, version, Ask { method: "OPTIONS", fields: &fields, ..Ask::get("/any") });
        assert_eq!(told.status, 204, "{version:?}: {told:?}");
        assert!(has(&told, version, "access-control-allow-headers", "*, Authorization"), "{version:?}: {told:?}");
        assert!(has(&told, version, "access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"), "{told:?}");
        assert!(!told.head.contains("max-age"), "{version:?}: {told:?}");
    }
}

#[test]
fn answers_of_the_gateways_own_can_be_read_too() {
    let [closed] = free_ports();
    let one = echo("one");
    let more = format!(
        "  dead: {{static: ['127.0.0.1:{closed}'], retry: off}}\n  spare: {{static: ['127.0.0.1:{closed}'], retry: off, fallback: {{body: spare}}}}\n"
    );
    let keys = format!("{KEYS}  head_max: 2KiB\n  body_max: 4\n");
    let routes = "  - {path: /one, to: one}
  - {path: /dead, to: dead}
  - {path: /spare, to: spare}
  - {path: /told, respond: {body: told}}
  - {path: /moved, redirect: /told}
  - {path: /late, to: slow, timeout: 50ms}\n";
    let slow = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = std::io::copy(&mut stream, &mut std::io::sink()); // until it is given up
    });
    let text = configuration(&[("one", &one), ("slow", &slow)], &more, &keys, routes);
    let lictor = Sidecar::serve(LICTOR, &text).up();
    let long = "x".repeat(3_000);
    for version in BOTH {
        for (method, target, fields, status) in [
            ("GET", "/one", &[][..], 200),
            ("GET", "/none", &[], 404),
            ("GET", "/%2f", &[], 400),
            ("GET", "/dead", &[], 502),
            ("GET", "/late", &[], 504),
            ("GET", "/spare", &[], 200),
            ("GET", "/told", &[], 200),
            ("GET", "/moved", &[], 308),
            ("GET", "/one", &[("x-long", &*long)], 431),
            ("GET", "/one", &[("upgrade", "websocket"), ("connection", "upgrade")], 200),
        ] {
            if version == Version::Http2 && fields.iter().any(|(name, _)| *name == "connection") {
                continue;
            }
            for origin in [APP, "https://evil.example"] {
                let fields = [fields, &[("origin", origin)]].concat();
                let told = ask(&lictor, version, Ask { method, fields: &fields, ..Ask::get(target) });
                let is_upgrade = fields.len() == 3 && origin != APP;
                let status = if is_upgrade { 403 } else { status };
                assert_eq!(told.status, status, "{version:?} {target} {origin}: {told:?}");
                assert_eq!(allows(&told, version, origin), origin == APP, "{version:?} {target} {origin}: {told:?}");
                assert!(has(&told, version, "vary", "Origin"), "{version:?} {target}: {told:?}");
            }
        }
    }
    // What is sent of a body: all of what is too long, and nothing of what never comes.
    for (target, length, sent, status) in [("/one", "5", "hello", 413), ("/late", "4", "", 408)] {
        for (version, (origin, is_listed)) in
            BOTH.into_iter().flat_map(|version| ORIGINS.map(|origin| (version, origin)))
        {
            let fields = [("content-length", length), ("origin", origin)];
            let head = block(Ask { method: "POST", fields: &fields, ..Ask::get(target) });
            let mut stream = connect(&lictor.address("gateway"));
            let told = match version {
                Version::Http1 => {
                    let lines = lines(&fields);
                    let text = format!(
                        "POST {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}Connection: close\r\n\r\n{sent}"
                    );
                    told_http1(stream, text.as_bytes())
                }
                Version::Http2 => {
                    stream
                        .write_all(&[begun_http2(), frame(1, 4, 1, &head), frame(0, 0, 1, sent.as_bytes())].concat())
                        .unwrap();
                    told_http2(stream)
                }
            };
            let what = format!("{version:?} {target} {origin}: {told:?}");
            assert_eq!(
                (told.status, allows(&told, version, origin), is_told(&told)),
                (status, is_listed, is_listed),
                "{what}"
            );
            assert!(has(&told, version, "vary", "Origin"), "{what}");
        }
    }
    // Of a head that cannot be read nobody knows whose page it is of.
    let told = told_http1(connect(&lictor.address("gateway")), b"GET / HTTP/1.1\r\nbad field\r\n\r\n");
    assert!(told.status == 400 && has(&told, Version::Http1, "vary", "Origin") && !is_told(&told), "{told:?}");
}

/// What stands before the upstreams refuses in its own words too.
#[test]
fn refusals_can_be_read_by_whom_they_are_for() {
    let [closed, redis, keys] = free_ports();
    let one = echo("one");
    let slow = RawServer::start(|mut stream| while !read_head(&mut stream).is_empty() {});
    let full = format!(
        "  slow: {{static: ['127.0.0.1:{}'], timeout: 5m, limits: {{max_in_flight: 1, max_pending: 0}}}}\n",
        slow.port()
    );
    let more = format!(
        "{full}  dead: {{static: ['127.0.0.1:{closed}'], retry: off, breaker: {{failure_threshold: 1}}}}\nredis: 127.0.0.1:{redis}\n"
    );
    let auth = format!(
        "  auth:\n    mode: none\n    jwt:\n      - {{name: own, secret: {SECRET}}}\n      - {{name: idp, issuer: 'https://idp.example', jwks: 'http://127.0.0.1:{keys}/'}}\n"
    );
    let routes = "  - {path: /free, to: one}
  - {path: /in, to: one, auth: required}
  - {path: /admin, to: one, auth: {mode: required, require: {roles: admin}}}
  - {path: /often, to: one, limit: {rate: 1/1h, by: []}}
  - {path: /counted, to: one, limit: {rate: 1/1h, by: [], mode: redis, if_unreachable: refuse}}
  - {path: /dead, to: dead}
  - {path: /full, to: slow}\n";
    let text = configuration(&[("one", &one)], &more, &format!("{KEYS}{auth}"), routes);
    let lictor = Sidecar::serve(LICTOR, &text).up();
    let ann = format!("Bearer {}", shared(&claims(json!({}))));
    let theirs = claims(json!({"iss": "https://idp.example"})).to_string();
    let theirs = format!("Bearer {}", sealed(SECRET, r#"{"alg":"RS256","kid":"a"}"#, &theirs));
    let (ann, theirs) = (("authorization", &*ann), ("authorization", &*theirs));
    let mut running = connect(&lictor.address("gateway"));
    running.write_all(b"GET /full HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    slow.await_connections(1);
    for (target, status) in [("/often", 200), ("/dead", 502)] {
        assert_eq!(ask(&lictor, Version::Http1, Ask::get(target)).status, status, "what comes next is refused");
    }
    for version in BOTH {
        for (target, fields, status, reason) in [
            ("/free", &[][..], 200, ""),
            ("/in", &[], 401, "unauthenticated"),
            ("/in", &[("authorization", "Bearer a.b.c")], 401, "unauthenticated"),
            ("/in", &[ann, ann], 400, "bad_request"),
            ("/in", &[theirs], 503, "auth_unavailable"),
            ("/in", &[ann], 200, ""),
            ("/admin", &[ann], 403, "forbidden"),
            ("/often", &[], 429, "rate_limited"),
            ("/counted", &[], 503, "limit_unavailable"),
            ("/dead", &[], 503, "breaker_open"),
            ("/full", &[], 503, "overloaded"),
        ] {
            for (origin, is_listed) in [(APP, true), ("https://evil.example", false), ("", false)] {
                let fields: Vec<_> = fields.iter().copied().chain([("origin", origin)]).collect();
                let fields = if origin.is_empty() { &fields[..fields.len() - 1] } else { &fields };
                let told = ask(&lictor, version, Ask { fields, ..Ask::get(target) });
                let what = format!("{version:?} {target} {origin}: {told:?}");
                assert!(told.status == status && (status == 200 || told.body.contains(reason)), "{what}");
                assert_eq!((allows(&told, version, origin), is_told(&told)), (is_listed, is_listed), "{what}");
                assert!(has(&told, version, "vary", "Origin"), "{what}");
            }
            // Its preflight asks for nothing of that, and passes.
            let preflight = [("origin", APP), ("access-control-request-method", "GET")];
            let told = ask(&lictor, version, Ask { method: "OPTIONS", fields: &preflight, ..Ask::get(target) });
            assert!(told.status == 204 && allows(&told, version, APP), "{version:?} {target}: {told:?}");
        }
    }
}

/// Who asks by a connection that was made for another host, and who is still served while the gateway leaves.
#[test]
fn a_page_reads_that_its_connection_is_for_another_host_and_what_a_gateway_says_that_leaves() {
    let (authority, one) = (Authority::new(), echo("one"));
    let [shop, admin] = ["shop", "admin"].map(|name| authority.issue(name, &[&format!("{name}.example")]));
    let policy = |host: &str, pair: &Pair| {
        format!("{{hosts: [{host}.example], cert: '{}', key: '{}'}}", pair.cert.display(), pair.key.display())
    };
    let tls = format!("  tls: [{}, {}]\n{KEYS}", policy("shop", &shop), policy("admin", &admin));
    let auth = format!("  auth: {{mode: none, jwt: {{secret: {SECRET}}}}}\n");
    let routes = "  - {path: /*, to: one}\n  - {path: /in, to: one, auth: required}\n";
    let text = configuration(&[("one", &one)], "lifecycle: {drain_delay: 60s}\n", &format!("{tls}{auth}"), routes);
    let mut lictor = Sidecar::serve(LICTOR, &text).up();
    let told = |version: Version, host: &str, (method, target): (&str, &str), fields: &[(&str, &str)]| {
        let alpn: &[u8] = if version == Version::Http2 { b"h2" } else { b"http/1.1" };
        let config = authority.client_config(&[alpn], &[&TLS12, &TLS13], None);
        let stream = tls_over(connect(&lictor.address("gateway")), &config, "shop.example").unwrap();
        ask_over(stream, version, Ask { method, host, target, fields })
    };
    for is_leaving in [false, true] {
        if is_leaving {
            lictor.signal(Signal::TERM);
            eventually_is("it leaves", || lictor.get("admin", "/ready").status, |status| *status == 503);
        }
        for version in BOTH {
            for (host, target, status) in [
                ("shop.example", "/", 200),
                ("shop.example", "/in", 401),
                ("admin.example", "/", 421),
                ("admin.example", "/in", 421),
                ("other.example", "/", 421),
            ] {
                let what = format!("{version:?} {host} {target}, leaving: {is_leaving}");
                for (origin, is_listed) in [(APP, true), ("https://evil.example", false), ("", false)] {
                    let fields = if origin.is_empty() { &[][..] } else { &[("origin", origin)] };
                    let told = told(version, host, ("GET", target), fields);
                    assert_eq!(told.status, status, "{what} {origin}: {told:?}");
                    assert_eq!(
                        (allows(&told, version, origin), is_told(&told)),
                        (is_listed, is_listed),
                        "{what}: {told:?}"
                    );
                    assert!(has(&told, version, "vary", "Origin"), "{what} {origin}: {told:?}");
                }
                let preflight = [("origin", APP), ("access-control-request-method", "GET")];
                let told = told(version, host, ("OPTIONS", target), &preflight);
                let status = if status == 421 { 421 } else { 204 };
                assert!(told.status == status && allows(&told, version, APP), "{what}: {told:?}");
            }
        }
    }
    lictor.signal(Signal::TERM); // again: nothing is waited for
    assert!(lictor.wait().success());
}

#[test]
fn a_websocket_is_not_for_pages_of_others() {
    let one = RawServer::start(|mut stream| {
        if !read_head(&mut stream).is_empty() {
            let _ = stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        }
    });
    let lictor = gateway_of(&[("one", &one)], KEYS, "  - {path: /*, to: one}\n  - {path: /free, to: one, cors: off}\n");
    for (target, origin, is_let_in) in [
        ("/", Some(APP), true),
        ("/", Some("https://evil.example"), false),
        ("/", Some("null"), false),
        ("/", None, true),
        ("/free", Some("https://evil.example"), true),
    ] {
        let line = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
        let mut stream = connect(&lictor.address("gateway"));
        write!(stream, "GET {target} HTTP/1.1\r\nHost: shop.example\r\n{line}{UPGRADE}\r\n").unwrap();
        let head = read_head(&mut stream);
        let status = if is_let_in { 101 } else { 403 };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {origin:?}: {head}");

        let fields: Vec<_> = [(":protocol", "websocket")].into_iter().chain(origin.map(|it| ("origin", it))).collect();
        let told = ask(&lictor, Version::Http2, Ask { method: "CONNECT", fields: &fields, ..Ask::get(target) });
        assert_eq!(told.status, if is_let_in { 200 } else { 403 }, "{target} {origin:?}: {told:?}");
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Bytes behind a wish that is not granted are no tunnel's: in HTTP/1.1 the next requests, by the rules of their own
/// routes; in HTTP/2 nobody's.
#[test]
fn what_stands_behind_a_refused_upgrade_asks_for_itself() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&seen);
    let one = RawServer::saying(move |head| {
        noted.lock().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
        let status = if head.to_lowercase().contains("upgrade") { "403 Forbidden" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let auth = format!("  auth: {{mode: none, jwt: {{secret: {SECRET}}}}}\n");
    let routes = "  - {path: /page, to: one}
  - {path: /open, to: one}
  - {path: /in, to: one, auth: required}
  - {path: /admin, to: one, auth: required}\n";
    let lictor = gateway_of(&[("one", &one)], &format!("{KEYS}{auth}"), routes);
    let behind = "GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\nGET /open HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    for (what, target, origin, status, asked) in [
        ("a page that is not listed", "/page", "https://evil.example", 403, &[][..]),
        ("no route", "/none", APP, 404, &[]),
        ("no token", "/in", APP, 401, &[]),
        ("the service says no", "/page", APP, 403, &["/page"]),
    ] {
        let mut stream = connect(&lictor.address("gateway"));
        let wish = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\nOrigin: {origin}\r\n{UPGRADE}\r\n");
        let statuses = pipelined(&mut stream, format!("{wish}{behind}").as_bytes(), 3);
        assert_eq!(statuses, [status, 401, 200], "{what}");
        assert_eq!(std::mem::take(&mut *seen.lock()), [asked, &["/open"]].concat(), "{what}");

        let mut stream = connect(&lictor.address("gateway"));
        let fields = [(":protocol", "websocket"), ("origin", origin)];
        let wish = block(Ask { method: "CONNECT", fields: &fields, ..Ask::get(target) });
        let frames = [begun_http2(), frame(1, 4, 1, &wish), frame(0, 0, 1, behind.as_bytes())];
        stream.write_all(&frames.concat()).unwrap();
        assert_eq!(told_http2(stream).status, status, "{what}");
        assert_eq!(ask(&lictor, Version::Http2, Ask::get("/open")).status, 200);
        assert_eq!(std::mem::take(&mut *seen.lock()), [asked, &["/open"]].concat(), "{what}: over HTTP/2");
    }
}

#[test]
fn a_kept_answer_says_it_to_each_anew() {
    let hits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let one = RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\nAccess-Control-Allow-Origin: https://first.example\r\n\r\nhi";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let upstream = format!("  kept: {{static: ['127.0.0.1:{}'], cache: {{ttl: 1m}}}}\n", one.port());
    let text = configuration(&[], &upstream, KEYS, "  - {path: /*, to: kept}\n");
    let lictor = Sidecar::serve(LICTOR, &text).up();
    for version in BOTH {
        for (origin, is_listed) in
            [(APP, true), ("https://b.app.example", true), ("https://evil.example", false), (APP, true)]
        {
            let told = ask(&lictor, version, Ask { fields: &[("origin", origin)], ..Ask::get("/") });
            assert!(told.status == 200 && !told.head.contains("first.example"), "{version:?} {origin}: {told:?}");
            assert_eq!(allows(&told, version, origin), is_listed, "{version:?} {origin}: {told:?}");
        }
    }
    assert_eq!(hits.load(std::sync::atomic::Ordering::Relaxed), 1, "the others were kept answers");
}
