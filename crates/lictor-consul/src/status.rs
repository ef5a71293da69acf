//! What the control plane knows of itself, for pages, health and metrics.

mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_config::Query;
use parking_lot::Mutex;
use tracing::{info, warn};

pub use self::standing::{CatalogStanding, DiskSnapshot, KvStanding, RegistrationState, Standing, WatchStanding};
use crate::agent::ConsulError;
use crate::memory::{Remembered, RememberedClaims, RememberedKv, now_ms};

/// The live state.
#[derive(Debug)]
pub struct Status {
    connections: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    address: Option<String>,
    version: Option<String>,
    is_up: Option<bool>,
    watches: BTreeMap<Query, WatchState>,
    registration: RegistrationState,
    registering: Line,
    reregistrations: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
    refreshes: u64,
    snapshot: Option<SnapshotState>,
    kv: Option<KvState>,
    /// The watch of the tags of all services, by what they begin with; its instances are claims.
    catalog: Option<(String, WatchState)>,
}

/// The watch of the KV key.
#[derive(Debug, Default)]
struct KvState {
    key: String,
    source: Line,
    index: u64,
    modify_index: Option<u64>,
    /// Until Consul says something itself: how old the word of an earlier process was, and when it was looked up.
    remembered: Option<(Duration, Instant)>,
    answered: Option<Instant>,
    at_ms: u64,
    errors: u64,
}

#[derive(Debug, Default)]
struct SnapshotState {
    path: String,
    refused: Option<String>,
    saved: Option<Instant>,
    last_error: Option<String>,
}

#[derive(Debug, Default)]
struct WatchState {
    /// Until Consul says something itself: how old the answer of an earlier process was, and when it was looked up.
    remembered: Option<(Duration, Instant)>,
    source: Line,
    index: u64,
    answered: Option<Instant>,
    /// The same by the clock on the wall.
    at_ms: u64,
    behind: Option<Duration>,
    instances: usize,
    errors: u64,
}

/// After so many failures in a row a watch is said to fail although Consul is there.
const FAILING: u32 = 3;

/// How one line to Consul does: a watch, or the registration.
#[derive(Debug, Default)]
struct Line {
    is_used: bool,
    last_error: Option<ConsulError>,
    failures: u32,
    /// The log has it; its end is said too.
    is_told: bool,
}

impl Line {
    /// True when it is well again.
    fn succeed(&mut self) -> bool {
        (self.is_used, self.failures) = (true, 0);
        self.last_error.take().is_some()
    }

    /// True when it is another kind of failure than before.
    fn fail(&mut self, error: &ConsulError) -> bool {
        (self.is_used, self.failures) = (true, self.failures.saturating_add(1));
        let is_new = self.last_error.as_ref().is_none_or(|last| last.kind() != error.kind());
        self.last_error = Some(error.clone());
        is_new
    }

    fn is_out(&self) -> bool {
        self.last_error.as_ref().is_some_and(ConsulError::is_outage)
    }
}

impl Status {
    pub(crate) fn new(address: Option<String>, wants_registration: bool) -> Arc<Self> {
        let registration = if wants_registration { RegistrationState::Registering } else { RegistrationState::Off };
        let state = State { address, registration, ..State::default() };
        Arc::new(Self { connections: Arc::default(), state: Mutex::new(state) })
    }

