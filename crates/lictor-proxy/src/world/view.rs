//! A mesh, as one worker uses it: each upstream and endpoint with what the worker keeps for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::HOST;
use http::{HeaderValue, Method};
use lictor_core::balance::{Balance, Balancer, Load, Slot, hash_bytes};
use lictor_core::budget::RetryBudget;
use lictor_core::candidates::{Candidates, Front};
use lictor_core::latency::Latencies;
use lictor_core::limits::InFlight;
use lictor_core::mesh::Inbound;
use lictor_core::policy::{Limits, Policy};
use lictor_core::route::Route;
use lictor_core::steering::Orders;
use lictor_core::zones::Zones;
use lictor_core::{Address, ByName, Endpoint, Failure, Mesh, Reason, Upstream};
use lictor_tls::Client;

use super::pool::Pool;
use super::shared::Shared;
use crate::net::dial::Destination;
use crate::stores::metrics::UpstreamMeters;

/// A mesh, as this worker uses it. Immutable: a new mesh makes a new view, which takes over pools and loads by key.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) upstreams: ByName<Arc<str>, Rc<UpstreamState>>,
    pub(crate) inbound: Option<Rc<InboundState>>,
}

/// The server side.
#[derive(Debug)]
pub(crate) struct InboundState {
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) app: Rc<UpstreamState>,
}

/// An upstream, with what this worker keeps for it.
#[derive(Debug)]
pub(crate) struct UpstreamState {
    pub(crate) upstream: Arc<Upstream>,
    /// In the order of `upstream.endpoints`.
    pub(crate) endpoints: Vec<Rc<EndpointState>>,
    /// The upstream's, and of each way to choose that its routes have besides.
    balancers: Vec<Balancer>,
    /// Each route's, in their order.
    routes: Box<[usize]>,
    /// Whom a request usually goes to.
    front: Front,
    /// Whom of these first, where we have a zone.
    pub(crate) zones: Option<Zones>,
    /// When all endpoints were last looked at, it was to go there.
    pub(crate) is_usual: Cell<bool>,
    pub(crate) budget: Rc<RetryBudget>,
    pub(crate) meters: UpstreamMeters,
    /// Of good answers, for hedging.
    pub(crate) latencies: Rc<RefCell<Latencies>>,
    /// Since when its service is looked for: the start, or the reload or the request that named it.
    pub(crate) since: Instant,
}

/// An endpoint, with what this worker keeps for it.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) load: Rc<Load>,
    pub(crate) pool: Rc<Pool>,
    /// `Host`: its service.
    pub(crate) host: HeaderValue,
    /// `<service>/<instance>`: whom we mean; a sidecar that is somebody else answers 421.
    pub(crate) to: HeaderValue,
    /// Where it is on a hash ring.
    hash: u64,
}

impl View {
    /// Before the first mesh: one like it, without its services.
    pub(super) fn before(mesh: &Mesh) -> Self {
        let mesh = Arc::new(Mesh { upstreams: BTreeMap::new(), ..mesh.clone() });
        Self { mesh, upstreams: ByName::default(), inbound: None }
    }

    pub(super) fn follow(shared: &Shared, random: &impl Fn() -> u64, mesh: Arc<Mesh>, previous: &Self) -> Self {
        // Of a thousand services few change at a time: the others are passed by, without a look at the map.
        let mut upstreams = previous.upstreams.clone();
        let mut known = previous.mesh.upstreams.iter().peekable();
        for (name, upstream) in &mesh.upstreams {
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < name) {
                upstreams.remove(gone);
            }
            let before = known.next_if(|(known, _)| *known == name);
            if before.is_none_or(|(_, before)| !Arc::ptr_eq(before, upstream)) {
                let state = UpstreamState::follow(shared, random, upstream, previous.upstreams.get(name));
                upstreams.insert(Arc::clone(name), state);
            }
        }
        for (gone, _) in known {
            upstreams.remove(gone);
        }
        let inbound = mesh.inbound.as_ref().map(|inbound| {
            let earlier = previous.inbound.as_ref().map(|state| &state.app);
            let app = UpstreamState::follow(shared, random, &inbound.app, earlier);
            Rc::new(InboundState { inbound: Arc::clone(inbound), app })
        });
        Self { mesh, upstreams, inbound }
    }
}

