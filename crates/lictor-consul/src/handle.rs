//! How the rest of the program speaks to the control plane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Config, Query, SnapshotFile};
use lictor_core::Mesh;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tracing::warn;

use crate::client::{Client, Connection};
use crate::control::{Control, Order};
use crate::definition::Definition;
use crate::disk::{self, Keeper, Remembered, Scope};
use crate::register::{Registrar, Wish};
use crate::status::Status;
use crate::tls::TlsError;

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
    keeper: Option<Arc<Keeper>>,
}

/// Starts the control plane on the current runtime.
pub fn start(config: Arc<Config>) -> Result<Handle, StartError> {
    let client = match &config.consul.address {
        Some(address) => Some(Arc::new(Client::new(&config.consul, address)?)),
        None => None,
    };
    let status = Status::new(client.as_ref().map(|client| client.shown_address()), config.registration.is_some());
    let (orders, commands) = mpsc::unbounded_channel();
    let (demand, demands) = mpsc::unbounded_channel();
    let wish = channel::Sender::new(Wish::Wait);
    let registrar = client.as_ref().and_then(|client| {
        let (service, registration) = (config.service.clone()?, config.registration.clone()?);
        let definition = Definition { service, registration, app: config.app.clone() };
        Some(Arc::new(Registrar::new(definition, Arc::clone(client), Arc::clone(&status))))
    });
    if let Some(registrar) = &registrar {
        tokio::spawn(Arc::clone(registrar).run(wish.subscribe()));
    }
    if let Some(client) = &client {
        tokio::spawn(identify(Arc::clone(client), Arc::clone(&status)));
    }
    let snapshot = config.consul.snapshot.clone().filter(|_| client.is_some());
    let remembered = snapshot.as_ref().map(|file| remembered(file, &Scope::of(&config), &status)).unwrap_or_default();
    let changed = Arc::new(Notify::new());
    let mesh = Control::start(config, client, Arc::clone(&status), remembered, Arc::clone(&changed), commands, demands);
    let keeper = snapshot.map(|file| Arc::new(Keeper::new(file.path, orders.clone(), Arc::clone(&status), changed)));
    if let Some(keeper) = &keeper {
        tokio::spawn(Arc::clone(keeper).run());
    }
    Ok(Handle { mesh, status, orders, demand, wish, registrar, keeper })
}

/// What an earlier process left on disk.
fn remembered(file: &SnapshotFile, scope: &Scope, status: &Status) -> HashMap<Query, Remembered> {
    let loaded = disk::load(file, scope);
    let refused = loaded.as_ref().err().map(ToString::to_string);
    if let Some(reason) = &refused {
        let (path, kept) = (file.path.display(), disk::aside(&file.path));
        warn!(target: "lictor::event", kind = "snapshot_refused", %path, reason, kept = %kept.display(), "the snapshot is not used; endpoints come from Consul alone");
    }
    status.keeps(file.path.display().to_string(), refused);
    let answers = loaded.ok().flatten().map(|contents| contents.answers).unwrap_or_default();
    answers.into_iter().map(|answer| (answer.query.clone(), answer)).collect()
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

    /// Takes the instance out of circulation, still registered. The words are the reason why not; it is tried again
    /// when Consul is back.
    pub async fn enter_maintenance(&self, reason: &str) -> Result<(), String> {
        self.maintain(Some(reason)).await
    }

    /// Puts it back.
    pub async fn leave_maintenance(&self) -> Result<(), String> {
        self.maintain(None).await
    }

    async fn maintain(&self, reason: Option<&str>) -> Result<(), String> {
        let Some(registrar) = &self.registrar else { return Ok(()) };
        registrar.maintain(reason).await.map_err(|error| error.to_string())
    }

    /// Writes the last good answers to disk, where they are kept: before the process ends.
    pub async fn save(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.save().await;
        }
    }

    /// Leaves: out of circulation, then, once nobody is told about us or `at_most` has passed, out of Consul. It takes
    /// at most 2 s more; with `at_most` zero nobody is waited for.
    pub async fn leave(&self, at_most: Duration) {
        let Some(registrar) = &self.registrar else { return };
        if *self.wish.borrow() == Wish::Wait {
            return;
        }
        self.wish.send_replace(Wish::Leaving);
        registrar.leave(at_most).await;
    }
}

/// Learns the agent's version, for pages. A token need not be allowed to read it.
async fn identify(client: Arc<Client>, status: Arc<Status>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Agent {
        config: AgentConfig,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct AgentConfig {
        version: String,
    }
    let mut connection = Connection::new(&client, status.connections());
    loop {
        match connection.get("/v1/agent/self", &[], Duration::from_secs(10)).await {
            Ok(answer) => {
                let version = serde_json::from_slice(&answer.body).ok().map(|agent: Agent| agent.config.version);
                return status.identified(version);
            }
            Err(error) if !error.is_outage() => return,
            Err(_) => tokio::time::sleep(Duration::from_secs(5)).await,
        }
    }
}
