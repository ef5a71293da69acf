//! What is measured when somebody asks: gauges read from the live state at each scrape, and the process itself.

mod instances;
mod tally;

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use lictor_config::{Effective, Gateway};
use lictor_consul::{AppHealth, RegistrationState, Standing};
use lictor_core::breaker::Forced;
use lictor_core::candidates::{Candidates, Choice, Front};
use lictor_core::{Mesh, Upstream};
use lictor_proxy::DataPlane;
use lictor_tls::Shown;
use prometheus::{
    Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::instances::Instances;
pub(crate) use self::tally::{Counted, LimitCounted, Requests, RouteCounted, Tally, added};
use crate::app_metrics::{self, AppMetrics};
use crate::family::register;
use crate::log::Logs;
use crate::openmetrics::{self, Form};
use crate::version;

/// What a scrape looks at.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) consul: &'a Standing,
    pub(crate) app: Option<&'a AppHealth>,
    pub(crate) plane: &'a DataPlane,
    pub(crate) logs: &'a Logs,
    pub(crate) gateway: Option<&'a Gateway>,
}

/// The families that a scrape fills in.
#[derive(Debug)]
pub(crate) struct Scrape {
    registry: Registry,
    app: Option<AppMetrics>,
    breaker: IntGaugeVec,
    endpoints: IntGaugeVec,
    tier: IntGaugeVec,
    orders: IntGaugeVec,
    in_flight: IntGaugeVec,
    pending: IntGaugeVec,
    connections: IntGaugeVec,
    consul_up: IntGauge,
    consul_connections: IntGauge,
    watch_age: GaugeVec,
    watch_index: IntGaugeVec,
    consul_errors: IntCounterVec,
    claims: IntGaugeVec,
    maintenance: IntGaugeVec,
    snapshot_age: Gauge,
    snapshot_in_use: IntGauge,
    app_up: IntGaugeVec,
    registration: IntGaugeVec,
    refreshes: IntCounter,
    reregistrations: IntCounterVec,
    reload_success: IntGauge,
    reload_time: Gauge,
    config_info: IntGaugeVec,
    certificates: Certificates,
    /// Of each endpoint, where they are wanted.
    instances: Option<Instances>,
    sagas: IntCounterVec,
    own_logs_dropped: IntCounter,
    resident_memory: IntGauge,
    cpu: Counter,
    open_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
}

/// What is told of certificates.
#[derive(Debug)]
struct Certificates {
    end: IntGaugeVec,
    rejected: IntGaugeVec,
    orders: IntCounterVec,
}

impl Certificates {
    fn new(registry: &Registry) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels).expect("constant names"))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels).expect("constant names"))
        };
        Self {
            end: gauges(
                "lictor_certificate_not_after_timestamp_seconds",
                "When the first certificate of a chain that is shown ends, since the epoch.",
                &["path"],
            ),
            rejected: gauges(
                "lictor_certificate_rejected",
                "1 while a certificate's files have changed and cannot be used; the one before stays in use.",
                &["path"],
            ),
            orders: counters(
                "lictor_certificate_orders_total",
                "Orders of certificates (ACME), by host and result: issued, failed.",
                &["host", "result"],
            ),
        }
    }

    fn set(&self, shown: &[Shown]) {
        self.end.reset();
        self.rejected.reset();
        for certificate in shown {
            let path = certificate.path.to_string_lossy();
            self.rejected.with_label_values(&[path.as_ref()]).set(i64::from(certificate.is_rejected));
            if let Some(end) = certificate.not_after {
                self.end.with_label_values(&[path.as_ref()]).set(end.cast_signed());
            }
        }
    }
}

