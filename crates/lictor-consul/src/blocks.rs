//! What the application asks of Consul through us: services, keys of KV and locks. Whether it may is not decided here.

mod calls;
mod configuration;
mod held;
mod lock;
mod sagas;
mod services;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Config, Consistency, Query};
use tokio::sync::watch as channel;
use tokio::time::timeout;

pub use self::configuration::Written;
use self::held::Holdings;
pub use self::lock::{Ended, Held, LockWanted, NoLock};
pub use self::sagas::{SagaHeld, SagaSeen, SagaSighted, SagaWatch, Sagas};
pub use self::services::{Found, Offer};
pub use self::shared::Looking;

use self::calls::Calls;
use self::configuration::{FolderAsked, SettingKey};
use self::services::ServiceAsked;
use self::shared::{Lookers, Shared};
use crate::agent::{Ask, Client, ConsulError, KvFolder, KvKnown, health};
use crate::status::Status;
use crate::watch::{Asked, KnownWatch};

/// Who looks at services and keys at the same time.
const LOOKERS: usize = 24;
/// Locks at the same time, those included that are waited for. Each has up to two connections to the agent.
const LOCKS: usize = 16;

/// What a watch of a service knows.
pub type Instances = Arc<Vec<Found>>;

/// All of it, on connections of its own.
#[derive(Debug)]
pub struct Blocks {
    client: Arc<Client>,
    status: Arc<Status>,
    calls: Calls,
    datacenter: Option<String>,
    consistency: Consistency,
    wait: Duration,
    lookers: Lookers,
    services: Shared<Query, Instances>,
    settings: Shared<String, KvKnown>,
    folders: Shared<String, Arc<KvFolder>>,
    holdings: Arc<Holdings>,
    sagas: Sagas,
}

impl Blocks {
    /// Nothing is connected yet. Who we are is what others are told of our locks.
    pub(crate) fn new(config: &Config, client: Arc<Client>, status: Arc<Status>) -> Self {
        let consul = &config.consul;
        let of_registration = config.registration.as_ref().map(|registration| registration.id.clone());
        let holder = of_registration.or_else(|| config.service.clone()).unwrap_or_else(|| "lictor".to_owned());
        Self {
            calls: Calls::new(&client, &status),
            datacenter: consul.datacenter.clone(),
            consistency: consul.consistency,
            wait: consul.wait,
            lookers: Lookers::new(LOOKERS),
            services: Shared::default(),
            settings: Shared::default(),
            folders: Shared::default(),
            sagas: Sagas::new(consul, &client, &status, &holder),
            holdings: Arc::new(Holdings::new(LOCKS, holder)),
            client,
            status,
        }
    }

    /// All services with their tags.
    pub async fn services(&self) -> Result<Vec<Offer>, ConsulError> {
        let mut call = self.calls.place().await?;
        let answer = services::all(&mut call.connection, self.datacenter.as_deref(), self.consistency).await;
        call.done();
        answer
    }

    /// The instances of a service as they are now, those included that nobody should call.
    pub async fn instances(&self, query: &Query) -> Result<Vec<Found>, ConsulError> {
        let now = Ask { index: None, wait: Duration::ZERO };
        let mut call = self.calls.place().await?;
        let answer = health::get(&mut call.connection, &self.scoped(query), now, self.consistency).await;
        call.done();
        Ok(answer?.1.into_iter().map(Found::from).collect())
    }

    /// The same, now and later. `None`: too many look already.
    pub fn look_at_instances(&self, query: &Query) -> Option<Looking<Instances>> {
        let query = self.scoped(query);
        let asked = |failed| ServiceAsked { query: query.clone(), failed };
        self.lookers.look(&self.services, query.clone(), |known, failed| self.watch(asked(failed), known))
    }

    /// What a key holds.
    pub async fn setting(&self, key: &str) -> Result<KvKnown, ConsulError> {
        let mut call = self.calls.place().await?;
        // Whoever has just written it sees what he wrote.
        let answer =
            configuration::get(&mut call.connection, key, self.datacenter.as_deref(), Consistency::Default).await;
        call.done();
        answer
    }

    /// The same, now and later. `None`: too many look already.
    pub fn look_at_setting(&self, key: &str) -> Option<Looking<KvKnown>> {
        let asked = |failed| SettingKey { key: key.to_owned(), datacenter: self.datacenter.clone(), failed };
        self.lookers.look(&self.settings, key.to_owned(), |known, failed| self.watch(asked(failed), known))
    }

    /// What the keys hold that begin so.
    pub async fn settings(&self, folder: &str) -> Result<KvFolder, ConsulError> {
        let mut call = self.calls.place().await?;
        let answer =
            configuration::list(&mut call.connection, folder, self.datacenter.as_deref(), Consistency::Default).await;
        call.done();
        answer
    }

    /// The same, now and later. `None`: too many look already.
    pub fn look_at_settings(&self, folder: &str) -> Option<Looking<Arc<KvFolder>>> {
        let asked = |failed| FolderAsked { folder: folder.to_owned(), datacenter: self.datacenter.clone(), failed };
        self.lookers.look(&self.folders, folder.to_owned(), |known, failed| self.watch(asked(failed), known))
    }

    /// Writes a key, if it is still as it was at this index (0: if there is none).
    pub async fn write_setting(&self, key: &str, value: &[u8], cas: u64) -> Result<Written, ConsulError> {
        let mut call = self.calls.place().await?;
        let answer = configuration::put(&mut call.connection, key, self.datacenter.as_deref(), value, cas).await;
        call.done();
        answer
    }

    /// Takes a lock, or says who has it. It is held until what is returned is dropped, released, or lost.
    pub async fn lock(&self, wanted: LockWanted) -> Result<Held, NoLock> {
        lock::take(&self.holdings, &self.client, &self.status, wanted).await
    }

    /// Gives a lock back: the next one may have it at once. The words are why Consul does not know of it yet; `None`: there
    /// is no such lock of this owner here.
    pub async fn release(&self, name: &str, owner: &str) -> Option<Result<(), String>> {
        self.holdings.release(name, owner).await
    }

    /// Where sagas are kept.
    pub fn sagas(&self) -> &Sagas {
        &self.sagas
    }

    /// Ends all locks, as if they were lost, and gives no more; returns when Consul knows, or this has taken long enough.
    pub async fn close(&self, at_most: Duration) {
        let closing = async {
            tokio::join!(self.holdings.close(), self.sagas.close());
        };
        let _ = timeout(at_most, closing).await; // what is left ends with its time
    }

    fn scoped(&self, query: &Query) -> Query {
        Query { datacenter: query.datacenter.clone().or_else(|| self.datacenter.clone()), ..query.clone() }
    }

    fn watch<A: Asked>(&self, asked: A, known: channel::Sender<Option<A::Known>>) -> KnownWatch<A> {
        let (client, status) = (Arc::clone(&self.client), Arc::clone(&self.status));
        KnownWatch { asked, client, status, consistency: self.consistency, wait: self.wait, known }
    }
}
