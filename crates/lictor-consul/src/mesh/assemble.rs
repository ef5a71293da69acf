//! The only maker of [`Mesh`]: a pure function from the configuration, what was observed, and the mesh before.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lictor_config::{Config, Listen, Query, Source};
use lictor_core::breaker::{Breaker, Transition};
use lictor_core::mesh::{Census, Forward, Inbound, Listener, ListenerKind, Local, Status};
use lictor_core::policy::{BreakerPolicy, EjectionPolicy, Limits, Policy, RetryPolicy};
use lictor_core::route::Routes;
use lictor_core::{Mesh, Upstream};

use super::addresses::fixed;
use super::inputs::Inputs;
use super::upstream::{AsItIs, build, endpoint, has_newcomer, is_same};

/// A mesh, and the breakers that it moved.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) mesh: Mesh,
    pub(crate) transitions: Vec<(Arc<str>, Transition)>,
}

/// Builds the mesh. What is the same as before is shared with it: upstreams that did not change are the same `Arc`.
pub(crate) fn assemble(inputs: &Inputs<'_>, previous: Option<&Mesh>, now: Instant) -> Assembled {
    let config = inputs.config;
    let mut transitions = Vec::new();
    let mut upstreams = BTreeMap::new();
    let declared = config.upstreams.iter().map(Cow::Borrowed);
    let implied = inputs.demanded.iter().map(|name| Cow::Owned(implied(config, name)));
    for upstream in declared.chain(implied) {
        let name: Arc<str> = Arc::from(upstream.name.as_str());
        let earlier = previous.and_then(|mesh| mesh.upstreams.get(&name));
        if let Some(earlier) = earlier.filter(|_| !inputs.changed.touches(&upstream)) {
            upstreams.entry(name).or_insert_with(|| Arc::clone(earlier));
            continue;
        }
        let built = build(&upstream, &name, inputs, earlier, now);
        if has_newcomer(&built, earlier)
            && let Some(transition) = built.breaker.topology_changed(now)
        {
            transitions.push((Arc::clone(&name), transition));
        }
        let unchanged = earlier.filter(|earlier| is_same(earlier, &built));
        upstreams.entry(name).or_insert_with(|| unchanged.map_or_else(|| Arc::new(built), Arc::clone));
    }
    let mesh = Mesh {
        generation: previous.map_or(1, |mesh| mesh.generation + 1),
        local: local(config),
        listeners: listeners(config),
        upstreams,
        forward: config.outbound.proxy.as_ref().map(|_| Forward { allow: config.outbound.allow.clone() }),
        inbound: inbound(config, previous, now),
        gateway: config.gateway.as_ref().map(|gateway| Arc::clone(&gateway.routes)),
        maintenance: inputs.maintenance.clone(),
        gateways: gateways(inputs),
        redis: config.redis.clone(),
        trace: config.trace.settings.clone(),
        start_timeout: config.lifecycle.start_timeout,
        access_log: config.log.access,
        access_levels: Arc::clone(&config.log.levels),
    };
    Assembled { mesh, transitions }
}

/// Whether publishing it would tell anybody anything.
pub(crate) fn is_news(previous: &Mesh, next: &Mesh) -> bool {
    let same_upstreams = previous.upstreams.len() == next.upstreams.len()
        && previous.upstreams.values().zip(next.upstreams.values()).all(|(old, new)| Arc::ptr_eq(old, new));
    let same_inbound = match (&previous.inbound, &next.inbound) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    let same_gateway = match (&previous.gateway, &next.gateway) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    !(same_upstreams
        && same_inbound
        && same_gateway
        && previous.listeners == next.listeners
        && previous.local == next.local
        && previous.maintenance == next.maintenance
        && previous.gateways == next.gateways
        && previous.redis == next.redis
        && previous.forward == next.forward
        && previous.trace == next.trace
        && previous.start_timeout == next.start_timeout
        && previous.access_log == next.access_log
        && previous.access_levels == next.access_levels)
}

