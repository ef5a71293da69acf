//! What a command asks the agent: one call, one answer, nothing watched and nothing tried again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::DATE;
use lictor_config::{Config, Consistency, Consul};
use serde_json::Value as Json;

use crate::agent::{Answer, Ask, Client, Connection, ConsulError, KvKnown, PATIENCE, kv};
use crate::handle::StartError;
use crate::registration::{Definition, Place, Relayed};

/// Of an address, so many places are asked which node's agent is there, and each so often.
const PLACES: usize = 4;
const ASKED_EACH: usize = 3;
const NODE_WITHIN: Duration = Duration::from_secs(2);

/// One connection to the agent.
#[derive(Debug)]
pub struct Agent {
    client: Arc<Client>,
    connection: Connection,
}

/// An answer that says yes.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The body; `null` where it is not JSON.
    pub json: Json,
    /// The agent's clock.
    pub date: Option<String>,
}

impl Agent {
    /// `None` where no agent is configured. Nothing is connected yet.
    pub fn new(consul: &Consul) -> Result<Option<Self>, StartError> {
        Ok(connection(consul)?.map(|(client, connection)| Self { client, connection }))
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.client.shown_address()
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.client.is_local()
    }

    /// What a path says; its parts are encoded with [`crate::encode`], values of the query here.
    pub async fn get(&mut self, path: &str, query: &[(&str, &str)]) -> Result<Reply, ConsulError> {
        self.connection.get(path, query, PATIENCE).await.map(Reply::from)
    }

    /// What is said to a body.
    pub async fn post(&mut self, path: &str, body: &Json) -> Result<Reply, ConsulError> {
        let body = Bytes::from(body.to_string());
        self.connection.ask(Method::POST, path, &[], body, PATIENCE).await?.accepted().map(Reply::from)
    }

    /// The names of the nodes whose agents answer at the address, as far as they are found: each place that it leads to is
    /// asked a few times.
    pub async fn nodes(&self) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        let places: Vec<SocketAddr> = self.client.all_addresses().await.into_iter().take(PLACES).collect();
        for place in places.iter().cycle().take(places.len() * ASKED_EACH) {
            let mut connection = Connection::at(*place, &self.client, &Arc::default());
            let Ok(answer) = connection.get("/v1/agent/self", &[], NODE_WITHIN).await else { continue };
            let about: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
            nodes.extend(about["Config"]["NodeName"].as_str().map(str::to_owned));
        }
        nodes
    }

    /// What a sidecar with this configuration would register; how the agent sees us is known after the first call.
    pub fn registration(&self, config: &Config) -> Option<Json> {
        Some(Definition::of(config)?.body(self.place(), "critical"))
    }

    /// The checks that it would run itself.
    pub fn relayed(&self, config: &Config) -> Vec<Relayed> {
        Definition::of(config).map(|definition| definition.relayed(self.place())).unwrap_or_default()
    }

    fn place(&self) -> Place {
        Place { is_agent_local: self.client.is_local(), seen_as: self.connection.local() }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Self { json: serde_json::from_slice(&answer.body).unwrap_or_default(), date }
    }
}

/// The same for keys of KV.
#[derive(Debug)]
pub struct Kv {
    connection: Connection,
    datacenter: Option<String>,
}

impl Kv {
    /// `None` where no agent is configured. Nothing is connected yet.
    pub fn new(consul: &Consul) -> Result<Option<Self>, StartError> {
        let datacenter = consul.datacenter.clone();
        Ok(connection(consul)?.map(|(_, connection)| Self { connection, datacenter }))
    }

    /// What the key holds.
    pub async fn get(&mut self, key: &str) -> Result<KvKnown, ConsulError> {
        let now = Ask { index: None, wait: Duration::ZERO };
        let datacenter = self.datacenter.as_deref();
        kv::get(&mut self.connection, key, datacenter, now, Consistency::Default).await.map(|(_, known)| known)
    }

    /// Writes it, if it is still as it was at this index (0: if there is none); whether it was.
    pub async fn put(&mut self, key: &str, value: &str, cas: Option<u64>) -> Result<bool, ConsulError> {
        kv::put(&mut self.connection, key, self.datacenter.as_deref(), value, cas).await
    }
}

/// `None` where no agent is configured.
fn connection(consul: &Consul) -> Result<Option<(Arc<Client>, Connection)>, StartError> {
    let Some(address) = &consul.address else { return Ok(None) };
    let client = Arc::new(Client::new(consul, address)?);
    let connection = Connection::new(&client, &Arc::default());
    Ok(Some((client, connection)))
}
