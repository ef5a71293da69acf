//! The control loop: one task that owns the configuration and everything observed, and publishes meshes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_config::{Config, Query, Source};
use lictor_core::mesh::Forward;
use lictor_core::{Endpoint, EndpointKey, Mesh, Upstream};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::assemble::{Inputs, assemble, is_news, names};
use crate::client::Client;
use crate::guard::{Guard, Observed};
use crate::random::Random;
use crate::resolve::{Names, Resolved};
use crate::status::Status;
use crate::watch::{News, Watch};

/// Services that the forward proxy may add: each costs a connection, and an agent has 200 for all of a machine.
const MAX_DEMANDED: usize = 100;
/// More watches than this at once do not start at the same instant.
const CROWD: usize = 20;
const CROWD_STARTS_WITHIN: Duration = Duration::from_secs(1);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Order {
    Reload(Arc<Config>, oneshot::Sender<()>),
}

pub(crate) struct Control {
    config: Arc<Config>,
    client: Option<Arc<Client>>,
    status: Arc<Status>,
    observed: HashMap<Query, Observed>,
    names: Names,
    demanded: Vec<Arc<str>>,
    watches: HashMap<Query, JoinHandle<()>>,
    news: mpsc::UnboundedSender<News>,
    mesh: channel::Sender<Arc<Mesh>>,
}

impl Control {
    /// Spawns the loop; the first mesh is there at once.
    pub(crate) fn start(
        config: Arc<Config>,
        client: Option<Arc<Client>>,
        status: Arc<Status>,
        orders: mpsc::UnboundedReceiver<Order>,
        demands: mpsc::UnboundedReceiver<Arc<str>>,
    ) -> channel::Receiver<Arc<Mesh>> {
        let (news, incoming) = mpsc::unbounded_channel();
        let (names, resolved) = Names::new();
        let (observed, demanded) = (HashMap::new(), Vec::new());
        let inputs = Inputs { config: &config, observed: &observed, addresses: names.addresses(), demanded: &demanded };
        let mesh = channel::Sender::new(Arc::new(assemble(&inputs, None, Instant::now()).mesh));
        let receiver = mesh.subscribe();
        let watches = HashMap::new();
        let mut control = Self { config, client, status, observed, names, demanded, watches, news, mesh };
        control.watch();
        tokio::spawn(control.run(incoming, orders, demands, resolved));
        receiver
    }

    async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut demands: mpsc::UnboundedReceiver<Arc<str>>,
        mut resolved: mpsc::UnboundedReceiver<Resolved>,
    ) {
        let mut look_up = tokio::time::interval(crate::resolve::EVERY);
        loop {
            tokio::select! {
                biased;
                Some(News { query, observed }) = news.recv() => {
                    // A watch that was stopped may have had the last word.
                    if self.watches.contains_key(&query) {
                        self.observed.insert(query, observed);
                    }
                }
                Some(Order::Reload(config, done)) = orders.recv() => {
                    self.config = config;
                    self.watch();
                    self.publish();
                    let _ = done.send(());
                }
                Some(name) = demands.recv() => self.demand(name),
                Some(resolved) = resolved.recv() => self.names.learn(resolved),
                _ = look_up.tick() => self.names.forget_times(),
                else => return,
            }
            let wanted = names(&self.inputs());
            self.names.want(wanted);
            self.publish();
        }
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
        let declared = self.config.upstreams.iter().filter_map(|upstream| match &upstream.source {
            Source::Consul(query) => Some(query.clone()),
            Source::Static(_) => None,
        });
        let is_allowed = |name: &Arc<str>| allows(&self.config, name);
        self.demanded.retain(is_allowed);
        let demanded = self.demanded.iter().map(demanded_query);
        let wanted: Vec<Query> = declared.chain(demanded).collect();
        self.watches.retain(|query, watch| {
            let stays = wanted.contains(query);
            if !stays {
                watch.abort();
                self.observed.remove(query);
                self.status.forget(query);
            }
            stays
        });
        let Some(client) = &self.client else { return };
        let is_crowd = wanted.len() > CROWD;
        for query in wanted {
            let consul = &self.config.consul;
            let mut random = Random::new();
            let delay = if is_crowd { CROWD_STARTS_WITHIN.mul_f64(random.share()) } else { Duration::ZERO };
            let watch = Watch {
                query: Query {
                    datacenter: query.datacenter.clone().or_else(|| consul.datacenter.clone()),
                    ..query.clone()
                },
                client: Arc::clone(client),
                connections: Arc::clone(self.status.connections()),
                consistency: consul.consistency,
                wait: consul.wait,
                max_stale: consul.max_stale,
                guard: Guard::new(consul.guard.clone()),
                status: Arc::clone(&self.status),
                news: self.news.clone(),
                random,
                delay,
                key: query.clone(),
            };
            self.watches.entry(query).or_insert_with(|| tokio::spawn(watch.run()));
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            config: &self.config,
            observed: &self.observed,
            addresses: self.names.addresses(),
            demanded: &self.demanded,
        }
    }

    /// Assembles, and publishes what is news.
    fn publish(&mut self) {
        let previous = Arc::clone(&self.mesh.borrow());
        let assembled = assemble(&self.inputs(), Some(&previous), Instant::now());
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
            tell_of(upstream, previous.upstreams.get(name));
        }
    }
}

fn demanded_query(name: &Arc<str>) -> Query {
    Query { service: name.to_string(), ..Query::default() }
}

/// Whether the forward proxy may call it.
fn allows(config: &Config, name: &str) -> bool {
    config.outbound.proxy.is_some() && Forward { allow: config.outbound.allow.clone() }.allows(name)
}

/// Says what changed in a list of endpoints.
fn tell_of(upstream: &Arc<Upstream>, earlier: Option<&Arc<Upstream>>) {
    if earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, upstream)) {
        return;
    }
    let before = earlier.map(|earlier| &*earlier.endpoints).unwrap_or_default();
    let is_in = |list: &[Arc<Endpoint>], key: &EndpointKey| list.binary_search_by(|other| other.key.cmp(key)).is_ok();
    let added = upstream.endpoints.iter().filter(|endpoint| !is_in(before, &endpoint.key)).count();
    let removed = before.iter().filter(|endpoint| !is_in(&upstream.endpoints, &endpoint.key)).count();
    if added + removed > 0 {
        info!(
            target: "lictor::event",
            kind = "endpoints_changed",
            upstream = %upstream.name,
            added,
            removed,
            endpoints = upstream.endpoints.len(),
            "the endpoints of an upstream changed"
        );
    }
}
