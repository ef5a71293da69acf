//! Where sagas are kept: keys of KV that belong to a session of this process for as long as it works on them.
//!
//! What holds: whoever has a key writes it by its index, and Consul gives a key another index also when its session ends. So a write
//! that succeeds says that the key was ours all the time, and whoever was held up, or cut off from Consul, cannot write over what
//! another process has done since. What a saga does next is written before it is done, which is why no lock delay is needed.

use std::sync::Arc;
use std::time::Duration;

use lictor_config::{Consistency, Consul};
use lictor_core::saga::{Headline, headline};
use parking_lot::Mutex as Slot;
use tokio::sync::{Mutex, watch as channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::warn;

use super::calls::Calls;
use crate::agent::kv::{self, Owned};
use crate::agent::transaction::{self, Operation, Refused};
use crate::agent::{Answer, Ask, Client, Connection, ConsulError, session};
use crate::status::Status;
use crate::watch::{Asked, KnownWatch};

/// Consul's least. Whoever dies is missed after it, or after twice as long.
const TTL: Duration = Duration::from_secs(10);
/// After an error.
const PAUSE: Duration = Duration::from_millis(500);
/// So often in a row it may be found that nobody needs the session.
const IDLE_TURNS: u32 = 10;
/// Made one after the other for one key, where Consul does not know the one before any more.
const SESSIONS: usize = 3;
/// To tell Consul of an end; what it does not hear ends with its time.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Keys of a folder that are read at once.
const FOLDER_MAX: usize = 5000;

/// The keys, on connections of their own.
#[derive(Debug)]
pub struct Sagas {
    client: Arc<Client>,
    status: Arc<Status>,
    calls: Calls,
    consistency: Consistency,
    wait: Duration,
    label: String,
    tenure: Arc<Mutex<Option<Arc<Tenure>>>>,
}

/// A session of ours.
#[derive(Debug)]
struct Tenure {
    session: String,
    /// By our own clock; Consul ends it no earlier.
    good_until: channel::Sender<Instant>,
}

/// A key that is ours.
#[derive(Debug)]
pub struct SagaHeld {
    key: String,
    index: u64,
    tenure: Arc<Tenure>,
}

/// A key as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaSeen {
    /// Of the last write.
    pub index: u64,
    /// Somebody works on it.
    pub is_held: bool,
    /// What it holds.
    pub value: Vec<u8>,
}

/// A key of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaSighted {
    /// The whole key.
    pub key: String,
    /// Of the last write.
    pub index: u64,
    /// The session of whoever works on it.
    pub session: Option<String>,
    /// What it says of itself.
    pub line: Headline,
}

/// The watch of a folder, until it is dropped.
#[derive(Debug)]
pub struct SagaWatch {
    known: channel::Receiver<Option<Arc<Vec<SagaSighted>>>>,
    task: AbortHandle,
}

impl Drop for SagaWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SagaWatch {
    /// What is known, now and later.
    pub fn known(&self) -> channel::Receiver<Option<Arc<Vec<SagaSighted>>>> {
        self.known.clone()
    }
}

impl Tenure {
    fn is_good(&self) -> bool {
        Instant::now() < *self.good_until.borrow()
    }
}

impl SagaHeld {
    /// Whether nobody else can have it.
    pub fn is_ours(&self) -> bool {
        self.tenure.is_good()
    }
}

impl Sagas {
    pub(super) fn new(consul: &Consul, client: &Arc<Client>, status: &Arc<Status>, holder: &str) -> Self {
        Self {
            client: Arc::clone(client),
            status: Arc::clone(status),
            calls: Calls::new(client, status),
            consistency: consul.consistency,
            wait: consul.wait,
            label: format!("lictor: sagas of {holder}"),
            tenure: Arc::default(),
        }
    }

    /// Makes a key that is ours; `None`: there is one.
    pub async fn make(&self, key: String, value: &str) -> Result<Option<SagaHeld>, ConsulError> {
        self.lock(key, value, None).await
    }

    /// Takes a key that is nobody's, if it is still as it was seen, and writes it; `None`: it is not.
    pub async fn take(&self, key: String, index: u64, value: &str) -> Result<Option<SagaHeld>, ConsulError> {
        self.lock(key, value, Some(index)).await
    }

    async fn lock(&self, key: String, value: &str, at: Option<u64>) -> Result<Option<SagaHeld>, ConsulError> {
        for _ in 0..SESSIONS {
            let tenure = self.tenure().await?;
            let operation = match at {
                None => Operation::LockNew(&tenure.session),
                Some(index) => Operation::LockAt(&tenure.session, index),
            };
            match self.run(operation, &key, value).await? {
                Ok(index) => return Ok(Some(SagaHeld { key, index, tenure })),
                Err(Refused::NoSession) => self.forget(&tenure).await,
                Err(Refused::Changed | Refused::Held | Refused::Delayed) => return Ok(None),
            }
        }
        Err(ConsulError::Broken("it ends each session as soon as it is made".to_owned()))
    }

