//! An operator's orders about endpoints and breakers: obeyed, seen, and over by themselves.

use lictor_testkit::{Backend, Sidecar, eventually_is, get, request};
use serde_json::Value as Json;

use crate::{LICTOR, caller_of};

fn id(backend: &Backend) -> String {
    format!("127.0.0.1:{}", backend.port())
}

/// What a command prints.
fn lictor(sidecar: &Sidecar, command: &[&str]) -> Result<String, String> {
    let (admin, mut arguments) = (sidecar.admin(), command.to_vec());
    arguments.extend(["--admin", &admin]);
    let output = std::process::Command::new(LICTOR).args(arguments).env_clear().output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Of the next ten requests, how many each backend gets.
fn shares<const N: usize>(sidecar: &Sidecar, backends: [&Backend; N]) -> [u64; N] {
    let before = backends.map(Backend::hits);
    (0..10).for_each(|_| assert_eq!(sidecar.get("users", "/").status, 200));
    let mut after = backends.map(Backend::hits);
    after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    after
}

fn events(sidecar: &Sidecar, kind: &str) -> usize {
    let log = sidecar.log();
    log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()).filter(|line| line["kind"] == kind).count()
}

#[test]
fn an_endpoint_is_ejected_by_order_until_it_is_undone() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let sidecar = caller_of(&[&a, &b], ", balance: round_robin");
    let said = lictor(&sidecar, &["eject", &id(&a), "--for", "10m"]).unwrap();
    assert_eq!(said, format!("eject {} of users for 10m\n", id(&a)));
    assert_eq!(shares(&sidecar, [&a, &b]), [0, 10]);
    let page = sidecar.page("/endpoints/users");
    let listed =
        page["users"]["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["id"] == id(&a)).unwrap();
    assert_eq!(listed["order"]["order"], "eject");
    assert!(listed["order"]["for_ms"].as_u64().unwrap() > 500_000, "{listed}");
    assert!((sidecar.metric("lictor_operator_orders", &[("upstream", "users"), ("kind", "eject")]) - 1.0).abs() < 0.1);
    assert_eq!(events(&sidecar, "endpoint_ordered"), 1);
    let shown = lictor(&sidecar, &["endpoints", "users"]).unwrap();
    let row = shown.lines().find(|line| line.contains(&id(&a))).unwrap();
    assert!(shown.starts_with("users (2 of 2 instances, from static)\n") && row.contains("eject ("), "{shown}");
    lictor(&sidecar, &["undo", &id(&a)]).unwrap();
    assert!(shares(&sidecar, [&a, &b]).iter().all(|share| *share >= 3));
    assert!(sidecar.metric("lictor_operator_orders", &[]).abs() < 0.1);
    assert_eq!(events(&sidecar, "endpoint_order_ended"), 1);
}

#[test]
fn an_endpoint_that_is_pinned_gets_everything() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let sidecar = caller_of(&[&a, &b, &c], "");
    lictor(&sidecar, &["pin", &id(&b)]).unwrap();
    assert_eq!(shares(&sidecar, [&a, &b, &c]), [0, 10, 0]);
    b.answers(500);
    let answer = sidecar.get("users", "/");
    let attempts = answer.header("x-lictor-attempts").to_owned();
    assert_eq!((answer.status, attempts.as_str()), (500, ""), "nobody else is tried");
    assert_eq!((a.hits(), c.hits()), (0, 0));
    let explained = sidecar.page("/explain?upstream=users");
    assert_eq!(explained["picked"], id(&b), "{explained}");
}

#[test]
fn whom_an_operator_lets_nothing_go_to_spares_neither_breaker_nor_the_last_one() {
    for (orders, is_spared) in [(&[][..], true), (&[("eject", 1), ("eject", 2)], false), (&[("pin", 0)], false)] {
        let [a, b, c] = ["a", "b", "c"].map(Backend::start);
        let sidecar = caller_of(&[&a, &b, &c], ", retry: off, balance: round_robin");
        for (order, number) in orders {
            lictor(&sidecar, &[order, &id([&a, &b, &c][*number])]).unwrap();
        }
        a.answers(500);
        let told: Vec<u16> = (0..24).map(|_| sidecar.get("users", "/").status).collect();
        let is_open = sidecar.get("users", "/").header("x-lictor-reason") == "breaker_open";
        let is_ejected = events(&sidecar, "endpoint_ejected") > 0;
        assert_eq!((is_open, is_ejected), (!is_spared, is_spared), "{orders:?}: {told:?}");
        if !is_spared {
            assert_eq!((a.hits(), b.hits() + c.hits()), (5, 0), "{orders:?}: {told:?}");
        }
    }
}

