//! Who offers what.

use lictor_testkit::{Consul, eventually, eventually_is};
use serde_json::{Value as Json, json};

use super::{Stream, ask, asked, sidecar};

/// Ids of the instances of a document.
fn ids(page: &Json) -> Vec<&str> {
    page["instances"].as_array().unwrap().iter().map(|instance| instance["id"].as_str().unwrap()).collect()
}

fn register(consul: &Consul, id: &str, more: &Json) {
    let mut body = json!({ "Name": "users", "ID": id, "Address": "127.0.0.1", "Port": 7001 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    consul.put("/v1/agent/service/register", &body);
}

#[test]
fn services_and_their_instances_are_told() {
    let consul = Consul::dev();
    register(
        &consul,
        "users-1",
        &json!({ "Tags": ["v1", "eu"], "Meta": { "version": "v1" }, "Weights": { "Passing": 3, "Warning": 1 } }),
    );
    register(&consul, "users-2", &json!({ "Tags": ["v2"], "Meta": { "version": "v2" } }));
    register(&consul, "users-3", &json!({ "Check": { "TTL": "60s", "Status": "critical" } }));
    let lictor = sidecar(&consul, "services: true");
    let (status, page) = asked(&lictor, "GET", "/v1/services", b"");
    let users = json!({ "name": "users", "tags": ["eu", "v1", "v2"] });
    assert!(status == 200 && page["services"].as_array().unwrap().contains(&users), "{page}");

    let (status, page) = asked(&lictor, "GET", "/v1/services/users", b"");
    assert_eq!((status, ids(&page)), (200, vec!["users-1", "users-2"]));
    let node = consul.json("/v1/agent/self")["Config"]["NodeName"].clone();
    let expected = json!({
        "id": "users-1", "node": node, "address": "127.0.0.1", "port": 7001, "status": "passing", "weight": 3,
        "tags": ["v1", "eu"], "meta": { "version": "v1" },
    });
    assert_eq!(page["instances"][0], expected);
    for (query, expected) in [
        ("?all", &["users-1", "users-2", "users-3"][..]),
        ("?all=0", &["users-1", "users-2"]),
        ("?tag=v1", &["users-1"]),
        ("?tag=v1&tag=eu", &["users-1"]),
        ("?tag=v1&tag=v2", &[]),
        ("?filter=Service.Meta.version%3D%3Dv2", &["users-2"]),
        ("?filter=Service.Meta.version==v2&tag=v2", &["users-2"]),
    ] {
        assert_eq!(ids(&asked(&lictor, "GET", &format!("/v1/services/users{query}"), b"").1), expected, "{query}");
    }
    let (status, page) = asked(&lictor, "GET", "/v1/services/nobody", b"");
    assert_eq!((status, ids(&page).len()), (200, 0));
    let (status, page) = asked(&lictor, "GET", "/v1/services/users?dc=nowhere", b"");
    assert!(status >= 500 && page["message"].as_str().unwrap().contains("No path to datacenter"), "{status} {page}");
}

#[test]
fn whoever_watches_is_told_who_comes_and_goes_also_across_a_restart_of_consul() {
    let mut consul = Consul::server();
    register(&consul, "users-1", &json!({}));
    consul.await_kept(1);
    let lictor = sidecar(&consul, "services: true");
    let mut watches =
        ["", "", "?all"].map(|query| Stream::open(&lictor, "GET", &format!("/v1/watch/services/users{query}")));
    for watch in &mut watches {
        watch.await_data("instances", |page| ids(page) == ["users-1"]);
    }
    register(&consul, "users-2", &json!({ "Check": { "CheckID": "two", "TTL": "60s", "Status": "passing" } }));
    for watch in &mut watches {
        watch.await_data("instances", |page| ids(page) == ["users-1", "users-2"]);
    }
    consul.put("/v1/agent/check/fail/two", &Json::Null);
    let [one, two, all] = &mut watches;
    for watch in [one, two] {
        watch.await_data("instances", |page| ids(page) == ["users-1"]);
    }
    all.await_data("instances", |page| page["instances"][1]["status"] == "critical");

    consul.kill();
    let away = || ask(&lictor, "GET", "/v1/services/users", b"").status;
    eventually_is("it says that Consul is away", away, |status| *status == 503);
    assert!(Stream::try_open(&lictor, "GET", "/v1/watch/services/users").unwrap_err().contains(" 503 "));
    consul.restart();
    register(&consul, "users-4", &json!({}));
    let [one, ..] = &mut watches;
    one.await_data("instances", |page| ids(page).contains(&"users-4"));
}

#[test]
fn so_many_may_watch_and_a_place_is_free_again() {
    let consul = Consul::dev();
    let lictor = sidecar(&consul, "services: true, config: read");
    let mut watches: Vec<Stream> =
        (0..23).map(|number| Stream::open(&lictor, "GET", &format!("/v1/watch/services/s{}", number % 2))).collect();
    watches.push(Stream::open(&lictor, "GET", "/v1/config/a?watch"));
    for path in ["/v1/watch/services/users", "/v1/config/a?watch"] {
        assert!(Stream::try_open(&lictor, "GET", path).unwrap_err().contains(" 503 "), "{path}");
    }
    // Those who watch the same share a query: three in all, besides what the calls above kept.
    let connections = lictor.page("/consul")["connections"].as_u64().unwrap();
    assert!(connections <= 3 + 8, "{connections}");
    watches.pop();
    let again = || Stream::try_open(&lictor, "GET", "/v1/watch/services/users").map(drop);
    eventually("a place is free", again);
}
