//! How the control plane stands at one moment: what pages, health and metrics read. The snapshot is another thing: the last
//! good answers on disk.

use std::collections::BTreeMap;

use serde::Serialize;

/// How the control plane stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The agent's address; `None` without Consul.
    pub address: Option<String>,
    /// Consul's version, where the token may read it.
    pub version: Option<String>,
    /// False when nothing that we ask of it works; `None` before the first answer.
    pub up: Option<bool>,
    /// Connections to the agent.
    pub connections: usize,
    /// Ours.
    pub registration: RegistrationState,
    /// Why it is not registered.
    pub registration_error: Option<String>,
    /// By cause.
    pub reregistrations: BTreeMap<&'static str, u64>,
    /// By kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// Queries asked anew because connections to endpoints fail.
    pub refreshes: u64,
    /// One each distinct query.
    pub watches: Vec<WatchStanding>,
    /// The last good answers on disk; `None` where none are kept.
    pub snapshot: Option<DiskSnapshot>,
    /// The watch of the configuration in KV; `None` where none is read.
    pub kv: Option<KvStanding>,
    /// The watch of the tags of all services; `None` where the gateway has no routes from them.
    pub catalog: Option<CatalogStanding>,
}

/// How the watch of the tags of all services stands.
#[derive(Clone, Debug, Serialize)]
pub struct CatalogStanding {
    /// What they begin with.
    pub tag: String,
    /// Whose word it is: `consul`, `snapshot`, or `none` before the first.
    pub source: &'static str,
    /// Consul's index.
    pub index: u64,
    /// Since Consul's last good answer, to whatever process.
    pub age_ms: Option<u64>,
    /// Tags that claim a route, good or not.
    pub claims: usize,
    /// So far.
    pub errors: u64,
    /// The last one, while it lasts.
    pub last_error: Option<String>,
}

/// How the watch of the KV key stands.
#[derive(Clone, Debug, Serialize)]
pub struct KvStanding {
    /// The key.
    pub key: String,
    /// Whose word it is: `consul`, `snapshot`, or `none` before the first.
    pub source: &'static str,
    /// Consul's index.
    pub index: u64,
    /// Of the value; `None`: there is no such key.
    pub modify_index: Option<u64>,
    /// Since Consul's last good answer, to whatever process.
    pub age_ms: Option<u64>,
    /// So far.
    pub errors: u64,
    /// The last one, while it lasts.
    pub last_error: Option<String>,
}

/// How the last good answers on disk are.
#[derive(Clone, Debug, Serialize)]
pub struct DiskSnapshot {
    /// The file.
    pub path: String,
    /// Watches whose endpoints are from it, because Consul has not answered yet.
    pub in_use: usize,
    /// The oldest of those.
    pub age_ms: Option<u64>,
    /// Since it was written, or found to be up to date.
    pub saved_ms: Option<u64>,
    /// Why the one that was there at the start was not used.
    pub refused: Option<String>,
    /// Why it is not written.
    pub last_error: Option<String>,
}

/// How a watch stands.
#[derive(Clone, Debug, Serialize)]
pub struct WatchStanding {
    /// The service.
    pub service: String,
    /// Whether it is a prepared one, tags, filter and datacenter, as asked.
    pub query: String,
    /// Consul's index.
    pub index: u64,
    /// Whose answer it is: `consul`, or `snapshot` for one to an earlier process; `none` before the first.
    pub source: &'static str,
    /// Since the last good answer.
    pub age_ms: Option<u64>,
    /// How far the server that gave it was behind its leader, where it says so.
    pub behind_ms: Option<u64>,
    /// In that answer.
    pub instances: usize,
    /// So far.
    pub errors: u64,
    /// The last one, while it lasts.
    pub last_error: Option<String>,
}

/// How our own registration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationState {
    /// None is wanted.
    #[default]
    Off,
    /// Not there yet.
    Registering,
    /// There.
    Registered,
    /// There, but some check fails.
    Critical,
    /// There, but taken out.
    Maintenance,
    /// Gone, as we wanted.
    Deregistered,
}

impl RegistrationState {
    /// All of them, for labels.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Registering, Self::Registered, Self::Critical, Self::Maintenance, Self::Deregistered];

    pub(super) fn is_there(self) -> bool {
        matches!(self, Self::Registered | Self::Critical | Self::Maintenance)
    }

    /// The word for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
            Self::Deregistered => "deregistered",
        }
    }
}
