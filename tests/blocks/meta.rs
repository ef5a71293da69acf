//! Meta of the own registration.

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is};
use serde_json::{Value as Json, json};

use super::{LICTOR, TOKEN, asked};

fn meta(consul: &Consul) -> Json {
    consul.json("/v1/catalog/service/orders")[0]["ServiceMeta"].clone()
}

#[test]
fn meta_is_merged_and_stays_through_whatever_happens_to_the_registration() {
    let consul = Consul::dev();
    let backend = Backend::start("orders");
    let yaml = format!(
        "service: orders\nport: {}\ncheck: /health\nregistration: {{id: orders-1, meta: {{version: v1, zone: a}}}}\nconsul: {{address: '{}'}}\nbuilding_blocks: {{meta: true, token: {TOKEN}}}\n",
        backend.port(),
        consul.url()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    eventually_is("it is registered", || consul.passing("orders").len(), |count| *count == 1);
    let patch = |body: &Json| asked(&lictor, "PATCH", "/v1/self/meta", body.to_string().as_bytes());

    let (status, page) = patch(&json!({ "version": "v2", "canary": "yes" }));
    assert_eq!((status, &page["registered"]), (200, &json!(true)), "{page}");
    let is_both = |meta: &Json| meta["version"] == "v2" && meta["canary"] == "yes" && meta["zone"] == "a";
    assert!(is_both(&page["meta"]), "{page}");
    eventually_is("Consul has it", || meta(&consul), is_both);
    assert_eq!(consul.passing("orders"), ["orders-1"], "its checks keep their states");
    eventually_is("it is told", || lictor.log(), |log| log.contains("\"cause\":\"meta\""));

    consul.deregister("orders-1");
    eventually_is("it is registered again, and with it", || meta(&consul), is_both);
    lictor.rewrite(&yaml.replace("check: /health\n", "check: /health\nupstreams: {users: 0}\n"));
    assert_eq!(lictor.post("/reload").status, 200);
    let has_more = |meta: &Json| is_both(meta) && meta["lictor-upstreams"] == "users";
    eventually_is("a reload leaves it", || meta(&consul), has_more);

    let (status, page) = patch(&json!({ "zone": null, "canary": null, "never-there": null }));
    assert_eq!((status, page["meta"].get("zone"), page["meta"].get("canary")), (200, None, None), "{page}");
    let is_less = |meta: &Json| meta["version"] == "v2" && meta["zone"].is_null() && meta["canary"].is_null();
    eventually_is("Consul has it not", || meta(&consul), is_less);

    let before = meta(&consul);
    let pairs: Json =
        (0..65).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    for (body, status, message) in [
        (json!({ "a.b": "c" }), 422, "is no key of Consul's Meta"),
        (json!({ "consul-x": "c" }), 422, "Consul's own"),
        (json!({ "lictor-upstreams": "c" }), 422, "lictor's own"),
        (json!({ "long": "v".repeat(513) }), 422, "longer than 512 bytes"),
        (pairs, 422, "more than 64 pairs"),
        (json!({ "a": 1 }), 400, "a map of texts"),
        (json!(["a"]), 400, "a map of texts"),
        (json!("a".repeat(64 << 10)), 413, "bytes are read here"),
    ] {
        let (seen, page) = patch(&body);
        assert!(seen == status && page["message"].as_str().unwrap().contains(message), "{seen} {page}");
    }
    assert_eq!((patch(&json!({})).0, meta(&consul)), (200, before));
}

#[test]
fn while_consul_is_away_it_is_kept_for_later() {
    let mut consul = Consul::server();
    let backend = Backend::start("orders");
    let yaml = format!(
        "service: orders\nport: {}\nconsul: {{address: '{}'}}\nbuilding_blocks: {{meta: true, token: {TOKEN}}}\n",
        backend.port(),
        consul.url()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    eventually_is("it is registered", || meta(&consul), Json::is_object);
    consul.kill();
    let (status, page) = asked(&lictor, "PATCH", "/v1/self/meta", br#"{"version": "v2"}"#);
    assert_eq!((status, &page["registered"]), (202, &json!(false)), "{page}");
    consul.restart();
    eventually_is("Consul has it", || meta(&consul), |meta| meta["version"] == "v2");
}
