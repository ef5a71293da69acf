//! One worker's handles for one upstream, and what they count.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use lictor_core::Reason;
use prometheus::{Gauge, Histogram, IntCounter};
use tracing::warn;

use super::gateway::RouteMeter;
use super::{MethodCap, Metrics, Otel};
use crate::stores::exemplar::Exemplars;
use crate::stores::flow::Flow;
use crate::stores::outcome::Outcome;

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Over<'a> {
    pub(crate) is_inbound: bool,
    /// One of a closed set.
    pub(crate) method: &'static str,
    pub(crate) route: Option<(usize, &'a str)>,
    /// That is a gateway's, and its client's own request: no copy.
    pub(crate) is_edge: bool,
    /// As the client saw it.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
}

impl Over<'_> {
    fn route_label(&self) -> &str {
        self.route.map_or("", |(_, label)| label)
    }
}

/// One worker's handles for one upstream.
#[derive(Debug)]
pub(crate) struct UpstreamMeters {
    name: Arc<str>,
    duration: Histogram,
    overhead: Histogram,
    retries: IntCounter,
    ejections: IntCounter,
    budget: Gauge,
    panic: prometheus::IntGauge,
    /// Of what has no route, then of each route by its index: of ten thousand only those that are asked for take room.
    routes: RefCell<Vec<Option<Box<OfRoute>>>>,
    attempts: RefCell<Vec<(AttemptKey, IntCounter)>>,
    orphans: RefCell<Vec<(Option<usize>, IntCounter)>>,
    exemplars: Arc<Exemplars>,
    flow: Arc<Flow>,
    pub(crate) methods: RefCell<MethodCap>,
}

/// The handles of one of its routes. The lists are short: a few statuses and reasons.
#[derive(Debug, Default)]
struct OfRoute {
    requests: Vec<(Ended, IntCounter)>,
    otel: Vec<(OtelKey, Histogram)>,
    times: Option<RouteMeter>,
}

/// Status and reason.
type Ended = (u16, Option<Reason>);

/// Of one request in OpenTelemetry's terms; what `error_type` is follows from it.
#[derive(Debug, PartialEq)]
struct OtelKey {
    is_inbound: bool,
    method: &'static str,
    ended: Ended,
}

#[derive(Debug, PartialEq)]
struct AttemptKey {
    outcome: Outcome,
    number: u8,
}

impl UpstreamMeters {
    pub(crate) fn new(metrics: &Metrics, name: &Arc<str>) -> Self {
        let label = [name.as_ref()];
        Self {
            name: Arc::clone(name),
            duration: metrics.duration.with_label_values(&label),
            overhead: metrics.overhead.with_label_values(&label),
            retries: metrics.retries.with_label_values(&label),
            ejections: metrics.ejections.with_label_values(&label),
            budget: metrics.budget.with_label_values(&label),
            panic: metrics.panic.with_label_values(&label),
            routes: RefCell::default(),
            attempts: RefCell::default(),
            orphans: RefCell::default(),
            exemplars: Arc::clone(metrics.exemplars.lock().entry(Arc::clone(name)).or_default()),
            flow: metrics.flow(name),
            methods: RefCell::default(),
        }
    }

    /// A request is over.
    pub(crate) fn request(&self, metrics: &Metrics, over: &Over<'_>, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        self.flow.request(took, over.status, over.reason);
        let mut routes = self.routes.borrow_mut();
        let place = over.route.map_or(0, |(index, _)| index + 1);
        if routes.len() <= place {
            routes.resize_with(place + 1, || None);
        }
        let route = routes[place].get_or_insert_default();
        count(&mut route.requests, (over.status, over.reason), || {
            let code = over.status.to_string();
            let reason = over.reason.map_or("", Reason::as_str);
            metrics.requests.with_label_values(&[self.name.as_ref(), over.route_label(), &code, reason])
        });
        if over.is_edge {
            route.times.get_or_insert_with(|| metrics.gateway.route(over.route_label())).took(took);
        }
        if let Some(otel) = &metrics.otel {
            self.measure(&mut route.otel, otel, over, took);
        }
    }

