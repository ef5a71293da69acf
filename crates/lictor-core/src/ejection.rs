//! What a group of endpoints can spare: when one more may have a rest, and when so many have one that it is ignored. Whom an
//! operator lets nothing go to is not of the group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mesh::Endpoint;
use crate::policy::EjectionPolicy;
use crate::steering::Orders;

/// Whether the group can spare one more: never the last one, and at most `max_share` of them, though of two or more
/// one may always go (as in Envoy).
pub fn may_eject(endpoints: &[Arc<Endpoint>], orders: &Orders, policy: &EjectionPolicy, now: Instant) -> bool {
    let total = group(endpoints, orders).count();
    let ejected = group(endpoints, orders).filter(|endpoint| endpoint.health.is_ejected(now)).count();
    let allowed = ((total as f64 * policy.max_share) as usize).max(1);
    ejected < allowed && ejected + 1 < total
}

/// Those that an operator lets be asked.
fn group<'a>(endpoints: &'a [Arc<Endpoint>], orders: &'a Orders) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let has_pinned = orders.pins_any(endpoints.iter().map(|endpoint| &endpoint.key.id));
    endpoints.iter().filter(move |endpoint| orders.allows(&endpoint.key.id, has_pinned))
}

/// Failures that are older say nothing of how a service is now.
const OF_LATE: Duration = Duration::from_secs(10);

/// Whether all failures of late were one endpoint's, while another is well: that is for its ejection, and no reason to give
/// the whole service a rest.
pub fn is_of_one(endpoints: &[Arc<Endpoint>], orders: &Orders, now: Instant) -> bool {
    let has_failed = |endpoint: &&Arc<Endpoint>| endpoint.health.has_failed_within(OF_LATE, now);
    group(endpoints, orders).filter(has_failed).count() == 1
        && group(endpoints, orders).any(|endpoint| !has_failed(&endpoint) && !endpoint.health.is_away(now))
}

/// Whether so few are left that ejection does more harm than good.
pub fn is_panic(endpoints: &[Arc<Endpoint>], threshold: f64, now: Instant) -> bool {
    let healthy = endpoints.iter().filter(|endpoint| !endpoint.health.is_ejected(now)).count();
    !endpoints.is_empty() && (healthy as f64) < endpoints.len() as f64 * threshold
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::health::EndpointHealth;
    use crate::mesh::{EndpointKey, Status};
    use crate::steering::{Order, Ordered, Steering};

    fn endpoints(count: u16, now: Instant) -> Vec<Arc<Endpoint>> {
        (0..count)
            .map(|port| {
                let address = crate::Address::Tcp(([127, 0, 0, 1], port + 1).into());
                let key = EndpointKey { node: "n".into(), id: format!("id-{port}").into(), address: address.clone() };
                Arc::new(Endpoint {
                    key,
                    address,
                    service: "users".into(),
                    host: "127.0.0.1".into(),
                    weight: 1,
                    tier: 0,
                    status: Status::Passing,
                    tags: vec![],
                    meta: BTreeMap::new(),
                    warms_from: None,
                    health: Arc::new(EndpointHealth::new(now)),
                    connections: Arc::default(),
                })
            })
            .collect()
    }

    #[test]
    fn the_last_endpoint_is_never_ejected() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
        let none = Steering::default().in_force(now);
        assert!(!may_eject(&endpoints(1, now), &none, &policy, now));
        let two = endpoints(2, now);
        assert!(may_eject(&two, &none, &policy, now));
        two[0].health.eject(&policy, now);
        assert!(!may_eject(&two, &none, &policy, now));
    }

    #[test]
    fn whom_an_operator_lets_nothing_go_to_is_not_of_the_group() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
        let (ejects, pins) = (Order::Eject, Order::Pin);
        // What is ordered of which of three; whether the first, which fails, may be ejected, and is the one that fails.
        for (orders, may_be_ejected, is_the_one) in [
            (&[][..], true, true),
            (&[(1, ejects)], true, true),
            (&[(1, ejects), (2, ejects)], false, false),
            (&[(0, pins)], false, false),
            (&[(0, pins), (1, pins)], true, true),
            (&[(0, pins), (1, ejects)], false, false),
        ] {
            let three = endpoints(3, now);
            let steering = Steering::default();
            for (index, order) in orders {
                let id = Arc::clone(&three[*index].key.id);
                steering.order(Ordered { id, order: *order, until: now + OF_LATE });
            }
            let orders = steering.in_force(now);
            three[0].health.failed(&policy, now);
            let told = (may_eject(&three, &orders, &policy, now), is_of_one(&three, &orders, now));
            assert_eq!(told, (may_be_ejected, is_the_one), "{orders:?}");
            let later = now + OF_LATE;
            assert!(may_eject(&three, &steering.in_force(later), &policy, later), "the orders are over");
        }
        // One that has failed and gets nothing any more is none that fails now.
        let three = endpoints(3, now);
        let steering = Steering::default();
        steering.order(Ordered { id: Arc::clone(&three[1].key.id), order: ejects, until: now + OF_LATE });
        for endpoint in &three[..2] {
            endpoint.health.failed(&policy, now);
        }
        assert!(is_of_one(&three, &steering.in_force(now), now));
        assert!(!is_of_one(&three, &Steering::default().in_force(now), now), "the control");
    }

    #[test]
    fn failures_are_one_endpoints_until_another_fails_too() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
        let orders = Steering::default().in_force(now);
        let is_of_one = |endpoints: &[Arc<Endpoint>], now| is_of_one(endpoints, &orders, now);
        let three = endpoints(3, now);
        assert!(!is_of_one(&three, now), "nobody has failed");
        three[0].health.failed(&policy, now);
        assert!(is_of_one(&three, now));
        three[1].health.failed(&policy, now);
        assert!(!is_of_one(&three, now));
        assert!(!is_of_one(&three, now + OF_LATE), "long ago");
        let one = endpoints(1, now);
        one[0].health.failed(&policy, now);
        assert!(!is_of_one(&one, now), "no other is there");
        let two = endpoints(2, now);
        two[0].health.failed(&policy, now);
        two[1].health.drain(now + OF_LATE);
        assert!(!is_of_one(&two, now), "no other is well");
    }

    #[test]
    fn at_most_half_are_ejected() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
        let (ten, orders) = (endpoints(10, now), Steering::default().in_force(now));
        let ejected = ten
            .iter()
            .filter(|endpoint| {
                let may = may_eject(&ten, &orders, &policy, now);
                if may {
                    endpoint.health.eject(&policy, now);
                }
                may
            })
            .count();
        assert_eq!(ejected, 5);
        assert!(!is_panic(&ten, 0.5, now) && is_panic(&ten, 0.6, now));
    }
}