impl View {
    /// The upstream that a host's name means, in whatever case either was written (RFC 3986, section 3.2.2): the one that is
    /// written likewise, else the first of the others.
    pub(crate) fn named(&self, name: &str) -> Option<&Rc<UpstreamState>> {
        let others = || self.upstreams.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        self.upstreams.get(name).or_else(|| others().min_by_key(|(known, _)| *known).map(|(_, upstream)| upstream))
    }
}

impl UpstreamState {
    fn follow(
        shared: &Shared,
        random: &impl Fn() -> u64,
        upstream: &Arc<Upstream>,
        earlier: Option<&Rc<Self>>,
    ) -> Rc<Self> {
        if let Some(earlier) = earlier
            && Arc::ptr_eq(&earlier.upstream, upstream)
        {
            return Rc::clone(earlier);
        }
        let mut known = earlier.map_or(&[][..], |earlier| &earlier.endpoints).iter().peekable();
        let keeps_tls = earlier.is_some_and(|earlier| earlier.upstream.tls == upstream.tls);
        let tls = upstream.tls.as_ref().map(|tls| shared.tls.client(tls));
        let endpoints: Vec<_> = upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                // Both are in the order of their keys.
                while known.next_if(|state| state.endpoint.key < endpoint.key).is_some() {}
                // Its connections are to the name that it had.
                let is_same = |old: &Endpoint| {
                    old.key == endpoint.key && old.host == endpoint.host && old.service == endpoint.service
                };
                match known.next_if(|state| keeps_tls && is_same(&state.endpoint)) {
                    Some(state) if Arc::ptr_eq(&state.endpoint, endpoint) => Rc::clone(state),
                    Some(state) => Rc::new(state.renewed(endpoint)),
                    None => Rc::new(EndpointState::new(endpoint, tls.clone(), shared.live.len())),
                }
            })
            .collect();
        let (balancers, routes) = balancers(upstream, &endpoints, random, earlier);
        let budget =
            earlier.filter(|earlier| earlier.upstream.policy.retry.budget == upstream.policy.retry.budget).map_or_else(
                || Rc::new(RetryBudget::new(upstream.policy.retry.budget, shared.live.len(), Instant::now())),
                |earlier| Rc::clone(&earlier.budget),
            );
        Rc::new(Self {
            upstream: Arc::clone(upstream),
            balancers,
            routes,
            endpoints,
            front: Front::of(&upstream.endpoints),
            zones: upstream.zone.as_ref().and_then(|zone| Zones::of(&upstream.endpoints, zone)),
            is_usual: Cell::new(true),
            budget,
            meters: UpstreamMeters::new(&shared.metrics, &upstream.name),
            latencies: earlier.map_or_else(
                || Rc::new(RefCell::new(Latencies::new(Instant::now()))),
                |earlier| Rc::clone(&earlier.latencies),
            ),
            since: earlier
                .filter(|earlier| earlier.upstream.service == upstream.service)
                .map_or_else(Instant::now, |earlier| earlier.since),
        })
    }
}

/// The balancers that an upstream and its routes need, each going on where the one before was; and each route's.
fn balancers(
    upstream: &Upstream,
    endpoints: &[Rc<EndpointState>],
    random: &impl Fn() -> u64,
    earlier: Option<&Rc<UpstreamState>>,
) -> (Vec<Balancer>, Box<[usize]>) {
    let make = |balance: &Balance| {
        let balancer = Balancer::new(balance, endpoints.iter().map(|state| state.slot()).collect(), random());
        match earlier.and_then(|earlier| earlier.balancers.iter().find(|before| before.is_for(balance))) {
            Some(before) => balancer.following(before),
            None => balancer,
        }
    };
    let mut balancers = vec![make(&upstream.policy.balance)];
    let place = |route: &Route| {
        let balance = &route.policy.balance;
        balancers.iter().position(|balancer| balancer.is_for(balance)).unwrap_or_else(|| {
            balancers.push(make(balance));
            balancers.len() - 1
        })
    };
    let routes = upstream.routes.iter().map(place).collect();
    (balancers, routes)
}

