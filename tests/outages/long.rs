//! The same for longer: over a minute each, so `make chaos` runs them.

use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Consul, Load};
use serde_json::Value as Json;

use crate::lifecycle::{Chain, Who, download_outlives_sigterm, inbound};
use crate::wire::{Fault, Wire};
use crate::{assert_back, beside, caller, events, quiet};

#[test]
#[ignore = "two minutes: twenty rolling restarts of each kind"]
fn twenty_restarts_of_callee_caller_and_both_fail_nothing() {
    let mut chain = Chain::start();
    let load = chain.load();
    for who in [Who::Callee, Who::Caller, Who::Both] {
        for _ in 0..20 {
            chain.restart(who);
        }
        println!("{who:?} x20: {} requests so far, {} failed", load.tally().total(), load.tally().errors());
    }
    let tally = load.finish();
    println!("{} requests, p99 {:?}", tally.total(), tally.percentile(0.99));
    tally.assert_flawless();
}

#[test]
#[ignore = "half a minute of a download, beside tests of a minute"]
fn a_download_of_twenty_seconds_outlives_the_sigterm_of_both_sidecars() {
    download_outlives_sigterm(1_000);
}

#[test]
#[ignore = "two minutes: Consul removes an instance a minute after its check began to fail, when it next looks"]
fn consul_removes_what_was_killed() {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    let sidecar = beside(&consul, &backend, &inbound());
    let registered = || consul.json("/v1/agent/services").as_object().map_or(0, serde_json::Map::len);
    let killed = Instant::now();
    drop(sidecar); // SIGKILL
    drop(backend);
    assert_eq!(registered(), 1);
    while registered() > 0 && killed.elapsed() < Duration::from_secs(180) {
        quiet(Duration::from_millis(500));
    }
    println!("removed after {:?}", killed.elapsed());
    assert_eq!(registered(), 0, "after {:?}", killed.elapsed());
    assert_eq!(consul.json("/v1/health/service/users"), Json::Array(Vec::new()));
}

#[test]
#[ignore = "two minutes of an outage: the average is what counts"]
fn an_outage_of_two_minutes_is_asked_about_less_than_once_a_second() {
    let consul = Consul::server();
    let backends = ["a", "b"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    let wire = Wire::to(&consul.address());
    let lictor = caller(&wire.url(), "");
    lictor.await_endpoints("users", 1);
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 50);
    for fault in [Fault::ClosedAtOnce, Fault::ResetInBody] {
        wire.breaks(fault);
        let broken = Instant::now();
        quiet(Duration::from_secs(60));
        let queries = wire.queries(broken, "");
        println!("{fault:?}: {queries} queries in 60 s");
        assert!(queries <= 60, "{fault:?}: {queries} queries in 60 s");
        assert_eq!(lictor.endpoints("users"), 1);
    }
    wire.breaks(Fault::None);
    let back = Instant::now();
    consul.register("users", "b", backends[1].port());
    lictor.await_endpoints("users", 2);
    assert_back("after two minutes", back);
    assert_eq!(events(&lictor, "consul_lost"), 1);
    load.finish().assert_flawless();
}
