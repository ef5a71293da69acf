//! Which of many instances it is, as `lictor endpoints`, `top`, `/ui` and metrics tell it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use lictor_testkit::{Backend, Load, Sidecar, eventually_is, free_ports, get};
use serde_json::Value as Json;

use crate::LICTOR;

const INSTANCES: usize = 60;
/// Requests a second.
const RATE: u32 = 300;
const WITHIN: Duration = Duration::from_secs(10);

fn users(page: &Json) -> &Vec<Json> {
    page["upstreams"][0]["endpoints"].as_array().unwrap()
}

/// Those in this state, by the port that is their id's.
fn those(endpoints: &[Json], state: &str) -> BTreeSet<u16> {
    let port = |one: &Json| one["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    endpoints.iter().filter(|one| one["state"] == state).map(port).collect()
}

fn command(lictor: &Sidecar, words: &[&str]) -> String {
    let said = Command::new(LICTOR).args(words).args(["--admin", &lictor.admin()]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// Sixty, each asked often enough; the sidecar has the defaults.
fn sixty(metrics: &str) -> (Vec<Backend>, Sidecar, Load) {
    let backends: Vec<Backend> = (0..INSTANCES).map(|number| Backend::start(&format!("b{number}"))).collect();
    let endpoints: Vec<String> = backends.iter().map(|backend| format!("'127.0.0.1:{}'", backend.port())).collect();
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 2\nlog: {{access: off}}\nmetrics: {metrics}\nupstreams:\n  users: {{listen: 0, static: [{}]}}\n",
        endpoints.join(", ")
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let load = Load::start(&lictor.address("users"), &[Method::GET], RATE);
    load.await_more(INSTANCES as u64 * 10);
    (backends, lictor, load)
}

/// Of sixty, these fail three of ten requests, and are found.
fn found(count: usize) -> (Vec<Backend>, Sidecar, Load, BTreeSet<u16>) {
    let (backends, lictor, load) = sixty("{endpoints: true, max_label_values: 100}");
    let page = lictor.page("/ui/data");
    assert_eq!((users(&page).len(), those(users(&page), "failing").len()), (INSTANCES, 0), "{page}");
    let failing: BTreeSet<u16> = backends.iter().step_by(5).take(count).map(Backend::port).collect();
    backends.iter().filter(|backend| failing.contains(&backend.port())).for_each(|backend| backend.fails(30));
    let began = Instant::now();
    let told = || {
        let page = lictor.page("/endpoints");
        those(page["users"]["endpoints"].as_array().unwrap(), "failing")
    };
    eventually_is("they are found", told, |told| *told == failing);
    assert!(began.elapsed() < WITHIN, "after {:?}", began.elapsed());
    (backends, lictor, load, failing)
}

#[test]
fn one_of_sixty_that_fails_three_of_ten_requests_is_found_by_everything_that_shows_endpoints() {
    let (_backends, lictor, load, failing) = found(1);
    let id: &str = &format!("127.0.0.1:{}", failing.first().unwrap());
    let page = lictor.page("/ui/data");
    assert_eq!(those(users(&page), "failing"), failing);
    assert_eq!(page["upstreams"][0]["verdict"]["word"], "1 of 60 failing");
    let one = users(&page).iter().find(|one| one["state"] == "failing").unwrap();
    let (recent, failed) = (&one["recent"], &one["recent"]["last_failure"]);
    assert!(
        recent["failures"].as_u64() >= Some(2) && recent["requests"].as_u64() > recent["failures"].as_u64(),
        "{one}"
    );
    assert_eq!(failed["cause"], "500");
    assert!(failed["ago_ms"].as_u64() < Some(30_000), "{one}");
    assert!(recent["p50_ms"].as_f64().is_some_and(|ms| ms < 500.0), "no penalty is a time: {one}");
    let shares: f64 = users(&page).iter().filter_map(|one| one["recent"]["share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    let rows = command(&lictor, &["endpoints"]);
    let rows: Vec<&str> = rows.lines().collect();
    assert!(rows[0].contains("; 1 failing"), "{rows:?}");
    assert!(
        rows[2].contains(id) && rows[2].contains("failing") && rows[2].contains("500, "),
        "the worst first: {rows:?}"
    );
    let top = command(&lictor, &["top", "--once", "--width", "160"]);
    let row = top.lines().skip_while(|line| !line.contains("LAST FAILURE")).nth(1).unwrap();
    assert!(row.contains(id) && row.contains("failing") && row.contains("500, "), "{top}");
    let state = |state: &str| lictor.metric("lictor_endpoint_state", &[("endpoint", id), ("state", state)]);
    assert!((state("failing") - 1.0).abs() < 0.1 && state("healthy").abs() < 0.1);
    assert!(lictor.metric("lictor_endpoint_failures_total", &[("endpoint", id)]) > 1.5);
    assert!(lictor.metric("lictor_endpoint_requests_total", &[("endpoint", id)]) > 1.5);
    assert!(lictor.metric("lictor_endpoint_latency_seconds", &[("endpoint", id), ("percentile", "99")]) > 0.0);
    assert!((lictor.metric("lictor_upstream_endpoints", &[("state", "failing")]) - 1.0).abs() < 0.1);
    load.finish().assert_flawless(); // others were asked instead
}

#[test]
fn eleven_of_sixty_are_found_likewise() {
    let (_backends, lictor, load, failing) = found(11);
    assert_eq!(those(users(&lictor.page("/ui/data")), "failing"), failing);
    let rows = command(&lictor, &["endpoints", "users"]);
    assert!(rows.starts_with("users (60 of 60 instances, from static; 11 failing"), "{rows}");
    let top = command(&lictor, &["top", "--once", "--width", "160"]);
    assert_eq!(
        top.lines().filter(|line| line.starts_with(" ■ 127.") && line.contains(" failing ")).count(),
        11,
        "{top}"
    );
    assert!((lictor.metric("lictor_endpoint_state", &[("state", "failing")]) - 11.0).abs() < 0.1);
    load.finish();
}

#[test]
fn endpoints_in_metrics_are_wanted_and_so_many() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    other.answers(500);
    let exported = |metrics: &str| {
        let yaml = format!(
            "registration: off\nworkers: 1\nmetrics: {metrics}\nupstreams: {{users: {{listen: 0, retry: off, breaker: off, static: ['127.0.0.1:{}', '127.0.0.1:{}'], balance: round_robin}}}}\n",
            one.port(),
            other.port()
        );
        let lictor = Sidecar::serve(LICTOR, &yaml).up();
        for _ in 0..4 {
            lictor.get("users", "/");
        }
        let counted = || {
            let page = lictor.page("/endpoints/users");
            let all = page["users"]["endpoints"].as_array().unwrap().clone();
            all.iter().filter_map(|one| one["recent"]["total"]["requests"].as_u64()).sum::<u64>()
        };
        eventually_is("they are counted", counted, |count| *count == 4);
        let count = |endpoint: &str| lictor.metric("lictor_endpoint_requests_total", &[("endpoint", endpoint)]) as u64;
        let of_first =
            [&one, &other].map(|backend| count(&format!("127.0.0.1:{}", backend.port()))).iter().sum::<u64>();
        (of_first, count("other"), lictor.metric("lictor_label_overflow_total", &[]) > 0.5)
    };
    assert_eq!(exported("{}"), (0, 0, false));
    assert_eq!(exported("{endpoints: true}"), (4, 0, false));
    assert_eq!(exported("{endpoints: true, max_label_values: 1}"), (2, 2, true));
}

#[test]
fn what_was_while_nobody_looked_is_there_when_somebody_does() {
    let (well, ill) = (Backend::start("well"), Backend::start("ill"));
    ill.answers(503);
    let [nobody] = free_ports();
    let yaml = format!(
        "registration: off\nservice: orders\nworkers: 1\nupstreams:\n  users: {{listen: 0, retry: off, breaker: off, balance: round_robin, static: ['127.0.0.1:{}', '127.0.0.1:{}']}}\n  gone: {{listen: 0, retry: off, breaker: off, static: ['127.0.0.1:{nobody}']}}\n  idle: 0\nconsul: {{address: 'http://127.0.0.1:{nobody}'}}\nlifecycle: {{start_timeout: 1s}}\n",
        well.port(),
        ill.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    for _ in 0..10 {
        lictor.get("users", "/");
    }
    assert_eq!(lictor.get("gone", "/").status, 502);
    let sum = |list: &Json| list.as_array().unwrap().iter().filter_map(Json::as_u64).sum::<u64>();
    let page = eventually_is(
        "it is noted",
        || lictor.page("/history"),
        |page| sum(&page["upstreams"]["gone"]["rate"]) == 1 && sum(&page["upstreams"]["users"]["rate"]) == 10,
    );
    let (users, gone) = (&page["upstreams"]["users"], &page["upstreams"]["gone"]);
    assert_eq!((sum(&users["errors"]), sum(&users["failed_by"]["answer"])), (5, 5), "{users}");
    assert_eq!((sum(&gone["errors"]), sum(&gone["failed_by"]["connect"])), (1, 1), "{gone}");
    assert!(users["p99_ms"].as_array().unwrap().iter().any(Json::is_f64), "{users}");
    assert_eq!(page["upstreams"]["idle"]["rate"], serde_json::json!([]), "it takes no room");
    assert!(users.get("endpoints").is_none());
    let page = lictor.page("/history?upstream=users&since=1m");
    assert!(page["upstreams"].get("gone").is_none());
    let endpoints = page["upstreams"]["users"]["endpoints"].as_array().unwrap();
    let told = |port: u16| {
        let one = endpoints.iter().find(|one| one["address"] == format!("127.0.0.1:{port}")).unwrap();
        (sum(&one["requests"]), sum(&one["failures"]))
    };
    assert_eq!((told(well.port()), told(ill.port())), ((5, 0), (5, 5)));
    for (path, status) in [
        ("/history?since=11m", 400),
        ("/history?since=0s", 400),
        ("/history?since=soon", 400),
        ("/history?upstream=nobody", 404),
        ("/history?until=1m", 400),
    ] {
        assert_eq!(get(&lictor.admin(), path).unwrap().status, status, "{path}");
    }
    let top = command(&lictor, &["top", "--once", "--width", "160"]);
    let row = top.lines().find(|line| line.contains(" users ")).unwrap();
    assert!(row.contains('█'), "the past is drawn at once: {top}");
}
