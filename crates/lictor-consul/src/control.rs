//! The control loop: one task that owns the configuration and everything observed, and publishes meshes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use lictor_config::{Claims, Config, Query};
use lictor_core::gateway::maintenance::Orders;
use lictor_core::mesh::{Forward, Status as Standing};
use lictor_core::{Endpoint, Mesh, Upstream};
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::agent::{Client, Cursor, Instance, Random};
use crate::memory::{Contents, Remembered, RememberedClaims, Scope};
use crate::mesh::{BOOTSTRAP, Changed, Comings, Inputs, assemble, is_news, named, names, names_in};
use crate::status::Status;
use crate::watch::{
    Catalog, Guard, Hint, Id, KnownWatch, Names, News, Observed, OrdersKey, Refreshes, Resolved, ServiceWatch,
};

/// Services that the forward proxy may add: each costs a connection, and an agent has 200 for all of a machine.
const MAX_DEMANDED: usize = 100;
/// More watches than this at once do not start at the same instant.
const CROWD: usize = 20;
const CROWD_STARTS_WITHIN: Duration = Duration::from_secs(1);

/// Suspects leave, and a list is asked for anew, this long after connections failed at the latest.
const LOOK_AT_CONNECTIONS_EVERY: Duration = Duration::from_secs(1);
/// Connections to two endpoints fail within this time: not one instance's trouble.
const FAILING_TOGETHER: Duration = Duration::from_secs(10);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Order {
    Reload(Arc<Config>, oneshot::Sender<()>),
    /// What should be known after a restart?
    Remember(oneshot::Sender<Contents>),
}

/// A watch that runs.
#[derive(Debug)]
struct Watch {
    task: JoinHandle<()>,
    hints: mpsc::UnboundedSender<Hint>,
}

pub(crate) struct Control {
    config: Arc<Config>,
    client: Option<Arc<Client>>,
    status: Arc<Status>,
    observed: HashMap<Query, Observed>,
    /// From before this process began, until Consul says something itself.
    remembered: HashMap<Query, Remembered>,
    /// What services claim of the gateway, and from before this process began, until Consul says something itself.
    claims: channel::Sender<Option<Claims>>,
    remembered_claims: Option<RememberedClaims>,
    /// The watch of it, by what the tags begin with and who may claim something.
    catalog: Option<((String, lictor_config::Names), JoinHandle<()>)>,
    /// What is ordered of the gateway's maintenance, once somebody has said anything.
    maintenance: channel::Sender<Option<Arc<Orders>>>,
    /// The watch of it in KV.
    ordered: Option<JoinHandle<()>>,
    /// There is more to remember.
    changed: Arc<Notify>,
    scope: Scope,
    names: Names,
    demanded: Vec<Arc<str>>,
    watches: HashMap<Query, Watch>,
    /// When connections were looked at last.
    looked: Instant,
    news: mpsc::UnboundedSender<News>,
    mesh: channel::Sender<Arc<Mesh>>,
}

/// What is known at the start: answers, what services claim, and what is ordered of the gateway's maintenance.
pub(crate) type Begins = (HashMap<Query, Remembered>, Option<RememberedClaims>, channel::Sender<Option<Arc<Orders>>>);

impl Control {
    /// Spawns the loop; the first mesh is there at once.
    pub(crate) fn start(
        config: Arc<Config>,
        client: Option<Arc<Client>>,
        status: Arc<Status>,
        (remembered, claims, maintenance): Begins,
        changed: Arc<Notify>,
        orders: mpsc::UnboundedReceiver<Order>,
        demands: mpsc::UnboundedReceiver<Arc<str>>,
    ) -> (channel::Receiver<Arc<Mesh>>, channel::Receiver<Option<Claims>>) {
        let (news, incoming) = mpsc::unbounded_channel();
        let (names, resolved) = Names::new();
        let (observed, demanded) = (HashMap::new(), Vec::new());
        let inputs = Inputs {
            config: &config,
            observed: &observed,
            remembered: &remembered,
            addresses: names.addresses(),
            demanded: &demanded,
            maintenance: ordered(&config, client.is_some(), &maintenance),
            changed: Changed::Anything,
        };
        let mesh = channel::Sender::new(Arc::new(assemble(&inputs, None, Instant::now()).mesh));
        let meshes = mesh.subscribe();
        let (scope, watches) = (Scope::of(&config), HashMap::new());
        let looked = Instant::now();
        let mut control = Self {
            config,
            client,
            status,
            observed,
            remembered,
            claims: channel::Sender::new(None),
            remembered_claims: claims,
            catalog: None,
            maintenance,
            ordered: None,
            changed,
            scope,
            names,
            demanded,
            watches,
            looked,
            news,
            mesh,
        };
        control.watch();
        control.publish(Changed::Anything);
        control.mesh.borrow().upstreams.values().for_each(|upstream| tell_of_bootstrap(upstream, None));
        let claims = control.claims.subscribe();
        tokio::spawn(control.run(incoming, orders, demands, resolved));
        (meshes, claims)
    }

