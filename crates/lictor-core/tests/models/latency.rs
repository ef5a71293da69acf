//! A quantile against sorting everything.

use std::time::{Duration, Instant};

use lictor_core::latency::Latencies;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_quantile_is_that_of_a_sorted_list_rounded_up_by_at_most_a_quarter(
        micros in prop::collection::vec(prop_oneof![0_u64..20, 0_u64..5_000, 0_u64..4_000_000_000], 0..300),
        share in 0.0_f64..=1.0,
    ) {
        let now = Instant::now();
        let mut latencies = Latencies::new(now);
        for micros in &micros {
            latencies.record(Duration::from_micros(*micros), now);
        }
        let told = latencies.quantile(share, now);
        prop_assert_eq!(told.is_some(), micros.len() >= 20);
        let Some(told) = told else { return Ok(()) };
        let mut sorted = micros;
        sorted.sort_unstable();
        // The least value that this share did not exceed.
        let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1);
        let exact = sorted[rank - 1] as f64;
        let told = told.as_secs_f64() * 1e6;
        prop_assert!(told >= exact && told <= (exact * 1.25).max(exact + 1.0) + 0.5, "{} for {}", told, exact);
    }

    #[test]
    fn what_is_older_than_two_windows_is_forgotten_and_what_is_younger_than_one_is_not(
        steps in prop::collection::vec((0_u64..4_000, 1_u64..100_000), 1..200),
    ) {
        let start = Instant::now();
        let mut latencies = Latencies::new(start);
        let (mut millis, mut log) = (0, Vec::new());
        for (pause, micros) in steps {
            millis += pause;
            let now = start + Duration::from_millis(millis);
            latencies.record(Duration::from_micros(micros), now);
            log.push((millis, micros));
            let within = |back: u64| log.iter().filter(move |(at, _)| millis - at < back).map(|(_, micros)| *micros);
            let told = latencies.quantile(1.0, now).map(|told| told.as_secs_f64() * 1e6);
            if within(10_000).count() >= 20 {
                prop_assert!(told.is_some_and(|told| told >= within(10_000).max().unwrap_or(0) as f64));
            }
            if within(20_000).count() < 20 {
                prop_assert_eq!(told, None);
            } else if let Some(told) = told {
                prop_assert!(told <= within(20_000).max().unwrap_or(0) as f64 * 1.25 + 1.0);
            }
        }
    }
}
