//! What opened a breaker: the last requests that counted against it, kept from when it opened until it opens again.
//!
//! They are noted as they fail, so nothing of it is on the path of a request that goes well.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use crate::address::Address;

/// So many are kept.
pub(super) const BLAMED: usize = 8;

/// A request that counted against a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blame {
    /// `X-Request-ID`, for `lictor explain`; a connection that is carried as bytes has none.
    pub request_id: Option<Box<str>>,
    /// The id of the endpoint that it was sent to last.
    pub endpoint: Option<Arc<str>>,
    /// What was dialled.
    pub address: Option<Address>,
    /// A status, gRPC's as `grpc 14`, a reason, or `slow_call`.
    pub outcome: Box<str>,
    /// When it ended.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: SystemTime,
}

/// Those of late, the oldest first.
pub(super) type Blamed = VecDeque<(Instant, Blame)>;

/// A time that it was not closed.
#[derive(Debug)]
pub(super) struct Opening {
    at: Instant,
    closed: Option<Instant>,
    cause: &'static str,
    failures: Arc<[Blame]>,
    probes_failed: u32,
    last_probe: Option<Arc<Blame>>,
}

/// The last time that it opened by itself, for a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpeningView {
    /// How long ago it opened.
    pub ago_ms: u64,
    /// How long it was until it closed; `None`: it has not.
    pub lasted_ms: Option<u64>,
    /// Why it opened.
    pub cause: &'static str,
    /// What led to it, the oldest first: the last 8 at most.
    pub failures: Arc<[Blame]>,
    /// Probes that failed since.
    pub probes_failed: u32,
    /// The last of those.
    pub last_probe: Option<Arc<Blame>>,
}

impl Opening {
    /// Of those that are blamed, the last that were in a row or within the window have led to it.
    pub(super) fn new(cause: &'static str, blamed: &Blamed, in_a_row: u32, window: Duration, now: Instant) -> Self {
        let lately = blamed.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= window).count();
        let led = lately.max(in_a_row as usize).min(blamed.len());
        let failures = blamed.iter().skip(blamed.len() - led).map(|(_, blame)| blame.clone()).collect();
        Self { at: now, closed: None, cause, failures, probes_failed: 0, last_probe: None }
    }

    /// It is open again without having been closed.
    pub(super) fn again(&mut self, probe: Option<&(Instant, Blame)>) {
        self.probes_failed += 1;
        self.last_probe = probe.map(|(_, blame)| Arc::new(blame.clone()));
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some()
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.closed.get_or_insert(now);
    }

    pub(super) fn view(&self, now: Instant) -> OpeningView {
        let millis = |from: Instant, to: Instant| to.saturating_duration_since(from).as_millis() as u64;
        OpeningView {
            ago_ms: millis(self.at, now),
            lasted_ms: self.closed.map(|closed| millis(self.at, closed)),
            cause: self.cause,
            failures: Arc::clone(&self.failures),
            probes_failed: self.probes_failed,
            last_probe: self.last_probe.clone(),
        }
    }
}

impl OpeningView {
    /// `503 of users-1 (request 0192f3c1), connect_refused of users-2 (request 0192f3c2)`; `None` while nothing is known.
    pub fn led(&self) -> Option<String> {
        let mut words = String::new();
        for blame in &*self.failures {
            let separator = if words.is_empty() { "" } else { ", " };
            let of = blame.endpoint.as_deref().map(|id| format!(" of {id}")).unwrap_or_default();
            let request = blame.request_id.as_deref().map(|id| format!(" (request {id})")).unwrap_or_default();
            write!(words, "{separator}{}{of}{request}", blame.outcome).expect("writing to a string cannot fail");
        }
        (!words.is_empty()).then_some(words)
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
