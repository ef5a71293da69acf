//! `lictor graph` over what real sidecars said in a real Consul.

use std::process::{Command, Stdio};

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is};
use serde_json::{Value as Json, json};

use crate::LICTOR;

fn graph(consul: &Consul, words: &[&str]) -> String {
    let mut command = Command::new(LICTOR);
    command.arg("graph").args(words).env_clear().env("CONSUL_HTTP_ADDR", consul.url()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sidecar(consul: &Consul, name: &str, backend: &Backend, upstreams: &str) -> Sidecar {
    let yaml = format!(
        "service: {name}\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\nupstreams: {upstreams}\n",
        backend.port(),
        consul.url()
    );
    let sidecar = Sidecar::serve(LICTOR, &yaml);
    eventually_is("it passes", || consul.passing(name), |ids| ids.len() == 1);
    sidecar
}

#[test]
fn three_sidecars_are_a_map() {
    let consul = Consul::dev();
    let backends = ["web", "orders", "users"].map(Backend::start);
    let _users = sidecar(&consul, "users", &backends[2], "{}");
    let _orders = sidecar(&consul, "orders", &backends[1], "{users: 0, payments: {listen: 0, required: false}}");
    let _web =
        sidecar(&consul, "web", &backends[0], "{orders: 0, again: {service: users}, fixed: {static: ['127.0.0.1:9']}}");
    consul.register("cron", "cron", 9);
    eventually_is("the catalog has it", || consul.passing("cron"), |ids| ids.len() == 1);
    assert_eq!(
        graph(&consul, &[]),
        "web (1/1 passing)\n├── orders (1/1 passing)\n│   ├── payments (not in Consul)\n│   └── users (1/1 passing)\n\
         └── users (1/1 passing)\nwithout a known dependency: cron (1/1 passing)\n"
    );
    let page: Json = serde_json::from_str(&graph(&consul, &["--json"])).unwrap();
    assert_eq!(page["services"]["orders"]["calls"], json!(["payments", "users"]));
    assert_eq!(page["services"]["web"]["calls"], json!(["orders", "users"]));
    assert_eq!(page["services"]["payments"]["instances"], 0);
    let dot = graph(&consul, &["--dot"]);
    for line in ["digraph lictor {", "  \"web\" -> \"orders\";", "  \"orders\" -> \"payments\";"] {
        assert!(dot.lines().any(|it| it == line), "{dot}");
    }
}

#[test]
fn a_reload_changes_what_the_registration_says() {
    let consul = Consul::dev();
    let backend = Backend::start("web");
    let web = sidecar(&consul, "web", &backend, "{users: {listen: 0, required: false}}");
    let meta = || consul.json("/v1/health/service/web")[0]["Service"]["Meta"]["lictor-upstreams"].clone();
    assert_eq!(meta(), "users");
    let yaml = std::fs::read_to_string(web.file()).unwrap().replace("{users:", "{carts:");
    web.rewrite(&yaml);
    assert_eq!(web.post("/reload").status, 200);
    eventually_is("it says so", meta, |value| *value == "carts");
}
