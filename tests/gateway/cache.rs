//! The cache of a gateway's route: what is kept for one is nobody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lictor_testkit::{RawServer, Sidecar, eventually_is, free_ports};
use parking_lot::{Condvar, Mutex};
use serde_json::json;

use crate::issuer::{SECRET, claims, shared};
use crate::keys::hash;
use crate::wire::{Asked, Lines, get};
use crate::{Ask, BOTH, LICTOR, Told, ask, configuration, gateway_with};

/// Answers with its number, and what it was asked for by whom.
fn origin() -> RawServer {
    let count = Arc::new(AtomicUsize::new(0));
    RawServer::saying(move |head| {
        let number = count.fetch_add(1, Relaxed);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let lines: String = target
            .split_once('?')
            .map_or("", |(_, lines)| lines)
            .split('|')
            .filter(|line| !line.is_empty())
            .map(|line| line.replace('\'', "\"") + "\r\n")
            .collect();
        let text = format!("answer {number} {}", "x".repeat(2000));
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{lines}Content-Length: {}\r\n\r\n{text}", text.len())
    })
}

fn lictor(origin: &RawServer) -> Sidecar {
    let more = format!("  origin: {{static: ['127.0.0.1:{}']}}\n", origin.port());
    let routes = "    - {path: /kept/*, to: origin, cache: 60s}\n    - {path: /gone/*, to: origin}\n    - {path: /packed/*, to: origin, cache: {ttl: 60s, coalesce: false}, compress: {with_credentials: true}}\n";
    gateway_with(&[], &more, routes)
}

#[test]
fn a_route_keeps_answers_and_no_answer_crosses_from_one_to_another() {
    let origin = origin();
    let lictor = lictor(&origin);
    let rows: &[(&str, Lines<'_>, Lines<'_>, bool)] = &[
        // a line of the answer, the first request's fields, the second's, whether the second gets the first's answer
        ("", &[], &[], true),
        ("", &[("x-request-id", "1")], &[("x-request-id", "2")], true),
        ("", &[("cookie", "user=a")], &[("cookie", "user=b")], false),
        ("", &[("cookie", "user=a")], &[], false),
        ("", &[("authorization", "Bearer a")], &[("authorization", "Bearer b")], false),
        ("", &[("x-api-key", "a")], &[("x-api-key", "b")], false),
        ("", &[("cookie", "user=a")], &[("cookie", "user=a")], true),
        ("Set-Cookie:a=b", &[], &[], false),
        ("Cache-Control:private", &[], &[], false),
        ("Cache-Control:no-store", &[], &[], false),
        ("Vary:X-Shop", &[("x-shop", "a")], &[("x-shop", "b")], false),
        ("Vary:X-Shop", &[("x-shop", "a")], &[("x-shop", "a")], true),
        // Nobody from outside says who he is: these are taken off, and tell nothing apart.
        ("", &[("x-user-id", "a")], &[("x-user-id", "b")], true),
    ];
    for version in BOTH {
        for (number, (line, first, second, is_same)) in rows.iter().enumerate() {
            for route in ["kept", "gone"] {
                let target = format!("/{route}/{version:?}{number}?{line}");
                let one = get(&lictor, version, Asked::get(&target, first));
                let two = get(&lictor, version, Asked::get(&target, second));
                assert!(
                    one.status == 200 && two.status == 200 && one.is_whole && two.is_whole,
                    "{target}: {one:?} {two:?}"
                );
                assert_eq!(
                    one.body == two.body,
                    *is_same && route == "kept",
                    "{version:?} {target} {first:?} {second:?}"
                );
                assert_ne!(one.field("x-request-id"), two.field("x-request-id"), "each has its own");
            }
        }
        // Another host, another query, another way to write the path.
        let kept = |target: &str| get(&lictor, version, Asked::get(target, &[])).body;
        let first = kept(&format!("/kept/{version:?}/a?X-A:1"));
        assert!(
            kept(&format!("/kept/{version:?}//./a?X-A:1")) == first
                && kept(&format!("/kept/{version:?}/%61?X-A:1")) == first
        );
        assert!(kept(&format!("/kept/{version:?}/a?X-A:2")) != first);
        let other =
            ask(&lictor, version, Ask { host: "other.example", ..Ask::get(&format!("/kept/{version:?}/a?X-A:1")) });
        assert!(other.status == 200 && !other.body.contains(&*String::from_utf8_lossy(&first)), "{other:?}");
    }
}

