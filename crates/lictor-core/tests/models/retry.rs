//! The retry table against a list of reasons not to.

use std::time::{Duration, Instant};

use lictor_core::budget::RetryBudget;
use lictor_core::policy::{Backoff, BudgetPolicy, RetryClasses, RetryPolicy};
use lictor_core::retry::{Asked, Denied, Next, Tried, next};
use lictor_core::{Failure, Reason};
use proptest::prelude::*;

/// Whether a request that ended so was never looked at, may have been, or must not be sent again.
fn is_harmless(reason: Reason, is_unprocessed: bool) -> Option<bool> {
    match reason {
        _ if is_unprocessed => Some(true),
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::Misdirected | Reason::TlsFailed => Some(true),
        Reason::PerTryTimeout | Reason::ProtocolError | Reason::ResetBeforeResponse | Reason::Status => Some(false),
        _ => None,
    }
}

fn any_classes() -> impl Strategy<Value = RetryClasses> {
    any::<[bool; 4]>().prop_map(|[connect_failure, reset, timeout, refused_stream]| RetryClasses {
        connect_failure,
        reset,
        timeout,
        refused_stream,
    })
}

fn is_switched_on(classes: RetryClasses, reason: Reason, is_unprocessed: bool) -> bool {
    let class = match reason {
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => Some(classes.connect_failure),
        _ if is_unprocessed => Some(classes.refused_stream),
        Reason::ProtocolError | Reason::ResetBeforeResponse => Some(classes.reset),
        Reason::PerTryTimeout => Some(classes.timeout),
        _ => None,
    };
    class.unwrap_or(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn it_is_sent_again_when_nothing_speaks_against_it(
        reason in prop::sample::select(Reason::ALL.to_vec()),
        is_unprocessed in any::<bool>(),
        classes in any_classes(),
        (attempts, most) in (1_u32..6, 0_u32..6),
        [is_idempotent, is_replayable, has_other, has_budget] in any::<[bool; 4]>(),
        retry_after in prop::option::of(0_u64..3_000),
        remaining in prop::option::of(0_u64..3_000),
        delays in prop::collection::vec(0_u64..1_000, 0..4),
        random in 0.0_f64..1.0,
    ) {
        let millis = Duration::from_millis;
        let backoff = Backoff::Delays { delays: delays.iter().copied().map(millis).collect(), jitter: 0.2 };
        let budget = BudgetPolicy { ratio: 0.0, min_per_second: if has_budget { 1.0 } else { 0.0 }, window: Duration::from_secs(1) };
        let policy = RetryPolicy { attempts: most, classes, backoff, budget, ..RetryPolicy::default() };
        let now = Instant::now();
        let budget = RetryBudget::new(policy.budget, 1, now);
        let mut failure = Failure::new(reason, "it failed");
        failure.is_unprocessed = is_unprocessed;
        let tried = Tried {
            failure: &failure,
            attempts,
            is_idempotent,
            is_replayable,
            asked: retry_after.map(millis).map_or(Asked::Nothing, Asked::NotBefore),
            remaining: remaining.map(millis),
            has_other,
        };
        let next = next(&policy, &tried, &budget, now, random);

        let harmless = is_harmless(reason, is_unprocessed);
        let delay = delays.get(attempts as usize - 1).or(delays.last()).copied().unwrap_or(0) as f64;
        let backoff = if harmless == Some(true) && has_other { 0.0 } else { delay * (0.8 + 0.4 * random) };
        let wait = backoff.max(retry_after.unwrap_or(0) as f64);
        let against = [
            (harmless.is_none() || !is_switched_on(classes, reason, is_unprocessed), Denied::Class),
            (attempts >= most, Denied::Attempts),
            (harmless == Some(false) && !is_idempotent, Denied::Method),
            (!is_replayable, Denied::Body),
            (remaining.is_some_and(|remaining| wait >= remaining as f64), Denied::Deadline),
            (!has_budget, Denied::Budget),
        ];
        // A wait that just fits may be rounded either way.
        prop_assume!(remaining.is_none_or(|remaining| (wait - remaining as f64).abs() > 1e-3) || wait == 0.0);
        match (against.iter().find(|(is_so, _)| *is_so), next) {
            (Some((_, reason)), Next::Stop(denied)) => prop_assert_eq!(denied, *reason),
            (None, Next::Retry(told)) => prop_assert!((told.as_secs_f64() * 1e3 - wait).abs() < 1e-3),
            (expected, next) => prop_assert!(false, "{:?}, and not {:?}", next, expected),
        }
        // Only a retry is paid for.
        let is_left = budget.remaining_ratio(now) > 0.5;
        prop_assert_eq!(is_left, has_budget && matches!(next, Next::Stop(_)));
    }

    #[test]
    fn waits_grow_to_their_bound_and_no_further(
        (initial, factor, max) in (1_u64..5_000, 1.0_f64..4.0, 1_u64..60_000),
        retry in 1_u32..200,
        random in 0.0_f64..1.0,
    ) {
        let backoff = Backoff::Exponential { initial: Duration::from_millis(initial), factor, max: Duration::from_millis(max) };
        let mut bound = initial as f64;
        for _ in 1..retry {
            bound = (bound * factor).min(1e12);
        }
        let told = backoff.wait(retry, random).as_secs_f64() * 1e3;
        // From the 65th on the factor is not applied any more: beyond any bound but that of a factor of almost 1.
        prop_assert!(told <= bound.min(max as f64) + 1e-3, "{} for {}", told, bound);
        prop_assert!(retry > 64 || told >= bound.min(max as f64) * random - 1e-3);
    }
}
