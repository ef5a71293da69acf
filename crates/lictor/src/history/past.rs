//! Ten minutes of each upstream, second by second. An upstream takes room with its first request; an endpoint's part is in its
//! own track record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_core::outcome::Kind;
use lictor_core::track::STEP;
use lictor_core::{Endpoint, Mesh, Upstream};
use lictor_proxy::{Flowed, quantile};
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

/// Seconds that are kept: ten minutes.
const KEPT: u64 = 600;

/// Ten minutes, by upstream.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<BTreeMap<Arc<str>, Past>>);

/// Of one upstream.
#[derive(Debug)]
struct Past {
    /// The counts when they were last read, and when that was.
    before: Flowed,
    at: u64,
    /// When it was first read.
    first: u64,
    /// Each in its place, which is its number modulo [`KEPT`]. Empty before the first request.
    seconds: Vec<Second>,
}

/// What ended within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Second {
    total: u32,
    retries: u16,
    /// In the order of [`Kind::ALL`].
    failed: [u16; Kind::ALL.len()],
    /// Milliseconds; 0: nothing has a time.
    p50: f32,
    p99: f32,
}

impl History {
    /// A second is over.
    pub(super) fn note(&self, mesh: &Mesh, flowed: Vec<(Arc<str>, Flowed)>, second: u64) {
        let mut all = self.0.lock();
        for (name, now) in flowed {
            let past = all.entry(name).or_insert_with(|| Past::new(second));
            past.note(now, second);
        }
        let gone = all.iter_mut().filter(|(name, _)| !mesh.upstreams.contains_key(*name));
        gone.for_each(|(_, past)| past.seconds = Vec::new()); // its counts stay, should it come back
    }

    /// The last seconds of all, or of one and its endpoints.
    pub(crate) fn page(&self, mesh: &Mesh, only: Option<&str>, since: Duration) -> Json {
        let (all, seconds) = (self.0.lock(), since.as_secs().clamp(1, KEPT));
        let wanted = mesh.upstreams.iter().filter(|(name, _)| only.is_none_or(|only| only == name.as_ref()));
        let upstreams = wanted.map(|(name, upstream)| {
            let latest = all.get(name).map(|past| past.latest(seconds)).unwrap_or_default();
            let mut page = columns(&latest);
            if only.is_some() {
                page["endpoints"] = endpoints(upstream, seconds.div_ceil(STEP) as usize);
            }
            (name.to_string(), page)
        });
        let upstreams: Map<String, Json> = upstreams.collect();
        json!({ "step_ms": 1000, "upstreams": upstreams })
    }
}

/// By ten seconds; the last step is not over yet.
fn endpoints(upstream: &Upstream, steps: usize) -> Json {
    let page = |endpoint: &Arc<Endpoint>| {
        let steps = endpoint.health.track.steps(steps);
        let (requests, failures): (Vec<u32>, Vec<u32>) = steps.into_iter().unzip();
        json!({
            "id": endpoint.key.id,
            "address": endpoint.address,
            "step_ms": STEP * 1000,
            "requests": requests,
            "failures": failures,
        })
    };
    upstream.endpoints.iter().map(page).collect()
}

/// A list for each thing; of kinds of failures those that there were.
fn columns(seconds: &[Second]) -> Json {
    fn column<T: Into<Json>>(seconds: &[Second], pick: impl Fn(&Second) -> T) -> Json {
        seconds.iter().map(|second| pick(second).into()).collect()
    }
    let time = |ms: f32| (ms > 0.0).then(|| (f64::from(ms) * 1e3).round() / 1e3);
    let there = Kind::ALL.into_iter().filter(|kind| seconds.iter().any(|second| second.failed[*kind as usize] > 0));
    let failed_by: Map<String, Json> =
        there.map(|kind| (kind.as_str().to_owned(), column(seconds, |second| second.failed[kind as usize]))).collect();
    json!({
        "rate": column(seconds, |second| second.total),
        "errors": column(seconds, |second| second.failed.iter().map(|count| u32::from(*count)).sum::<u32>()),
        "failed_by": failed_by,
        "retries": column(seconds, |second| second.retries),
        "p50_ms": column(seconds, |second| time(second.p50)),
        "p99_ms": column(seconds, |second| time(second.p99)),
    })
}

impl Past {
    fn new(second: u64) -> Self {
        Self { before: Flowed::default(), at: second, first: second, seconds: Vec::new() }
    }

