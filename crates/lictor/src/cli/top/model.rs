//! What `lictor top` knows: the latest frame of `/ui/live`, some history of each upstream, and what the person chose.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde::Deserialize;

use crate::term::rank;

/// Seconds of history: as many as a wide terminal has columns.
const KEPT: usize = 240;

/// One moment; `/ui/data` has more than this.
#[derive(Debug, Deserialize)]
pub(super) struct Frame {
    pub(super) at: String,
    pub(super) interval_ms: Option<f64>,
    pub(super) service: Service,
    pub(super) lictor: Process,
    pub(super) inbound: Option<Inbound>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) consul: Consul,
    pub(super) failures: Failures,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Process {
    pub(super) version: String,
    pub(super) resident_bytes: u64,
    pub(super) cpu: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Inbound {
    pub(super) in_flight: u64,
    pub(super) traffic: Traffic,
}

#[derive(Debug, Deserialize)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) protocol: String,
    pub(super) verdict: Verdict,
    pub(super) traffic: Traffic,
    pub(super) breaker: Breaker,
    pub(super) retry_budget_remaining: Option<f64>,
    pub(super) in_flight: u64,
    pub(super) max_in_flight: u64,
    pub(super) pending: u64,
    pub(super) connections: u64,
    pub(super) endpoints: Vec<Endpoint>,
}

/// How bad it is, and why.
#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) word: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Good,
    Warn,
    Bad,
}

/// Of the last second; `None` where there was nothing to compare with, or no request.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Traffic {
    pub(super) rate: Option<f64>,
    pub(super) errors: Option<f64>,
    pub(super) error_ratio: Option<f64>,
    pub(super) retries: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Breaker {
    pub(super) state: String,
    pub(super) failures: u64,
    pub(super) next_probe_ms: Option<u64>,
    #[serde(default)]
    pub(super) last_opened: Option<Opened>,
}

/// The last time that it opened, and what led to it.
#[derive(Debug, Deserialize)]
pub(super) struct Opened {
    pub(super) ago_ms: u64,
    pub(super) lasted_ms: Option<u64>,
    pub(super) failures: Vec<Blame>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Blame {
    pub(super) request_id: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) outcome: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) recent: Recent,
    pub(super) live: Option<Live>,
}

/// Of the last minute.
#[derive(Debug, Deserialize)]
pub(super) struct Recent {
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) share: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) last_failure: Option<LastFailure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LastFailure {
    pub(super) ago_ms: f64,
    pub(super) cause: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Live {
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    pub(super) ejected_for_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Consul {
    pub(super) address: Option<String>,
    pub(super) up: Option<bool>,
    pub(super) registration: String,
    pub(super) watches: Vec<Watch>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Watch {
    pub(super) age_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failures {
    pub(super) kept: u64,
    pub(super) latest: Vec<Failure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) upstream: Option<String>,
    pub(super) status: u16,
    pub(super) reason: Option<String>,
    pub(super) took_ms: f64,
    /// Others like it.
    pub(super) times: u64,
}

/// What was before the first frame: `/history`.
#[derive(Debug, Deserialize)]
pub(super) struct History {
    upstreams: HashMap<String, Columns>,
}

#[derive(Debug, Deserialize)]
struct Columns {
    rate: Vec<f64>,
    errors: Vec<f64>,
    retries: Vec<f64>,
    p50_ms: Vec<Option<f64>>,
    p99_ms: Vec<Option<f64>>,
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) frame: Option<Frame>,
    past: HashMap<String, VecDeque<Traffic>>,
    /// When the last frame came, and why none comes.
    pub(super) heard: Option<Instant>,
    pub(super) trouble: Option<String>,
    pub(super) is_paused: bool,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) focus: Focus,
    /// Name and id: what is chosen stays chosen when the order changes.
    chosen: Option<String>,
    chosen_failure: Option<String>,
    pub(super) screen: Screen,
}

/// The list that the arrows move in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    #[default]
    Upstreams,
    Failures,
}

/// What is shown.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Screen {
    #[default]
    All,
    /// The chosen upstream alone, with all its endpoints.
    Upstream,
    /// A request's story and how far it is scrolled.
    Story(Vec<String>, usize),
    Help,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Worst,
    Rate,
    Latency,
}

impl Sort {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Worst => "worst",
            Self::Rate => "rate",
            Self::Latency => "p99",
        }
    }

    pub(super) fn next(self) -> Self {
        match self {
            Self::Name => Self::Worst,
            Self::Worst => Self::Rate,
            Self::Rate => Self::Latency,
            Self::Latency => Self::Name,
        }
    }
}

impl Upstream {
    /// Its endpoints, the worst first.
    pub(super) fn worst_first(&self) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = self.endpoints.iter().collect();
        all.sort_by_key(|endpoint| (rank(&endpoint.state), Reverse(endpoint.recent.failures)));
        all
    }
}

