//! Instances of our own zone first, as far as they can carry it, with a real Consul.

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is};
use serde_json::json;

use crate::LICTOR;

fn register(consul: &Consul, backend: &Backend, zone: &str) {
    let body = json!({ "Name": "users", "ID": backend.name(), "Address": "127.0.0.1", "Port": backend.port(),
        "Meta": { "zone": zone } });
    consul.put("/v1/agent/service/register", &body);
}

fn caller(consul: &Consul, top: &str, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\n{top}\nconsul: {{address: '{}'}}\nupstreams: {{users: {{listen: 0{more}}}}}\n",
        consul.url()
    );
    Sidecar::serve(LICTOR, &yaml).up()
}

/// The share of so many requests that each backend answers whose name begins so.
fn share(lictor: &Sidecar, zone: &str, requests: usize) -> f64 {
    let of_zone = (0..requests).filter(|_| lictor.get("users", "/").header("x-backend").starts_with(zone)).count();
    of_zone as f64 / requests as f64
}

#[test]
fn our_zone_takes_all_while_it_can_and_others_when_it_cannot() {
    let consul = Consul::dev();
    let [a, b] = ["a1", "b1"].map(Backend::start);
    let port = a.port();
    register(&consul, &a, "a");
    register(&consul, &b, "b");
    let lictor = caller(&consul, "zone: a", "");
    lictor.await_endpoints("users", 2);
    assert!((share(&lictor, "a", 50) - 1.0).abs() < 1e-9, "all stay here");
    let explained = lictor.page("/explain?method=GET&upstream=users&path=/");
    assert_eq!(explained["zone_share"], 1.0, "{explained}");
    assert_eq!((&explained["endpoints"][0]["share"], &explained["endpoints"][1]["share"]), (&json!(1.0), &json!(0.0)));
    consul.maintain("a1", true);
    lictor.await_endpoints("users", 1);
    assert!(share(&lictor, "b", 5) > 0.9);
    consul.maintain("a1", false);
    lictor.await_endpoints("users", 2);
    a.kill();
    for _ in 0..20 {
        assert_eq!(lictor.get("users", "/").status, 200, "another zone is better than none");
    }
    let _a = Backend::on("a1", port);
    eventually_is("it is preferred again", || share(&lictor, "a", 20), |share| *share > 0.99);
}

#[test]
fn a_small_zone_takes_its_share_and_no_more_and_without_a_zone_all_are_alike() {
    let consul = Consul::dev();
    let backends = ["a1", "b1", "b2", "b3"].map(Backend::start);
    for backend in &backends {
        register(&consul, backend, &backend.name()[..1]);
    }
    for (top, more, expected) in [
        ("zone: a", ", balance: round_robin", 0.5),
        ("zone: b", ", balance: round_robin", 0.0),
        ("zone: c", ", balance: round_robin", 0.25),
        ("", ", balance: round_robin", 0.25),
        ("zone: a", ", balance: random, prefer_zone: false", 0.25),
    ] {
        let lictor = caller(&consul, top, more);
        lictor.await_endpoints("users", 4);
        let seen = share(&lictor, "a", 400);
        assert!((seen - expected).abs() < 0.12, "{top} {more}: {seen}");
    }
}
