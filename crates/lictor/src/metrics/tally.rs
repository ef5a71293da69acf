//! What the data plane's counters say so far, read from one gathering: by upstream, by a gateway's route, by limit.

use std::collections::{BTreeMap, HashMap};

use prometheus::proto::{LabelPair, Metric, MetricFamily};
use serde::Serialize;

/// What happened to the requests of an upstream so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Requests {
    pub(crate) total: u64,
    /// With a 5xx, or without an answer.
    pub(crate) failed: u64,
    pub(crate) retries: u64,
}

/// What happened to what an upstream was asked so far: requests, or connections that were carried as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) total: u64,
    /// With a 5xx, or without an answer; connections: not ended by a side.
    pub(crate) failed: u64,
    pub(crate) retries: u64,
    /// Failures that were not retried although attempts were left.
    pub(crate) retries_denied: u64,
}

impl Counted {
    /// What it grew by.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            failed: self.failed.saturating_sub(before.failed),
            retries: self.retries.saturating_sub(before.retries),
            retries_denied: self.retries_denied.saturating_sub(before.retries_denied),
        }
    }
}

/// What happened to the requests of a gateway's route so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteCounted {
    pub(crate) total: u64,
    /// With a 5xx, or without an answer.
    pub(crate) failed: u64,
    /// What lictor has answered itself, by its reason.
    pub(crate) reasons: BTreeMap<String, u64>,
}

/// What a limit has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitCounted {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) would_refuse: u64,
    pub(crate) unavailable: u64,
}

/// What counts grew by, place by place.
pub(crate) fn added(before: Option<&Vec<u64>>, now: Option<&Vec<u64>>) -> Vec<u64> {
    let before = before.into_iter().flatten().copied().chain(std::iter::repeat(0));
    now.into_iter().flatten().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) upstreams: BTreeMap<String, Requests>,
    /// Of connections that were carried, too.
    pub(crate) carried: BTreeMap<String, Counted>,
    /// By label; those without a route under the empty one.
    pub(crate) routes: HashMap<String, RouteCounted>,
    /// By scope.
    pub(crate) limits: HashMap<String, LimitCounted>,
}

impl Tally {
    /// `leads` is whether requests of this upstream (`""`: of none) are those of this route.
    pub(super) fn of(families: &[MetricFamily], leads: impl Fn(&str, &str) -> bool) -> Self {
        let mut tally = Self::default();
        for family in families {
            let note: fn(&mut Self, &Metric, u64) = match family.name() {
                "lictor_upstream_requests_total" => Self::requests,
                "lictor_tcp_connections_total" => Self::connections,
                "lictor_retries_total" => Self::retries,
                "lictor_retries_denied_total" => Self::retries_denied,
                "lictor_limit_decisions_total" => Self::limits,
                _ => continue,
            };
            for metric in family.get_metric() {
                note(&mut tally, metric, metric.get_counter().get_value() as u64);
            }
            if family.name() == "lictor_upstream_requests_total" {
                family.get_metric().iter().for_each(|metric| tally.route(metric, &leads));
            }
        }
        tally
    }

    fn requests(&mut self, metric: &Metric, count: u64) {
        let failed = if is_failed(metric) { count } else { 0 };
        let name = label(metric, "upstream");
        let requests = entry(&mut self.upstreams, name);
        (requests.total, requests.failed) = (requests.total + count, requests.failed + failed);
        let counted = entry(&mut self.carried, name);
        (counted.total, counted.failed) = (counted.total + count, counted.failed + failed);
    }

    fn route(&mut self, metric: &Metric, leads: impl Fn(&str, &str) -> bool) {
        let (upstream, route) = (label(metric, "upstream"), label(metric, "route"));
        if !leads(upstream, route) {
            return;
        }
        if !self.routes.contains_key(route) {
            self.routes.insert(route.to_owned(), RouteCounted::default());
        }
        let Some(counted) = self.routes.get_mut(route) else { return };
        let (count, reason) = (metric.get_counter().get_value() as u64, label(metric, "reason"));
        counted.total += count;
        counted.failed += if is_failed(metric) { count } else { 0 };
        if !reason.is_empty() {
            *counted.reasons.entry(reason.to_owned()).or_default() += count;
        }
    }

