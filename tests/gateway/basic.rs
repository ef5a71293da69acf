//! Names and passwords, and certificates, at the gateway.

use std::io::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use lictor_testkit::{Authority, RawServer, Sidecar, connect, get_over, read_head, tls_client};
use rustls::version::{TLS12, TLS13};

use crate::{Ask, BOTH, LICTOR, Told, Version, ask, ask_over, echo, gateway_of, whole_log};

/// Of `secret`, `hunter2` and `paß`, by crypt(3).
const SECRET: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
const HUNTER2: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";
const PASS: &str = "$2b$04$abcdefghijklmnopqrstuufZLA7d8FXejfMeUd0sCuCRmD9I//p16";
/// Of `password`, by the reference implementation of argon2.
const ARGON2ID: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// Of `secret`, 64 times as dear.
const DEAR: &str = "$2y$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u";

const ROUTES: &str = "    - {path: /*, to: one}\n    - {path: /maybe, to: one, auth: optional}\n    - {path: /open, to: one, auth: none}\n    - {path: /admins, to: one, auth: {require: {roles: [admin], scopes: [write]}}}\n";

fn basic(pair: &[u8]) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

fn auth(dear: &str) -> String {
    format!(
        "  auth:\n    basic:\n      users:\n        ada: {{password: '{SECRET}', scopes: [read, write], roles: [admin]}}\n        bob: '{HUNTER2}'\n        jürgen: '{PASS}'\n        kim: '{ARGON2ID}'\n        dear: '{dear}'\n    keys: {{clients: {{partner: 'sha256:{}'}}}}\n    claims_to_headers: {{X-Name: {{claim: sub, encode: percent}}}}\n",
        "0".repeat(64)
    )
}

fn get(lictor: &Sidecar, version: Version, target: &str, authorization: &str) -> Told {
    ask(lictor, version, Ask { fields: &[("authorization", authorization)], ..Ask::get(target) })
}

#[test]
fn a_password_lets_its_user_in() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], &auth(DEAR), ROUTES);
    let bob = basic(b"bob:hunter2");
    for version in BOTH {
        for (shown, name) in [
            (basic(b"ada:secret"), "ada"),
            (bob.clone(), "bob"),
            (bob.replace("Basic", "bASIC"), "bob"),
            (bob.replace("Basic ", "Basic   "), "bob"),
            (format!("Basic {}", BASE64_STANDARD_NO_PAD.encode("ada:secret")), "ada"),
            (basic("jürgen:paß".as_bytes()), "j%c3%bcrgen"),
            (basic(b"dear:secret"), "dear"),
            (basic(b"kim:password"), "kim"),
        ] {
            for _ in 0..2 {
                let told = get(&lictor, version, "/", &shown);
                let seen = told.body.to_lowercase();
                assert!(
                    told.server() == "one" && seen.contains(&format!("x-name: {name}\r\n")),
                    "{version:?} {shown}: {told:?}"
                );
                assert!(!seen.contains("authorization"), "nobody behind sees the password: {seen}");
            }
        }
        for wrong in [
            basic(b"ada:hunter2"),
            basic(b"ADA:secret"),
            basic(b"kim:secret"),
            basic(b"ada:password"),
            basic(b"eve:secret"),
            basic(b"eve:hunter2"),
            basic(b"ada:"),
            basic(b":secret"),
            basic(b"ada"),
            basic(b"j\xfcrgen:pa\xdf"),
            basic(b"ada:secret\0"),
            basic(b"ada:secret\r\n"),
            basic(&[b"ada:", &[b'x'; 80][..]].concat()),
            basic(&[b"ada:secret", &[b' '; 3000][..]].concat()),
            "Basic".to_owned(),
            "Basic !!!".to_owned(),
            "Basic YWRhOnNlY3JldA=x".to_owned(),
        ] {
            for target in ["/", "/maybe"] {
                let told = get(&lictor, version, target, &wrong);
                assert_eq!(told.status, 401, "a wrong password is no guest: {version:?} {target} {wrong}: {told:?}");
                assert!(
                    told.head.contains("Basic realm=\"gateway\", charset=\"UTF-8\""),
                    "{version:?} {wrong}: {told:?}"
                );
                assert!(told.body.contains("Invalid authentication token"), "each hears the same: {told:?}");
            }
        }
        for (target, fields, status) in [
            ("/", &[][..], 401),
            ("/", &[("authorization", "Bearer a.b.c")], 401),
            ("/", &[("authorization", &*bob), ("authorization", &*bob)], 400),
            ("/", &[("authorization", &*bob), ("x-api-key", "a")], 400),
            ("/maybe", &[], 200),
            ("/admins", &[("authorization", &*bob)], 403),
            ("/admins", &[("authorization", "Basic YWRhOnNlY3JldA==")], 200),
            ("/open", &[("authorization", &*bob)], 200),
        ] {
            let told = ask(&lictor, version, Ask { fields, ..Ask::get(target) });
            assert_eq!(told.status, status, "{version:?} {target} {fields:?}: {told:?}");
        }
    }
    let log = whole_log(&lictor);
    for secret in ["secret", "hunter2", &basic(b"ada:secret")[6..]] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn who_shows_a_password_is_counted() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], &auth(DEAR), ROUTES);
    for version in BOTH {
        for (target, shown) in [
            ("/", basic(b"ada:secret")),
            ("/admins", basic(b"ada:secret")),
            ("/admins", basic(b"bob:hunter2")),
            ("/", basic(b"ada:wrong")),
            ("/", basic(b"eve:secret")),
            ("/", "Basic".to_owned()),
            ("/open", basic(b"ada:wrong")),
            ("/", "Bearer x".to_owned()),
        ] {
            get(&lictor, version, target, &shown);
        }
    }
    let counted = |provider, decision| {
        lictor.metric("lictor_auth_decisions_total", &[("provider", provider), ("decision", decision)]) as u64
    };
    let all = [("basic", "allowed"), ("basic", "scope"), ("basic", "unknown_key"), ("", "missing")];
    assert_eq!(all.map(|(provider, decision)| counted(provider, decision)), [4, 2, 6, 2]);
}

