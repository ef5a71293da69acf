//! What a gateway counts: what it decides, and how long the requests of each of its routes take.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lictor_core::gateway::compress::{Coding, Plain};
use lictor_core::gateway::cors::Judged;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::register;
use crate::stores::exemplar::LATENCY_BUCKETS;
use crate::stores::spread::Spread;

/// Routes whose times are told apart; what more there are share one place. A place is 1.25 KiB.
const ROUTES_MAX: usize = 20_000;
/// Of what has no label of its own.
const OTHER: &str = "other";

/// A gateway's families.
#[derive(Debug)]
pub(super) struct GatewayMeters {
    auth: IntCounterVec,
    mirrored: IntCounterVec,
    pages: Words<{ Judged::ALL.len() }>,
    compressed: Words<{ Coding::ALL.len() }>,
    plain: Words<{ Plain::ALL.len() }>,
    duration: HistogramVec,
    /// Observations of routes without a label of their own.
    overflow: IntCounter,
    routes: Mutex<HashMap<Box<str>, RouteMeter>>,
    max_label_values: usize,
}

/// How long the requests of one route took: for `/metrics`, and finely.
#[derive(Clone, Debug)]
pub(super) struct RouteMeter {
    duration: Histogram,
    overflow: Option<IntCounter>,
    spread: Arc<Spread>,
}

impl RouteMeter {
    /// A request is over.
    pub(super) fn took(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        self.spread.count(took);
        if let Some(overflow) = &self.overflow {
            overflow.inc();
        }
    }
}

impl GatewayMeters {
    pub(super) fn new(registry: &Registry, label_overflow: &IntCounterVec, max_label_values: usize) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels).expect("names are valid and constant");
            register(registry, family)
        };
        let duration = HistogramOpts::new(
            "lictor_gateway_request_duration_seconds",
            "From the arrival of a request that a gateway's route has sent on to the last byte of its answer.",
        );
        let duration = HistogramVec::new(duration.buckets(LATENCY_BUCKETS.to_vec()), &["route"]);
        Self {
            auth: counter(
                "lictor_auth_decisions_total",
                "Requests whose route asks who it is: allowed, or what was wrong, by who vouches or the way that was tried.",
                &["provider", "decision"],
            ),
            mirrored: counter(
                "lictor_gateway_mirrored_total",
                "Copies of a gateway's requests: sent, or not for a body that was too long or had no end, or too many at once.",
                &["upstream", "outcome"],
            ),
            pages: Words::new(counter(
                "lictor_gateway_cors_decisions_total",
                "Requests of pages, by what `cors` says: allowed, unlisted, preflight, preflight_unlisted, refused.",
                &["decision"],
            )),
            compressed: Words::new(counter(
                "lictor_gateway_compressed_total",
                "Answers that were compressed, by how.",
                &["coding"],
            )),
            plain: Words::new(counter(
                "lictor_gateway_uncompressed_total",
                "Answers that went as they were where answers are compressed, by why.",
                &["reason"],
            )),
            duration: register(registry, duration.expect("names are valid and constant")),
            overflow: label_overflow.with_label_values(&["lictor_gateway_request_duration_seconds"]),
            routes: Mutex::default(),
            max_label_values,
        }
    }

    pub(super) fn authenticated(&self, provider: &str, decision: &str) {
        self.auth.with_label_values(&[provider, decision]).inc();
    }

    pub(super) fn mirrored(&self, upstream: &str, outcome: &str) {
        self.mirrored.with_label_values(&[upstream, outcome]).inc();
    }

    pub(super) fn page_asked(&self, judged: Judged) {
        self.pages.count(judged as usize, judged.as_str());
    }

    pub(super) fn compressed(&self, begun: Result<Coding, Plain>) {
        match begun {
            Ok(coding) => self.compressed.count(coding as usize, coding.as_str()),
            Err(why) => self.plain.count(why as usize, why.as_str()),
        }
    }

    /// The handles of a route, by its label. The first routes that are asked for have a label of their own in `/metrics`.
    pub(super) fn route(&self, label: &str) -> RouteMeter {
        let mut routes = self.routes.lock();
        let label = if routes.len() < ROUTES_MAX || routes.contains_key(label) { label } else { OTHER };
        if let Some(known) = routes.get(label) {
            return known.clone();
        }
        let is_own = routes.len() < self.max_label_values;
        let own = if is_own { label } else { OTHER };
        let meter = RouteMeter {
            duration: self.duration.with_label_values(&[own]),
            overflow: (!is_own).then(|| self.overflow.clone()),
            spread: Arc::default(),
        };
        routes.insert(label.into(), meter.clone());
        meter
    }

    /// How many requests of a route took how long.
    pub(super) fn latencies(&self, label: &str) -> Option<Vec<u64>> {
        Some(self.routes.lock().get(label)?.spread.counts())
    }
}

/// A counter for each word of a closed set, made when it is first counted.
#[derive(Debug)]
struct Words<const N: usize> {
    family: IntCounterVec,
    counters: [OnceLock<IntCounter>; N],
}

impl<const N: usize> Words<N> {
    fn new(family: IntCounterVec) -> Self {
        Self { family, counters: [const { OnceLock::new() }; N] }
    }

    fn count(&self, place: usize, word: &str) {
        self.counters[place].get_or_init(|| self.family.with_label_values(&[word])).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_route_has_its_label_and_those_beyond_the_bound_share_one() {
        let registry = Registry::new();
        let overflow = IntCounterVec::new(Opts::new("overflow_total", "x"), &["metric"]).unwrap();
        let meters = GatewayMeters::new(&registry, &overflow, 2);
        for label in ["/a", "/b", "/c", "/d", "/a"] {
            meters.route(label).took(Duration::from_millis(10));
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for (label, count) in [("/a", 2), ("/b", 1), ("other", 2)] {
            let line = format!("lictor_gateway_request_duration_seconds_count{{route=\"{label}\"}} {count}\n");
            assert!(text.contains(&line), "{line} {text}");
        }
        assert!(!text.contains("/c"), "{text}");
        assert_eq!(meters.overflow.get(), 2);
        let counted = |label: &str| meters.latencies(label).unwrap().iter().sum::<u64>();
        assert_eq!([counted("/a"), counted("/b"), counted("/c"), counted("/d")], [2, 1, 1, 1], "finely each by itself");
    }

    #[test]
    fn words_are_exported_once_they_are_said() {
        let registry = Registry::new();
        let overflow = IntCounterVec::new(Opts::new("overflow_total", "x"), &["metric"]).unwrap();
        let meters = GatewayMeters::new(&registry, &overflow, 2);
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(text(), "");
        meters.page_asked(Judged::Preflight);
        meters.page_asked(Judged::Preflight);
        meters.compressed(Ok(Coding::Gzip));
        meters.compressed(Err(Plain::Full));
        for line in [
            "lictor_gateway_cors_decisions_total{decision=\"preflight\"} 2\n",
            "lictor_gateway_compressed_total{coding=\"gzip\"} 1\n",
            "lictor_gateway_uncompressed_total{reason=\"full\"} 1\n",
        ] {
            assert!(text().contains(line), "{line} {}", text());
        }
        assert!(!text().contains("unlisted\"}"));
    }
}
