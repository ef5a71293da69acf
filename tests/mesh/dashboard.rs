//! What the dashboard and `lictor top` read. What they look like is in tests/conformance, with a browser and a terminal.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use lictor_testkit::{Backend, Load, Sidecar, eventually_is, get};
use serde_json::Value as Json;

use crate::{LICTOR, caller_of};

/// Whoever may look at once.
const LISTENERS: usize = 16;

/// Looks, and has seen the first frame.
fn looking(lictor: &Sidecar) -> TcpStream {
    let mut stream = TcpStream::connect(lictor.admin()).unwrap();
    write!(stream, "GET /ui/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let lines = BufReader::new(&stream).lines();
    let frame = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    let frame: Json = serde_json::from_str(&frame).unwrap();
    assert_eq!(frame["upstreams"][0]["name"], "users");
    stream
}

#[test]
fn a_frame_has_the_rates_of_the_last_second_and_the_state_of_everything() {
    let backend = Backend::start("b");
    let lictor = caller_of(&[&backend], "");
    let load = Load::start(&lictor.address("users"), &[http::Method::GET], 50);
    let users = |page: &Json| page["upstreams"][0].clone();
    let page = eventually_is(
        "requests are seen",
        || lictor.page("/ui/data"),
        |page| users(page)["traffic"]["rate"].as_f64().is_some_and(|rate| (25.0..100.0).contains(&rate)),
    );
    let traffic = &users(&page)["traffic"];
    assert!(traffic["p50_ms"].as_f64().unwrap() > 0.0, "{traffic}");
    assert!(traffic["p99_ms"].as_f64() >= traffic["p50_ms"].as_f64(), "{traffic}");
    assert_eq!((&traffic["errors"], &users(&page)["verdict"]["word"]), (&0.0.into(), &"healthy".into()));
    assert_eq!(users(&page)["endpoints"][0]["state"], "healthy");
    backend.answers(503);
    let page = eventually_is(
        "the breaker opens",
        || lictor.page("/ui/data"),
        |page| users(page)["verdict"]["word"] == "breaker open",
    );
    assert_eq!(users(&page)["verdict"]["level"], "bad");
    let kinds = page["failures"]["latest"].as_array().unwrap();
    let reasons: Vec<&str> = kinds.iter().filter_map(|failure| failure["reason"].as_str()).collect();
    assert!(reasons.contains(&"breaker_open"), "{kinds:?}");
    assert!(kinds.iter().any(|failure| failure["reason"].is_null()), "what opened it is not hidden: {kinds:?}");
    load.finish();
    let idle = eventually_is(
        "nobody asks any more",
        || lictor.page("/ui/data"),
        |page| users(page)["traffic"]["rate"].as_f64() == Some(0.0),
    );
    assert!(users(&idle)["traffic"]["p50_ms"].is_null(), "{idle}");
}

#[test]
fn an_endpoint_warms_no_longer_than_slow_start() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let yaml = |endpoints: &[&Backend]| {
        let ports: Vec<String> = endpoints.iter().map(|backend| format!("'127.0.0.1:{}'", backend.port())).collect();
        let users = format!("{{listen: 0, slow_start: 2s, static: [{}]}}", ports.join(", "));
        format!("registration: off\nservice: orders\nupstreams:\n  users: {users}\n")
    };
    let lictor = Sidecar::serve(LICTOR, &yaml(&[&old])).up();
    lictor.rewrite(&yaml(&[&old, &new]));
    assert_eq!(lictor.post("/reload").status, 200);
    let warming = |index: usize| lictor.page("/ui/data")["upstreams"][0]["endpoints"][index]["warming_for_ms"].clone();
    eventually_is("the new one warms", || warming(1), |warming| warming.as_u64().is_some_and(|ms| ms < 2000));
    assert!(warming(0).is_null());
    eventually_is("it has its share", || warming(1), Json::is_null);
}

#[test]
fn so_many_may_look_and_those_who_leave_make_room() {
    let backend = Backend::start("b");
    let lictor = caller_of(&[&backend], "");
    let all: Vec<TcpStream> = (0..LISTENERS).map(|_| looking(&lictor)).collect();
    assert_eq!(lictor.page("/ui/data")["message"], "too many look at /ui already");
    drop(all);
    eventually_is("there is room again", || lictor.page("/ui/data"), |page| page["upstreams"].is_array());
}

#[test]
fn the_page_comes_with_a_policy_and_a_story_as_text() {
    let backend = Backend::start("b");
    backend.answers(500);
    let lictor = caller_of(&[&backend], ", retry: off");
    let page = get(&lictor.admin(), "/ui").unwrap();
    let policy = page.header("content-security-policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    let answer = get(&lictor.address("users"), "/lost").unwrap();
    let id = answer.header("x-request-id").to_owned();
    let told = || get(&lictor.admin(), &format!("/requests/{id}?as=text")).unwrap().text();
    let told = eventually_is("the story is kept", told, |text| text.starts_with("GET /lost to users: 500 after"));
    let said = Command::new(LICTOR).args(["explain", &id, "--admin", &lictor.admin()]).output().unwrap();
    assert_eq!(told, String::from_utf8(said.stdout).unwrap(), "the page tells what the command tells");
}
