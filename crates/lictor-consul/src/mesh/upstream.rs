//! One upstream of the mesh: its endpoints from instances, and what lives on from the mesh before.

use std::sync::Arc;
use std::time::Instant;

use lictor_config::{Query, Source};
use lictor_core::breaker::Breaker;
use lictor_core::health::EndpointHealth;
use lictor_core::mesh::{Census, EndpointKey, Protocol, Standby, Status};
use lictor_core::{Address, Endpoint, Upstream};

use super::addresses::{fixed_by, name_of, resolve};
use super::inputs::Inputs;
use crate::agent::Instance;
use crate::agent::health::Condition;
use crate::watch::Observed;

/// Where endpoints are from until Consul has answered, if the configuration has some for that.
pub(crate) const BOOTSTRAP: &str = "bootstrap";

/// The upstream as it is now; what goes on from the one before is shared with it.
pub(super) fn build(
    config: &lictor_config::Upstream,
    name: &Arc<str>,
    inputs: &Inputs<'_>,
    earlier: Option<&Arc<Upstream>>,
    now: Instant,
) -> Upstream {
    let fixed = fixed_by(config, inputs);
    let primary = match &config.source {
        Source::Consul(query) => match Tier::of(query, inputs) {
            tier if tier.observed.is_none() && !config.bootstrap.is_empty() => {
                Tier { source: BOOTSTRAP, observed: Some(&fixed), ..tier }
            }
            tier => tier,
        },
        Source::Static(_) => Tier { source: "static", service: Some(Arc::clone(name)), observed: Some(&fixed) },
    };
    let service = primary.service.clone().unwrap_or_else(|| Arc::clone(name));
    let after_all = config.failover.len() as u8 + 1;
    let mut gathered = Gathered { inputs, earlier, after_all, endpoints: Vec::new(), now };
    let census = gathered.add(0, primary);
    let standby = (1..).zip(&config.failover).map(|(number, query)| Standby {
        name: query.to_string().into(),
        census: gathered.add(number, Tier::of(query, inputs)),
    });
    let standby = standby.collect();
    let mut endpoints = gathered.endpoints;
    endpoints.sort_by(|a, b| (&a.key, a.tier).cmp(&(&b.key, b.tier)));
    endpoints.dedup_by(|a, b| a.key == b.key); // in the best of its tiers
    Upstream {
        name: Arc::clone(name),
        service,
        protocol: config.protocol.unwrap_or_else(|| protocol_of(&endpoints)),
        tls: config.tls.clone(),
        policy: Arc::new(config.policy.clone()),
        routes: earlier.map_or_else(|| config.routes.clone(), |earlier| config.routes.follow(&earlier.routes)),
        set_headers: config.set_headers.clone(),
        bearer: config.bearer.clone(),
        is_required: config.is_required,
        endpoints: endpoints.into(),
        census,
        standby,
        zone: inputs.config.zone.as_deref().filter(|_| config.prefers_zone).map(Arc::from),
        breaker: earlier.map_or_else(|| Arc::new(Breaker::new(now)), |earlier| Arc::clone(&earlier.breaker)),
        steering: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.steering)),
        in_flight: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.in_flight)),
    }
}

/// A source of endpoints, and what it has said.
struct Tier<'a> {
    /// Whose word it is.
    source: &'static str,
    /// Whose instances they are; `None`: each says so itself.
    service: Option<Arc<str>>,
    /// `None` until the first answer.
    observed: Option<&'a Observed>,
}

impl<'a> Tier<'a> {
    fn of(query: &Query, inputs: &Inputs<'a>) -> Self {
        let observed = inputs.observed.get(query);
        let is_remembered = observed.is_some() && inputs.remembered.contains_key(query);
        let service = (!query.is_prepared).then(|| Arc::from(query.service.as_str()));
        Self { source: if is_remembered { "snapshot" } else { "Consul" }, service, observed }
    }
}

/// The endpoints of all tiers.
struct Gathered<'a> {
    inputs: &'a Inputs<'a>,
    earlier: Option<&'a Arc<Upstream>>,
    /// The tier of those that come and go, before that of suspects: both are better than nobody, and than nobody else.
    after_all: u8,
    endpoints: Vec<Arc<Endpoint>>,
    now: Instant,
}

