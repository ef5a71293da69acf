//! A service's circuit breaker: closed, open, half-open.
//!
//! One per upstream and process, shared by all workers. Closed, it costs one relaxed load to admit and one addition to
//! finish; the mutex guards changes of state and the half-open state, both rare.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use crate::outcome::Reason;
use crate::policy::{BreakerPolicy, ErrorRate};

const BUCKETS: usize = 10;
/// How long it is open at first, unless `recovery_timeout` is shorter; then twice as long each time.
const FIRST_REST: Duration = Duration::from_secs(5);
/// When a connection is tried first, where none was to be had; then after twice the time each time.
const FIRST_CONNECT: Duration = Duration::from_secs(1);

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    epoch: Instant,
    state: AtomicU8,
    consecutive: AtomicU32,
    failures: Buckets,
    slow_calls: Buckets,
    slow: Mutex<Slow>,
}

/// The states, in the encoding of the older services' gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// A few probes pass.
    HalfOpen,
}

impl BreakerState {
    /// The word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// `circuit_breaker_state`.
    pub fn as_gauge(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// Leave to send. It has to be given back with [`Breaker::finish`].
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// The breaker was closed.
    Closed,
    /// A probe of the half-open state with this number: one that outlives it says nothing in the next.
    Probe(u64),
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service works.
    Success,
    /// It works, and took longer than `slow_call` allows.
    Slow,
    /// It does not.
    Failure(Reason),
    /// It says nothing about the service: the client went away, say.
    Unknown,
}

/// A change of state, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: BreakerState,
    /// After.
    pub to: BreakerState,
    /// Why.
    pub cause: &'static str,
}

/// The breaker for a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerView {
    /// Now.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Since the last change.
    pub since_ms: u64,
    /// Until a probe may go, while open.
    pub next_probe_ms: Option<u64>,
    /// Until a connection is tried again, while open because none was to be had.
    pub next_connect_ms: Option<u64>,
    /// Connections that were tried since it opened.
    pub connects_tried: u32,
    /// Of the last change.
    pub cause: &'static str,
    /// How often it has opened.
    pub opened_total: u64,
    /// What an operator has ordered, if it is that.
    pub forced: Option<Forced>,
    /// How long the order still holds.
    pub forced_for_ms: Option<u64>,
}

/// What an operator can order, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forced {
    /// Every request is refused, and none is a probe.
    Open,
    /// No request is refused, whatever fails.
    Closed,
}

/// A slice of the error-rate window: the slice's number, requests and failures in one word, so that all three change
/// at once.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

/// A window.
#[derive(Debug, Default)]
struct Buckets([Bucket; BUCKETS]);

#[derive(Debug)]
struct Slow {
    changed: Instant,
    /// Open: when a probe may go.
    probe_at: Instant,
    /// Openings since it was last closed.
    reopened: u32,
    /// Open because nobody could be connected to: when that is tried again.
    connect_at: Option<Instant>,
    connects: u32,
    /// Counts half-open states.
    round: u64,
    probes: u32,
    successes: u32,
    cause: &'static str,
    opened_total: u64,
    /// An operator's order, and when it ends.
    forced: Option<(Forced, Instant)>,
}

