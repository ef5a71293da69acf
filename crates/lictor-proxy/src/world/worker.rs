//! One data-plane thread: its view of the mesh, and what it has besides.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Version};
use lictor_core::Mesh;
use tokio::sync::{Notify, watch};

use super::redis::Redis;
use super::shared::Shared;
use super::view::View;
use crate::stores::answers::Answers;
use crate::stores::date::Date;
use crate::stores::passwords::Passwords;
use crate::stores::tokens::Tokens;

/// Idle connections are looked for at most so often: it is a look at all endpoints.
const YIELD: Duration = Duration::from_millis(5);

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
    /// The date, for answers that have none.
    pub(crate) date: Date,
    /// What a gateway's service has said.
    pub(crate) answers: RefCell<Answers>,
    /// Passwords that were right.
    pub(crate) passwords: RefCell<Passwords>,
    /// Tokens that were believed.
    pub(crate) tokens: RefCell<Tokens>,
    /// Our hop in `Via`, and that of our inbound listener: our application may call its own service.
    pub(crate) hop: Hop,
    pub(crate) inbound_hop: Hop,
    /// Where limits are counted that several processes have together.
    pub(crate) redis: Redis,
    /// `<service>/<instance>`: who calls.
    pub(crate) from: Option<HeaderValue>,
}

/// Who we are to those who read `Via` (RFC 9110, section 7.6.3).
#[derive(Debug)]
pub(crate) struct Hop {
    /// `lictor-<instance>`, and `lictor-<instance>-inbound`.
    pub(crate) name: String,
    old: HeaderValue,
    usual: HeaderValue,
    new: HeaderValue,
}

impl Hop {
    fn new(name: String) -> Self {
        let entry = |version: &str| HeaderValue::try_from(format!("{version} {name}"));
        let (Ok(old), Ok(usual), Ok(new)) = (entry("1.0"), entry("1.1"), entry("2.0")) else {
            return Self::new("lictor".to_owned());
        };
        Self { name, old, usual, new }
    }

    /// The entry for a message that came to us in this version.
    pub(crate) fn entry(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.new,
            Version::HTTP_10 => &self.old,
            _ => &self.usual,
        }
    }
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, mesh: &Arc<Mesh>, seed: u64) -> Rc<Self> {
        let local = &mesh.local;
        let name = if local.instance.is_empty() {
            format!("lictor-{:08x}", shared.number)
        } else {
            format!("lictor-{}", local.instance)
        };
        let from = match (local.service.is_empty(), local.instance.is_empty()) {
            (true, _) => None,
            (false, true) => Some(local.service.clone()),
            (false, false) => Some(format!("{}/{}", local.service, local.instance)),
        };
        let redis = Redis::new(Arc::clone(&shared.redis));
        let worker = Rc::new(Self {
            index,
            shared,
            view: RefCell::new(Rc::new(View::before(mesh))),
            changed: Notify::new(),
            random: Cell::new(seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            requests: Cell::new(0),
            date: Date::default(),
            answers: RefCell::default(),
            passwords: RefCell::default(),
            tokens: RefCell::new(Tokens::new()),
            inbound_hop: Hop::new(format!("{name}-inbound")),
            hop: Hop::new(name),
            redis,
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
            self.catch_up(&latest);
        }
    }

    /// Works by this mesh from now on, if it does not yet.
    pub(crate) fn catch_up(&self, mesh: &Arc<Mesh>) {
        if !Arc::ptr_eq(&self.view.borrow().mesh, mesh) {
            self.adopt(mesh);
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
            self.shared.limiter.observe(view.mesh.gateways, now);
            self.shared.metrics.limits_are_divided_by(self.shared.limiter.parts());
            self.shared.metrics.redis_is_up(self.index, view.mesh.redis.as_ref().map(|_| self.redis.is_up()));
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            self.shared.metrics.tasks(self.index, tasks);
        }
    }

    /// Closes idle connections that somebody elsewhere waits for.
    pub(crate) async fn yield_idle(self: Rc<Self>) {
        loop {
            self.shared.live[self.index].wanted.notified().await;
            for upstream in self.view().upstreams.values() {
                upstream.endpoints.iter().for_each(|endpoint| endpoint.pool.yield_idle());
            }
            tokio::time::sleep(YIELD).await;
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
        self.redis.follow(mesh.redis.as_ref(), &self.shared.tls);
        self.shared.limiter.observe(mesh.gateways, began);
        let view = View::follow(&self.shared, &|| self.random(), Arc::clone(mesh), &self.view());
        *self.view.borrow_mut() = Rc::new(view);
        self.changed.notify_waiters();
        self.shared.metrics.adopted(began.elapsed());
    }
}
