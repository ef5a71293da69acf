//! How long answers take: a rolling quantile, for deciding when a request is slow.

use std::time::{Duration, Instant};

/// How far back answers count, at least; at most twice as far.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer answers than this say nothing about a quantile.
const LEAST: u32 = 20;
/// Steps within a power of two: a value is told to within a quarter of itself.
const STEPS: u32 = 4;
/// Up to 2^32 microseconds, over an hour.
const BUCKETS: usize = 33 * STEPS as usize;

/// Counts of latencies in exponential buckets, over two windows: the one that is filling and the one before.
#[derive(Clone, Debug)]
pub struct Latencies {
    current: Box<[u32; BUCKETS]>,
    previous: Box<[u32; BUCKETS]>,
    began: Instant,
}

impl Latencies {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self { current: Box::new([0; BUCKETS]), previous: Box::new([0; BUCKETS]), began: now }
    }

    /// An answer took this long.
    pub fn record(&mut self, took: Duration, now: Instant) {
        self.roll(now);
        self.current[bucket(took)] += 1;
    }

    /// The latency that this share (0 to 1) of recent answers did not exceed, rounded up by at most a quarter; `None`
    /// while fewer than 20 are known.
    pub fn quantile(&mut self, share: f64, now: Instant) -> Option<Duration> {
        self.roll(now);
        let counts = || self.current.iter().zip(self.previous.iter()).map(|(current, previous)| current + previous);
        let total: u32 = counts().sum();
        if total < LEAST {
            return None;
        }
        let wanted = (f64::from(total) * share.clamp(0.0, 1.0)).ceil() as u32;
        let mut seen = 0;
        let at = counts().position(|count| {
            seen += count;
            seen >= wanted
        });
        at.map(upper_bound)
    }

    fn roll(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < WINDOW {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.fill(0);
        if age >= 2 * WINDOW {
            self.previous.fill(0);
            self.began = now;
        } else {
            self.began += WINDOW; // not `now`: what came before it would count for longer
        }
    }
}

/// 0 is below a microsecond; then four buckets for each power of two.
fn bucket(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    if micros == 0 {
        return 0;
    }
    let power = micros.ilog2();
    let within = ((u64::from(micros) - (1_u64 << power)) * u64::from(STEPS)) >> power;
    (power * STEPS) as usize + within as usize + 1
}

fn upper_bound(bucket: usize) -> Duration {
    let Some(bucket) = bucket.checked_sub(1) else { return Duration::from_micros(1) };
    let (power, within) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    let base = 1_u64 << power;
    Duration::from_micros((base + base * u64::from(within + 1) / u64::from(STEPS)).max(base + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_told_to_within_a_quarter() {
        let now = Instant::now();
        let mut latencies = Latencies::new(now);
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis), now);
        }
        for (share, exact) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)] {
            let told = latencies.quantile(share, now).unwrap().as_secs_f64() * 1e3;
            assert!((exact..exact * 1.26).contains(&told), "{share}: {told} for {exact}");
        }
    }

    #[test]
    fn few_answers_and_old_answers_say_nothing() {
        let now = Instant::now();
        let mut latencies = Latencies::new(now);
        for _ in 0..19 {
            latencies.record(Duration::from_millis(1), now);
        }
        assert_eq!(latencies.quantile(0.95, now), None);
        latencies.record(Duration::from_millis(1), now);
        assert!(latencies.quantile(0.95, now).is_some());
        let later = now + WINDOW;
        assert!(latencies.quantile(0.95, later).is_some(), "the window before still counts");
        assert_eq!(latencies.quantile(0.95, later + 2 * WINDOW), None);
    }

    #[test]
    fn every_duration_has_a_bucket_that_bounds_it() {
        for micros in [0, 1, 2, 3, 4, 5, 7, 8, 1_000, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
            let took = Duration::from_micros(micros);
            let bound = upper_bound(bucket(took));
            assert!(bound >= took.min(Duration::from_micros(u64::from(u32::MAX))), "{micros}: {bound:?}");
        }
    }
}
