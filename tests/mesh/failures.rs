//! What lictor says when there is no answer to pass on.

use std::time::Duration;

use lictor_testkit::{Backend, Sidecar, eventually_is, free_ports, request};

use crate::{LICTOR, caller_of};

#[test]
fn a_refused_connection_is_a_502_with_its_story() {
    let [port] = free_ports();
    let yaml = format!("registration: off\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{port}']}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (502, "connect_refused"));
    let status = answer.header("proxy-status");
    assert!(
        status.contains("lictor; error=connection_refused")
            && status.contains(&format!("next-hop=\"127.0.0.1:{port}\"")),
        "{status}"
    );
    assert!(answer.header("x-lictor-attempts").contains("connect_refused"));
    assert!(answer.text().contains("3 attempts failed; last: connection refused by"), "{}", answer.text());
    assert!(answer.text().contains("\"request_id\""));
    eventually_is("the log has it", || lictor.log(), |log| log.contains("\"reason\":\"connect_refused\""));
    assert!((lictor.metric("lictor_upstream_requests_total", &[("reason", "connect_refused")]) - 1.0).abs() < 0.1);
}

#[test]
fn a_late_answer_is_a_504_and_the_callers_deadline_counts() {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(20));
    let lictor = caller_of(&[&backend], ", timeout: 100ms");
    let ours = lictor.get("users", "/");
    assert_eq!((ours.status, ours.header("x-lictor-reason")), (504, "timeout"));
    let callers = request(&lictor.address("users"), "GET", "/", &[("X-Request-Timeout-Ms", "30")], b"").unwrap();
    assert_eq!((callers.status, callers.header("x-lictor-reason")), (504, "deadline_exceeded"));
    let over = request(&lictor.address("users"), "GET", "/", &[("X-Request-Timeout-Ms", "0")], b"").unwrap();
    assert_eq!((over.status, over.header("x-lictor-reason")), (504, "deadline_exceeded"));
    assert_eq!(backend.hits(), 2, "what is over on arrival is not sent");
}

#[test]
fn the_deadline_that_is_passed_on_is_what_is_left() {
    let backend = Backend::start("a");
    let lictor = caller_of(&[&backend], "");
    let answer = request(&lictor.address("users"), "GET", "/", &[("X-Request-Timeout-Ms", "5000")], b"").unwrap();
    let left = answer
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("x-request-timeout-ms: ")?.parse::<u64>().ok())
        .unwrap();
    assert!((4000..5000).contains(&left), "{left}");
}

#[test]
fn an_open_breaker_answers_at_once_and_says_when_to_come_back() {
    let backend = Backend::start("a");
    backend.answers(500);
    let lictor = caller_of(&[&backend], ", retry: off");
    for _ in 0..5 {
        assert_eq!(lictor.get("users", "/").status, 500);
    }
    let refused = lictor.get("users", "/");
    assert_eq!(
        (refused.status, refused.header("x-lictor-reason"), refused.header("retry-after")),
        (503, "breaker_open", "5")
    );
    assert_eq!(backend.hits(), 5);
    assert_eq!(lictor.page("/breakers")["users"]["state"], "open");
    assert!((lictor.metric("circuit_breaker_state", &[("name", "users")]) - 1.0).abs() < 0.1);
    eventually_is("the log has it", || lictor.log(), |log| log.contains("breaker_changed"));
}

#[test]
fn too_many_requests_at_once_are_refused_with_a_time_to_come_back() {
    let backend = Backend::start("slow");
    backend.delays(Duration::from_secs(2));
    let lictor = caller_of(&[&backend], ", limits: {max_in_flight: 1, max_pending: 0}");
    let users = lictor.address("users");
    let first = std::thread::spawn(move || lictor_testkit::get(&users, "/").unwrap().status);
    eventually_is("the first is running", || backend.hits(), |hits| *hits == 1);
    let second = lictor.get("users", "/");
    assert_eq!(
        (second.status, second.header("x-lictor-reason"), second.header("retry-after")),
        (503, "overloaded", "1")
    );
    assert_eq!(first.join().unwrap(), 200);
    assert_eq!(lictor.get("users", "/").status, 200, "its place is free again");
}