#[test]
fn what_is_kept_is_compressed_for_who_takes_it() {
    let origin = origin();
    let lictor = lictor(&origin);
    for version in BOTH {
        let target = format!("/packed/{version:?}?ETag:'a'");
        let coded = || get(&lictor, version, Asked::get(&target, &[("accept-encoding", "gzip")]));
        let (first, second) = (coded(), coded());
        let plain = get(&lictor, version, Asked::get(&target, &[]));
        for (got, age) in [(&first, false), (&second, true)] {
            assert_eq!(
                (&*got.field("content-encoding"), &*got.field("etag"), got.headers.contains_key("age")),
                ("gzip", "W/\"a\"", age),
                "{got:?}"
            );
        }
        assert!(first.body == second.body && first.body.len() < 1000);
        assert_eq!((&*plain.field("content-encoding"), &*plain.field("etag")), ("", "\"a\""), "{plain:?}");
        assert_eq!(plain.body.len(), "answer 0 ".len() + 2000);
        let fields = [("accept-encoding", "gzip"), ("if-none-match", "W/\"a\"")];
        let same = get(&lictor, version, Asked::get(&target, &fields));
        assert_eq!(
            (same.status, &*same.field("etag"), &*same.field("vary")),
            (304, "W/\"a\"", "Accept-Encoding"),
            "{same:?}"
        );
        let head =
            get(&lictor, version, Asked { method: "HEAD", ..Asked::get(&target, &[("accept-encoding", "gzip")]) });
        assert_eq!((&*head.field("content-encoding"), &*head.field("content-length")), ("gzip", ""), "{head:?}");
    }
}

#[test]
fn a_cache_that_could_keep_nothing_is_a_mistake() {
    let [port] = free_ports();
    for (route, why) in [
        ("{path: /a, to: one, methods: [POST], cache: 1s}", "is for other methods"),
        ("{path: /a, redirect: /b, cache: 1s}", "is about requests that go to an upstream"),
        ("{path: /a, to: one, cache: soon}", "soon"),
    ] {
        let yaml = format!(
            "registration: off\nservice: edge\nupstreams:\n  one: {{static: ['127.0.0.1:{port}']}}\ngateway:\n  listen: 127.0.0.1:0\n  routes:\n    - {route}\n"
        );
        let mut lictor = Sidecar::serve(LICTOR, &yaml);
        assert!(!lictor.wait().success(), "{route}");
        eventually_is("it says why", || lictor.log(), |log| log.contains(why));
    }
}

/// An origin that answers with its number, once it is let, or 503 where it is broken.
struct Held {
    server: RawServer,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    came: usize,
    is_closed: bool,
    is_broken: bool,
}

impl Held {
    fn start() -> Self {
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let seen = Arc::clone(&state);
        let server = RawServer::saying(move |_| {
            let (state, changed) = &*seen;
            let mut state = state.lock();
            let number = format!("answer {}", state.came);
            state.came += 1;
            changed.wait_while(&mut state, |state| state.is_closed);
            let status = if state.is_broken { "503 Broken" } else { "200 OK" };
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{number}", number.len())
        });
        Self { server, state }
    }

    fn came(&self) -> usize {
        self.state.0.lock().came
    }

    fn set(&self, change: impl Fn(&mut State)) {
        change(&mut self.state.0.lock());
        self.state.1.notify_all();
    }

    /// Two ask at once: neither is answered before `count` have come. What each is told, and how many came.
    fn both(&self, count: usize, ask: [&(dyn Fn() -> Told + Sync); 2]) -> ([Told; 2], usize) {
        let before = self.came();
        self.set(|state| state.is_closed = true);
        std::thread::scope(|scope| {
            let running = ask.map(|ask| scope.spawn(ask));
            eventually_is("they come", || self.came() - before, |came| *came >= count);
            self.set(|state| state.is_closed = false);
            let told = running.map(|running| running.join().unwrap());
            (told, self.came() - before)
        })
    }
}

