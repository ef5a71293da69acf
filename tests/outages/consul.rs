//! A real Consul that is killed, paused, cut off, loses its leader or its memory, or takes a token back.

use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually_is, get, request};
use serde_json::{Value as Json, json};

use crate::wire::{Fault, Wire};
use crate::{BURST, assert_back, caller, events, instances, is_up, lictor, quiet, warnings};

/// Requests a second, of each kind in turn: a debug build beside other tests.
const RATE: u32 = 100;
const METHODS: &[Method] = &[Method::GET, Method::POST];

/// Panics unless traffic, the pages, the metrics and one line in the log say that Consul is away.
fn assert_away(lictor: &Sidecar, count: usize) {
    eventually_is("the metric has it", || is_up(lictor), |is_up| !is_up);
    let page = lictor.page("/consul");
    assert_eq!(page["up"], false, "{page}");
    assert!(page["watches"][0]["last_error"].is_string(), "{page}");
    assert_eq!(lictor.endpoints("users"), count, "the last endpoints stay");
    assert_eq!(lictor.get("users", "/").status, 200);
    eventually_is("it is told, once", || events(lictor, "consul_lost"), |count| *count == 1);
}

/// Panics unless Consul is said to be back, once, and nothing else was said.
fn assert_told(lictor: &Sidecar, outages: usize) {
    eventually_is("the metric has it", || is_up(lictor), |is_up| *is_up);
    let told = || ["consul_lost", "consul_back"].map(|kind| events(lictor, kind));
    eventually_is("both are told", told, |told| *told == [outages, outages]);
    assert_eq!(warnings(lictor).len(), outages, "{:?}", warnings(lictor));
}

/// What is registered now is in use how long after this?
fn taken_after(consul: &Consul, lictor: &Sidecar, backend: &Backend, count: usize, since: Instant) -> Duration {
    consul.register("users", backend.name(), backend.port());
    lictor.await_endpoints("users", count);
    since.elapsed()
}