    /// A copy of it all, as it is now.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        let watches = state.watches.iter().map(|(query, watch)| WatchStanding {
            service: query.service.clone(),
            query: describe(query),
            index: watch.index,
            source: source(watch.remembered, watch.answered),
            age_ms: watch.age().map(|age| age.as_millis() as u64),
            behind_ms: watch.behind.map(|behind| behind.as_millis() as u64),
            instances: watch.instances,
            errors: watch.errors,
            last_error: watch.source.last_error.as_ref().map(ToString::to_string),
        });
        Standing {
            address: state.address.clone(),
            version: state.version.clone(),
            up: state.is_up,
            connections: self.connections.load(Relaxed),
            registration: state.registration,
            registration_error: state.registering.last_error.as_ref().map(ToString::to_string),
            reregistrations: state.reregistrations.clone(),
            errors: state.errors.clone(),
            refreshes: state.refreshes,
            watches: watches.collect(),
            snapshot: state.snapshot.as_ref().map(|snapshot| DiskSnapshot {
                path: snapshot.path.clone(),
                in_use: state.watches.values().filter(|watch| watch.remembered.is_some()).count(),
                age_ms: state.snapshot_age().map(|age| age.as_millis() as u64),
                saved_ms: snapshot.saved.map(|at| at.elapsed().as_millis() as u64),
                refused: snapshot.refused.clone(),
                last_error: snapshot.last_error.clone(),
            }),
            kv: state.kv.as_ref().map(|kv| KvStanding {
                key: kv.key.clone(),
                source: source(kv.remembered, kv.answered),
                index: kv.index,
                modify_index: kv.modify_index,
                age_ms: age(kv.remembered, kv.answered).map(|age| age.as_millis() as u64),
                errors: kv.errors,
                last_error: kv.source.last_error.as_ref().map(ToString::to_string),
            }),
            catalog: state.catalog.as_ref().map(|(tag, watch)| CatalogStanding {
                tag: tag.clone(),
                source: source(watch.remembered, watch.answered),
                index: watch.index,
                age_ms: watch.age().map(|age| age.as_millis() as u64),
                claims: watch.instances,
                errors: watch.errors,
                last_error: watch.source.last_error.as_ref().map(ToString::to_string),
            }),
        }
    }

    pub(crate) fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    pub(crate) fn identified(&self, version: Option<String>) {
        self.state.lock().version = version;
    }

    pub(crate) fn answered(&self, query: &Query, index: u64, instances: usize, behind: Option<Duration>) {
        let mut state = self.state.lock();
        let watch = state.watches.entry(query.clone()).or_default();
        watch.source.succeed();
        if std::mem::take(&mut watch.source.is_told) {
            info!(target: "lictor::event", kind = "watch_well", service = %query.service, "the query is answered again");
        }
        (watch.index, watch.instances, watch.behind) = (index, instances, behind);
        (watch.answered, watch.at_ms) = (Some(Instant::now()), now_ms());
        state.settle();
    }

    pub(crate) fn failed(&self, query: &Query, error: &ConsulError) {
        let mut state = self.state.lock();
        *state.errors.entry(error.kind()).or_default() += 1;
        let watch = state.watches.entry(query.clone()).or_default();
        watch.errors += 1;
        let is_new = watch.source.fail(error);
        if is_new && !error.is_outage() && !watch.source.is_told {
            watch.source.is_told = true;
            warn!(target: "lictor::event", kind = "watch_refused", service = %query.service, %error, "Consul refuses a query; the last endpoints stay in use");
        }
        state.settle();
        let is_there = state.is_up == Some(true);
        if let Some(watch) = state.watches.get_mut(query)
            && is_there
            && !watch.source.is_told
            && watch.source.failures >= FAILING
        {
            watch.source.is_told = true;
            warn!(target: "lictor::event", kind = "watch_failing", service = %query.service, %error, "a query fails again and again; the last endpoints stay in use");
        }
    }

    /// A query was asked anew because connections to its endpoints fail.
    pub(crate) fn refreshed(&self) {
        self.state.lock().refreshes += 1;
    }

    pub(crate) fn forget(&self, query: &Query) {
        let mut state = self.state.lock();
        state.watches.remove(query);
    }

    /// A KV key is watched; an earlier process knew this value of it.
    pub(crate) fn watches_kv(&self, key: &str, known: Option<&RememberedKv>) {
        let modify_index = known.and_then(|kv| kv.known.as_ref()).map(|entry| entry.modify_index);
        let remembered = known.map(|kv| (kv.age(), Instant::now()));
        self.state.lock().kv = Some(KvState { key: key.to_owned(), modify_index, remembered, ..KvState::default() });
    }

    pub(crate) fn kv_answered(&self, index: u64, modify_index: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(kv) = &mut state.kv {
            kv.source.succeed();
            (kv.index, kv.modify_index) = (index, modify_index);
            (kv.remembered, kv.answered, kv.at_ms) = (None, Some(Instant::now()), now_ms());
        }
        state.settle();
    }

    pub(crate) fn kv_failed(&self, error: &ConsulError) {
        let mut state = self.state.lock();
        *state.errors.entry(error.kind()).or_default() += 1;
        if let Some(kv) = &mut state.kv {
            kv.errors += 1;
            if kv.source.fail(error) && !error.is_outage() {
                let key = &kv.key;
                warn!(target: "lictor::event", kind = "kv_refused", key, %error, "Consul refuses the KV query; the configuration stays as it is");
            }
        }
        state.settle();
    }

    /// When Consul last said something of the KV key, in milliseconds since the epoch.
    pub(crate) fn kv_answered_at(&self) -> Option<u64> {
        let state = self.state.lock();
        let kv = state.kv.as_ref()?;
        kv.answered.map(|_| kv.at_ms)
    }

    /// The tags of all services are watched; an earlier process knew these claims.
    pub(crate) fn watches_catalog(&self, tag: &str, known: Option<&RememberedClaims>) {
        let remembered = known.map(|known| (known.age(), Instant::now()));
        let instances = known.map_or(0, |known| known.claims.list.len());
        let watch = WatchState { remembered, instances, ..WatchState::default() };
        self.state.lock().catalog = Some((tag.to_owned(), watch));
    }

    pub(crate) fn forget_catalog(&self) {
        self.state.lock().catalog = None;
    }

    pub(crate) fn catalog_answered(&self, index: u64, claims: usize) {
        let mut state = self.state.lock();
        if let Some((_, watch)) = &mut state.catalog {
            watch.source.succeed();
            (watch.index, watch.instances, watch.remembered) = (index, claims, None);
            (watch.answered, watch.at_ms) = (Some(Instant::now()), now_ms());
        }
        state.settle();
    }

    pub(crate) fn catalog_failed(&self, error: &ConsulError) {
        let mut state = self.state.lock();
        *state.errors.entry(error.kind()).or_default() += 1;
        if let Some((_, watch)) = &mut state.catalog {
            watch.errors += 1;
            if watch.source.fail(error) && !error.is_outage() {
                warn!(target: "lictor::event", kind = "catalog_refused", %error, "Consul refuses the list of services; the routes that they claim stay as they are");
            }
        }
        state.settle();
    }

    /// When Consul last said something of it to this process, in milliseconds since the epoch.
    pub(crate) fn catalog_answered_at(&self) -> Option<u64> {
        let state = self.state.lock();
        let (_, watch) = state.catalog.as_ref()?;
        watch.answered.map(|_| watch.at_ms)
    }

    /// Answers are kept on disk, at this path; why those that were there are not used.
    pub(crate) fn keeps(&self, path: String, refused: Option<String>) {
        self.state.lock().snapshot = Some(SnapshotState { path, refused, ..SnapshotState::default() });
    }

    /// A watch's endpoints are from the snapshot.
    pub(crate) fn recalled(&self, known: &Remembered) {
        let mut state = self.state.lock();
        let watch = state.watches.entry(known.query.clone()).or_default();
        watch.remembered = Some((known.age(), Instant::now()));
        (watch.index, watch.instances) = (known.index, known.instances.len());
    }

    /// They are Consul's now.
    pub(crate) fn replaced(&self, query: &Query) {
        let mut state = self.state.lock();
        let watch = state.watches.get_mut(query).and_then(|watch| watch.remembered.take());
        if watch.is_some() && state.snapshot_age().is_none() {
            info!(target: "lictor::event", kind = "snapshot_replaced", "Consul has answered; no endpoint is from the snapshot any more");
        }
    }

    /// The oldest answer that is in use from the snapshot.
    pub(crate) fn snapshot_age(&self) -> Option<Duration> {
        self.state.lock().snapshot_age()
    }

    /// Consul's last answer to this process: its index, and when it came, in milliseconds since the epoch.
    pub(crate) fn last_answer(&self, query: &Query) -> Option<(u64, u64)> {
        let state = self.state.lock();
        let watch = state.watches.get(query)?;
        watch.answered.map(|_| (watch.index, watch.at_ms))
    }

    pub(crate) fn saved(&self) {
        if let Some(snapshot) = &mut self.state.lock().snapshot {
            (snapshot.saved, snapshot.last_error) = (Some(Instant::now()), None);
        }
    }

    /// True when it could be written before.
    pub(crate) fn unsaved(&self, error: &str) -> bool {
        let mut state = self.state.lock();
        let last = state.snapshot.as_mut().and_then(|snapshot| snapshot.last_error.replace(error.to_owned()));
        last.is_none()
    }

    pub(crate) fn registration(&self, registration: RegistrationState) {
        self.state.lock().registration = registration;
    }

    /// What the agent says of our checks; it does not change whether we are registered.
    pub(crate) fn checked(&self, seen: RegistrationState) {
        let mut state = self.state.lock();
        if state.registration.is_there() {
            state.registration = seen;
        }
    }

    pub(crate) fn registration_well(&self) {
        let mut state = self.state.lock();
        state.registering.succeed();
        state.settle();
    }

    pub(crate) fn registration_failed(&self, error: &ConsulError) {
        let mut state = self.state.lock();
        *state.errors.entry(error.kind()).or_default() += 1;
        let is_new = state.registering.fail(error);
        if is_new && !error.is_outage() {
            warn!(target: "lictor::event", kind = "registration_refused", %error, "Consul refuses the registration; it is tried again");
        }
        state.settle();
    }

    pub(crate) fn reregistered(&self, cause: &'static str) {
        *self.state.lock().reregistrations.entry(cause).or_default() += 1;
    }
}