impl Gathered<'_> {
    /// Adds those of a tier that may be picked; what there is in all.
    fn add(&mut self, number: u8, tier: Tier<'_>) -> Census {
        let known = self.earlier.map_or(&[][..], |earlier| &earlier.endpoints);
        let was_told =
            |earlier: &Arc<Upstream>| was_known(earlier, number) && (number > 0 || earlier.census.source != BOOTSTRAP);
        let is_first = !self.earlier.is_some_and(was_told);
        let mut census = Census { source: tier.source, ..Census::default() };
        let Some(observed) = tier.observed else { return census };
        let addresses = self.inputs.addresses;
        census.is_known = observed.instances.iter().filter_map(name_of).all(|name| addresses.contains_key(name));
        let current = observed.instances.iter().map(|instance| (instance, status(instance, observed)));
        let suspects = observed.suspects.iter().map(|instance| (instance, Status::Suspect));
        for (instance, status) in current.chain(suspects) {
            count(instance, status, &mut census);
            if !instance.is_usable() {
                continue;
            }
            let found = resolve(instance, addresses);
            if found.is_empty() && status != Status::Suspect {
                census.unusable += 1;
            }
            let service = tier.service.clone().unwrap_or_else(|| Arc::from(instance.service.as_str()));
            let tier = match status {
                Status::Passing | Status::Warning => number,
                Status::Flapping => self.after_all,
                Status::Suspect => self.after_all + 1,
            };
            for address in found.into_iter().map(Address::Tcp) {
                let before = find(known, instance, &address);
                let as_it_is = AsItIs { service: &service, tier, instance, status, is_first };
                self.endpoints.push(endpoint(address, &as_it_is, before, self.now));
            }
        }
        census
    }
}

/// Whether the tier had its first answer.
fn was_known(upstream: &Upstream, tier: u8) -> bool {
    let standby = usize::from(tier).checked_sub(1).map(|index| upstream.standby.get(index));
    standby.map_or(upstream.census.is_known, |standby| standby.is_some_and(|standby| standby.census.is_known))
}

fn status(instance: &Instance, observed: &Observed) -> Status {
    match instance.condition {
        _ if observed.is_flapping(instance) => Status::Flapping,
        Condition::Passing => Status::Passing,
        _ => Status::Warning,
    }
}

fn count(instance: &Instance, status: Status, census: &mut Census) {
    match status {
        Status::Suspect => {
            census.suspect += 1;
            return;
        }
        Status::Flapping => census.flapping += 1,
        Status::Passing | Status::Warning => (),
    }
    census.total += 1;
    match instance.condition {
        Condition::Critical | Condition::Unchecked => census.critical += 1,
        Condition::Maintenance => census.maintenance += 1,
        Condition::Passing | Condition::Warning if !instance.is_usable() => census.unusable += 1,
        Condition::Passing | Condition::Warning => (),
    }
}

/// The endpoint that it was, if it was one: they are in the order of their keys.
fn find<'a>(known: &'a [Arc<Endpoint>], instance: &Instance, address: &Address) -> Option<&'a Arc<Endpoint>> {
    let wanted = (instance.node.as_str(), instance.id.as_str(), address);
    let at = known.binary_search_by(|endpoint| {
        let EndpointKey { node, id, address } = &endpoint.key;
        (&**node, &**id, address).cmp(&wanted)
    });
    Some(&known[at.ok()?])
}

/// An instance, where it belongs now.
pub(super) struct AsItIs<'a> {
    pub(super) service: &'a Arc<str>,
    pub(super) tier: u8,
    pub(super) instance: &'a Instance,
    pub(super) status: Status,
    /// Of the first answer: it was there before us.
    pub(super) is_first: bool,
}

/// The same one as before, unless something about it changed.
pub(super) fn endpoint(
    address: Address,
    as_it_is: &AsItIs<'_>,
    before: Option<&Arc<Endpoint>>,
    now: Instant,
) -> Arc<Endpoint> {
    let AsItIs { service, tier, instance, status, is_first } = *as_it_is;
    if let Some(before) = before
        && *before.host == *instance.host // by another name now: TLS asks for that one
        && before.service == *service
        && before.tier == tier
        && before.status == status
        && before.weight == instance.weight()
        && before.tags == instance.tags
        && before.meta == instance.meta
    {
        return Arc::clone(before);
    }
    let (node, id) = (Arc::from(instance.node.as_str()), Arc::from(instance.id.as_str()));
    Arc::new(Endpoint {
        address: address.clone(),
        service: Arc::clone(service),
        key: before.map_or_else(|| EndpointKey { node, id, address }, |before| before.key.clone()),
        host: Arc::from(instance.host.as_str()),
        weight: instance.weight(),
        tier,
        status,
        tags: instance.tags.clone(),
        meta: instance.meta.clone(),
        // Those of the first answer were there before us: only later ones are new.
        warms_from: before.map_or((!is_first).then_some(now), |before| before.warms_from),
        health: before.map_or_else(|| Arc::new(EndpointHealth::new(now)), |before| Arc::clone(&before.health)),
        connections: before.map_or_else(Arc::default, |before| Arc::clone(&before.connections)),
    })
}

