//! What is shown to people: nothing that others have named or said does more to a terminal than be seen, and no secret is
//! among it, by whichever command, page or log.

use std::io::{Read, Write};
use std::process::Command;

use lictor_testkit::{Backend, RawServer, Sidecar, connect, eventually_is, read_head, request};
use serde_json::json;

use crate::LICTOR;

/// Clears a screen in two ways, turns the direction of what follows, and begins a line of its own.
const HOSTILE: &str = "evil\u{1b}[2J\u{9b}2J\u{202e}\nFORGED \u{7f}\u{200b}";

/// A Consul that says so about everything, and then has no news.
fn consul(port: u16) -> RawServer {
    RawServer::start(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            let Some(target) = head.split(' ').nth(1).map(str::to_owned) else { return };
            if target.contains("index=") && !target.contains("index=0") {
                let _ = stream.read(&mut [0; 1]); // until it is gone
                return;
            }
            let check = json!({ "Status": "passing", "Name": HOSTILE, "Output": HOSTILE, "CheckID": HOSTILE });
            let node = json!({ "Node": HOSTILE, "Address": "127.0.0.1", "Datacenter": "dc1" });
            let service = json!({
                "ID": HOSTILE, "Service": "users", "Address": "127.0.0.1", "Port": port, "Tags": [HOSTILE],
                "Meta": { "lictor-upstreams": HOSTILE, "version": HOSTILE }, "Weights": { "Passing": 1, "Warning": 1 },
            });
            let body = match target.split('?').next().unwrap_or_default() {
                path if path.starts_with("/v1/health/service/") => {
                    json!([{ "Node": node, "Service": service, "Checks": [check] }])
                }
                "/v1/catalog/services" => json!({ HOSTILE: [], "users": [HOSTILE] }),
                "/v1/agent/self" => {
                    json!({ "Config": { "Version": HOSTILE, "NodeName": HOSTILE, "Datacenter": HOSTILE } })
                }
                _ => json!(HOSTILE),
            };
            let body = body.to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nX-Consul-KnownLeader: true\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Panics where something would do more than be seen.
fn assert_plain(what: &str, text: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    if let Some(at) = text.find(bad) {
        panic!("{what} has {:?}: {:?}", text[at..].chars().next(), &text[text[..at].rfind('\n').unwrap_or(0)..]);
    }
    let forged = text.lines().find(|line| line.trim_start().starts_with("FORGED"));
    assert_eq!(forged, None, "{what} has a line that somebody else has begun");
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(LICTOR).args(arguments).env_clear().output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn nothing_that_others_have_named_does_more_than_be_seen() {
    let backend = Backend::start("a");
    let consul = consul(backend.port());
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: 'http://127.0.0.1:{}'}}\nlog: {{format: text, level: debug}}\nupstreams: {{users: {{listen: 0}}}}\n",
        consul.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml);
    let (users, admin) = (listening(&lictor, "name=users"), listening(&lictor, "kind=admin"));
    eventually_is("there is an endpoint", || page(&admin, "/endpoints"), |page| page.contains("evil"));
    backend.answers(503);
    let id = "request-1";
    let tapping = {
        let admin = admin.clone();
        std::thread::spawn(move || run(&["tap", "--headers", "--count", "1", "--admin", &admin]))
    };
    let say = || {
        let mut stream = connect(&users);
        let head = format!(
            "GET /a HTTP/1.1\r\nHost: users\r\nX-Request-ID: {id}\r\nX-Said: a\u{9b}2J\u{202e}b\r\nUser-Agent: a\u{202e}b\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
    };
    eventually_is(
        "the tap has seen one",
        || {
            say();
            tapping.is_finished()
        },
        |is| *is,
    );
    let file = lictor.path("bad.yaml");
    std::fs::write(
        &file,
        "registration: off\nupstreams:\n  users: {listen: 0, colour\u{202e}\u{200b}: \"a\u{9b}2J\"}\n",
    )
    .unwrap();
    let (file, own) = (file.to_str().unwrap(), lictor.file());
    let own = own.to_str().unwrap();
    let rows: Vec<(&str, String, bool)> = vec![
        ("tap", tapping.join().unwrap(), true),
        ("endpoints", run(&["endpoints", "--admin", &admin]), true),
        ("explain", run(&["explain", "GET", "users", "/", "--admin", &admin]), true),
        ("explain --json", run(&["explain", "GET", "users", "/", "--json", "--admin", &admin]), true),
        ("explain ID", run(&["explain", id, "--admin", &admin]), true),
        ("explain of nobody", run(&["explain", "GET", HOSTILE, "/", "--admin", &admin]), true),
        ("top", run(&["top", "--once", "--width", "200", "--admin", &admin]), false),
        ("graph", run(&["graph", "-c", own]), true),
        ("graph --dot", run(&["graph", "--dot", "-c", own]), true),
        ("graph --json", run(&["graph", "--json", "-c", own]), true),
        ("doctor", run(&["doctor", "-c", own]), true),
        ("doctor --json", run(&["doctor", "--json", "-c", own]), true),
        ("check", run(&["check", "-c", file]), true),
        ("config", run(&["config", "-c", own, "--set", &format!("upstreams.a.service={HOSTILE}")]), false),
        ("init", run(&["init", "--stdout", "--from-consul", HOSTILE, "-c", own]), false),
        ("a story in words", page(&admin, &format!("/requests/{id}?as=text")), true),
        ("a story", page(&admin, &format!("/requests/{id}")), true),
        ("endpoints as JSON", page(&admin, "/endpoints"), true),
        ("the log", lictor.log(), false),
    ];
    for (what, text, names) in &rows {
        assert!(text.len() > 20, "{what}: {text}");
        assert_plain(what, text);
        // It is there, and was not left out.
        assert!(!names || text.contains("\\u202e"), "{what}: {text}");
    }
}

/// Where it is, by a log that is text.
fn listening(lictor: &Sidecar, what: &str) -> String {
    let is_it = |line: &&str| line.contains("listening") && line.contains(what);
    let log = eventually_is("it listens", || lictor.log(), |log| log.lines().any(|line| is_it(&line)));
    let (_, address) = log.lines().find(is_it).unwrap().split_once("address=").unwrap();
    address.split_whitespace().next().unwrap().to_owned()
}

fn page(admin: &str, path: &str) -> String {
    request(admin, "GET", path, &[("Host", "localhost")], b"").unwrap().text()
}

/// Under names that do not say so, too.
const SECRET: [(&str, &str); 14] = [
    ("CF-Access-Jwt-Assertion", "hunter2"),
    ("Ocp-Apim-Subscription-Key", "hunter2"),
    ("X-Amz-Security-Token", "hunter2"),
    ("Proxy-Authorization", "Basic hunter2"),
    ("Authorization", "hunter2"),
    ("Cookie", "a=hunter2"),
    ("X-Original-URI", "/a?token=hunter2"),
    ("X-Forwarded-Uri", "/reset/eyJhbGciOiJIUzI1NiJ9hunter2.x.y"),
    ("Referer", "https://a/b?c=hunter2"),
    ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.hunter2"),
    ("Sec-WebSocket-Protocol", "mqtt, hunter2"),
    ("X-Anything", "Bearer hunter2"),
    ("X-Params", "user=1; api_key=hunter2"),
    ("Baggage", "user=1,session=hunter2"),
];

#[test]
fn no_secret_of_a_request_is_shown_by_anything() {
    let backend = Backend::start("a");
    let lictor = crate::caller(&[backend.port()], "");
    let (admin, users) = (lictor.admin(), lictor.address("users"));
    let count = SECRET.len().to_string();
    let tapping = {
        let admin = admin.clone();
        std::thread::spawn(move || run(&["tap", "--headers", "--count", &count, "--admin", &admin]))
    };
    backend.answers(503); // it is worth keeping
    let target = "/reset/eyJhbGciOiJIUzI1NiJ9hunter2.a.b/now?token=hunter2";
    let ask = |number: usize| {
        let (name, value) = SECRET[number % SECRET.len()];
        let id = format!("request-{number}");
        request(&users, "GET", target, &[(name, value), ("X-Request-ID", &id), ("X-Tenant", "acme")], b"").unwrap();
    };
    let mut number = 0;
    eventually_is(
        "the tap has seen each",
        || {
            ask(number);
            number += 1;
            tapping.is_finished()
        },
        |is| *is,
    );
    let tapped = tapping.join().unwrap();
    assert!(tapped.matches("x-tenant: acme").count() == SECRET.len() && tapped.contains("/reset/***/now"), "{tapped}");
    let stories = page(&admin, "/requests");
    assert!(stories.contains("/reset/***/now"), "{stories}");
    let rows = [
        ("tap", tapped),
        ("stories", stories),
        ("a story", page(&admin, "/requests/request-3")),
        ("a story in words", page(&admin, "/requests/request-3?as=text")),
        ("the dashboard", page(&admin, "/ui/data")),
        ("metrics", page(&admin, "/metrics")),
        ("the log", eventually_is("it is logged", || lictor.log(), |log| log.contains("/reset/***/now"))),
    ];
    for (what, text) in rows {
        assert!(!text.contains("hunter2"), "{what}: {text}");
    }
}
