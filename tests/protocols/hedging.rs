//! A slow GET is sent to another endpoint too.

use std::time::{Duration, Instant};

use lictor_testkit::{Backend, Sidecar, eventually_is, request};

use crate::{LICTOR, caller};

const SLOW: Duration = Duration::from_secs(5);

#[test]
fn the_first_answer_counts() {
    let (slow, fast) = (Backend::start("slow"), Backend::start("fast"));
    slow.delays(SLOW);
    let lictor = caller(
        &[slow.port(), fast.port()],
        ", balance: round_robin, hedge: {after: 50ms}, retry: {budget: {ratio: 100%}}",
    );
    let began = Instant::now();
    for _ in 0..4 {
        let answer = lictor.get("users", "/");
        assert_eq!((answer.status, answer.header("x-backend")), (200, "fast"));
    }
    assert!(began.elapsed() < SLOW, "{:?}", began.elapsed());
    let won = lictor.metric("lictor_hedges_total", &[("upstream", "users"), ("outcome", "won")]);
    assert!((1.0..=3.0).contains(&won), "half of them began at the slow one: {won}");
    let abandoned = lictor.metric("lictor_upstream_attempts_total", &[("outcome", "abandoned")]);
    assert!((abandoned - won).abs() < 0.1, "{abandoned}");
}

#[test]
fn what_may_not_be_sent_twice_is_not_hedged() {
    let (slow, other) = (Backend::start("slow"), Backend::start("other"));
    slow.delays(Duration::from_millis(300));
    other.delays(Duration::from_millis(300));
    let lictor = caller(&[slow.port(), other.port()], ", hedge: {after: 10ms}");
    let posted = request(&lictor.address("users"), "POST", "/", &[], b"an order").unwrap();
    assert_eq!(posted.status, 200);
    assert_eq!(slow.hits() + other.hits(), 1);
    assert_eq!(lictor.get("users", "/").status, 200);
    assert_eq!(slow.hits() + other.hits(), 3, "a GET is");
}

#[test]
fn hedges_are_paid_from_the_retry_budget() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    one.delays(Duration::from_millis(60));
    two.delays(Duration::from_millis(60));
    let lictor = caller(
        &[one.port(), two.port()],
        ", hedge: {after: 1ms}, retry: {budget: {ratio: 0%, min_per_second: 1, window: 1s}}",
    );
    for _ in 0..10 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    let outcome = |outcome| lictor.metric("lictor_hedges_total", &[("upstream", "users"), ("outcome", outcome)]);
    assert!(outcome("denied") >= 5.0, "{}", outcome("denied"));
    assert!(outcome("sent") >= 1.0 && outcome("sent") <= 4.0, "{}", outcome("sent"));
}

#[test]
fn the_percentile_of_recent_answers_is_the_delay() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let lictor =
        caller(&[one.port(), two.port()], ", hedge: p95, balance: round_robin, retry: {budget: {ratio: 100%}}");
    let hedged = || lictor.metric("lictor_hedges_total", &[("upstream", "users"), ("outcome", "won")]);
    for _ in 0..200 {
        lictor.get("users", "/");
    }
    one.delays(SLOW);
    let began = Instant::now();
    let before = hedged();
    for _ in 0..4 {
        assert_eq!(lictor.get("users", "/").header("x-backend"), "two");
    }
    assert!(began.elapsed() < SLOW, "{:?}", began.elapsed());
    assert!(hedged() > before);
}

#[test]
fn the_percentile_is_known_on_when_endpoints_change() {
    let (one, two, new) = (Backend::start("one"), Backend::start("two"), Backend::start("new"));
    new.delays(SLOW);
    let policy = "hedge: p95, balance: round_robin, slow_start: 0s, retry: {budget: {ratio: 100%}}";
    let yaml = |port: u16| {
        let endpoints = format!("['127.0.0.1:{port}', '127.0.0.1:{}']", two.port());
        format!("registration: off\nupstreams:\n  users: {{listen: 0, static: {endpoints}, {policy}}}\n")
    };
    let lictor = Sidecar::serve(LICTOR, &yaml(one.port())).up();
    for _ in 0..60 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    lictor.rewrite(&yaml(new.port()));
    assert_eq!(lictor.post("/reload").status, 200);
    eventually_is(
        "it is an endpoint",
        || lictor.page("/endpoints/users").to_string(),
        |page| page.contains(&new.port().to_string()),
    );
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(lictor.get("users", "/").header("x-backend"), "two");
    }
    assert!(began.elapsed() < SLOW, "{:?}", began.elapsed());
    assert!(new.hits() > 0, "the new one was asked first");
}