impl Breaker {
    /// Closed.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            state: AtomicU8::new(BreakerState::Closed.as_gauge()),
            consecutive: AtomicU32::new(0),
            failures: Buckets::default(),
            slow_calls: Buckets::default(),
            slow: Mutex::new(Slow {
                changed: now,
                probe_at: now,
                reopened: 0,
                connect_at: None,
                connects: 0,
                round: 0,
                probes: 0,
                successes: 0,
                cause: "start",
                opened_total: 0,
                forced: None,
            }),
        }
    }

    /// Leave to send, or the time until it is worth asking again.
    pub fn admit(&self, policy: &BreakerPolicy, now: Instant) -> Result<Admission, Duration> {
        if self.state() == BreakerState::Closed {
            return Ok(Admission::Closed);
        }
        let mut slow = self.slow.lock();
        match slow.forced {
            Some((Forced::Open, until)) if now < until => return Err(until - now),
            Some(_) => return Ok(Admission::Closed), // over; `expire` is about to say so
            None if !policy.enabled => return Ok(Admission::Closed),
            None => (),
        }
        match self.state() {
            BreakerState::Closed => Ok(Admission::Closed),
            BreakerState::Open if now < slow.probe_at => {
                let next = slow.connect_at.map_or(slow.probe_at, |at| at.min(slow.probe_at));
                Err(next.saturating_duration_since(now))
            }
            BreakerState::Open => {
                self.change(&mut slow, BreakerState::HalfOpen, "recovery_timeout", now);
                slow.probes = 1;
                Ok(Admission::Probe(slow.round))
            }
            BreakerState::HalfOpen if slow.probes < policy.half_open_max => {
                slow.probes += 1;
                Ok(Admission::Probe(slow.round))
            }
            BreakerState::HalfOpen => Err(Duration::from_secs(1)),
        }
    }

    /// Takes the leave back and counts the verdict.
    #[inline]
    pub fn finish(
        &self,
        policy: &BreakerPolicy,
        admission: Admission,
        verdict: Verdict,
        now: Instant,
    ) -> Option<Transition> {
        self.finish_unless(policy, admission, verdict, now, || false)
    }

    /// The same; a closed one that would open stays closed where `is_spared`: it is asked only then.
    pub fn finish_unless(
        &self,
        policy: &BreakerPolicy,
        admission: Admission,
        verdict: Verdict,
        now: Instant,
        is_spared: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        if !policy.enabled {
            return None;
        }
        match admission {
            Admission::Closed => self.count(policy, verdict, now, is_spared),
            Admission::Probe(round) => self.probed(policy, round, verdict, now),
        }
    }

    /// A new healthy instance appeared: there is no need to wait any longer for a probe.
    pub fn topology_changed(&self, now: Instant) -> Option<Transition> {
        if self.state() != BreakerState::Open {
            return None;
        }
        let mut slow = self.slow.lock();
        if self.state() != BreakerState::Open || slow.forced.is_some() {
            return None;
        }
        Some(self.change(&mut slow, BreakerState::HalfOpen, "new_instance", now))
    }

    /// Which opening this is, while it is open because nobody could be connected to.
    pub fn unconnected(&self) -> Option<u64> {
        let slow = self.slow.lock();
        let is_it = self.state() == BreakerState::Open && slow.forced.is_none() && slow.connect_at.is_some();
        is_it.then_some(slow.opened_total)
    }

    /// How long to wait before a connection is tried, 1, 2, 4 s and so on up to `recovery_timeout`; `None`: that opening is
    /// over.
    pub fn next_connect(&self, policy: &BreakerPolicy, opening: u64, now: Instant) -> Option<Duration> {
        if self.unconnected() != Some(opening) {
            return None;
        }
        let mut slow = self.slow.lock();
        let wait = doubled(FIRST_CONNECT, slow.connects).min(policy.recovery_timeout);
        slow.connects += 1;
        slow.connect_at = Some(now + wait);
        Some(wait)
    }

    /// A connection was made: there is no need to wait any longer for a probe.
    pub fn connected(&self, opening: u64, now: Instant) -> Option<Transition> {
        if self.unconnected() != Some(opening) {
            return None;
        }
        let mut slow = self.slow.lock();
        (self.state() == BreakerState::Open).then(|| self.change(&mut slow, BreakerState::HalfOpen, "connected", now))
    }

    /// An operator's order, until then; with `None` it judges by itself again, and begins closed.
    pub fn force(&self, order: Option<(Forced, Instant)>, now: Instant) -> Option<Transition> {
        let mut slow = self.slow.lock();
        slow.forced = order;
        let to = match order {
            Some((Forced::Open, until)) => {
                slow.probe_at = until;
                slow.connect_at = None;
                slow.opened_total += 1;
                BreakerState::Open
            }
            Some((Forced::Closed, _)) | None => BreakerState::Closed,
        };
        let change = self.change(&mut slow, to, "operator", now);
        (change.from != change.to).then_some(change)
    }

    /// Ends an operator's order whose time is over: what it was, and the change if it makes one.
    pub fn expire(&self, now: Instant) -> Option<(Forced, Option<Transition>)> {
        let mut slow = self.slow.lock();
        let (order, _) = slow.forced.take_if(|(_, until)| *until <= now)?;
        let is_open = order == Forced::Open;
        Some((order, is_open.then(|| self.change(&mut slow, BreakerState::Closed, "order_ended", now))))
    }

    /// Now.
    pub fn state(&self) -> BreakerState {
        match self.state.load(Relaxed) {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// For a page.
    pub fn view(&self, now: Instant) -> BreakerView {
        let slow = self.slow.lock();
        let state = self.state();
        let wait = slow.probe_at.saturating_duration_since(now).as_millis() as u64;
        BreakerView {
            state,
            failures: self.consecutive.load(Relaxed),
            since_ms: now.saturating_duration_since(slow.changed).as_millis() as u64,
            next_probe_ms: (state == BreakerState::Open).then_some(wait),
            next_connect_ms: slow
                .connect_at
                .filter(|_| state == BreakerState::Open)
                .map(|at| at.saturating_duration_since(now).as_millis() as u64),
            connects_tried: slow.connects.saturating_sub(1),
            cause: slow.cause,
            opened_total: slow.opened_total,
            forced: slow.forced.map(|(order, _)| order),
            forced_for_ms: slow.forced.map(|(_, until)| until.saturating_duration_since(now).as_millis() as u64),
        }
    }

    fn count(
        &self,
        policy: &BreakerPolicy,
        verdict: Verdict,
        now: Instant,
        is_spared: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let reason = match verdict {
            Verdict::Unknown => return None,
            Verdict::Success | Verdict::Slow => {
                if self.consecutive.load(Relaxed) != 0 {
                    self.consecutive.store(0, Relaxed);
                }
                if let Some(rate) = &policy.error_rate {
                    self.add(&self.failures, rate, now, 0);
                }
                return self.count_slow(policy, verdict == Verdict::Slow, now);
            }
            Verdict::Failure(reason) => reason,
        };
        // A request admitted while closed may end when the breaker has opened already: it changes nothing then.
        if self.state() != BreakerState::Closed {
            return None;
        }
        let in_a_row = self.consecutive.fetch_add(1, Relaxed) + 1;
        let is_rate_exceeded = policy.error_rate.as_ref().is_some_and(|rate| {
            self.add(&self.failures, rate, now, 1);
            self.is_exceeded(&self.failures, rate, now)
        });
        if in_a_row < policy.failure_threshold && !is_rate_exceeded || is_spared() {
            return None;
        }
        let mut slow = self.slow.lock();
        if self.state() != BreakerState::Closed || slow.forced.is_some() {
            return None;
        }
        Some(self.open(&mut slow, policy, reason.as_str(), is_connect(reason), now))
    }

    /// An answer that was slow or was not, where that counts.
    #[inline]
    fn count_slow(&self, policy: &BreakerPolicy, is_slow: bool, now: Instant) -> Option<Transition> {
        let rate = &policy.slow_call.as_ref()?.rate;
        self.add(&self.slow_calls, rate, now, u64::from(is_slow));
        if !is_slow || self.state() != BreakerState::Closed || !self.is_exceeded(&self.slow_calls, rate, now) {
            return None;
        }
        let mut slow = self.slow.lock();
        let is_free = self.state() == BreakerState::Closed && slow.forced.is_none();
        is_free.then(|| self.open(&mut slow, policy, "slow_call", false, now))
    }

    fn probed(&self, policy: &BreakerPolicy, round: u64, verdict: Verdict, now: Instant) -> Option<Transition> {
        let mut slow = self.slow.lock();
        if self.state() != BreakerState::HalfOpen || slow.round != round {
            return None; // another probe has decided
        }
        slow.probes = slow.probes.saturating_sub(1);
        match verdict {
            Verdict::Unknown => None,
            Verdict::Slow => Some(self.open(&mut slow, policy, "slow_call", false, now)),
            Verdict::Failure(reason) => Some(self.open(&mut slow, policy, reason.as_str(), is_connect(reason), now)),
            Verdict::Success => {
                slow.successes += 1;
                if slow.successes < policy.success_threshold {
                    return None;
                }
                Some(self.change(&mut slow, BreakerState::Closed, "success_threshold", now))
            }
        }
    }

    /// For a growing time; where nobody could be connected to, that is tried meanwhile, and the time is the longest.
    fn open(
        &self,
        slow: &mut Slow,
        policy: &BreakerPolicy,
        cause: &'static str,
        is_connect: bool,
        now: Instant,
    ) -> Transition {
        let rest = if is_connect { policy.recovery_timeout } else { doubled(FIRST_REST, slow.reopened) };
        slow.probe_at = now + rest.min(policy.recovery_timeout);
        slow.connect_at = is_connect.then_some(now + FIRST_CONNECT);
        slow.connects = 0;
        slow.reopened += 1;
        slow.opened_total += 1;
        self.change(slow, BreakerState::Open, cause, now)
    }

    fn change(&self, slow: &mut Slow, to: BreakerState, cause: &'static str, now: Instant) -> Transition {
        let from = self.state();
        slow.changed = now;
        slow.cause = cause;
        slow.probes = 0;
        slow.successes = 0;
        slow.round += u64::from(to == BreakerState::HalfOpen);
        if to == BreakerState::Closed {
            self.consecutive.store(0, Relaxed);
            slow.reopened = 0;
            for bucket in self.failures.0.iter().chain(&self.slow_calls.0) {
                bucket.0.store(0, Relaxed);
            }
        }
        self.state.store(to.as_gauge(), Relaxed);
        Transition { from, to, cause }
    }

    /// Adds a request to its slice of the window; a slice from an earlier round starts over.
    #[inline]
    fn add(&self, buckets: &Buckets, rate: &ErrorRate, now: Instant, failures: u64) {
        let number = self.slice(rate, now);
        let bucket = &buckets.0[(number % BUCKETS as u64) as usize].0;
        let word = bucket.load(Relaxed);
        if word >> 48 == number & 0xffff && word & 0xff_ffff != 0xff_ffff {
            bucket.fetch_add(failures << 24 | 1, Relaxed);
        } else if word >> 48 != number & 0xffff {
            // Losing a race here loses one count of a ratio.
            let _ = bucket.compare_exchange(word, number << 48 | failures << 24 | 1, Relaxed, Relaxed);
        }
    }

    fn is_exceeded(&self, buckets: &Buckets, rate: &ErrorRate, now: Instant) -> bool {
        let number = self.slice(rate, now);
        let (mut requests, mut failures) = (0, 0);
        for bucket in &buckets.0 {
            let word = bucket.0.load(Relaxed);
            let age = (number & 0xffff).wrapping_sub(word >> 48) & 0xffff;
            if age < BUCKETS as u64 {
                requests += word & 0xff_ffff;
                failures += word >> 24 & 0xff_ffff;
            }
        }
        requests >= u64::from(rate.min_requests) && failures as f64 >= requests as f64 * rate.threshold
    }

    /// The number of the current slice; from 1, so that an empty word belongs to none.
    fn slice(&self, rate: &ErrorRate, now: Instant) -> u64 {
        let width = (rate.window / BUCKETS as u32).max(Duration::from_millis(1));
        let number = now.saturating_duration_since(self.epoch).as_nanos() / width.as_nanos();
        number as u64 % 0xffff + 1
    }
}

/// Nobody could be connected to: then there is something that can be tried without a request.
fn is_connect(reason: Reason) -> bool {
    matches!(reason, Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed)
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SlowCall;

    const FAILED: Verdict = Verdict::Failure(Reason::ConnectRefused);

    fn request(breaker: &Breaker, policy: &BreakerPolicy, verdict: Verdict, now: Instant) -> Option<Transition> {
        let admission = breaker.admit(policy, now).ok()?;
        breaker.finish(policy, admission, verdict, now)
    }

    fn opened(policy: &BreakerPolicy, now: Instant) -> Breaker {
        let breaker = Breaker::new(now);
        for _ in 0..policy.failure_threshold {
            request(&breaker, policy, FAILED, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = Breaker::new(now);
        for verdict in [FAILED, FAILED, FAILED, FAILED, Verdict::Success, FAILED, FAILED, FAILED, FAILED] {
            assert_eq!(request(&breaker, &policy, verdict, now), None);
        }
        let change = request(&breaker, &policy, FAILED, now).unwrap();
        assert_eq!((change.to, change.cause), (BreakerState::Open, "connect_refused"));
        assert_eq!(breaker.admit(&policy, now), Err(FIRST_CONNECT), "a connection is tried");
        assert_eq!(breaker.view(now).next_probe_ms, Some(60_000));
    }

    #[test]
    fn half_of_twenty_open_it_although_never_five_in_a_row() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = Breaker::new(now);
        let mut requests = 0;
        while breaker.state() == BreakerState::Closed {
            let at = now + Duration::from_millis(requests * 100);
            request(&breaker, &policy, if requests % 2 == 0 { Verdict::Success } else { FAILED }, at);
            requests += 1;
            assert!(requests <= 20);
        }
        assert_eq!(requests, 20);
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = Breaker::new(now);
        for second in 0..300 {
            let at = now + Duration::from_secs(second);
            request(&breaker, &policy, if second % 2 == 0 { FAILED } else { Verdict::Success }, at);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "10 requests in a window are too few to judge");
    }

    #[test]
    fn one_probe_at_a_time_and_three_successes_close_it() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = opened(&policy, now);
        let later = now + policy.recovery_timeout;
        for success in 1..=3 {
            let probe = breaker.admit(&policy, later).unwrap();
            assert_eq!(probe, Admission::Probe(1));
            assert!(breaker.admit(&policy, later).is_err(), "a second probe");
            let change = breaker.finish(&policy, probe, Verdict::Success, later);
            assert_eq!(change.is_some(), success == 3);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.view(later).failures, 0);
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_an_abandoned_one_frees_its_place() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = opened(&policy, now);
        let later = now + policy.recovery_timeout;
        assert_eq!(request(&breaker, &policy, Verdict::Unknown, later), None);
        let change = request(&breaker, &policy, FAILED, later).unwrap();
        assert_eq!(change.to, BreakerState::Open);
        assert_eq!(breaker.view(later).next_probe_ms, Some(60_000));
    }

    #[test]
    fn late_failures_do_not_disturb_a_half_open_breaker() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = Breaker::new(now);
        let early: Vec<_> = (0..10).map(|_| breaker.admit(&policy, now).unwrap()).collect();
        for _ in 0..5 {
            request(&breaker, &policy, FAILED, now);
        }
        let later = now + policy.recovery_timeout;
        let probe = breaker.admit(&policy, later).unwrap();
        for admission in early {
            assert_eq!(breaker.finish(&policy, admission, FAILED, later), None);
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.finish(&policy, probe, Verdict::Success, later);
    }

    #[test]
    fn a_probe_of_an_earlier_half_open_state_says_nothing_in_a_later_one() {
        let (policy, now) = (BreakerPolicy { half_open_max: 2, ..BreakerPolicy::default() }, Instant::now());
        let breaker = opened(&policy, now);
        let (later, latest) = (now + policy.recovery_timeout, now + 2 * policy.recovery_timeout);
        let slow = breaker.admit(&policy, later).unwrap();
        request(&breaker, &policy, FAILED, later);
        let probes = [(); 2].map(|()| breaker.admit(&policy, latest).unwrap());
        assert_eq!(breaker.finish(&policy, slow, FAILED, latest), None);
        assert!(breaker.admit(&policy, latest).is_err(), "a third probe at a time");
        assert_eq!((probes, breaker.state()), ([Admission::Probe(2), Admission::Probe(2)], BreakerState::HalfOpen));
    }

    #[test]
    fn a_new_instance_ends_the_wait() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = opened(&policy, now);
        assert_eq!(breaker.topology_changed(now).unwrap().to, BreakerState::HalfOpen);
        assert_eq!(breaker.admit(&policy, now), Ok(Admission::Probe(1)));
        assert_eq!(breaker.topology_changed(now), None);
    }

    #[test]
    fn it_is_open_for_five_seconds_then_ten_and_so_on_until_it_was_closed() {
        let (policy, mut now) = (BreakerPolicy::default(), Instant::now());
        let breaker = Breaker::new(now);
        let failed = Verdict::Failure(Reason::Status);
        for _ in 0..5 {
            request(&breaker, &policy, failed, now);
        }
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert_eq!(breaker.admit(&policy, now), Err(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(request(&breaker, &policy, failed, now).unwrap().to, BreakerState::Open);
        }
        now += policy.recovery_timeout;
        for _ in 0..policy.success_threshold {
            request(&breaker, &policy, Verdict::Success, now);
        }
        for _ in 0..5 {
            request(&breaker, &policy, failed, now);
        }
        assert_eq!(breaker.admit(&policy, now), Err(Duration::from_secs(5)), "from the beginning");
        let short = BreakerPolicy { recovery_timeout: Duration::from_secs(2), ..policy };
        let breaker = Breaker::new(now);
        for _ in 0..5 {
            request(&breaker, &short, failed, now);
        }
        assert_eq!(breaker.admit(&short, now), Err(short.recovery_timeout), "never longer than that");
    }

    #[test]
    fn while_nobody_can_be_connected_to_that_is_tried_and_ends_the_wait() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let breaker = opened(&policy, now);
        let opening = breaker.unconnected().unwrap();
        let waits: Vec<_> = (0..8).map_while(|_| breaker.next_connect(&policy, opening, now)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs));
        assert_eq!(breaker.view(now).connects_tried, 7);
        let change = breaker.connected(opening, now).unwrap();
        assert_eq!((change.to, change.cause), (BreakerState::HalfOpen, "connected"));
        assert_eq!((breaker.connected(opening, now), breaker.next_connect(&policy, opening, now)), (None, None));
        request(&breaker, &policy, FAILED, now);
        assert!(breaker.unconnected().is_some_and(|again| again != opening), "another opening");
        assert_eq!(breaker.connected(opening, now), None, "that is over");
        breaker.force(Some((Forced::Open, now + policy.recovery_timeout)), now);
        assert_eq!(breaker.unconnected(), None, "an order is an order");
    }

    #[test]
    fn slow_calls_open_it_where_they_count_and_a_slow_probe_opens_it_again() {
        let now = Instant::now();
        let slow_call = Some(SlowCall::default());
        let policy = BreakerPolicy { slow_call, ..BreakerPolicy::default() };
        for (policy, opens) in [(policy.clone(), true), (BreakerPolicy::default(), false)] {
            let breaker = Breaker::new(now);
            for _ in 0..10 {
                assert_eq!(request(&breaker, &policy, Verdict::Success, now), None);
            }
            let changes: Vec<_> = (0..10).filter_map(|_| request(&breaker, &policy, Verdict::Slow, now)).collect();
            assert_eq!(
                changes.iter().map(|change| change.cause).collect::<Vec<_>>(),
                ["slow_call"][..usize::from(opens)]
            );
        }
        let breaker = opened(&policy, now);
        let change = request(&breaker, &policy, Verdict::Slow, now + policy.recovery_timeout).unwrap();
        assert_eq!((change.to, change.cause), (BreakerState::Open, "slow_call"));
    }

    #[test]
    fn switched_off_it_never_opens() {
        let (policy, now) = (BreakerPolicy { enabled: false, ..BreakerPolicy::default() }, Instant::now());
        let breaker = Breaker::new(now);
        for _ in 0..100 {
            assert_eq!(request(&breaker, &policy, FAILED, now), None);
        }
        assert!(breaker.admit(&policy, now).is_ok());
    }

    #[test]
    fn an_operators_order_holds_for_its_time_and_then_it_judges_by_itself() {
        let (policy, now) = (BreakerPolicy::default(), Instant::now());
        let (breaker, minute) = (Breaker::new(now), Duration::from_secs(60));
        let change = breaker.force(Some((Forced::Open, now + minute)), now).unwrap();
        assert_eq!((change.to, change.cause), (BreakerState::Open, "operator"));
        assert_eq!(breaker.admit(&policy, now + minute / 2), Err(minute / 2));
        let disabled = BreakerPolicy { enabled: false, ..policy.clone() };
        assert_eq!(breaker.admit(&disabled, now), Err(minute), "an order is an order");
        assert_eq!(breaker.topology_changed(now), None);
        assert_eq!(breaker.view(now).forced, Some(Forced::Open));
        assert_eq!(breaker.expire(now), None);
        assert_eq!(breaker.admit(&policy, now + minute), Ok(Admission::Closed), "its time is over");
        let (order, change) = breaker.expire(now + minute).unwrap();
        assert_eq!((order, change.unwrap().to), (Forced::Open, BreakerState::Closed));

        breaker.force(Some((Forced::Closed, now + minute)), now);
        for _ in 0..50 {
            assert_eq!(request(&breaker, &policy, FAILED, now), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.force(None, now), None);
        let opened = (0..5).map(|_| request(&breaker, &policy, FAILED, now).is_some());
        assert_eq!(opened.collect::<Vec<_>>(), [false, false, false, false, true], "what was before is forgotten");
        assert_eq!(breaker.force(None, now).unwrap().to, BreakerState::Closed);
    }
}