impl WatchState {
    fn age(&self) -> Option<Duration> {
        age(self.remembered, self.answered)
    }
}

/// Whose word it is.
fn source(remembered: Option<(Duration, Instant)>, answered: Option<Instant>) -> &'static str {
    match (remembered, answered) {
        (Some(_), _) => "snapshot",
        (None, Some(_)) => "consul",
        (None, None) => "none",
    }
}

fn age(remembered: Option<(Duration, Instant)>, answered: Option<Instant>) -> Option<Duration> {
    match remembered {
        Some((age, since)) => Some(age + since.elapsed()),
        None => answered.map(|at| at.elapsed()),
    }
}

impl State {
    fn snapshot_age(&self) -> Option<Duration> {
        self.watches.values().filter(|watch| watch.remembered.is_some()).filter_map(WatchState::age).max()
    }

    /// Consul is lost when nothing that we ask of it works, and back when something does.
    fn settle(&mut self) {
        let kv = self.kv.as_ref().map(|kv| &kv.source);
        let watches =
            || self.watches.values().chain(self.catalog.as_ref().map(|(_, watch)| watch)).map(|watch| &watch.source);
        let sources = || watches().chain([&self.registering]).chain(kv);
        let is_up = sources().any(|source| source.is_used && !source.is_out());
        if self.is_up == Some(false) && is_up {
            info!(target: "lictor::event", kind = "consul_back", "Consul answers again");
        }
        if self.is_up != Some(false) && !is_up {
            let error = sources().find_map(|source| source.last_error.as_ref()).map(ToString::to_string);
            let error = error.unwrap_or_default();
            warn!(target: "lictor::event", kind = "consul_lost", error, "Consul cannot be asked; the last endpoints stay in use");
        }
        self.is_up = Some(is_up);
    }
}

