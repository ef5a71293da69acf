//! The demonstration: three user-service, two product-service and one order-service instances, each beside its own
//! lictor; traffic; and things that go wrong. What is shown is what the clients saw and what order-service's sidecar
//! counted.

use std::io::{IsTerminal, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use lictor_testkit::{Consul, Load, Sidecar, Tally, eventually, eventually_is, free_ports, get, root};

const RATE: u32 = 150;
/// Requests a step.
const STEP: u64 = 500;

/// Runs it; fails when any client saw an error.
pub(crate) fn run(lictor: &str) -> ExitCode {
    let began = Instant::now();
    let mut shop = Shop::open(lictor);
    let load = Load::start(&format!("127.0.0.1:{}", shop.order_port), &[Method::GET], RATE);
    let mut table = Table::new();
    table.step(&shop, &load, "all is well");
    shop.kill_user(0);
    table.step(&shop, &load, "user-service 1 is killed (SIGKILL)");
    shop.start_user(0);
    table.step(&shop, &load, "it is started again");
    shop.fail_user(1, 503);
    table.step(&shop, &load, "user-service 2 answers 503");
    shop.fail_user(1, 0);
    table.step(&shop, &load, "it answers again");
    if shop.consul.is_some() {
        shop.lose_consul();
        table.step(&shop, &load, "Consul is gone");
        shop.return_consul();
        table.step(&shop, &load, "Consul is back, having forgotten everything");
    }
    if std::env::var_os("KEEP").is_some() {
        shop.stay();
    }
    let tally = load.finish();
    shop.close();
    verdict(&tally, began.elapsed())
}

fn verdict(tally: &Tally, took: Duration) -> ExitCode {
    let (total, errors) = (tally.total(), tally.errors());
    say(&format!(
        "\n{total} requests, {errors} errors seen by clients; p50 {:.1} ms, p99 {:.1} ms; {:.0} s in all",
        tally.percentile(0.5).as_secs_f64() * 1e3,
        tally.percentile(0.99).as_secs_f64() * 1e3,
        took.as_secs_f64()
    ));
    if errors == 0 {
        return ExitCode::SUCCESS;
    }
    say(&format!("statuses {:?}; broken {:?}; samples {:?}", tally.statuses, tally.broken, tally.samples));
    ExitCode::FAILURE
}

/// Everything that runs.
struct Shop {
    lictor: String,
    consul: Option<Consul>,
    users: Vec<Instance>,
    others: Vec<Instance>,
    order_port: u16,
    /// Order-service's.
    sidecar: Option<Sidecar>,
}

/// A service's process and its sidecar.
struct Instance {
    kind: &'static str,
    port: u16,
    process: Option<Child>,
    sidecar: Option<Sidecar>,
}

impl Shop {
    fn open(lictor: &str) -> Self {
        let found = Command::new(root().join("scripts/consul.sh")).stdout(Stdio::null()).status();
        let consul = found.is_ok_and(|status| status.success()).then(Consul::dev);
        match &consul {
            Some(consul) => say(&format!("a real Consul agent is at {}", consul.url())),
            None => say("no Consul can be had here: the sidecars run on fixed endpoints (static:)"),
        }
        let [user1, user2, user3, product1, product2, order] = free_ports();
        let instance = |kind, port| Instance { kind, port, process: None, sidecar: None };
        let mut shop = Self {
            lictor: lictor.to_owned(),
            consul,
            users: [user1, user2, user3].map(|port| instance("user", port)).into(),
            others: [product1, product2].map(|port| instance("product", port)).into(),
            order_port: order,
            sidecar: None,
        };
        let consul_url = shop.consul.as_ref().map(Consul::url);
        for instance in shop.users.iter_mut().chain(&mut shop.others) {
            instance.start(lictor, consul_url.as_deref());
        }
        say("3 user-service and 2 product-service instances are up, each beside its own lictor");
        shop.start_order();
        say(&format!("order-service is up; {RATE} requests a second go to it\n"));
        shop
    }

    fn start_order(&mut self) {
        let upstream = |name: &str, instances: &[Instance]| {
            let fixed: Vec<String> = instances.iter().map(|it| format!("'127.0.0.1:{}'", it.port)).collect();
            let source = match self.consul {
                Some(_) => String::new(),
                None => format!(", static: [{}]", fixed.join(", ")),
            };
            // Round robin shows the failures; the default would turn away from them.
            format!("  {name}: {{listen: 0, required: true, balance: round_robin{source}}}\n")
        };
        let yaml = format!(
            "service: order-service\nport: {}\n{}log: {{access: errors}}\nupstreams:\n{}{}",
            self.order_port,
            registration(self.consul.as_ref().map(Consul::url).as_deref()),
            upstream("user-service", &self.users),
            upstream("product-service", &self.others)
        );
        let program = std::env::current_exe().expect("this program has a path");
        let program = program.to_string_lossy().into_owned();
        let port = self.order_port.to_string();
        let command = ["--", program.as_str(), "order", "--port", port.as_str()];
        let sidecar = Sidecar::start(&self.lictor, &yaml, &[], &["run"], &command).up();
        if self.consul.is_some() {
            sidecar.await_endpoints("user-service", 3);
            sidecar.await_endpoints("product-service", 2);
        }
        await_health(self.order_port);
        self.sidecar = Some(sidecar);
    }

    fn kill_user(&mut self, index: usize) {
        self.users[index].kill();
    }

    fn start_user(&mut self, index: usize) {
        let user = &mut self.users[index];
        user.start_process();
        if let Some(sidecar) = &self.sidecar {
            sidecar.await_endpoints("user-service", 3);
        }
    }

    fn fail_user(&self, index: usize, status: u16) {
        let address = format!("127.0.0.1:{}", self.users[index].port);
        get(&address, &format!("/_fail/{status}")).expect("the instance answers");
    }

    fn lose_consul(&mut self) {
        if let Some(consul) = &mut self.consul {
            consul.kill();
        }
    }

    fn return_consul(&mut self) {
        if let Some(consul) = &mut self.consul {
            consul.restart();
            eventually_is("all are registered again", || consul.passing("user-service").len(), |count| *count == 3);
        }
    }

    fn stay(&self) {
        let sidecar = self.sidecar.as_ref().expect("it was started");
        say(&format!("\nstaying up:\n  order-service  http://127.0.0.1:{}/orders/1", self.order_port));
        say(&format!("  its sidecar    http://{}/ (admin), /metrics, /endpoints, /events", sidecar.admin()));
        for name in ["user-service", "product-service"] {
            say(&format!("  {name:14} http://{}/ (through the sidecar)", sidecar.address(name)));
        }
        if let Some(consul) = &self.consul {
            say(&format!("  Consul         {}/ui", consul.url()));
        }
        say("Ctrl-C ends it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = runtime.block_on(tokio::signal::ctrl_c()); // without one it just ends
    }

    fn close(self) {
        let Self { sidecar, .. } = self;
        drop(sidecar); // the caller first
    }
}

impl Instance {
    fn start(&mut self, lictor: &str, consul: Option<&str>) {
        self.start_process();
        let yaml = format!(
            "service: {}-service\nport: {}\n{}log: {{access: errors}}\n",
            self.kind,
            self.port,
            registration(consul)
        );
        self.sidecar = Some(Sidecar::serve(lictor, &yaml).up());
    }

    fn start_process(&mut self) {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.arg(self.kind).arg("--port").arg(self.port.to_string()).stdin(Stdio::null());
        self.process = Some(command.spawn().expect("this program can be started again"));
        await_health(self.port);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A check every second, so that the demonstration need not wait ten.
fn registration(consul: Option<&str>) -> String {
    match consul {
        Some(url) => format!("check: {{http: /health, interval: 1s, timeout: 1s}}\nconsul: {{address: '{url}'}}\n"),
        None => "registration: off\n".to_owned(),
    }
}

fn await_health(port: u16) {
    eventually("the instance is healthy", || {
        let answer = get(&format!("127.0.0.1:{port}"), "/health").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });
}

/// The table, a row a step, each with what changed in it.
struct Table {
    before: Counts,
}

/// What clients saw, and what order-service's sidecar has counted.
#[derive(Clone, Copy, Default)]
struct Counts {
    requests: u64,
    errors: u64,
    retries: f64,
    ejections: f64,
}

impl Counts {
    fn read(shop: &Shop, load: &Load) -> Self {
        let tally = load.tally();
        let sidecar = shop.sidecar.as_ref().expect("it was started");
        Self {
            requests: tally.total(),
            errors: tally.errors(),
            retries: sidecar.metric("lictor_retries_total", &[]),
            ejections: sidecar.metric("lictor_endpoint_ejections_total", &[]),
        }
    }
}

impl Table {
    fn new() -> Self {
        say(&format!(
            "{:<46} {:>8} {:>6} {:>7} {:>9}  {:<9} {}",
            "step", "requests", "errors", "retries", "ejections", "endpoints", "breaker"
        ));
        Self { before: Counts::default() }
    }

    /// Waits until so many requests have ended, and shows what happened meanwhile.
    fn step(&mut self, shop: &Shop, load: &Load, what: &str) {
        load.await_more(STEP);
        let now = Counts::read(shop, load);
        let sidecar = shop.sidecar.as_ref().expect("it was started");
        let breakers = sidecar.page("/breakers");
        let state = |name: &str| breakers[name]["state"].as_str().unwrap_or("?").to_owned();
        let count =
            |state| sidecar.metric("lictor_upstream_endpoints", &[("upstream", "user-service"), ("state", state)]);
        let endpoints = format!("{}+{}", count("healthy"), count("ejected") + count("suspect"));
        say(&format!(
            "{what:<46} {:>8} {:>6} {:>7} {:>9}  {endpoints:<9} {}",
            now.requests - self.before.requests,
            now.errors - self.before.errors,
            now.retries - self.before.retries,
            now.ejections - self.before.ejections,
            state("user-service"),
        ));
        self.before = now;
    }
}

/// To standard output, where a demonstration speaks.
fn say(text: &str) {
    let is_plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stdout().is_terminal();
    let text = if is_plain { text.to_owned() } else { text.replace(" 0 errors", " \x1b[32m0 errors\x1b[0m") };
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
