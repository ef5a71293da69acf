//! `/openapi.json`, and the process that it describes. `make openapi` makes up many more requests from it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lictor_testkit::{Backend, Consul, Sidecar, connect, get, read_head, request};
use serde_json::{Map, Value as Json};

use super::{AUTHORIZATION, LICTOR, ask, asked, yaml};

/// What is there for `{..}` and for parameters that have to be said.
const SAID: [(&str, &str); 9] = [
    ("upstream", "users"),
    ("id", "a%20b"),
    ("service", "users"),
    ("saga", "order-17"),
    ("key", "database"),
    ("name", "a"),
    ("recurse", "1"),
    ("cas", "0"),
    ("owner", "nobody"),
];

/// All blocks, an upstream, and a registration.
fn sidecar(consul: &Consul, backend: &Backend) -> Sidecar {
    let port = backend.port();
    let more = format!(
        "app: {{port: {port}}}\nadmin: {{public: '127.0.0.1:0'}}\nupstreams: {{users: {{listen: 0, static: ['127.0.0.1:{port}']}}}}\n"
    );
    let yaml = yaml(consul, "services: true, config: write, locks: true, saga: true, meta: true", &more);
    Sidecar::serve(LICTOR, &yaml.replace("registration: off\n", "")).up()
}

fn said(name: &str) -> &'static str {
    SAID.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).unwrap()
}

/// A path with something for each `{..}`, and the parameters that an operation requires.
fn target(path: &str, operation: &Json) -> String {
    let parts = path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => said(name).to_owned(),
        None => part.to_owned(),
    });
    let mut target = parts.collect::<Vec<_>>().join("/");
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    for (at, parameter) in parameters.filter(|it| it["in"] == "query" && it["required"] == true).enumerate() {
        let name = parameter["name"].as_str().unwrap();
        let word = parameter["schema"]["enum"][0].as_str().unwrap_or_else(|| said(name));
        target += &format!("{}{name}={word}", if at == 0 { '?' } else { '&' });
    }
    target
}

/// Status, kind of content, and the text of what is no stream.
fn answered(lictor: &Sidecar, method: &str, target: &str) -> (u16, String, String) {
    let mut stream: TcpStream = connect(&lictor.admin());
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
    let mut text = Vec::new();
    if kind != "text/event-stream" {
        stream.read_to_end(&mut text).unwrap();
    }
    (status, kind, String::from_utf8_lossy(&text).into_owned())
}

fn paths(document: &Json) -> &Map<String, Json> {
    document["paths"].as_object().unwrap()
}

/// An operation is answered, in a way that the document tells.
fn assert_described(lictor: &Sidecar, method: &str, path: &str, operation: &Json) -> u16 {
    let target = target(path, operation);
    let (status, kind, text) = answered(lictor, &method.to_ascii_uppercase(), &target);
    let content = &operation["responses"][status.to_string()]["content"];
    assert!(content[&kind].is_object(), "{method} {target}: {status} {kind} is not described: {text}");
    assert!(!text.contains("no such page") && !text.contains("no such building block"), "{method} {target}: {text}");
    status
}

#[test]
fn each_operation_of_the_document_is_answered_as_it_says() {
    let (consul, backend) = (Consul::dev(), Backend::start("users"));
    consul.put("/v1/kv/config/database", &serde_json::json!({ "host": "db" }));
    let mut lictor = sidecar(&consul, &backend);
    let document = lictor.page("/openapi.json");
    assert_eq!((document["openapi"].as_str(), document["servers"][0]["url"].as_str()), (Some("3.1.0"), Some("/")));
    let mut well = 0;
    for (path, item) in paths(&document) {
        for (method, operation) in item.as_object().unwrap().iter().filter(|_| path != "/quit") {
            let status = assert_described(&lictor, method, path, operation);
            well += usize::from(matches!(status, 200..=299));
        }
    }
    assert!(well > 30, "{well} were answered well");
    let quit = &paths(&document)["/quit"]["post"];
    assert_eq!(assert_described(&lictor, "post", "/quit", quit), 202);
    assert!(lictor.wait().success());
}

