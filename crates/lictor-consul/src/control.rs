//! The control loop: one task that owns the configuration and everything observed, and publishes meshes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_config::{Config, Query, Source};
use lictor_core::Mesh;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::assemble::{Inputs, assemble, is_news, names};
use crate::client::Client;
use crate::random::Random;
use crate::register::{Registrar, Wish};
use crate::status::{RegistrationState, Status};
use crate::tls::TlsError;
use crate::watch::{News, Observed, Watch};

/// Names are resolved again this often.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Services that the forward proxy may add.
const MAX_DEMANDED: usize = 256;
/// Once nobody is told about us, callers get this long to finish what they were about to send.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// The control plane cannot work as configured.
#[derive(Debug, Error)]
pub enum StartError {
    /// TLS towards the agent.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How the rest of the program speaks to the control plane.
#[derive(Debug)]
pub struct Handle {
    mesh: channel::Receiver<Arc<Mesh>>,
    status: Arc<Status>,
    orders: mpsc::UnboundedSender<Order>,
    demand: mpsc::UnboundedSender<Arc<str>>,
    wish: channel::Sender<Wish>,
    registrar: Option<Arc<Registrar>>,
}

#[derive(Debug)]
enum Order {
    Reload(Arc<Config>, oneshot::Sender<()>),
}

/// Starts the control plane on the current runtime.
pub fn start(config: Arc<Config>) -> Result<Handle, StartError> {
    let client = match &config.consul.address {
        Some(address) => Some(Arc::new(Client::new(&config.consul, address)?)),
        None => None,
    };
    let status = Status::new(client.as_ref().map(|client| client.shown_address()), config.registration.is_some());
    let (news, incoming) = mpsc::unbounded_channel();
    let (orders, commands) = mpsc::unbounded_channel();
    let (demand, demands) = mpsc::unbounded_channel();
    let wish = channel::Sender::new(Wish::Wait);
    let registrar = client.as_ref().and_then(|client| {
        let (service, registration) = (config.service.clone()?, config.registration.clone()?);
        Some(Arc::new(Registrar {
            service,
            registration,
            app: config.app.clone(),
            client: Arc::clone(client),
            status: Arc::clone(&status),
        }))
    });
    if let Some(registrar) = &registrar {
        tokio::spawn(Arc::clone(registrar).run(wish.subscribe()));
    }
    let mut control = Control {
        config,
        client,
        status: Arc::clone(&status),
        observed: HashMap::new(),
        addresses: HashMap::new(),
        demanded: Vec::new(),
        watches: HashMap::new(),
        news,
        mesh: None,
    };
    control.watch();
    let mesh = control.publish();
    tokio::spawn(control.run(incoming, commands, demands));
    Ok(Handle { mesh, status, orders, demand, wish, registrar })
}

impl Handle {
    /// The mesh, now and later.
    pub fn mesh(&self) -> channel::Receiver<Arc<Mesh>> {
        self.mesh.clone()
    }

    /// What the control plane knows of itself.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Where the data plane asks for services that it does not know.
    pub fn demand(&self) -> mpsc::UnboundedSender<Arc<str>> {
        self.demand.clone()
    }

    /// Works from another configuration from now on; returns when its mesh is published. How Consul is reached and who
    /// we are stay as they were at the start.
    pub async fn reload(&self, config: Arc<Config>) {
        let (done, published) = oneshot::channel();
        let _ = self.orders.send(Order::Reload(config, done));
        let _ = published.await;
    }

    /// Registers, and keeps it so.
    pub fn register(&self) {
        self.wish.send_if_modified(|wish| {
            let is_new = *wish == Wish::Wait;
            if is_new {
                *wish = Wish::Present;
            }
            is_new
        });
    }

    /// Takes the instance out of circulation, still registered. The words are the reason why not.
    pub async fn enter_maintenance(&self, reason: &str) -> Result<(), String> {
        let Some(registrar) = &self.registrar else { return Ok(()) };
        registrar.maintain(true, reason).await.map_err(|error| error.to_string())
    }

    /// Puts it back.
    pub async fn leave_maintenance(&self) -> Result<(), String> {
        let Some(registrar) = &self.registrar else { return Ok(()) };
        registrar.maintain(false, "").await.map_err(|error| error.to_string())
    }

