//! Keeps the file with the last good answers up to date, off the control loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::agent::KvKnown;
use crate::control::Order;
use crate::memory::{RememberedKeys, RememberedKv, disk, now_ms};
use crate::status::Status;

/// Changes that come one after the other are written together.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Without changes: the times of the answers are part of what is known.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// Asks the control loop what is known, and writes it.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    status: Arc<Status>,
    changed: Arc<Notify>,
    /// The KV value in force, by key.
    kv: parking_lot::Mutex<Option<RememberedKv>>,
    /// Keys of the gateway's issuers.
    keys: parking_lot::Mutex<Vec<RememberedKeys>>,
    /// What was written last; whoever writes holds it.
    written: Mutex<Vec<u8>>,
}

impl Keeper {
    /// `changed` says that there is something new to write.
    pub(crate) fn new(
        path: PathBuf,
        orders: mpsc::UnboundedSender<Order>,
        status: Arc<Status>,
        changed: Arc<Notify>,
        kv: Option<RememberedKv>,
        keys: Vec<RememberedKeys>,
    ) -> Self {
        Self { path, orders, status, changed, kv: kv.into(), keys: keys.into(), written: Mutex::default() }
    }

    /// This value of the KV key is in force.
    pub(crate) fn applied(&self, key: &str, known: KvKnown) {
        *self.kv.lock() = Some(RememberedKv { key: key.to_owned(), at_ms: now_ms(), known });
        self.changed.notify_one();
    }

    /// These are the keys that were fetched last.
    pub(crate) fn keys(&self, keys: Vec<RememberedKeys>) {
        *self.keys.lock() = keys;
        self.changed.notify_one();
    }

    /// Those that are on disk, or will be.
    pub(crate) fn known_keys(&self) -> Vec<RememberedKeys> {
        self.keys.lock().clone()
    }

    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(AT_LEAST_EVERY, self.changed.notified()).await;
            self.save().await;
            tokio::time::sleep(AT_MOST_EVERY).await;
        }
    }

    /// Writes what is known now, if that is anything new.
    pub(crate) async fn save(&self) {
        let mut written = self.written.lock().await;
        let (tell, contents) = oneshot::channel();
        let _ = self.orders.send(Order::Remember(tell));
        let Ok(mut contents) = contents.await else { return }; // the control loop has ended
        contents.kv.clone_from(&self.kv.lock());
        contents.keys = self.known_keys();
        if let (Some(kv), Some(at_ms)) = (&mut contents.kv, self.status.kv_answered_at()) {
            kv.at_ms = at_ms;
        }
        if contents.is_empty() {
            return;
        }
        let (path, before) = (self.path.clone(), std::mem::take(&mut *written));
        let work = spawn_blocking(move || {
            let bytes = disk::encode(&contents);
            let is_new = bytes != before;
            let result = if is_new { disk::store(&path, &bytes) } else { Ok(()) };
            (bytes, result)
        });
        let Ok((bytes, result)) = work.await else { return };
        match result {
            Ok(()) => *written = bytes,
            Err(error) => {
                let path = self.path.display();
                if self.status.unsaved(&error.to_string()) {
                    warn!(target: "lictor::event", kind = "snapshot_unwritten", %path, %error, "the snapshot cannot be written; it is tried again");
                }
                return;
            }
        }
        self.status.saved();
    }
}
