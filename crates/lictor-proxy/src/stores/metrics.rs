//! What the data plane counts.
//!
//! Families live in one `prometheus` registry; a worker keeps the handles that it uses per upstream, so that a request
//! costs a few atomic additions and no lookup by label. Label values come from the configuration, Consul, or closed
//! sets; anything else is capped.

mod gateway;
mod meters;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use lictor_core::Reason;
use lictor_core::gateway::compress::{Coding, Plain};
use lictor_core::gateway::cors::Judged;
use parking_lot::{Mutex, RwLock};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use self::gateway::GatewayMeters;
pub(crate) use self::meters::{Over, UpstreamMeters};
use super::exemplar::{Exemplar, Exemplars, LATENCY_BUCKETS};
use super::flow::{Flow, Flowed};

/// Those that the semantic conventions advise for both histograms.
const OTEL_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TCP_BUCKETS: [f64; 8] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0];
const ADOPTION_BUCKETS: [f64; 8] = [0.000_01, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.01, 0.1];
const OVERHEAD_BUCKETS: [f64; 9] = [0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05];

const RPC_LABELS: [&str; 5] = ["rpc_system", "rpc_service", "rpc_method", "rpc_grpc_status_code", "server_address"];
const OTEL_LABELS: [&str; 5] =
    ["http_request_method", "http_response_status_code", "http_route", "server_address", "error_type"];

/// All families.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    overhead: HistogramVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    retries_denied: IntCounterVec,
    budget: GaugeVec,
    ejections: IntCounterVec,
    panic: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    deadline_exceeded: IntCounterVec,
    label_overflow: IntCounterVec,
    hedges: IntCounterVec,
    cache: IntCounterVec,
    fallbacks: IntCounterVec,
    tcp_connections: IntCounterVec,
    tcp_duration: HistogramVec,
    tcp_bytes: IntCounterVec,
    handshakes_failed: IntCounter,
    proxied_refused: IntCounter,
    accepts_failed: IntCounter,
    adoption: Histogram,
    tasks: IntGaugeVec,
    refused: IntCounterVec,
    orphans: IntCounterVec,
    limits: IntCounterVec,
    limits_crowded: IntCounter,
    limits_unreachable: IntCounterVec,
    limit_parts: IntGauge,
    redis_up: IntGaugeVec,
    gateway: GatewayMeters,
    /// Of `duration`, by upstream.
    exemplars: Mutex<BTreeMap<Arc<str>, Arc<Exemplars>>>,
    /// The same times, finely, and what else a history has.
    flows: Mutex<BTreeMap<Arc<str>, Arc<Flow>>>,
    methods: Methods,
    pub(crate) spans_dropped: IntCounter,
    pub(crate) logs_dropped: IntCounter,
    compat: Option<Compat>,
    otel: Option<Otel>,
    max_label_values: usize,
}

/// The names that older services use, for requests to our own application.
#[derive(Debug)]
struct Compat {
    requests: IntCounterVec,
    duration: HistogramVec,
    active: IntGaugeVec,
    grpc_requests: IntCounterVec,
    grpc_duration: HistogramVec,
}

