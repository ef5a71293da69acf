//! `metrics.endpoints`: what became of the attempts at each endpoint, with a label for each of so many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use lictor_core::{Endpoint, EndpointKey, Mesh, Upstream};
use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::family::register;

/// Of what has no label of its own.
const OTHER: &str = "other";

/// The families, and what they have been told of each endpoint.
#[derive(Debug)]
pub(super) struct Instances {
    requests: IntCounterVec,
    failures: IntCounterVec,
    latency: GaugeVec,
    state: IntGaugeVec,
    known: Mutex<BTreeMap<Key, Known>>,
    /// Endpoints with a label of their own.
    most: usize,
}

type Key = (Arc<str>, EndpointKey);

/// What was counted of an endpoint so far.
#[derive(Clone, Copy, Debug)]
struct Known {
    requests: u64,
    failures: u64,
    has_label: bool,
}

impl Instances {
    pub(super) fn new(registry: &Registry, most: usize) -> Self {
        let counters = |name: &str, help: &str| {
            let options = Opts::new(name, help);
            register(registry, IntCounterVec::new(options, &["upstream", "endpoint"]).expect("constant names"))
        };
        let latency = Opts::new(
            "lictor_endpoint_latency_seconds",
            "To the heads of an endpoint's good answers in the last minute, by percentile: 50, 99.",
        );
        let state = Opts::new("lictor_endpoint_state", "1 for the state that an endpoint is in.");
        Self {
            requests: counters(
                "lictor_endpoint_requests_total",
                "Attempts at an endpoint that are over; `other`: at those without a label of their own.",
            ),
            failures: counters("lictor_endpoint_failures_total", "Attempts at an endpoint that failed."),
            latency: register(
                registry,
                GaugeVec::new(latency, &["upstream", "endpoint", "percentile"]).expect("constant names"),
            ),
            state: register(
                registry,
                IntGaugeVec::new(state, &["upstream", "endpoint", "state"]).expect("constant names"),
            ),
            known: Mutex::default(),
            most,
        }
    }

    /// Sets them all; how many attempts were counted under no label of their own.
    pub(super) fn set(&self, mesh: &Mesh, now: Instant) -> u64 {
        let mut known = self.known.lock();
        self.forget(&mut known, mesh);
        self.latency.reset();
        self.state.reset();
        let (mut labels, mut without) = (known.values().filter(|known| known.has_label).count(), 0);
        for (name, upstream) in &mesh.upstreams {
            for endpoint in &upstream.endpoints {
                let key = (Arc::clone(name), endpoint.key.clone());
                let known = known.entry(key).or_insert_with(|| {
                    let has_label = labels < self.most;
                    labels += usize::from(has_label);
                    Known { requests: 0, failures: 0, has_label }
                });
                let counted = self.count(name, endpoint, known);
                if known.has_label {
                    self.tell(name, endpoint, now);
                } else {
                    without += counted;
                }
            }
        }
        without
    }

    /// Those that are gone make room.
    fn forget(&self, known: &mut BTreeMap<Key, Known>, mesh: &Mesh) {
        let keys = |(name, upstream): (&Arc<str>, &Arc<Upstream>)| {
            let name = Arc::clone(name);
            upstream.endpoints.iter().map(move |it| (Arc::clone(&name), it.key.clone())).collect::<Vec<Key>>()
        };
        let there: BTreeSet<Key> = mesh.upstreams.iter().flat_map(keys).collect();
        let gone: Vec<_> = known.extract_if(.., |key, _| !there.contains(key)).collect();
        for ((name, key), _) in gone.iter().filter(|(_, gone)| gone.has_label) {
            // The same id may be at another address now.
            if !known.iter().any(|((other, it), known)| other == name && it.id == key.id && known.has_label) {
                let _ = self.requests.remove_label_values(&[name, &key.id]); // it may never have been told
                let _ = self.failures.remove_label_values(&[name, &key.id]);
            }
        }
    }

    /// Adds what came since the last time.
    fn count(&self, name: &str, endpoint: &Endpoint, known: &mut Known) -> u64 {
        let (requests, failures) = endpoint.health.track.totals();
        let id: &str = if known.has_label { &endpoint.key.id } else { OTHER };
        let labels = [name, id];
        let more = requests.saturating_sub(known.requests);
        self.requests.with_label_values(&labels).inc_by(more);
        self.failures.with_label_values(&labels).inc_by(failures.saturating_sub(known.failures));
        (known.requests, known.failures) = (requests, failures);
        more
    }

    fn tell(&self, name: &str, endpoint: &Endpoint, now: Instant) {
        let (id, recent) = (&*endpoint.key.id, endpoint.health.track.recent());
        for (percentile, ms) in [("50", recent.p50_ms), ("99", recent.p99_ms)] {
            if let Some(ms) = ms {
                self.latency.with_label_values(&[name, id, percentile]).set(ms / 1e3);
            }
        }
        self.state.with_label_values(&[name, id, endpoint.state(now)]).set(1);
    }
}
