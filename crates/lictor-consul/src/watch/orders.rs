//! What is ordered of the gateway's maintenance, for all gateways of a service: a key of KV.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lictor_config::Consistency;
use lictor_core::gateway::maintenance::Orders;
use tracing::warn;

use super::known::Asked;
use crate::agent::kv::get;
use crate::agent::{Answer, Ask, Connection, ConsulError, KvEntry};

/// The key.
#[derive(Debug)]
pub(crate) struct OrdersKey {
    pub(crate) key: String,
    pub(crate) datacenter: Option<String>,
    /// It was told that the key may not be read.
    pub(crate) is_told: AtomicBool,
    /// Of the last value that was told to be none (Consul's index of that write); 0: there was none yet.
    pub(crate) refused: AtomicU64,
}

impl Asked for OrdersKey {
    type Known = Arc<Orders>;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Arc<Orders>), ConsulError> {
        let (answer, entry) = get(connection, &self.key, self.datacenter.as_deref(), ask, consistency).await?;
        let orders = entry.map(|entry| self.read(&entry)).unwrap_or_default();
        Ok((answer, Arc::new(orders)))
    }

    fn is_loss(before: &Arc<Orders>, now: &Arc<Orders>) -> bool {
        !before.is_empty() && now.is_empty()
    }

    fn answered(&self, _index: u64, _known: &Arc<Orders>, _is_news: bool) {
        self.is_told.store(false, Ordering::Relaxed);
    }

    /// That Consul is away the watches beside it tell.
    fn failed(&self, error: &ConsulError) {
        if error.is_denied() && !self.is_told.swap(true, Ordering::Relaxed) {
            warn!(key = self.key, %error, "the Consul token may not read what is ordered of the gateway's maintenance; it needs key:read");
        }
    }
}

impl OrdersKey {
    /// What is no order counts as none, and each such value is told once: it is read again at the end of each wait.
    fn read(&self, entry: &KvEntry) -> Orders {
        Orders::parse(&entry.value).unwrap_or_else(|error| {
            let key = &self.key;
            if self.refused.swap(entry.modify_index, Ordering::Relaxed) != entry.modify_index {
                warn!(target: "lictor::event", kind = "maintenance_refused", key, error, "what is in KV is not of `lictor maintenance`: nothing is ordered");
            }
            Orders::default()
        })
    }
}
