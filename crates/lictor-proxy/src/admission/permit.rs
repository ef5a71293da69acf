//! Leave to send: the breaker's, and a place among the running requests. Both are given back when they are dropped.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::breaker::{Admission, BreakerState, BreakerView, Forced, Transition, Verdict};
use lictor_core::ejection::is_of_one;
use lictor_core::policy::Limits;
use lictor_core::{Failure, Reason};
use tracing::{info, warn};

use super::recovery;
use crate::choose::verdict::{Judged, judge};
use crate::stores::metrics::Metrics;
use crate::stores::millis::Millis;
use crate::stores::outcome::Outcome;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// A place among the upstream's running requests.
#[derive(Debug)]
pub(crate) struct Running(Rc<UpstreamState>);

impl Running {
    /// A place that is free.
    pub(crate) fn try_enter(upstream: &Rc<UpstreamState>, route: Option<usize>) -> Option<Self> {
        let limits = &upstream.policy(route).limits;
        upstream.upstream.in_flight.enter(limits.max_in_flight).then(|| Self(Rc::clone(upstream)))
    }

    /// A place, once one is free.
    pub(crate) async fn enter(upstream: &Rc<UpstreamState>, route: Option<usize>) -> Result<Self, Failure> {
        if let Some(running) = Self::try_enter(upstream, route) {
            return Ok(running);
        }
        Box::pin(Self::wait(upstream, &upstream.policy(route).limits)).await
    }

    async fn wait(upstream: &Rc<UpstreamState>, limits: &Limits) -> Result<Self, Failure> {
        let in_flight = &upstream.upstream.in_flight;
        let overloaded =
            |sentence: String| Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1));
        let Some(_waiting) = in_flight.wait(limits.max_pending) else {
            let sentence =
                format!("{} requests are in flight and {} wait already", limits.max_in_flight, limits.max_pending);
            return Err(overloaded(sentence));
        };
        let until = tokio::time::Instant::now() + limits.pending_timeout;
        loop {
            // A place that another worker frees is noticed by looking again.
            let again = tokio::time::Instant::now() + Duration::from_millis(5);
            let _ = tokio::time::timeout_at(again.min(until), upstream.freed.notified()).await;
            if in_flight.enter(limits.max_in_flight) {
                return Ok(Self(Rc::clone(upstream)));
            }
            if tokio::time::Instant::now() >= until {
                let waited = Millis(limits.pending_timeout);
                return Err(overloaded(format!("{} requests are in flight; waited {waited}", limits.max_in_flight)));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.upstream.in_flight.leave();
        self.0.freed.notify_one();
    }
}

/// The breaker's leave to send, which it wants back with a verdict. Dropped without one, it counts nothing.
#[derive(Debug)]
pub(crate) struct Probe {
    worker: Rc<Worker>,
    upstream: Rc<UpstreamState>,
    route: Option<usize>,
    admission: Option<Admission>,
    since: Instant,
    /// When the answer's head came.
    head: Option<Instant>,
}

impl Probe {
    pub(crate) fn admit(
        worker: &Rc<Worker>,
        upstream: &Rc<UpstreamState>,
        route: Option<usize>,
        now: Instant,
    ) -> Result<Self, Failure> {
        let policy = &upstream.policy(route).breaker;
        match upstream.upstream.breaker.admit(policy, now) {
            Ok(admission) => {
                let (worker, upstream) = (Rc::clone(worker), Rc::clone(upstream));
                Ok(Self { worker, upstream, route, admission: Some(admission), since: now, head: None })
            }
            Err(wait) => {
                let sentence = is_open(&upstream.upstream.breaker.view(Instant::now()), wait);
                Err(Failure::new(Reason::BreakerOpen, sentence).retry_after(wait))
            }
        }
    }

    /// Few may go until it has a verdict.
    pub(crate) fn is_of_half_open(&self) -> bool {
        matches!(self.admission, Some(Admission::Probe(_)))
    }

    /// The answer's head has come: what follows is no matter of time.
    pub(crate) fn answered(&mut self, at: Instant) {
        self.head = Some(at);
    }

    /// What it became, if this changed it.
    pub(crate) fn finish(mut self, verdict: Verdict, now: Instant) -> Option<BreakerState> {
        self.give_back(verdict, now)
    }

    /// The request failed for this reason.
    pub(crate) fn failed(self, reason: Reason) -> Option<BreakerState> {
        let judged = judge(self.upstream.policy(self.route), Outcome::Failed(reason), None);
        self.finish(if judged == Judged::Failed { Verdict::Failure(reason) } else { Verdict::Unknown }, Instant::now())
    }

    /// The answer is whole; a gRPC call ended with this status, and most of those are answers.
    pub(crate) fn whole(self, status: Option<u16>, now: Instant) -> Option<BreakerState> {
        let judged = judge(self.upstream.policy(self.route), Outcome::Status(200), status);
        self.finish(if judged == Judged::Failed { Verdict::Failure(Reason::Status) } else { Verdict::Success }, now)
    }

    fn give_back(&mut self, verdict: Verdict, now: Instant) -> Option<BreakerState> {
        let admission = self.admission.take()?;
        let policy = &self.upstream.policy(self.route).breaker;
        let breaker = &self.upstream.upstream.breaker;
        let took = |head: Instant| head.saturating_duration_since(self.since);
        let is_slow = policy.slow_call.zip(self.head).is_some_and(|(slow, head)| took(head) > slow.over);
        let verdict = if is_slow && verdict == Verdict::Success { Verdict::Slow } else { verdict };
        let endpoints = &self.upstream.upstream.endpoints;
        let change = breaker.finish_unless(policy, admission, verdict, now, || is_of_one(endpoints, now))?;
        tell(&self.worker.shared.metrics, &self.upstream.upstream.name, &change);
        if change.to == BreakerState::Open {
            let (worker, name) = (Rc::clone(&self.worker), Arc::clone(&self.upstream.upstream.name));
            recovery::begin(&self.worker, &self.upstream, self.route, move |change| {
                tell(&worker.shared.metrics, &name, change);
            });
        }
        Some(change.to)
    }
}

/// Tells a change of a breaker to metrics, log and `/events`.
pub(crate) fn tell(metrics: &Metrics, upstream: &str, change: &Transition) {
    metrics.breaker_changed(upstream, change.to.as_str(), change.cause);
    let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause);
    if change.to == BreakerState::Closed {
        info!(target: "lictor::event", kind = "breaker_closed", %upstream, from, to, cause, "the circuit breaker changed");
    } else {
        warn!(target: "lictor::event", kind = "breaker_changed", %upstream, from, to, cause, "the circuit breaker changed");
    }
}

/// Why a breaker lets nothing pass for so long.
pub(crate) fn is_open(breaker: &BreakerView, wait: Duration) -> String {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    match breaker.forced {
        Some(Forced::Open) => format!("an operator has opened the circuit breaker, for {seconds} s more"),
        None if breaker.next_connect_ms.is_some() => {
            format!("the circuit breaker is open: nobody could be connected to; that is tried again in {seconds} s")
        }
        _ => format!("the circuit breaker is open; the next probe may go in {seconds} s"),
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.admission.is_some() {
            self.give_back(Verdict::Unknown, Instant::now());
        }
    }
}