#[test]
fn an_agent_that_is_killed_and_comes_back_with_its_data_is_believed_within_two_seconds() {
    let mut consul = Consul::server();
    let backends = ["a", "b", "c"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    consul.register("users", "b", backends[1].port());
    let lictor = caller(&consul.url(), "");
    lictor.await_endpoints("users", 2);
    let load = Load::start(&lictor.address("users"), METHODS, RATE);
    consul.kill();
    assert_away(&lictor, 2);
    load.await_more(200);
    consul.restart();
    let back = Instant::now();
    let took = taken_after(&consul, &lictor, &backends[2], 3, back);
    println!("killed, with data: {took:?}");
    assert_back("with its data", back);
    assert_told(&lictor, 1);
    load.finish().assert_flawless();
}

#[test]
fn an_agent_that_is_paused_is_told_of_and_believed_again_when_it_goes_on() {
    let consul = Consul::server();
    let backends = ["a", "b", "c"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    consul.register("users", "b", backends[1].port());
    // It is noticed when a query has taken 8 s longer than it may: 9 s here, 72 s with the default wait.
    let lictor = caller(&consul.url(), ", wait: 1s");
    lictor.await_endpoints("users", 2);
    let load = Load::start(&lictor.address("users"), METHODS, RATE);
    consul.pause(true);
    assert_away(&lictor, 2);
    load.await_more(100);
    consul.pause(false);
    let back = Instant::now();
    let took = taken_after(&consul, &lictor, &backends[2], 3, back);
    println!("paused: {took:?}");
    assert_back("after the pause", back);
    assert_told(&lictor, 1);
    load.finish().assert_flawless();
}

#[test]
fn a_wire_that_breaks_is_no_loss_no_loop_and_no_flood() {
    std::thread::scope(|scope| {
        for fault in [Fault::ClosedAtOnce, Fault::ResetInBody, Fault::CutInBody, Fault::Drip] {
            scope.spawn(move || broken_wire(fault));
        }
    });
}

fn broken_wire(fault: Fault) {
    let began = Instant::now();
    let consul = Consul::server();
    let backends = ["a", "b", "c"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    consul.register("users", "b", backends[1].port());
    let wire = Wire::to(&consul.address());
    let yaml = format!(
        "service: orders\nport: {}\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n",
        backends[0].port(),
        wire.url()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    lictor.await_endpoints("users", 2);
    eventually_is("it is registered", || consul.passing("orders").len(), |count| *count == 1);
    // A query that is asked afterwards could wait for a minute, and nothing would be wrong with it.
    let watches = || (wire.queries(began, "index="), wire.queries(began, "hash="));
    eventually_is("both are watched", watches, |(endpoints, own)| *endpoints > 0 && *own > 0);
    let load = Load::start(&lictor.address("users"), METHODS, RATE);
    wire.breaks(fault);
    let broken = Instant::now();
    // Three loops: the watch, the registration, and what looks after the checks.
    quiet(Duration::from_secs(4));
    let settled = Instant::now();
    quiet(Duration::from_secs(6));
    let (burst, then) = (wire.queries(broken, ""), wire.queries(settled, ""));
    println!("{fault:?}: {burst} queries in 10 s, {then} in the last 6 s");
    assert!(burst <= 3 * (BURST + 10) && then <= 3 * 7, "{fault:?}: {burst}, then {then}");
    assert!(wire.queries(settled, "/v1/health/service/users") <= 7, "{fault:?}");
    assert_away(&lictor, 2);
    wire.breaks(Fault::None);
    let back = Instant::now();
    let took = taken_after(&consul, &lictor, &backends[2], 3, back);
    println!("{fault:?}: {took:?}");
    assert_back("the wire is whole", back);
    assert_told(&lictor, 1);
    load.finish().assert_flawless();
}

#[test]
fn the_loss_of_a_leader_and_then_of_the_majority_is_not_noticed_by_clients() {
    let mut servers = Consul::cluster();
    let leader = |servers: &[Consul]| {
        let says = |consul: &Consul| consul.json("/v1/status/leader").as_str().unwrap_or_default().to_owned();
        let at = eventually_is("there is a leader", || says(&servers[0]), |leader| !leader.is_empty());
        servers.iter().position(|server| server.server_address() == at).unwrap()
    };
    let first = leader(&servers);
    // We ask another one than the leader.
    servers.swap(0, first);
    let [lost, ours, third] = &mut servers;
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    ours.register("users", "a", backends[0].port());
    ours.register("users", "b", backends[1].port());
    let wire = Wire::to(&ours.address());
    let sidecars = ["", ", consistency: default"].map(|more| caller(&wire.url(), more));
    for lictor in &sidecars {
        lictor.await_endpoints("users", 2);
    }
    let loads = sidecars.each_ref().map(|lictor| Load::start(&lictor.address("users"), METHODS, RATE / 2));

    lost.kill();
    let killed = Instant::now();
    let says = || ours.json("/v1/status/leader").as_str().unwrap_or_default().to_owned();
    eventually_is("another one leads", says, |leader| !leader.is_empty() && *leader != lost.server_address());
    let elected = Instant::now();
    ours.register("users", "c", backends[2].port());
    for lictor in &sidecars {
        lictor.await_endpoints("users", 3);
    }
    println!("leader: elected after {:?}, taken {:?} later", elected - killed, elected.elapsed());
    assert_back("under another leader", elected);

    third.kill();
    let killed = Instant::now();
    quiet(Duration::from_secs(8));
    for lictor in &sidecars {
        assert_eq!(lictor.endpoints("users"), 3);
    }
    println!("majority: {} queries of two watches in 8 s", wire.queries(killed, "/v1/health/"));
    assert!(wire.queries(killed, "/v1/health/") <= 2 * (BURST + 8));
    third.resume();
    eventually_is("there is a leader", says, |leader| !leader.is_empty());
    let elected = Instant::now();
    ours.register("users", "d", backends[3].port());
    for lictor in &sidecars {
        lictor.await_endpoints("users", 4);
    }
    println!("majority: taken {:?} after there was a leader", elected.elapsed());
    assert_back("with a majority", elected);
    for load in loads {
        load.finish().assert_flawless();
    }
    let [stale, default] = sidecars;
    assert_eq!(warnings(&stale), Vec::<String>::new(), "stale reads do not notice");
    let told = || ["consul_lost", "consul_back"].map(|kind| events(&default, kind));
    eventually_is("each loss has its end", told, |[lost, back]| lost == back);
}

#[test]
fn a_server_that_replays_a_long_log_does_not_empty_the_list() {
    let mut consul = Consul::server();
    // What was written before the services is replayed before them.
    write_keys(&consul, 6_000);
    let backends = ["a", "b"].map(Backend::start);
    for backend in &backends {
        consul.register("users", backend.name(), backend.port());
    }
    let sidecars = ["", ", consistency: default"].map(|more| caller(&consul.url(), more));
    for lictor in &sidecars {
        lictor.await_endpoints("users", 2);
    }
    let loads = sidecars.each_ref().map(|lictor| Load::start(&lictor.address("users"), METHODS, RATE / 2));
    let mut windows = 0;
    // Whether a restart has a window that a witness sees, chance decides: until one was seen.
    for restarts in 0..20 {
        if restarts >= 3 && windows > 0 {
            break;
        }
        let address = consul.address();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        windows += std::thread::scope(|scope| {
            let witness = scope.spawn(|| empty_answers(&address, &is_over));
            consul.restart();
            eventually_is("it lists them again", || consul.passing("users").len(), |count| *count == 2);
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            witness.join().unwrap()
        });
        for lictor in &sidecars {
            assert_eq!(lictor.endpoints("users"), 2);
        }
    }
    println!("{windows} empty answers to a witness");
    assert!(windows > 0, "the server never answered with an empty list: nothing was shown");
    for load in loads {
        load.finish().assert_flawless();
    }
    for lictor in &sidecars {
        assert_eq!(events(lictor, "empty_kept"), 0, "it was not even suspected");
    }
}

/// How often somebody who believes anything is told that there is no instance.
fn empty_answers(address: &str, is_over: &std::sync::atomic::AtomicBool) -> usize {
    let mut count = 0;
    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
        let Ok(answer) = get(address, "/v1/health/service/users?stale") else { continue };
        count += usize::from(answer.status == 200 && answer.text().trim() == "[]");
    }
    count
}

fn write_keys(consul: &Consul, count: usize) {
    const WRITERS: usize = 16;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let address = consul.address();
            scope.spawn(move || {
                for key in (writer..count).step_by(WRITERS) {
                    request(&address, "PUT", &format!("/v1/kv/load/{key}"), &[], b"x").unwrap();
                }
            });
        }
    });
}

