//! The agent as a command asks it: one call, one answer, nothing watched and nothing tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::DATE;
use lictor_config::{Config, Consul};
use serde_json::Value as Json;

use crate::client::{Answer, Client, Connection, ConsulError};
use crate::definition::{Definition, Place};
use crate::handle::StartError;

/// Without a leader an agent takes 7 s to say so.
const PATIENCE: Duration = Duration::from_secs(8);

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
        let Some(address) = &consul.address else { return Ok(None) };
        let client = Arc::new(Client::new(consul, address)?);
        let connection = Connection::new(&client, &Arc::default());
        Ok(Some(Self { client, connection }))
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

    /// What a sidecar with this configuration would register; how the agent sees us is known after the first call.
    pub fn registration(&self, config: &Config) -> Option<Json> {
        let place = Place { is_agent_local: self.client.is_local(), seen_as: self.connection.local() };
        Some(Definition::of(config)?.body(place, "critical"))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Self { json: serde_json::from_slice(&answer.body).unwrap_or_default(), date }
    }
}
