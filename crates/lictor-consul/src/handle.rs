//! How the rest of the program speaks to the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Claims, Config, Kv as KvKeys, SnapshotFile};
use lictor_core::Mesh;
use lictor_core::gateway::maintenance::Orders;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tokio::time::timeout;
use tracing::warn;

use crate::agent::{Client, Connection, KvKnown};
use crate::blocks::Blocks;
use crate::control::{Control, Order};
use crate::keeper::Keeper;
use crate::memory::{Contents, RememberedKeys, RememberedKv, Scope, disk};
use crate::registration::{AppHealth, Away, Definition, MetaPatch, Registrar, Wish, ask_app};
use crate::status::Status;
use crate::tls::TlsError;
use crate::watch::{KnownWatch, KvKey, report_to_kv};

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
    app: Option<channel::Receiver<AppHealth>>,
    away: channel::Sender<Away>,
    orders: mpsc::UnboundedSender<Order>,
    demand: mpsc::UnboundedSender<Arc<str>>,
    wish: channel::Sender<Wish>,
    registrar: Option<Arc<Registrar>>,
    keeper: Option<Arc<Keeper>>,
    kv: Option<KvHandle>,
    claims: channel::Receiver<Option<Claims>>,
    maintenance: channel::Sender<Option<Arc<Orders>>>,
    blocks: Option<Blocks>,
}

/// The configuration in KV.
#[derive(Debug)]
struct KvHandle {
    keys: KvKeys,
    known: channel::Receiver<Option<KvKnown>>,
    reports: channel::Sender<Option<(String, String)>>,
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
    let away = channel::Sender::new(None);
    let checks = config.registration.as_ref().map_or(&[][..], |registration| &registration.checks);
    let app = ask_app(&config.app, checks, away.subscribe());
    let registrar = client.as_ref().and_then(|client| {
        let definition = Definition::of(&config)?;
        Some(Arc::new(Registrar::new(definition, Arc::clone(client), Arc::clone(&status), app.clone())))
    });
    if let Some(client) = &client {
        client.follow_files();
        tokio::spawn(identify(Arc::clone(client), Arc::clone(&status)));
    }
    let blocks = client.as_ref().map(|client| Blocks::new(&config, Arc::clone(client), Arc::clone(&status)));
    let snapshot = config.consul.snapshot.clone().filter(|_| client.is_some() || config.gateway.is_some());
    let contents = snapshot.as_ref().and_then(|file| load(file, &Scope::of(&config), &status));
    let Contents { answers, kv, keys: issuers, claims, maintenance, .. } = contents.unwrap_or_default();
    let maintenance = channel::Sender::new(maintenance.map(Arc::new));
    let remembered = answers.into_iter().map(|answer| (answer.query.clone(), answer)).collect();
    let keys = config.consul.kv.clone();
    let known = kv.filter(|kv| keys.as_ref().is_some_and(|keys| keys.config == kv.key));
    let kv = keys.zip(client.clone()).map(|(keys, client)| watch_kv(&config, keys, client, &status, known.as_ref()));
    let changed = Arc::new(Notify::new());
    let started = Control::start(
        config,
        client,
        Arc::clone(&status),
        (remembered, claims, maintenance.clone()),
        Arc::clone(&changed),
        commands,
        demands,
    );
    let (mesh, claims) = started;
    if let Some(registrar) = &registrar {
        tokio::spawn(Arc::clone(registrar).run(wish.subscribe(), mesh.clone()));
        tokio::spawn(Arc::clone(registrar).follow_app(away.subscribe()));
    }
    let keeper = snapshot
        .map(|file| Arc::new(Keeper::new(file.path, orders.clone(), Arc::clone(&status), changed, known, issuers)));
    if let Some(keeper) = &keeper {
        tokio::spawn(Arc::clone(keeper).run());
    }
    Ok(Handle { mesh, status, app, away, orders, demand, wish, registrar, keeper, kv, claims, maintenance, blocks })
}

fn watch_kv(
    config: &Config,
    keys: KvKeys,
    client: Arc<Client>,
    status: &Arc<Status>,
    known: Option<&RememberedKv>,
) -> KvHandle {
    status.watches_kv(&keys.config, known);
    let (sender, known) = channel::channel(known.map(|kv| kv.known.clone()));
    let consul = &config.consul;
    let key = keys.config.clone();
    let watch = KnownWatch {
        asked: KvKey { key, datacenter: consul.datacenter.clone(), status: Arc::clone(status) },
        client: Arc::clone(&client),
        status: Arc::clone(status),
        consistency: consul.consistency,
        wait: consul.wait,
        known: sender,
    };
    tokio::spawn(watch.run());
    let (reports, latest) = channel::channel(None);
    tokio::spawn(report_to_kv(client, Arc::clone(status), consul.datacenter.clone(), latest));
    KvHandle { keys, known, reports }
}