#[test]
fn those_who_guess_passwords_hold_up_nobody_else() {
    let one = echo("one");
    for dear in [DEAR, &ARGON2ID.replace("m=256,t=2", "m=65536,t=1")] {
        let lictor = gateway_of(&[("one", &one)], &auth(dear), ROUTES);
        let before = lictor.resident();
        let guess = |number: usize| {
            let mut stream = connect(&lictor.address("gateway"));
            let shown = basic(format!("dear:{number}").as_bytes());
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {shown}\r\nConnection: close\r\n\r\n").unwrap();
            stream
        };
        let guesses: Vec<_> = (0..100).map(guess).collect();
        let told = get(&lictor, Version::Http1, "/open", "Basic none");
        assert_eq!(told.server(), "one", "{dear}: {told:?}");
        let mut grown = 0;
        let heads = guesses.into_iter().map(|mut stream| {
            grown = grown.max(lictor.resident().saturating_sub(before));
            read_head(&mut stream)
        });
        let mut seen: Vec<String> = heads.collect();
        seen.retain(|head| !head.starts_with("HTTP/1.1 401"));
        assert!(!seen.is_empty() && seen.iter().all(|head| head.starts_with("HTTP/1.1 503")), "{dear}: {seen:?}");
        assert!(seen.iter().all(|head| head.to_lowercase().contains("retry-after: 1\r\n")), "{dear}: {seen:?}");
        let told = get(&lictor, Version::Http1, "/", &basic(b"ada:secret"));
        assert_eq!(told.server(), "one", "{dear}: and afterwards all is as before: {told:?}");
        assert!(grown < 192 << 20, "{dear}: memory of two at once, whoever else waits: {grown}");
    }
}

fn certified(authority: &Authority, one: &RawServer, auth: &str, routes: &str) -> Sidecar {
    let pair = authority.issue("server", &["localhost"]);
    let (cert, key, ca) = (pair.cert.display(), pair.key.display(), authority.ca());
    let ca = ca.display();
    let yaml = format!(
        "registration: off\nupstreams: {{one: {{static: ['127.0.0.1:{}']}}}}\ngateway:\n  listen: {{address: '127.0.0.1:0', tls: {{cert: '{cert}', key: '{key}', client_ca: '{ca}'}}}}\n  auth: {auth}\n  routes:\n{routes}",
        one.port()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

#[test]
fn a_certificate_says_who_its_client_is() {
    let (authority, one) = (Authority::new(), echo("one"));
    let routes = "    - {path: /*, to: one}\n    - {path: /orders, to: one, auth: {require: {claims: {uri: 'spiffe://shop/orders'}}}}\n    - {path: /keys, to: one, auth: {by: [keys]}}\n";
    let auth = format!(
        "{{certificates: true, keys: {{clients: {{partner: 'sha256:{}'}}}}, claims_to_headers: {{X-Caller: sub, X-Names: dns}}}}",
        "0".repeat(64)
    );
    let lictor = certified(&authority, &one, &auth, routes);
    for (file, names, caller, status) in [
        ("both", &["orders.example", "spiffe://shop/orders"][..], "x-caller: spiffe://shop/orders\r\n", 200),
        ("dns", &["till.example", "pos.example"], "x-caller: till.example\r\n", 403),
        ("none", &[], "", 401),
    ] {
        let identity = authority.issue(file, names);
        for (version, tls) in BOTH.into_iter().flat_map(|version| [(version, &TLS12), (version, &TLS13)]) {
            let alpn: &[&[u8]] = if version == Version::Http2 { &[b"h2"] } else { &[] };
            let config = authority.client_config(alpn, &[tls], Some(&identity));
            let what = format!("{file} {version:?} {:?}", tls.version);
            for (target, fields, status) in [
                ("/", &[][..], if caller.is_empty() { 401 } else { 200 }),
                ("/orders", &[], status),
                // What is shown decides.
                ("/", &[("x-api-key", "wrong")], 401),
                ("/keys", &[], 401),
            ] {
                let fields = [&[("x-caller", "forged")][..], fields].concat();
                let client = tls_client(&config, &lictor.address("gateway"), "localhost");
                let told = ask_over(client, version, Ask { host: "localhost", fields: &fields, ..Ask::get(target) });
                assert_eq!(told.status, status, "{what} {target} {fields:?}: {told:?}");
                let seen = told.body.to_lowercase();
                assert!(!seen.contains("forged"), "{what}: {told:?}");
                assert!(status != 200 || seen.contains(caller), "{what}: {told:?}");
            }
        }
    }
    // The control: without `auth` it is enough that the authority vouches for it.
    let identity = authority.issue("none", &[]);
    let lictor = certified(&authority, &one, "{certificates: true, mode: none}", "    - {path: /*, to: one}\n");
    let config = authority.client_config(&[], &[&TLS13], Some(&identity));
    let mut client = tls_client(&config, &lictor.address("gateway"), "localhost");
    assert!(get_over(&mut client, "/").unwrap().starts_with("HTTP/1.1 200"));
}