    /// Leaves: out of circulation, then, once nobody is told about us or `at_most` has passed, out of Consul.
    pub async fn leave(&self, at_most: Duration) {
        let Some(registrar) = &self.registrar else { return };
        if *self.wish.borrow() == Wish::Wait {
            return;
        }
        self.wish.send_replace(Wish::Leaving);
        let draining = async {
            registrar.maintain(true, "draining").await?;
            registrar.gone().await
        };
        let started = Instant::now();
        match tokio::time::timeout(at_most, draining).await {
            Ok(Ok(())) => tokio::time::sleep(LAST_CALLS.min(at_most.saturating_sub(started.elapsed()))).await,
            Ok(Err(error)) => warn!(%error, "Consul could not be told that this instance is leaving"),
            Err(_) => warn!("this instance is still listed after the drain delay"),
        }
        match registrar.deregister().await {
            Ok(()) => {
                self.status.registration(RegistrationState::Deregistered);
                info!(target: "lictor::event", kind = "deregistered", id = %registrar.registration.id, "deregistered from Consul");
            }
            Err(error) => {
                let after = registrar.registration.deregister_after;
                warn!(%error, ?after, "not deregistered; Consul removes the instance when its checks have failed for long enough");
            }
        }
    }
}

struct Control {
    config: Arc<Config>,
    client: Option<Arc<Client>>,
    status: Arc<Status>,
    observed: HashMap<Query, Observed>,
    addresses: HashMap<String, Vec<SocketAddr>>,
    demanded: Vec<Arc<str>>,
    watches: HashMap<Query, JoinHandle<()>>,
    news: mpsc::UnboundedSender<News>,
    mesh: Option<channel::Sender<Arc<Mesh>>>,
}

impl Control {
    async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut demands: mpsc::UnboundedReceiver<Arc<str>>,
    ) {
        let (resolved, mut resolutions) = mpsc::unbounded_channel();
        let mut resolve = tokio::time::interval(RESOLVE_EVERY);
        loop {
            tokio::select! {
                biased;
                Some(news) = news.recv() => self.learn(news, &resolved),
                Some(order) = orders.recv() => self.obey(order, &resolved),
                Some(name) = demands.recv() => self.demand(name),
                Some((name, addresses)) = resolutions.recv() => {
                    self.addresses.insert(name, addresses);
                }
                _ = resolve.tick() => {
                    self.resolve(&resolved, false);
                    continue;
                }
                else => return,
            }
            self.publish();
        }
    }

    fn learn(&mut self, news: News, resolved: &mpsc::UnboundedSender<(String, Vec<SocketAddr>)>) {
        match news {
            News::Seen(query, observed) => {
                self.observed.insert(query, observed);
                self.resolve(resolved, true);
            }
            News::Forget(query) => {
                if let Some(observed) = self.observed.get_mut(&query) {
                    observed.suspects.clear();
                }
            }
        }
    }

    fn obey(&mut self, order: Order, resolved: &mpsc::UnboundedSender<(String, Vec<SocketAddr>)>) {
        let Order::Reload(config, done) = order;
        self.config = config;
        self.watch();
        self.resolve(resolved, true);
        self.publish();
        let _ = done.send(());
    }

    fn demand(&mut self, name: Arc<str>) {
        let is_known =
            self.demanded.contains(&name) || self.config.upstreams.iter().any(|upstream| upstream.name == *name);
        if is_known {
            return;
        }
        if self.demanded.len() >= MAX_DEMANDED {
            warn!(service = %name, max = MAX_DEMANDED, "the forward proxy watches too many services to add one");
            return;
        }
        self.demanded.push(name);
        self.watch();
    }

    /// Starts and stops watches until there is one for each query.
    fn watch(&mut self) {
        let declared = self.config.upstreams.iter().filter_map(|upstream| match &upstream.source {
            Source::Consul(query) => Some(query.clone()),
            Source::Static(_) => None,
        });
        let demanded = self.demanded.iter().map(|name| Query { service: name.to_string(), ..Query::default() });
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
        for query in wanted {
            let consul = &self.config.consul;
            let watch = Watch {
                query: Query {
                    datacenter: query.datacenter.clone().or_else(|| consul.datacenter.clone()),
                    ..query.clone()
                },
                client: Arc::clone(client),
                connections: Arc::clone(self.status.connections()),
                consistency: consul.consistency,
                wait: consul.wait,
                guard: consul.guard.clone(),
                status: Arc::clone(&self.status),
                news: self.news.clone(),
                random: Random::new(),
                key: query.clone(),
            };
            self.watches.entry(query).or_insert_with(|| tokio::spawn(watch.run()));
        }
    }

    /// Looks names up, off this task.
    fn resolve(&self, resolved: &mpsc::UnboundedSender<(String, Vec<SocketAddr>)>, only_new: bool) {
        let names = names(&self.inputs());
        for name in names.into_iter().filter(|name| !only_new || !self.addresses.contains_key(name)) {
            let resolved = resolved.clone();
            tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Vec::from_iter);
                match found {
                    Ok(mut addresses) => {
                        addresses.sort();
                        addresses.dedup();
                        let _ = resolved.send((name, addresses));
                    }
                    Err(error) => warn!(host = %name, %error, "an instance's host name has no address"),
                }
            });
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { config: &self.config, observed: &self.observed, addresses: &self.addresses, demanded: &self.demanded }
    }

    /// Assembles, and publishes what is news.
    fn publish(&mut self) -> channel::Receiver<Arc<Mesh>> {
        let previous = self.mesh.as_ref().map(|sender| Arc::clone(&sender.borrow()));
        let assembled = assemble(&self.inputs(), previous.as_deref(), Instant::now());
        for (upstream, change) in &assembled.transitions {
            let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause);
            info!(target: "lictor::event", kind = "breaker_changed", %upstream, from, to, cause, "the circuit breaker changed");
        }
        match (&self.mesh, &previous) {
            (Some(sender), Some(previous)) => {
                if is_news(previous, &assembled.mesh) {
                    sender.send_replace(Arc::new(assembled.mesh));
                }
                sender.subscribe()
            }
            _ => {
                let sender = channel::Sender::new(Arc::new(assembled.mesh));
                let receiver = sender.subscribe();
                self.mesh = Some(sender);
                receiver
            }
        }
    }
}
