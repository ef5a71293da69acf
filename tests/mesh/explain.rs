//! What is told of a request afterwards, and beforehand.

use lictor_testkit::{Answer, Backend, Sidecar, eventually_is, free_ports, request};
use serde_json::Value as Json;

use crate::{LICTOR, caller_of};

/// The stories of the request that was answered so.
fn stories(lictor: &Sidecar, answer: &Answer) -> Vec<Json> {
    let id = answer.header("x-request-id");
    let page = eventually_is(
        "the story is kept",
        || lictor.page(&format!("/requests/{id}")),
        |page| page["requests"].is_array(),
    );
    page["requests"].as_array().unwrap().clone()
}

#[test]
fn a_failed_request_has_its_whole_story() {
    let (down, backend) = (free_ports::<1>(), Backend::start("b"));
    backend.answers(503);
    let yaml = format!(
        "registration: off
upstreams:
  users:
    listen: 0
    balance: round_robin
    breaker: off
    static: ['127.0.0.1:{}', '127.0.0.1:{}']
    routes: [{{match: 'GET /users/{{id}}', retry: {{attempts: 2, delays: [1ms]}}, timeout: 7s}}]
",
        down[0],
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let headers = [("X-Request-ID", "order-17"), ("X-Request-Timeout-Ms", "5000")];
    let answer = request(&lictor.address("users"), "GET", "/users/1?token=secret", &headers, b"").unwrap();
    assert_eq!((answer.status, answer.header("x-request-id")), (503, "order-17"));
    let all = stories(&lictor, &answer);
    assert_eq!(all.len(), 1);
    let story = &all[0];
    let text = |key: &str| story[key].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("method"), text("path"), text("upstream")), ("GET".into(), "/users/1".into(), "users".into()));
    assert_eq!(
        (text("kept"), text("route"), text("direction")),
        ("failed".into(), "/users/{id}".into(), "outbound".into())
    );
    assert_eq!(
        (&story["status"], &story["deadline_ms"], &story["policy"]["timeout_ms"]),
        (&503.into(), &5000.into(), &7000.into())
    );
    assert_eq!((&story["policy"]["attempts"], &story["breaker"]["state"]), (&2.into(), &"closed".into()));
    assert!(story["retry_budget_remaining"].as_f64().unwrap() < 1.0, "{story}");
    let attempts = story["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{story:#}");
    let refused = attempts.iter().position(|attempt| attempt["outcome"] == "connect_refused").unwrap();
    assert!(attempts[refused]["detail"].as_str().unwrap().contains("connection refused by"), "{story:#}");
    assert_eq!(attempts[1 - refused]["detail"], "answered 503");
    assert_eq!((&attempts[0]["then"]["is_retried"], &attempts[1]["then"]["is_retried"]), (&true.into(), &false.into()));
    assert_eq!(attempts[1]["then"]["why"], "all attempts that the policy allows were made");
    assert!(attempts[1]["began_ms"].as_f64() > attempts[0]["began_ms"].as_f64());
    assert!(!story.to_string().contains("secret"), "a query is nobody's business: {story}");
}

#[test]
fn requests_are_listed_newest_first_and_by_what_is_asked() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.answers(500);
    let yaml = format!(
        "registration: off
workers: 2
upstreams:
  bad: {{listen: 0, retry: off, breaker: off, static: ['127.0.0.1:{}']}}
  good: {{listen: 0, static: ['127.0.0.1:{}']}}
  none: {{listen: 0, retry: off, static: ['127.0.0.1:{}']}}
",
        bad.port(),
        good.port(),
        free_ports::<1>()[0]
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let ask = |upstream: &str, id: &str| {
        request(&lictor.address(upstream), "GET", &format!("/{id}"), &[("X-Request-ID", id)], b"").unwrap().status
    };
    assert_eq!((ask("bad", "one"), ask("none", "two"), ask("bad", "three")), (500, 502, 500));
    (0..5).for_each(|number| assert_eq!(ask("good", &format!("good-{number}")), 200));
    let ids = |query: &str| {
        let page = lictor.page(&format!("/requests{query}"));
        let ids = page["requests"].as_array().unwrap().iter();
        ids.map(|story| story["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually_is("all failures are kept", || ids("?status=5xx"), |ids| ids == &["three", "two", "one"]);
    assert_eq!(ids("?upstream=bad&limit=1"), ["three"]);
    assert_eq!(ids("?reason=connect_refused"), ["two"]);
    assert_eq!(ids("?status=500&path=/o"), ["one"]);
    let good = ids("?upstream=good");
    assert!(good.len() < 5 && !good.is_empty(), "of good requests a sample is kept, each worker's first: {good:?}");
    let wrong = lictor_testkit::get(&lictor.admin(), "/requests?status=often").unwrap();
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert_eq!(lictor_testkit::get(&lictor.admin(), "/requests/nobody").unwrap().status, 404);
}

#[test]
fn a_post_that_is_not_repeated_says_why() {
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller_of(&[&backend], ", breaker: off");
    let answer = request(&lictor.address("users"), "POST", "/orders", &[("X-Request-ID", "p1")], b"order").unwrap();
    let then = &stories(&lictor, &answer)[0]["attempts"][0]["then"];
    assert_eq!(then["why"], "POST without Idempotency-Key: a second processing might do harm", "{then}");
}
