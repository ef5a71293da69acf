//! Registration and discovery, with an independent client of the same Consul as the witness.

use std::time::{Duration, Instant};

use consulrs::client::{ConsulClient, ConsulClientSettingsBuilder};
use lictor_testkit::{Backend, Consul, MANAGEMENT, Sidecar, eventually, eventually_is, get};
use serde_json::json;

use crate::{LICTOR, beside, caller};

fn witness(consul: &Consul) -> ConsulClient {
    let settings = ConsulClientSettingsBuilder::default().address(consul.url()).build().unwrap();
    ConsulClient::new(settings).unwrap()
}

fn ask<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(question)
}

#[test]
fn a_service_is_registered_checked_and_deregistered() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let mut lictor = beside(
        &consul,
        &backend,
        "registration: {tags: [http], meta: {version: '1.2.3'}, weights: {passing: 10, warning: 2}}\n",
    )
    .up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    let id = consul.passing("users").remove(0);
    assert!(id.starts_with("users-") && id.ends_with(&format!("-{}", backend.port())), "{id}");
    let seen = ask(async { consulrs::service::read(&witness(&consul), &id, None).await }).unwrap().response;
    assert_eq!((seen.service.as_deref(), seen.port), (Some("users"), Some(u64::from(backend.port()))));
    assert_eq!(seen.tags, Some(vec!["http".to_owned()]));
    let held = consul.json(&format!("/v1/agent/service/{id}"));
    assert_eq!(held["Meta"], json!({ "version": "1.2.3", "protocol": "http1" }));
    assert_eq!(held["Weights"], json!({ "Passing": 10, "Warning": 2 }));
    let checks = consul.json("/v1/agent/checks");
    let check = &checks[format!("{id}:1:http")];
    assert_eq!((check["Type"].as_str(), check["Status"].as_str()), (Some("http"), Some("passing")));
    assert!(lictor.terminate().success());
    assert!(ask(async { consulrs::service::read(&witness(&consul), &id, None).await }).is_err(), "it is gone");
}

#[test]
fn a_registration_that_somebody_deletes_comes_back() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let lictor = beside(&consul, &backend, "").up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    let id = consul.passing("users").remove(0);
    ask(async { consulrs::service::deregister(&witness(&consul), &id, None).await }).unwrap();
    eventually_is(
        "it is back",
        || lictor.metric("lictor_reregistrations_total", &[("cause", "forgotten")]),
        |count| *count >= 1.0,
    );
    eventually_is("it passes again", || consul.passing("users").len(), |count| *count == 1);
    eventually_is("the log has it", || lictor.log(), |log| log.contains("reregistered"));
}

#[test]
fn a_ttl_check_follows_the_application() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let port = backend.port();
    let yaml = format!(
        "service: users\nport: {port}\ncheck: {{ttl: 3s, probe: /health}}\nconsul: {{address: '{}'}}\n",
        consul.url()
    );
    let _lictor = Sidecar::serve(LICTOR, &yaml).up();
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
    backend.kill();
    eventually_is("it fails", || consul.passing("users").len(), |count| *count == 0);
    let _backend = Backend::on("a", port);
    eventually_is("it passes again", || consul.passing("users").len(), |count| *count == 1);
}

#[test]
fn instances_come_and_go_with_their_checks_and_maintenance() {
    let consul = Consul::dev();
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::start).into();
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 3);
    consul.put("/v1/agent/service/maintenance/a?enable=true", &json!(null));
    lictor.await_endpoints("users", 2);
    consul.put("/v1/agent/service/maintenance/a?enable=false", &json!(null));
    lictor.await_endpoints("users", 3);
    consul.put(
        "/v1/agent/check/register",
        &json!({ "ID": "c1", "Name": "c1", "ServiceID": "b", "TTL": "1m", "Status": "passing" }),
    );
    consul.put("/v1/agent/check/warn/c1", &json!(null));
    eventually_is(
        "it warns",
        || lictor.page("/endpoints/users")["users"]["endpoints"][1]["status"].clone(),
        |status| status == "warning",
    );
    consul.put("/v1/agent/check/fail/c1", &json!(null));
    lictor.await_endpoints("users", 2);
    consul.deregister("c");
    // Of three that could be used a moment ago one is left: that is believed, and who left comes last for a while.
    eventually_is(
        "it is suspect",
        || lictor.page("/endpoints/users")["users"]["endpoints"][1]["state"].clone(),
        |state| state == "suspect",
    );
    assert_eq!(lictor.get("users", "/").header("x-backend"), "a");
}

