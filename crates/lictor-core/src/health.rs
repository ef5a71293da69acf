//! One endpoint's health as this process has seen it: ejected after too many failures in a row, readmitted by time.
//!
//! Shared by all workers, carried over from mesh to mesh. A success costs one relaxed load.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::policy::EjectionPolicy;
use crate::track::Track;

/// An endpoint's state.
#[derive(Debug)]
pub struct EndpointHealth {
    epoch: Instant,
    consecutive: AtomicU32,
    /// Ejections that still count towards the length of the next.
    ejections: AtomicU32,
    /// Microseconds since `epoch`; 0: never.
    ejected_until: AtomicU64,
    failed_at: AtomicU64,
    draining_until: AtomicU64,
    resting_until: AtomicU64,
    /// No earlier than any of these three, so that a look at one is enough while all is well.
    away_until: AtomicU64,
    /// When a connection to it failed last.
    unreachable_at: AtomicU64,
    /// What became of the attempts at it.
    pub track: Track,
}

/// The longest rest that is given on an endpoint's own word (`Retry-After`).
const LONGEST_REST: Duration = Duration::from_secs(60);

impl EndpointHealth {
    /// Healthy.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            consecutive: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            draining_until: AtomicU64::new(0),
            resting_until: AtomicU64::new(0),
            away_until: AtomicU64::new(0),
            unreachable_at: AtomicU64::new(0),
            track: Track::default(),
        }
    }

    /// Whether it is ejected, stopping or resting.
    #[inline]
    pub fn is_away(&self, now: Instant) -> bool {
        let until = self.away_until.load(Relaxed);
        until != 0
            && until > self.micros(now)
            && (self.is_ejected(now) || self.is_draining(now) || self.is_resting(now))
    }

    /// Whether it failed too often, and is left alone for it.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && until > self.micros(now)
    }

    /// How long the rest still is.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let left = self.ejected_until.load(Relaxed).saturating_sub(self.micros(now));
        (left > 0).then(|| Duration::from_micros(left))
    }

    /// An attempt went well.
    pub fn succeeded(&self) {
        if self.consecutive.load(Relaxed) != 0 {
            self.consecutive.store(0, Relaxed);
        }
    }

    /// An attempt failed. True when that is one too many: the caller asks [`crate::ejection::may_eject`] and then ejects.
    pub fn failed(&self, policy: &EjectionPolicy, now: Instant) -> bool {
        self.failed_at.store(self.micros(now).max(1), Relaxed);
        let failures = self.consecutive.fetch_add(1, Relaxed) + 1;
        policy.consecutive != 0 && failures >= policy.consecutive && !self.is_ejected(now)
    }

    /// Gives it a rest: `base`, twice as long with each further ejection, at most `max`. The count is forgotten after
    /// a quiet time of ten times the longest rest.
    pub fn eject(&self, policy: &EjectionPolicy, now: Instant) -> Duration {
        let now_micros = self.micros(now);
        let since = now_micros.saturating_sub(self.ejected_until.load(Relaxed));
        let is_long_ago = Duration::from_micros(since) > policy.max * 10;
        let earlier = if is_long_ago { 0 } else { self.ejections.load(Relaxed) };
        let rest = policy.base.saturating_mul(1 << earlier.min(20)).min(policy.max);
        self.ejections.store(earlier + 1, Relaxed);
        self.consecutive.store(0, Relaxed);
        let until = (now_micros + rest.as_micros() as u64).max(1);
        self.ejected_until.store(until, Relaxed);
        self.away_until.fetch_max(until, Relaxed);
        rest
    }

    /// Ends the rest.
    pub fn readmit(&self) {
        self.ejected_until.store(0, Relaxed);
        self.consecutive.store(0, Relaxed);
    }

    /// Whether an attempt has failed in this time.
    pub fn has_failed_within(&self, time: Duration, now: Instant) -> bool {
        self.failed_ago(now).is_some_and(|ago| ago < time)
    }

    /// How long ago the last attempt failed.
    pub fn failed_ago(&self, now: Instant) -> Option<Duration> {
        let at = self.failed_at.load(Relaxed);
        (at != 0).then(|| Duration::from_micros(self.micros(now).saturating_sub(at)))
    }

    /// Ejections that still count.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// Failures in a row.
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive.load(Relaxed)
    }

    /// A connection to it failed.
    pub fn unreachable(&self, now: Instant) {
        self.unreachable_at.store(self.micros(now).max(1), Relaxed);
    }

    /// Whether a connection to it has failed since then.
    pub fn was_unreachable_since(&self, then: Instant) -> bool {
        let at = self.unreachable_at.load(Relaxed);
        at != 0 && at >= self.micros(then)
    }

    /// It said that it is stopping: leave it alone until then.
    pub fn drain(&self, until: Instant) {
        let until = self.micros(until).max(1);
        self.draining_until.store(until, Relaxed);
        self.away_until.fetch_max(until, Relaxed);
    }

    /// Whether it is stopping.
    pub fn is_draining(&self, now: Instant) -> bool {
        let until = self.draining_until.load(Relaxed);
        until != 0 && until > self.micros(now)
    }

    /// It asked for a rest: while others have room they are asked instead. At most a minute, whatever it says.
    pub fn rest(&self, lasts: Duration, now: Instant) {
        let until = self.micros(now + lasts.min(LONGEST_REST)).max(1);
        self.resting_until.fetch_max(until, Relaxed);
        self.away_until.fetch_max(until, Relaxed);
    }

    /// Whether it is having the rest that it asked for.
    pub fn is_resting(&self, now: Instant) -> bool {
        let until = self.resting_until.load(Relaxed);
        until != 0 && until > self.micros(now)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_between_starts_over() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
        let health = EndpointHealth::new(now);
        assert!((0..4).all(|_| !health.failed(&policy, now)));
        health.succeeded();
        assert!((0..4).all(|_| !health.failed(&policy, now)));
        assert!(health.failed(&policy, now));
    }

    #[test]
    fn each_rest_is_twice_as_long_up_to_the_longest() {
        let (policy, mut now) = (EjectionPolicy::default(), Instant::now());
        let health = EndpointHealth::new(now);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let rest = health.eject(&policy, now);
            assert_eq!(rest, Duration::from_secs(expected));
            assert!(health.is_ejected(now) && !health.is_ejected(now + rest));
            now += rest;
        }
        assert_eq!(health.eject(&policy, now + Duration::from_secs(3600)), policy.base);
    }
}