    /// Writes a key of ours, for as long as it takes; whether it is ours still.
    pub async fn write(&self, held: &mut SagaHeld, value: &str) -> bool {
        self.settle(held, value, false).await
    }

    /// Writes it a last time, and gives it up; whether it was ours until then.
    pub async fn give_up(&self, mut held: SagaHeld, value: &str) -> bool {
        self.settle(&mut held, value, true).await
    }

    /// Tries until it is known what has become of it.
    async fn settle(&self, held: &mut SagaHeld, value: &str, is_last: bool) -> bool {
        while held.is_ours() {
            let operation = if is_last {
                Operation::UnlockAt(&held.tenure.session, held.index)
            } else {
                Operation::CompareAndSet(held.index)
            };
            match self.run(operation, &held.key, value).await {
                Ok(Ok(index)) => {
                    held.index = index;
                    return true;
                }
                Err(error) if !error.is_outage() => {
                    warn!(key = held.key, %error, "a saga cannot be written");
                    return false;
                }
                // Whether it is written is not known; one that was in doubt may be refused because it is.
                Ok(Err(_)) | Err(_) => (),
            }
            match self.look(&held.key).await {
                Ok(Some(seen)) => {
                    let is_mine = seen.session.as_ref() == Some(&held.tenure.session);
                    if seen.entry.value == value.as_bytes() && is_mine != is_last {
                        held.index = seen.entry.modify_index;
                        return true;
                    }
                    if !is_mine || seen.entry.modify_index != held.index {
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(_) => (),
            }
            sleep(PAUSE).await;
        }
        false
    }

    /// A key as it is now.
    pub async fn read(&self, key: &str) -> Result<Option<SagaSeen>, ConsulError> {
        let seen = self.look(key).await?;
        Ok(seen.map(|Owned { session, entry, .. }| SagaSeen {
            index: entry.modify_index,
            is_held: session.is_some(),
            value: entry.value,
        }))
    }

    /// What the keys of a folder say of themselves.
    pub async fn list(&self, folder: &str) -> Result<Vec<SagaSighted>, ConsulError> {
        let mut call = self.calls.place().await?;
        let now = Ask { index: None, wait: Duration::ZERO };
        let listed = kv::list_owned(&mut call.connection, folder, None, now, Consistency::Default, FOLDER_MAX).await;
        call.done();
        Ok(sighted(listed?.1))
    }

    /// The same, now and later.
    pub fn watch(&self, folder: &str) -> SagaWatch {
        let sender = channel::Sender::new(None);
        let known = sender.subscribe();
        let watch = KnownWatch {
            asked: Folder { folder: folder.to_owned(), is_told: Slot::default() },
            client: Arc::clone(&self.client),
            status: Arc::clone(&self.status),
            consistency: self.consistency,
            wait: self.wait,
            known: sender,
        };
        SagaWatch { known, task: tokio::spawn(watch.run()).abort_handle() }
    }

    /// Deletes a key, if it is still as it was seen; whether it was.
    pub async fn remove(&self, key: &str, index: u64) -> Result<bool, ConsulError> {
        let mut call = self.calls.place().await?;
        let removed = kv::delete(&mut call.connection, key, index).await;
        call.done();
        removed
    }

    /// The session that keys of ours belong to, while there is one.
    pub async fn own_session(&self) -> Option<String> {
        self.tenure.lock().await.as_ref().map(|tenure| tenure.session.clone())
    }

    /// Ends the session: what still belongs to it is anybody's.
    pub(super) async fn close(&self) {
        let Some(tenure) = self.tenure.lock().await.take() else { return };
        tenure.good_until.send_replace(Instant::now());
        let mut connection = Connection::new(&self.client, self.status.connections());
        let _ = session::destroy(&mut connection, &tenure.session).await; // it ends by itself
    }

    async fn run(&self, operation: Operation<'_>, key: &str, value: &str) -> Result<Result<u64, Refused>, ConsulError> {
        let mut call = self.calls.place().await?;
        let done = transaction::run(&mut call.connection, operation, key, value.as_bytes(), None).await;
        call.done();
        Ok(done?.map(|indexes| indexes.modify_index))
    }

    async fn look(&self, key: &str) -> Result<Option<Owned>, ConsulError> {
        let mut call = self.calls.place().await?;
        let now = Ask { index: None, wait: Duration::ZERO };
        let seen = kv::owned(&mut call.connection, key, now, Consistency::Default).await;
        call.done();
        Ok(seen?.1)
    }

    /// The session, which is made for the first who needs it.
    async fn tenure(&self) -> Result<Arc<Tenure>, ConsulError> {
        let mut known = self.tenure.lock().await;
        if let Some(tenure) = known.as_ref().filter(|tenure| tenure.is_good()) {
            return Ok(Arc::clone(tenure));
        }
        let asked = Instant::now();
        let mut connection = Connection::new(&self.client, self.status.connections());
        let session = session::create(&mut connection, &self.label, TTL, Duration::ZERO).await?;
        let tenure = Arc::new(Tenure { session, good_until: channel::Sender::new(asked + TTL) });
        *known = Some(Arc::clone(&tenure));
        let upkeep = Upkeep { tenure: Arc::clone(&tenure), slot: Arc::clone(&self.tenure), connection };
        tokio::spawn(upkeep.run(asked));
        Ok(tenure)
    }

    /// Consul does not know it any more.
    async fn forget(&self, tenure: &Arc<Tenure>) {
        tenure.good_until.send_replace(Instant::now());
        self.tenure.lock().await.take_if(|known| Arc::ptr_eq(known, tenure));
    }
}

/// Renews a session for as long as somebody needs it.
struct Upkeep {
    tenure: Arc<Tenure>,
    slot: Arc<Mutex<Option<Arc<Tenure>>>>,
    connection: Connection,
}

impl Upkeep {
    async fn run(mut self, asked: Instant) {
        let why = self.renew(asked).await;
        self.tenure.good_until.send_replace(Instant::now());
        self.slot.lock().await.take_if(|known| Arc::ptr_eq(known, &self.tenure));
        if let Some(why) = why {
            warn!(target: "lictor::event", kind = "sagas_lost", why, "the session of this sidecar's sagas is lost: whoever finds them goes on with them");
        }
        self.connection.abandon();
        let _ = timeout(END_WITHIN, session::destroy(&mut self.connection, &self.tenure.session)).await; // it ends by itself
    }

    /// Until it is lost, and why; `None`: nobody needs it.
    async fn renew(&mut self, asked: Instant) -> Option<String> {
        let (mut next, mut idle, mut last) = (asked + TTL / 3, 0, "nothing came back".to_owned());
        loop {
            let good_until = *self.tenure.good_until.borrow();
            sleep_until(next.min(good_until)).await;
            let asked = Instant::now();
            if asked >= *self.tenure.good_until.borrow() {
                return Some(format!("it was not renewed in time: {last}"));
            }
            idle = if self.is_idle(idle == IDLE_TURNS).await { idle + 1 } else { 0 };
            if idle > IDLE_TURNS {
                return None;
            }
            let renewed = session::renew(&mut self.connection, &self.tenure.session, TTL / 5);
            match timeout_at(good_until, renewed).await {
                Ok(Ok(true)) => {
                    next = asked + TTL / 3;
                    // One that was given up meanwhile stays so.
                    self.tenure.good_until.send_if_modified(|until| {
                        let is_good = Instant::now() < *until;
                        if is_good {
                            *until = asked + TTL;
                        }
                        is_good
                    });
                }
                Ok(Ok(false)) => return Some("Consul has ended it".to_owned()),
                Ok(Err(error)) => (next, last) = (Instant::now() + PAUSE, error.to_string()),
                Err(_) => next = good_until,
            }
        }
    }

    /// Whether nothing belongs to it. With `is_over` nothing will from then on: nobody gets it any more.
    async fn is_idle(&self, is_over: bool) -> bool {
        let mut known = self.slot.lock().await;
        let is_known = known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &self.tenure));
        let is_idle = Arc::strong_count(&self.tenure) == 1 + usize::from(is_known);
        if is_idle && is_over && is_known {
            *known = None;
        }
        is_idle
    }
}

