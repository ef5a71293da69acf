//! Retries against a log of everything that happened.

use std::time::{Duration, Instant};

use lictor_core::budget::RetryBudget;
use lictor_core::policy::BudgetPolicy;
use proptest::prelude::*;

/// All events, each with the tenth of a window that it is in.
#[derive(Default)]
struct Log {
    requests: Vec<u64>,
    retries: Vec<u64>,
}

proptest! {
    #[test]
    fn a_retry_is_given_when_the_last_ten_tenths_have_room_for_it_and_not_otherwise(
        ratio in 0.0_f64..1.0,
        window in 1_u64..30,
        min_per_second in prop_oneof![Just(0.0), 0.01_f64..5.0],
        workers in 1_usize..5,
        steps in prop::collection::vec((prop_oneof![0_u64..50, 0_u64..5_000, 0_u64..60_000], 0_u8..3), 1..300),
    ) {
        let policy = BudgetPolicy { ratio, window: Duration::from_secs(window), min_per_second };
        let start = Instant::now();
        let budget = RetryBudget::new(policy, workers, start);
        let (mut millis, mut log) = (0, Log::default());
        // A share of less than one retry would be none at all.
        let floor = min_per_second * window as f64 / workers as f64;
        let floor = if floor > 0.0 { floor.max(1.0) } else { 0.0 };
        for (pause, kind) in steps {
            millis += pause;
            let now = start + Duration::from_millis(millis);
            let tenth = millis / (window * 100);
            let recent = |tenths: &[u64]| tenths.iter().filter(|at| tenth - **at < 10).count() as f64;
            let allowed = recent(&log.requests) * ratio + floor;
            let used = recent(&log.retries);
            match kind {
                0 => {
                    budget.deposit(now);
                    log.requests.push(tenth);
                }
                1 => {
                    let is_given = budget.withdraw(now);
                    prop_assert_eq!(is_given, used + 1.0 <= allowed, "{} used of {}", used, allowed);
                    if is_given {
                        log.retries.push(tenth);
                    }
                }
                _ => {
                    let left = if allowed > 0.0 { ((allowed - used) / allowed).clamp(0.0, 1.0) } else { 0.0 };
                    prop_assert!((budget.remaining_ratio(now) - left).abs() < 1e-9);
                }
            }
        }
    }
}
