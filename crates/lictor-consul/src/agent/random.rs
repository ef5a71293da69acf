//! Jitter: a splitmix64 seeded from the clock and a counter. Nothing here needs better.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

static SEEDS: AtomicU64 = AtomicU64::new(0);

/// A sequence of numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Another sequence each time.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Self(clock ^ SEEDS.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed))
    }

    /// Uniform in 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
