//! The same for longer: over a minute each, so `make chaos` runs them.

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is};
use serde_json::Value as Json;

use crate::lifecycle::{Chain, Who, download_outlives_sigterm, inbound};
use crate::wire::{Fault, Wire};
use crate::{assert_back, beside, caller, events, lictor, quiet};

#[test]
#[ignore = "a minute: twenty rolling restarts of each kind"]
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
    eventually_is("it passes", || consul.passing("users").len(), |count| *count == 1);
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
#[ignore = "two minutes of an outage: the average counts"]
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

#[test]
#[ignore = "needs libfaketime, which nothing else here does"]
fn a_clock_that_jumps_years_changes_nothing() {
    let library =
        Path::new("/usr/lib").join(format!("{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH));
    assert!(library.exists(), "{}: apt-get install libfaketime", library.display());
    let consul = Consul::server();
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    let wire = Wire::to(&consul.address());
    let clock = std::env::temp_dir().join(format!("lictor-outages-clock-{}", std::process::id()));
    std::fs::write(&clock, "+0").unwrap();
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), // a real clock's jump does not move it either
    ];
    let yaml = format!(
        "service: orders\nport: {}\ncheck: {{ttl: 3s, probe: /health}}\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n",
        backends[0].port(),
        wire.url()
    );
    let mut lictor = Sidecar::start(lictor(), &yaml, &variables, &["serve"], &[]).up();
    lictor.await_endpoints("users", 1);
    eventually_is("it passes", || consul.passing("orders").len(), |count| *count == 1);
    let load = Load::start(&lictor.address("users"), &[Method::GET, Method::POST], 50);
    for (jump, backend) in ["+3650d", "-3650d", "+0"].into_iter().zip(&backends[1..]) {
        let year = |lictor: &Sidecar| {
            let log = lictor.log();
            let stamped = log.lines().rev().find_map(|line| line.split("\"timestamp\":\"").nth(1));
            stamped.and_then(|stamp| stamp.get(..4)?.parse().ok()).unwrap_or(0)
        };
        let before: i32 = year(&lictor);
        std::fs::write(&clock, jump).unwrap();
        eventually_is("its log has another year", || year(&lictor), |year| (year - before).abs() > 8);
        let jumped = Instant::now();
        quiet(Duration::from_secs(5));
        // One update of the TTL check a second, and a look at the checks.
        let queries = wire.queries(jumped, "");
        println!("{jump}: {queries} queries in 5 s");
        assert!(queries <= 10, "{jump}: {queries} queries in 5 s");
        assert_eq!(consul.passing("orders").len(), 1, "{jump}: its TTL is kept");
        let before = lictor.endpoints("users");
        let asked = Instant::now();
        consul.register("users", backend.name(), backend.port());
        lictor.await_endpoints("users", before + 1);
        assert_back(jump, asked);
    }
    load.finish().assert_flawless();
    assert_eq!(events(&lictor, "consul_lost"), 0);
    assert!(lictor.terminate().success());
    std::fs::remove_file(clock).unwrap();
}