    async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut demands: mpsc::UnboundedReceiver<Arc<str>>,
        mut resolved: mpsc::UnboundedReceiver<Resolved>,
    ) {
        self.look_up();
        let (mut maintenance, mut told) = (self.maintenance.subscribe(), Arc::default());
        maintenance.mark_changed(); // an earlier process may have known it
        let mut look_at = tokio::time::interval(LOOK_AT_CONNECTIONS_EVERY);
        loop {
            let due = self.names.due();
            tokio::select! {
                biased;
                Some(News { query, observed }) = news.recv() => {
                    self.learn(query, observed);
                    continue;
                }
                Some(order) = orders.recv() => match order {
                    Order::Reload(config, done) => {
                        self.config = config;
                        self.watch();
                        self.publish(Changed::Anything);
                        let _ = done.send(());
                    }
                    Order::Remember(tell) => {
                        let _ = tell.send(self.contents());
                        continue;
                    }
                },
                Ok(()) = maintenance.changed() => {
                    tell_of_orders(&mut told, maintenance.borrow_and_update().as_ref());
                    self.changed.notify_one();
                }
                Some(name) = demands.recv() => self.demand(name),
                Some(resolved) = resolved.recv() => if !self.names.learn(resolved, Instant::now()) {
                    continue;
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.look_up();
                    continue;
                }
                _ = look_at.tick() => {
                    self.look_at_connections();
                    continue;
                }
                else => return,
            }
            self.look_up();
            self.publish(Changed::Anything);
        }
    }

    /// An answer of Consul.
    fn learn(&mut self, query: Query, observed: Observed) {
        // A watch that was stopped may have had the last word.
        if !self.watches.contains_key(&query) {
            return;
        }
        if self.remembered.remove(&query).is_some() {
            self.status.replaced(&query);
        }
        let has_names = names_in(&observed).next().is_some();
        let had_names =
            self.observed.insert(query.clone(), observed).is_some_and(|old| names_in(&old).next().is_some());
        self.changed.notify_one();
        if has_names || had_names {
            self.look_up();
        }
        self.publish(Changed::Answer(&query));
    }

    /// Tells watches what workers have met: suspects that nobody can connect to are none any more, and where connections to
    /// several endpoints fail the list may be old.
    fn look_at_connections(&mut self) {
        let now = Instant::now();
        let since = std::mem::replace(&mut self.looked, now);
        let mesh = Arc::clone(&self.mesh.borrow());
        for upstream in mesh.upstreams.values() {
            let Some(trouble) = trouble(&upstream.endpoints, since, now) else { continue };
            let queries = self.queries(&upstream.name);
            for watch in queries.iter().filter_map(|query| self.watches.get(query)) {
                if !trouble.gone.is_empty() {
                    let _ = watch.hints.send(Hint::Gone(trouble.gone.clone()));
                }
                if trouble.is_stale {
                    let _ = watch.hints.send(Hint::Stale);
                }
            }
        }
    }

    /// Has the host names resolved that endpoints need.
    fn look_up(&mut self) {
        let wanted = names(&self.inputs(Changed::Anything));
        self.names.want(wanted, Instant::now());
    }

    fn demand(&mut self, name: Arc<str>) {
        let is_known =
            self.demanded.contains(&name) || self.config.upstreams.iter().any(|upstream| upstream.name == *name);
        if is_known {
            return;
        }
        if self.demanded.len() >= MAX_DEMANDED && !self.forget_one() {
            warn!(service = %name, max = MAX_DEMANDED, "the forward proxy watches too many services to add one");
            return;
        }
        self.demanded.push(name);
        self.watch();
    }

    /// Makes room: a service that nobody offers was probably misspelt.
    fn forget_one(&mut self) -> bool {
        let is_offered = |name: &Arc<str>| {
            self.observed.get(&demanded_query(name)).is_none_or(|observed| *observed != Observed::default())
        };
        let position = self.demanded.iter().position(|name| !is_offered(name));
        position.map(|position| self.demanded.remove(position)).is_some()
    }

    /// Starts and stops watches until there is one for each query.
    fn watch(&mut self) {
        let declared = self.config.upstreams.iter().flat_map(lictor_config::Upstream::queries).cloned();
        let is_allowed = |name: &Arc<str>| allows(&self.config, name);
        self.demanded.retain(is_allowed);
        let demanded = self.demanded.iter().map(demanded_query);
        let wanted: Vec<Query> = declared.chain(demanded).chain(self.config.own_query()).collect();
        self.watches.retain(|query, watch| {
            let stays = wanted.contains(query);
            if !stays {
                watch.task.abort();
                self.observed.remove(query);
                self.status.forget(query);
            }
            stays
        });
        let Some(client) = self.client.clone() else { return };
        self.watch_catalog(&client);
        self.watch_orders(&client);
        let is_crowd = wanted.len() > CROWD;
        let mut recalled = 0_usize;
        for query in wanted {
            if self.watches.contains_key(&query) {
                continue;
            }
            let mut guard = Guard::new(self.config.consul.guard.clone());
            let mut cursor = Cursor::new(client.is_local());
            recalled += usize::from(self.recall(&query, &mut guard, &mut cursor));
            let consul = &self.config.consul;
            let mut random = Random::new();
            let delay = if is_crowd { CROWD_STARTS_WITHIN.mul_f64(random.share()) } else { Duration::ZERO };
            let (hints, incoming) = mpsc::unbounded_channel();
            let watch = ServiceWatch {
                query: Query {
                    datacenter: query.datacenter.clone().or_else(|| consul.datacenter.clone()),
                    ..query.clone()
                },
                client: Arc::clone(&client),
                connections: Arc::clone(self.status.connections()),
                consistency: consul.consistency,
                wait: consul.wait,
                max_stale: consul.max_stale,
                guard,
                cursor,
                status: Arc::clone(&self.status),
                news: self.news.clone(),
                hints: incoming,
                refreshes: Refreshes::default(),
                random,
                delay,
                key: query.clone(),
            };
            self.watches.insert(query, Watch { task: tokio::spawn(watch.run()), hints });
        }
        if recalled > 0 {
            let age_s = self.status.snapshot_age().unwrap_or_default().as_secs();
            info!(target: "lictor::event", kind = "snapshot_used", services = recalled, age_s, "the snapshot's endpoints are in use until Consul answers");
        }
    }

    /// Watches the tags of all services, or does so no longer, as the gateway is configured.
    fn watch_catalog(&mut self, client: &Arc<Client>) {
        let gateway = self.config.gateway.as_ref().and_then(|gateway| gateway.from_consul.as_ref());
        let wanted = gateway.map(|asked| (asked.tag.clone(), asked.claimants()));
        if wanted.as_ref() == self.catalog.as_ref().map(|(watched, _)| watched) {
            return;
        }
        let tag = wanted.as_ref().map(|(tag, _)| tag.clone());
        let watched = self.catalog.take().map(|((tag, _), task)| {
            task.abort();
            tag
        });
        // Whoever else may claim something: what is known stays known until Consul says more.
        let is_other = watched != tag;
        if watched.is_some() && is_other {
            self.remembered_claims = None;
            self.status.forget_catalog();
        }
        let Some((tag, may)) = wanted else { return };
        if is_other {
            self.remembered_claims.take_if(|known| known.claims.tag != tag);
            self.status.watches_catalog(&tag, self.remembered_claims.as_ref());
            self.claims.send_replace(self.remembered_claims.as_ref().map(|known| known.claims.clone()));
        }
        let consul = &self.config.consul;
        let (datacenter, status) = (consul.datacenter.clone(), Arc::clone(&self.status));
        let watch = KnownWatch {
            asked: Catalog {
                tag: tag.clone(),
                may: may.clone(),
                is_cut: AtomicBool::new(false),
                datacenter,
                status,
                changed: Arc::clone(&self.changed),
            },
            client: Arc::clone(client),
            status: Arc::clone(&self.status),
            consistency: consul.consistency,
            wait: consul.wait,
            known: self.claims.clone(),
        };
        self.catalog = Some(((tag, may), tokio::spawn(watch.run())));
    }

    /// Watches what is ordered for all gateways of the service, while this is one.
    fn watch_orders(&mut self, client: &Arc<Client>) {
        let consul = &self.config.consul;
        let key = orders_key(&self.config);
        if key.is_some() == self.ordered.is_some() {
            return;
        }
        if let Some(task) = self.ordered.take() {
            return task.abort();
        }
        let Some(key) = key.map(str::to_owned) else { return };
        let watch = KnownWatch {
            asked: OrdersKey {
                key,
                datacenter: consul.datacenter.clone(),
                is_told: AtomicBool::default(),
                refused: AtomicU64::default(),
            },
            client: Arc::clone(client),
            status: Arc::clone(&self.status),
            consistency: consul.consistency,
            wait: consul.wait,
            known: self.maintenance.clone(),
        };
        self.ordered = Some(tokio::spawn(watch.run()));
    }

    /// Takes what an earlier process knew, if that is of any use until Consul answers; whether it is.
    fn recall(&mut self, query: &Query, guard: &mut Guard, cursor: &mut Cursor) -> bool {
        let known = self.remembered.get(query).filter(|known| known.instances.iter().any(Instance::is_usable));
        let Some(known) = known else { return false };
        guard.remember(known.instances.clone(), Instant::now());
        cursor.remember(known.index);
        self.status.recalled(known);
        let observed = Observed::of(known.instances.clone());
        self.observed.insert(query.clone(), observed);
        true
    }

    /// For a later process: what Consul said to this one, and of the rest what it said to an earlier one.
    fn contents(&self) -> Contents {
        let answers = self.observed.iter().filter(|(query, _)| !self.remembered.contains_key(query));
        let answers = answers.filter_map(|(query, observed)| {
            let (index, at_ms) = self.status.last_answer(query)?;
            Some(Remembered { query: query.clone(), index, at_ms, instances: observed.last_good() })
        });
        let mut answers: Vec<Remembered> = answers.chain(self.remembered.values().cloned()).collect();
        answers.sort_by(|a, b| a.query.cmp(&b.query));
        let of_this_process = self.status.catalog_answered_at().zip(self.claims.borrow().clone());
        let claims = of_this_process.map(|(at_ms, claims)| RememberedClaims { at_ms, claims });
        let claims = claims.or_else(|| self.remembered_claims.clone());
        let maintenance = self.maintenance.borrow().as_deref().cloned();
        Contents { scope: self.scope.clone(), answers, kv: None, keys: Vec::new(), claims, maintenance }
    }

    fn inputs<'a>(&'a self, changed: Changed<'a>) -> Inputs<'a> {
        Inputs {
            config: &self.config,
            observed: &self.observed,
            remembered: &self.remembered,
            addresses: self.names.addresses(),
            demanded: &self.demanded,
            maintenance: ordered(&self.config, self.client.is_some(), &self.maintenance),
            changed,
        }
    }

    /// Assembles, and publishes what is news.
    fn publish(&mut self, changed: Changed<'_>) {
        let previous = Arc::clone(&self.mesh.borrow());
        let assembled = assemble(&self.inputs(changed), Some(&previous), Instant::now());
        for (upstream, change) in &assembled.transitions {
            let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause);
            info!(target: "lictor::event", kind = "breaker_changed", %upstream, from, to, cause, "the circuit breaker changed");
        }
        if !is_news(&previous, &assembled.mesh) {
            return;
        }
        let next = Arc::new(assembled.mesh);
        self.mesh.send_replace(Arc::clone(&next));
        for (name, upstream) in &next.upstreams {
            let queries = self.queries(name);
            tell_of(
                upstream,
                previous.upstreams.get(name),
                queries.iter().filter_map(|query| self.observed.get(query)),
            );
        }
    }

    /// What Consul is asked about an upstream.
    fn queries(&self, name: &Arc<str>) -> Vec<Query> {
        let config = self.config.upstreams.iter().find(|config| config.name == **name);
        config.map_or_else(|| vec![demanded_query(name)], |config| config.queries().cloned().collect())
    }
}

