//! A service's circuit breaker: closed, open, half-open.
//!
//! One per upstream and process, shared by all workers. Closed, it costs one relaxed load to admit and one addition to
//! finish; the mutex guards changes of state and the half-open state, both rare.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::opening::{BLAMED, Blamed, Opening};
pub use self::opening::{Blame, OpeningView};
pub use self::state::{BreakerState, BreakerView, Forced, Transition};
use self::window::Window;
use crate::outcome::Reason;
use crate::policy::BreakerPolicy;

mod opening;
mod state;
#[cfg(test)]
mod tests;
mod window;

/// How long it is open at first, unless `recovery_timeout` is shorter; then twice as long each time.
const FIRST_REST: Duration = Duration::from_secs(5);
/// When a connection is tried first, where none was to be had; then after twice the time each time.
const FIRST_CONNECT: Duration = Duration::from_secs(1);

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    state: AtomicU8,
    consecutive: AtomicU32,
    failures: Window,
    slow_calls: Window,
    /// Locked only for requests that failed.
    blamed: Mutex<Blamed>,
    slow: Mutex<Slow>,
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
    /// The last time that it opened by itself.
    opening: Option<Opening>,
    /// An operator's order, and when it ends.
    forced: Option<(Forced, Instant)>,
}

impl Breaker {
    /// Closed.
    pub fn new(now: Instant) -> Self {
        Self {
            state: AtomicU8::new(BreakerState::Closed.as_gauge()),
            consecutive: AtomicU32::new(0),
            failures: Window::new(now),
            slow_calls: Window::new(now),
            blamed: Mutex::default(),
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
                opening: None,
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

    /// Notes a request that is about to count against it: should it open, that one is shown among those that led to it. One
    /// that ends after it has opened did not.
    pub fn blame(&self, policy: &BreakerPolicy, admission: &Admission, now: Instant, blame: impl FnOnce() -> Blame) {
        let is_late = *admission == Admission::Closed && self.state() != BreakerState::Closed;
        if !policy.enabled || is_late {
            return;
        }
        let blame = blame();
        let mut blamed = self.blamed.lock();
        if blamed.len() == BLAMED {
            blamed.pop_front();
        }
        blamed.push_back((now, blame));
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
            last_opened: slow.opening.as_ref().map(|opening| opening.view(now)),
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
                    self.failures.add(rate, now, false);
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
            self.failures.add(rate, now, true);
            self.failures.is_exceeded(rate, now)
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
        self.slow_calls.add(rate, now, is_slow);
        if !is_slow || self.state() != BreakerState::Closed || !self.slow_calls.is_exceeded(rate, now) {
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
        self.note_opening(slow, policy, cause, now);
        self.change(slow, BreakerState::Open, cause, now)
    }

    /// Keeps what led to it; while it is not closed, that stays what opened it first.
    fn note_opening(&self, slow: &mut Slow, policy: &BreakerPolicy, cause: &'static str, now: Instant) {
        let mut blamed = self.blamed.lock();
        match slow.opening.as_mut().filter(|opening| !opening.is_over()) {
            Some(opening) => opening.again(blamed.back()),
            None => {
                let rates = [policy.error_rate, policy.slow_call.map(|slow| slow.rate)];
                let window = rates.into_iter().flatten().map(|rate| rate.window).max().unwrap_or_default();
                let in_a_row = self.consecutive.load(Relaxed);
                slow.opening = Some(Opening::new(cause, &blamed, in_a_row, window, now));
            }
        }
        blamed.clear();
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
            self.failures.clear();
            self.slow_calls.clear();
            self.blamed.lock().clear();
            slow.opening.iter_mut().for_each(|opening| opening.close(now));
        }
        self.state.store(to.as_gauge(), Relaxed);
        let opening = slow.opening.as_ref().map(|opening| opening.view(now));
        Transition { from, to, cause, opening }
    }
}

/// Nobody could be connected to: then there is something that can be tried without a request.
fn is_connect(reason: Reason) -> bool {
    matches!(reason, Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed)
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(20))
}
