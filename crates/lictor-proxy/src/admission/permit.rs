//! Leave to send: the breaker's, and a place among the running requests. Both are given back when they are dropped.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::breaker::{Admission, Blame, BreakerState, BreakerView, Forced, OpeningView, Transition, Verdict};
use lictor_core::deadline::{End, sooner};
use lictor_core::ejection::is_of_one;
use lictor_core::limits::{InFlight, Shed};
use lictor_core::policy::{Limits, Priority};
use lictor_core::{Failure, Reason};
use tracing::{info, warn};

use super::recovery;
use crate::choose::verdict::{Judged, judge};
use crate::clock::{self, Stage};
use crate::stores::metrics::Metrics;
use crate::stores::millis::Millis;
use crate::stores::outcome::Outcome;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// A place among the upstream's running requests, and among its route's, where that has limits of its own.
#[derive(Debug)]
pub(crate) struct Running {
    of_upstream: Option<Rc<UpstreamState>>,
    of_route: Option<Arc<InFlight>>,
}

impl Running {
    /// A place that is free.
    pub(crate) fn try_enter(upstream: &Rc<UpstreamState>, route: Option<usize>) -> Option<Self> {
        let own = upstream.bounded(route);
        if let Some((in_flight, limits)) = own
            && !in_flight.places.enter(limits.max_in_flight)
        {
            return None;
        }
        let all = &upstream.upstream.in_flight.places;
        if !all.enter(upstream.upstream.policy.limits.max_in_flight) {
            own.inspect(|(in_flight, _)| in_flight.places.leave());
            return None;
        }
        let of_route = own.map(|(in_flight, _)| Arc::clone(in_flight));
        Some(Self { of_upstream: Some(Rc::clone(upstream)), of_route })
    }

    /// A place, once one is free: first one of its route's, then one of its upstream's.
    pub(crate) async fn enter(
        worker: &Worker,
        upstream: &Rc<UpstreamState>,
        route: Option<usize>,
        end: Option<End>,
    ) -> Result<Self, Failure> {
        if let Some(running) = Self::try_enter(upstream, route) {
            return Ok(running);
        }
        Box::pin(Self::wait(worker, upstream, route, end)).await
    }

    async fn wait(
        worker: &Worker,
        upstream: &Rc<UpstreamState>,
        route: Option<usize>,
        end: Option<End>,
    ) -> Result<Self, Failure> {
        let (metrics, priority) = (&worker.shared.metrics, upstream.policy(route).priority);
        let mut running = Self { of_upstream: None, of_route: None };
        if let Some((in_flight, limits)) = upstream.bounded(route) {
            place(metrics, in_flight, limits, priority, end).await?;
            running.of_route = Some(Arc::clone(in_flight));
        }
        place(metrics, &upstream.upstream.in_flight, &upstream.upstream.policy.limits, priority, end).await?;
        running.of_upstream = Some(Rc::clone(upstream));
        Ok(running)
    }
}

/// Waits for one of these places, which is to be given back.
async fn place(
    metrics: &Metrics,
    in_flight: &InFlight,
    limits: &Limits,
    priority: Priority,
    end: Option<End>,
) -> Result<(), Failure> {
    let most = limits.max_in_flight;
    if in_flight.places.enter(most) {
        return Ok(());
    }
    let refused = |sentence: String| {
        in_flight.refuse();
        Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1))
    };
    let Some(waiting) = in_flight.places.queue(most, limits.max_pending, priority) else {
        return Err(refused(format!("{most} requests are in flight and {} wait already", limits.max_pending)));
    };
    let patience = End { at: Instant::now() + limits.pending_timeout, reason: Reason::Overloaded };
    match clock::within(sooner(end, Some(patience)), waiting).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Shed)) => {
            Err(refused(format!("{most} requests are in flight, and more important ones wait (routes[].priority)")))
        }
        Err(End { reason: Reason::Overloaded, .. }) => {
            let waited = Millis(limits.pending_timeout);
            Err(refused(format!("{most} requests are in flight; waited {waited}")))
        }
        Err(end) => {
            in_flight.refuse();
            let sentence = format!("{most} requests are in flight; the time was over before there was a place");
            Err(clock::ran_out(metrics, end, Stage::Queue, sentence))
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(upstream) = &self.of_upstream {
            upstream.upstream.in_flight.places.leave();
        }
        if let Some(route) = &self.of_route {
            route.places.leave();
        }
    }
}

/// Tells whom a verdict is about, with lictor's word for what went wrong, if it is not what was answered.
pub(crate) type Told<'a> = &'a dyn Fn(Option<&'static str>) -> Blame;

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
    pub(crate) fn finish(mut self, verdict: Verdict, now: Instant, told: Told<'_>) -> Option<BreakerState> {
        self.give_back(verdict, now, Some(told))
    }

    /// The request failed for this reason.
    pub(crate) fn failed(self, reason: Reason, told: Told<'_>) -> Option<BreakerState> {
        let judged = judge(self.upstream.policy(self.route), Outcome::Failed(reason), None);
        let verdict = if judged == Judged::Failed { Verdict::Failure(reason) } else { Verdict::Unknown };
        self.finish(verdict, Instant::now(), told)
    }

    /// The answer is whole; a gRPC call ended with this status, and most of those are answers.
    pub(crate) fn whole(self, status: Option<u16>, now: Instant, told: Told<'_>) -> Option<BreakerState> {
        let judged = judge(self.upstream.policy(self.route), Outcome::Status(200), status);
        let verdict = if judged == Judged::Failed { Verdict::Failure(Reason::Status) } else { Verdict::Success };
        self.finish(verdict, now, told)
    }

    fn give_back(&mut self, verdict: Verdict, now: Instant, told: Option<Told<'_>>) -> Option<BreakerState> {
        let admission = self.admission.take()?;
        let policy = &self.upstream.policy(self.route).breaker;
        let breaker = &self.upstream.upstream.breaker;
        let took = |head: Instant| head.saturating_duration_since(self.since);
        let is_slow = policy.slow_call.zip(self.head).is_some_and(|(slow, head)| took(head) > slow.over);
        let verdict = if is_slow && verdict == Verdict::Success { Verdict::Slow } else { verdict };
        let word = match verdict {
            Verdict::Failure(Reason::Status) => Some(None),
            Verdict::Failure(reason) => Some(Some(reason.as_str())),
            Verdict::Slow => Some(Some("slow_call")),
            Verdict::Success | Verdict::Unknown => None,
        };
        if let (Some(word), Some(told)) = (word, told) {
            breaker.blame(policy, &admission, now, || told(word));
        }
        let (endpoints, steering) = (&self.upstream.upstream.endpoints, &self.upstream.upstream.steering);
        let is_spared = || is_of_one(endpoints, &steering.in_force(now), now);
        let change = breaker.finish_unless(policy, admission, verdict, now, is_spared)?;
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
        let after_ms = change.opening.as_ref().and_then(|opening| opening.lasted_ms);
        info!(target: "lictor::event", kind = "breaker_closed", %upstream, from, to, cause, after_ms, "the circuit breaker changed");
    } else {
        // That of an operator says nothing of what was before.
        let led = change.opening.as_ref().filter(|_| change.to == BreakerState::Open && cause != "operator");
        let led = led.and_then(OpeningView::led);
        warn!(target: "lictor::event", kind = "breaker_changed", %upstream, from, to, cause, led, "the circuit breaker changed");
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
            self.give_back(Verdict::Unknown, Instant::now(), None);
        }
    }
}
