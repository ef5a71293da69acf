//! Configuration in Consul's KV: one key is watched, and one written with what became of it.

use std::sync::Arc;

use lictor_config::Consistency;
use tokio::sync::watch as channel;
use tracing::warn;

use super::known::Asked;
use crate::agent::kv::{get, put};
use crate::agent::{Answer, Ask, Client, Connection, ConsulError, Cursor, KvKnown, Random};
use crate::status::Status;

/// The key.
#[derive(Debug)]
pub(crate) struct KvKey {
    pub(crate) key: String,
    pub(crate) datacenter: Option<String>,
    pub(crate) status: Arc<Status>,
}

impl Asked for KvKey {
    type Known = KvKnown;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, KvKnown), ConsulError> {
        get(connection, &self.key, self.datacenter.as_deref(), ask, consistency).await
    }

    fn is_loss(before: &KvKnown, now: &KvKnown) -> bool {
        before.is_some() && now.is_none()
    }

    fn answered(&self, index: u64, known: &KvKnown, _is_news: bool) {
        self.status.kv_answered(index, known.as_ref().map(|entry| entry.modify_index));
    }

    fn failed(&self, error: &ConsulError) {
        self.status.kv_failed(error);
    }
}

/// Writes the latest report to its key, again until Consul has taken it.
pub(crate) async fn report_to_kv(
    client: Arc<Client>,
    status: Arc<Status>,
    datacenter: Option<String>,
    mut reports: channel::Receiver<Option<(String, String)>>,
) {
    let mut backoff = Cursor::new(client.is_local());
    let mut random = Random::new();
    let mut is_pending = false;
    while is_pending || reports.changed().await.is_ok() {
        let Some((key, report)) = reports.borrow_and_update().clone() else { continue };
        // Reports are rare, and an agent has 200 connections for all of a machine.
        let mut connection = Connection::new(&client, status.connections());
        let Err(error) = put(&mut connection, &key, datacenter.as_deref(), &report, None).await else {
            (is_pending, backoff) = (false, Cursor::new(client.is_local()));
            continue;
        };
        if error.is_denied() && !is_pending {
            warn!(%key, %error, "the Consul token may not write what became of the configuration in KV; it needs key:write");
        }
        is_pending = true;
        tokio::time::sleep(backoff.failed(&error, random.share())).await;
    }
}