impl Scrape {
    /// `endpoints`: how many of them have a label, where they are wanted.
    pub(crate) fn new(registry: Registry, app: Option<AppMetrics>, endpoints: Option<usize>) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels).expect("constant names"))
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help).expect("constant names"));
        let number = |name: &str, help: &str| register(&registry, Gauge::new(name, help).expect("constant names"));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels).expect("constant names"))
        };
        let counter =
            |name: &str, help: &str| register(&registry, IntCounter::new(name, help).expect("constant names"));
        let info = gauges("lictor_build_info", "Always 1.", &["version", "commit"]);
        info.with_label_values(&[version::NUMBER, version::COMMIT]).set(1);
        let scrape = Self {
            breaker: gauges("circuit_breaker_state", "0 closed, 1 open, 2 half-open.", &["name"]),
            endpoints: gauges("lictor_upstream_endpoints", "Endpoints by state.", &["upstream", "state"]),
            tier: gauges("lictor_upstream_tier", "The tier that requests go to; 0: the upstream's own.", &["upstream"]),
            orders: gauges(
                "lictor_operator_orders",
                "Orders of an operator that are in force, by kind: eject, pin, breaker_open, breaker_closed.",
                &["upstream", "kind"],
            ),
            in_flight: gauges("lictor_upstream_in_flight", "Requests now.", &["upstream"]),
            pending: gauges("lictor_upstream_pending", "Requests that wait for a place.", &["upstream"]),
            connections: gauges("lictor_upstream_connections", "Connections now.", &["upstream"]),
            consul_up: gauge("lictor_consul_up", "1 while the agent answers."),
            consul_connections: gauge("lictor_consul_connections", "Connections to the agent."),
            watch_age: register(
                &registry,
                GaugeVec::new(
                    Opts::new("lictor_consul_watch_age_seconds", "Since a watch's last good answer."),
                    &["watch"],
                )
                .expect("constant names"),
            ),
            watch_index: gauges("lictor_consul_watch_index", "A watch's index.", &["watch"]),
            consul_errors: counters("lictor_consul_errors_total", "Calls to the agent that failed.", &["kind"]),
            claims: gauges(
                "lictor_gateway_claims",
                "Tags of services that claim a route, by what became of them: `route` or `refused`.",
                &["state"],
            ),
            maintenance: gauges("lictor_gateway_maintenance_routes", "The gateway's routes in maintenance.", &[]),
            snapshot_age: number("lictor_snapshot_age_seconds", "The oldest answer in use from the snapshot; 0: none."),
            snapshot_in_use: gauge("lictor_snapshot_in_use", "Watches whose endpoints are from the snapshot."),
            app_up: gauges("lictor_application_up", "1 while the application answers.", &[]),
            registration: gauges("lictor_registration_state", "1 for the state that holds.", &["state"]),
            refreshes: counter("lictor_consul_refreshes_total", "Queries asked anew as connections failed."),
            reregistrations: counters("lictor_reregistrations_total", "Registrations made again.", &["cause"]),
            reload_success: gauge("lictor_config_last_reload_success", "0 when the last reload was refused."),
            reload_time: number("lictor_config_last_reload_timestamp_seconds", "When a configuration was last taken."),
            config_info: gauges("lictor_config_info", "Always 1.", &["hash", "source"]),
            certificates: Certificates::new(&registry),
            instances: endpoints.map(|most| Instances::new(&registry, most)),
            sagas: counters(
                "lictor_sagas_total",
                "Sagas that have ended here: completed, failed, manual.",
                &["status"],
            ),
            own_logs_dropped: counter(
                "lictor_own_logs_dropped_total",
                "Lines of lictor's own log that found the queue full (access lines: `lictor_logs_dropped_total`), and all that could not be written.",
            ),
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory."),
            cpu: register(
                &registry,
                Counter::new("process_cpu_seconds_total", "User and system time.").expect("constant names"),
            ),
            open_fds: gauge("process_open_fds", "Open file descriptors."),
            threads: gauge("process_threads", "Threads."),
            start_time: number("process_start_time_seconds", "When the process started, since the epoch."),
            registry: registry.clone(),
            app,
        };
        scrape.start_time.set(unix_seconds());
        scrape
    }

    /// A configuration was taken, or refused.
    pub(crate) fn reloaded(&self, values: Option<&[Effective]>, source: &str) {
        self.reload_success.set(i64::from(values.is_some()));
        let Some(values) = values else { return };
        let text = lictor_config::render(values, false);
        let hash = format!("{:016x}", lictor_core::balance::hash_bytes(text.as_bytes()));
        self.config_info.reset();
        self.config_info.with_label_values(&[hash.as_str(), source]).set(1);
        self.reload_time.set(unix_seconds());
    }

    /// Everything, and how it is written: OpenMetrics only if an application whose metrics are behind ours speaks it too.
    pub(crate) async fn text(&self, wanted: Form, seen: &Seen<'_>) -> (Form, String) {
        let app = match &self.app {
            Some(app) => app.fetch(wanted).await.map(|page| (app, page)),
            None => None,
        };
        self.mesh(seen.mesh);
        if let Some(instances) = &self.instances {
            seen.plane.overflowed("lictor_endpoint_requests_total", instances.set(seen.mesh, Instant::now()));
        }
        self.consul(seen.consul);
        if let Some(app) = seen.app {
            self.app_up.with_label_values::<&str>(&[]).set(i64::from(app.is_up));
        }
        self.gateway(seen.gateway);
        self.certificates.set(&seen.plane.certificates());
        set(&self.own_logs_dropped, seen.logs.dropped());
        self.process();
        let others = app.as_ref().map(|(app, page)| app.others(page, &self.families())).unwrap_or_default();
        let form = app.map_or(wanted, |(_, page)| page.form);
        let families = self.registry.gather();
        let ours = match form {
            Form::Text => TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# {error}\n")),
            Form::OpenMetrics => openmetrics::encode(&families, &seen.plane.exemplars()),
        };
        let end = if form == Form::OpenMetrics { openmetrics::END } else { "" };
        (form, [&ours, &others, end].concat())
    }

    /// The names of ours.
    fn families(&self) -> HashSet<String> {
        self.registry.gather().iter().map(|family| app_metrics::base(family.name()).to_owned()).collect()
    }

    /// What the data plane's own counters say so far; `leads` is whether requests of this upstream are a gateway's route's.
    pub(crate) fn tally(&self, leads: impl Fn(&str, &str) -> bool) -> Tally {
        Tally::of(&self.registry.gather(), leads)
    }

    fn mesh(&self, mesh: &Mesh) {
        let now = Instant::now();
        self.maintenance.reset();
        if let Some(gateway) = &mesh.gateway {
            let count = mesh.orders().routes(gateway, SystemTime::now()).count();
            self.maintenance.with_label_values::<&str>(&[]).set(count as i64);
        }
        for family in [
            &self.breaker,
            &self.endpoints,
            &self.tier,
            &self.orders,
            &self.in_flight,
            &self.pending,
            &self.connections,
        ] {
            family.reset(); // upstreams that are gone
        }
        for (name, upstream) in &mesh.upstreams {
            let name = [name.as_ref()];
            self.breaker.with_label_values(&name).set(upstream.breaker.state().as_gauge().into());
            self.in_flight.with_label_values(&name).set(upstream.in_flight.running().into());
            self.pending.with_label_values(&name).set(upstream.pending().into());
            self.connections.with_label_values(&name).set(upstream.in_flight.connections().into());
            for ordered in upstream.steering.in_force(now).iter() {
                self.orders.with_label_values(&[name[0], ordered.order.as_str()]).inc();
            }
            let forced = match upstream.breaker.view(now).forced {
                Some(Forced::Open) => Some("breaker_open"),
                Some(Forced::Closed) => Some("breaker_closed"),
                None => None,
            };
            if let Some(kind) = forced {
                self.orders.with_label_values(&[name[0], kind]).set(1);
            }
            if let Some(choice) = choice(upstream, now) {
                self.tier.with_label_values(&name).set(choice.tier.into());
            }
            for state in STATES {
                let count = upstream.endpoints.iter().filter(|endpoint| endpoint.state(now) == state).count();
                self.endpoints.with_label_values(&[name[0], state]).set(count as i64);
            }
        }
    }

    fn gateway(&self, gateway: Option<&Gateway>) {
        self.claims.reset();
        let Some((gateway, asked)) = gateway.and_then(|gateway| Some((gateway, gateway.from_consul.as_ref()?))) else {
            return;
        };
        let claimed = gateway.routes.routes.iter().filter(|route| route.claimed_by.is_some()).count();
        self.claims.with_label_values(&["route"]).set(claimed as i64);
        self.claims.with_label_values(&["refused"]).set(asked.refused.len() as i64);
    }

    fn consul(&self, consul: &Standing) {
        self.consul_up.set(i64::from(consul.up == Some(true)));
        self.consul_connections.set(consul.connections as i64);
        self.watch_age.reset();
        self.watch_index.reset();
        for watch in &consul.watches {
            let name = if watch.query.is_empty() {
                watch.service.clone()
            } else {
                format!("{}?{}", watch.service, watch.query)
            };
            self.watch_age.with_label_values(&[name.as_str()]).set(watch.age_ms.map_or(-1.0, |age| age as f64 / 1e3));
            self.watch_index.with_label_values(&[name.as_str()]).set(watch.index.cast_signed());
        }
        if let Some(kv) = &consul.kv {
            let name = format!("kv:{}", kv.key);
            self.watch_age.with_label_values(&[name.as_str()]).set(kv.age_ms.map_or(-1.0, |age| age as f64 / 1e3));
            self.watch_index.with_label_values(&[name.as_str()]).set(kv.index.cast_signed());
        }
        if let Some(catalog) = &consul.catalog {
            let (name, age) = (format!("tags:{}", catalog.tag), catalog.age_ms.map_or(-1.0, |age| age as f64 / 1e3));
            self.watch_age.with_label_values(&[name.as_str()]).set(age);
            self.watch_index.with_label_values(&[name.as_str()]).set(catalog.index.cast_signed());
        }
        let snapshot = consul.snapshot.as_ref();
        let age_ms = snapshot.and_then(|snapshot| snapshot.age_ms).unwrap_or_default();
        self.snapshot_age.set(age_ms as f64 / 1e3);
        self.snapshot_in_use.set(snapshot.map_or(0, |snapshot| snapshot.in_use) as i64);
        for (kind, count) in &consul.errors {
            set(&self.consul_errors.with_label_values(&[kind]), *count);
        }
        set(&self.refreshes, consul.refreshes);
        for (cause, count) in &consul.reregistrations {
            set(&self.reregistrations.with_label_values(&[cause]), *count);
        }
        for state in RegistrationState::ALL {
            self.registration.with_label_values(&[state.as_str()]).set(i64::from(state == consul.registration));
        }
    }

    /// A host's certificate was ordered.
    pub(crate) fn ordered(&self, host: &str, is_issued: bool) {
        let result = if is_issued { "issued" } else { "failed" };
        self.certificates.orders.with_label_values(&[host, result]).inc();
    }

    /// A saga has ended here.
    pub(crate) fn saga_ended(&self, status: &str) {
        self.sagas.with_label_values(&[status]).inc();
    }

    fn process(&self) {
        let process = Process::read();
        self.resident_memory.set(process.resident_bytes.cast_signed());
        self.cpu.inc_by((process.cpu_seconds - self.cpu.get()).max(0.0));
        self.open_fds.set(process.open_fds.cast_signed());
        self.threads.set(process.threads.cast_signed());
    }
}

