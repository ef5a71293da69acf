//! Secrets are in nothing that a gateway tells, to whomever: a canary is put wherever one may be, and all that comes out is searched for it.

use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lictor_testkit::{RawServer, Sidecar, assert_clean, eventually_is, listen, pages, receiver};
use parking_lot::Mutex;
use serde_json::json;

use crate::issuer::{claims, sealed};
use crate::keys::hash;
use crate::redis::{Redis, await_redis};
use crate::{Ask, BOTH, LICTOR, Version, ask, field, whole_log};

/// What the configuration holds.
const SECRET: &str = "canary-jwt-0123456789abcdef-0123456789";
const HELD: [&str; 2] = [SECRET, "canary-redis"];
/// Of `canary-password`, by crypt(3).
const PASSWORD: &str = "$2y$04$abcdefghijklmnopqrstuuag0.YlF7tv7WKWN7rgqJ5KkJ9XU2wny";
const KEY: &str = "canary-key-0123456789abcdef";
const OTHER_KEY: &str = "canary-query-key-0123456789";
/// What services say, which is their clients' alone.
const TOLD: [&str; 3] = ["canary-state", "canary-code", "canary-answer"];

/// A server that keeps the heads of what it was asked, and answers what it is told to.
fn keeping(answer: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> (RawServer, Arc<Mutex<String>>) {
    let heads = Arc::<Mutex<String>>::default();
    let kept = Arc::clone(&heads);
    let server = RawServer::saying(move |head| {
        kept.lock().push_str(head);
        answer(head)
    });
    (server, heads)
}

/// Who is asked whether the session in `X-Session` is good.
fn judge(head: &str) -> &'static str {
    match field(head, "x-session").and_then(|session| session.split('.').nth(1)) {
        Some("200") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Some("302") => {
            "HTTP/1.1 302 Found\r\nLocation: https://login.example/?code=canary-code\r\nSet-Cookie: state=canary-state\r\nContent-Length: 0\r\n\r\n"
        }
        Some("403") => "HTTP/1.1 403 Forbidden\r\nSet-Cookie: state=canary-state\r\nContent-Length: 0\r\n\r\n",
        _ => "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n",
    }
}

/// What this command prints, which reads the configuration or asks the gateway.
fn command(lictor: &Sidecar, words: &[&str]) -> (String, String) {
    let output = Command::new(LICTOR).args(words).arg("-c").arg(lictor.file()).env_clear().output().unwrap();
    (format!("lictor {}", words[0]), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn without<'a>(secrets: &[&'a str], own: &[&str]) -> Vec<&'a str> {
    secrets.iter().copied().filter(|secret| !own.contains(secret)).collect()
}

/// What is asked for, with which fields, and how it is answered.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

