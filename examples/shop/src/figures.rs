//! Numbers of the release build: memory, start, loss of an instance at a thousand requests a second, a rolling restart,
//! an upstream that always fails, and the way from a change in Consul to the first request routed by it.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hyper::Method;
use lictor_testkit::{Backend, Consul, Load, Sidecar, eventually, eventually_is, get};
use serde_json::Value as Json;

/// Prints them; fails when a client saw an error.
pub(crate) fn run(lictor: &str) -> ExitCode {
    let flawless = [kill(lictor), rolling_restart(lictor)];
    always_failing(lictor);
    freshness(lictor);
    start_and_memory(lictor);
    if flawless.iter().all(|is_flawless| *is_flawless) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn caller(lictor: &str, consul: &Consul, more: &str) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nlog: {{access: off}}\nconsul: {{address: '{}'}}\nupstreams:\n  users: {{listen: 0{more}}}\n",
        consul.url()
    );
    Sidecar::serve(lictor, &yaml).up()
}

fn beside(lictor: &str, consul: &Consul, backend: &Backend) -> Sidecar {
    let yaml =
        format!("service: users\nport: {}\ncheck: /health\nconsul: {{address: '{}'}}\n", backend.port(), consul.url());
    Sidecar::serve(lictor, &yaml).up()
}

fn three(lictor: &str, consul: &Consul) -> (Vec<Backend>, Vec<Sidecar>) {
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::start).into();
    let sidecars = backends.iter().map(|backend| beside(lictor, consul, backend)).collect();
    eventually_is("three pass", || consul.passing("users").len(), |count| *count == 3);
    (backends, sidecars)
}

fn kill(lictor: &str) -> bool {
    let consul = Consul::dev();
    let (mut backends, _sidecars) = three(lictor, &consul);
    let orders = caller(lictor, &consul, "");
    orders.await_endpoints("users", 3);
    let load = Load::start(&orders.address("users"), &[Method::GET], 1000);
    load.await_more(3_000);
    backends.remove(0).kill();
    load.await_more(5_000);
    report("1,000 GET/s, one of three instances killed", load, &orders)
}

fn rolling_restart(lictor: &str) -> bool {
    let consul = Consul::dev();
    let (mut backends, mut sidecars) = three(lictor, &consul);
    let orders = caller(lictor, &consul, "");
    orders.await_endpoints("users", 3);
    let load = Load::start(&orders.address("users"), &[Method::GET, Method::POST], 1000);
    load.await_more(1_000);
    for _ in 0..3 {
        let (backend, mut sidecar) = (backends.remove(0), sidecars.remove(0));
        let (name, port) = (backend.name().to_owned(), backend.port());
        sidecar.terminate();
        backend.stop();
        load.await_more(300);
        let backend = Backend::on(&name, port);
        sidecars.push(beside(lictor, &consul, &backend));
        backends.push(backend);
        orders.await_endpoints("users", 3);
        load.await_more(300);
    }
    report("1,000 GET and POST/s, rolling restart of all three", load, &orders)
}

fn report(what: &str, load: Load, orders: &Sidecar) -> bool {
    let tally = load.finish();
    say(&format!(
        "{what}: {} requests, {} errors, {} retries, p99 {:.1} ms",
        tally.total(),
        tally.errors(),
        orders.metric("lictor_retries_total", &[]),
        tally.percentile(0.99).as_secs_f64() * 1e3
    ));
    if tally.errors() > 0 {
        say(&format!("  {:?} {:?} {:?}", tally.statuses, tally.broken, tally.samples));
    }
    tally.errors() == 0
}

fn always_failing(lictor: &str) {
    for breaker in ["", ", breaker: off, ejection: off"] {
        let backend = Backend::start("a");
        backend.answers(503);
        let yaml = format!(
            "registration: off\nlog: {{access: off}}\nupstreams:\n  users: {{listen: 0, static: ['127.0.0.1:{}']{breaker}}}\n",
            backend.port()
        );
        let orders = Sidecar::serve(lictor, &yaml).up();
        let load = Load::start(&orders.address("users"), &[Method::GET], 500);
        load.await_more(9_500);
        let requests = load.finish().total() as f64;
        let name = if breaker.is_empty() { "all defaults" } else { "breaker and ejection off" };
        say(&format!("always 503 at 500/s, {name}: attempts / requests = {:.3}", backend.hits() as f64 / requests));
    }
}

fn freshness(lictor: &str) {
    let consul = Consul::dev();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    consul.register("users", "old", old.port());
    let orders = caller(lictor, &consul, ", slow_start: 0s, balance: round_robin");
    orders.await_endpoints("users", 1);
    let users = orders.address("users");
    let until = |wanted: bool| {
        let began = Instant::now();
        loop {
            let is_seen = (0..2).any(|_| get(&users, "/").is_ok_and(|answer| answer.header("x-backend") == "new"));
            if is_seen == wanted {
                return began.elapsed();
            }
        }
    };
    let mut delays = Vec::new();
    for round in 0..100 {
        consul.register("users", "new", new.port());
        delays.push(until(true));
        if round % 2 == 0 {
            consul.put("/v1/agent/service/maintenance/new?enable=true", &Json::Null);
            delays.push(until(false));
        }
        consul.deregister("new");
        if round % 2 == 1 {
            delays.push(until(false));
        }
        orders.await_endpoints("users", 1);
        #[expect(clippy::disallowed_methods, reason = "a pace of changes as deployments have it, not a wait for one")]
        std::thread::sleep(Duration::from_millis(400));
    }
    delays.sort();
    let at = |share: f64| delays[((delays.len() as f64 * share) as usize).min(delays.len() - 1)].as_secs_f64() * 1e3;
    say(&format!(
        "from a change in Consul to the first request routed by it, {} changes: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        delays.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    ));
}

fn start_and_memory(lictor: &str) {
    let consul = Consul::dev();
    let backend = Backend::start("a");
    consul.register("users", "a", backend.port());
    let mut times: Vec<Duration> = (0..10)
        .map(|_| {
            let [port, admin] = lictor_testkit::free_ports();
            let yaml = format!(
                "registration: off\nconsul: {{address: '{}'}}\nadmin: {{listen: {admin}}}\nupstreams: {{users: {port}}}\n",
                consul.url()
            );
            let began = Instant::now();
            let _sidecar = Sidecar::serve(lictor, &yaml);
            let address = format!("127.0.0.1:{port}");
            loop {
                if get(&address, "/").is_ok_and(|answer| answer.status == 200) {
                    return began.elapsed();
                }
            }
        })
        .collect();
    times.sort();
    say(&format!("start to first proxied answer, of 10: median {:?}, worst {:?}", times[5], times[9]));
    let idle = caller(lictor, &consul, "");
    eventually("it is idle", || if idle.endpoints("users") == 1 { Ok(()) } else { Err("not yet") });
    say(&format!("idle resident memory: {:.1} MiB", idle.resident() as f64 / f64::from(1 << 20)));
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
