//! Whom to believe less: who is gone with too many others at once, who comes and goes, and whom nobody can connect to. With
//! a real Consul.

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is};
use serde_json::{Value as Json, json};

use crate::caller;

/// The state of each endpoint, by id.
fn states(lictor: &Sidecar) -> Vec<(String, String)> {
    let page = lictor.page("/endpoints/users");
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let endpoints = page["users"]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|it| (text(&it["id"]), text(&it["state"]))).collect()
}

fn are(lictor: &Sidecar, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect();
    eventually_is(&format!("{expected:?}"), || states(lictor), |states| *states == expected);
}

/// Who answers, of so many requests.
fn answering(lictor: &Sidecar, requests: usize) -> Vec<String> {
    let mut names: Vec<String> =
        (0..requests).map(|_| lictor.get("users", "/").header("x-backend").to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn who_is_gone_with_most_others_is_used_last_until_a_connection_fails() {
    let consul = Consul::dev();
    let [a, b, c] = ["a", "b", "c"].map(Backend::start);
    for backend in [&a, &b, &c] {
        consul.register("users", backend.name(), backend.port());
    }
    let lictor = caller(&consul, ", balance: round_robin");
    lictor.await_endpoints("users", 3);
    consul.deregister("a");
    lictor.await_endpoints("users", 2); // alone it is not too many
    consul.deregister("b");
    are(&lictor, &[("b", "suspect"), ("c", "healthy")]);
    assert_eq!(answering(&lictor, 20), ["c"], "one that is certain is enough");
    assert_eq!(lictor.page("/endpoints/users")["users"]["census"]["suspect"], 1);
    c.answers(503);
    eventually_is("the suspect is better than none", || answering(&lictor, 5), |names| names.contains(&"b".to_owned()));
    c.answers(200);
    b.kill();
    c.kill();
    eventually_is("nobody is there", || lictor.get("users", "/").status, |status| *status >= 502);
    are(&lictor, &[("c", "healthy")]);
}

#[test]
fn an_instance_that_comes_and_goes_is_used_last() {
    let consul = Consul::dev();
    let backends = ["a", "b"].map(Backend::start);
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let check = json!({ "ID": "c", "Name": "c", "ServiceID": "a", "TTL": "1m", "Status": "passing" });
    consul.put("/v1/agent/check/register", &check);
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 2);
    for _ in 0..3 {
        consul.put("/v1/agent/check/fail/c", &json!(null));
        lictor.await_endpoints("users", 1);
        consul.put("/v1/agent/check/pass/c", &json!(null));
        lictor.await_endpoints("users", 2);
    }
    are(&lictor, &[("a", "flapping"), ("b", "healthy")]);
    assert_eq!(answering(&lictor, 20), ["b"]);
    assert!((lictor.metric("lictor_upstream_endpoints", &[("state", "flapping")]) - 1.0).abs() < 0.1);
    consul.maintain("b", true);
    lictor.await_endpoints("users", 1);
    assert_eq!(answering(&lictor, 3), ["a"], "better than nobody");
}

#[test]
fn when_connections_to_two_instances_fail_consul_is_asked_anew() {
    let consul = Consul::dev();
    let backends = ["a", "b"].map(Backend::start);
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 2);
    let [a, b] = backends;
    a.kill();
    lictor.get("users", "/one");
    b.kill();
    let refreshes = || {
        lictor.get("users", "/two");
        lictor.metric("lictor_consul_refreshes_total", &[])
    };
    eventually_is("it is asked", refreshes, |count| *count >= 1.0);
    eventually_is("it is said", || lictor.log(), |log| log.contains("\"refreshed\""));
}