/// The names of OpenTelemetry's semantic conventions for HTTP metrics.
#[derive(Debug)]
struct Otel {
    /// Of requests to our own application.
    server: HistogramVec,
    /// Of its requests, with all their attempts: what its own client would measure.
    client: HistogramVec,
    /// The same of gRPC calls.
    rpc_client: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, compat: bool, otel: bool, max_label_values: usize) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels).expect("names are valid and constant");
            register(registry, family)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(registry, HistogramVec::new(options, labels).expect("names are valid and constant"))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels).expect("names are valid and constant"))
        };
        let label_overflow = counter(
            "lictor_label_overflow_total",
            "Observations put under `other` because a label had too many values.",
            &["metric"],
        );
        Self {
            gateway: GatewayMeters::new(registry, &label_overflow, max_label_values),
            requests: counter(
                "lictor_upstream_requests_total",
                "Requests, by the status the client saw and lictor's reason when it answered itself.",
                &["upstream", "route", "code", "reason"],
            ),
            duration: histogram(
                "lictor_upstream_request_duration_seconds",
                "From a request's arrival to the last byte of its answer.",
                &LATENCY_BUCKETS,
                &["upstream"],
            ),
            overhead: histogram(
                "lictor_proxy_overhead_seconds",
                "From a request's arrival to the response head, less the time its attempts took.",
                &OVERHEAD_BUCKETS,
                &["upstream"],
            ),
            attempts: counter(
                "lictor_upstream_attempts_total",
                "Attempts, by outcome (a status class or a reason) and number (1, 2, 3+).",
                &["upstream", "outcome", "attempt"],
            ),
            retries: counter("lictor_retries_total", "Attempts after the first.", &["upstream"]),
            retries_denied: counter(
                "lictor_retries_denied_total",
                "Failures that were not retried although more attempts were allowed, by why.",
                &["upstream", "reason"],
            ),
            budget: register(
                registry,
                GaugeVec::new(
                    Opts::new("lictor_retry_budget_remaining_ratio", "Share of the retry budget that is left."),
                    &["upstream"],
                )
                .expect("names are valid and constant"),
            ),
            ejections: counter("lictor_endpoint_ejections_total", "Endpoints given a rest.", &["upstream"]),
            panic: gauge(
                "lictor_panic_active",
                "1 while so many endpoints are ejected that ejection is ignored.",
                &["upstream"],
            ),
            breaker_transitions: counter(
                "lictor_breaker_transitions_total",
                "Changes of a service's breaker.",
                &["name", "to", "cause"],
            ),
            deadline_exceeded: counter(
                "lictor_deadline_exceeded_total",
                "Requests that ran out of time, by where.",
                &["where"],
            ),
            label_overflow,
            hedges: counter(
                "lictor_hedges_total",
                "Second copies of slow requests: sent, won (their answer came first), denied (by the budget).",
                &["upstream", "outcome"],
            ),
            cache: counter(
                "lictor_cache_requests_total",
                "Requests of routes with a cache: hit, coalesced, miss, bypass.",
                &["upstream", "result"],
            ),
            fallbacks: counter("lictor_fallbacks_total", "Answers given in place of a failure.", &["upstream", "kind"]),
            tcp_connections: counter(
                "lictor_tcp_connections_total",
                "Connections carried as bytes that have ended, by lictor's reason when they were not ended by a side.",
                &["upstream", "reason"],
            ),
            tcp_duration: histogram(
                "lictor_tcp_connection_duration_seconds",
                "From a connection's arrival to its end.",
                &TCP_BUCKETS,
                &["upstream"],
            ),
            tcp_bytes: counter(
                "lictor_tcp_bytes_total",
                "Bytes of connections that have ended: sent to the upstream, received from it.",
                &["upstream", "direction"],
            ),
            refused: counter(
                "lictor_requests_refused_total",
                "Requests whose head could not be read, by the status that says so and lictor's reason.",
                &["code", "reason"],
            ),
            orphans: counter(
                "lictor_trace_orphans_total",
                "Requests of our application without a trace while it was serving ones with: it does not pass it on.",
                &["upstream", "route"],
            ),
            limits: counter(
                "lictor_limit_decisions_total",
                "What limits on rates said of requests: admitted, refused, would_refuse (not enforced), unavailable.",
                &["limit", "decision"],
            ),
            limits_crowded: register(
                registry,
                IntCounter::new(
                    "lictor_limit_overflow_total",
                    "Requests whose key had no place of its own among those that are remembered.",
                )
                .expect("names are valid and constant"),
            ),
            limits_unreachable: counter(
                "lictor_limit_redis_failures_total",
                "Times that Redis could not be asked about a limit: down, timeout, error.",
                &["cause"],
            ),
            limit_parts: register(
                registry,
                IntGauge::new("lictor_limit_gateways", "What limits with `mode: shared` are divided by.")
                    .expect("names are valid and constant"),
            ),
            redis_up: gauge("lictor_limit_redis_up", "1 while a worker's connection to Redis answers.", &["worker"]),
            exemplars: Mutex::default(),
            flows: Mutex::default(),
            methods: Methods::default(),
            handshakes_failed: register(
                registry,
                IntCounter::new("lictor_tls_handshakes_failed_total", "Clients whose TLS handshake failed.")
                    .expect("names are valid and constant"),
            ),
            proxied_refused: register(
                registry,
                IntCounter::new(
                    "lictor_proxy_protocol_refused_total",
                    "Connections without a header of the PROXY protocol, or from who may not send one.",
                )
                .expect("names are valid and constant"),
            ),
            accepts_failed: register(
                registry,
                IntCounter::new("lictor_accept_errors_total", "Times that a waiting connection could not be accepted.")
                    .expect("names are valid and constant"),
            ),
            adoption: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "lictor_mesh_adoption_seconds",
                        "A worker's time for a change of services or endpoints, in which its requests wait.",
                    )
                    .buckets(ADOPTION_BUCKETS.to_vec()),
                )
                .expect("names are valid and constant"),
            ),
            tasks: gauge("lictor_worker_tasks", "Tasks of a worker: connections, requests, loops.", &["worker"]),
            spans_dropped: register(
                registry,
                IntCounter::new("lictor_spans_dropped_total", "Spans that found the export queue full.")
                    .expect("names are valid and constant"),
            ),
            logs_dropped: register(
                registry,
                IntCounter::new("lictor_logs_dropped_total", "Access-log lines that found the log queue full.")
                    .expect("names are valid and constant"),
            ),
            compat: compat.then(|| Compat {
                requests: counter(
                    "http_requests_total",
                    "Requests to this service.",
                    &["method", "route", "status_code", "service"],
                ),
                duration: histogram(
                    "http_request_duration_seconds",
                    "Duration of requests to this service.",
                    &LATENCY_BUCKETS,
                    &["method", "route", "status_code", "service"],
                ),
                active: gauge("active_connections", "Connections to this service.", &["service"]),
                grpc_requests: counter(
                    "grpc_requests_total",
                    "gRPC requests, `status` success or error.",
                    &["service", "method", "status"],
                ),
                grpc_duration: histogram(
                    "grpc_request_duration_seconds",
                    "Duration of gRPC requests.",
                    &LATENCY_BUCKETS,
                    &["service", "method"],
                ),
            }),
            otel: otel.then(|| Otel {
                server: histogram(
                    "http_server_request_duration_seconds",
                    "Duration of HTTP server requests.",
                    &OTEL_BUCKETS,
                    &OTEL_LABELS,
                ),
                client: histogram(
                    "http_client_request_duration_seconds",
                    "Duration of HTTP client requests.",
                    &OTEL_BUCKETS,
                    &OTEL_LABELS,
                ),
                rpc_client: histogram(
                    "rpc_client_duration_seconds",
                    "Duration of gRPC calls, as their client sees them.",
                    &OTEL_BUCKETS,
                    &RPC_LABELS,
                ),
            }),
            max_label_values,
        }
    }

    /// The latest sampled requests, by upstream and bucket of `lictor_upstream_request_duration_seconds`.
    pub(crate) fn exemplars(&self) -> BTreeMap<String, Vec<Option<Exemplar>>> {
        self.exemplars.lock().iter().map(|(name, kept)| (name.to_string(), kept.kept())).collect()
    }

    /// How many requests took how long, by upstream.
    pub(crate) fn latencies(&self) -> BTreeMap<String, Vec<u64>> {
        self.flows.lock().iter().map(|(name, flow)| (name.to_string(), flow.times())).collect()
    }

    /// What became of the requests so far, by upstream.
    pub(crate) fn flowed(&self) -> Vec<(Arc<str>, Flowed)> {
        self.flows.lock().iter().map(|(name, flow)| (Arc::clone(name), flow.so_far())).collect()
    }

    fn flow(&self, upstream: &Arc<str>) -> Arc<Flow> {
        let begun = || Arc::new(Flow::new(self.retries.with_label_values(&[upstream.as_ref()])));
        Arc::clone(self.flows.lock().entry(Arc::clone(upstream)).or_insert_with(begun))
    }

    /// How many requests of a gateway's route took how long.
    pub(crate) fn route_latencies(&self, label: &str) -> Option<Vec<u64>> {
        self.gateway.latencies(label)
    }

    /// A request is over for which no upstream was found, or which a gateway's route has answered or refused.
    pub(crate) fn led_nowhere(&self, route: &str, status: u16, reason: Option<Reason>) {
        let (code, reason) = (status.to_string(), reason.map_or("", Reason::as_str));
        self.requests.with_label_values(&["", route, &code, reason]).inc();
    }

    /// So much had no label of its own in this family.
    pub(crate) fn overflowed(&self, family: &str, count: u64) {
        if count > 0 {
            self.label_overflow.with_label_values(&[family]).inc_by(count);
        }
    }

    /// A request's time ran out.
    pub(crate) fn deadline_exceeded(&self, place: &'static str) {
        self.deadline_exceeded.with_label_values(&[place]).inc();
    }

    /// A request's head could not be read.
    pub(crate) fn refused(&self, status: u16, reason: Reason) {
        self.refused.with_label_values(&[&*status.to_string(), reason.as_str()]).inc();
    }

    /// A client's TLS handshake failed.
    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// A connection did not say rightly, by the PROXY protocol, whose it is.
    pub(crate) fn proxied_refused(&self) {
        self.proxied_refused.inc();
    }

    /// A connection waits that could not be accepted.
    pub(crate) fn accept_failed(&self) {
        self.accepts_failed.inc();
    }

    pub(crate) fn adopted(&self, took: Duration) {
        self.adoption.observe(took.as_secs_f64());
    }

    /// How many tasks a worker has.
    pub(crate) fn tasks(&self, worker: usize, count: usize) {
        self.tasks.with_label_values(&[&worker.to_string()]).set(count as i64);
    }

    /// A limit on rates has decided: `admitted`, `refused`, `would_refuse` or `unavailable`.
    pub(crate) fn limited(&self, limit: &str, decision: &str) {
        self.limits.with_label_values(&[limit, decision]).inc();
    }

    /// A key of a limit shares its place with others.
    pub(crate) fn limit_crowded(&self) {
        self.limits_crowded.inc();
    }

    /// Redis could not be asked.
    pub(crate) fn limits_unreachable(&self, cause: &str) {
        self.limits_unreachable.with_label_values(&[cause]).inc();
    }

    /// So many gateways share limits.
    pub(crate) fn limits_are_divided_by(&self, parts: u32) {
        self.limit_parts.set(i64::from(parts));
    }

    /// Whether a worker's connection to Redis answers; `None`: it has none.
    pub(crate) fn redis_is_up(&self, worker: usize, is_up: Option<bool>) {
        if let Some(is_up) = is_up {
            self.redis_up.with_label_values(&[&worker.to_string()]).set(i64::from(is_up));
        }
    }

    /// A second copy of a slow request: `sent`, `won` or `denied`.
    pub(crate) fn hedged(&self, upstream: &str, outcome: &str) {
        self.hedges.with_label_values(&[upstream, outcome]).inc();
    }

    /// A request of a route with a cache: `hit`, `coalesced`, `miss` or `bypass`.
    pub(crate) fn cached(&self, upstream: &str, result: &str) {
        self.cache.with_label_values(&[upstream, result]).inc();
    }

    /// Something was given in place of a failure.
    pub(crate) fn fell_back(&self, upstream: &str, kind: &str) {
        self.fallbacks.with_label_values(&[upstream, kind]).inc();
    }

    /// An answer was compressed, or why it went as it was.
    pub(crate) fn compressed(&self, begun: Result<Coding, Plain>) {
        self.gateway.compressed(begun);
    }

    /// Somebody was let in, or why he was not, by who vouches for him or the way in which he has tried.
    pub(crate) fn authenticated(&self, provider: &str, decision: &str) {
        self.gateway.authenticated(provider, decision);
    }

    /// A page has asked.
    pub(crate) fn page_asked(&self, judged: Judged) {
        self.gateway.page_asked(judged);
    }

    /// A copy of a request to this upstream: `sent`, `busy`, `too_long` or `unread`.
    pub(crate) fn mirrored(&self, upstream: &str, outcome: &str) {
        self.gateway.mirrored(upstream, outcome);
    }

    /// A connection was carried.
    pub(crate) fn carried(
        &self,
        upstream: &Arc<str>,
        reason: Option<Reason>,
        took: Duration,
        sent: u64,
        received: u64,
    ) {
        self.flow(upstream).connection(reason);
        let upstream: &str = upstream;
        self.tcp_connections.with_label_values(&[upstream, reason.map_or("", Reason::as_str)]).inc();
        self.tcp_duration.with_label_values(&[upstream]).observe(took.as_secs_f64());
        self.tcp_bytes.with_label_values(&[upstream, "sent"]).inc_by(sent);
        self.tcp_bytes.with_label_values(&[upstream, "received"]).inc_by(received);
    }

    /// A breaker changed.
    pub(crate) fn breaker_changed(&self, name: &str, to: &str, cause: &str) {
        self.breaker_transitions.with_label_values(&[name, to, cause]).inc();
    }

    /// A request to our own application, under the old names.
    pub(crate) fn served(&self, service: &str, method: &str, status: u16, took: Duration) {
        let Some(compat) = &self.compat else { return };
        let code = status.to_string();
        let labels = [method, "/*", code.as_str(), service];
        compat.requests.with_label_values(&labels).inc();
        compat.duration.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// A connection to our own application opened or closed.
    pub(crate) fn connections(&self, service: &str, change: i64) {
        if let Some(compat) = &self.compat {
            compat.active.with_label_values(&[service]).add(change);
        }
    }

    /// A gRPC call, as the client (`service` is the upstream) or the server saw it.
    pub(crate) fn grpc(&self, service: &str, call: &Call<'_>, took: Duration, known: &mut MethodCap) {
        if self.compat.is_none() && self.otel.is_none() {
            return;
        }
        let most = if call.is_named { self.max_label_values } else { 0 };
        let method = if known.has(call.path) || self.methods.admit(service, call.path, most) {
            known.note(call.path);
            call.path
        } else {
            if call.is_named {
                self.label_overflow.with_label_values(&["grpc_requests_total"]).inc();
            }
            "other"
        };
        if let Some(compat) = &self.compat {
            let status = if call.is_success { "success" } else { "error" };
            compat.grpc_requests.with_label_values(&[service, method, status]).inc();
            compat.grpc_duration.with_label_values(&[service, method]).observe(took.as_secs_f64());
        }
        if let Some(otel) = self.otel.as_ref().filter(|_| !call.is_inbound) {
            // What is no code of gRPC's is UNKNOWN to clients, too (gRPC, "Status codes and their use in gRPC").
            let code = call.status.map_or(2, |code| if code <= 16 { code } else { 2 }).to_string();
            let (rpc_service, rpc_method) = method.trim_start_matches('/').rsplit_once('/').unwrap_or((method, method));
            let labels = ["grpc", rpc_service, rpc_method, code.as_str(), service];
            otel.rpc_client.with_label_values(&labels).observe(took.as_secs_f64());
        }
    }
}

