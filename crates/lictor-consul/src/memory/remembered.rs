//! What Consul said last, as it outlives the process: answers and the KV value, each with its time, and whose they are.

use std::time::{Duration, SystemTime};

use lictor_config::{Claims, Config, Query};
use lictor_core::gateway::maintenance::Orders;
use serde::{Deserialize, Serialize};

use crate::agent::{Instance, KvKnown};

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) scope: Scope,
    pub(crate) answers: Vec<Remembered>,
    /// The value of the KV key that was in force.
    pub(crate) kv: Option<RememberedKv>,
    /// Keys of the gateway's issuers.
    #[serde(default)]
    pub(crate) keys: Vec<RememberedKeys>,
    /// What services claim of the gateway.
    #[serde(default)]
    pub(crate) claims: Option<RememberedClaims>,
    /// What operators order of its maintenance, once they have ordered anything. It has no age: it ends when they say so.
    #[serde(default)]
    pub(crate) maintenance: Option<Orders>,
}

impl Contents {
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = self.answers.is_empty() && self.kv.is_none() && self.keys.is_empty() && self.claims.is_none();
        nothing && self.maintenance.is_none()
    }
}

/// The last good word of what services claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RememberedClaims {
    pub(crate) at_ms: u64,
    pub(crate) claims: Claims,
}

impl RememberedClaims {
    /// How long ago Consul said so.
    pub(crate) fn age(&self) -> Duration {
        age(self.at_ms)
    }
}

/// Whose answers they are: with another of these the same query means something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(super) service: Option<String>,
    pub(super) datacenter: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) partition: Option<String>,
}

/// The last good answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) query: Query,
    pub(crate) index: u64,
    /// When Consul said so, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    pub(crate) instances: Vec<Instance>,
}

/// The last good value of the KV key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RememberedKv {
    pub(crate) key: String,
    pub(crate) at_ms: u64,
    pub(crate) known: KvKnown,
}

/// The last good answer with an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedKeys {
    /// Where they were fetched.
    pub url: String,
    /// When they were fetched, in milliseconds since the epoch.
    pub at_ms: u64,
    /// How long they were good from then on, in seconds.
    pub age_s: u64,
    /// For the next fetch.
    pub etag: Option<String>,
    /// The set, as it came.
    pub text: String,
}

impl RememberedKeys {
    /// How long ago they were fetched.
    pub fn age(&self) -> Duration {
        age(self.at_ms)
    }

    /// The present, as [`at_ms`](Self::at_ms) has it.
    pub fn now() -> u64 {
        now_ms()
    }
}

impl Scope {
    pub(crate) fn of(config: &Config) -> Self {
        let consul = &config.consul;
        Self {
            service: config.service.clone(),
            datacenter: consul.datacenter.clone(),
            namespace: consul.namespace.clone(),
            partition: consul.partition.clone(),
        }
    }
}

impl Remembered {
    /// How long ago Consul said so.
    pub(crate) fn age(&self) -> Duration {
        age(self.at_ms)
    }
}

impl RememberedKv {
    /// The same.
    pub(crate) fn age(&self) -> Duration {
        age(self.at_ms)
    }
}

/// A clock that was set back makes nothing older.
fn age(at_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(at_ms))
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
