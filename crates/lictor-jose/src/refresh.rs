//! When an issuer's keys are fetched, as a machine without a wire: who asks the network tells it what came of it, with the time.
//!
//! | when | what |
//! |---|---|
//! | at the start | at once; until the first answer there are no keys, unless some were remembered, and that is 503 |
//! | the last answer is older than its `max-age`, within [`MIN_AGE`] and [`MAX_AGE`] | again, at a random moment of the last fifth of it |
//! | a fetch failed, or had no key that can be used | again after a time that doubles from [`FIRST_WAIT`] to [`LAST_WAIT`], of which a random half; the keys from before stay |
//! | a token has a `kid` that no key has | at once, if the last time for that is [`COOLDOWN`] ago and no failure is being waited out |
//! | a fetch is on its way | never: there is one at a time; after [`PATIENCE`] it has failed |
//! | keys are stale for longer than `max_stale` | they are gone, and that is 503 |
//!
//! Tokens whose key is known never wait for any of this, and a flood of unknown `kid`s leaves nothing behind: what is kept is one moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::issuer::Keys;
use crate::key::KeySet;

/// The least time between fetches, whatever an answer says (`no-store` is no wish for a fetch a request).
pub const MIN_AGE: Duration = Duration::from_secs(60);
/// The longest.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// For an answer that does not say how long it is good.
pub const USUAL_AGE: Duration = Duration::from_secs(600);

/// How long an answer of this `max-age` is fresh.
pub fn in_force(age: Option<Duration>) -> Duration {
    age.unwrap_or(USUAL_AGE).clamp(MIN_AGE, MAX_AGE)
}
/// Between two fetches for unknown `kid`s.
pub const COOLDOWN: Duration = Duration::from_secs(30);
/// After the first failure.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// After many.
pub const LAST_WAIT: Duration = Duration::from_secs(60);
/// A fetch that says nothing for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Names one fetch; an answer of another one is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch, and tell what came of it with this ticket.
    Fetch(Ticket),
    /// Ask again then.
    Wait(Instant),
}

/// What came of a fetch.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Keys, of which at least one can be used, and how long they are good.
    Keys(Arc<KeySet>, Option<Duration>),
    /// They are what they were (304), and how long they are good.
    Unchanged(Option<Duration>),
    /// Nothing that can be used: no connection, another status, too long, no JSON, no usable key.
    Failed,
}

/// What becomes of a token whose `kid` no key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Fetch: a key may have come.
    Fetch(Ticket),
    /// A fetch is on its way already; its answer may have the key.
    Pending(Ticket),
    /// Keys are as new as they get for now: the token is refused.
    Refuse,
}

/// One issuer's keys, and when they are fetched.
#[derive(Debug)]
pub struct Refresh {
    /// How long keys are used after they should have been fetched again.
    max_stale: Duration,
    keys: Option<Held>,
    /// When to fetch next, apart from unknown `kid`s.
    due: Instant,
    flight: Option<(Ticket, Instant)>,
    failures: u32,
    tickets: u64,
    /// The last fetch for an unknown `kid`.
    missed: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    /// They are stale from then on.
    stale: Instant,
}

impl Refresh {
    /// Nothing is known, and the first fetch is due.
    pub fn new(max_stale: Duration, now: Instant) -> Self {
        Self { max_stale, keys: None, due: now, flight: None, failures: 0, tickets: 0, missed: None }
    }

    /// With keys from before the start, which were stale so long ago; the first fetch is due all the same.
    pub fn remembering(keys: Arc<KeySet>, stale_for: Duration, max_stale: Duration, now: Instant) -> Self {
        // A clock that began after that moment knows only that they are too old.
        let keys = now.checked_sub(stale_for).map(|stale| Held { keys, stale });
        Self { keys, ..Self::new(max_stale, now) }
    }

    /// The keys to judge by.
    pub fn keys(&self, now: Instant) -> Keys {
        let held = self.keys.as_ref().filter(|held| now.saturating_duration_since(held.stale) <= self.max_stale);
        held.map_or(Keys::Unavailable, |held| Keys::Known(Arc::clone(&held.keys)))
    }