/// What all endpoints' `Meta.protocol` says, if they agree.
fn protocol_of(endpoints: &[Arc<Endpoint>]) -> Protocol {
    let mut said =
        endpoints.iter().map(|endpoint| match endpoint.meta.get("protocol").and_then(|it| Protocol::named(it)) {
            Some(Protocol::Auto) | None => Protocol::Http1,
            Some(protocol) => protocol,
        });
    let first = said.next().unwrap_or_default();
    if said.all(|protocol| protocol == first) { first } else { Protocol::Http1 }
}

/// Whether a healthy instance is there that was not before: a reason for an open breaker to try again.
pub(super) fn has_newcomer(built: &Upstream, earlier: Option<&Arc<Upstream>>) -> bool {
    let Some(earlier) = earlier else { return false };
    let was_there = |key: &EndpointKey| earlier.endpoints.binary_search_by(|other| other.key.cmp(key)).is_ok();
    let is_new = |endpoint: &Endpoint| was_known(earlier, endpoint.tier) && !was_there(&endpoint.key);
    built.endpoints.iter().any(|endpoint| endpoint.status != Status::Suspect && is_new(endpoint))
}

/// Whether nobody could tell the two apart.
pub(super) fn is_same(earlier: &Upstream, built: &Upstream) -> bool {
    let same_endpoints = earlier.endpoints.len() == built.endpoints.len()
        && earlier.endpoints.iter().zip(&built.endpoints).all(|(old, new)| Arc::ptr_eq(old, new));
    let same_routes =
        earlier.routes.own() == built.routes.own() && earlier.routes.iter().eq_by_policy(built.routes.iter());
    same_endpoints
        && same_routes
        && earlier.service == built.service
        && earlier.protocol == built.protocol
        && earlier.tls == built.tls
        && earlier.policy == built.policy
        && earlier.set_headers == built.set_headers
        && earlier.bearer == built.bearer
        && earlier.is_required == built.is_required
        && earlier.census == built.census
        && earlier.standby == built.standby
        && earlier.zone == built.zone
}

/// Routes are equal when their patterns and policies are.
trait EqByPolicy<'a>: Iterator<Item = &'a lictor_core::route::Route> + Sized {
    fn eq_by_policy(self, other: Self) -> bool {
        let key = |route: &'a lictor_core::route::Route| {
            (&route.label, route.method(), &route.policy, route.is_idempotent, route.in_flight.is_some())
        };
        self.map(key).eq(other.map(key))
    }
}

