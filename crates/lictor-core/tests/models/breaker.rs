//! The state machine against one that is written down plainly, and against several threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use lictor_core::Reason;
use lictor_core::breaker::{Admission, Breaker, BreakerState, Verdict};
use lictor_core::policy::{BreakerPolicy, ErrorRate};
use proptest::prelude::*;

const FAILED: Verdict = Verdict::Failure(Reason::Status);

/// A breaker that remembers everything.
struct Model {
    policy: BreakerPolicy,
    state: BreakerState,
    in_a_row: u32,
    /// The tenth of the window that each request ended in, and whether it failed.
    log: Vec<(u64, bool)>,
    open_until: u64,
    /// Openings since it was last closed.
    reopened: u32,
    /// Counts half-open states.
    round: u32,
    probes: u32,
    successes: u32,
}

impl Model {
    /// What the request is admitted as: `None` for a probe's place or a time that is not there.
    fn admit(&mut self, millis: u64) -> Option<Leave> {
        match self.state {
            BreakerState::Closed => return Some(Leave::Closed),
            BreakerState::Open if millis < self.open_until => return None,
            BreakerState::Open => self.half_open(),
            BreakerState::HalfOpen if self.probes >= self.policy.half_open_max => return None,
            BreakerState::HalfOpen => (),
        }
        self.probes += 1;
        Some(Leave::Probe(self.round))
    }

    fn half_open(&mut self) {
        (self.state, self.probes, self.successes) = (BreakerState::HalfOpen, 0, 0);
        self.round += 1;
    }

    fn open(&mut self, millis: u64) {
        self.state = BreakerState::Open;
        let rest = 5_000_u64 << self.reopened.min(20);
        self.open_until = millis + rest.min(self.policy.recovery_timeout.as_millis() as u64);
        self.reopened += 1;
    }

    fn finish(&mut self, leave: Leave, verdict: Verdict, millis: u64) {
        match (leave, verdict) {
            (Leave::Closed, Verdict::Success) => {
                self.in_a_row = 0;
                self.log.push((self.tenth(millis), false));
            }
            (Leave::Closed, Verdict::Failure(_)) if self.state == BreakerState::Closed => {
                self.in_a_row += 1;
                self.log.push((self.tenth(millis), true));
                if self.in_a_row >= self.policy.failure_threshold || self.is_exceeded(millis) {
                    self.open(millis);
                }
            }
            (Leave::Probe(round), _) if self.state == BreakerState::HalfOpen && round == self.round => {
                self.probes -= 1;
                match verdict {
                    Verdict::Failure(_) | Verdict::Slow => self.open(millis),
                    Verdict::Success => self.successes += 1,
                    Verdict::Unknown => (),
                }
                if self.state == BreakerState::HalfOpen && self.successes >= self.policy.success_threshold {
                    (self.state, self.in_a_row, self.reopened) = (BreakerState::Closed, 0, 0);
                    self.log.clear();
                }
            }
            _ => (),
        }
    }

    fn tenth(&self, millis: u64) -> u64 {
        self.policy.error_rate.map_or(0, |rate| millis * 10 / rate.window.as_millis() as u64)
    }

    fn is_exceeded(&self, millis: u64) -> bool {
        let Some(rate) = self.policy.error_rate else { return false };
        let recent: Vec<bool> =
            self.log.iter().filter(|(at, _)| self.tenth(millis) - at < 10).map(|(_, failed)| *failed).collect();
        let failures = recent.iter().filter(|failed| **failed).count();
        recent.len() >= rate.min_requests as usize && failures as f64 >= recent.len() as f64 * rate.threshold
    }
}

#[derive(Clone, Copy)]
enum Leave {
    Closed,
    Probe(u32),
}