/// What an earlier process left on disk.
fn load(file: &SnapshotFile, scope: &Scope, status: &Status) -> Option<Contents> {
    let loaded = disk::load(file, scope);
    let refused = loaded.as_ref().err().map(ToString::to_string);
    if let Some(reason) = &refused {
        let (path, kept) = (file.path.display(), disk::aside(&file.path));
        warn!(target: "lictor::event", kind = "snapshot_refused", %path, reason, kept = %kept.display(), "the snapshot is not used; endpoints come from Consul alone");
    }
    status.keeps(file.path.display().to_string(), refused);
    loaded.ok().flatten()
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

    /// How the application is; `None` where there is none, or nobody asks it.
    pub fn app(&self) -> Option<AppHealth> {
        let away = self.away.borrow().as_deref().map(AppHealth::away);
        away.or_else(|| self.app.as_ref().map(|app| app.borrow().clone()))
    }

    /// The application does not run, and why; `None`: it was started again. Meanwhile it is not asked, and the instance
    /// is in maintenance until it answers.
    pub fn app_is_away(&self, why: Option<String>) {
        self.away.send_replace(why.map(Arc::from));
    }

    /// Where the data plane asks for services that it does not know.
    pub fn demand(&self) -> mpsc::UnboundedSender<Arc<str>> {
        self.demand.clone()
    }

    /// Works from another configuration from now on; returns when its mesh is published. How Consul is reached and who
    /// we are stay as they were at the start.
    pub async fn reload(&self, config: Arc<Config>) {
        let (done, published) = oneshot::channel();
        if let Some(registrar) = &self.registrar {
            registrar.follow(&config);
        }
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

    /// What is known of the configuration in KV, now and later: `None` until something is. `None` at once where none is read.
    pub fn kv(&self) -> Option<channel::Receiver<Option<KvKnown>>> {
        self.kv.as_ref().map(|kv| kv.known.clone())
    }

    /// What services claim by their tags, now and later: `None` until something is known of it.
    pub fn claims(&self) -> channel::Receiver<Option<Claims>> {
        self.claims.clone()
    }

    /// Changes what is ordered of the gateway's maintenance, at this process alone; returns it once it is in force.
    pub async fn order_maintenance(
        &self,
        change: impl FnOnce(&Orders) -> Result<Orders, String>,
    ) -> Result<Arc<Orders>, String> {
        let mut result = Err(String::new());
        self.maintenance.send_if_modified(|known| {
            result = change(known.as_deref().unwrap_or(&Orders::default())).map(Arc::new);
            if let Ok(orders) = &result {
                *known = Some(Arc::clone(orders));
            }
            result.is_ok()
        });
        let orders = result?;
        let is_in_force = |mesh: &Arc<Mesh>| mesh.maintenance == *self.maintenance.borrow();
        let _ = self.mesh.clone().wait_for(is_in_force).await;
        Ok(orders)
    }

    /// What the application may ask of Consul through us; `None` where there is no Consul.
    pub fn blocks(&self) -> Option<&Blocks> {
        self.blocks.as_ref()
    }

    /// Changes the Meta of our registration, and returns what it is then, and whether the agent has it; that is waited for so
    /// long. The words are why it is refused. `None`: we are not registered.
    pub async fn patch_meta(
        &self,
        patch: &MetaPatch,
        at_most: Duration,
    ) -> Option<Result<(BTreeMap<String, String>, bool), String>> {
        let registrar = self.registrar.as_ref()?;
        let (meta, patches) = match registrar.patch(patch) {
            Ok(patched) => patched,
            Err(why) => return Some(Err(why)),
        };
        let is_told = timeout(at_most, registrar.has_told(patches)).await.is_ok();
        Some(Ok((meta, is_told)))
    }

    /// Whether a later process will know of it.
    pub fn has_memory(&self) -> bool {
        self.keeper.is_some()
    }

    /// The key that it is read from.
    pub fn kv_key(&self) -> Option<&str> {
        self.kv.as_ref().map(|kv| kv.keys.config.as_str())
    }

    /// This value of the key is in force: it is what a later process begins with.
    pub fn applied(&self, known: KvKnown) {
        if let (Some(keeper), Some(kv)) = (&self.keeper, &self.kv) {
            keeper.applied(&kv.keys.config, known);
        }
    }

    /// The keys of the gateway's issuers that an earlier process, or this one, has fetched last.
    pub fn remembered_keys(&self) -> Vec<RememberedKeys> {
        self.keeper.as_ref().map(|keeper| keeper.known_keys()).unwrap_or_default()
    }

    /// A later process begins with these.
    pub fn remember_keys(&self, keys: Vec<RememberedKeys>) {
        if let Some(keeper) = &self.keeper {
            keeper.keys(keys);
        }
    }

    /// Writes what became of the configuration in KV below the status key.
    pub fn report(&self, instance: &str, report: String) {
        if let Some(kv) = &self.kv {
            kv.reports.send_replace(Some((format!("{}/{instance}", kv.keys.status), report)));
        }
    }

    /// Writes the last good answers to disk, where they are kept: before the process ends.
    pub async fn save(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.save().await;
        }
    }

    /// Leaves: out of circulation, then, once nobody is told about us or `at_most` has passed, out of Consul. It takes
    /// at most 2 s more; with `at_most` zero only a registration on its way is waited for.
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lictor_config::{Environment, Text, load};

    use super::*;

    #[tokio::test]
    async fn an_order_that_is_refused_wakes_nobody() {
        let yaml = "registration: off\nupstreams: {one: {static: ['127.0.0.1:9']}}\ngateway: {listen: '127.0.0.1:0', routes: {/*: one}}\n";
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        let config = load(Some(&text), &Environment::default(), &[]).unwrap().config;
        let handle = start(Arc::new(config)).unwrap();
        let seen = handle.maintenance.subscribe();
        for (is_good, wakes) in [(false, false), (true, true)] {
            let change = |before: &Orders| {
                if is_good { before.on(None, None, SystemTime::now()) } else { Err("no".to_owned()) }
            };
            let ordered = handle.order_maintenance(change).await;
            assert_eq!((ordered.is_ok(), seen.has_changed().unwrap()), (is_good, wakes), "{ordered:?}");
        }
    }
}
