//! How long an upstream's requests took, counted finely: 8 steps for each doubling between 64 us and 67 s, so that the
//! median of one second is right within 7 %. The histogram in `/metrics` begins at 5 ms; most calls are faster.
//! Shared by the workers: a request costs one relaxed addition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Steps of a doubling, as a power of two.
const STEPS: u32 = 3;
/// 2^6 us: anything faster is in the first step.
const FIRST: u32 = 6;
const DOUBLINGS: u32 = 20;
const PLACES: usize = (DOUBLINGS << STEPS) as usize;

/// The counts so far.
#[derive(Debug)]
pub(super) struct Spread([AtomicU64; PLACES]);

impl Default for Spread {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }
}

impl Spread {
    /// A request is over.
    pub(super) fn count(&self, took: Duration) {
        self.0[place(took)].fetch_add(1, Relaxed);
    }

    /// A copy, shortest first.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Relaxed)).collect()
    }
}

/// Milliseconds below which this share of the requests is; of counts as [`DataPlane::latencies`] gives them, or of the
/// difference of two such. `None` where there are none.
///
/// [`DataPlane::latencies`]: crate::DataPlane::latencies
pub fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    place.filter(|_| total > 0).map(middle)
}

fn place(took: Duration) -> usize {
    let micros = (took.as_micros() as u64).clamp(1 << FIRST, (1 << (FIRST + DOUBLINGS)) - 1);
    let doubling = micros.ilog2();
    let step = (micros >> (doubling - STEPS)) & ((1 << STEPS) - 1);
    ((doubling - FIRST) << STEPS) as usize + step as usize
}

/// Of a place, in milliseconds.
fn middle(place: usize) -> f64 {
    let (doubling, step) = (place >> STEPS, place & ((1 << STEPS) - 1));
    let begin = f64::from(1_u32 << (FIRST + doubling as u32));
    begin * (1.0 + (step as f64 + 0.5) / f64::from(1 << STEPS)) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_near_the_middle_of_its_place() {
        for micros in (64..100_000).step_by(7).chain([1_000_000, 30_000_000, 67_000_000]) {
            let ms = micros as f64 / 1e3;
            let told = middle(place(Duration::from_micros(micros)));
            assert!((told - ms).abs() <= ms * 0.07, "{ms} ms is told as {told}");
        }
        assert_eq!((place(Duration::ZERO), place(Duration::from_secs(3600))), (0, PLACES - 1));
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let spread = Spread::default();
        assert_eq!(quantile(&spread.counts(), 0.5), None);
        for ms in 1..=100 {
            spread.count(Duration::from_millis(ms));
        }
        let told = |share| quantile(&spread.counts(), share).unwrap();
        assert!((told(0.5) - 50.0).abs() < 4.0, "{}", told(0.5));
        assert!((told(0.99) - 99.0).abs() < 7.0, "{}", told(0.99));
        assert!(told(0.0) < 1.1);
    }
}