fn describe(query: &Query) -> String {
    let kind = query.is_prepared.then(|| "prepared".to_owned());
    let mut parts: Vec<String> = kind.into_iter().collect();
    parts.extend(query.tags.iter().map(|tag| format!("tag={tag}")));
    parts.extend(query.filter.iter().map(|filter| format!("filter={filter}")));
    parts.extend(query.datacenter.iter().map(|datacenter| format!("dc={datacenter}")));
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(service: &str) -> Query {
        Query { service: service.to_owned(), ..Query::default() }
    }

    fn up(status: &Status) -> Option<bool> {
        status.standing().up
    }

    #[test]
    fn consul_is_lost_when_nothing_works_and_back_when_something_does() {
        let status = Status::new(None, false);
        let gone = ConsulError::Unreachable("refused".to_owned());
        assert_eq!(up(&status), None);
        status.answered(&query("a"), 1, 0, None);
        status.answered(&query("b"), 1, 0, None);
        status.failed(&query("a"), &gone);
        assert_eq!(up(&status), Some(true), "one connection that broke is not Consul");
        status.failed(&query("b"), &gone);
        assert_eq!(up(&status), Some(false));
        status.answered(&query("b"), 1, 0, None);
        assert_eq!(up(&status), Some(true));
        let standing = status.standing();
        assert_eq!(standing.errors["unreachable"], 2);
        assert!(standing.watches[0].last_error.is_some() && standing.watches[1].last_error.is_none());
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let status = Status::new(None, true);
        status.registration_failed(&ConsulError::Status { code: 403, text: "Permission denied".to_owned() });
        assert_eq!(up(&status), Some(true));
        status.registration_failed(&ConsulError::Status { code: 500, text: "No cluster leader".to_owned() });
        assert_eq!(up(&status), Some(false));
        assert!(status.standing().registration_error.unwrap().contains("No cluster leader"));
    }

    #[test]
    fn checks_do_not_make_it_registered() {
        let status = Status::new(None, true);
        status.checked(RegistrationState::Critical);
        assert_eq!(status.standing().registration, RegistrationState::Registering);
        status.registration(RegistrationState::Registered);
        status.checked(RegistrationState::Critical);
        assert_eq!(status.standing().registration, RegistrationState::Critical);
    }
}