#[test]
fn a_token_that_is_revoked_costs_no_endpoint_and_a_new_one_is_taken_from_its_file() {
    let consul = Consul::with_acls();
    let create = || {
        let body = json!({ "ServiceIdentities": [{ "ServiceName": "orders" }] });
        let answer = consul.answer("PUT", "/v1/acl/token", &body);
        (answer["AccessorID"].as_str().unwrap().to_owned(), answer["SecretID"].as_str().unwrap().to_owned())
    };
    let backends = ["a", "b", "c"].map(Backend::start);
    consul.register("users", "a", backends[0].port());
    consul.register("users", "b", backends[1].port());
    let (accessor, secret) = create();
    let file = std::env::temp_dir().join(format!("lictor-outages-token-{}", std::process::id()));
    std::fs::write(&file, secret).unwrap();
    let wire = Wire::to(&consul.address());
    let lictor = caller(&wire.url(), &format!(", wait: 1s, token_file: '{}'", file.display()));
    lictor.await_endpoints("users", 2);
    let load = Load::start(&lictor.address("users"), METHODS, RATE);

    let revoked = Instant::now();
    consul.answer("DELETE", &format!("/v1/acl/token/{accessor}"), &Json::Null);
    eventually_is("it is told", || events(&lictor, "watch_refused"), |count| *count == 1);
    quiet(Duration::from_secs(5));
    assert!(wire.queries(revoked, "") <= 7, "a refused token is shown once a second");
    let page = lictor.page("/consul");
    assert!(page["watches"][0]["last_error"].as_str().unwrap().contains("ACL not found"), "{page}");
    assert!(lictor.metric("lictor_consul_errors_total", &[("kind", "denied")]) >= 1.0);
    assert_eq!((lictor.endpoints("users"), warnings(&lictor).len()), (2, 1), "{:?}", warnings(&lictor));

    consul.register("users", "c", backends[2].port());
    std::fs::write(&file, create().1).unwrap();
    let restored = Instant::now();
    lictor.await_endpoints("users", 3);
    println!("a new token: {:?}", restored.elapsed());
    assert_back("with a new token", restored);
    eventually_is("its end is told", || events(&lictor, "watch_well"), |count| *count == 1);
    load.finish().assert_flawless();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_token_that_is_allowed_again_is_noticed_within_two_seconds() {
    const SECRET: &str = "6b9d5a4e-3c1f-4a57-9d43-1f0f7c5a2e10";
    let consul = Consul::with_acls();
    let allow = || {
        let identities = json!([{ "ServiceName": "orders" }]);
        let answer =
            consul.answer("PUT", "/v1/acl/token", &json!({ "SecretID": SECRET, "ServiceIdentities": identities }));
        answer["AccessorID"].as_str().unwrap().to_owned()
    };
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    let mut accessor = allow();
    let wire = Wire::to(&consul.address());
    // Two watches: one of them finds it out for both.
    let yaml = format!(
        "consul: {{address: '{}', token: {SECRET}, wait: 1s}}\nregistration: off\nservice: orders\nupstreams: {{users: {{listen: 0}}, carts: {{listen: 0}}}}\n",
        wire.url()
    );
    let lictor = Sidecar::serve(lictor(), &yaml).up();
    for (round, backend) in backends.iter().enumerate() {
        let id = format!("{round}");
        if round > 0 {
            consul.answer("DELETE", &format!("/v1/acl/token/{accessor}"), &Json::Null);
            let denied =
                |page: &Json| page["watches"].as_array().unwrap().iter().all(|watch| watch["last_error"].is_string());
            eventually_is("both are refused", || lictor.page("/consul"), denied);
            let refused = Instant::now();
            quiet(Duration::from_secs(5));
            let queries = wire.queries(refused, "");
            assert!(queries <= 7, "{queries} queries in 5 s of two watches that are refused");
        }
        consul.register("users", &format!("u{id}"), backend.port());
        consul.register("carts", &format!("c{id}"), backend.port());
        if round > 0 {
            accessor = allow();
        }
        let restored = Instant::now();
        for service in ["users", "carts"] {
            lictor.await_endpoints(service, round + 1);
        }
        println!("round {round}: in use {:?} after it was allowed again", assert_back("with the old token", restored));
    }
}

#[test]
fn instances_and_callers_survive_an_agent_that_restarts_empty_again_and_again() {
    let mut consul = Consul::dev();
    let _instances = instances(&consul, &["a", "b"]);
    let lictor = caller(&consul.url(), "");
    lictor.await_endpoints("users", 2);
    let load = Load::start(&lictor.address("users"), METHODS, RATE);
    for round in 0..5 {
        consul.restart();
        let back = Instant::now();
        eventually_is("both are registered again", || consul.passing("users").len(), |count| *count == 2);
        println!("round {round}: registered again after {:?}", assert_back("registered again", back));
        assert_eq!(lictor.endpoints("users"), 2, "round {round}");
    }
    load.finish().assert_flawless();
}