fn any_policy() -> impl Strategy<Value = BreakerPolicy> {
    let rate = (prop::sample::select(vec![0.25, 0.5, 1.0]), 1_u64..20, 1_u32..15);
    let rate = rate.prop_map(|(threshold, seconds, min_requests)| ErrorRate {
        threshold,
        window: Duration::from_secs(seconds),
        min_requests,
    });
    (1_u32..8, 1_u32..4, 0_u64..20, 1_u32..4, prop::option::of(rate)).prop_map(
        |(failure_threshold, success_threshold, recovery, half_open_max, error_rate)| BreakerPolicy {
            failure_threshold,
            success_threshold,
            recovery_timeout: Duration::from_secs(recovery),
            half_open_max,
            error_rate,
            ..BreakerPolicy::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn requests_that_begin_and_end_in_any_order_move_it_as_the_model(
        policy in any_policy(),
        steps in prop::collection::vec((0_u8..12, any::<prop::sample::Index>(), 0_u64..3_000), 1..200),
    ) {
        let start = Instant::now();
        let breaker = Breaker::new(start);
        let mut model = Model {
            policy: policy.clone(),
            state: BreakerState::Closed,
            in_a_row: 0,
            log: Vec::new(),
            open_until: 0,
            reopened: 0,
            round: 0,
            probes: 0,
            successes: 0,
        };
        let mut running: VecDeque<(Admission, Leave)> = VecDeque::new();
        let mut millis = 0;
        for (step, index, pause) in steps {
            millis += pause;
            let now = start + Duration::from_millis(millis);
            match step {
                0..=4 => {
                    let (admitted, expected) = (breaker.admit(&policy, now), model.admit(millis));
                    prop_assert_eq!(admitted.is_ok(), expected.is_some());
                    if let (Ok(admission), Some(leave)) = (admitted, expected) {
                        prop_assert_eq!(admission == Admission::Closed, matches!(leave, Leave::Closed));
                        running.push_back((admission, leave));
                    }
                }
                11 => {
                    let transition = breaker.topology_changed(now);
                    prop_assert_eq!(transition.is_some(), model.state == BreakerState::Open);
                    if model.state == BreakerState::Open {
                        model.half_open();
                    }
                }
                _ if running.is_empty() => (),
                _ => {
                    let at = index.index(running.len());
                    let (admission, leave) = running.remove(at).unwrap();
                    let verdict = [FAILED, FAILED, FAILED, Verdict::Success, Verdict::Success, Verdict::Unknown][usize::from(step) - 5];
                    let before = model.state;
                    model.finish(leave, verdict, millis);
                    let told = breaker.finish(&policy, admission, verdict, now).map(|change| (change.from, change.to));
                    prop_assert_eq!(told, (before != model.state).then_some((before, model.state)));
                }
            }
            prop_assert_eq!(breaker.state(), model.state);
            let view = breaker.view(now);
            prop_assert_eq!(view.next_probe_ms, (model.state == BreakerState::Open).then(|| model.open_until.saturating_sub(millis)));
        }
    }
}

/// Every opening is told once, by whoever caused it; and when all is over it still works.
#[test]
fn threads_that_race_tell_each_change_once() {
    let policy = BreakerPolicy {
        failure_threshold: 3,
        success_threshold: 2,
        recovery_timeout: Duration::from_micros(50),
        half_open_max: 2,
        ..BreakerPolicy::default()
    };
    let start = Instant::now();
    let breaker = Breaker::new(start);
    let (opened, closed, clock) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let (breaker, policy, opened, closed, clock) = (&breaker, &policy, &opened, &closed, &clock);
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..50_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let now = start + Duration::from_micros(clock.fetch_add(1, SeqCst));
                    let Ok(admission) = breaker.admit(policy, now) else { continue };
                    let verdict =
                        [FAILED, Verdict::Success, Verdict::Success, Verdict::Unknown, FAILED][random as usize % 5];
                    match breaker.finish(policy, admission, verdict, now).map(|change| change.to) {
                        Some(BreakerState::Open) => _ = opened.fetch_add(1, SeqCst),
                        Some(BreakerState::Closed) => _ = closed.fetch_add(1, SeqCst),
                        Some(BreakerState::HalfOpen) => panic!("no verdict makes it half-open"),
                        None => (),
                    }
                }
            });
        }
    });
    let end = start + Duration::from_secs(60);
    let (opened, closed) = (opened.load(SeqCst), closed.load(SeqCst));
    assert!(opened > 100 && closed > 10 && closed <= opened, "{opened} {closed}: the test tries too little");
    assert_eq!(breaker.view(end).opened_total, opened);
    while breaker.state() != BreakerState::Closed {
        let probe = breaker.admit(&policy, end).expect("no place is lost");
        breaker.finish(&policy, probe, Verdict::Success, end);
    }
}
