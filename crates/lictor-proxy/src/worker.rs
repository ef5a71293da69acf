//! One data-plane thread's own world: its view of the mesh, its pools, balancers and budgets.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use http::HeaderValue;
use lictor_core::balance::{Balancer, Load, Slot, hash_bytes};
use lictor_core::budget::RetryBudget;
use lictor_core::latency::Latencies;
use lictor_core::mesh::Inbound;
use lictor_core::{Endpoint, Mesh, Upstream};
use lictor_tls::{Client, Credentials};
use tokio::sync::{Notify, mpsc, watch};

use crate::cache::Cache;
use crate::connect::Destination;
use crate::metrics::{Metrics, UpstreamMeters};
use crate::pool::Pool;
use crate::recorder::Recorder;
use crate::span::Span;
use crate::spent::Spent;
use crate::tap::Tap;

/// What all workers of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) metrics: Metrics,
    pub(crate) access_log: Option<SyncSender<Vec<u8>>>,
    pub(crate) spans: Option<mpsc::Sender<Span>>,
    /// Names that the forward proxy was asked for and that are not watched yet.
    pub(crate) demand: mpsc::UnboundedSender<Arc<str>>,
    /// Set while this sidecar's own service is leaving.
    pub(crate) is_draining: AtomicBool,
    /// Set when this sidecar waits no longer for requests to end.
    pub(crate) is_cut: AtomicBool,
    /// Requests to our own application that came with a trace and are being served.
    pub(crate) traced_inbound: AtomicUsize,
    pub(crate) tls: Credentials,
    pub(crate) cache: Cache,
    pub(crate) spent: Spent,
    pub(crate) recorder: Recorder,
    pub(crate) tap: Tap,
    /// Connections of each worker.
    pub(crate) live: Box<[Live]>,
}

/// One worker's connections; a cache line of its own, because only its worker writes it often.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Live(AtomicUsize);

impl Live {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    view: RefCell<Rc<View>>,
    /// Tells requests that wait for endpoints.
    pub(crate) changed: Notify,
    random: Cell<u64>,
    /// Good requests so far.
    requests: Cell<u32>,
    /// `1.1 lictor-<instance>`: our hop in `Via`.
    pub(crate) hop: HeaderValue,
    /// `<service>/<instance>`: who calls.
    pub(crate) from: Option<HeaderValue>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, mesh: &Arc<Mesh>, seed: u64) -> Rc<Self> {
        let local = &mesh.local;
        let hop = if local.instance.is_empty() {
            format!("1.1 lictor-{seed:08x}")
        } else {
            format!("1.1 lictor-{}", local.instance)
        };
        let from = match (local.service.is_empty(), local.instance.is_empty()) {
            (true, _) => None,
            (false, true) => Some(local.service.clone()),
            (false, false) => Some(format!("{}/{}", local.service, local.instance)),
        };
        let worker = Rc::new(Self {
            index,
            shared,
            view: RefCell::new(Rc::new(View::before(mesh))),
            changed: Notify::new(),
            random: Cell::new(seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            requests: Cell::new(0),
            hop: HeaderValue::try_from(hop).unwrap_or(HeaderValue::from_static("1.1 lictor")),
            from: from.and_then(|from| HeaderValue::try_from(from).ok()),
        });
        worker.adopt(mesh);
        worker
    }

    /// The mesh as it is now; a request holds it to its end.
    pub(crate) fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Follows the mesh for as long as somebody publishes it.
    pub(crate) async fn follow(self: Rc<Self>, mut mesh: watch::Receiver<Arc<Mesh>>) {
        while mesh.changed().await.is_ok() {
            let latest = Arc::clone(&mesh.borrow_and_update());
            self.adopt(&latest);
        }
    }

    /// Closes connections that were idle for too long, and sets gauges, once a second.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = tick.tick().await.into_std();
            let view = self.view();
            for upstream in view.upstreams.values().chain(view.inbound.as_ref().map(|inbound| &inbound.app)) {
                for endpoint in &upstream.endpoints {
                    endpoint.pool.sweep(&upstream.upstream.policy.pool, now);
                }
                upstream.meters.budget(upstream.budget.remaining_ratio(now));
            }
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            self.shared.metrics.tasks(self.index, tasks);
        }
    }

    /// A random number, good enough for jitter, sampling and ids (splitmix64, Steele et al. 2014).
    pub(crate) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The number of a good request, from 0.
    pub(crate) fn number(&self) -> u32 {
        let number = self.requests.get();
        self.requests.set(number.wrapping_add(1));
        number
    }

    /// A random share, 0 to 1.
    pub(crate) fn chance(&self) -> f64 {
        (self.random() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn adopt(&self, mesh: &Arc<Mesh>) {
        let began = Instant::now();
        let view = View::follow(self, Arc::clone(mesh), &self.view());
        *self.view.borrow_mut() = Rc::new(view);
        self.changed.notify_waiters();
        self.shared.metrics.adopted(began.elapsed());
    }
}

/// A mesh, as this worker uses it. Immutable: a new mesh makes a new view, which takes over pools and loads by key.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) upstreams: HashMap<Arc<str>, Rc<UpstreamState>>,
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
    pub(crate) balancer: Balancer,
    pub(crate) budget: Rc<RetryBudget>,
    pub(crate) meters: UpstreamMeters,
    /// `Host` for its endpoints.
    pub(crate) host: HeaderValue,
    /// A place among the running requests became free.
    pub(crate) freed: Notify,
    /// Of good answers, for hedging.
    pub(crate) latencies: RefCell<Latencies>,
}

