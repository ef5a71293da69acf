//! Limits on rates, as this process counts them: for all its workers, in a room of fixed size.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use lictor_core::limit::{Decision, Facts, Limit, Mode, Part, Quota, Share, State, Table};
use parking_lot::Mutex;

/// Limits that have somebody without a place of his own, until those nobody asks for leave.
const CROWDED_MAX: usize = 1024;

/// What this process counts.
#[derive(Debug)]
pub(crate) struct Limiter {
    table: Table,
    /// Another one for each process: nobody can look for keys that share a place.
    secret: RandomState,
    /// Times are told from here.
    epoch: Instant,
    /// What all keys of a limit share that have no place of their own.
    crowded: Mutex<HashMap<Arc<str>, State>>,
    share: Share,
}

/// A key of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Limiter {
    pub(crate) fn key(&self, limit: &Limit, facts: &Facts<'_>) -> Key {
        Key(limit.digest(facts, &self.secret))
    }

    /// Of somebody's failed tries to show who he is.
    pub(crate) fn key_of_failures(&self, limit: &Limit, ip: Option<IpAddr>) -> Key {
        Key(limit.digest_of_failures(ip, &self.secret))
    }

    /// What [`Limiter::take`] would say of a key with a place.
    pub(crate) fn look(&self, limit: &Limit, key: Key, now: Instant) -> Option<Decision> {
        let (quota, now) = (self.quota(limit), self.nanos(now));
        self.table.with(key.0, now, |state| quota.look(state, now))
    }

    /// How much is taken, 0 to 1, of a limit that all requests of a route share; `None` where each client has his own, or
    /// Redis counts.
    pub(crate) fn taken(&self, limit: &Limit, route: &str, now: Instant) -> Option<f64> {
        if limit.mode == Mode::Redis || limit.by.iter().any(|part| *part != Part::Route) {
            return None;
        }
        let headers = HeaderMap::new();
        let facts = Facts { route: Some(route), ip: None, user: None, key: None, headers: &headers, claim: &|_| None };
        let next = self.look(limit, self.key(limit, &facts), now)?;
        let left = next.remaining + u32::from(next.is_admitted);
        Some(1.0 - f64::from(left) / f64::from(next.limit.max(1)))
    }

    /// Takes one, if there is one; and whether the key had no place, and shared one.
    pub(crate) fn take(&self, limit: &Limit, key: Key, now: Instant) -> (Decision, bool) {
        let (quota, now) = (self.quota(limit), self.nanos(now));
        if let Some(decision) = self.table.with(key.0, now, |state| quota.take(state, now)) {
            return (decision, false);
        }
        let mut crowded = self.crowded.lock();
        if crowded.len() >= CROWDED_MAX {
            crowded.retain(|_, state| !state.is_as_new(now));
        }
        (quota.take(crowded.entry(Arc::clone(&limit.id.text)).or_default(), now), true)
    }

    /// Gives back what was taken for a request that another limit refused.
    pub(crate) fn give_back(&self, limit: &Limit, key: Key, now: Instant) {
        let (quota, now) = (self.quota(limit), self.nanos(now));
        self.table.with(key.0, now, |state| quota.give_back(state, now));
    }

    /// So many gateways are seen now.
    pub(crate) fn observe(&self, gateways: u32, now: Instant) {
        self.share.observe(gateways, self.nanos(now));
    }

    /// What limits that are shared are divided by.
    pub(crate) fn parts(&self) -> u32 {
        self.share.parts()
    }

    fn quota(&self, limit: &Limit) -> Quota {
        match limit.mode {
            Mode::Local | Mode::Redis => limit.quota,
            Mode::Shared => limit.quota.divided_by(self.share.parts()),
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64 + 1
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            table: Table::new(),
            secret: RandomState::new(),
            epoch: Instant::now(),
            crowded: Mutex::default(),
            share: Share::default(),
        }
    }
}
