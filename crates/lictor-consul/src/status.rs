//! What the control plane knows of itself, for pages, health and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use lictor_config::Query;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{info, warn};

use crate::client::ConsulError;

/// The live state.
#[derive(Debug)]
pub struct Status {
    connections: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    address: Option<String>,
    is_up: Option<bool>,
    watches: BTreeMap<Query, WatchState>,
    registration: RegistrationState,
    registration_error: Option<String>,
    reregistrations: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct WatchState {
    index: u64,
    answered: Option<Instant>,
    instances: usize,
    errors: u64,
    last_error: Option<String>,
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
    /// There, but taken out.
    Maintenance,
    /// Gone, as we wanted.
    Deregistered,
}

impl RegistrationState {
    /// The word for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Maintenance => "maintenance",
            Self::Deregistered => "deregistered",
        }
    }
}

/// A copy of the state.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The agent's address; `None` without Consul.
    pub address: Option<String>,
    /// Whether the last call went well; `None` before the first.
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
    /// One each distinct query.
    pub watches: Vec<WatchSnapshot>,
}

/// A copy of a watch's state.
#[derive(Clone, Debug, Serialize)]
pub struct WatchSnapshot {
    /// The service.
    pub service: String,
    /// Tags, filter, near and datacenter, as asked.
    pub query: String,
    /// Consul's index.
    pub index: u64,
    /// Since the last good answer.
    pub age_ms: Option<u64>,
    /// In that answer.
    pub instances: usize,
    /// So far.
    pub errors: u64,
    /// The last one, while it lasts.
    pub last_error: Option<String>,
}

impl Status {
    pub(crate) fn new(address: Option<String>, wants_registration: bool) -> Arc<Self> {
        let registration = if wants_registration { RegistrationState::Registering } else { RegistrationState::Off };
        let state = State { address, registration, ..State::default() };
        Arc::new(Self { connections: Arc::default(), state: Mutex::new(state) })
    }

    /// Now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let watches = state.watches.iter().map(|(query, watch)| WatchSnapshot {
            service: query.service.clone(),
            query: describe(query),
            index: watch.index,
            age_ms: watch.answered.map(|at| at.elapsed().as_millis() as u64),
            instances: watch.instances,
            errors: watch.errors,
            last_error: watch.last_error.clone(),
        });
        Snapshot {
            address: state.address.clone(),
            up: state.is_up,
            connections: self.connections.load(Relaxed),
            registration: state.registration,
            registration_error: state.registration_error.clone(),
            reregistrations: state.reregistrations.clone(),
            errors: state.errors.clone(),
            watches: watches.collect(),
        }
    }

    pub(crate) fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    pub(crate) fn answered(&self, query: &Query, index: u64, instances: usize) {
        let mut state = self.state.lock();
        state.up();
        let watch = state.watches.entry(query.clone()).or_default();
        *watch =
            WatchState { index, answered: Some(Instant::now()), instances, errors: watch.errors, last_error: None };
    }

    pub(crate) fn failed(&self, query: &Query, error: &ConsulError) {
        let mut state = self.state.lock();
        state.down(error);
        let watch = state.watches.entry(query.clone()).or_default();
        watch.errors += 1;
        watch.last_error = Some(error.to_string());
    }

    pub(crate) fn forget(&self, query: &Query) {
        self.state.lock().watches.remove(query);
    }

    pub(crate) fn registration(&self, registration: RegistrationState) {
        let mut state = self.state.lock();
        if !matches!(registration, RegistrationState::Registering) {
            state.up();
        }
        state.registration = registration;
        state.registration_error = None;
    }

    pub(crate) fn registration_failed(&self, error: &ConsulError) {
        let mut state = self.state.lock();
        state.down(error);
        state.registration_error = Some(error.to_string());
    }

    pub(crate) fn reregistered(&self, cause: &'static str) {
        *self.state.lock().reregistrations.entry(cause).or_default() += 1;
    }
}

impl State {
    fn up(&mut self) {
        if self.is_up == Some(false) {
            info!(target: "lictor::event", kind = "consul_back", "Consul answers again");
        }
        self.is_up = Some(true);
    }

    fn down(&mut self, error: &ConsulError) {
        *self.errors.entry(error.kind()).or_default() += 1;
        if self.is_up != Some(false) {
            warn!(target: "lictor::event", kind = "consul_lost", %error, "Consul does not answer; the last endpoints stay in use");
        }
        self.is_up = Some(false);
    }
}

fn describe(query: &Query) -> String {
    let mut parts: Vec<String> = query.tags.iter().map(|tag| format!("tag={tag}")).collect();
    parts.extend(query.filter.iter().map(|filter| format!("filter={filter}")));
    parts.extend(query.near.iter().map(|near| format!("near={near}")));
    parts.extend(query.datacenter.iter().map(|datacenter| format!("dc={datacenter}")));
    parts.join("&")
}
