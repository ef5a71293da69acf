//! Fields that the configuration changes, of requests and of answers.

use std::io::Write;
use std::sync::Arc;

use lictor_testkit::{Authority, RawServer, Sidecar, connect, get_over, read_head, tls_client};
use parking_lot::Mutex;
use rustls::version::TLS13;

use crate::cors::has;
use crate::keys::hash;
use crate::{Ask, BOTH, LICTOR, Version, ask, echo, field, gateway_of, told_http1};

/// What the service got of a field, each line.
fn got<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let is_it = |line: &&str| line.split_once(": ").is_some_and(|(own, _)| own.eq_ignore_ascii_case(name));
    body.lines().filter(is_it).filter_map(|line| Some(line.split_once(": ")?.1)).collect()
}

/// Answers each request with this head and `hi`.
fn saying(fields: &'static str) -> RawServer {
    RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\n\r\nhi");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

const KEYS: &str = "  request_headers:
    rename: {X-Old: X-New}
    remove: [X-Gone]
    set: {X-Ip: '{client_ip}', X-Id: 'id={request_id}', X-Twice: '{header:X-Twice}', X-None: 'a {header:X-Missing} b', X-Literal: '{header:X-Braces}', X-Host: '{scheme}://{host}{path} {method} {route}'}
    add: {X-New: added}\n";

#[test]
fn requests_go_on_with_the_fields_that_the_configuration_wants() {
    let one = echo("one");
    let routes = "  - {path: /*, to: one}
  - {path: /off, to: one, request_headers: off}
  - {path: '/shops/{id}/{rest}', to: one, rewrite: '/{rest}', request_headers: {set: {X-Shop: '{param:id}', X-Route: '{route}'}}}\n";
    let lictor = gateway_of(&[("one", &one)], KEYS, routes);
    for version in BOTH {
        let fields = [
            ("x-old", "1"),
            ("x-old", "2"),
            ("x-gone", "gone"),
            ("x-ip", "spoofed"),
            ("x-twice", "a"),
            ("x-twice", "b"),
            ("x-none", "was"),
            ("x-braces", "{client_ip}"),
        ];
        let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/a//b/../c") });
        for (name, values) in [
            ("x-old", &[][..]),
            ("x-new", &["1", "2", "added"]),
            ("x-gone", &[]),
            ("x-ip", &["127.0.0.1"]),
            ("x-twice", &[]),
            ("x-none", &[]),
            ("x-literal", &["{client_ip}"]),
            ("x-host", &["http://shop.example/a/c GET /*"]),
        ] {
            assert_eq!(got(&told.body, name), values, "{version:?} {name}: {told:?}");
        }
        let id = got(&told.body, "x-request-id");
        assert_eq!(got(&told.body, "x-id"), [format!("id={}", id[0])], "{version:?}: {told:?}");
        let own = [("x-request-id", "mine"), ("x-old", "1")];
        let told = ask(&lictor, version, Ask { fields: &own, ..Ask::get("/") });
        assert_eq!((got(&told.body, "x-id"), got(&told.body, "x-request-id")), (vec!["id=mine"], vec!["mine"]));
        let told = ask(&lictor, version, Ask { fields: &own, ..Ask::get("/off") });
        assert_eq!((got(&told.body, "x-old"), got(&told.body, "x-ip")), (vec!["1"], vec![]), "{version:?}");
        let told = ask(&lictor, version, Ask::get("/shops/caf%c3%a9/x"));
        assert_eq!(got(&told.body, "x-shop"), ["caf%C3%A9"], "{version:?}: {told:?}");
        assert_eq!(got(&told.body, "x-route"), ["/shops/{id}/{rest}"], "{version:?}: {told:?}");
        assert_eq!(got(&told.body, "x-ip"), [""; 0], "a route's own are in place of the gateway's: {told:?}");
        assert_eq!(told.target(), "/x");
    }
}

#[test]
fn a_client_takes_nothing_off_by_naming_it_in_connection() {
    const KEY: &str = "partner-0123456789abcdef";
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    let one = RawServer::start(move |mut stream| {
        *kept.lock() = read_head(&mut stream).to_lowercase();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let auth = format!(
        "  auth: {{keys: {{clients: {{ada: '{}'}}}}, claims_to_headers: {{X-User-ID: sub}}, mode: optional}}\n",
        hash(KEY)
    );
    let set = "request_headers: {set: {X-Mine: '{client_ip}', X-Who: 'u={claim:sub}'}}";
    let routes = format!("  - {{path: /*, to: one, {set}}}\n  - {{path: /grpc, to: one, grpc_web: true}}\n");
    let lictor = gateway_of(&[("one", &one)], &auth, &routes);
    let asked = |target: &str, key: &str| {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: shop.example\r\n{key}X-Mine: spoofed\r\nX-User-ID: spoofed\r\nX-Who: spoofed\r\nX-Client: 1\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\nConnection: close, X-Mine, X-User-ID, X-Who, X-Client\r\n\r\n"
        );
        told_http1(connect(&lictor.address("gateway")), head.as_bytes());
        let head = std::mem::take(&mut *seen.lock());
        assert!(head.starts_with("post "), "it came: {head}");
        ["x-mine", "x-user-id", "x-who", "x-client"].map(|name| field(&head, name).unwrap_or("-").to_owned())
    };
    let key = format!("X-API-Key: {KEY}\r\n");
    assert_eq!(asked("/", ""), ["127.0.0.1", "-", "-", "-"], "nobody has shown who he is");
    assert_eq!(asked("/", &key), ["127.0.0.1", "ada", "u=ada", "-"]);
    assert_eq!(asked("/grpc", &key), ["-", "ada", "-", "-"]);
}

#[test]
fn answers_leave_with_the_fields_that_the_configuration_wants_whoever_made_them() {
    let own = saying(
        "Server: secret/1.0\r\nX-Inner: name\r\nX-Powered-By: a\r\nX-Powered-By: b\r\nX-Frame-Options: SAMEORIGIN",
    );
    let keys = "  response_headers: {rename: {X-Inner: X-Outer}, remove: [Server], set: {X-From: '{client_ip}', X-Asked: '{header:X-Ask}', X-Id: '{request_id}', X-Powered-By: '{header:X-Missing}', X-Route: 'of {route}'}, add: {X-Outer: more}}\n  security_headers: true\n";
    let routes = "  - {path: /one, to: own}\n  - {path: /told, respond: {body: told}}\n  - {path: /moved, redirect: /told}\n  - {path: /less, to: own, body_max: 1, head_max: 30}\n  - {path: /off, to: own, response_headers: off, security_headers: off}\n  - {path: /over, to: own, response_headers: {add: {X-Outer: '{route}'}}, security_headers: {override: true, nosniff: false, frame: sameorigin, referrer: no-referrer}}\n";
    let lictor = gateway_of(&[("own", &own)], keys, routes);
    for version in BOTH {
        let at = |target| {
            let fields = [("x-ask", "asked"), ("x-request-id", "mine")];
            ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) })
        };
        for (target, status) in
            [("/one", 200), ("/told", 200), ("/moved", 308), ("/less", 431), ("/none", 404), ("/%2f", 400)]
        {
            let told = at(target);
            assert_eq!(told.status, status, "{version:?} {target}: {told:?}");
            for (name, value) in [
                ("x-from", "127.0.0.1"),
                ("x-asked", "asked"),
                ("x-id", "mine"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "strict-origin-when-cross-origin"),
                ("content-security-policy", "frame-ancestors 'none'"),
                ("x-frame-options", if target == "/one" { "SAMEORIGIN" } else { "DENY" }),
            ] {
                assert!(has(&told, version, name, value), "{version:?} {target} {name}: {told:?}");
            }
            let head = told.head.to_lowercase();
            assert!(
                !head.contains("secret/1.0") && !head.contains("x-inner") && !head.contains("x-powered"),
                "{told:?}"
            );
            assert_eq!(head.contains("name"), target == "/one", "{version:?} {target}: {told:?}");
            assert!(head.contains("more"), "{version:?} {target}: {told:?}");
            let is_routed = !matches!(target, "/none" | "/%2f");
            assert_eq!(has(&told, version, "x-route", &format!("of {target}")), is_routed, "{target}: {told:?}");
            assert!(!head.contains("max-age="), "HSTS is for TLS: {told:?}");
        }
        let told = ask(&lictor, version, Ask::get("/told"));
        assert!(!told.head.contains("x-asked"), "there is nothing to put in: {told:?}");
        if version == Version::Http1 {
            let [own, said] = ["x-request-id", "x-id"].map(|name| field(&told.head, name).unwrap());
            assert!(own == said && own.len() == 36, "a name of ours is one name: {told:?}");
        }
        let told = at("/off");
        assert!(told.head.contains("secret/1.0") && !told.head.contains("nosniff"), "{version:?}: {told:?}");
        let told = at("/over");
        for (name, value) in
            [("x-frame-options", "SAMEORIGIN"), ("referrer-policy", "no-referrer"), ("x-outer", "/over")]
        {
            assert!(has(&told, version, name, value), "{version:?} {name}: {told:?}");
        }
        assert!(told.head.contains("frame-ancestors 'self'") && !told.head.contains("nosniff"), "{told:?}");
    }
    let told = told_http1(connect(&lictor.address("gateway")), b"GET / HTTP/1.1\r\nbad field\r\n\r\n");
    assert!(told.status == 400 && has(&told, Version::Http1, "x-content-type-options", "nosniff"), "{told:?}");
    assert!(!told.head.contains("x-from") && told.head.contains("x-outer: more"), "nobody knows whose it is: {told:?}");
}

