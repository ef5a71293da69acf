//! What one of several gateways may admit of a limit that they have together: its part. More gateways are believed at once;
//! fewer only when it has stayed so for a while, or a gateway that comes and goes would have the others admit too much.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

/// Nanoseconds for which fewer gateways must have been seen.
const SETTLED: u64 = 10_000_000_000;

/// How many gateways there are.
#[derive(Debug)]
pub struct Share {
    /// What is divided by: at least 1.
    parts: AtomicU32,
    fewer: Mutex<Option<Fewer>>,
}

/// There seem to be fewer.
#[derive(Clone, Copy, Debug)]
struct Fewer {
    since: u64,
    /// The most that there were since.
    count: u32,
}

impl Share {
    /// What limits are divided by.
    pub fn parts(&self) -> u32 {
        self.parts.load(Relaxed)
    }

    /// So many are seen now; none is not believed. To be said again and again: time passes for it.
    pub fn observe(&self, count: u32, now: u64) {
        let mut fewer = self.fewer.lock();
        let count = count.max(1);
        if count >= self.parts() {
            *fewer = None;
            return self.parts.store(count, Relaxed);
        }
        let known = fewer.get_or_insert(Fewer { since: now, count });
        known.count = known.count.max(count);
        if now.saturating_sub(known.since) >= SETTLED {
            self.parts.store(known.count, Relaxed);
            *fewer = None;
        }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self { parts: AtomicU32::new(1), fewer: Mutex::new(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_gateways_are_believed_at_once_and_fewer_when_it_stays_so() {
        let share = Share::default();
        for (second, count, parts) in [
            (0, 0, 1),
            (1, 2, 2),
            (2, 3, 3),
            (3, 0, 3),
            (4, 2, 3),
            (12, 2, 3),
            (13, 2, 2), // of the time since 3 there were 2 at most
            (14, 1, 2),
            (20, 2, 2), // it is back
            (21, 1, 2),
            (30, 1, 2),
            (31, 1, 1),
            (32, 0, 1),
            (33, 40, 40),
        ] {
            share.observe(count, second * 1_000_000_000);
            assert_eq!(share.parts(), parts, "second {second}: {count}");
        }
    }
}
