//! Configuration in Consul's KV: one key is watched, and one written with what became of it.
//!
//! A key that vanishes is asked for again with a consistent read before that counts: a server that replays its log has
//! not got to it yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_config::Consistency;
use tokio::sync::watch as channel;
use tracing::warn;

use crate::agent::kv::{get, put};
use crate::agent::{Ask, Client, Connection, ConsulError, Cursor, KvKnown, Random, Throttle, Worth};
use crate::status::Status;

/// The watch of the key.
#[derive(Debug)]
pub(crate) struct KvWatch {
    pub(crate) key: String,
    pub(crate) datacenter: Option<String>,
    pub(crate) client: Arc<Client>,
    pub(crate) status: Arc<Status>,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    /// `None` until something is known.
    pub(crate) known: channel::Sender<Option<KvKnown>>,
}

impl KvWatch {
    /// Watches for as long as the program runs.
    pub(crate) async fn run(self) {
        let mut connection = Connection::new(&self.client, self.status.connections());
        let mut cursor = Cursor::new(self.client.is_local());
        let mut throttle = Throttle::of_watch(Instant::now());
        let mut random = Random::new();
        let mut fresh = self.client.fresh();
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let token = self.client.token();
            let turn = tokio::select! {
                turn = self.turn(&mut connection, &mut cursor, &mut throttle) => turn,
                changed = fresh.changed() => {
                    changed.expect("the client is ours");
                    connection = Connection::new(&self.client, self.status.connections());
                    cursor.asks_anew();
                    continue;
                }
            };
            let Err(error) = turn else { continue };
            if matches!(error, ConsulError::Unreachable(_)) {
                throttle.give_back();
            }
            self.status.kv_failed(&error);
            let pause = cursor.failed(&error, random.share());
            if error.is_denied() {
                self.known.send_if_modified(|known| known.is_none() && known.replace(None).is_none());
            }
            self.client.pause_after(&error, token.as_ref(), pause).await;
        }
    }

    async fn turn(
        &self,
        connection: &mut Connection,
        cursor: &mut Cursor,
        throttle: &mut Throttle,
    ) -> Result<(), ConsulError> {
        let ask = cursor.ask(self.wait);
        let asked = Instant::now();
        let datacenter = self.datacenter.as_deref();
        let (answer, mut entry) = get(connection, &self.key, datacenter, ask, self.consistency).await?;
        let worth = cursor.answered(ask, answer.index(), asked.elapsed());
        if worth == Worth::AskAgain {
            return Ok(());
        }
        let known = self.known.borrow().clone();
        let vanishes = entry.is_none() && matches!(known, Some(Some(_)));
        let is_doubtful = worth == Worth::Doubt && known.as_ref().is_some_and(|known| *known != entry);
        if vanishes || is_doubtful {
            throttle.take(Instant::now());
            let now = Ask { index: None, wait: self.wait };
            match get(connection, &self.key, datacenter, now, Consistency::Consistent).await {
                Ok((_, confirmed)) => entry = confirmed,
                Err(error) => {
                    cursor.unconfirmed();
                    return Err(error);
                }
            }
        }
        self.status.kv_answered(cursor.index(), entry.as_ref().map(|entry| entry.modify_index));
        let entry = Some(entry);
        if known != entry {
            throttle.was_news();
            self.known.send_replace(entry);
        }
        Ok(())
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
