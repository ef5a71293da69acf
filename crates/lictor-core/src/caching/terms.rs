//! How old an answer is, how long it may be used, and what may happen afterwards (RFC 9111, section 4.2).

use std::time::{Duration, Instant, SystemTime};

use http::header::{DATE, EXPIRES};
use http::{HeaderMap, StatusCode};

use super::dates::{self, Date};
use super::directives::{Asked, Told};

/// When an answer was asked for, and when its head came.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged {
    /// `request_time` (section 4.2.3).
    pub asked: Instant,
    /// `response_time`.
    pub answered: Instant,
    /// The same by the calendar.
    pub date: SystemTime,
}

/// What a cache is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeper {
    /// The life of an answer with status 200 that tells none (section 4.2.2, "heuristic").
    pub ttl: Duration,
    /// For so long past its life an answer may stand in for a failure (section 4.2.4).
    pub stale: Option<Duration>,
}

/// Whether an answer may be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is fresh enough for this client.
    Fresh,
    /// Its life is over, and the client takes that (`max-stale`).
    Stale,
    /// Only once the upstream has confirmed it.
    Validate {
        /// While another request asks for that, it may be used as it is (RFC 5861, section 3).
        meanwhile: bool,
    },
}

/// What is known of an answer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// `freshness_lifetime` as the answer tells it; without, the cache's own counts.
    told: Option<Duration>,
    /// The cache's own life may be given to it.
    takes_ttl: bool,
    /// It may not be used for longer than the cache's own life: a shared cache has no more right to it.
    is_capped: bool,
    /// `corrected_initial_age`.
    age: Duration,
    /// The same without what the exchange took.
    sent_age: Duration,
    /// `age_value`.
    age_value: Duration,
    arrived: Instant,
    needs_validation: bool,
    may_be_stale: bool,
    while_revalidate: Duration,
    if_error: Duration,
}

impl Terms {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, told: &Told, is_capped: bool, when: &Exchanged) -> Self {
        let date = Date::of(headers, &DATE).known().unwrap_or(when.date);
        let age_value = dates::age(headers);
        let apparent = when.date.duration_since(date).unwrap_or_default();
        let delay = when.answered.saturating_duration_since(when.asked);
        let life = lifetime(headers, told, date);
        Self {
            told: life,
            takes_ttl: life.is_none() && status == StatusCode::OK,
            is_capped,
            age: apparent.max(age_value.saturating_add(delay)),
            sent_age: apparent.max(age_value),
            age_value,
            arrived: when.answered,
            needs_validation: told.no_cache,
            // What never lives is never to be used without asking, whatever happens.
            may_be_stale: !told.forbids_stale() && life != Some(Duration::ZERO),
            while_revalidate: told.stale_while_revalidate,
            if_error: told.stale_if_error,
        }
    }

    /// `freshness_lifetime`, where the cache gives `ttl` to what does not tell its own.
    fn lifetime(&self, ttl: Duration) -> Duration {
        match self.told {
            Some(told) if self.is_capped => told.min(ttl),
            Some(told) => told,
            None if self.takes_ttl => ttl,
            None => Duration::ZERO,
        }
    }

    /// `current_age` (section 4.2.3).
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.arrived))
    }

    /// The age that its life is measured by: where the life is the cache's own, it begins with the answer's arrival.
    fn measured(&self, now: Instant) -> Duration {
        if self.told.is_some() && !self.is_capped {
            return self.age(now);
        }
        let since = self.age_value.saturating_add(now.saturating_duration_since(self.arrived));
        if self.told.is_some() { since.max(self.age(now)) } else { since }
    }

    /// How much is left of its life, and how long that has been over.
    pub(super) fn left(&self, ttl: Duration, now: Instant) -> (Duration, Duration) {
        let (lifetime, age) = (self.lifetime(ttl), self.measured(now));
        (lifetime.saturating_sub(age), age.saturating_sub(lifetime))
    }

    pub(super) fn usable(&self, asked: &Asked, ttl: Duration, now: Instant) -> Use {
        self.decide(asked, self.lifetime(ttl), self.measured(now), self.age(now))
    }

    /// Whether equal requests that waited for it may have it (section 4): it came to all of them at once, so that what
    /// the exchange took does not count.
    pub(super) fn is_shared(&self, asked: &Asked, ttl: Duration) -> bool {
        self.decide(asked, self.lifetime(ttl), self.measured_as_sent(), self.sent_age) == Use::Fresh
    }

    fn measured_as_sent(&self) -> Duration {
        if self.told.is_some() { self.sent_age } else { self.age_value }
    }

    fn decide(&self, asked: &Asked, lifetime: Duration, measured: Duration, age: Duration) -> Use {
        let is_too_old = asked.max_age.is_some_and(|most| most.is_zero() || age > most);
        if self.needs_validation || asked.no_cache || is_too_old {
            return Use::Validate { meanwhile: false };
        }
        if lifetime > measured {
            let is_fresh_enough = asked.min_fresh.is_none_or(|wanted| lifetime.saturating_sub(measured) >= wanted);
            return if is_fresh_enough { Use::Fresh } else { Use::Validate { meanwhile: false } };
        }
        let over = measured.saturating_sub(lifetime);
        let may_be_stale = self.may_be_stale && asked.min_fresh.is_none();
        if may_be_stale && asked.max_stale.is_some_and(|most| over <= most) {
            return Use::Stale;
        }
        Use::Validate { meanwhile: may_be_stale && asked.max_age.is_none() && over < self.while_revalidate }
    }

    /// Whether it may stand in for a failure: for `most` past its life, or for as long as it says itself (RFC 5861,
    /// section 4), unless it or the client forbids that.
    pub(super) fn usable_instead(&self, asked: &Asked, keeper: &Keeper, now: Instant) -> bool {
        let (_, over) = self.left(keeper.ttl, now);
        let is_wanted = !asked.no_cache && asked.max_age.is_none() && asked.min_fresh.is_none();
        self.may_be_stale && is_wanted && over < keeper.stale.unwrap_or_default().max(self.if_error)
    }

    /// Whether there is, or will be, a moment at which it may be used as it is.
    pub(super) fn is_of_use(&self, keeper: &Keeper) -> bool {
        let stands_in = self.may_be_stale && !keeper.stale.unwrap_or_default().max(self.if_error).is_zero();
        stands_in || (!self.needs_validation && self.lifetime(keeper.ttl) > self.measured_as_sent())
    }
}

/// `freshness_lifetime` (section 4.2.1): for shared caches, then for all, then by dates. What cannot be understood has
/// none.
fn lifetime(headers: &HeaderMap, told: &Told, date: SystemTime) -> Option<Duration> {
    let told = told.s_maxage.or(told.max_age);
    told.or_else(|| match Date::of(headers, &EXPIRES) {
        Date::Absent => None,
        Date::Unclear => Some(Duration::ZERO),
        Date::At(expires) => Some(expires.duration_since(date).unwrap_or_default()),
    })
}
