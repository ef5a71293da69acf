//! A retry budget: retries as a share of requests.
//!
//! A count ("at most three attempts") bounds what one request costs, not what a failing service gets: when everything
//! fails, three attempts are three times the load, at the moment when it hurts most, and tiers multiply it. A budget
//! bounds the sum: over the window, retries stay below `ratio` of the requests, plus a floor so that a quiet service
//! can retry at all (as in Finagle and Linkerd). It is charged when a retry is decided, not when it succeeds.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::policy::BudgetPolicy;

const BUCKETS: usize = 10;

/// One worker's budget for one upstream.
#[derive(Debug)]
pub struct RetryBudget {
    policy: BudgetPolicy,
    /// The floor, already divided by the number of workers, over the whole window.
    floor: f64,
    /// How long a bucket is filled.
    width: Duration,
    /// The number of the bucket that is being filled, and until when.
    current: Cell<u64>,
    ends: Cell<Instant>,
    buckets: RefCell<[Bucket; BUCKETS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// A budget for one of `workers`: requests are counted where they are, only the floor has to be shared.
    pub fn new(policy: BudgetPolicy, workers: usize, now: Instant) -> Self {
        let floor = policy.min_per_second * policy.window.as_secs_f64() / workers.max(1) as f64;
        let width = (policy.window / BUCKETS as u32).max(Duration::from_millis(1));
        Self {
            // A share of less than one retry would be none at all.
            floor: if floor > 0.0 { floor.max(1.0) } else { 0.0 },
            policy,
            width,
            current: Cell::new(0),
            ends: Cell::new(now + width),
            buckets: RefCell::default(),
        }
    }

    /// A request came.
    pub fn deposit(&self, now: Instant) {
        let index = self.advance(now);
        self.buckets.borrow_mut()[index].requests += 1;
    }

    /// Takes one retry, if one is left.
    pub fn withdraw(&self, now: Instant) -> bool {
        let index = self.advance(now);
        let may_retry = self.is_left();
        if may_retry {
            self.buckets.borrow_mut()[index].retries += 1;
        }
        may_retry
    }

    /// Whether one retry is left.
    pub fn may_withdraw(&self, now: Instant) -> bool {
        self.advance(now);
        self.is_left()
    }

    /// The share that is left, 0 to 1.
    pub fn remaining_ratio(&self, now: Instant) -> f64 {
        self.advance(now);
        let (allowed, used) = self.balance();
        if allowed > 0.0 { ((allowed - used) / allowed).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn is_left(&self) -> bool {
        let (allowed, used) = self.balance();
        used + 1.0 <= allowed
    }

    fn balance(&self) -> (f64, f64) {
        let buckets = self.buckets.borrow();
        let requests: u32 = buckets.iter().map(|bucket| bucket.requests).sum();
        let retries: u32 = buckets.iter().map(|bucket| bucket.retries).sum();
        (f64::from(requests) * self.policy.ratio + self.floor, f64::from(retries))
    }

    /// Forgets what is older than the window; gives the index of the current bucket.
    fn advance(&self, now: Instant) -> usize {
        if now >= self.ends.get() {
            let current = self.current.get();
            let since = now.saturating_duration_since(self.ends.get()).as_nanos();
            let number = current + 1 + (since / self.width.as_nanos()) as u64;
            let mut buckets = self.buckets.borrow_mut();
            for passed in 1..=(number - current).min(BUCKETS as u64) {
                buckets[((current + passed) % BUCKETS as u64) as usize] = Bucket::default();
            }
            self.current.set(number);
            let left = self.width.as_nanos() - since % self.width.as_nanos();
            self.ends.set(now + Duration::from_nanos(left as u64));
        }
        (self.current.get() % BUCKETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BudgetPolicy = BudgetPolicy { ratio: 0.2, window: Duration::from_secs(10), min_per_second: 3.0 };

    #[test]
    fn a_service_that_always_fails_gets_a_fifth_more_load_not_three_times() {
        let start = Instant::now();
        let budget = RetryBudget::new(POLICY, 1, start);
        let mut retries = 0;
        for request in 0..10_000 {
            let now = start + Duration::from_millis(request * 2);
            budget.deposit(now);
            for _ in 0..2 {
                retries += u32::from(budget.withdraw(now));
            }
        }
        assert!((2_000..=2_100).contains(&retries), "{retries} retries for 10,000 requests");
    }

    #[test]
    fn the_floor_is_shared_between_workers() {
        let now = Instant::now();
        let budget = RetryBudget::new(POLICY, 2, now);
        assert!(budget.may_withdraw(now));
        let retries = (0..100).filter(|_| budget.withdraw(now)).count();
        assert_eq!(retries, 15);
        assert!(!budget.may_withdraw(now));
        assert!(budget.remaining_ratio(now) < f64::EPSILON);
        assert!((budget.remaining_ratio(now + POLICY.window) - 1.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_share_and_the_floor(steps in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..400)) {
            let start = Instant::now();
            let budget = RetryBudget::new(POLICY, 1, start);
            let (mut now, mut requests, mut retries) = (start, vec![], vec![]);
            for (millis, is_request) in steps {
                now += Duration::from_millis(millis);
                if is_request {
                    budget.deposit(now);
                    requests.push(now);
                } else if budget.withdraw(now) {
                    retries.push(now);
                }
                // The buckets remember nine to ten tenths of the window; the model all of it.
                let recent = |times: &[Instant], back: Duration| times.iter().filter(|at| now - **at < back).count() as f64;
                let allowed = recent(&requests, POLICY.window) * 0.2 + 30.0;
                prop_assert!(recent(&retries, POLICY.window * 9 / 10) <= allowed + 1e-9);
            }
        }
    }
}