/// The key of KV that has what is ordered of the gateway's maintenance.
fn orders_key(config: &Config) -> Option<&str> {
    let kv = config.consul.kv.as_ref().filter(|_| config.gateway.is_some())?;
    Some(&kv.maintenance)
}

/// What is ordered; `None`: KV has not said it yet.
fn ordered(config: &Config, has_consul: bool, known: &channel::Sender<Option<Arc<Orders>>>) -> Option<Arc<Orders>> {
    let (known, is_awaited) = (known.borrow().clone(), has_consul && orders_key(config).is_some());
    if is_awaited { known } else { Some(known.unwrap_or_default()) }
}

fn tell_of_orders(told: &mut Arc<Orders>, orders: Option<&Arc<Orders>>) {
    let Some(orders) = orders.filter(|orders| *orders != told) else { return };
    told.clone_from(orders);
    if orders.is_empty() {
        info!(target: "lictor::event", kind = "maintenance_ordered", %orders, "nothing is in maintenance by order any more");
    } else {
        warn!(target: "lictor::event", kind = "maintenance_ordered", %orders, "what is in maintenance by order");
    }
}

/// What workers have met at an upstream's endpoints.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    /// Suspects that no connection could be made to since the last look.
    gone: Vec<Id>,
    /// There is news of several endpoints that no connection could be made to.
    is_stale: bool,
}

