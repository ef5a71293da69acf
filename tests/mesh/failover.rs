//! Who takes a service's requests when its own instances cannot, and whose instances they are, with a real Consul.

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is, request};
use serde_json::json;

use crate::caller;

/// A prepared query for the instances of a service.
fn prepare(consul: &Consul, name: &str, service: &str) {
    consul.answer("POST", "/v1/query", &json!({ "Name": name, "Service": { "Service": service } }));
}

#[test]
fn a_prepared_query_says_whose_instances_are_called() {
    let consul = Consul::dev();
    let backends = ["a", "b"].map(Backend::start);
    consul.register("members", "a", backends[0].port());
    prepare(&consul, "people", "members");
    let lictor = caller(&consul, ", query: people");
    lictor.await_endpoints("users", 1);
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-backend")), (200, "a"), "{}", answer.text());
    let told = answer.text().to_lowercase();
    assert!(told.contains("\nhost: members\n") && told.contains("\nx-lictor-to: members/a\n"), "{told}");
    let watch = &lictor.page("/consul")["watches"][0];
    assert_eq!((&watch["service"], &watch["query"]), (&json!("people"), &json!("prepared")), "{watch}");

    // It cannot be waited for: it is asked again.
    consul.register("members", "b", backends[1].port());
    lictor.await_endpoints("users", 2);
}

#[test]
fn a_prepared_query_that_is_not_there_is_explained() {
    let consul = Consul::dev();
    let lictor = caller(&consul, ", query: nobody, timeout: 1s}\nlifecycle: {start_timeout: 100ms");
    let error = || lictor.page("/consul")["watches"][0]["last_error"].to_string();
    eventually_is("the error is shown", error, |error| error.contains("404"));
    assert_eq!(lictor.get("users", "/").header("x-lictor-reason"), "no_endpoints");
    let backend = Backend::start("a");
    consul.register("members", "a", backend.port());
    prepare(&consul, "nobody", "members");
    lictor.await_endpoints("users", 1);
}

/// Whom requests go to, until it is this one.
fn goes_to(lictor: &Sidecar, name: &str) {
    let seen = || lictor.get("users", "/").header("x-backend").to_owned();
    eventually_is(&format!("requests go to {name}"), seen, |seen| seen == name);
    for _ in 0..5 {
        for method in ["GET", "POST"] {
            let answer = request(&lictor.address("users"), method, "/", &[], b"x").unwrap();
            assert_eq!((answer.status, answer.header("x-backend")), (200, name), "{method}");
        }
    }
}

/// The tier of each endpoint, by id.
fn tiers(lictor: &Sidecar) -> Vec<(String, u64)> {
    let page = lictor.page("/endpoints/users");
    let endpoints = page["users"]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|it| (it["id"].as_str().unwrap().to_owned(), it["tier"].as_u64().unwrap())).collect()
}

#[test]
fn another_datacenter_takes_over_while_nobody_here_is_well() {
    let here = Consul::dev();
    let there = here.another_datacenter("dc2");
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    here.register("users", "a", a.port());
    there.register("users", "b", b.port());
    let lictor = caller(&here, ", required: true, failover: [dc2]");
    lictor.await_endpoints("users", 2);
    assert_eq!(tiers(&lictor), [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    goes_to(&lictor, "a");
    here.maintain("a", true);
    goes_to(&lictor, "b");
    assert!(lictor.get("users", "/").text().contains("x-lictor-to: users/b"));
    assert_eq!(lictor.page("/ready")["status"], "ready");
    let moved = || lictor.lines("the requests of an upstream go to another tier").len();
    eventually_is("it is said", moved, |moved| *moved == 1);
    here.maintain("a", false);
    goes_to(&lictor, "a");

    // Nobody anywhere: the answer tells of both.
    here.maintain("a", true);
    there.maintain("b", true);
    lictor.await_endpoints("users", 0);
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (503, "no_endpoints"));
    assert!(answer.text().contains("none of 1 instances of users can be used"), "{}", answer.text());
    assert!(answer.text().contains("none of 1 instances of users in dc2 can be used"), "{}", answer.text());
    assert_eq!(lictor.page("/ready")["status"], "not_ready");
}

#[test]
fn another_version_of_the_same_service_takes_over() {
    let consul = Consul::dev();
    let backends = ["v1", "v2"].map(Backend::start);
    for backend in &backends {
        let body = json!({ "Name": "users", "ID": backend.name(), "Address": "127.0.0.1", "Port": backend.port(),
            "Meta": { "version": backend.name() } });
        consul.put("/v1/agent/service/register", &body);
    }
    let lictor = caller(&consul, ", version: v2, failover: [{version: v1}]");
    lictor.await_endpoints("users", 2);
    goes_to(&lictor, "v2");
    consul.maintain("v2", true);
    goes_to(&lictor, "v1");
    consul.maintain("v2", false);
    goes_to(&lictor, "v2");
}

#[test]
fn another_service_and_a_prepared_query_take_over_in_their_order_and_give_back() {
    let consul = Consul::dev();
    let backends = ["a", "b", "c"].map(Backend::start);
    for (service, backend) in ["users", "old-users", "members"].iter().zip(&backends) {
        consul.register(service, backend.name(), backend.port());
    }
    prepare(&consul, "people", "members");
    let lictor = caller(&consul, ", failover: [{service: old-users}, {query: people}]");
    lictor.await_endpoints("users", 3);
    let explained = lictor.page("/explain?method=GET&upstream=users&path=/")["endpoints"].clone();
    let why: Vec<_> = (0..3).map(|index| (explained[index]["tier"].as_u64(), &explained[index]["why_not"])).collect();
    assert_eq!(why, [(Some(0), &json!(null)), (Some(1), &json!("tier")), (Some(2), &json!("tier"))], "{explained}");
    goes_to(&lictor, "a");
    consul.maintain("a", true);
    goes_to(&lictor, "b");
    let told = lictor.get("users", "/").text().to_lowercase();
    assert!(told.contains("\nhost: old-users\n") && told.contains("\nx-lictor-to: old-users/b\n"), "{told}");
    consul.maintain("b", true);
    goes_to(&lictor, "c");
    let told = lictor.get("users", "/").text().to_lowercase();
    assert!(told.contains("\nhost: members\n") && told.contains("\nx-lictor-to: members/c\n"), "{told}");
    assert!((lictor.metric("lictor_upstream_tier", &[("upstream", "users")]) - 2.0).abs() < 0.1);
    consul.maintain("b", false);
    goes_to(&lictor, "b");
    consul.maintain("a", false);
    goes_to(&lictor, "a");
}

#[test]
fn who_cannot_be_connected_to_is_replaced_before_consul_knows() {
    let consul = Consul::dev();
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let port = a.port();
    consul.register("users", "a", port);
    consul.register("old-users", "b", b.port());
    let lictor = caller(&consul, ", failover: [{service: old-users}]");
    lictor.await_endpoints("users", 2);
    goes_to(&lictor, "a");
    a.kill();
    goes_to(&lictor, "b");
    let _a = Backend::on("a", port);
    goes_to(&lictor, "a");
}
