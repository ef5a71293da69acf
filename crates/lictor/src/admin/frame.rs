//! What the dashboard and `lictor top` show of one moment: the pages `/upstreams`, `/endpoints`, `/breakers` and
//! `/consul` in one, with what the counters grew by since the moment before, as rates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use lictor_core::Mesh;
use lictor_core::gateway::maintenance::State;
use lictor_core::plain;
use lictor_core::story::{Refusals, Story};
use lictor_proxy::quantile;
use serde_json::{Value as Json, json};
use tokio::time::{MissedTickBehavior, interval};

use super::gateway::{Asked, Labels, Moment};
use super::live::{Frame, Looking};
use super::standing::Facts;
use super::state::Admin;
use super::{pages, requests};
use crate::metrics::{Counted, Process, added};
use crate::version;

const EVERY: Duration = Duration::from_secs(1);
/// Kinds of failures in a frame; `/requests` has more.
const FAILURES: usize = 30;

/// The counters at one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    cpu_seconds: f64,
    counted: BTreeMap<String, Counted>,
    latencies: BTreeMap<String, Vec<u64>>,
    gateway: Moment,
}

/// Frames for one more; `None` when too many look already.
pub(super) fn look(admin: &Arc<Admin>) -> Option<Looking> {
    admin.live.look(|| drop(tokio::spawn(run(Arc::clone(admin)))))
}

/// Until nobody looks any more.
async fn run(admin: Arc<Admin>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Sample> = None;
    loop {
        ticks.tick().await;
        let mesh = admin.mesh();
        let labels = Labels::of(mesh.gateway.as_deref());
        let mut now = Sample::take(&admin, &labels);
        let mut json = frame(&admin, &mesh, before.as_ref(), &now).await;
        if let Some(gateway) = &mesh.gateway {
            let (plane, orders, at) = (&admin.plane, mesh.orders(), SystemTime::now());
            let asked = Asked {
                latencies: &|label| plane.route_latencies(label),
                taken: &|limit, label| plane.limit_taken(limit, label),
                maintenance: &|route| State::of(route, &orders, at),
            };
            let earlier = before.as_ref().map(|before| (&before.gateway, now.since(before)));
            json["gateway"] = now.gateway.frame(gateway, &labels, earlier, &asked);
        }
        let has_rates = before.replace(now).is_some();
        if !admin.live.show(Frame { json: plain::lines(&json.to_string()).into_owned().into(), has_rates }) {
            return;
        }
    }
}

impl Sample {
    fn take(admin: &Admin, labels: &Labels<'_>) -> Self {
        let mut tally = admin.scrape.tally(|upstream, route| labels.lead(upstream, route));
        Self {
            at: Instant::now(),
            cpu_seconds: Process::read().cpu_seconds,
            gateway: Moment::new(&mut tally),
            counted: tally.carried,
            latencies: admin.plane.latencies(),
        }
    }

    /// Seconds between the two.
    fn since(&self, before: &Self) -> f64 {
        self.at.duration_since(before.at).as_secs_f64()
    }
}

/// Everything, now.
async fn frame(admin: &Admin, mesh: &Mesh, before: Option<&Sample>, now: &Sample) -> Json {
    let report = admin.plane.report().await;
    let consul = admin.handle.status().standing();
    let (mut upstreams, breakers) = (pages::upstreams(mesh, &report), pages::breakers(mesh));
    let endpoints = pages::endpoints(mesh, &report, &consul, None);
    let upstreams = mesh.upstreams.iter().map(|(name, upstream)| {
        let name = name.as_ref();
        let (mut page, traffic) = (upstreams[name].take(), traffic(name, before, now));
        let measured = ["error_ratio", "retries"].map(|key| traffic[key].as_f64());
        let (level, word) = Facts::of(upstream, now.at).measured(measured[0], measured[1]).word();
        page["name"] = json!(name);
        page["verdict"] = json!({ "level": level.as_str(), "word": word });
        page["breaker"] = breakers[name].clone();
        page["max_in_flight"] = json!(upstream.policy.limits.max_in_flight);
        page["census"] = endpoints[name]["census"].clone();
        page["endpoints"] = endpoints[name]["endpoints"].clone();
        page["traffic"] = traffic;
        page
    });
    let upstreams: Vec<Json> = upstreams.collect();
    let inbound = mesh.inbound.as_ref().map(|inbound| {
        json!({
            "in_flight": inbound.app.in_flight.running(),
            "connections": inbound.app.in_flight.connections(),
            "traffic": traffic(&inbound.app.name, before, now),
        })
    });
    let stories = admin.plane.stories();
    let failures: Vec<&Story> = stories.iter().filter(|story| story.is_failure()).map(Arc::as_ref).collect();
    json!({
        "at": pages::now(),
        "interval_ms": before.map(|before| now.since(before) * 1e3),
        "lictor": process(before, now),
        "service": service(admin, mesh),
        "inbound": inbound,
        "upstreams": upstreams,
        "consul": consul,
        "failures": {
            "kept": failures.len(),
            "latest": latest(&failures, &admin.plane.refusals()),
        },
    })
}

