//! What becomes of an upstream's requests, for its history: how many there were, how long they took, how those that failed did.
//! Shared by the workers: a request costs what its time costs, and one that failed an addition more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lictor_core::Reason;
use lictor_core::outcome::Kind;
use prometheus::IntCounter;

use super::spread::Spread;

/// The counts of one upstream.
#[derive(Debug)]
pub(super) struct Flow {
    spread: Spread,
    /// Connections that were carried as bytes.
    carried: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
    retries: IntCounter,
}

/// What became of an upstream's requests so far.
#[derive(Clone, Debug, Default)]
pub struct Flowed {
    /// How many took how long, for [`crate::quantile`].
    pub times: Vec<u64>,
    /// Connections that were carried as bytes, which have no times.
    pub carried: u64,
    /// Those that ended with a 5xx or without an answer, in the order of [`Kind::ALL`].
    pub failed: [u64; Kind::ALL.len()],
    /// Attempts after the first.
    pub retries: u64,
}

impl Flowed {
    /// Requests and connections.
    pub fn total(&self) -> u64 {
        self.times.iter().sum::<u64>() + self.carried
    }

    /// What it grew by.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let times = before.times.iter().copied().chain(std::iter::repeat(0));
        Self {
            times: self.times.iter().zip(times).map(|(now, before)| now.saturating_sub(before)).collect(),
            carried: self.carried.saturating_sub(before.carried),
            failed: std::array::from_fn(|kind| self.failed[kind].saturating_sub(before.failed[kind])),
            retries: self.retries.saturating_sub(before.retries),
        }
    }
}

impl Flow {
    pub(super) fn new(retries: IntCounter) -> Self {
        let failed = [const { AtomicU64::new(0) }; Kind::ALL.len()];
        Self { spread: Spread::default(), carried: AtomicU64::new(0), failed, retries }
    }

    /// A request is over.
    pub(super) fn request(&self, took: Duration, status: u16, reason: Option<Reason>) {
        self.spread.count(took);
        if status >= 500 {
            self.fail(reason);
        }
    }

    /// A connection is over.
    pub(super) fn connection(&self, reason: Option<Reason>) {
        self.carried.fetch_add(1, Relaxed);
        if reason.is_some() {
            self.fail(reason);
        }
    }

    /// How many took how long.
    pub(super) fn times(&self) -> Vec<u64> {
        self.spread.counts()
    }

    pub(super) fn so_far(&self) -> Flowed {
        Flowed {
            times: self.times(),
            carried: self.carried.load(Relaxed),
            failed: std::array::from_fn(|kind| self.failed[kind].load(Relaxed)),
            retries: self.retries.get(),
        }
    }

    fn fail(&self, reason: Option<Reason>) {
        self.failed[Kind::of(reason) as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_connections_are_counted_and_their_failures_by_kind() {
        let retries = IntCounter::new("retries", "x").unwrap();
        let flow = Flow::new(retries.clone());
        let took = Duration::from_millis(1);
        for (status, reason) in [
            (200, None),
            (404, None),
            (499, Some(Reason::ClientGone)),
            (500, None),
            (504, Some(Reason::Timeout)),
            (503, Some(Reason::BreakerOpen)),
        ] {
            flow.request(took, status, reason);
        }
        flow.connection(None);
        flow.connection(Some(Reason::ConnectRefused));
        retries.inc_by(3);
        let so_far = flow.so_far();
        assert_eq!((so_far.times.iter().sum::<u64>(), so_far.carried, so_far.retries), (6, 2, 3));
        let failed = Kind::ALL.map(|kind| (kind.as_str(), so_far.failed[kind as usize]));
        assert_eq!(failed, [("answer", 1), ("connect", 1), ("timeout", 1), ("broken", 0), ("refused", 1)]);
    }
}