impl<'a, I: Iterator<Item = &'a lictor_core::route::Route>> EqByPolicy<'a> for I {}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use lictor_config::{Config, Environment, Text, load};
    use lictor_core::Mesh;

    use super::super::addresses::fixed;
    use super::super::assemble::assemble;
    use super::super::inputs::Changed;
    use super::*;

    /// Who was seen, by what was asked in words.
    type Seen<'a> = &'a [(&'a str, Observed)];

    fn config() -> Config {
        let yaml =
            "registration: off\nupstreams: {users: {listen: 3001, failover: [dc2, {service: old}, {query: q}]}}\n";
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn mesh(config: &Config, seen: Seen<'_>, previous: Option<&Mesh>, now: Instant) -> Mesh {
        let query = |words: &str| config.upstreams[0].queries().find(|query| query.to_string() == words).unwrap();
        let observed = seen.iter().map(|(words, observed)| (query(words).clone(), observed.clone())).collect();
        let (addresses, remembered, changed) = (HashMap::new(), HashMap::new(), Changed::Anything);
        let inputs = Inputs {
            config,
            observed: &observed,
            remembered: &remembered,
            addresses: &addresses,
            demanded: &[],
            maintenance: None,
            changed,
        };
        assemble(&inputs, previous, now).mesh
    }

    fn instances(ports: &[u16]) -> Vec<Instance> {
        let instance = |port: &u16| Instance { service: format!("of-{port}"), ..fixed(&format!("127.0.0.1:{port}")) };
        ports.iter().map(instance).collect()
    }

    fn there(ports: &[u16]) -> Observed {
        Observed::of(instances(ports))
    }

    fn tiers(mesh: &Mesh) -> Vec<(String, u8, String)> {
        let endpoints = mesh.upstreams["users"].endpoints.iter();
        endpoints.map(|it| (it.address.to_string(), it.tier, it.service.to_string())).collect()
    }

    fn of(port: u16, tier: u8, service: &str) -> (String, u8, String) {
        (format!("127.0.0.1:{port}"), tier, service.to_owned())
    }

    #[test]
    fn an_endpoint_is_of_the_best_tier_that_has_it_and_says_whose_it_is() {
        let (config, now) = (config(), Instant::now());
        let kept = Observed { suspects: instances(&[9]), ..Observed::default() };
        for (seen, expected) in [
            (&[("users", there(&[1]))][..], vec![of(1, 0, "users")]),
            (&[("users", there(&[])), ("users in dc2", there(&[2]))], vec![of(2, 1, "users")]),
            (&[("users", there(&[1])), ("users in dc2", there(&[1, 2]))], vec![of(1, 0, "users"), of(2, 1, "users")]),
            (&[("old", there(&[3])), ("the query q", there(&[4]))], vec![of(3, 2, "old"), of(4, 3, "of-4")]),
            (&[("users", kept.clone()), ("old", there(&[3]))], vec![of(3, 2, "old"), of(9, 5, "users")]),
            (&[("users", kept), ("old", there(&[9]))], vec![of(9, 2, "old")]),
        ] {
            assert_eq!(tiers(&mesh(&config, seen, None, now)), expected, "{seen:?}");
        }
    }

    #[test]
    fn bootstrap_is_in_use_until_the_first_answer_and_is_nobody_new() {
        let yaml = "registration: off\nupstreams: {users: {listen: 3001, bootstrap: ['127.0.0.1:7', '127.0.0.1:8'], failover: dc2}}\n";
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        let config = load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config;
        let now = Instant::now();
        let first = mesh(&config, &[], None, now);
        let users = &first.upstreams["users"];
        assert_eq!((users.census.source, users.census.total, users.is_known()), (BOOTSTRAP, 2, true));
        assert_eq!(tiers(&first), [of(7, 0, "users"), of(8, 0, "users")]);
        for (answer, endpoints) in [(there(&[1, 7]), vec![of(1, 0, "users"), of(7, 0, "users")]), (there(&[]), vec![])]
        {
            let next = mesh(&config, &[("users", answer)], Some(&first), now);
            assert_eq!((next.upstreams["users"].census.source, tiers(&next)), ("Consul", endpoints));
            let warming = next.upstreams["users"].endpoints.iter().filter(|endpoint| endpoint.warms_from.is_some());
            assert_eq!(warming.count(), 0, "those of the first answer were there before us");
        }
        let other_first = mesh(&config, &[("users in dc2", there(&[2]))], None, now);
        assert_eq!(tiers(&other_first), [of(2, 1, "users"), of(7, 0, "users"), of(8, 0, "users")]);
    }

    #[test]
    fn it_is_known_who_there_is_when_somebody_is_or_every_tier_has_answered() {
        let (config, now) = (config(), Instant::now());
        let nobody = there(&[]);
        let is_known = |seen: Seen<'_>| mesh(&config, seen, None, now).upstreams["users"].is_known();
        let all = ["users", "users in dc2", "old", "the query q"].map(|words| (words, nobody.clone()));
        assert!(!is_known(&[]) && !is_known(&all[..1]) && !is_known(&all[..3]) && !is_known(&all[1..]));
        assert!(is_known(&all) && is_known(&[("users", there(&[1]))]));
        assert!(is_known(&[("users", nobody.clone()), ("old", there(&[3]))]));
    }

    #[test]
    fn the_first_answer_of_a_tier_has_no_newcomers_and_a_later_one_may() {
        let (config, now) = (config(), Instant::now());
        let first = mesh(&config, &[("users", there(&[1]))], None, now);
        let second = mesh(&config, &[("users", there(&[1])), ("old", there(&[3]))], Some(&first), now);
        let third = mesh(&config, &[("users", there(&[1])), ("old", there(&[3, 4]))], Some(&second), now);
        let new = |mesh: &Mesh| -> Vec<bool> {
            mesh.upstreams["users"].endpoints.iter().map(|it| it.warms_from.is_some()).collect()
        };
        assert_eq!((new(&second), new(&third)), (vec![false, false], vec![false, false, true]));
        let newcomer = |old: &Mesh, new: &Mesh| has_newcomer(&new.upstreams["users"], old.upstreams.get("users"));
        assert!(!newcomer(&first, &second) && newcomer(&second, &third));
    }

    #[test]
    fn what_a_tier_says_is_in_its_own_census() {
        let (config, now) = (config(), Instant::now());
        let critical = Instance { condition: Condition::Critical, ..instances(&[2]).remove(0) };
        let seen = [("users", there(&[])), ("users in dc2", Observed::of(vec![critical]))];
        let mesh = mesh(&config, &seen, None, now);
        let upstream = &mesh.upstreams["users"];
        let names: Vec<&str> = upstream.standby.iter().map(|standby| &*standby.name).collect();
        assert_eq!(names, ["users in dc2", "old", "the query q"]);
        let count = |standby: &Standby| (standby.census.is_known, standby.census.total, standby.census.critical);
        let counts: Vec<_> = upstream.standby.iter().map(count).collect();
        assert_eq!(counts, [(true, 1, 1), (false, 0, 0), (false, 0, 0)]);
        assert_eq!((upstream.census.is_known, upstream.census.total), (true, 0));
    }
}