    /// The same in OpenTelemetry's terms.
    fn measure(&self, known: &mut Vec<(OtelKey, Histogram)>, otel: &Otel, over: &Over<'_>, took: Duration) {
        let key = OtelKey { is_inbound: over.is_inbound, method: over.method, ended: (over.status, over.reason) };
        if let Some((_, histogram)) = known.iter().find(|(known, _)| *known == key) {
            histogram.observe(took.as_secs_f64());
            return;
        }
        let code = over.status.to_string();
        let is_error = over.status >= if over.is_inbound { 500 } else { 400 };
        let error = over.reason.map(Reason::as_str).or(is_error.then_some(code.as_str())).unwrap_or_default();
        let family = if over.is_inbound { &otel.server } else { &otel.client };
        let histogram = family.with_label_values(&[over.method, &code, over.route_label(), &self.name, error]);
        histogram.observe(took.as_secs_f64());
        known.push((key, histogram));
    }

    /// A request of a sampled trace is over.
    pub(crate) fn example(&self, trace_id: u128, span_id: u64, took: Duration) {
        self.exemplars.note(trace_id, span_id, took);
    }

    /// A request came without a trace although it could have had one.
    pub(crate) fn orphan(&self, metrics: &Metrics, route: Option<(usize, &str)>) {
        count(&mut self.orphans.borrow_mut(), route.map(|(index, _)| index), || {
            let (upstream, route) = (self.name.as_ref(), route.map_or("", |(_, label)| label));
            let counter = metrics.orphans.with_label_values(&[upstream, route]);
            if counter.get() == 0 {
                warn!(target: "lictor::event", kind = "trace_orphan", upstream, route,
                    "requests come without the trace of those being served: the application does not forward traceparent");
            }
            counter
        });
    }

    /// A response head is there.
    pub(crate) fn overhead(&self, took: Duration) {
        self.overhead.observe(took.as_secs_f64());
    }

    /// An attempt is over; `number` counts from 1.
    pub(crate) fn attempt(&self, metrics: &Metrics, outcome: Outcome, number: u32) {
        let number = number.min(3) as u8;
        let outcome = match outcome {
            Outcome::Status(status) => Outcome::Status(status / 100),
            other => other,
        };
        count(&mut self.attempts.borrow_mut(), AttemptKey { outcome, number }, || {
            let class;
            let outcome = match outcome {
                Outcome::Status(digit) => {
                    class = format!("{digit}xx");
                    class.as_str()
                }
                Outcome::Connected => "connected",
                Outcome::Abandoned => "abandoned",
                Outcome::Failed(reason) => reason.as_str(),
            };
            let number = ["1", "2", "3+"][usize::from(number.max(1) - 1)];
            metrics.attempts.with_label_values(&[self.name.as_ref(), outcome, number])
        });
    }

    /// Another attempt follows.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// No further attempt follows, although attempts are left.
    pub(crate) fn retry_denied(&self, metrics: &Metrics, why: &str) {
        metrics.retries_denied.with_label_values(&[self.name.as_ref(), why]).inc();
    }

    /// An endpoint was ejected.
    pub(crate) fn ejected(&self) {
        self.ejections.inc();
    }

    /// Whether ejection is being ignored.
    pub(crate) fn panic(&self, is_active: bool) {
        self.panic.set(i64::from(is_active));
    }

    /// What is left of this worker's retry budget; the others' are alike, so the last word stands.
    pub(crate) fn budget(&self, ratio: f64) {
        self.budget.set(ratio);
    }
}

/// Adds one to the counter of `key`, making it at its first use. The list is short.
fn count<K: PartialEq>(counters: &mut Vec<(K, IntCounter)>, key: K, make: impl FnOnce() -> IntCounter) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == key) {
        counter.inc();
        return;
    }
    let counter = make();
    counter.inc();
    counters.push((key, counter));
}