/// A gRPC call that is over.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `/package.Service/Method`, as the client wrote it.
    pub(crate) path: &'a str,
    /// Its path may have a label of its own, if it has none yet.
    pub(crate) is_named: bool,
    pub(crate) is_inbound: bool,
    pub(crate) is_success: bool,
    pub(crate) status: Option<u16>,
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, family: C) -> C {
    registry.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

/// The gRPC methods of each service that have a label of their own: as many as the cap in the whole process. Locked
/// only for a method that the worker has not seen.
#[derive(Debug, Default)]
struct Methods(RwLock<HashMap<Box<str>, HashSet<Box<str>>>>);

impl Methods {
    fn admit(&self, service: &str, method: &str, max: usize) -> bool {
        if let Some(known) = self.0.read().get(service)
            && (known.len() >= max || known.contains(method))
        {
            return known.contains(method);
        }
        let mut all = self.0.write();
        let known = all.entry(service.into()).or_default();
        known.contains(method) || (known.len() < max && known.insert(method.into()))
    }
}

/// The admitted methods that a worker has seen.
#[derive(Debug, Default)]
pub(crate) struct MethodCap(Vec<Box<str>>);

impl MethodCap {
    fn has(&self, method: &str) -> bool {
        self.0.iter().any(|known| **known == *method)
    }

    fn note(&mut self, method: &str) {
        if !self.has(method) {
            self.0.push(method.into());
        }
    }
}

/// A bounded label (RFC 9110's methods and PATCH).
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::CONNECT => "CONNECT",
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}