/// Of endpoints, as [`lictor_core::Endpoint::state`] has them.
const STATES: [&str; 9] =
    ["healthy", "failing", "slow", "warning", "flapping", "suspect", "ejected", "draining", "resting"];

/// Who may take the next request that nothing is known of.
fn choice(upstream: &Upstream, now: Instant) -> Option<Choice> {
    let (endpoints, orders) = (&upstream.endpoints, &upstream.steering.in_force(now));
    let (front, panic) = (Front::of(endpoints), upstream.policy.balance.panic);
    Candidates { endpoints, front, orders, only: None, tried: &[], panic, now }.choice()
}

fn set(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// This process, from /proc; zeros where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) cpu_seconds: f64,
    open_fds: u64,
    threads: u64,
}

impl Process {
    pub(crate) fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is a name in parentheses and may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        Self {
            resident_bytes: field(24) * rustix::param::page_size() as u64,
            cpu_seconds: (field(14) + field(15)) as f64 / ticks,
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64,
            threads: field(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_is_seen_and_the_configuration_in_force_stays() {
        let scrape = Scrape::new(Registry::new(), None, None);
        scrape.reloaded(Some(&[]), "lictor.yaml");
        scrape.reloaded(None, "");
        assert_eq!(scrape.reload_success.get(), 0);
        let text = TextEncoder::new().encode_to_string(&scrape.registry.gather()).unwrap();
        assert!(text.contains("source=\"lictor.yaml\"} 1"), "{text}");
        assert!(text.contains("lictor_build_info{commit=\""), "{text}");
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.threads >= 1 && process.open_fds >= 3, "{process:?}");
    }
}
