//! A service that is asked whether a request may go on.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use lictor_testkit::{RawServer, Sidecar, connect, eventually_is, free_ports, read_head};
use parking_lot::{Condvar, Mutex};

use crate::{
    Ask, BOTH, LICTOR, Told, Version, ask, begun_http2, block, configuration, echo, echo_once, field, frame, line_of,
    lines, told_http1, told_http2, told_on,
};

/// Asks for what the token says: `200`, `401`, `slow`, ..
pub(crate) struct Service {
    server: RawServer,
    /// The heads of all that it was asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::that(None)
    }

    /// One that does this, whatever the token says.
    fn that(does: Option<&'static str>) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let server = RawServer::start(move |mut stream| {
            loop {
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                seen.lock().push(head.clone());
                let token = field(&head, "authorization").and_then(|it| it.split(' ').next_back()).unwrap_or_default();
                if !answer(&mut stream, does.unwrap_or(token)) {
                    return;
                }
            }
        });
        Self { server, asked }
    }

    fn count(&self) -> usize {
        self.asked.lock().len()
    }

    fn last(&self) -> String {
        self.asked.lock().last().unwrap().to_lowercase()
    }
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, case: &str) -> bool {
    let case = case.split('.').next().unwrap_or_default(); // `401.7` is another token with the same answer
    let (status, fields, body) = match case {
        "named" => (
            "200 OK",
            "X-Tenant: acme\r\nX-Secret: s3cret\r\nX-User-ID: 7\r\nSet-Cookie: a=b\r\nConnection: keep-alive\r\n",
            "",
        ),
        "body" => ("200 OK", "Content-Type: application/json\r\n", r#"{"id":7,"user":{"tenant":"acme"},"valid":true}"#),
        "liar" => ("200 OK", "", r#"{"id":7,"valid":"false"}"#),
        "html" => ("200 OK", "", "<html>"),
        "twice" => ("200 OK", "", r#"{"valid":false,"valid":true}"#),
        "over" => ("200 OK", "", r#"{"exp":1}"#),
        "no-store" => ("200 OK", "Cache-Control: no-store\r\n", ""),
        "204" => ("204 No Content", "", ""),
        "302" => {
            ("302 Found", "Location: https://login.example/?back=1\r\nX-Secret: s3cret\r\nServer: inner\r\n", "inner")
        }
        "cookie" => ("302 Found", "Location: /login\r\nSet-Cookie: state=1\r\n", ""),
        "401" => ("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"inner\"\r\nX-Secret: s3cret\r\n", "inner"),
        "plain401" => ("401 Unauthorized", "", "inner"),
        "403" => ("403 Forbidden", "Set-Cookie: gone=1\r\nX-Secret: s3cret\r\n", "inner"),
        "404" => ("404 Not Found", "", "inner"),
        "304" => ("304 Not Modified", "", ""),
        "429" => ("429 Too Many Requests", "Retry-After: 1\r\n", "inner"),
        "500" => ("500 Internal Server Error", "", "inner"),
        "502" => ("502 Bad Gateway", "", "inner"),
        "503" => ("503 Service Unavailable", "", "inner"),
        "huge" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            return stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&vec![b' '; 1_000_000]).is_ok();
        }
        "reset" => return false,
        "garbage" => {
            let _ = stream.write_all(b"SSH-2.0-nobody\r\n\r\n");
            return false;
        }
        // Until the other side has had enough.
        "slow" => {
            read_head(stream);
            return false;
        }
        "half" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{");
            read_head(stream);
            return false;
        }
        _ => ("200 OK", "", ""),
    };
    let length =
        if matches!(case, "204" | "304") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}{length}\r\n{body}").as_bytes()).is_ok()
}

fn yaml(one: &RawServer, service: u16, keys: &str, routes: &str) -> String {
    let users = format!(
        "  users: {{static: ['127.0.0.1:{service}'], retry: off, breaker: off, ejection: off, fallback: {{body: '{{}}', status: 200}}}}\n"
    );
    configuration(&[("one", one)], &users, keys, routes)
}

pub(crate) fn gateway(one: &RawServer, service: &Service, keys: &str, routes: &str) -> Sidecar {
    Sidecar::serve(LICTOR, &yaml(one, service.server.port(), keys, routes)).up()
}

fn alone(one: &RawServer, service: &Service, keys: &str) -> String {
    format!("workers: 1\n{}", yaml(one, service.server.port(), keys, ROUTES))
}

pub(crate) fn forward(more: &str) -> String {
    format!(
        "  auth:\n    forward: {{to: users, path: /api/auth/validate, method: POST, timeout: 300ms, headers_to_upstream: [X-Tenant, X-User-ID]{more}}}\n"
    )
}

pub(crate) const ROUTES: &str = "    - {path: /*, to: one}\n    - {path: /open, to: one, auth: none}\n    - {path: /maybe, to: one, auth: optional}\n";

fn get(lictor: &Sidecar, version: Version, target: &str, token: &str) -> Told {
    ask(lictor, version, Ask { fields: &[("authorization", &format!("Bearer {token}"))], ..Ask::get(target) })
}

/// Ways to ask for something.
const KINDS: [&str; 4] = ["get", "post", "upgrade", "stream"];

fn ask_as(lictor: &Sidecar, version: Version, kind: &str, token: &str) -> Option<Told> {
    let token = format!("Bearer {token}");
    let fields = [("authorization", &*token)];
    Some(match (kind, version) {
        ("get", _) => ask(lictor, version, Ask { fields: &fields, ..Ask::get("/a/../b?c=d") }),
        ("stream", _) => {
            let fields = [("authorization", &*token), ("accept", "text/event-stream")];
            ask(lictor, version, Ask { fields: &fields, ..Ask::get("/b?c=d") })
        }
        ("post", Version::Http1) => {
            let text = format!(
                "POST /b?c=d HTTP/1.1\r\nHost: shop.example\r\nAuthorization: {token}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            );
            told_http1(connect(&lictor.address("gateway")), text.as_bytes())
        }
        ("post", Version::Http2) => {
            let mut stream = connect(&lictor.address("gateway"));
            let asked = Ask { method: "POST", fields: &fields, ..Ask::get("/b?c=d") };
            let bytes = [begun_http2(), frame(1, 4, 1, &block(asked)), frame(0, 1, 1, b"hello")].concat();
            stream.write_all(&bytes).unwrap();
            told_http2(stream)
        }
        ("upgrade", Version::Http1) => {
            // What stands in front of the answer is not sent on when that is a refusal.
            let text = format!(
                "GET /b?c=d HTTP/1.1\r\nHost: shop.example\r\nAuthorization: {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            let mut stream = connect(&lictor.address("gateway"));
            stream.write_all(text.as_bytes()).unwrap();
            told_on(&mut stream)
        }
        _ => return None,
    })
}

/// What the service says to the token of that name, what that means, and the reason.
pub(crate) const ANSWERS: [(&str, u16, &str); 16] = [
    ("200", 200, ""),
    ("204", 200, ""),
    ("named", 200, ""),
    ("302", 302, ""),
    ("401", 401, "unauthenticated"),
    ("plain401", 401, "unauthenticated"),
    ("403", 403, "forbidden"),
    ("304", 503, "auth_unavailable"),
    ("404", 503, "auth_unavailable"),
    ("429", 503, "auth_unavailable"),
    ("500", 503, "auth_unavailable"),
    ("slow", 503, "auth_unavailable"),
    ("half", 503, "auth_unavailable"),
    ("huge", 503, "auth_unavailable"),
    ("reset", 503, "auth_unavailable"),
    ("garbage", 503, "auth_unavailable"),
];

#[test]
fn each_answer_of_the_service_means_one_thing_for_each_kind_of_request() {
    let (one, service) = (echo_once("one"), Service::start());
    let lictor = gateway(&one, &service, &forward(", answer_max: 64KiB"), ROUTES);
    for version in BOTH {
        for kind in KINDS {
            for (case, status, reason) in ANSWERS {
                let before = one.connections();
                let Some(told) = ask_as(&lictor, version, kind, case) else { continue };
                let what = format!("{version:?} {kind} {case}: {told:?}");
                assert_eq!(told.status, status, "{what}");
                assert!(told.body.contains(reason), "{what}");
                let all = format!("{}{}", told.head, told.body);
                assert!(
                    status == 200
                        || !all.contains("s3cret") && !all.contains("inner")
                        || all.contains("realm=\"inner\""),
                    "{what}"
                );
                let asked = one.connections() - before;
                assert_eq!(asked, usize::from(status == 200), "nobody behind is asked but for who may: {what}");
                let question = service.last();
                for line in [
                    "post /api/auth/validate http/1.1\r\n",
                    "\r\nx-forwarded-uri: /b?c=d\r\n",
                    "\r\nx-forwarded-host: shop.example\r\n",
                    "\r\nx-forwarded-for: 127.0.0.1\r\n",
                    "\r\ncontent-length: 0\r\n",
                    "\r\nhost: users\r\n",
                    if kind == "post" { "\r\nx-forwarded-method: post\r\n" } else { "\r\nx-forwarded-method: get\r\n" },
                ] {
                    assert!(question.contains(line), "{line} in {question}: {what}");
                }
                for name in ["\r\nupgrade:", "\r\nconnection:", "transfer-encoding", "\r\naccept:", "sec-websocket"] {
                    assert!(!question.contains(name), "{name} in {question}: {what}");
                }
            }
        }
        let told = get(&lictor, version, "/", "302");
        assert!(told.head.contains("https://login.example/?back=1") && !told.head.contains("X-Secret"), "{told:?}");
        let told = get(&lictor, version, "/", "403");
        assert!(told.head.contains("gone=1"), "{told:?}");
        let told = get(&lictor, version, "/", "401");
        assert!(told.head.contains("Bearer realm=\"inner\"") && !told.head.contains("realm=\"gateway\""), "{told:?}");
        let told = get(&lictor, version, "/", "plain401");
        assert!(told.head.contains("Bearer realm=\"gateway\""), "{told:?}");
    }
}

#[test]
fn only_what_the_service_says_of_what_is_named_goes_on() {
    let (one, service) = (echo("one"), Service::start());
    let lictor = gateway(&one, &service, &forward(""), ROUTES);
    let forged = [("x-tenant", "forged"), ("x_tenant", "forged"), ("x.tenant", "forged"), ("x-user-id", "forged")];
    for version in BOTH {
        for (target, token, tenant) in [
            ("/", "named", "acme"),
            ("/", "200", ""),
            ("/maybe", "named", "acme"),
            ("/maybe", "", ""),
            ("/open", "named", ""),
        ] {
            let bearer = format!("Bearer {token}");
            let mut fields = forged.to_vec();
            if !token.is_empty() {
                fields.push(("authorization", &bearer));
            }
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
            let seen = told.body.to_lowercase();
            assert_eq!(told.server(), "one", "{version:?} {target} {token}: {told:?}");
            assert!(
                !seen.contains("forged") && !seen.contains("s3cret") && !seen.contains("a=b"),
                "{version:?} {target}: {seen}"
            );
            assert_eq!(seen.contains("x-tenant: acme\r\n"), tenant == "acme", "{version:?} {target} {token}: {seen}");
            assert_eq!(seen.contains("x-user-id: 7\r\n"), tenant == "acme", "{version:?} {target} {token}: {seen}");
            assert!(!told.head.contains("a=b"), "its cookies are not its callers': {told:?}");
        }
        // Nothing to ask about: the service is left alone.
        let before = service.count();
        let told = ask(&lictor, version, Ask::get("/"));
        assert!(told.status == 401 && told.body.contains("Authentication required"), "{told:?}");
        assert_eq!(service.count(), before);
        let twice = [("authorization", "Bearer 200"), ("authorization", "Bearer 401")];
        assert_eq!(ask(&lictor, version, Ask { fields: &twice, ..Ask::get("/") }).status, 400);
        assert_eq!(service.count(), before);
    }
}

#[test]
fn what_its_body_says_is_judged_by_type_like_claims() {
    let (one, service) = (echo("one"), Service::start());
    let keys = forward("") + "    claims_to_headers: {X-Account: id, X-Of: /user/tenant}\n";
    let routes = "    - {path: /*, to: one}\n    - {path: /valid, to: one, auth: {require: {claims: {valid: true}}}}\n";
    let lictor = gateway(&one, &service, &keys, routes);
    for version in BOTH {
        let seen = get(&lictor, version, "/", "body").body.to_lowercase();
        assert!(seen.contains("x-account: 7\r\n") && seen.contains("x-of: acme\r\n"), "{version:?}: {seen}");
        for (target, token, status) in [
            ("/valid", "body", 200),
            ("/valid", "liar", 403),
            ("/valid", "200", 403),
            ("/valid", "twice", 503),
            ("/valid", "html", 503),
            ("/", "liar", 200),
            ("/", "html", 503),
            ("/", "200", 200),
        ] {
            let told = get(&lictor, version, target, token);
            assert_eq!(told.status, status, "{version:?} {target} {token}: {told:?}");
        }
    }
}

#[test]
fn a_yes_is_remembered_with_all_that_it_depends_on_and_a_failure_never() {
    let (one, service) = (echo("one"), Service::start());
    let keys = forward(", cache: 60s");
    // Each worker remembers for itself.
    let lictor = Sidecar::serve(LICTOR, &alone(&one, &service, &keys)).up();
    let asked = |version, target: &str, token: &str| {
        let before = service.count();
        get(&lictor, version, target, token);
        service.count() - before
    };
    for version in BOTH {
        let of = |case: &str| format!("{case}.{version:?}");
        assert_eq!([1, 2, 3].map(|_| asked(version, "/a", &of("named"))), [1, 0, 0], "the same, {version:?}");
        assert_eq!(asked(version, "/a", &of("named.7")), 1, "another token");
        assert_eq!(asked(version, "/b", &of("named")), 1, "another path");
        assert_eq!(asked(version, "/a?b", &of("named")), 1, "another query");
        assert_eq!([1, 2].map(|_| asked(version, "/", &of("500"))), [1, 1], "a failure");
        assert_eq!([1, 2].map(|_| asked(version, "/", &of("404"))), [1, 1], "nonsense");
        // A kept connection that fails is followed by a new one.
        assert!([1, 2].iter().all(|_| asked(version, "/", &of("reset")) >= 1), "no answer");
        assert_eq!([1, 2].map(|_| asked(version, "/", &of("over"))), [1, 1], "what is over");
        assert_eq!([1, 2].map(|_| asked(version, "/", &of("no-store"))), [1, 1], "what it does not want kept");
        assert_eq!([1, 2].map(|_| asked(version, "/", &of("cookie"))), [1, 1], "what is one client's");
        let told = get(&lictor, version, "/a", &of("named"));
        assert!(told.body.to_lowercase().contains("x-tenant: acme\r\n"), "by memory too: {told:?}");
        // A no is forgotten soon: whoever is let in now must not wait.
        asked(version, "/", &of("401"));
        eventually_is("a no is asked anew", || asked(version, "/", &of("401")), |asked| *asked == 1);
        // A token that says itself that it is over is asked about each time: {"exp":1}
        let over = "named.eyJleHAiOjF9.c2ln";
        assert_eq!([1, 2].map(|_| asked(version, "/", over)), [1, 1], "a token whose end has come");
    }
    let token = "named.for-reload";
    assert_eq!([1, 2].map(|_| asked(Version::Http1, "/", token)), [1, 0]);
    lictor.rewrite(&alone(&one, &service, &forward(", cache: 59s")));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!([1, 2].map(|_| asked(Version::Http1, "/", token)), [1, 0], "a reload begins anew");
    // An answer about the credential alone holds for all that it comes with.
    lictor.rewrite(&alone(&one, &service, &forward(", cache: 60s, tells_request: false")));
    assert_eq!(lictor.post("/reload").status, 200);
    assert_eq!(["/a", "/b", "/a?c"].map(|target| asked(Version::Http1, target, token)), [1, 0, 0]);
    assert!(!service.last().contains("x-forwarded-uri") && !service.last().contains("x-forwarded-host"));
}

#[test]
fn a_yes_is_for_the_address_and_the_tls_that_it_was_asked_with() {
    let (one, service) = (echo("one"), Service::start());
    let keys = forward(", cache: 60s") + "  trusted_proxies: [127.0.0.1]\n";
    let lictor = Sidecar::serve(LICTOR, &alone(&one, &service, &keys)).up();
    for version in BOTH {
        let token = format!("Bearer 200.{version:?}");
        for (address, proto, asked) in [
            ("203.0.113.1", "http", 1),
            ("203.0.113.1", "http", 0),
            ("203.0.113.2", "http", 1),
            ("203.0.113.1", "https", 1),
            ("203.0.113.1", "https", 0),
            ("203.0.113.1", "http", 0),
        ] {
            let fields = [("authorization", &*token), ("x-forwarded-for", address), ("x-forwarded-proto", proto)];
            let before = service.count();
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/a") });
            assert_eq!((told.server(), service.count() - before), ("one", asked), "{version:?} {address} {proto}");
        }
    }
}

#[test]
fn who_asks_the_same_at_the_same_time_waits_for_one_answer() {
    let (asked, open) = (Arc::new(Mutex::new(0)), Arc::new((Mutex::new(false), Condvar::new())));
    let (seen, gate) = (Arc::clone(&asked), Arc::clone(&open));
    let server = RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            *seen.lock() += 1;
            gate.1.wait_while(&mut gate.0.lock(), |is_open| !*is_open);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let one = echo("one");
    let keys = "  auth:\n    forward: {to: users, path: /check, timeout: 10s, cache: 60s}\n";
    let yaml = format!("workers: 1\n{}", yaml(&one, server.port(), keys, ROUTES));
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let ask = |version: Version, target: &str| {
        let mut stream = connect(&lictor.address("gateway"));
        let asked = Ask { fields: &[("authorization", "Bearer a")], ..Ask::get(target) };
        let bytes = match version {
            Version::Http1 => {
                format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{}\r\n", lines(asked.fields)).into_bytes()
            }
            Version::Http2 => [begun_http2(), frame(1, 5, 1, &block(asked))].concat(),
        };
        stream.write_all(&bytes).unwrap();
        (version, stream)
    };
    // Who has begun goes away: the others still get the answer.
    let first = BOTH.map(|version| ask(version, "/a"));
    eventually_is("it is asked", || *asked.lock(), |count| *count == 1);
    let others: Vec<_> = (0..20).map(|number| ask(BOTH[number % 2], "/a")).collect();
    drop(first);
    let different = ask(Version::Http2, "/b");
    eventually_is("another is asked for itself", || *asked.lock(), |count| *count == 2);
    *open.0.lock() = true;
    open.1.notify_all();
    for (version, mut stream) in others.into_iter().chain([different]) {
        let told = if version == Version::Http1 { told_on(&mut stream) } else { told_http2(stream) };
        assert_eq!(told.status, 200, "{version:?}: {told:?}");
    }
    assert_eq!(*asked.lock(), 2);
}

#[test]
fn without_the_service_nobody_goes_on_unless_that_is_written() {
    let one = echo("one");
    let [closed] = free_ports();
    let routes = &format!("{ROUTES}    - {{path: /of-somebody, to: one, auth: {{require: {{roles: [admin]}}}}}}\n");
    let is = |fail_open: bool| {
        let keys = forward(&format!(", fail_open: {fail_open}"));
        Sidecar::serve(LICTOR, &yaml(&one, closed, &keys, routes)).up()
    };
    let (shut, open) = (is(false), is(true));
    for version in BOTH {
        for target in ["/", "/maybe"] {
            let told = get(&shut, version, target, "200");
            assert!(told.status == 503 && told.body.contains("auth_unavailable"), "{version:?} {target}: {told:?}");
            assert!(!told.body.contains("127.0.0.1") && !told.body.contains("users"), "{told:?}");
            let told = get(&open, version, target, "200");
            assert_eq!(told.server(), "one", "{version:?} {target}: {told:?}");
            assert!(!told.body.to_lowercase().contains("x-user-id"), "as nobody's: {told:?}");
        }
        assert_eq!(get(&shut, version, "/open", "200").status, 200, "the control");
        assert_eq!(get(&open, version, "/of-somebody", "200").status, 503, "nobody has a role");
        assert_eq!(ask(&open, version, Ask::get("/")).status, 401, "nothing was shown");
    }
    let service = Service::start();
    let there = gateway(&one, &service, &forward(", fail_open: true"), ROUTES);
    for (token, status) in [("500", 200), ("slow", 200), ("401", 401), ("403", 403), ("404", 503), ("huge", 503)] {
        let told = get(&there, Version::Http1, "/", token);
        assert_eq!(told.status, status, "a no, and what nobody understands, are no failures: {token} {told:?}");
    }
    let line = line_of(&shut, |line| line["reason"] == "auth_unavailable");
    assert_eq!(line["route"], "/*", "{line}");
    let asked = line_of(&shut, |line| line["upstream"] == "users");
    assert!(asked["path"] == "/api/auth/validate" && asked["reason"] == "connect_refused", "{asked}");
}

#[test]
fn a_path_with_an_encoded_slash_is_asked_about_as_it_goes_on() {
    let (one, service) = (echo("one"), Service::start());
    let routes = "  - {path: /*, to: one, allow_encoded: ['%2F']}\n";
    let lictor = gateway(&one, &service, &forward(", cache: 1m"), routes);
    for version in BOTH {
        for path in ["/a%2Fb", "/c%2Fd"] {
            let told = get(&lictor, version, path, &format!("200.{version:?}"));
            assert_eq!((told.server(), told.target()), ("one", path), "{version:?}: {told:?}");
            let asked = service.last();
            assert!(asked.contains(&format!("x-forwarded-uri: {}\r\n", path.to_lowercase())), "{version:?}: {asked}");
        }
    }
    assert_eq!(service.count(), 4, "an answer is about one path");
}

#[test]
fn an_answer_stays_its_clients_where_authorization_does_not_go_on() {
    let (one, service) = (echo("one"), Service::start());
    let routes = "  - {path: /mine, to: one, cache: 1m, request_headers: {remove: [Authorization]}}\n  - {path: /open, to: one, cache: 1m, auth: none}\n";
    let lictor = gateway(&one, &service, &forward(""), routes);
    for version in BOTH {
        let mine = ["200.a", "200.b"].map(|token| get(&lictor, version, "/mine", token));
        assert!(mine.iter().all(|told| told.server() == "one" && !told.body.to_lowercase().contains("authorization")));
        assert_ne!(mine[0].body, mine[1].body, "{version:?}");
        let open = [(); 2].map(|()| ask(&lictor, version, Ask::get("/open")));
        assert!(open[0].server() == "one" && open[0].body == open[1].body, "the control: {open:?}");
    }
}

#[test]
fn what_it_says_is_counted() {
    let (one, service) = (echo("one"), Service::start());
    let routes = "    - {path: /*, to: one}\n    - {path: /of-somebody, to: one, auth: {require: {claims: {id: 8}}}}\n";
    let lictor = gateway(&one, &service, &forward(""), routes);
    for version in BOTH {
        for (target, token) in [
            ("/", "200"),
            ("/", "named"),
            ("/", "401"),
            ("/", "403"),
            ("/", "302"),
            ("/", "500"),
            ("/", "404"),
            ("/of-somebody", "body"),
            ("/of-somebody", "html"),
        ] {
            get(&lictor, version, target, token);
        }
        ask(&lictor, version, Ask::get("/"));
    }
    let counted = |provider, decision| {
        lictor.metric("lictor_auth_decisions_total", &[("provider", provider), ("decision", decision)]) as u64
    };
    let all = [
        ("forward", "allowed"),
        ("forward", "denied"),
        ("forward", "unavailable"),
        ("forward", "claim"),
        ("", "missing"),
    ];
    assert_eq!(all.map(|(provider, decision)| counted(provider, decision)), [4, 6, 6, 2, 2]);
}

#[test]
fn it_is_asked_about_the_fields_that_are_named() {
    let (one, service) = (echo("one"), Service::start());
    let lictor = gateway(&one, &service, &forward(", headers_out: [X-Session, Cookie]"), ROUTES);
    for version in BOTH {
        let before = service.count();
        assert_eq!(get(&lictor, version, "/", "200").status, 401, "no session");
        assert_eq!(service.count(), before);
        let fields = [("x-session", "s-1"), ("cookie", "a=1"), ("authorization", "Bearer 403"), ("x-other", "x")];
        let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get("/") });
        assert_eq!((told.server(), service.count()), ("one", before + 1), "{version:?}: {told:?}");
        let question = service.last();
        assert!(question.contains("\r\nx-session: s-1\r\n") && question.contains("\r\ncookie: a=1\r\n"), "{question}");
        assert!(!question.contains("authorization") && !question.contains("x-other"), "{question}");
    }
}

/// At the service, with outcomes that begin so.
fn attempts(lictor: &Sidecar, outcome: &str) -> usize {
    let text = lictor_testkit::get(&lictor.admin(), "/metrics").unwrap().text();
    let (name, outcome) = ("lictor_upstream_attempts_total{", format!("outcome=\"{outcome}"));
    let is_it = |line: &&str| line.starts_with(name) && line.contains("upstream=\"users\"") && line.contains(&outcome);
    text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
}

#[test]
fn where_nothing_was_answered_another_instance_is_asked_by_the_upstreams_rules() {
    let one = echo("one");
    let of_route = "routes: [{match: /api/auth/validate, idempotent: false}]";
    let per_try = "per_try_timeout: 500ms";
    // What one of two instances does, what the upstream says of retries and besides, and whether the other is asked then.
    for (does, retry, more, timeout, is_asked_again) in [
        ("refused", "attempts: 3", "", "10s", true),
        ("refused", "attempts: 3", of_route, "10s", true),
        ("refused", "attempts: 1", "", "10s", false),
        ("refused", "on: [reset]", "", "10s", false),
        ("reset", "attempts: 3", "", "10s", true),
        ("reset", "attempts: 3", of_route, "10s", false),
        ("reset", "on: [connect_failure]", "", "10s", false),
        ("reset", "budget: {min_per_second: 0, ratio: 0%}", "", "10s", false),
        ("slow", "attempts: 3", per_try, "10s", true),
        ("slow", "on: [reset]", per_try, "10s", false),
        ("slow", "attempts: 3", "", "500ms", false),
        ("502", "attempts: 3", "", "10s", true),
        ("503", "attempts: 3", "", "10s", true),
        ("503", "on: [502, reset]", "", "10s", false),
        ("404", "attempts: 3", "", "10s", false),
    ] {
        let (bad, good, [closed]) = (Service::that(Some(does)), Service::start(), free_ports());
        let port = if does == "refused" { closed } else { bad.server.port() };
        let budget = if retry.contains("budget") { "" } else { ", budget: {min_per_second: 1000}" };
        let users = format!(
            "  users: {{static: ['127.0.0.1:{port}', '127.0.0.1:{}'], balance: round_robin, breaker: off, ejection: off, retry: {{{retry}, delays: [1ms]{budget}}}, {more}}}\n",
            good.server.port()
        );
        let keys = format!(
            "  auth:\n    forward: {{to: users, path: /api/auth/validate, method: POST, timeout: {timeout}}}\n"
        );
        let yaml = format!("workers: 1\n{}", configuration(&[("one", &one)], &users, &keys, ROUTES));
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        let now = || {
            let [all, well, refused] = ["", "2xx", "connect_refused"].map(|outcome| attempts(&lictor, outcome));
            let retries = lictor.metric("lictor_retries_total", &[("upstream", "users")]) as usize;
            [all, all - well, all - refused, retries]
        };
        for version in BOTH {
            let (before, asked) = (now(), bad.count() + good.count());
            let told = [(); 4].map(|()| get(&lictor, version, "/", "200").status);
            let mut after = now();
            after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
            let [sent, missed, arrived, retries] = after;
            let what = format!("{version:?} {does} {retry} {more}: {told:?}, {after:?}");
            let refused = told.iter().filter(|status| **status == 503).count();
            assert!(missed > 0 && told.iter().all(|status| matches!(status, 200 | 503)), "{what}");
            let expected = if is_asked_again { (0, 4 + missed, missed) } else { (missed, 4, 0) };
            assert_eq!((refused, sent, retries), expected, "{what}");
            let asked = || bad.count() + good.count() - asked;
            eventually_is(&format!("each is one question: {what}"), asked, |asked| *asked == arrived);
        }
    }
}

#[test]
fn with_all_instances_dead_a_question_is_asked_as_often_as_any_call() {
    let (one, [a, b]) = (echo("one"), free_ports());
    let users = format!(
        "  users: {{static: ['127.0.0.1:{a}', '127.0.0.1:{b}'], breaker: off, ejection: off, retry: {{delays: [1ms]}}}}\n"
    );
    let lictor = Sidecar::serve(LICTOR, &configuration(&[("one", &one)], &users, &forward(""), ROUTES)).up();
    for (version, count) in BOTH.into_iter().zip([3, 6]) {
        let told = get(&lictor, version, "/", "200");
        assert!(told.status == 503 && told.body.contains("auth_unavailable"), "{version:?}: {told:?}");
        assert_eq!(attempts(&lictor, "connect_refused"), count, "{version:?}");
    }
    assert_eq!(one.connections(), 0);
}

#[test]
fn a_question_is_in_its_requests_trace_and_has_its_id() {
    let (one, service, [closed]) = (echo("one"), Service::start(), free_ports());
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let (parent, b3) = (format!("00-{trace}-{span}-01"), format!("{trace}-{span}-1"));
    let cases: [&[(&str, &str)]; 6] = [
        &[],
        &[("traceparent", &parent), ("tracestate", "of=client")],
        &[("x-trace-id", trace)],
        &[("x-trace-id", trace), ("x-span-id", span), ("x-request-id", "from-the-client")],
        &[("b3", &b3)],
        &[("traceparent", "00-not-one")],
    ];
    let spans = format!("trace: {{otlp: 'http://127.0.0.1:{closed}', sample: 100%}}\n");
    for more in ["", &spans, "trace: {legacy_headers: false}\n"] {
        let yaml = yaml(&one, service.server.port(), &forward(""), ROUTES);
        let lictor = Sidecar::serve(LICTOR, &format!("{more}{yaml}")).up();
        for version in BOTH {
            for (number, case) in cases.iter().enumerate() {
                for token in ["200", "401"] {
                    let path = format!("/{version:?}/{number}/{token}");
                    let bearer = format!("Bearer {token}");
                    let fields = [*case, &[("authorization", &*bearer)][..]].concat();
                    let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(&path) });
                    let line = line_of(&lictor, |line| line["path"] == *path);
                    let text = |key: &str| line[key].as_str().unwrap().to_lowercase();
                    let question = service.last();
                    let what = format!("{more} {path} {case:?}: {question} {line}");
                    let of = |head: &str| {
                        let field = |name: &str| field(head, name).map(str::to_owned);
                        (field("traceparent").map(|parent| parent[3..35].to_owned()), field("x-request-id"))
                    };
                    assert_eq!(of(&question), (Some(text("trace_id")), Some(text("request_id"))), "{what}");
                    let is_clients = matches!(number, 1 | 4) || matches!(number, 2 | 3) && !more.contains("legacy");
                    assert_eq!(text("trace_id") == trace, is_clients, "{what}");
                    assert_eq!(question.contains("of=client"), number == 1, "{what}");
                    assert_eq!(question.contains("\r\nb3:"), number == 4, "{what}");
                    if token == "200" {
                        assert_eq!(of(&told.body.to_lowercase()), of(&question), "{what}");
                    }
                }
            }
        }
    }
}