/// An endpoint, with what this worker keeps for it.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) load: Rc<Load>,
    pub(crate) pool: Rc<Pool>,
    /// `<service>/<instance>`: whom we mean; a sidecar that is somebody else answers 421.
    pub(crate) to: HeaderValue,
    /// Where it is on a hash ring.
    hash: u64,
}

impl View {
    /// Before the first mesh: one like it, without its services.
    fn before(mesh: &Mesh) -> Self {
        let mesh = Arc::new(Mesh { upstreams: BTreeMap::new(), ..mesh.clone() });
        Self { mesh, upstreams: HashMap::new(), inbound: None }
    }

    fn follow(worker: &Worker, mesh: Arc<Mesh>, previous: &Self) -> Self {
        // Of a thousand services few change at a time: the others are passed by, without a look at the map.
        let mut upstreams = previous.upstreams.clone();
        let mut known = previous.mesh.upstreams.iter().peekable();
        for (name, upstream) in &mesh.upstreams {
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < name) {
                upstreams.remove(gone);
            }
            let before = known.next_if(|(known, _)| *known == name);
            if before.is_none_or(|(_, before)| !Arc::ptr_eq(before, upstream)) {
                let state = UpstreamState::follow(worker, upstream, previous.upstreams.get(name));
                upstreams.insert(Arc::clone(name), state);
            }
        }
        for (gone, _) in known {
            upstreams.remove(gone);
        }
        let inbound = mesh.inbound.as_ref().map(|inbound| {
            let earlier = previous.inbound.as_ref().map(|state| &state.app);
            let app = UpstreamState::follow(worker, &inbound.app, earlier);
            Rc::new(InboundState { inbound: Arc::clone(inbound), app })
        });
        Self { mesh, upstreams, inbound }
    }
}

impl UpstreamState {
    fn follow(worker: &Worker, upstream: &Arc<Upstream>, earlier: Option<&Rc<Self>>) -> Rc<Self> {
        if let Some(earlier) = earlier
            && Arc::ptr_eq(&earlier.upstream, upstream)
        {
            return Rc::clone(earlier);
        }
        let mut known = earlier.map_or(&[][..], |earlier| &earlier.endpoints).iter().peekable();
        let keeps_tls = earlier.is_some_and(|earlier| earlier.upstream.tls == upstream.tls);
        let tls = upstream.tls.as_ref().map(|tls| worker.shared.tls.client(tls));
        let endpoints: Vec<_> = upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                // Both are in the order of their keys.
                while known.next_if(|state| state.endpoint.key < endpoint.key).is_some() {}
                // Its connections are to the name that it had.
                let is_same = |old: &Endpoint| old.key == endpoint.key && old.host == endpoint.host;
                match known.next_if(|state| keeps_tls && is_same(&state.endpoint)) {
                    Some(state) if Arc::ptr_eq(&state.endpoint, endpoint) => Rc::clone(state),
                    Some(state) => Rc::new(state.renewed(endpoint)),
                    None => Rc::new(EndpointState::new(upstream, endpoint, tls.clone())),
                }
            })
            .collect();
        let slots = endpoints.iter().map(|state| state.slot()).collect();
        let budget =
            earlier.filter(|earlier| earlier.upstream.policy.retry.budget == upstream.policy.retry.budget).map_or_else(
                || Rc::new(RetryBudget::new(upstream.policy.retry.budget, worker.shared.live.len(), Instant::now())),
                |earlier| Rc::clone(&earlier.budget),
            );
        Rc::new(Self {
            upstream: Arc::clone(upstream),
            balancer: Balancer::new(&upstream.policy.balance, slots, worker.random()),
            endpoints,
            budget,
            meters: UpstreamMeters::new(&worker.shared.metrics, &upstream.name),
            host: HeaderValue::try_from(upstream.service.as_ref()).unwrap_or(HeaderValue::from_static("localhost")),
            freed: Notify::new(),
            latencies: RefCell::new(Latencies::new(Instant::now())),
        })
    }
}

impl EndpointState {
    fn new(upstream: &Upstream, endpoint: &Arc<Endpoint>, tls: Option<Arc<Client>>) -> Self {
        let key = &endpoint.key;
        let to = format!("{}/{}", upstream.service, key.id);
        let destination = Destination { address: endpoint.address.clone(), host: Arc::clone(&endpoint.host), tls };
        Self {
            endpoint: Arc::clone(endpoint),
            load: Rc::new(Load::default()),
            pool: Rc::new(Pool::new(destination)),
            to: HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("")),
            hash: hash_bytes(format!("{}/{}/{}", key.node, key.id, key.address).as_bytes()),
        }
    }

    fn renewed(&self, endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            load: Rc::clone(&self.load),
            pool: Rc::clone(&self.pool),
            to: self.to.clone(),
            hash: self.hash,
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