#[test]
fn a_post_is_not_sent_twice_unless_it_has_a_key() {
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller_of(&[&backend], ", breaker: off, retry: {delays: [1ms]}");
    let users = lictor.address("users");
    assert_eq!(request(&users, "POST", "/", &[], b"order").unwrap().status, 503);
    assert_eq!(backend.hits(), 1);
    let keyed = request(&users, "POST", "/", &[("Idempotency-Key", "k1")], b"order").unwrap();
    assert!(keyed.text().contains("POST / HTTP/1.1 5"), "the body is sent again: {}", keyed.text());
    assert_eq!(backend.hits(), 4);
    assert!(lictor.metric("lictor_retries_denied_total", &[("reason", "method")]) >= 1.0);
}

#[test]
fn a_post_goes_elsewhere_when_nothing_was_sent() {
    let good = Backend::start("good");
    let [gone] = free_ports();
    let yaml = format!(
        "registration: off\nupstreams:\n  users: {{listen: 0, balance: round_robin, static: ['127.0.0.1:{gone}', '127.0.0.1:{}']}}\n",
        good.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 0..6 {
        assert_eq!(request(&lictor.address("users"), "POST", "/", &[], b"order").unwrap().status, 200);
    }
    assert_eq!(good.hits(), 6);
}

#[test]
fn an_address_that_belongs_to_somebody_else_now_is_left() {
    let (right, wrong) = (Backend::start("right"), Backend::start("wrong"));
    wrong.is_somebody_else();
    let lictor = caller_of(&[&right, &wrong], ", balance: round_robin");
    for _ in 0..10 {
        let answer = request(&lictor.address("users"), "POST", "/", &[], b"order").unwrap();
        assert_eq!((answer.status, answer.header("x-backend")), (200, "right"));
    }
    assert_eq!(wrong.hits(), 1, "one 421 is enough");
}

#[test]
fn grpc_callers_get_a_grpc_status() {
    let [port] = free_ports();
    let yaml = format!(
        "registration: off\nupstreams:\n  users: {{listen: 0, protocol: grpc, static: ['127.0.0.1:{port}']}}\n"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let answer = request(&lictor.address("users"), "POST", "/user.User/Get", &headers, b"\0\0\0\0\0").unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
    assert!(answer.header("grpc-message").contains("connection refused"));
}

#[test]
fn a_short_outage_is_over_soon_for_callers_too() {
    let [port] = free_ports();
    let yaml =
        format!("registration: off\nupstreams:\n  users: {{listen: 0, retry: off, static: ['127.0.0.1:{port}']}}\n");
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 0..5 {
        assert_eq!(lictor.get("users", "/").status, 502);
    }
    let refused = lictor.get("users", "/");
    assert_eq!(refused.header("x-lictor-reason"), "breaker_open");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() <= 4, "{}", refused.header("retry-after"));
    let page = lictor.page("/breakers");
    assert!(page["users"]["next_connect_ms"].as_u64().is_some(), "{page}");
    // Twice it is tried in vain; then somebody is there again.
    eventually_is("two tries", || lictor.page("/breakers"), |page| page["users"]["connects_tried"].as_u64() >= Some(2));
    let _backend = Backend::on("back", port);
    eventually_is(
        "the breaker is half-open",
        || lictor.page("/breakers"),
        |page| page["users"]["state"] == "half-open",
    );
    assert_eq!(lictor.page("/breakers")["users"]["cause"], "connected");
    for _ in 0..3 {
        assert_eq!(lictor.get("users", "/").status, 200);
    }
    assert_eq!(lictor.page("/breakers")["users"]["state"], "closed");
    let told = lictor.metric("lictor_breaker_transitions_total", &[("to", "half-open"), ("cause", "connected")]);
    assert!((told - 1.0).abs() < 0.1, "{told}");
}

#[test]
fn slow_answers_open_a_breaker_that_counts_them() {
    let backend = Backend::start("slow");
    let lictor = caller_of(&[&backend], ", breaker: {slow_call: {over: 20ms, ratio: 50%, min_requests: 4}}");
    backend.delays(Duration::from_millis(60));
    let answers: Vec<u16> = (0..5).map(|_| lictor.get("users", "/").status).collect();
    assert_eq!(answers, [200, 200, 200, 200, 503]);
    assert_eq!(lictor.page("/breakers")["users"]["cause"], "slow_call");
}
