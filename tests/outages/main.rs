//! What Consul, its network and restarts do to a sidecar, and what it makes of that: the real lictor, real sockets, and
//! a real Consul, except in `scripted` and `believed`, where an agent of our own says what no Consul at hand can be brought to say.
//!
//! Tests that take over a minute are in `long` and ignored; `make chaos` runs them.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]
#![allow(clippy::print_stdout, reason = "figures for docs/reliability-consul.md; --nocapture shows them")]

mod agent;
mod agents;
mod believed;
mod consul;
mod credentials;
mod history;
mod keys;
mod lifecycle;
mod long;
mod rolling;
mod scripted;
mod wire;

use std::time::{Duration, Instant};

use lictor_testkit::{Backend, Consul, Sidecar, eventually_is, lictor};

/// How soon a sidecar has what Consul says once Consul says it again.
const BACK: Duration = Duration::from_secs(2);
/// What a loop may ask at once before it is held to one query a second.
const BURST: usize = 11;

/// A caller that is not registered itself, with the upstream `users`, that asks this address.
fn caller(consul: &str, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{consul}'{more}}}\nlifecycle: {{drain_timeout: 5s}}\nupstreams: {{users: 0}}\n"
    );
    Sidecar::serve(lictor(), &yaml).up()
}

/// A sidecar that registers a backend as an instance of `users`.
fn beside(consul: &Consul, backend: &Backend, more: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\n{more}",
        backend.port(),
        consul.url()
    );
    Sidecar::serve(lictor(), &yaml).up()
}

/// Backends and their sidecars, once Consul lists them as passing.
fn instances(consul: &Consul, names: &[&str]) -> Vec<(Backend, Sidecar)> {
    let start = |name: &&str| {
        let backend = Backend::start(name);
        let sidecar = beside(consul, &backend, "");
        (backend, sidecar)
    };
    let instances: Vec<(Backend, Sidecar)> = names.iter().map(start).collect();
    eventually_is("all pass", || consul.passing("users").len(), |count| *count == names.len());
    instances
}

/// Lets time pass in which something must not happen.
fn quiet(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "what must not happen has no condition to await")]
    std::thread::sleep(time);
}

/// Whether Consul is there, as the metrics say.
fn is_up(lictor: &Sidecar) -> bool {
    lictor.metric("lictor_consul_up", &[]) > 0.5
}

/// How many events of a kind the log has.
fn events(lictor: &Sidecar, kind: &str) -> usize {
    lictor.log().lines().filter(|line| line.contains(&format!("\"kind\":\"{kind}\""))).count()
}

/// Everything that lictor said at warning or above.
fn warnings(lictor: &Sidecar) -> Vec<String> {
    let log = lictor.log();
    let is_loud = |line: &&str| line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"");
    log.lines().filter(is_loud).map(str::to_owned).collect()
}

/// Panics unless it was within two seconds.
fn assert_back(what: &str, since: Instant) -> Duration {
    let took = since.elapsed();
    assert!(took < BACK, "{what}: {took:?}");
    took
}