#[test]
fn no_secret_is_in_anything_that_it_tells() {
    let (exported, spans) = receiver();
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: id=canary-answer\r\nContent-Length: 2\r\n\r\nhi";
    let ((one, behind), (users, questions), (other, copies)) =
        (keeping(move |_| answer), keeping(judge), keeping(move |_| answer));
    let redis = Redis::start();
    assert!(redis.say("CONFIG SET requirepass canary-redis").starts_with("+OK"));
    let yaml = format!(
        "registration: off
service: edge
log: {{level: trace}}
redis: {{address: '127.0.0.1:{}', password: canary-redis}}
trace: {{otlp: 'http://127.0.0.1:{}', sample: 100%}}
lifecycle: {{drain_delay: 0s}}
upstreams:
  one: {{static: ['127.0.0.1:{}']}}
  other: {{static: ['127.0.0.1:{}']}}
  users: {{static: ['127.0.0.1:{}'], breaker: off, ejection: off}}
gateway:
  listen: 127.0.0.1:0
  auth:
    jwt: {{name: idp, secret: {SECRET}}}
    from: {{cookie: session, query: token}}
    keys: {{query: api_key, clients: {{partner: {{keys: ['{}', '{}']}}}}}}
    basic: {{users: {{ada: '{PASSWORD}'}}}}
    forward: {{to: users, path: /validate, headers_out: [X-Session]}}
  routes:
    - {{path: /in/*, to: one, mirror: other}}
    - {{path: /in/admin, to: one, auth: {{require: {{roles: admin}}}}}}
    - {{path: /in/few, to: one, limit: {{rate: 1/1h, by: [], mode: redis}}}}
    - {{path: /in/short, to: one, head_max: 1KiB}}
",
        redis.port,
        spans.port(),
        one.port(),
        other.port(),
        users.port(),
        hash(KEY),
        hash(OTHER_KEY),
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    await_redis(&lictor);
    let streams = ["/tap", "/events", "/ui/live"].map(|page| (page, listen(&lictor, page)));

    let token =
        |secret: &str, number: u8| sealed(secret, r#"{"alg":"HS256"}"#, &claims(json!({"n": number})).to_string());
    let [by_field, by_cookie, by_query] = [1, 2, 3].map(|number| token(SECRET, number));
    let forged = token("another-secret-another-secret-12", 4);
    let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
    let (right, wrong) = (basic("ada:canary-password"), basic("ada:canary-guess"));
    let (bearer, forged_bearer) = (format!("Bearer {by_field}"), format!("Bearer {forged}"));
    let (cookie, forged_cookie) = (format!("theme=dark; session={by_cookie}"), format!("session={forged}"));
    let query = format!("/in/a?token={by_query}");
    let (forged_query, nowhere) =
        (format!("/in/a?token={forged}"), format!("/none?token={by_query}&api_key={OTHER_KEY}"));
    let (key_query, unread) = (format!("/in/a?api_key={OTHER_KEY}"), format!("/in/a%5cb?api_key={OTHER_KEY}"));
    let long = "x".repeat(2_000);
    let rows: [Row; 22] = [
        ("/in/a", &[("authorization", &bearer)], 200),
        ("/in/a", &[("cookie", &cookie)], 200),
        (&query, &[], 200),
        ("/in/a", &[("x-api-key", KEY)], 200),
        (&key_query, &[], 200),
        ("/in/a", &[("authorization", &right)], 200),
        ("/in/a", &[("x-session", "canary-session.200")], 200),
        ("/in/a", &[("authorization", &forged_bearer)], 401),
        ("/in/a", &[("cookie", &forged_cookie)], 401),
        (&forged_query, &[], 401),
        ("/in/a", &[("x-api-key", "canary-guess")], 401),
        ("/in/a?api_key=canary-guess", &[], 401),
        ("/in/a", &[("authorization", &wrong)], 401),
        ("/in/a", &[("x-session", "canary-session.302")], 302),
        ("/in/a", &[("x-session", "canary-session.403")], 403),
        ("/in/a", &[("x-session", "canary-session.500")], 503),
        ("/in/admin", &[("authorization", &bearer)], 403),
        ("/in/a", &[("authorization", &bearer), ("x-api-key", KEY)], 400),
        (&unread, &[("authorization", &bearer)], 400),
        ("/in/few", &[("authorization", &bearer), ("cookie", &forged_cookie)], 429),
        ("/in/short", &[("authorization", &bearer), ("x-filler", &long)], 431),
        (&nowhere, &[("authorization", &bearer)], 404),
    ];
    assert_eq!(ask(&lictor, Version::Http1, Ask { fields: &[("x-api-key", KEY)], ..Ask::get("/in/few") }).status, 200);
    let mut answers = String::new();
    let mut stories = Vec::new();
    for version in BOTH {
        for (number, (target, shown, status)) in rows.iter().enumerate() {
            let story = format!("story-{version:?}-{number}");
            let usual = [
                ("x-plain", "seen-7f3a"),
                ("x-request-id", &*story),
                ("referer", "http://me:canary-referer@a.example/?token=canary-referer"),
            ];
            let fields = [&usual[..], *shown].concat();
            let told = ask(&lictor, version, Ask { fields: &fields, ..Ask::get(target) });
            assert_eq!(told.status, *status, "{version:?} {target} {shown:?}: {told:?}");
            answers += &format!("{}\n{}\n", told.head, told.body);
            stories.push(story);
        }
    }
    // All have been told of by now.
    let log = whole_log(&lictor);
    eventually_is("copies come", || copies.lock().matches("seen-7f3a").count(), |count| *count == 14);
    let tap = &streams[0].1;
    eventually_is("the tap has told", || tap.lock().contains("/the/last/line"), |has_told| *has_told);
    let told = tap.lock().clone();
    assert!(told.contains("seen-7f3a") && told.contains("\"***\""), "the control: {told}");
    let is_last = |spans: &[u8]| spans.windows(14).any(|part| part == b"/the/last/line");
    eventually_is("spans are exported", || is_last(&exported.lock()), |is_there| *is_there);

    let mut outputs =
        vec![("the log".to_owned(), log), ("spans".to_owned(), String::from_utf8_lossy(&exported.lock()).into_owned())];
    outputs.extend(streams.iter().map(|(page, said)| ((*page).to_owned(), said.lock().clone())));
    let by_id = |story: &String| [format!("/requests/{story}"), format!("/requests/{story}?as=text")];
    let more: Vec<String> = stories
        .iter()
        .flat_map(by_id)
        .chain(["/config?origin=1", "/ui/data", "/requests?limit=100"].map(str::to_owned))
        .collect();
    let pages = pages(&lictor, &more);
    let told_of = pages
        .iter()
        .filter(|(page, text)| page.starts_with("/requests/story") && text.contains("\"path\": \"/in/"))
        .count();
    assert!(told_of > 20, "the control: {told_of} stories");
    outputs.extend(pages);
    let admin = lictor.admin();
    let url = format!("http://shop.example{query}&api_key={OTHER_KEY}");
    for field in [
        format!("Authorization: {bearer}"),
        format!("Authorization: {right}"),
        format!("Cookie: {cookie}"),
        format!("X-API-Key: {KEY}"),
    ] {
        outputs.push(command(&lictor, &["explain", "GET", &url, "-H", &field, "--admin", &admin]));
        outputs
            .push(command(&lictor, &["explain", "GET", "http://shop.example/in/a", "-H", &field, "--admin", &admin]));
    }
    outputs.push(command(&lictor, &["explain", &stories[8], "--admin", &admin]));
    outputs.extend(
        [&["check"][..], &["config"], &["config", "--origin"], &["routes"]].map(|words| command(&lictor, words)),
    );

    let macs = [&by_field, &by_cookie, &by_query, &forged].map(|token| token.rsplit('.').next().unwrap());
    let pairs = [&right, &wrong].map(|text| text.strip_prefix("Basic ").unwrap());
    let texts = [KEY, OTHER_KEY, "canary-password", "canary-guess", "canary-session"];
    let sent: Vec<&str> = macs.into_iter().chain(pairs).chain(texts).collect();
    let all: Vec<&str> = sent.iter().copied().chain(HELD).chain(TOLD).chain(["canary-referer"]).collect();
    for (what, text) in &outputs {
        assert!(!text.is_empty(), "{what} says nothing");
        assert_clean(what, text, &all);
    }
    // Those who are asked, and asked on behalf of others, see what is theirs.
    let theirs: Vec<&str> = sent.iter().copied().chain(HELD).collect();
    let [field, cookie, ..] = macs;
    for (what, text, secrets) in [
        ("an answer", &answers, without(&theirs, &[])),
        ("what goes on", &*behind.lock(), without(&theirs, &[field, cookie, "canary-session"])),
        ("a question", &*questions.lock(), without(&theirs, &["canary-session"])),
        ("a copy", &*copies.lock(), without(&theirs, &[])),
    ] {
        assert!(text.contains("HTTP/1.1"), "{what}: {text}");
        assert_clean(what, text, &secrets);
    }
    for secret in [field, cookie, "canary-session"] {
        assert!(behind.lock().contains(secret), "the control: {secret} goes on");
    }
    assert!(questions.lock().contains("canary-session.500"), "the control");
}
