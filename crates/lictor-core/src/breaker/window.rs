//! How many of the last requests were failures, counted without a lock.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::policy::ErrorRate;

const SLICES: u64 = 10;
/// So many requests, and failures, a slice counts at most.
const MOST: u64 = 0xff_ffff;

/// The window's slices. Each is a word, so that all of it changes at once: 16 bits of its number, 24 of failures, 24 of
/// requests.
#[derive(Debug)]
pub(super) struct Window {
    epoch: Instant,
    slices: [AtomicU64; SLICES as usize],
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, slices: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds a request to its slice; one from an earlier round starts over.
    #[inline]
    pub(super) fn add(&self, rate: &ErrorRate, now: Instant, is_failure: bool) {
        let (number, failures) = (self.number(rate, now), u64::from(is_failure));
        let slice = &self.slices[(number % SLICES) as usize];
        let word = slice.load(Relaxed);
        if word >> 48 == number && word & MOST != MOST {
            slice.fetch_add(failures << 24 | 1, Relaxed);
        } else if word >> 48 != number {
            // Losing a race here loses one count of a ratio.
            let _ = slice.compare_exchange(word, number << 48 | failures << 24 | 1, Relaxed, Relaxed);
        }
    }

    /// Whether the share of failures is as large as the policy allows none to be.
    pub(super) fn is_exceeded(&self, rate: &ErrorRate, now: Instant) -> bool {
        let number = self.number(rate, now);
        let (mut requests, mut failures) = (0, 0);
        for slice in &self.slices {
            let word = slice.load(Relaxed);
            let age = number.wrapping_sub(word >> 48) & 0xffff;
            if age < SLICES {
                requests += word & MOST;
                failures += word >> 24 & MOST;
            }
        }
        requests >= u64::from(rate.min_requests) && failures as f64 >= requests as f64 * rate.threshold
    }

    pub(super) fn clear(&self) {
        self.slices.iter().for_each(|slice| slice.store(0, Relaxed));
    }

    /// The number of the current slice; from 1, so that an empty word belongs to none.
    fn number(&self, rate: &ErrorRate, now: Instant) -> u64 {
        let width = (rate.window.as_nanos() as u64 / SLICES).max(1_000_000);
        let number = now.saturating_duration_since(self.epoch).as_nanos() as u64 / width;
        number % 0xffff + 1
    }
}