/// `None` while all is as it was at the last look.
fn trouble(endpoints: &[Arc<Endpoint>], since: Instant, now: Instant) -> Option<Trouble> {
    if !endpoints.iter().any(|endpoint| endpoint.health.was_unreachable_since(since)) {
        return None;
    }
    let lately = now.checked_sub(FAILING_TOGETHER).unwrap_or(since);
    let of_status = |is_suspect: bool, since: Instant| {
        let of_it = endpoints.iter().filter(move |endpoint| (endpoint.status == Standing::Suspect) == is_suspect);
        of_it.filter(move |endpoint| endpoint.health.was_unreachable_since(since)).map(|endpoint| &endpoint.key)
    };
    let gone = of_status(true, since).map(|key| (key.node.to_string(), key.id.to_string())).collect();
    Some(Trouble { gone, is_stale: of_status(false, lately).count() >= 2 })
}

fn demanded_query(name: &Arc<str>) -> Query {
    Query { service: name.to_string(), ..Query::default() }
}

/// Whether the forward proxy may call it.
fn allows(config: &Config, name: &str) -> bool {
    config.outbound.proxy.is_some() && Forward { allow: config.outbound.allow.clone() }.allows(name)
}

/// Says what changed in a list of endpoints; `seen` is what Consul says of them now.
fn tell_of<'a>(
    upstream: &Arc<Upstream>,
    earlier: Option<&Arc<Upstream>>,
    seen: impl Iterator<Item = &'a Observed> + Clone,
) {
    if earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, upstream)) {
        return;
    }
    tell_of_bootstrap(upstream, earlier);
    let before = earlier.map(|earlier| &*earlier.endpoints).unwrap_or_default();
    if let (Some(from), Some(to)) = (best_tier(before), best_tier(&upstream.endpoints))
        && from != to
        && earlier.is_some_and(|earlier| earlier.is_known())
    {
        let (upstream, service) = (&upstream.name, service_of(upstream, to));
        warn!(target: "lictor::event", kind = "failover", %upstream, from, to, service, "the requests of an upstream go to another tier");
    }
    let Comings { came, went, turned } = Comings::between(earlier.map(Arc::as_ref), upstream, seen, Instant::now());
    if came.len() + went.len() + turned.len() > 0 {
        info!(
            target: "lictor::event",
            kind = "endpoints_changed",
            upstream = %upstream.name,
            added = came.len(),
            removed = went.len(),
            endpoints = upstream.endpoints.len(),
            came = named(&came),
            went = named(&went),
            turned = named(&turned),
            "the endpoints of an upstream changed"
        );
    }
}