    /// When the keys will be too old.
    pub fn gone(&self) -> Option<Instant> {
        self.keys.as_ref()?.stale.checked_add(self.max_stale)
    }

    /// Whether the first answer is still awaited.
    pub fn is_first(&self) -> bool {
        self.keys.is_none() && self.failures == 0
    }

    /// What is to be done; `random` decides how long is waited after a fetch that was lost.
    pub fn next(&mut self, now: Instant, random: u64) -> Next {
        self.give_up(now, random);
        match self.flight {
            Some((_, began)) => Next::Wait(began + PATIENCE),
            None if now >= self.due => Next::Fetch(self.begin(now)),
            None => Next::Wait(self.due),
        }
    }

    /// A token came with a `kid` that no key has.
    pub fn unknown_key(&mut self, now: Instant, random: u64) -> Miss {
        self.give_up(now, random);
        if let Some((ticket, _)) = self.flight {
            return Miss::Pending(ticket);
        }
        let is_cooling = self.missed.is_some_and(|missed| now.saturating_duration_since(missed) < COOLDOWN);
        if is_cooling || self.failures > 0 && now < self.due {
            return Miss::Refuse;
        }
        self.missed = Some(now);
        Miss::Fetch(self.begin(now))
    }

    /// What came of a fetch. Gives back whether the keys are others now.
    pub fn answered(&mut self, ticket: Ticket, answer: Answer, now: Instant, random: u64) -> bool {
        if self.flight.is_none_or(|(awaited, _)| awaited != ticket) {
            return false;
        }
        self.flight = None;
        let before = self.keys.take();
        let (keys, age) = match (answer, &before) {
            (Answer::Keys(keys, age), Some(held)) if *keys == *held.keys => (Arc::clone(&held.keys), age),
            (Answer::Keys(keys, age), _) if !keys.is_empty() => (keys, age),
            (Answer::Unchanged(age), Some(held)) => (Arc::clone(&held.keys), age),
            _ => {
                self.keys = before;
                self.failed(now, random);
                return false;
            }
        };
        let age = in_force(age);
        self.failures = 0;
        self.due = now + part(age, random, 4, 5);
        let is_other = before.is_none_or(|held| !Arc::ptr_eq(&held.keys, &keys));
        self.keys = Some(Held { keys, stale: now + age });
        is_other
    }

    fn begin(&mut self, now: Instant) -> Ticket {
        self.tickets += 1;
        self.flight = Some((Ticket(self.tickets), now));
        Ticket(self.tickets)
    }

    fn give_up(&mut self, now: Instant, random: u64) {
        if self.flight.is_some_and(|(_, began)| now.saturating_duration_since(began) >= PATIENCE) {
            self.flight = None;
            self.failed(now, random);
        }
    }

    fn failed(&mut self, now: Instant, random: u64) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LAST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.due = now + part(wait, random, 1, 2);
    }
}

/// A random time from the first `least` of `of` parts of it to all of it.
fn part(whole: Duration, random: u64, least: u32, of: u32) -> Duration {
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let parts = f64::from(least) + f64::from(of - least) * share;
    whole.mul_f64(parts / f64::from(of))
}

/// How long an answer is good: `max-age` of its `Cache-Control` fields less its `Age` (RFC 9111, sections 4.2.1 and 5.2.2); none at once for `no-store`
/// and `no-cache`. `None` when it does not say.
pub fn max_age<'f>(cache_control: impl IntoIterator<Item = &'f str>, age: Option<&str>) -> Option<Duration> {
    let directives = cache_control.into_iter().flat_map(|field| field.split(',')).map(str::trim);
    let least = directives.filter_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(0),
            "max-age" => seconds(value.trim().trim_matches('"')).or(Some(0)),
            _ => None,
        }
    });
    let age = age.and_then(|age| seconds(age.trim())).unwrap_or_default();
    least.min().map(|least: u64| Duration::from_secs(least.saturating_sub(age)))
}

/// Digits; what is too large is large (RFC 9111, section 1.2.2).
fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}
