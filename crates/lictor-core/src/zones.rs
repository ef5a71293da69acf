//! Our own zone first, and never more of it than it can carry.
//!
//! Callers are taken to be spread evenly over the zones, so that each zone's owe it the same share of the requests. Where a
//! zone has its share of the capacity (weights), its callers stay in it. Where it has less, the rest goes to zones that have
//! more than their share, as far as they have: then no endpoint gets more for its weight than it would without zones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mesh::{Endpoint, Status};

/// Meta's key for it.
const ZONE: &str = "zone";

/// Which zone a request goes to, while all is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Zones {
    /// Each endpoint's zone.
    of: Box<[u16]>,
    /// The zones that requests go to, with the shares added up.
    shares: Vec<(f64, u16)>,
    /// The share that stays in ours.
    pub own: f64,
}

impl Zones {
    /// `None` where there is nothing to prefer: nobody, or nobody else, is in our zone. Endpoints without a zone are in one of
    /// their own. Only passing ones of the best tier count.
    pub fn of(endpoints: &[Arc<Endpoint>], own: &str) -> Option<Self> {
        let best = endpoints.iter().map(|endpoint| endpoint.tier).min()?;
        let zone = |endpoint: &Endpoint| endpoint.meta.get(ZONE).map_or("", String::as_str).to_owned();
        let mut weights: BTreeMap<String, f64> = BTreeMap::new();
        for endpoint in endpoints.iter().filter(|it| it.tier == best && it.status == Status::Passing) {
            *weights.entry(zone(endpoint)).or_default() += f64::from(endpoint.weight);
        }
        if weights.len() < 2 || !weights.contains_key(own) {
            return None;
        }
        let names: Vec<&String> = weights.keys().collect();
        let number = |name: &String| names.binary_search(&name).map_or(u16::MAX, |at| at as u16);
        let shares = shares(own, &weights);
        let mut sum = 0.0;
        let shares: Vec<(f64, u16)> = shares
            .into_iter()
            .map(|(name, share)| {
                sum += share;
                (sum, number(name))
            })
            .collect();
        let of = endpoints.iter().map(|endpoint| number(&zone(endpoint))).collect();
        Some(Self { of, own: shares.first()?.0, shares })
    }

    /// The zone for a request; `share` is uniform in 0 to 1.
    pub fn draw(&self, share: f64) -> u16 {
        let drawn = self.shares.iter().find(|(sum, _)| share < *sum).or(self.shares.last());
        drawn.map_or(u16::MAX, |(_, zone)| *zone)
    }

    /// Whether an endpoint is in a zone.
    #[inline]
    pub fn has(&self, zone: u16, index: usize) -> bool {
        self.of.get(index) == Some(&zone)
    }
}

/// Ours first, then those that have room; they add up to 1.
fn shares<'a>(own: &str, weights: &'a BTreeMap<String, f64>) -> Vec<(&'a String, f64)> {
    let fair = weights.values().sum::<f64>() / weights.len() as f64;
    let of_own = weights.iter().filter(|(name, _)| *name == own);
    let ours: Vec<(&String, f64)> = of_own.map(|(name, weight)| (name, (weight / fair).min(1.0))).collect();
    let rest = 1.0 - ours.iter().map(|(_, share)| share).sum::<f64>();
    let room: f64 = weights.values().map(|weight| (weight - fair).max(0.0)).sum();
    let others = weights.iter().filter(|(name, weight)| *name != own && **weight > fair && rest > 0.0);
    ours.into_iter().chain(others.map(|(name, weight)| (name, rest * (weight - fair) / room))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(of: &[f64]) -> BTreeMap<String, f64> {
        of.iter().enumerate().map(|(index, weight)| (index.to_string(), *weight)).collect()
    }

    #[test]
    fn a_zone_keeps_what_it_can_carry_and_the_rest_goes_where_there_is_room() {
        for (of, expected) in [
            (&[1.0, 1.0][..], &[("0", 1.0)][..]),
            (&[3.0, 1.0], &[("0", 1.0)]),
            (&[1.0, 3.0], &[("0", 0.5), ("1", 0.5)]),
            (&[1.0, 2.0, 3.0], &[("0", 0.5), ("2", 0.5)]),
            (&[2.0, 1.0, 3.0], &[("0", 1.0)]),
            (&[0.5, 2.25, 3.25], &[("0", 0.25), ("1", 0.125), ("2", 0.625)]),
        ] {
            let weights = weights(of);
            let seen: Vec<(&str, f64)> =
                shares("0", &weights).iter().map(|(name, share)| (name.as_str(), *share)).collect();
            assert_eq!(seen, expected, "{of:?}");
        }
    }

    proptest! {
        #[test]
        fn with_callers_in_every_zone_nobody_gets_more_than_without_zones(of in prop::collection::vec(1_u32..100, 2..8)) {
            let weights = weights(&of.iter().map(|weight| f64::from(*weight)).collect::<Vec<_>>());
            let mut load: BTreeMap<&String, f64> = BTreeMap::new();
            for own in weights.keys() {
                let shares = shares(own, &weights);
                prop_assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
                for (name, share) in shares {
                    *load.entry(name).or_default() += share;
                }
            }
            let even = weights.len() as f64 / weights.values().sum::<f64>();
            for (name, weight) in &weights {
                let its = load.get(name).copied().unwrap_or_default() / weight;
                prop_assert!((its - even).abs() < 1e-6, "{name}: {its} instead of {even}");
            }
        }
    }
}