/// A service that is only called through the forward proxy has the default policy.
fn implied(config: &Config, name: &str) -> lictor_config::Upstream {
    lictor_config::Upstream {
        name: name.to_owned(),
        listen: None,
        source: Source::Consul(Query { service: name.to_owned(), ..Query::default() }),
        protocol: None,
        tls: None,
        is_required: false,
        policy: config.defaults.clone(),
        routes: Routes::default(),
        set_headers: Vec::new(),
        bearer: None,
        bootstrap: Vec::new(),
        failover: Vec::new(),
        prefers_zone: true,
    }
}

/// How many of us there are.
fn gateways(inputs: &Inputs<'_>) -> u32 {
    let own = inputs.config.own_query().and_then(|query| inputs.observed.get(&query));
    own.map_or(0, |observed| observed.last_good().iter().filter(|instance| instance.is_usable()).count() as u32)
}

fn local(config: &Config) -> Arc<Local> {
    Arc::new(Local {
        service: config.service.clone().unwrap_or_default(),
        instance: config.registration.as_ref().map(|registration| registration.id.clone()).unwrap_or_default(),
    })
}

/// What a configuration listens on: the mesh's listeners, known before there is a mesh of it.
pub fn listeners(config: &Config) -> Vec<Listener> {
    let trusted = || config.gateway.as_ref().map(|gateway| gateway.routes.proxies.trusted.clone());
    let listener = |kind, listen: &Listen| Listener {
        kind,
        address: listen.address.clone(),
        tls: listen.tls.clone(),
        proxies: if listen.proxy_protocol { trusted() } else { None },
        max_connection_age: listen.max_connection_age,
    };
    let upstreams = config.upstreams.iter().filter_map(|upstream| {
        let kind = ListenerKind::Upstream(Arc::from(upstream.name.as_str()));
        Some(listener(kind, upstream.listen.as_ref()?))
    });
    let forward = config.outbound.proxy.as_ref().map(|listen| listener(ListenerKind::Forward, listen));
    let inbound = config.inbound.as_ref().map(|inbound| listener(ListenerKind::Inbound, &inbound.listen));
    let gateway = config.gateway.as_ref().map(|gateway| listener(ListenerKind::Gateway, &gateway.listen));
    let redirect = config.gateway.as_ref().and_then(|gateway| gateway.redirect_http.as_ref());
    let redirect = redirect.map(|listen| listener(ListenerKind::Redirect, listen));
    upstreams.chain(forward).chain(inbound).chain(gateway).chain(redirect).collect()
}

