//! Who takes a service's requests when its own instances cannot, and whose instances they are, with a real Consul.

use lictor_testkit::{Backend, Consul, eventually_is};
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
