//! Picking while an operator's orders are in force: seldom, so that it need not be fast, and plain, so that it does what
//! was said.

use std::time::Instant;

use lictor_core::steering::Orders;
use lictor_core::{Address, Failure, Reason};

use crate::world::view::UpstreamState;

/// Chooses among the endpoints that the operator allows: the pinned ones, if there are such, else those that are not ejected
/// by order. Of these one that is not tried yet and in good health, as far as there is one. The service has instances.
pub(super) fn pick_by_order(
    upstream: &UpstreamState,
    orders: &Orders,
    tried: &[usize],
    hash: Option<u64>,
    only: Option<&Address>,
    now: Instant,
) -> Result<usize, Failure> {
    let endpoints = &upstream.upstream.endpoints;
    let has_pinned = endpoints.iter().any(|endpoint| orders.pins(&endpoint.key.id));
    let is_allowed = |index: usize| {
        let endpoint = &endpoints[index];
        let is_meant = only.is_none_or(|only| endpoint.address == *only);
        let id = &endpoint.key.id;
        is_meant && if has_pinned { orders.pins(id) } else { !orders.ejects(id) }
    };
    let is_untried = |index: usize| !tried.contains(&index);
    let is_well = |index: usize| !endpoints[index].health.is_ejected(now) && !endpoints[index].health.is_draining(now);
    let pick = |eligible: &dyn Fn(usize) -> bool| upstream.balancer.pick(now, hash, |i| is_allowed(i) && eligible(i));
    pick(&|index| is_untried(index) && is_well(index))
        .or_else(|| pick(&is_well))
        .or_else(|| pick(&is_untried))
        .or_else(|| pick(&|_| true))
        .ok_or_else(|| Failure::new(Reason::AllEjected, refusal(upstream, orders, only)))
}

fn refusal(upstream: &UpstreamState, orders: &Orders, only: Option<&Address>) -> String {
    let endpoints = &upstream.upstream.endpoints;
    match only {
        Some(only) => format!("{only} is ejected by an operator, or no instance any more"),
        None => {
            let ordered = endpoints.iter().filter(|endpoint| orders.ejects(&endpoint.key.id)).count();
            format!("all {} endpoints are ejected, {ordered} of them by an operator", endpoints.len())
        }
    }
}