/// The newest of each kind of failure, and how many there are: an open breaker's do not hide what opened it.
fn latest(failures: &[&Story], refusals: &[Refusals]) -> Vec<Json> {
    let is_alike = |a: &Story, b: &Story| {
        let is_same = (a.status, a.reason, &a.upstream) == (b.status, b.reason, &b.upstream);
        let is_unsent = (a.is_unsent(), b.is_unsent());
        is_same
            && (is_unsent == (true, true)
                || is_unsent == (false, false) && (&a.method, &a.path) == (&b.method, &b.path))
    };
    // Of those that were not sent, more were counted than are kept.
    let counted = |story: &Story| {
        let mut all = refusals.iter().filter(|_| story.is_unsent());
        all.find(|known| (&known.last.upstream, known.last.reason) == (&story.upstream, story.reason))
            .map(|it| it.count)
    };
    let mut kinds: Vec<(&Story, u64)> = Vec::new();
    for story in failures {
        match kinds.iter().position(|(known, _)| is_alike(known, story)) {
            Some(at) => kinds[at].1 += 1,
            None if kinds.len() < FAILURES => kinds.push((story, 1)),
            None => (),
        }
    }
    let line = |(story, times): (&Story, u64)| {
        let mut line = requests::line(story);
        line["times"] = json!(counted(story).unwrap_or(times));
        line
    };
    kinds.into_iter().map(line).collect()
}

fn process(before: Option<&Sample>, now: &Sample) -> Json {
    json!({
        "version": version::NUMBER,
        "resident_bytes": Process::read().resident_bytes,
        "cpu": before.map(|before| (now.cpu_seconds - before.cpu_seconds) / now.since(before)),
    })
}

/// Who we are, and whether we may be called.
fn service(admin: &Admin, mesh: &Mesh) -> Json {
    let (is_started, is_draining) = (admin.is_started.load(Relaxed), admin.is_draining.load(Relaxed));
    let (is_ready, page) = pages::ready(mesh, admin.handle.app().as_ref(), is_started, is_draining);
    let state = match (is_ready, is_draining, is_started) {
        (true, ..) => "ready",
        (_, true, _) => "draining",
        (_, _, false) => "starting",
        _ => "not_ready",
    };
    json!({ "name": mesh.local.service, "instance": mesh.local.instance, "state": state, "checks": page["checks"] })
}

/// Rates since the moment before, and totals since the start. There are no rates without a moment before, and no
/// latencies without a request since.
fn traffic(name: &str, before: Option<&Sample>, now: &Sample) -> Json {
    let counted = now.counted.get(name).copied().unwrap_or_default();
    let mut page = json!({ "total": counted });
    let Some(before) = before else { return page };
    let grown = counted.since(before.counted.get(name).copied().unwrap_or_default());
    let seconds = now.since(before);
    let rate = |count: u64| count as f64 / seconds;
    page["rate"] = json!(rate(grown.total));
    page["errors"] = json!(rate(grown.failed));
    page["error_ratio"] = json!((grown.total > 0).then(|| grown.failed as f64 / grown.total as f64));
    page["retries"] = json!(rate(grown.retries));
    page["retries_denied"] = json!(rate(grown.retries_denied));
    let took = added(before.latencies.get(name), now.latencies.get(name));
    for (key, share) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
        page[key] = json!(quantile(&took, share));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lictor_core::Reason;
    use lictor_core::story::Kept;

    use super::*;

    fn sample(at: Instant, counted: Counted, latencies: &[u64]) -> Sample {
        let (counted, latencies) = ([("users".to_owned(), counted)].into(), [("users".to_owned(), latencies.to_vec())]);
        Sample { at, cpu_seconds: 0.0, counted, latencies: latencies.into(), gateway: Moment::default() }
    }

    #[test]
    fn rates_are_what_the_counters_grew_by_in_a_second() {
        let (at, mut counts) = (Instant::now(), [0; 160]);
        counts[32] = 100;
        let before = sample(at, Counted { total: 100, failed: 10, ..Counted::default() }, &counts);
        counts[40] = 50;
        let counted = Counted { total: 150, failed: 20, retries: 5, ..Counted::default() };
        let now = sample(at + Duration::from_millis(500), counted, &counts);
        let page = traffic("users", Some(&before), &now);
        assert_eq!((page["rate"].as_f64(), page["errors"].as_f64()), (Some(100.0), Some(20.0)));
        assert_eq!((page["error_ratio"].as_f64(), page["retries"].as_f64()), (Some(0.2), Some(10.0)));
        assert_eq!(page["total"]["total"], 150);
        assert_eq!(page["p50_ms"].as_f64(), quantile(&[[0; 40].as_slice(), &[1]].concat(), 0.5));
    }

    #[test]
    fn failures_of_a_kind_are_one_line() {
        let story = |id: &str, status| Story { status, path: "/".into(), ..Story::empty(id, Kept::Failed) };
        let open = |id: &str, path: &str| Story {
            reason: Some(Reason::BreakerOpen),
            path: path.into(),
            ..Story::empty(id, Kept::Failed)
        };
        let stories = [open("e", "/e"), open("d", "/d"), story("c", 503), story("b", 503), story("a", 500)];
        let [first, last] = ["d", "e"].map(|id| Arc::new(open(id, "/")));
        let lines = latest(&stories.iter().collect::<Vec<_>>(), &[Refusals { count: 70, first, last }]);
        let told: Vec<_> = lines.iter().map(|line| (line["id"].as_str(), line["times"].as_u64())).collect();
        assert_eq!(told, [(Some("e"), Some(70)), (Some("c"), Some(2)), (Some("a"), Some(1))]);
    }

    #[test]
    fn without_requests_there_is_no_ratio_and_no_latency() {
        let before = sample(Instant::now(), Counted::default(), &[]);
        let now = sample(before.at + Duration::from_secs(1), Counted::default(), &[0; 160]);
        let page = traffic("users", Some(&before), &now);
        assert_eq!(page["rate"].as_f64(), Some(0.0));
        assert!(page["error_ratio"].is_null() && page["p50_ms"].is_null(), "{page}");
        assert!(traffic("users", None, &now)["rate"].is_null());
    }
}