#[test]
fn browsers_are_told_to_stay_with_tls_where_there_is_some() {
    let (authority, own) = (Authority::new(), saying("Strict-Transport-Security: max-age=1"));
    let pair = authority.issue("server", &["localhost"]);
    let (cert, key, port) = (pair.cert.display(), pair.key.display(), own.port());
    let routes = "[{path: /*, to: own, security_headers: {hsts: 1h, hsts_subdomains: true, override: true}}, {path: /own, to: own, security_headers: on}, {path: /none, respond: {body: a}, security_headers: {hsts: off}}]";
    let yaml = |listen: &str| {
        format!(
            "registration: off\ngateway: {{listen: {listen}, trusted_proxies: [127.0.0.0/8], routes: {routes}}}\nupstreams: {{own: {{static: ['127.0.0.1:{port}']}}}}\n"
        )
    };
    let expected = [("/", Some("max-age=3600; includeSubDomains")), ("/own", Some("max-age=1")), ("/none", None)];
    let tls = format!("{{address: '127.0.0.1:0', tls: {{cert: '{cert}', key: '{key}'}}}}");
    let lictor = Sidecar::serve(LICTOR, &yaml(&tls)).up();
    let config = authority.client_config(&[], &[&TLS13], None);
    for (target, value) in expected {
        let mut client = tls_client(&config, &lictor.address("gateway"), "localhost");
        let answer = get_over(&mut client, target).unwrap();
        assert_eq!(field(&answer, "strict-transport-security"), value, "{target}: {answer}");
    }
    // What a trusted proxy says counts as what was spoken to it.
    let lictor = Sidecar::serve(LICTOR, &yaml("'127.0.0.1:0'")).up();
    for version in BOTH {
        for (scheme, is_told) in [("https", true), ("http", false)] {
            let fields = [("x-forwarded-for", "127.0.0.9"), ("x-forwarded-proto", scheme)];
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/") });
            assert_eq!(told.head.contains("max-age=3600"), is_told, "{version:?} {scheme}: {told:?}");
        }
    }
}