/// Our application as an upstream: one endpoint, tried once, never given a rest.
fn inbound(config: &Config, previous: Option<&Mesh>, now: Instant) -> Option<Arc<Inbound>> {
    let settings = config.inbound.as_ref()?;
    let address = config.app.address.clone()?;
    let policy = Policy {
        retry: RetryPolicy { attempts: 1, ..RetryPolicy::default() },
        breaker: BreakerPolicy { enabled: false, ..BreakerPolicy::default() },
        ejection: EjectionPolicy { consecutive: 0, ..EjectionPolicy::default() },
        limits: Limits {
            max_in_flight: settings.max_in_flight,
            max_pending: 0,
            max_connections: u32::MAX,
            ..Limits::default()
        },
        timeouts: config.defaults.timeouts.clone(),
        ..Policy::default()
    };
    let earlier = previous.and_then(|mesh| mesh.inbound.as_ref());
    if let Some(earlier) = earlier
        && *earlier.app.policy == policy
        && earlier.tokens == settings.tokens
        && earlier.limits == settings.limits
        && earlier.app.protocol == config.app.protocol
        && earlier.app.endpoints.first().is_some_and(|endpoint| endpoint.address == address)
    {
        return Some(Arc::clone(earlier));
    }
    let name: Arc<str> = Arc::from(config.service.as_deref().unwrap_or("app"));
    let mut instance = fixed(&address.to_string());
    "app".clone_into(&mut instance.id);
    instance.host = address.tcp().map_or_else(|| "localhost".to_owned(), |address| address.ip().to_string());
    let as_it_is = AsItIs { service: &name, tier: 0, instance: &instance, status: Status::Passing, is_first: true };
    let endpoint = endpoint(address, &as_it_is, None, now);
    let app = Upstream {
        service: Arc::clone(&name),
        name,
        protocol: config.app.protocol,
        tls: None,
        policy: Arc::new(policy),
        routes: Routes::default(),
        set_headers: Vec::new(),
        bearer: None,
        is_required: false,
        endpoints: Box::new([endpoint]),
        census: Census { source: "static", is_known: true, total: 1, ..Census::default() },
        standby: Box::default(),
        zone: None,
        breaker: Arc::new(Breaker::new(now)),
        steering: Arc::default(),
        in_flight: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.app.in_flight)),
    };
    Some(Arc::new(Inbound {
        app: Arc::new(app),
        tokens: settings.tokens.clone(),
        limits: Arc::clone(&settings.limits),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use lictor_config::{Environment, Text, load};
    use lictor_core::Reason;
    use lictor_core::breaker::{BreakerState, Verdict};
    use lictor_core::mesh::Protocol;
    use proptest::prelude::*;

    use super::super::inputs::Changed;
    use super::*;
    use crate::agent::Instance;
    use crate::agent::health::Condition;
    use crate::watch::Observed;

    fn config(yaml: &str) -> Config {
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn users() -> Config {
        config("registration: off\nupstreams: {users: 3001}\n")
    }

    fn instance(id: &str, port: u16) -> Instance {
        Instance { id: id.to_owned(), node: "n".to_owned(), ..fixed(&format!("127.0.0.1:{port}")) }
    }

    fn observed(instances: Vec<Instance>) -> HashMap<Query, Observed> {
        let query = Query { service: "users".to_owned(), ..Query::default() };
        HashMap::from([(query, Observed::of(instances))])
    }

    fn mesh(config: &Config, observed: &HashMap<Query, Observed>, previous: Option<&Mesh>, now: Instant) -> Mesh {
        let (addresses, remembered) = (HashMap::new(), HashMap::new());
        let inputs = Inputs {
            config,
            observed,
            remembered: &remembered,
            addresses: &addresses,
            demanded: &[],
            maintenance: None,
            changed: Changed::Anything,
        };
        assemble(&inputs, previous, now).mesh
    }

    #[test]
    fn unchanged_inputs_are_no_news() {
        let (config, now) = (users(), Instant::now());
        let seen = observed(vec![instance("a", 1), instance("b", 2)]);
        let first = mesh(&config, &seen, None, now);
        let second = mesh(&config, &seen, Some(&first), now);
        assert!(!is_news(&first, &second));
        let third = mesh(&config, &observed(vec![instance("a", 1)]), Some(&second), now);
        assert!(is_news(&second, &third));
    }

    #[test]
    fn who_stays_keeps_its_health_and_who_comes_later_warms_up() {
        let (config, now) = (users(), Instant::now());
        let first = mesh(&config, &observed(vec![instance("a", 1)]), None, now);
        let old = Arc::clone(&first.upstreams["users"].endpoints[0].health);
        let second = mesh(&config, &observed(vec![instance("a", 1), instance("b", 2)]), Some(&first), now);
        let endpoints = &second.upstreams["users"].endpoints;
        assert!(Arc::ptr_eq(&endpoints[0].health, &old));
        assert_eq!((endpoints[0].warms_from, endpoints[1].warms_from), (None, Some(now)));
    }

    #[test]
    fn the_same_id_at_another_address_is_another_endpoint() {
        let (config, now) = (users(), Instant::now());
        let first = mesh(&config, &observed(vec![instance("a", 1)]), None, now);
        let second = mesh(&config, &observed(vec![instance("a", 2)]), Some(&first), now);
        let health = |mesh: &Mesh| Arc::clone(&mesh.upstreams["users"].endpoints[0].health);
        assert!(!Arc::ptr_eq(&health(&first), &health(&second)));
    }

    #[test]
    fn the_same_address_by_another_name_is_the_same_endpoint_with_that_name() {
        let (config, now) = (users(), Instant::now());
        let addresses = ["old.test", "new.test"].map(|name| (name.to_owned(), vec![IpAddr::from([10, 0, 0, 1])]));
        let (addresses, remembered) = (HashMap::from(addresses), HashMap::new());
        let named = |name: &str, previous: Option<&Mesh>| {
            let observed = observed(vec![Instance { host: name.to_owned(), ..instance("a", 1) }]);
            let inputs = Inputs {
                config: &config,
                observed: &observed,
                remembered: &remembered,
                addresses: &addresses,
                demanded: &[],
                maintenance: None,
                changed: Changed::Anything,
            };
            assemble(&inputs, previous, now).mesh
        };
        let first = named("old.test", None);
        let second = named("new.test", Some(&first));
        let (old, new) = (&first.upstreams["users"].endpoints[0], &second.upstreams["users"].endpoints[0]);
        assert_eq!((&*old.host, &*new.host), ("old.test", "new.test"));
        assert!(is_news(&first, &second) && Arc::ptr_eq(&old.health, &new.health));
    }

    #[test]
    fn a_new_instance_lets_an_open_breaker_try() {
        let (config, now) = (users(), Instant::now());
        let first = mesh(&config, &observed(vec![instance("a", 1)]), None, now);
        let upstream = &first.upstreams["users"];
        for _ in 0..5 {
            let admission = upstream.breaker.admit(&upstream.policy.breaker, now).unwrap();
            upstream.breaker.finish(&upstream.policy.breaker, admission, Verdict::Failure(Reason::Status), now);
        }
        assert_eq!(upstream.breaker.state(), BreakerState::Open);
        let second = mesh(&config, &observed(vec![instance("b", 2)]), Some(&first), now);
        assert_eq!(second.upstreams["users"].breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn a_changed_policy_keeps_the_breaker() {
        let now = Instant::now();
        let seen = observed(vec![instance("a", 1)]);
        let first = mesh(&users(), &seen, None, now);
        let stricter = config("registration: off\nupstreams: {users: {listen: 3001, timeout: 1s}}\n");
        let second = mesh(&stricter, &seen, Some(&first), now);
        let (old, new) = (&first.upstreams["users"], &second.upstreams["users"]);
        assert!(!Arc::ptr_eq(old, new) && Arc::ptr_eq(&old.breaker, &new.breaker));
        assert!(Arc::ptr_eq(&old.endpoints[0], &new.endpoints[0]));
    }

    #[test]
    fn those_left_out_are_counted() {
        let (config, now) = (users(), Instant::now());
        let with = |id: &str, condition| Instance { condition, ..instance(id, 1) };
        let seen = observed(vec![
            with("a", Condition::Critical),
            with("b", Condition::Maintenance),
            Instance { port: 0, ..instance("c", 1) },
            Instance { weight_warning: 0, ..with("d", Condition::Warning) },
        ]);
        let mesh = mesh(&config, &seen, None, now);
        let census = &mesh.upstreams["users"].census;
        assert_eq!((census.total, census.critical, census.maintenance, census.unusable), (4, 1, 1, 2));
        assert!(mesh.upstreams["users"].endpoints.is_empty());
    }

    #[test]
    fn a_host_name_is_waited_for_and_then_every_address_is_an_endpoint() {
        let (config, now) =
            (config("registration: off\nupstreams: {db: {listen: 3001, static: ['db.test:80']}}\n"), Instant::now());
        let seen = HashMap::new();
        let with = |addresses: HashMap<String, Vec<IpAddr>>, previous: Option<&Mesh>| {
            let remembered = HashMap::new();
            let inputs = Inputs {
                config: &config,
                observed: &seen,
                remembered: &remembered,
                addresses: &addresses,
                demanded: &[],
                maintenance: None,
                changed: Changed::Anything,
            };
            assemble(&inputs, previous, now).mesh
        };
        let first = with(HashMap::new(), None);
        assert!(!first.upstreams["db"].census.is_known, "a request waits for the lookup");
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let second = with(HashMap::from([("db.test".to_owned(), vec![ip(1), ip(2)])]), Some(&first));
        let upstream = &second.upstreams["db"];
        let addresses: Vec<String> = upstream.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(upstream.census.is_known && upstream.endpoints.iter().all(|endpoint| endpoint.warms_from.is_none()));
        let none = with(HashMap::from([("db.test".to_owned(), vec![])]), Some(&first));
        assert!(none.upstreams["db"].census.is_known && none.upstreams["db"].census.unusable == 1);
    }

    #[test]
    fn what_is_kept_is_a_suspect_and_no_newcomer() {
        let (config, now) = (users(), Instant::now());
        let first = mesh(&config, &observed(vec![instance("a", 1)]), None, now);
        let query = Query { service: "users".to_owned(), ..Query::default() };
        let emptied = HashMap::from([(query, Observed { suspects: vec![instance("a", 1)], ..Observed::default() })]);
        let second = mesh(&config, &emptied, Some(&first), now);
        let (old, new) = (&first.upstreams["users"], &second.upstreams["users"]);
        assert_eq!((new.endpoints[0].status, new.census.suspect, new.census.total), (Status::Suspect, 1, 0));
        assert!(Arc::ptr_eq(&old.endpoints[0].health, &new.endpoints[0].health));
    }

    #[test]
    fn meta_says_what_is_spoken() {
        let (config, now) = (users(), Instant::now());
        let mut grpc = instance("a", 1);
        grpc.meta.insert("protocol".to_owned(), "grpc".to_owned());
        let seen = observed(vec![grpc]);
        assert_eq!(mesh(&config, &seen, None, now).upstreams["users"].protocol, Protocol::Grpc);
    }

    /// An instance by number: few enough that they come and go, with a condition each.
    fn some() -> impl Strategy<Value = Vec<(u16, u8)>> {
        prop::collection::vec((1_u16..8, 0_u8..4), 0..8)
    }

    proptest! {
        #[test]
        fn whatever_consul_says_in_a_row_the_mesh_keeps_its_laws(steps in prop::collection::vec(some(), 1..12)) {
            let (config, now) = (users(), Instant::now());
            let mut previous = mesh(&config, &HashMap::new(), None, now);
            for step in steps {
                let numbered = |(number, condition): &(u16, u8)| {
                    let conditions =
                        [Condition::Passing, Condition::Warning, Condition::Critical, Condition::Maintenance];
                    let condition = conditions[usize::from(*condition)];
                    Instance { condition, ..instance(&number.to_string(), *number) }
                };
                let seen = observed(step.iter().map(numbered).collect());
                let next = mesh(&config, &seen, Some(&previous), now);
                let (old, new) = (&previous.upstreams["users"], &next.upstreams["users"]);
                prop_assert!(Arc::ptr_eq(&old.breaker, &new.breaker) && Arc::ptr_eq(&old.in_flight, &new.in_flight));
                prop_assert!(Arc::ptr_eq(&old.steering, &new.steering));
                prop_assert!(new.endpoints.windows(2).all(|pair| pair[0].key < pair[1].key), "sorted, each once");
                prop_assert!(new.endpoints.iter().all(|endpoint| endpoint.weight > 0));
                for endpoint in &new.endpoints {
                    if let Some(earlier) = old.endpoints.iter().find(|earlier| earlier.key == endpoint.key) {
                        prop_assert!(Arc::ptr_eq(&earlier.health, &endpoint.health));
                        prop_assert_eq!(earlier.warms_from, endpoint.warms_from);
                    } else {
                        prop_assert_eq!(endpoint.warms_from, old.census.is_known.then_some(now));
                    }
                }
                let again = mesh(&config, &seen, Some(&next), now);
                prop_assert!(!is_news(&next, &again), "the same again is no news");
                previous = next;
            }
        }
    }
}