#[test]
fn no_one_waits_for_or_is_left_with_anothers_answer() {
    /// Of `secret`.
    const PASSWORD: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let keys = ["ann-0123456789abcdefghij", "bob-0123456789abcdefghij"];
    let (origin, judge) = (Held::start(), RawServer::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let at = origin.server.port();
    let more = format!(
        "  kept: {{static: ['127.0.0.1:{at}']}}\n  old: {{static: ['127.0.0.1:{at}'], fallback: {{stale: 1h}}, retry: off, breaker: off, ejection: off}}\n"
    );
    let auth = format!(
        "  request_headers: {{remove: [Authorization, Cookie, X-Session]}}\n  auth:\n    jwt: {{secret: {SECRET}}}\n    from: {{cookie: session, query: token}}\n    keys: {{clients: {{ann: '{}', bob: '{}'}}}}\n    basic: {{users: {{ann: '{PASSWORD}', bob: '{PASSWORD}'}}}}\n    forward: {{to: judge, path: /, headers_out: [X-Session]}}\n",
        hash(keys[0]),
        hash(keys[1])
    );
    let routes = "    - {path: /kept/*, to: kept, cache: 60s}\n    - {path: /open/kept/*, to: kept, cache: 60s, auth: none}\n    - {path: /old/*, to: old}\n    - {path: /open/old/*, to: old, auth: none}\n";
    let lictor = Sidecar::serve(LICTOR, &configuration(&[("judge", &judge)], &more, &auth, routes)).up();
    let tokens = ["ann", "bob"].map(|name| shared(&claims(json!({"sub": name}))));
    let ways: [(&str, &str, [String; 2]); 5] = [
        ("token", "authorization", tokens.clone().map(|token| format!("Bearer {token}"))),
        ("cookie", "cookie", tokens.map(|token| format!("session={token}"))),
        ("key", "x-api-key", keys.map(str::to_owned)),
        ("password", "authorization", ["Basic YW5uOnNlY3JldA==", "Basic Ym9iOnNlY3JldA=="].map(str::to_owned)),
        ("service", "x-session", ["ann", "bob"].map(str::to_owned)),
    ];
    for version in BOTH {
        let public = |target: &str| ask(&lictor, version, Ask::get(target));
        for (way, name, values) in &ways {
            let [ann, bob] = values.each_ref().map(|value| {
                move |lictor: &Sidecar, target: &str| {
                    ask(lictor, version, Ask { fields: &[(name, value)], ..Ask::get(target) })
                }
            });
            let target = format!("/kept/{version:?}/{way}");
            let (told, came) = origin.both(2, [&|| ann(&lictor, &target), &|| bob(&lictor, &target)]);
            assert!(told.iter().all(|told| told.status == 200), "{version:?} {way}: {told:?}");
            assert!(came == 2 && told[0].body != told[1].body, "{version:?} {way}: {came}, {told:?}");
            let again = bob(&lictor, &target);
            assert!(told.iter().all(|told| told.body != again.body), "nor is it kept: {version:?} {way}: {again:?}");

            let target = format!("/old/{version:?}/{way}");
            let first = ann(&lictor, &target);
            origin.set(|state| state.is_broken = true);
            let told = bob(&lictor, &target);
            origin.set(|state| state.is_broken = false);
            assert_eq!((first.status, told.status), (200, 503), "{version:?} {way}: {told:?}");
            assert_ne!(first.body, told.body, "{version:?} {way}");
        }
        // The controls: what is everybody's.
        let target = format!("/open/kept/{version:?}");
        let (told, came) = origin.both(1, [&|| public(&target), &|| public(&target)]);
        assert!(came == 1 && told[0].body == told[1].body, "{version:?}: {came}, {told:?}");
        let target = format!("/open/old/{version:?}");
        let first = public(&target);
        origin.set(|state| state.is_broken = true);
        let told = public(&target);
        origin.set(|state| state.is_broken = false);
        assert_eq!((told.status, &told.body), (200, &first.body), "{version:?}: {told:?}");
    }
}