#[test]
fn a_pinned_endpoint_that_fails_stays_the_one() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let sidecar = caller_of(&[&a, &b], ", retry: off, breaker: off, balance: round_robin");
    lictor(&sidecar, &["pin", &id(&a)]).unwrap();
    a.answers(500);
    (0..20).for_each(|_| assert_eq!(sidecar.get("users", "/").status, 500));
    assert_eq!((a.hits(), b.hits(), events(&sidecar, "endpoint_ejected")), (20, 0, 0));
    lictor(&sidecar, &["undo", &id(&a)]).unwrap();
    let ejected = || (sidecar.get("users", "/").status, events(&sidecar, "endpoint_ejected"));
    eventually_is("then it may be ejected", ejected, |(_, ejected)| *ejected > 0);
}

#[test]
fn with_all_of_them_ejected_nothing_is_sent_and_the_answer_says_who_ordered_it() {
    let a = Backend::start("a");
    let sidecar = caller_of(&[&a], "");
    assert_eq!(sidecar.post(&format!("/endpoints/{}/eject", id(&a))).status, 200);
    let refused = sidecar.get("users", "/");
    assert_eq!((refused.status, refused.header("x-lictor-reason")), (503, "all_ejected"));
    assert!(refused.text().contains("1 of them by an operator"), "{}", refused.text());
    assert_eq!(a.hits(), 0);
}

#[test]
fn orders_end_by_themselves() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let sidecar = caller_of(&[&a, &b], ", balance: round_robin");
    lictor(&sidecar, &["eject", &id(&a), "--for", "300ms"]).unwrap();
    lictor(&sidecar, &["breaker", "close", "users", "--for", "300ms"]).unwrap();
    assert_eq!(sidecar.page("/breakers")["users"]["forced"], "closed");
    eventually_is("the endpoint's order ends", || events(&sidecar, "endpoint_order_ended"), |ended| *ended == 1);
    eventually_is("the breaker's order ends", || events(&sidecar, "breaker_order_ended"), |ended| *ended == 1);
    assert_eq!(sidecar.page("/breakers")["users"]["forced"], Json::Null);
    assert!(shares(&sidecar, [&a, &b]).iter().all(|share| *share >= 3));
}

#[test]
fn a_breaker_is_opened_held_closed_and_given_back() {
    let a = Backend::start("a");
    let sidecar = caller_of(&[&a], ", retry: off");
    let said = lictor(&sidecar, &["breaker", "open", "users", "--for", "2m"]).unwrap();
    assert_eq!(said, "the breaker of users is open for 2m\n");
    let refused = sidecar.get("users", "/");
    assert_eq!((refused.status, refused.header("x-lictor-reason"), a.hits()), (503, "breaker_open", 0));
    assert!(refused.text().contains("an operator has opened the circuit breaker"), "{}", refused.text());
    assert!((110..=120).contains(&refused.header("retry-after").parse().unwrap()));
    assert!(
        (sidecar.metric("lictor_breaker_transitions_total", &[("to", "open"), ("cause", "operator")]) - 1.0).abs()
            < 0.1
    );
    assert!(events(&sidecar, "breaker_ordered") == 1 && events(&sidecar, "breaker_changed") == 1);
    lictor(&sidecar, &["breaker", "close", "users"]).unwrap();
    a.answers(500);
    (0..20).for_each(|_| assert_eq!(sidecar.get("users", "/").status, 500));
    assert!((sidecar.metric("lictor_operator_orders", &[("kind", "breaker_closed")]) - 1.0).abs() < 0.1);
    assert_eq!(lictor(&sidecar, &["breaker", "auto", "users"]).unwrap(), "the breaker of users is closed by itself\n");
    (0..5).for_each(|_| assert_eq!(sidecar.get("users", "/").status, 500));
    assert_eq!(sidecar.get("users", "/").header("x-lictor-reason"), "breaker_open");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let a = Backend::start("a");
    let sidecar = caller_of(&[&a], "");
    assert!(lictor(&sidecar, &["eject", "nobody"]).unwrap_err().contains("no endpoint has the id nobody"));
    assert!(lictor(&sidecar, &["eject", &id(&a), "--for", "soon"]).unwrap_err().contains("takes a duration"));
    assert!(lictor(&sidecar, &["pin", &id(&a), "--for", "48h"]).unwrap_err().contains("at most 24h"));
    assert!(lictor(&sidecar, &["breaker", "open", "nobody"]).unwrap_err().contains("no upstream is named nobody"));
    let order = format!("/endpoints/{}/eject", id(&a));
    assert_eq!(get(&sidecar.admin(), &order).unwrap().status, 405);
    let browser = request(&sidecar.admin(), "POST", &order, &[("Origin", "http://localhost")], b"").unwrap();
    assert_eq!(browser.status, 403);
    assert_eq!(sidecar.post("/breakers/users?state=ajar").status, 400);
    assert_eq!(sidecar.get("users", "/").status, 200);
}
