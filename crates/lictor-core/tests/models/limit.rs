//! Limits on rates against a model that remembers every request.

use std::time::Duration;

use lictor_core::limit::{Algorithm, Quota, State};
use proptest::prelude::*;

/// All admitted requests, and what they say of one more.
struct Model {
    quota: Quota,
    admitted: Vec<u64>,
}

impl Model {
    /// By the definition alone, with fractions as fractions.
    fn take(&mut self, now: u64) -> bool {
        let is_admitted = match self.quota.algorithm {
            Algorithm::TokenBucket => self.tokens(now) >= self.interval(),
            Algorithm::FixedWindow => self.in_window(now).1 < self.requests(),
            Algorithm::SlidingWindow => {
                let (begin, count, before) = self.in_window(now);
                let left = self.window() - (now - begin);
                before * left + (count + 1) * self.window() <= self.requests() * self.window()
            }
        };
        if is_admitted {
            self.admitted.push(now);
        }
        is_admitted
    }

    fn window(&self) -> u64 {
        self.quota.window.as_nanos() as u64
    }

    fn requests(&self) -> u64 {
        u64::from(self.quota.requests)
    }

    fn interval(&self) -> u64 {
        self.window().div_ceil(self.requests())
    }

    /// What is in the bucket, in nanoseconds of its refilling, played from the begin.
    fn tokens(&self, now: u64) -> u64 {
        let room = self.interval() * u64::from(self.quota.burst);
        let (mut tokens, mut at) = (room, 0);
        for admitted in &self.admitted {
            tokens = room.min(tokens + (admitted - at)) - self.interval();
            at = *admitted;
        }
        room.min(tokens + (now - at))
    }

    /// When this window began, what it had, and what the one before had.
    fn in_window(&self, now: u64) -> (u64, u64, u64) {
        let windows = if self.quota.algorithm == Algorithm::SlidingWindow { 2 } else { 1 };
        let (mut begin, mut count, mut before) = (now, 0, 0);
        for at in self.admitted.iter().map(|at| (*at, 1)).chain([(now, 0)]) {
            if count + before == 0 || at.0 >= begin + windows * self.window() {
                (begin, count, before) = (at.0, 0, 0);
            } else if at.0 >= begin + self.window() {
                (begin, count, before) = (begin + self.window(), 0, count);
            }
            count += at.1;
        }
        (begin, count, before)
    }
}

fn quota() -> impl Strategy<Value = Quota> {
    let algorithm =
        prop_oneof![Just(Algorithm::TokenBucket), Just(Algorithm::SlidingWindow), Just(Algorithm::FixedWindow)];
    (algorithm, 1..20_u32, 1..30_u64, 1..25_u32).prop_map(|(algorithm, requests, seconds, burst)| Quota {
        algorithm,
        requests,
        window: Duration::from_secs(seconds),
        burst,
    })
}

proptest! {
    #[test]
    fn a_key_is_counted_as_the_model_counts_it(
        quota in quota(),
        steps in proptest::collection::vec((0..40_u32, 0..4_000_000_000_u64), 1..300),
    ) {
        let mut model = Model { quota, admitted: Vec::new() };
        let (mut state, mut now) = (State::default(), 1_000_000_000);
        for (pause, nanos) in steps {
            now += if pause < 30 { nanos / 40 } else { nanos * u64::from(pause - 29) };
            let expected = model.take(now);
            let told = quota.take(&mut state, now);
            prop_assert_eq!(told.is_admitted, expected, "{:?} at {}", quota, now);
            prop_assert!(told.remaining < told.limit || told.limit == 0);
            let more = (0..=told.remaining).scan(state, |state, _| Some(quota.take(state, now).is_admitted));
            prop_assert_eq!(more.filter(|is_admitted| *is_admitted).count() as u32, told.remaining, "{:?}", quota);
        }
        // Whatever came: never more than the burst and the rate of the time between; of windows, than the windows have.
        for (first, begin) in model.admitted.iter().enumerate() {
            for (count, end) in model.admitted[first..].iter().enumerate() {
                let time = end - begin;
                let most = match quota.algorithm {
                    Algorithm::TokenBucket => u64::from(quota.burst) + time / model.interval(),
                    _ => model.requests() * (2 + time / model.window()),
                };
                prop_assert!((count as u64) < most, "{:?}: {} in {} ns", quota, count + 1, time);
            }
        }
    }
}
