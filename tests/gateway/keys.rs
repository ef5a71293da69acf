//! API keys at the gateway: who is let in, and where a key is seen.

use std::process::{Command, Stdio};

use lictor_core::gateway::password::PasswordHash;
use lictor_testkit::{RawServer, Sidecar};

use crate::issuer::{SECRET, claims, shared};
use crate::{Ask, BOTH, LICTOR, Told, Version, ask, configuration, echo, gateway_of, whole_log};

const OLD: &str = "partner-old-0123456789abcdef";
const NEW: &str = "partner-new-0123456789abcdef=/+";
const OTHER: &str = "reader-0123456789abcdefghij";

/// As `printf %s KEY | sha256sum` prints it.
pub(crate) fn hash(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn auth(more: &str) -> String {
    format!(
        "  auth:\n    keys:\n      query: api_key\n      clients:\n        partner: {{keys: ['{}', '{}'], scopes: [read, write], roles: [partner]}}\n        reader: '{}'\n    claims_to_headers: {{X-Client: sub, X-Scopes: scope}}\n{more}",
        hash(OLD),
        hash(NEW),
        hash(OTHER)
    )
}

const ROUTES: &str = "    - {path: /*, to: one}\n    - {path: /maybe, to: one, auth: optional}\n    - {path: /open, to: one, auth: none}\n    - {path: /told, respond: {body: told}}\n    - {path: /write, to: one, auth: {require: {scopes: [write]}}}\n    - {path: /partners, to: one, auth: {require: {roles: [partner], issuers: [keys]}}}\n";

fn get(lictor: &Sidecar, version: Version, target: &str, fields: &[(&str, &str)]) -> Told {
    ask(lictor, version, Ask { fields, ..Ask::get(target) })
}

#[test]
fn a_key_lets_its_client_in_and_is_seen_by_nobody_else() {
    let one = echo("one");
    let lictor = gateway_of(&[("one", &one)], &auth(""), ROUTES);
    let long = "x".repeat(3000);
    for version in BOTH {
        for (key, client) in [(OLD, "partner"), (NEW, "partner"), (OTHER, "reader")] {
            let told =
                get(&lictor, version, "/a?b=c", &[("x-api-key", key), ("x-client", "forged"), ("X_Client", "forged")]);
            let seen = told.body.to_lowercase();
            assert_eq!((told.server(), told.target()), ("one", "/a?b=c"), "{version:?} {key}: {told:?}");
            assert!(seen.contains(&format!("x-client: {client}\r\n")) && !seen.contains("forged"), "{seen}");
            assert!(!seen.contains("api-key") && !seen.contains("0123456789"), "{version:?}: {seen}");
        }
        for (target, seen) in [
            (format!("/a?api_key={OLD}"), "/a"),
            (format!("/a?b=c&api_key={OLD}&d"), "/a?b=c&d"),
            (format!("/a?%61pi_key={OLD}&b=c"), "/a?b=c"),
            ("/a?api_key=partner-new-0123456789abcdef%3D%2F%2b".to_owned(), "/a"),
        ] {
            let told = get(&lictor, version, &target, &[]);
            assert_eq!((told.server(), told.target()), ("one", seen), "{version:?} {target}: {told:?}");
            assert!(!told.body.contains("0123456789"), "{version:?} {target}: {}", told.body);
        }
        // A wrong key is nobody's, and not a guest's either.
        for key in ["", "wrong", &OLD[1..], &format!("{OLD} "), &OLD.to_uppercase(), &hash(OLD), &long, "\u{fc}"] {
            for target in ["/", "/maybe", "/told"] {
                let told = get(&lictor, version, target, &[("x-api-key", key)]);
                let is_left_out = key.is_empty() || key.ends_with(' ');
                assert!(told.status == 401 || is_left_out, "{version:?} {target} {key:?}: {told:?}");
                assert!(is_left_out || told.body.contains("Invalid authentication token"), "{told:?}");
            }
        }
        let told = get(&lictor, version, "/maybe?api_key=", &[]);
        assert_eq!(told.status, 401, "an empty key is a wrong one: {told:?}");
        let told = get(&lictor, version, "/", &[]);
        assert!(told.status == 401 && told.head.contains("Key realm=\"gateway\""), "{version:?}: {told:?}");
        assert!(told.body.contains("Authentication required") && told.body.contains("unauthenticated"), "{told:?}");
        let told = get(&lictor, version, "/maybe", &[("x-client", "forged")]);
        assert!(told.server() == "one" && !told.body.to_lowercase().contains("x-client"), "{version:?}: {told:?}");
        // Where nobody looks, it is taken off too.
        let told =
            get(&lictor, version, &format!("/open?api_key={OTHER}"), &[("x-api-key", OLD), ("x-client", "forged")]);
        assert_eq!((told.server(), told.target()), ("one", "/open"), "{version:?}: {told:?}");
        assert!(!told.body.contains("0123456789") && !told.body.contains("forged"), "{version:?}: {}", told.body);
    }
    let log = whole_log(&lictor);
    assert!(!log.contains("0123456789"), "{log}");
}

#[test]
fn one_credential_and_enough_of_it() {
    let one = echo("one");
    let jwt = format!("    jwt: {{secret: {SECRET}}}\n");
    let routes = format!(
        "{ROUTES}    - {{path: /keys, to: one, auth: {{by: [keys]}}}}\n    - {{path: /tokens, to: one, auth: {{by: jwt}}}}\n"
    );
    let lictor = gateway_of(&[("one", &one)], &auth(&jwt), &routes);
    let bearer = format!("Bearer {}", shared(&claims(serde_json::json!({"sub": "ada"}))));
    let (key, token) = (("x-api-key", OLD), ("authorization", &*bearer));
    let in_query = format!("/?api_key={OLD}");
    for version in BOTH {
        for (target, fields, status) in [
            ("/", &[key][..], 200),
            ("/", &[token], 200),
            ("/", &[key, key], 400),
            ("/", &[key, token], 400),
            ("/", &[key, ("x-api-key", "wrong")], 400),
            (&in_query, &[], 200),
            (&in_query, &[key], 400),
            (&in_query, &[token], 400),
            ("/maybe", &[key, token], 400),
            ("/write", &[key], 200),
            ("/write", &[("x-api-key", OTHER)], 403),
            ("/partners", &[key], 200),
            ("/partners", &[("x-api-key", OTHER)], 403),
            ("/partners", &[token], 401),
            ("/keys", &[key], 200),
            ("/keys", &[token], 401),
            ("/tokens", &[token], 200),
            ("/tokens", &[key], 401),
            ("/open", &[key, token], 200),
        ] {
            let told = get(&lictor, version, target, fields);
            assert_eq!(told.status, status, "{version:?} {target} {fields:?}: {told:?}");
        }
        let told = get(&lictor, version, "/", &[]);
        let ways = ["Bearer realm=\"gateway\"", "Key realm=\"gateway\""];
        assert!(ways.iter().all(|way| told.head.contains(way)), "{version:?}: each way is told: {told:?}");
        let told = get(&lictor, version, "/keys", &[]);
        assert!(!told.head.contains(ways[0]) && told.head.contains(ways[1]), "{version:?}: {told:?}");
    }
}

#[test]
fn a_hash_of_a_key_is_printed_and_a_key_is_not_read_from_the_command_line() {
    let run = |arguments: &[&str], input: &str| {
        let mut child = Command::new(LICTOR)
            .arg("hash-key")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    for input in [OLD.to_owned(), format!("{OLD}\n"), format!("{OLD}\r\n")] {
        assert_eq!(run(&[], &input), (true, format!("{}\n", hash(OLD)), String::new()));
    }
    let (is_good, _, error) = run(&[], "short\n");
    assert!(!is_good && error.contains("can be guessed") && !error.contains("short"), "{error}");
    assert!(!run(&[OLD], "").0, "not as an argument: others see it");
    let (_, text, _) = run(&["--new"], "");
    let (key, hashed) = text.trim_end().split_once('\n').unwrap();
    assert_eq!((key.len(), hashed), (43, &*hash(key)));
    let hashed = |input| {
        let (is_good, text, error) = run(&["--password"], input);
        assert!(is_good, "{error}");
        PasswordHash::parse(text.trim_end()).unwrap()
    };
    let (one, other) = (hashed("hunter2"), hashed("hunter2\r\n"));
    assert!([&one, &other].iter().all(|hash| hash.is_of("hunter2") == Some(true)));
    assert_ne!(one, other, "each has a salt of its own");
    assert!(!run(&["--password", "--new"], "hunter2").0 && !run(&["--password", "hunter2"], "").0);
    for wrong in ["", "\n", "a\nb\n", &"x".repeat(73)] {
        let (is_good, text, error) = run(&["--password"], wrong);
        assert!(!is_good && text.is_empty() && error.contains("a password"), "{wrong:?}: {error}");
    }
}

#[test]
fn no_client_gets_what_was_answered_to_another() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let counting = RawServer::saying(move |_: &str| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{number}", number.len())
    });
    let upstream = format!("  one: {{static: ['127.0.0.1:{}'], cache: 60s}}\n", counting.port());
    let yaml = configuration(&[], &upstream, &auth(""), ROUTES);
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for version in BOTH {
        let partner = get(&lictor, version, "/a", &[("x-api-key", OLD)]);
        let reader = get(&lictor, version, "/a", &[("x-api-key", OTHER)]);
        assert!(partner.status == 200 && partner.body != reader.body, "{version:?}: {partner:?} {reader:?}");
        assert!(partner.head.contains("private"), "nor does a cache between: {partner:?}");
    }
    let [one, other] = [1, 2].map(|_| get(&lictor, Version::Http1, "/open", &[]).body);
    assert_eq!(one, other, "the control: nobody's is everybody's");
}

#[test]
fn a_key_may_be_in_another_field() {
    let one = echo("one");
    let keys = format!("  auth:\n    keys: {{header: X-Partner, clients: {{partner: '{}'}}}}\n", hash(OLD));
    let lictor = gateway_of(&[("one", &one)], &keys, ROUTES);
    for version in BOTH {
        let told = get(&lictor, version, "/", &[("x-partner", OLD), ("x-api-key", "an application's")]);
        let seen = told.body.to_lowercase();
        assert!(told.server() == "one" && !seen.contains("x-partner"), "{version:?}: {told:?}");
        assert!(seen.contains("x-api-key: an application's"), "this one is nobody's business here: {seen}");
        assert_eq!(get(&lictor, version, "/", &[("x-api-key", OLD)]).status, 401);
        let told = get(&lictor, version, &format!("/?api_key={OLD}"), &[]);
        assert_eq!(told.status, 401, "not in the query, where that is not written: {told:?}");
    }
}
