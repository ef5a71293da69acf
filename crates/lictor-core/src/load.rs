//! One endpoint's load as one worker sees it: what is in flight, and the peak EWMA of its latency.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What an endpoint is assumed to take until it has answered once (as in Finagle and Linkerd).
const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// How fast an old latency is forgotten.
const DECAY: Duration = Duration::from_secs(10);
/// What a failed attempt counts as: refusing fast must not look like answering fast.
const PENALTY: Duration = Duration::from_secs(1);

/// One endpoint's load as one worker sees it.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: Cell<u32>,
    /// Seconds; 0: none measured yet.
    ewma: Cell<f64>,
    measured: Cell<Option<Instant>>,
    /// Smooth weighted round robin's running weight.
    pub(crate) current: Cell<f64>,
}

impl Load {
    /// A request goes out.
    pub fn started(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// It is over; `latency` is the time to its response head, `None` when there was none.
    pub fn finished(&self, now: Instant, latency: Option<Duration>) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        let sample = latency.unwrap_or(PENALTY).as_secs_f64();
        // Peak: a slower answer counts at once, a faster one by and by.
        let weight = self.fade(now);
        let earlier = self.ewma.get() * weight;
        let next = if sample > earlier { sample } else { earlier * weight + sample * (1.0 - weight) };
        self.ewma.set(next);
        self.measured.set(Some(now));
    }

    /// Requests now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// The peak EWMA of its latency, if it was ever measured.
    pub fn ewma(&self, now: Instant) -> Option<Duration> {
        self.measured.get().map(|_| Duration::from_secs_f64(self.decayed(now)))
    }

    /// What the next request would have to wait for.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        let latency = if self.measured.get().is_some() { self.decayed(now) } else { DEFAULT_RTT.as_secs_f64() };
        latency * f64::from(self.in_flight.get() + 1)
    }

    /// The average, forgotten with time also when nothing is measured: bad news grow old, and nobody starves.
    fn decayed(&self, now: Instant) -> f64 {
        self.ewma.get() * self.fade(now)
    }

    fn fade(&self, now: Instant) -> f64 {
        let age = self.measured.get().map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        (-(age.as_secs_f64() / DECAY.as_secs_f64())).exp()
    }
}