    fn connections(&mut self, metric: &Metric, count: u64) {
        let counted = entry(&mut self.carried, label(metric, "upstream"));
        counted.total += count;
        counted.failed += if label(metric, "reason").is_empty() { 0 } else { count };
    }

    fn retries(&mut self, metric: &Metric, count: u64) {
        let name = label(metric, "upstream");
        entry(&mut self.upstreams, name).retries += count;
        entry(&mut self.carried, name).retries += count;
    }

    fn retries_denied(&mut self, metric: &Metric, count: u64) {
        entry(&mut self.carried, label(metric, "upstream")).retries_denied += count;
    }

    fn limits(&mut self, metric: &Metric, count: u64) {
        let limit = self.limits.entry(label(metric, "limit").to_owned()).or_default();
        match label(metric, "decision") {
            "admitted" => limit.admitted += count,
            "refused" => limit.refused += count,
            "would_refuse" => limit.would_refuse += count,
            _ => limit.unavailable += count,
        }
    }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    map.entry(name.to_owned()).or_default()
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|label| label.name() == name).map(LabelPair::value).unwrap_or_default()
}

/// With a 5xx, or without an answer.
fn is_failed(metric: &Metric) -> bool {
    !label(metric, "code").starts_with(['1', '2', '3', '4'])
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts, Registry};

    use super::*;
    use crate::family::register;

    #[test]
    fn requests_are_counted_by_upstream_by_route_and_by_limit() {
        let registry = Registry::new();
        let family = |name: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, "x"), labels).unwrap())
        };
        let requests = family("lictor_upstream_requests_total", &["upstream", "route", "code", "reason"]);
        for (labels, count) in [
            (["users", "/a", "200", ""], 5),
            (["users", "/b", "404", ""], 2),
            (["users", "/b", "503", "breaker_open"], 3),
            (["users@v2", "/b", "200", ""], 10),
            (["copies", "/b", "200", ""], 1000),
            (["", "/b", "429", "rate_limited"], 4),
            (["", "/b", "401", "unauthenticated"], 1),
            (["", "", "404", "no_route"], 7),
        ] {
            requests.with_label_values(&labels).inc_by(count);
        }
        family("lictor_retries_total", &["upstream"]).with_label_values(&["users"]).inc();
        family("lictor_retries_denied_total", &["upstream", "reason"]).with_label_values(&["users", "budget"]).inc();
        let carried = family("lictor_tcp_connections_total", &["upstream", "reason"]);
        carried.with_label_values(&["bytes", ""]).inc_by(2);
        carried.with_label_values(&["bytes", "timeout"]).inc();
        let limits = family("lictor_limit_decisions_total", &["limit", "decision"]);
        for (decision, count) in [("admitted", 8), ("refused", 4), ("would_refuse", 2), ("unavailable", 1)] {
            limits.with_label_values(&["/b", decision]).inc_by(count);
        }
        let leads = |upstream: &str, route: &str| match route {
            "/b" => ["", "users", "users@v2"].contains(&upstream),
            "" => upstream.is_empty(),
            _ => false,
        };
        let tally = Tally::of(&registry.gather(), leads);
        assert_eq!(tally.upstreams["users"], Requests { total: 10, failed: 3, retries: 1 });
        assert_eq!(tally.carried["users"], Counted { total: 10, failed: 3, retries: 1, retries_denied: 1 });
        assert_eq!(tally.carried["bytes"], Counted { total: 3, failed: 1, ..Counted::default() });
        let reasons = |list: &[(&str, u64)]| list.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        let all = reasons(&[("breaker_open", 3), ("rate_limited", 4), ("unauthenticated", 1)]);
        assert_eq!(tally.routes["/b"], RouteCounted { total: 20, failed: 3, reasons: all });
        let lost = RouteCounted { total: 7, failed: 0, reasons: reasons(&[("no_route", 7)]) };
        assert_eq!((&tally.routes[""], tally.routes.len()), (&lost, 2));
        let said = LimitCounted { admitted: 8, refused: 4, would_refuse: 2, unavailable: 1 };
        assert_eq!(tally.limits["/b"], said);
    }
}
