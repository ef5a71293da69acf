//! Which endpoint: who may take the request says [`Candidates`], and who of them the balancer; one that has room for a
//! connection before one that would have to be waited for.

use std::cell::Cell;
use std::time::{Duration, Instant};

use lictor_core::balance::hash_bytes;
use lictor_core::candidates::Candidates;
use lictor_core::mesh::Census;
use lictor_core::{Address, Failure, Reason};

use crate::world::view::UpstreamState;

/// Chooses among the endpoints. `only` is whom the client named.
pub(crate) fn pick(
    upstream: &UpstreamState,
    route: Option<usize>,
    tried: &[usize],
    hash: Option<u64>,
    only: Option<&Address>,
    now: Instant,
) -> Result<usize, Failure> {
    if upstream.endpoints.is_empty() && only.is_none() {
        return Err(no_endpoints(upstream));
    }
    let orders = upstream.upstream.steering.in_force(now);
    let candidates = upstream.candidates(upstream.policy(route), &orders, only, tried, now);
    let balancer = upstream.balancer(route);
    let has_room = |index: usize| upstream.endpoints[index].pool.has_room(upstream.policy(route));
    let is_plain = only.is_none() && orders.is_empty();
    let mut picked = None;
    if is_plain && upstream.is_usual.get() {
        let saw_away = Cell::new(false);
        let is_well = |index: usize| {
            candidates.is_in_front(index) && {
                let is_well = candidates.is_well(index);
                saw_away.set(saw_away.get() || !is_well);
                is_well && has_room(index)
            }
        };
        if let Some(zones) = upstream.zones.as_ref().filter(|_| tried.is_empty()) {
            // A request that belongs to an endpoint belongs to a zone; to which says nothing of its place on the ring.
            let of_zone = |hash: u64| hash_bytes(&hash.to_le_bytes()) as f64 / u64::MAX as f64;
            let zone = zones.draw(hash.map_or_else(|| balancer.share(), of_zone));
            let within = balancer.pick(now, hash, |index| zones.has(zone, index) && is_well(index));
            if let (Some(within), false) = (within, saw_away.get()) {
                return Ok(within);
            }
        }
        picked = balancer.pick(now, hash, is_well);
        if let (Some(picked), false) = (picked, saw_away.get()) {
            return Ok(picked);
        }
    }
    let choice = candidates.choice().ok_or_else(|| nobody(upstream, &candidates))?;
    let is_usual = candidates.is_usual(&choice);
    if is_plain && tried.is_empty() {
        upstream.is_usual.set(is_usual);
        upstream.meters.panic(choice.is_panic);
    }
    if let (Some(picked), true) = (picked, is_usual) {
        return Ok(picked);
    }
    let may_take = |index| candidates.may_take(index, &choice);
    let picked = balancer.pick(now, hash, |index| may_take(index) && has_room(index));
    picked.or_else(|| balancer.pick(now, hash, may_take)).ok_or_else(|| nobody(upstream, &candidates))
}

/// Why there is nobody whom one may ask.
fn nobody(upstream: &UpstreamState, candidates: &Candidates<'_>) -> Failure {
    let Candidates { endpoints, orders, only, .. } = candidates;
    let ordered = endpoints.iter().filter(|endpoint| orders.ejects(&endpoint.key.id)).count();
    match only {
        Some(only) if endpoints.iter().any(|endpoint| endpoint.address == **only) => {
            Failure::new(Reason::AllEjected, format!("an operator lets nothing go to {only}"))
        }
        Some(only) => Failure::new(Reason::NoEndpoints, format!("{only} is not an instance any more")),
        None if endpoints.is_empty() => no_endpoints(upstream),
        None if ordered > 0 => {
            let sentence = format!("all {} endpoints are ejected, {ordered} of them by an operator", endpoints.len());
            Failure::new(Reason::AllEjected, sentence)
        }
        None => Failure::new(Reason::AllEjected, format!("all {} endpoints are ejected", endpoints.len())),
    }
}

/// Says how many instances there are and why none will do, tier by tier.
pub(crate) fn no_endpoints(upstream: &UpstreamState) -> Failure {
    let upstream = &upstream.upstream;
    let tiers = upstream.standby.iter().map(|standby| (&standby.name, &standby.census));
    let tiers = [(&upstream.service, &upstream.census)].into_iter().chain(tiers);
    let sentences: Vec<String> = tiers.map(|(name, census)| nobody_of(name, census)).collect();
    Failure::new(Reason::NoEndpoints, sentences.join("; ")).retry_after(Duration::from_secs(1))
}

fn nobody_of(name: &str, census: &Census) -> String {
    if !census.is_known {
        format!("{} has not told the instances of {name} yet", census.source)
    } else if census.total == 0 {
        format!("no instance of {name} is registered")
    } else {
        format!(
            "none of {} instances of {name} can be used ({} critical, {} in maintenance, {} without address or weight)",
            census.total, census.critical, census.maintenance, census.unusable
        )
    }
}
