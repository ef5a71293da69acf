//! Configuration in Consul's KV: one key is watched, and one written with what became of it.
//!
//! A key that vanishes is asked for again with a consistent read before that counts: a server that replays its log has
//! not got to it yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use lictor_config::{Consistency, Consul};
use serde::{Deserialize, Serialize};
use tokio::sync::watch as channel;
use tracing::warn;

use crate::blocking::{Ask, Cursor, Throttle, Worth};
use crate::client::{Answer, Client, Connection, ConsulError, encode};
use crate::handle::StartError;
use crate::random::Random;
use crate::status::Status;

/// Without a leader an agent takes 7 s to say so.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// Consul's: another one for each write.
    pub modify_index: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// What is known of the watched key; `None` is that there is no such key.
pub type KvKnown = Option<KvEntry>;

/// The calls of a command: no watch, no retries.
#[derive(Debug)]
pub struct Kv {
    connection: Connection,
    datacenter: Option<String>,
}

impl Kv {
    /// `None` where no agent is configured. Nothing is connected yet.
    pub fn new(consul: &Consul) -> Result<Option<Self>, StartError> {
        let Some(address) = &consul.address else { return Ok(None) };
        let client = Arc::new(Client::new(consul, address)?);
        let connection = Connection::new(&client, &Arc::default());
        Ok(Some(Self { connection, datacenter: consul.datacenter.clone() }))
    }

    /// What the key holds.
    pub async fn get(&mut self, key: &str) -> Result<KvKnown, ConsulError> {
        let now = Ask { index: None, wait: Duration::ZERO };
        get(&mut self.connection, key, self.datacenter.as_deref(), now, Consistency::Default)
            .await
            .map(|(_, entry)| entry)
    }

    /// Writes it, if it is still as it was at this index (0: if there is none); whether it was.
    pub async fn put(&mut self, key: &str, value: &str, cas: Option<u64>) -> Result<bool, ConsulError> {
        put(&mut self.connection, key, self.datacenter.as_deref(), value, cas).await
    }
}

/// The watch of the key.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) key: String,
    pub(crate) datacenter: Option<String>,
    pub(crate) client: Arc<Client>,
    pub(crate) status: Arc<Status>,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    /// `None` until something is known.
    pub(crate) known: channel::Sender<Option<KvKnown>>,
}

impl Watch {
    /// Watches for as long as the program runs.
    pub(crate) async fn run(self) {
        let mut connection = Connection::new(&self.client, self.status.connections());
        let mut cursor = Cursor::new(self.client.is_local());
        let mut throttle = Throttle::of_watch(Instant::now());
        let mut random = Random::new();
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let token = self.client.token();
            let Err(error) = self.turn(&mut connection, &mut cursor, &mut throttle).await else { continue };
            if matches!(error, ConsulError::Unreachable(_)) {
                throttle.give_back();
            }
            self.status.kv_failed(&error);
            let pause = cursor.failed(&error, random.share());
            if error.is_denied() {
                self.known.send_if_modified(|known| known.is_none() && known.replace(None).is_none());
                self.client.renewed_token(token.as_ref(), pause).await;
            } else {
                tokio::time::sleep(pause).await;
            }
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
pub(crate) async fn tell(
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

async fn get(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, KvKnown), ConsulError> {
    let (index, wait) = (ask.index.map(|index| index.to_string()), format!("{}ms", ask.wait.as_millis()));
    let mut query: Vec<(&str, &str)> = Vec::new();
    if let Some(index) = &index {
        query.extend([("index", index.as_str()), ("wait", wait.as_str())]);
    }
    match consistency {
        Consistency::Stale => query.push(("stale", "")),
        Consistency::Consistent => query.push(("consistent", "")),
        Consistency::Default => (),
    }
    query.extend(datacenter.map(|datacenter| ("dc", datacenter)));
    let blocking = if index.is_some() { ask.wait + ask.wait / 16 } else { Duration::ZERO };
    let answer = connection.ask(Method::GET, &path(key), &query, Bytes::new(), blocking + PATIENCE).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok((answer, None));
    }
    let answer = answer.accepted()?;
    let known = parse(&answer.body)?;
    Ok((answer, known))
}

/// Parses the answer: a list of one.
pub(crate) fn parse(body: &[u8]) -> Result<KvKnown, ConsulError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        modify_index: u64,
        #[serde(default)]
        value: Option<String>,
    }
    let decode = |error: &dyn ToString| ConsulError::Decode(error.to_string());
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|error| decode(&error))?;
    let Some(item) = items.into_iter().next() else { return Ok(None) };
    let value = BASE64_STANDARD.decode(item.value.unwrap_or_default()).map_err(|error| decode(&error))?;
    Ok(Some(KvEntry { modify_index: item.modify_index, value }))
}

async fn put(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    value: &str,
    cas: Option<u64>,
) -> Result<bool, ConsulError> {
    let cas = cas.map(|index| index.to_string());
    let cas = cas.as_deref().map(|index| ("cas", index));
    let query: Vec<(&str, &str)> = cas.into_iter().chain(datacenter.map(|datacenter| ("dc", datacenter))).collect();
    let answer = connection.put(&path(key), &query, Bytes::copy_from_slice(value.as_bytes()), PATIENCE).await?;
    Ok(answer.body.trim_ascii() == b"true")
}

fn path(key: &str) -> String {
    let steps: Vec<String> = key.split('/').map(encode).collect();
    format!("/v1/kv/{}", steps.join("/"))
}
