//! One upstream of the mesh: its endpoints from instances, and what lives on from the mesh before.

use std::sync::Arc;
use std::time::Instant;

use lictor_config::Source;
use lictor_core::breaker::Breaker;
use lictor_core::health::EndpointHealth;
use lictor_core::mesh::{Census, EndpointKey, Protocol, Status};
use lictor_core::{Address, Endpoint, Upstream};

use super::addresses::{fixed_by, name_of, resolve};
use super::inputs::Inputs;
use crate::agent::Instance;
use crate::agent::health::Condition;

/// The upstream as it is now; what goes on from the one before is shared with it.
pub(super) fn build(
    config: &lictor_config::Upstream,
    name: &Arc<str>,
    inputs: &Inputs<'_>,
    earlier: Option<&Arc<Upstream>>,
    now: Instant,
) -> Upstream {
    let known = earlier.map_or(&[][..], |earlier| &earlier.endpoints);
    let is_first = earlier.is_none_or(|earlier| !earlier.census.is_known);
    let fixed = fixed_by(&config.source);
    let observed = match &config.source {
        Source::Consul(query) => inputs.observed.get(query),
        Source::Static(_) => Some(&fixed),
    };
    let source = match &config.source {
        Source::Consul(query) if inputs.remembered.contains_key(query) && observed.is_some() => "snapshot",
        Source::Consul(_) => "Consul",
        Source::Static(_) => "static",
    };
    let is_answered = observed.is_some();
    let observed = observed.unwrap_or(&fixed);
    let is_looked_up = observed.instances.iter().filter_map(name_of).all(|name| inputs.addresses.contains_key(name));
    let mut census = Census { source, is_known: is_answered && is_looked_up, ..Census::default() };
    let service: Arc<str> = match &config.source {
        Source::Consul(query) => Arc::from(query.service.as_str()),
        Source::Static(_) => Arc::clone(name),
    };
    let says_service = matches!(&config.source, Source::Consul(query) if query.is_prepared);
    let mut endpoints = Vec::new();
    let current = observed.instances.iter().map(|instance| (instance, false));
    for (instance, is_suspect) in current.chain(observed.suspects.iter().map(|instance| (instance, true))) {
        if is_suspect {
            census.suspect += 1;
        } else {
            count(instance, &mut census);
        }
        if !instance.is_usable() {
            continue;
        }
        let addresses = resolve(instance, inputs.addresses);
        if addresses.is_empty() && !is_suspect {
            census.unusable += 1;
        }
        for address in addresses {
            let address = Address::Tcp(address);
            let before = find(known, instance, &address);
            let service = if says_service { Arc::from(instance.service.as_str()) } else { Arc::clone(&service) };
            endpoints.push(endpoint(address, service, instance, is_suspect, before, is_first, now));
        }
    }
    endpoints.sort_by(|a, b| a.key.cmp(&b.key));
    endpoints.dedup_by(|a, b| a.key == b.key);
    Upstream {
        name: Arc::clone(name),
        service,
        protocol: config.protocol.unwrap_or_else(|| protocol_of(&endpoints)),
        tls: config.tls.clone(),
        policy: Arc::new(config.policy.clone()),
        routes: config.routes.clone(),
        set_headers: config.set_headers.clone(),
        bearer: config.bearer.clone(),
        is_required: config.is_required,
        endpoints: endpoints.into(),
        census,
        breaker: earlier.map_or_else(|| Arc::new(Breaker::new(now)), |earlier| Arc::clone(&earlier.breaker)),
        steering: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.steering)),
        in_flight: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.in_flight)),
    }
}

fn count(instance: &Instance, census: &mut Census) {
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

/// The same one as before, unless something about it changed.
pub(super) fn endpoint(
    address: Address,
    service: Arc<str>,
    instance: &Instance,
    is_suspect: bool,
    before: Option<&Arc<Endpoint>>,
    is_first: bool,
    now: Instant,
) -> Arc<Endpoint> {
    let status = match instance.condition {
        _ if is_suspect => Status::Suspect,
        Condition::Passing => Status::Passing,
        _ => Status::Warning,
    };
    if let Some(before) = before
        && *before.host == *instance.host // by another name now: TLS asks for that one
        && before.service == service
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
        service,
        key: before.map_or_else(|| EndpointKey { node, id, address }, |before| before.key.clone()),
        host: Arc::from(instance.host.as_str()),
        weight: instance.weight(),
        tier: 0,
        status,
        tags: instance.tags.clone(),
        meta: instance.meta.clone(),
        // Those of the first answer were there before us: only later ones are new.
        warms_from: before.map_or((!is_first).then_some(now), |before| before.warms_from),
        health: before.map_or_else(|| Arc::new(EndpointHealth::new(now)), |before| Arc::clone(&before.health)),
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
    let Some(earlier) = earlier.filter(|earlier| earlier.census.is_known) else { return false };
    let was_known = |key: &EndpointKey| earlier.endpoints.binary_search_by(|other| other.key.cmp(key)).is_ok();
    built.endpoints.iter().any(|endpoint| endpoint.status != Status::Suspect && !was_known(&endpoint.key))
}

/// Whether nobody could tell the two apart.
pub(super) fn is_same(earlier: &Upstream, built: &Upstream) -> bool {
    let same_endpoints = earlier.endpoints.len() == built.endpoints.len()
        && earlier.endpoints.iter().zip(&built.endpoints).all(|(old, new)| Arc::ptr_eq(old, new));
    let same_routes = earlier.routes.iter().eq_by_policy(built.routes.iter());
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
}

/// Routes are equal when their patterns and policies are.
trait EqByPolicy<'a>: Iterator<Item = &'a lictor_core::route::Route> + Sized {
    fn eq_by_policy(self, other: Self) -> bool {
        let key =
            |route: &'a lictor_core::route::Route| (&route.label, route.method(), &route.policy, route.is_idempotent);
        self.map(key).eq(other.map(key))
    }
}

impl<'a, I: Iterator<Item = &'a lictor_core::route::Route>> EqByPolicy<'a> for I {}