#[test]
fn the_last_instances_are_kept_for_a_while_when_all_vanish_but_not_when_taken_out() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 1);
    consul.deregister("a");
    eventually_is(
        "it is suspect",
        || lictor.page("/endpoints/users")["users"]["endpoints"][0]["state"].clone(),
        |state| state == "suspect",
    );
    assert_eq!(lictor.get("users", "/").status, 200);
    consul.register("users", "a", backend.port());
    eventually_is(
        "it is healthy",
        || lictor.page("/endpoints/users")["users"]["endpoints"][0]["state"].clone(),
        |state| state == "healthy",
    );
    consul.put("/v1/agent/service/maintenance/a?enable=true", &json!(null));
    lictor.await_endpoints("users", 0);
    let answer = lictor.get("users", "/");
    assert_eq!((answer.status, answer.header("x-lictor-reason")), (503, "no_endpoints"));
    assert!(answer.text().contains("1 in maintenance"), "{}", answer.text());
}

#[test]
fn subsets_are_asked_for_by_tag_and_version() {
    let consul = Consul::dev();
    let backends: Vec<Backend> = ["v1", "v2"].map(Backend::start).into();
    for backend in &backends {
        let body = json!({ "Name": "users", "ID": backend.name(), "Address": "127.0.0.1", "Port": backend.port(),
            "Tags": [format!("tag-{}", backend.name())], "Meta": { "version": backend.name() } });
        consul.put("/v1/agent/service/register", &body);
    }
    let by_version = caller(&consul, ", version: v2");
    let by_tag = caller(&consul, ", tag: tag-v1");
    by_version.await_endpoints("users", 1);
    by_tag.await_endpoints("users", 1);
    assert_eq!(by_version.get("users", "/").header("x-backend"), "v2");
    assert_eq!(by_tag.get("users", "/").header("x-backend"), "v1");
}

#[test]
fn a_change_in_consul_is_routed_by_within_fifty_milliseconds() {
    let consul = Consul::dev();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    consul.register("users", "old", old.port());
    let lictor = caller(&consul, ", slow_start: 0s, balance: round_robin");
    lictor.await_endpoints("users", 1);
    let users = lictor.address("users");
    let until = |wanted: bool| {
        let began = Instant::now();
        eventually("the change is routed by", || {
            // Round robin over two: the new one answers one of two requests, or none.
            let seen = (0..2).any(|_| get(&users, "/").unwrap().header("x-backend") == "new");
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
        began.elapsed()
    };
    let mut delays = Vec::new();
    for round in 0..12 {
        let id = format!("new-{round}"); // the same one again and again would be used last
        consul.register("users", &id, new.port());
        delays.push(until(true));
        match round % 2 {
            0 => {
                consul.maintain(&id, true);
                delays.push(until(false));
                consul.deregister(&id);
            }
            _ => {
                consul.deregister(&id);
                delays.push(until(false));
            }
        }
        lictor.await_endpoints("users", 1);
    }
    delays.sort();
    let median = delays[delays.len() / 2];
    // Each look is two requests and 5 ms; a debug build beside other tests.
    assert!(median < Duration::from_millis(50), "{delays:?}");
}

#[test]
fn acls_are_satisfied_by_a_token_file_and_its_absence_is_explained() {
    let consul = Consul::with_acls();
    let backend = Backend::start("a");
    let token = std::env::temp_dir().join(format!("lictor-token-{}", std::process::id()));
    std::fs::write(&token, "not-a-token\n").unwrap();
    let yaml = format!(
        "service: users\nport: {}\nconsul: {{address: '{}', token_file: '{}'}}\nlifecycle: {{start_timeout: 100ms}}\nupstreams: {{users: 0}}\n",
        backend.port(),
        consul.url(),
        token.display()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    eventually_is("the refusal is shown", || lictor.page("/consul").to_string(), |page| page.contains("ACL not found"));
    std::fs::write(&token, MANAGEMENT).unwrap();
    eventually_is("it is registered", || consul.passing("users").len(), |count| *count == 1);
    lictor.await_endpoints("users", 1);
    let everything = format!("{}{}{}", lictor.log(), lictor.page("/config?origin=1"), lictor.page("/consul"));
    assert!(!everything.contains(MANAGEMENT), "the token is nowhere to be read");
    std::fs::remove_file(token).unwrap();
}

#[test]
fn services_that_were_not_declared_are_found_on_demand() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    consul.register("pay-cards", "a", backend.port());
    let yaml = format!(
        "registration: off\nconsul: {{address: '{}'}}\noutbound: {{proxy: 0, allow: ['pay-*']}}\n",
        consul.url()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let headers = [("host", "pay-cards")];
    let answer = lictor_testkit::request(&lictor.address("forward"), "GET", "/x", &headers, b"").unwrap();
    assert_eq!((answer.status, answer.header("x-backend")), (200, "a"), "{}", answer.text());
    let stranger = lictor_testkit::request(&lictor.address("forward"), "GET", "/x", &[("host", "users")], b"").unwrap();
    assert_eq!(stranger.status, 502);
}
