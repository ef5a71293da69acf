//! A key of KV, as applications read and write it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lictor_config::Consistency;

use super::shared::{Failed, tell};
use crate::agent::transaction::{self, Operation, Refused};
use crate::agent::{Answer, Ask, Connection, ConsulError, KvFolder, KvKnown, kv};
use crate::watch::Asked;

/// Keys of a folder that are read at once.
const FOLDER_MAX: usize = 1000;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written; the key's index now.
    Yes(u64),
    /// Somebody has written meanwhile.
    Meanwhile {
        /// The key's index as it was seen after that, 0: there is no such key.
        index: u64,
        /// It holds what was to be written: perhaps it was, and the answer was lost.
        is_same: bool,
    },
}

/// What it holds now.
pub(super) async fn get(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    consistency: Consistency,
) -> Result<KvKnown, ConsulError> {
    let now = Ask { index: None, wait: Duration::ZERO };
    kv::get(connection, key, datacenter, now, consistency).await.map(|(_, known)| known)
}

/// What the keys of a folder hold now.
pub(super) async fn list(
    connection: &mut Connection,
    folder: &str,
    datacenter: Option<&str>,
    consistency: Consistency,
) -> Result<KvFolder, ConsulError> {
    let now = Ask { index: None, wait: Duration::ZERO };
    kv::list(connection, folder, datacenter, now, consistency, FOLDER_MAX).await.map(|(_, known)| known)
}

/// Writes it, if it is still as it was at this index.
pub(super) async fn put(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    value: &[u8],
    cas: u64,
) -> Result<Written, ConsulError> {
    match transaction::run(connection, Operation::CompareAndSet(cas), key, value, datacenter).await? {
        Ok(indexes) => Ok(Written::Yes(indexes.modify_index)),
        Err(Refused::Changed | Refused::Held | Refused::Delayed | Refused::NoSession) => {
            let now = get(connection, key, datacenter, Consistency::Default).await?;
            let (index, is_same) = now.map_or((0, false), |entry| (entry.modify_index, entry.value == value));
            Ok(Written::Meanwhile { index, is_same })
        }
    }
}

/// The key, to watch.
#[derive(Debug)]
pub(super) struct SettingKey {
    pub(super) key: String,
    pub(super) datacenter: Option<String>,
    pub(super) failed: Failed,
}

impl Asked for SettingKey {
    type Known = KvKnown;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Self::Known), ConsulError> {
        kv::get(connection, &self.key, self.datacenter.as_deref(), ask, consistency).await
    }

    fn is_loss(before: &Self::Known, now: &Self::Known) -> bool {
        before.is_some() && now.is_none()
    }

    fn answered(&self, _index: u64, _known: &Self::Known, _is_news: bool) {}

    /// That Consul is away the watches of upstreams tell.
    fn failed(&self, error: &ConsulError) {
        tell(&self.failed, error);
    }
}

/// The folder, to watch.
#[derive(Debug)]
pub(super) struct FolderAsked {
    pub(super) folder: String,
    pub(super) datacenter: Option<String>,
    pub(super) failed: Failed,
}

impl Asked for FolderAsked {
    type Known = Arc<KvFolder>;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Self::Known), ConsulError> {
        let datacenter = self.datacenter.as_deref();
        let (answer, known) = kv::list(connection, &self.folder, datacenter, ask, consistency, FOLDER_MAX).await?;
        Ok((answer, Arc::new(known)))
    }

    fn is_loss(before: &Self::Known, now: &Self::Known) -> bool {
        let now: HashSet<&str> = now.iter().map(|(key, _)| key.as_str()).collect();
        before.iter().any(|(key, _)| !now.contains(key.as_str()))
    }

    fn answered(&self, _index: u64, _known: &Self::Known, _is_news: bool) {}

    /// That Consul is away the watches of upstreams tell.
    fn failed(&self, error: &ConsulError) {
        tell(&self.failed, error);
    }
}