    fn note(&mut self, now: Flowed, second: u64) {
        let grown = now.since(&self.before);
        self.before = now;
        let is_first = self.seconds.is_empty();
        if is_first && grown.total() == 0 && grown.retries == 0 {
            self.first = second + 1;
            self.at = second;
            return;
        }
        if is_first {
            self.seconds = vec![Second::default(); KEPT as usize];
            (self.first, self.at) = (second, second);
        }
        for missed in (self.at + 1..=second).take(KEPT as usize) {
            self.seconds[(missed % KEPT) as usize] = Second::default();
        }
        self.at = second.max(self.at);
        self.seconds[(self.at % KEPT) as usize].add(&grown);
    }

    /// So many, the oldest first.
    fn latest(&self, most: u64) -> Vec<Second> {
        if self.seconds.is_empty() {
            return Vec::new();
        }
        let first = (self.at + 1).saturating_sub(most.min(KEPT)).max(self.first);
        (first..=self.at).map(|second| self.seconds[(second % KEPT) as usize]).collect()
    }
}

impl Second {
    fn add(&mut self, grown: &Flowed) {
        let short = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
        self.total = self.total.saturating_add(u32::try_from(grown.total()).unwrap_or(u32::MAX));
        self.retries = self.retries.saturating_add(short(grown.retries));
        for (failed, more) in self.failed.iter_mut().zip(grown.failed) {
            *failed = failed.saturating_add(short(more));
        }
        let time = |share: f64| quantile(&grown.times, share).map(|ms| ms as f32);
        (self.p50, self.p99) = (time(0.5).unwrap_or(self.p50), time(0.99).unwrap_or(self.p99));
    }
}

#[cfg(test)]
mod tests {
    use lictor_core::track::Track;

    use super::*;

    /// So many requests of 10 ms so far, of which some have timed out.
    fn flowed(total: u64, failed: u64) -> Flowed {
        let mut now = Flowed { times: vec![0; 160], ..Flowed::default() };
        now.times[60] = total;
        now.failed[Kind::Timeout as usize] = failed;
        now
    }

    fn latest(past: &Past, most: u64) -> Vec<(u32, u16)> {
        past.latest(most).iter().map(|second| (second.total, second.failed[Kind::Timeout as usize])).collect()
    }

    #[test]
    fn each_second_has_what_the_counts_grew_by() {
        let mut past = Past::new(5);
        past.note(flowed(0, 0), 5);
        assert!(past.seconds.is_empty() && past.latest(600).is_empty(), "no room before the first request");
        past.note(flowed(10, 1), 6);
        past.note(flowed(10, 1), 7);
        past.note(flowed(30, 2), 10);
        assert_eq!(latest(&past, 600), [(10, 1), (0, 0), (0, 0), (0, 0), (20, 1)], "two were missed");
        assert_eq!(latest(&past, 2), [(0, 0), (20, 1)]);
        let times: Vec<bool> = past.latest(2).iter().map(|second| second.p99 > 0.0).collect();
        assert_eq!(times, [false, true]);
    }

    #[test]
    fn ten_minutes_are_kept() {
        let mut past = Past::new(0);
        for second in 1..=2000 {
            past.note(flowed(second * 3, 0), second);
        }
        assert_eq!(latest(&past, 10_000), [(3, 0); KEPT as usize]);
        past.note(flowed(2000 * 3, 0), 10_000);
        assert_eq!(latest(&past, KEPT), [(0, 0); KEPT as usize], "a machine that slept has missed all of it");
    }

    #[test]
    fn columns_have_the_kinds_that_there_were() {
        let mut second = Second { total: 10, retries: 2, p50: 1.25, p99: 7.0, ..Second::default() };
        second.failed[Kind::Timeout as usize] = 3;
        let page = columns(&[Second::default(), second]);
        assert_eq!(
            page,
            json!({ "rate": [0, 10], "errors": [0, 3], "failed_by": { "timeout": [0, 3] }, "retries": [0, 2],
                "p50_ms": [null, 1.25], "p99_ms": [null, 7.0] })
        );
    }

    /// The bound for all that is kept of the past is 8 MiB; the rest is for events and stories.
    #[test]
    fn a_hundred_upstreams_and_a_thousand_endpoints_take_less_than_four_mebibytes() {
        let history = History::default();
        let mut all = history.0.lock();
        for number in 0..100 {
            let mut past = Past::new(0);
            past.note(flowed(10, 1), 1);
            all.insert(format!("upstream-{number}").into(), past);
        }
        let bytes = |past: &Past| {
            size_of::<Past>() + past.seconds.capacity() * size_of::<Second>() + past.before.times.capacity() * 8
        };
        let upstreams: usize = all.values().map(bytes).sum();
        let endpoints = 1000 * (size_of::<Track>() + Track::PAST);
        assert!(upstreams > 100 * 600 * 20, "they are there: {upstreams}");
        assert!(upstreams + endpoints < 4 << 20, "{upstreams} and {endpoints} bytes");
    }
}
