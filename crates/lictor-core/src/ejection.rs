//! What a group of endpoints can spare: when one more may have a rest, and when so many have one that it is ignored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mesh::Endpoint;
use crate::policy::EjectionPolicy;

/// Whether the group can spare one more: never the last one, and at most `max_share` of them, though of two or more
/// one may always go (as in Envoy).
pub fn may_eject(endpoints: &[Arc<Endpoint>], policy: &EjectionPolicy, now: Instant) -> bool {
    let ejected = endpoints.iter().filter(|endpoint| endpoint.health.is_ejected(now)).count();
    let allowed = ((endpoints.len() as f64 * policy.max_share) as usize).max(1);
    ejected < allowed && ejected + 1 < endpoints.len()
}

/// Failures that are older say nothing of how a service is now.
const OF_LATE: Duration = Duration::from_secs(10);

/// Whether all failures of late were one endpoint's, while another is well: that is for its ejection, and no reason to give
/// the whole service a rest.
pub fn is_of_one(endpoints: &[Arc<Endpoint>], now: Instant) -> bool {
    let has_failed = |endpoint: &&Arc<Endpoint>| endpoint.health.has_failed_within(OF_LATE, now);
    endpoints.iter().filter(has_failed).count() == 1
        && endpoints.iter().any(|endpoint| !has_failed(&endpoint) && !endpoint.health.is_away(now))
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
        assert!(!may_eject(&endpoints(1, now), &policy, now));
        let two = endpoints(2, now);
        assert!(may_eject(&two, &policy, now));
        two[0].health.eject(&policy, now);
        assert!(!may_eject(&two, &policy, now));
    }

    #[test]
    fn failures_are_one_endpoints_until_another_fails_too() {
        let (policy, now) = (EjectionPolicy::default(), Instant::now());
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
        let ten = endpoints(10, now);
        let ejected = ten
            .iter()
            .filter(|endpoint| {
                let may = may_eject(&ten, &policy, now);
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
