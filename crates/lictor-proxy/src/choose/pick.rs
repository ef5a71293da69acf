//! Which endpoint: not tried yet, not ejected, not stopping, as far as there are such.

use std::cell::Cell;
use std::time::{Duration, Instant};

use lictor_core::ejection::is_panic;
use lictor_core::policy::Policy;
use lictor_core::{Address, Failure, Reason};

use super::steer::pick_by_order;
use crate::world::view::UpstreamState;

/// Chooses among the endpoints: not tried yet, not ejected, not stopping; each wish is dropped when it leaves none.
/// With `only` there is no choice.
pub(crate) fn pick(
    upstream: &UpstreamState,
    policy: &Policy,
    tried: &[usize],
    hash: Option<u64>,
    only: Option<&Address>,
    now: Instant,
) -> Result<usize, Failure> {
    let endpoints = &upstream.upstream.endpoints;
    let orders = upstream.upstream.steering.in_force(now);
    if !orders.is_empty() {
        if endpoints.is_empty() {
            return Err(no_endpoints(upstream));
        }
        return pick_by_order(upstream, &orders, tried, hash, only, now);
    }
    if let Some(only) = only {
        let gone = || Failure::new(Reason::NoEndpoints, format!("{only} is not an instance any more"));
        return endpoints.iter().position(|endpoint| endpoint.address == *only).ok_or_else(gone);
    }
    if endpoints.is_empty() {
        return Err(no_endpoints(upstream));
    }
    let saw_ejected = Cell::new(false);
    let is_rested = |index: usize| {
        let health = &endpoints[index].health;
        let is_ejected = health.is_ejected(now);
        saw_ejected.set(saw_ejected.get() | is_ejected);
        !is_ejected && !health.is_draining(now)
    };
    let is_untried = |index: usize| !tried.contains(&index);
    let picked = upstream
        .balancer
        .pick(now, hash, |index| is_untried(index) && is_rested(index))
        .or_else(|| if tried.is_empty() { None } else { upstream.balancer.pick(now, hash, is_rested) });
    let in_panic = saw_ejected.get() && is_panic(endpoints, policy.balance.panic, now);
    upstream.meters.panic(in_panic);
    if let (false, Some(picked)) = (in_panic, picked) {
        return Ok(picked);
    }
    // Panic, or nothing is left: an ejected or stopping endpoint is better than none.
    upstream
        .balancer
        .pick(now, hash, |index| is_untried(index) && (in_panic || !endpoints[index].health.is_ejected(now)))
        .or_else(|| upstream.balancer.pick(now, hash, |_| in_panic))
        .or(picked)
        .or_else(|| upstream.balancer.pick(now, hash, |index| !endpoints[index].health.is_ejected(now)))
        .ok_or_else(|| {
            let sentence = format!("all {} endpoints are ejected", endpoints.len());
            Failure::new(Reason::AllEjected, sentence)
        })
}

/// Says how many instances there are and why none will do.
pub(crate) fn no_endpoints(upstream: &UpstreamState) -> Failure {
    let census = &upstream.upstream.census;
    let service = &upstream.upstream.service;
    let sentence = if !census.is_known {
        format!("{} has not told the instances of {service} yet", census.source)
    } else if census.total == 0 {
        format!("no instance of {service} is registered")
    } else {
        format!(
            "none of {} instances of {service} can be used ({} critical, {} in maintenance, {} without address or weight)",
            census.total, census.critical, census.maintenance, census.unusable
        )
    };
    Failure::new(Reason::NoEndpoints, sentence).retry_after(Duration::from_secs(1))
}
