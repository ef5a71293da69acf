//! Things that break under load.

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is};

use crate::{beside, caller, caller_of};

/// A debug build on a busy machine; `scripts/figures.sh` does a thousand a second with the release build.
const RATE: u32 = 300;

fn three(consul: &Consul) -> (Vec<Backend>, Vec<Sidecar>) {
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::start).into();
    let sidecars = backends.iter().map(|backend| beside(consul, backend, "").up()).collect();
    eventually_is("three instances pass", || consul.passing("users").len(), |count| *count == 3);
    (backends, sidecars)
}

#[test]
fn no_get_fails_when_an_instance_is_killed() {
    let consul = Consul::dev();
    let (mut backends, _sidecars) = three(&consul);
    // The default would turn away from it before it has failed often enough to be ejected.
    let lictor = caller(&consul, ", balance: round_robin");
    lictor.await_endpoints("users", 3);
    let load = Load::start(&lictor.address("users"), &[Method::GET], RATE);
    load.await_more(200);
    backends.remove(0).kill();
    load.await_more(600);
    let tally = load.finish();
    tally.assert_flawless();
    assert!(lictor.metric("lictor_endpoint_ejections_total", &[("upstream", "users")]) >= 1.0);
    assert!(lictor.metric("lictor_retries_total", &[("upstream", "users")]) >= 1.0);
}

#[test]
fn no_get_or_post_fails_in_a_rolling_restart() {
    let consul = Consul::dev();
    let (mut backends, mut sidecars) = three(&consul);
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 3);
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], RATE);
    load.await_more(100);
    for _ in 0..3 {
        let (backend, mut sidecar) = (backends.remove(0), sidecars.remove(0));
        let (name, port) = (backend.name().to_owned(), backend.port());
        assert!(sidecar.terminate().success());
        backend.stop();
        load.await_more(50);
        let backend = Backend::on(&name, port);
        sidecars.push(beside(&consul, &backend, "").up());
        backends.push(backend);
        lictor.await_endpoints("users", 3);
        load.await_more(50);
    }
    let tally = load.finish();
    tally.assert_flawless();
    assert_eq!(tally.backends.len(), 3);
}

#[test]
fn an_upstream_that_always_fails_gets_a_fifth_more_load() {
    let backend = Backend::start("a");
    backend.answers(503);
    let lictor = caller_of(&[&backend], ", breaker: off, ejection: off, retry: {delays: [5ms]}");
    let load = Load::start(&lictor.address("users"), &[Method::GET], 250);
    load.await_more(2_500);
    let tally = load.finish();
    let (attempts, requests) = (backend.hits() as f64, tally.total() as f64);
    // The floor of 3 a second is on top: 1.2 of 250 a second, and the window's first fill.
    assert!(attempts / requests <= 1.2 + 2.0 * 30.0 / requests + 0.01, "{attempts} attempts for {requests} requests");
    assert!(attempts / requests > 1.1, "retries did happen: {attempts} / {requests}");
}

#[test]
fn an_agent_restart_is_not_noticed_by_clients() {
    let mut consul = Consul::dev();
    let (_backends, _sidecars) = three(&consul);
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 3);
    let load = Load::start(&lictor.address("users"), &[Method::GET], RATE);
    load.await_more(100);
    consul.kill();
    load.await_more(300);
    assert_eq!(lictor.endpoints("users"), 3, "the last endpoints stay");
    consul.restart(); // it has forgotten everything
    let back = std::time::Instant::now();
    eventually_is("all are registered again", || consul.passing("users").len(), |count| *count == 3);
    let took = back.elapsed();
    load.await_more(300);
    lictor.await_endpoints("users", 3);
    load.finish().assert_flawless();
    assert!(took.as_millis() < 2_000, "registered again after {took:?}");
    eventually_is("both are told", || lictor.log(), |log| log.contains("consul_lost") && log.contains("consul_back"));
}

#[test]
fn a_server_restart_never_empties_the_list() {
    let mut consul = Consul::server();
    let (_backends, _sidecars) = three(&consul);
    let lictor = caller(&consul, "");
    lictor.await_endpoints("users", 3);
    let load = Load::start(&lictor.address("users"), &[Method::GET], RATE);
    load.await_more(100);
    for _ in 0..2 {
        consul.restart();
        load.await_more(300);
        assert_eq!(lictor.endpoints("users"), 3);
    }
    load.finish().assert_flawless();
    assert!((lictor.metric("lictor_upstream_requests_total", &[("reason", "no_endpoints")])).abs() < 0.1);
}
