//! One endpoint's load as one worker sees it: what is in flight, how long its answers take, and how many are failures.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What is measured of an endpoint is believed for this long. Then it is one like any other until it has answered again: bad
/// news grow old, and nobody starves.
const MEMORY: Duration = Duration::from_secs(10);
/// Of fewer answers than this nothing follows.
const BELIEVED: u8 = 4;
/// The least weight of an answer, so that the average is of no more than about this many.
const ANSWERS: f64 = 32.0;
/// One answer counts at most so many times the average: a single slow one is an accident, several are news.
const ACCIDENT: f64 = 8.0;
/// The share of failures that one more failure makes of none.
const ALARM: f64 = 0.25;
/// How fast failures are forgotten while there are good answers.
const FORGIVING: Duration = Duration::from_secs(3);
/// A share of failures below this is none.
const FORGIVEN: f64 = 0.001;

/// One endpoint's load as one worker sees it.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: Cell<u32>,
    /// Of its good answers, in seconds.
    latency: Cell<f64>,
    /// The share of failures, 0 to 1, the last ones most.
    failing: Cell<f64>,
    /// Good answers that were measured, up to [`BELIEVED`].
    answers: Cell<u8>,
    measured: Cell<Option<Instant>>,
}

impl Load {
    /// A request goes out.
    pub fn started(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// It is over; `latency` is the time to its response head, `None`: it failed, or was refused.
    pub fn finished(&self, now: Instant, latency: Option<Duration>) {
        self.left();
        let age = self.age(now);
        let weight = |memory: Duration| age.map_or(1.0, |age| weight(age, memory));
        match latency {
            Some(latency) => {
                self.answered(latency.as_secs_f64(), weight(MEMORY), age.is_none_or(|age| age >= MEMORY));
                let failing = self.failing.get();
                if failing > 0.0 {
                    let left = failing * (1.0 - weight(FORGIVING));
                    self.failing.set(if left < FORGIVEN { 0.0 } else { left });
                }
            }
            None => self.failing.set(self.failing.get() + (1.0 - self.failing.get()) * ALARM),
        }
        self.measured.set(Some(now));
    }

    /// Nobody waited for it any longer: it took at least this long.
    pub fn abandoned(&self, now: Instant, waited: Duration) {
        if self.latency(now).is_some_and(|latency| waited.as_secs_f64() > latency) {
            self.finished(now, Some(waited));
        } else {
            self.left();
        }
    }

    /// Requests now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// The average time to its answers' heads, if any was measured.
    pub fn average(&self) -> Option<Duration> {
        (self.answers.get() > 0).then(|| Duration::from_secs_f64(self.latency.get()))
    }

    /// The same in seconds, where it may be believed.
    pub(crate) fn latency(&self, now: Instant) -> Option<f64> {
        (self.answers.get() >= BELIEVED && self.is_recent(now)).then(|| self.latency.get())
    }

    /// The share of its answers that were failures of late, 0 to 1.
    pub(crate) fn failing(&self, now: Instant) -> f64 {
        let failing = self.failing.get();
        if failing > 0.0 && self.is_recent(now) { failing } else { 0.0 }
    }

    fn left(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    fn answered(&self, sample: f64, weight: f64, is_forgotten: bool) {
        let (answers, average) = (self.answers.get(), self.latency.get());
        if answers == 0 || is_forgotten {
            // What it was like is not forgotten so far that one answer could not say it again.
            self.answers.set(answers.min(BELIEVED - 2) + 1);
            self.latency.set(sample);
            return;
        }
        if answers < BELIEVED {
            // The best of the first ones: a server may have to warm up, and a connection to begin.
            self.answers.set(answers + 1);
            self.latency.set(average.min(sample));
        } else {
            self.latency.set(average + (sample.min(average * ACCIDENT) - average) * weight);
        }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        self.measured.get().map(|at| now.saturating_duration_since(at))
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.age(now).is_some_and(|age| age < MEMORY)
    }
}

/// The weight of an answer this long after the last: like that of a clock with this memory (the first terms of the exponential).
fn weight(age: Duration, memory: Duration) -> f64 {
    let age = age.as_secs_f64();
    (age / (age + memory.as_secs_f64())).max(1.0 / ANSWERS)
}
