//! Consul's checks of an application behind `inbound`, where the agent is not on this machine by lictor's measure: its
//! address is a name that is not `localhost`. The kinds of checks are a table in `lictor-consul`.

use std::time::Duration;

use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is, free_ports, get};
use serde_json::Value as Json;

use crate::LICTOR;

/// The agent's address, in a spelling that does not tell that it is this machine.
fn elsewhere(consul: &Consul) -> String {
    consul.url().replace("127.0.0.1", "127.1")
}

fn yaml(agent: &str, app: u16, more: &str) -> String {
    format!(
        "service: users\nport: {app}\nregistration: {{id: u, address: 127.0.0.1, checks: [{more}\nconsul: {{address: '{agent}'}}\n"
    )
}

/// The checks that the agent holds for the instance: type, status and output.
fn checks(consul: &Consul) -> Vec<(String, String, String)> {
    let all = consul.json("/v1/agent/checks");
    let text = |check: &Json, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let ours = all.as_object().into_iter().flatten().map(|(_, check)| check).filter(|check| check["ServiceID"] == "u");
    ours.map(|check| (text(check, "Type"), text(check, "Status"), text(check, "Output"))).collect()
}

/// Waits until the one check of the instance is of this kind and in this state; returns its output.
#[track_caller]
fn await_check(consul: &Consul, kind: &str, status: &str, output: &str) -> String {
    let is_so =
        |(seen, state, said): &(String, String, String)| seen == kind && state == status && said.contains(output);
    let seen = eventually_is("the check", || checks(consul), |seen| matches!(&seen[..], [check] if is_so(check)));
    seen[0].2.clone()
}

#[test]
fn a_check_that_would_meet_inbound_says_how_the_application_is() {
    let consul = Consul::dev();
    let backend = Backend::start("app");
    let (app, [inbound]) = (backend.port(), free_ports());
    let more = format!(
        "{{http: /status, interval: 300ms, timeout: 1s}}]}}\nservice_token: secret-1\ninbound: {{listen: '127.0.0.1:{inbound}'}}"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml(&elsewhere(&consul), app, &more)).up();
    assert_eq!(get(&lictor.address("inbound"), "/status").unwrap().status, 401, "others show a token");
    // A check of Consul's own would have been answered within this.
    let asked = backend.hits();
    eventually_is("it is asked", || backend.hits(), |hits| *hits >= asked + 3);
    assert!(await_check(&consul, "ttl", "passing", "GET /status: 200 OK").contains("Output: app GET /status"));
    assert_eq!(consul.passing("users"), ["u"]);
    for (code, status) in [(429, "warning"), (500, "critical"), (204, "passing")] {
        backend.answers(code);
        await_check(&consul, "ttl", status, &format!("GET /status: {code}"));
    }
    backend.kill();
    await_check(&consul, "ttl", "critical", "refused");
    let _backend = Backend::on("app", app);
    await_check(&consul, "ttl", "passing", "200 OK");
}

#[test]
fn overload_of_inbound_warns_and_does_not_take_the_instance_away() {
    let consul = Consul::dev();
    let backend = Backend::start("app");
    backend.delays(Duration::from_millis(100));
    let [inbound] = free_ports();
    let more = format!(
        "{{http: /health, interval: 200ms, timeout: 1s}}]}}\ninbound: {{listen: '127.0.0.1:{inbound}', max_in_flight: 1}}"
    );
    let lictor = Sidecar::serve(LICTOR, &yaml(&elsewhere(&consul), backend.port(), &more)).up();
    await_check(&consul, "ttl", "passing", "200 OK");
    eventually_is("the catalog has it", || consul.passing("users"), |ids| ids == &["u"]);
    let load = Load::start(&lictor.address("inbound"), &[http::Method::GET], 100);
    let mut looks = Vec::new();
    let mut health = || {
        let all = consul.json("/v1/health/service/users");
        let found = all[0]["Checks"].as_array().into_iter().flatten().find(|check| check["ServiceID"] == "u");
        let text = |key: &str| found.map_or("", |check| check[key].as_str().unwrap_or_default()).to_owned();
        looks.push(text("Status"));
        (text("Status"), text("Output"))
    };
    let warns = |(status, output): &(String, String)| {
        status == "warning" && output.contains("inbound refuses requests") && output.contains("200 OK")
    };
    eventually_is("callers are told, and how the application is", &mut health, warns);
    load.await_more(200);
    health();
    let tally = load.finish();
    assert!(tally.errors() > 100, "{:?}", tally.statuses);
    eventually_is("it is over", &mut health, |(status, output)| status == "passing" && !output.contains("refuses"));
    assert!(looks.iter().all(|status| status != "critical"), "{looks:?}");
}

#[test]
fn a_check_of_another_kind_replaces_the_one_before() {
    let consul = Consul::dev();
    let backend = Backend::start("app");
    let [inbound] = free_ports();
    let on = format!("{{http: /status, interval: 200ms}}]}}\ninbound: {{listen: '127.0.0.1:{inbound}'}}");
    let off = "{http: /status, interval: 200ms}]}";
    let agent = elsewhere(&consul);
    let lictor = Sidecar::serve(LICTOR, &yaml(&agent, backend.port(), &on)).up();
    await_check(&consul, "ttl", "passing", "200 OK");
    // The registered port is nobody's now, and the check says so.
    lictor.rewrite(&yaml(&agent, backend.port(), off));
    assert_eq!(lictor.post("/reload").status, 200);
    await_check(&consul, "http", "critical", "refused");
    lictor.rewrite(&yaml(&agent, backend.port(), &on));
    assert_eq!(lictor.post("/reload").status, 200);
    await_check(&consul, "ttl", "passing", "200 OK");
    let hits = backend.hits();
    eventually_is("it is asked on", || backend.hits(), |now| *now >= hits + 3);
    await_check(&consul, "ttl", "passing", "200 OK");
    // One that was killed and came back with another kind of check under the same id.
    drop(lictor);
    let _lictor = Sidecar::serve(LICTOR, &yaml(&consul.url(), backend.port(), off)).up();
    await_check(&consul, "http", "passing", "200 OK");
}