impl EndpointState {
    fn new(endpoint: &Arc<Endpoint>, tls: Option<Arc<Client>>, workers: usize) -> Self {
        let (key, service) = (&endpoint.key, &*endpoint.service);
        let to = format!("{service}/{}", key.id);
        let destination = Destination { address: endpoint.address.clone(), host: Arc::clone(&endpoint.host), tls };
        Self {
            endpoint: Arc::clone(endpoint),
            load: Rc::new(Load::default()),
            pool: Rc::new(Pool::new(destination, Arc::clone(&endpoint.connections), workers)),
            host: HeaderValue::try_from(service).unwrap_or(HeaderValue::from_static("localhost")),
            to: HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("")),
            hash: hash_bytes(format!("{}/{}/{}", key.node, key.id, key.address).as_bytes()),
        }
    }

    fn renewed(&self, endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            load: Rc::clone(&self.load),
            pool: Rc::clone(&self.pool),
            host: self.host.clone(),
            to: self.to.clone(),
            hash: self.hash,
        }
    }

    /// No connection could be made: the control plane asks whether it is still there.
    pub(crate) fn undialled(&self, failure: &Failure) {
        if matches!(failure.reason, Reason::ConnectRefused | Reason::ConnectTimeout) {
            self.endpoint.health.unreachable(Instant::now());
        }
    }

    fn slot(&self) -> Slot {
        Slot {
            weight: self.endpoint.weight,
            warms_from: self.endpoint.warms_from,
            hash: self.hash,
            load: Rc::clone(&self.load),
        }
    }
}

impl UpstreamState {
    /// The `Host` that the configuration sets.
    pub(crate) fn set_host(&self) -> Option<&HeaderValue> {
        self.upstream.set_headers.iter().find(|(name, _)| *name == HOST).map(|(_, host)| host)
    }

    /// The endpoints, as a pick asks for them.
    pub(crate) fn candidates<'a>(
        &'a self,
        policy: &Policy,
        orders: &'a Orders,
        only: Option<&'a Address>,
        tried: &'a [usize],
        now: Instant,
    ) -> Candidates<'a> {
        let (endpoints, front) = (&self.upstream.endpoints, self.front);
        Candidates { endpoints, front, orders, only, tried, panic: policy.balance.panic, now }
    }

    /// An endpoint that is not among these, and may be picked.
    pub(crate) fn has_other(&self, tried: &[usize], now: Instant) -> bool {
        let orders = self.upstream.steering.in_force(now);
        self.candidates(&self.upstream.policy, &orders, None, tried, now).has_other()
    }

    pub(crate) fn route(&self, method: &Method, path: &str) -> Option<usize> {
        self.upstream.routes.position(method, path)
    }

    /// Whether a route's requests are harmless when they are processed twice, where it says so.
    pub(crate) fn says_idempotent(&self, route: Option<usize>) -> Option<bool> {
        self.upstream.routes.get(route?)?.is_idempotent
    }

    /// A route's own counts and limits, where it has such besides the upstream's.
    pub(crate) fn bounded(&self, route: Option<usize>) -> Option<(&Arc<InFlight>, &Limits)> {
        let route = self.upstream.routes.get(route?)?;
        Some((route.in_flight.as_ref()?, &route.policy.limits))
    }

    /// How an endpoint is chosen for a route's requests.
    pub(crate) fn balancer(&self, route: Option<usize>) -> &Balancer {
        &self.balancers[route.and_then(|index| self.routes.get(index)).copied().unwrap_or_default()]
    }

    pub(crate) fn policy(&self, route: Option<usize>) -> &Policy {
        route.and_then(|index| self.upstream.routes.get(index)).map_or(&*self.upstream.policy, |route| &*route.policy)
    }
}