/// The folder, to watch.
#[derive(Debug)]
struct Folder {
    folder: String,
    /// The error that was told last.
    is_told: Slot<Option<&'static str>>,
}

impl Asked for Folder {
    type Known = Arc<Vec<SagaSighted>>;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Self::Known), ConsulError> {
        let (answer, owned) = kv::list_owned(connection, &self.folder, None, ask, consistency, FOLDER_MAX).await?;
        Ok((answer, Arc::new(sighted(owned))))
    }

    /// Whoever acts on it does so by its index.
    fn is_loss(_before: &Self::Known, _now: &Self::Known) -> bool {
        false
    }

    fn answered(&self, _index: u64, _known: &Self::Known, _is_news: bool) {
        *self.is_told.lock() = None;
    }

    /// That Consul is away the watches of upstreams tell.
    fn failed(&self, error: &ConsulError) {
        let is_news = self.is_told.lock().replace(error.kind()) != Some(error.kind());
        if is_news && !error.is_outage() {
            warn!(folder = self.folder, %error, "sagas that others have left cannot be seen");
        }
    }
}

/// What is no saga is somebody else's, and left alone.
fn sighted(owned: Vec<Owned>) -> Vec<SagaSighted> {
    let read = |Owned { key, session, entry }: Owned| {
        let line = headline(&entry.value).ok()?;
        Some(SagaSighted { key, index: entry.modify_index, session, line })
    };
    owned.into_iter().filter_map(read).collect()
}