impl Model {
    /// A second is over.
    pub(super) fn take(&mut self, frame: Frame, now: Instant) {
        (self.heard, self.trouble) = (Some(now), None);
        if self.is_paused {
            return;
        }
        for upstream in frame.upstreams.iter().filter(|_| frame.interval_ms.is_some()) {
            let past = self.past.entry(upstream.name.clone()).or_default();
            if past.len() == KEPT {
                past.pop_front();
            }
            past.push_back(upstream.traffic);
        }
        if self.chosen.is_none() {
            let worst = frame.upstreams.iter().min_by_key(|it| Reverse(it.verdict.level));
            self.chosen = worst.map(|it| it.name.clone());
        }
        self.frame = Some(frame);
    }

    /// What was while nobody looked.
    pub(super) fn remember(&mut self, history: History) {
        let seconds = |it: Columns| {
            let row = |at: usize| Traffic {
                rate: it.rate.get(at).copied(),
                errors: it.errors.get(at).copied(),
                error_ratio: None,
                retries: it.retries.get(at).copied(),
                p50_ms: it.p50_ms.get(at).copied().flatten(),
                p99_ms: it.p99_ms.get(at).copied().flatten(),
            };
            (it.rate.len().saturating_sub(KEPT)..it.rate.len()).map(row).collect()
        };
        self.past = history.upstreams.into_iter().map(|(name, it)| (name, seconds(it))).collect();
    }

    /// Of an upstream, the oldest first.
    pub(super) fn past(&self, name: &str) -> impl DoubleEndedIterator<Item = &Traffic> {
        self.past.get(name).into_iter().flatten()
    }

    /// Those that the filter lets through, in the order that was asked for.
    pub(super) fn upstreams(&self) -> Vec<&Upstream> {
        let all = self.frame.iter().flat_map(|frame| &frame.upstreams);
        let mut shown: Vec<&Upstream> = all.filter(|upstream| self.takes(upstream)).collect();
        let most = |number: Option<f64>| Reverse((number.unwrap_or(-1.0) * 1e3) as i64);
        match self.sort {
            Sort::Name => (), // as they come
            Sort::Worst => shown.sort_by_key(|it| (Reverse(it.verdict.level), most(it.traffic.error_ratio))),
            Sort::Rate => shown.sort_by_key(|it| most(it.traffic.rate)),
            Sort::Latency => shown.sort_by_key(|it| most(it.traffic.p99_ms)),
        }
        shown
    }

    fn takes(&self, upstream: &Upstream) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.filter);
        let of_endpoint = |it: &Endpoint| has(&it.id) || has(&it.address) || has(&it.state);
        has(&upstream.name)
            || has(&upstream.service)
            || has(&upstream.verdict.word)
            || upstream.endpoints.iter().any(of_endpoint)
    }

    /// The newest first.
    pub(super) fn failures(&self) -> Vec<&Failure> {
        let has = |text: &str| text.to_lowercase().contains(&self.filter);
        let is_shown = |it: &&Failure| {
            has(&it.path)
                || it.upstream.as_deref().is_some_and(has)
                || it.reason.as_deref().is_some_and(has)
                || has(&it.status.to_string())
        };
        self.frame.iter().flat_map(|frame| &frame.failures.latest).filter(is_shown).collect()
    }

    pub(super) fn chosen(&self) -> Option<&Upstream> {
        let shown = self.upstreams();
        shown.iter().find(|it| Some(&it.name) == self.chosen.as_ref()).or(shown.first()).copied()
    }

    pub(super) fn chosen_failure(&self) -> Option<&Failure> {
        let shown = self.failures();
        shown.iter().find(|it| Some(&it.id) == self.chosen_failure.as_ref()).or(shown.first()).copied()
    }

    /// Up or down in the list that has the focus, or in a story.
    pub(super) fn step(&mut self, by: isize) {
        if let Screen::Story(lines, top) = &mut self.screen {
            *top = top.saturating_add_signed(by).min(lines.len().saturating_sub(1));
            return;
        }
        match self.focus {
            Focus::Upstreams => {
                let names: Vec<&String> = self.upstreams().iter().map(|it| &it.name).collect();
                let at = self.chosen().and_then(|chosen| names.iter().position(|name| **name == chosen.name));
                self.chosen = moved(&names, at, by);
            }
            Focus::Failures => {
                let ids: Vec<&String> = self.failures().iter().map(|it| &it.id).collect();
                let at = self.chosen_failure().and_then(|chosen| ids.iter().position(|id| **id == chosen.id));
                self.chosen_failure = moved(&ids, at, by);
            }
        }
    }
}

fn moved(all: &[&String], at: Option<usize>, by: isize) -> Option<String> {
    let to = at?.saturating_add_signed(by).min(all.len() - 1);
    Some(all[to].clone())
}