/// Says that Consul is done without, or is not any more.
fn tell_of_bootstrap(upstream: &Upstream, earlier: Option<&Arc<Upstream>>) {
    let (name, endpoints) = (&upstream.name, upstream.endpoints.len());
    match (earlier.map(|earlier| earlier.census.source), upstream.census.source) {
        (Some(BOOTSTRAP), "Consul") => {
            info!(target: "lictor::event", kind = "bootstrap_replaced", upstream = %name, endpoints, "Consul has answered: its endpoints are in use");
        }
        (None | Some(_), BOOTSTRAP) if earlier.is_none_or(|earlier| earlier.census.source != BOOTSTRAP) => {
            info!(target: "lictor::event", kind = "bootstrap_used", upstream = %name, endpoints, "the bootstrap endpoints are in use until Consul answers");
        }
        _ => (),
    }
}

/// The first that has somebody.
fn best_tier(endpoints: &[Arc<Endpoint>]) -> Option<u8> {
    endpoints.iter().map(|endpoint| endpoint.tier).min()
}

/// Whose instances a tier has, in words.
fn service_of(upstream: &Upstream, tier: u8) -> &str {
    let standby = usize::from(tier).checked_sub(1).map(|index| upstream.standby.get(index));
    match standby {
        None => &upstream.service,
        Some(Some(standby)) => &standby.name,
        Some(None) => "suspects",
    }
}