#[test]
fn what_is_not_in_the_document_is_not_there() {
    let (consul, backend) = (Consul::dev(), Backend::start("users"));
    let lictor = sidecar(&consul, &backend);
    let document = lictor.page("/openapi.json");
    for (path, item) in paths(&document) {
        let known: Vec<String> = item.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if known.iter().any(|known| known == method) {
                continue;
            }
            let answer = ask(&lictor, method, &target(path, &Json::Null), b"");
            let allowed = answer.header("allow").replace("GET, HEAD", "GET");
            assert_eq!(answer.status, 405, "{method} {path}");
            let mut allowed: Vec<&str> = allowed.split(", ").collect();
            allowed.sort_unstable();
            let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
            known.sort_unstable();
            assert_eq!(allowed, known, "{path}");
        }
    }
    // What the list for people has.
    let index = lictor.get("admin", "/").text();
    let named = index.split([' ', ',', ';', '[', '?', '\n']).filter(|word| word.starts_with('/') && word.len() > 1);
    for word in named.filter(|word| !matches!(*word, "/v1/.." | "/NAME]" | "/ID]" | "/pin" | "/undo")) {
        let plain = word.split("/ID").next().unwrap().split("/NAME").next().unwrap();
        assert!(paths(&document).keys().any(|path| path.starts_with(plain)), "{word}");
    }
    assert_eq!(get(&lictor.address("public"), "/openapi.json").unwrap().status, 404);
    let browser = request(&lictor.admin(), "GET", "/openapi.json", &[("Origin", "http://localhost")], b"").unwrap();
    assert_eq!(browser.status, 403);
}

#[test]
fn parameters_that_are_not_described_and_values_that_cannot_be_meant_are_told() {
    let (consul, backend) = (Consul::dev(), Backend::start("users"));
    let lictor = sidecar(&consul, &backend);
    for (method, target, told) in [
        ("GET", "/requests?stauts=5xx", "there are upstream, status, reason, path, limit"),
        ("GET", "/upstreams?only=users", "nor any other"),
        ("GET", "/requests?limit=-1", "a number of at most 1000000"),
        ("GET", "/requests?limit=%2B5", "a number"),
        ("GET", "/requests?limit=", "a number"),
        ("GET", "/requests?status=%2B503", "a status such as 503"),
        ("GET", "/requests/x?as=html", "one of json, text"),
        ("GET", "/events?since=soon", "such as 10m, not `soon`"),
        ("GET", "/events?since=", "an event's id such as 17"),
        ("GET", "/config?origin=maybe", "true or false"),
        ("GET", "/explain?upstream=users&method=", "leave it out"),
        ("GET", "/explain?url=ftp://shop.example/", "https://"),
        ("POST", "/breakers/users?state=open&for=", "a duration"),
        ("POST", "/breakers/users?state=open&for=0s", "more than nothing"),
        ("POST", "/log-level?level=verbose", "off, error, warn, info, debug, trace"),
        ("POST", "/log-level?level=info,,debug", "off, error"),
        ("GET", "/v1/services?all", "nor any other"),
        ("GET", "/v1/services/users?all=no", "true or false"),
        ("GET", "/v1/config/", "recurse"),
        ("PUT", "/v1/config/a?cas=9223372036854775808", "at most 9223372036854775807"),
        ("PUT", "/v1/locks/a?ttl=", "a duration"),
        ("GET", "/v1/services/users?filter=garbage", "Consul cannot read"),
        ("GET", "/v1/watch/services/users?filter=garbage", "Consul cannot read"),
        ("GET", "/v1/services/..", "no service's name"),
        ("GET", "/v1/services/%2E%2E%2Fa", "no service's name"),
        ("GET", "/v1/services/a%0Ab", "cannot be printed"),
        ("GET", "/v1/config/%F3%AD%A4%96", "cannot be printed"),
        ("PUT", "/v1/config/%F3%AD%A4%96?cas=0", "cannot be printed"),
        ("PUT", "/v1/locks/%F3%AD%A4%96", "cannot be printed"),
    ] {
        let (status, page) = asked(&lictor, method, target, b"");
        assert_eq!(status, 400, "{method} {target}: {page}");
        assert!(page["message"].as_str().unwrap().contains(told), "{method} {target}: {page}");
    }
    // Whoever asks how we are may say what it likes.
    for target in ["/live?verbose", "/ready?x=1", "/metrics?name%5B%5D=up", "/config?origin", "/config?origin=false"] {
        assert_eq!(lictor.get("admin", target).status, 200, "{target}");
    }
    for level in ["info", "DEBUG", "info,lictor_proxy=trace", "lictor::event=warn,off"] {
        let answer = ask(&lictor, "POST", "/log-level", level.as_bytes());
        assert_eq!(answer.status, 200, "{level}: {}", answer.text());
    }
    let encoded = lictor.post("/log-level?level=info%2Clictor_proxy%3Ddebug");
    assert_eq!(encoded.status, 200, "{}", encoded.text());
    let written = ask(&lictor, "PUT", "/v1/config/gr%C3%BC%C3%9Fe?cas=0", b"x");
    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(lictor.get("admin", "/endpoints/u%73ers").status, 200, "names are decoded");
}
