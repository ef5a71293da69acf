//! Answers that are kept: given again, shared by requests at the same time, or in place of a failure.

use std::io::Write;
use std::time::Duration;

use lictor_testkit::{Backend, RawServer, Sidecar, eventually_is, read_head, request};

use crate::caller;

fn count(lictor: &Sidecar, result: &str) -> f64 {
    lictor.metric("lictor_cache_requests_total", &[("upstream", "users"), ("result", result)])
}

#[test]
fn an_answer_is_given_again_to_the_same_caller_only() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", routes: [{match: 'GET /users/{id}', cache: 60s}]");
    let ask = |path: &str, token: &str| {
        request(&lictor.address("users"), "GET", path, &[("Authorization", token)], b"").unwrap()
    };
    let first = ask("/users/1", "ann");
    let again = ask("/users/1", "ann");
    assert_eq!((first.header("age"), again.header("age")), ("", "0"));
    assert_eq!(first.body, again.body);
    assert_ne!(first.header("x-request-id"), again.header("x-request-id"));
    assert_eq!(backend.hits(), 1);
    assert!(ask("/users/1", "bob").text().contains("authorization: bob"));
    assert_eq!(backend.hits(), 2, "another caller");
    ask("/users/2", "ann");
    assert_eq!(backend.hits(), 3, "another user");
    ask("/elsewhere", "ann");
    ask("/elsewhere", "ann");
    assert_eq!(backend.hits(), 5, "another route");
    request(&lictor.address("users"), "POST", "/users/1", &[], b"x").unwrap();
    let fresh = request(&lictor.address("users"), "GET", "/users/1", &[("Cache-Control", "no-cache")], b"").unwrap();
    assert_eq!((fresh.status, backend.hits()), (200, 7));
    assert!((count(&lictor, "hit") - 1.0).abs() < 0.1);
}

#[test]
fn answers_grow_old() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", cache: 100ms");
    eventually_is(
        "it is asked again",
        || {
            lictor.get("users", "/");
            backend.hits()
        },
        |hits| *hits >= 3,
    );
    assert!(count(&lictor, "hit") >= 1.0);
}

#[test]
fn equal_requests_at_the_same_time_are_one() {
    let backend = Backend::start("a");
    backend.delays(Duration::from_millis(300));
    let lictor = caller(&[backend.port()], ", cache: {ttl: 1ms}");
    let address = lictor.address("users");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..20).map(|_| scope.spawn(|| lictor_testkit::get(&address, "/popular").unwrap())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(backend.hits(), 1);
    assert!((count(&lictor, "coalesced") - 19.0).abs() < 0.1, "{}", count(&lictor, "coalesced"));
}

#[test]
fn who_waits_for_an_answer_that_may_not_be_shared_asks_for_itself() {
    let private = RawServer::start(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let answer = b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nme";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let lictor = caller(&[private.port()], ", cache: 60s");
    let address = lictor.address("users");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(lictor_testkit::get(&address, "/").unwrap().text(), "me"));
        }
    });
    assert!((count(&lictor, "hit") + count(&lictor, "coalesced")).abs() < 0.1);
}

#[test]
fn an_old_answer_is_better_than_none() {
    let backend = Backend::start("a");
    let lictor = caller(&[backend.port()], ", fallback: {stale: 5m}, retry: off, breaker: {failure_threshold: 2}");
    let good = lictor.get("users", "/users/1");
    assert_eq!((good.status, good.header("x-lictor-fallback")), (200, ""));
    backend.answers(503);
    for _ in 0..3 {
        let stale = lictor.get("users", "/users/1");
        assert_eq!((stale.status, &stale.body), (200, &good.body));
        assert!(stale.header("x-lictor-fallback").starts_with("stale;age="), "{:?}", stale.headers);
    }
    assert_eq!(backend.hits(), 3, "then the breaker opened");
    assert_eq!(lictor.get("users", "/users/2").status, 503, "nothing is known of that");
    backend.kill();
    assert_eq!(lictor.get("users", "/users/1").status, 200);
    assert!(lictor.metric("lictor_fallbacks_total", &[("upstream", "users"), ("kind", "stale")]) >= 4.0);
    let lines = eventually_is("it is logged", || lictor.lines("request"), |lines| lines.len() == 6);
    assert_eq!(lines[1]["cache"], "stale");
}
