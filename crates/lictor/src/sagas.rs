//! Sagas at work: those that the application has begun here, and those that another instance of our service has left.
//!
//! Each is a task that writes what comes next into KV, calls, and writes what became of it. What it writes it has by a session; when
//! that is lost, or this process ends, whoever sees the key without a holder goes on with it. `lictor_core::saga` says what comes next.

mod call;
mod table;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_config::Config;
use lictor_consul::{Blocks, ConsulError, SagaHeld, SagaSighted, SagaWatch};
use lictor_core::mesh::Protocol;
use lictor_core::saga::{Plan, Saga, Status};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

pub(crate) use self::table::Sagas;
use self::table::{Entry, Stage};
use crate::admin::Admin;

/// Whoever asks within this for what has ended is told; then it may be deleted.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Of a service; what has ended first is deleted first. None is begun where there are so many again that have not.
const KEPT_MOST: usize = 1000;
/// Deleted in one turn.
const REMOVED_AT_ONCE: usize = 50;
/// Between two looks at what others have left.
const TURN: Duration = Duration::from_secs(1);
/// Of keys that are told of once.
const TOLD_MOST: usize = 1000;

/// Why one is not begun.
#[derive(Debug)]
pub(crate) enum NoSaga {
    /// There is one of this id with other steps.
    Other,
    /// This process has enough of them, or our service.
    TooMany(&'static str),
    /// This process ends.
    Stopping,
    /// It is not for people to go on with.
    NotManual(Box<Saga>),
    /// There is none.
    Missing,
    /// What is kept is none.
    Unreadable(String),
    /// Consul's word.
    Consul(ConsulError),
}

impl From<ConsulError> for NoSaga {
    fn from(error: ConsulError) -> Self {
        Self::Consul(error)
    }
}

/// Where the sagas of our service are; `None`: the block is off.
pub(crate) fn folder(config: &Config) -> Option<String> {
    let service = config.service.as_ref().filter(|_| config.building_blocks.saga)?;
    Some(format!("{}{service}/", config.building_blocks.saga_prefix))
}

/// Why a service cannot be called by a step, in words.
pub(crate) fn check_service(admin: &Admin, service: &str) -> Result<(), String> {
    let loaded = Arc::clone(&admin.loaded.read());
    let Some(upstream) = loaded.config.upstreams.iter().find(|upstream| upstream.name == service) else {
        return Err(format!("`{service}` is no upstream of this sidecar: `upstreams` names those that it calls"));
    };
    if upstream.protocol == Some(Protocol::Tcp) {
        return Err(format!("`{service}` is an upstream of bytes (`protocol: tcp`), and steps are calls of HTTP"));
    }
    match admin.plane.way_to(service) {
        Some(_) => Ok(()),
        None => Err(format!(
            "`{service}` has no `listen` without TLS here, and there is no `outbound.proxy`: a step could not be called"
        )),
    }
}

/// Begins it, or finds it begun, or ended.
pub(crate) async fn begin(admin: &Arc<Admin>, blocks: &Blocks, id: &str, plan: Plan) -> Result<(), NoSaga> {
    let key = format!("{}{id}", folder(&admin.loaded.read().config).unwrap_or_default());
    if let Some(known) = blocks.sagas().read(&key).await? {
        return same(&known.value, &plan);
    }
    let place = place(admin)?;
    let Some(entry) = admin.sagas.enter(id, place) else {
        return Ok(()); // it is just being begun; whoever waits for it is told
    };
    let saga = Saga::new(id.to_owned(), plan.clone(), now_ms());
    match blocks.sagas().make(key.clone(), &saga.kept()).await? {
        Some(held) => {
            tokio::spawn(drive(Arc::clone(admin), held, saga, entry));
            Ok(())
        }
        None => {
            drop(entry);
            let known = blocks.sagas().read(&key).await?.ok_or(NoSaga::Missing)?;
            same(&known.value, &plan)
        }
    }
}

/// Tries the rest of one again that people have looked at.
pub(crate) async fn again(admin: &Arc<Admin>, blocks: &Blocks, id: &str) -> Result<(), NoSaga> {
    let key = format!("{}{id}", folder(&admin.loaded.read().config).unwrap_or_default());
    let known = blocks.sagas().read(&key).await?.ok_or(NoSaga::Missing)?;
    let mut saga = Saga::read(&known.value).map_err(NoSaga::Unreadable)?;
    if !saga.again(now_ms()) {
        return Err(NoSaga::NotManual(Box::new(saga)));
    }
    let Some(entry) = admin.sagas.enter(id, place(admin)?) else { return Ok(()) };
    // Where somebody else has been faster, what he does is waited for.
    if let Some(held) = blocks.sagas().take(key, known.index, &saga.kept()).await? {
        tokio::spawn(drive(Arc::clone(admin), held, saga, entry));
    }
    Ok(())
}

/// How it is once it has ended, or then; `None`: there is none.
pub(crate) async fn outcome(admin: &Admin, blocks: &Blocks, id: &str, until: Instant) -> Result<Option<Saga>, NoSaga> {
    let key = format!("{}{id}", folder(&admin.loaded.read().config).unwrap_or_default());
    if let Some(mut stage) = admin.sagas.stage(id) {
        let over = timeout_at(until, stage.wait_for(|stage| !matches!(stage, Stage::Going))).await;
        if let Ok(Ok(stage)) = over
            && let Stage::Ended(saga) = &*stage
        {
            return Ok(Some(Saga::clone(saga)));
        }
    }
    let mut news = admin.sagas.news.subscribe();
    loop {
        let known = blocks.sagas().read(&key).await;
        match known {
            Ok(None) => return Ok(None),
            Ok(Some(known)) => {
                let saga = Saga::read(&known.value).map_err(NoSaga::Unreadable)?;
                if saga.status().is_ended() || Instant::now() >= until {
                    return Ok(Some(saga));
                }
            }
            // It goes on, here or elsewhere, whatever becomes of Consul.
            Err(error) if !error.is_outage() || Instant::now() >= until => return Err(error.into()),
            Err(_) => (),
        }
        tokio::select! {
            _ = news.changed() => sleep(TURN / 10).await,
            () = sleep_until(until.min(Instant::now() + 5 * TURN)) => (),
        }
    }
}

fn same(kept: &[u8], plan: &Plan) -> Result<(), NoSaga> {
    let saga = Saga::read(kept).map_err(NoSaga::Unreadable)?;
    if saga.is_of(plan) { Ok(()) } else { Err(NoSaga::Other) }
}

fn place(admin: &Admin) -> Result<OwnedSemaphorePermit, NoSaga> {
    let sagas = &admin.sagas;
    if *sagas.is_leaving.borrow() {
        return Err(NoSaga::Stopping);
    }
    if *sagas.seen.lock() >= 2 * KEPT_MOST {
        return Err(NoSaga::TooMany("there are too many sagas of this service that have not ended well"));
    }
    let place = Arc::clone(&sagas.own).try_acquire_owned();
    place.map_err(|_| NoSaga::TooMany("this sidecar works on as many sagas as it may"))
}

/// Does what comes next, until nothing does, it is not ours any more, or this process leaves.
async fn drive(admin: Arc<Admin>, mut held: SagaHeld, mut saga: Saga, entry: Entry) {
    let Some(blocks) = admin.handle.blocks() else { return };
    let sagas = blocks.sagas();
    let mut leaving = admin.sagas.is_leaving.subscribe();
    while let Some(action) = saga.next() {
        let is_repeat = saga.is_repeat();
        if *leaving.borrow_and_update() {
            sagas.give_up(held, &saga.kept()).await;
            info!(target: "lictor::event", kind = "saga_left", id = saga.id(), "another instance goes on with a saga, or this one after its restart");
            return;
        }
        if !is_repeat {
            saga.begin(now_ms());
            if !sagas.write(&mut held, &saga.kept()).await {
                return;
            }
        }
        if !held.is_ours() {
            return;
        }
        let Some(call) = saga.call(action) else { return };
        if let Some(heard) = call::until_heard(&admin, &call, is_repeat, &mut leaving, || held.is_ours()).await {
            saga.heard(action, heard, now_ms());
        }
    }
    if sagas.give_up(held, &saga.kept()).await {
        tell(&saga);
        admin.scrape.saga_ended(saga.status().as_str());
        entry.stage.send_replace(Stage::Ended(Arc::new(saga)));
    }
}

fn tell(saga: &Saga) {
    let (id, status, reason) = (saga.id(), saga.status().as_str(), saga.reason().unwrap_or_default());
    match saga.status() {
        Status::Manual => {
            let remaining = saga.remaining().join(", ");
            warn!(target: "lictor::event", kind = "saga_ended", id, status, reason, remaining, "a compensation has failed: somebody has to look, then POST /v1/saga/ID/again");
        }
        Status::Failed => {
            warn!(target: "lictor::event", kind = "saga_ended", id, status, reason, "a saga has failed, and what was done is undone");
        }
        Status::Running | Status::Compensating | Status::Completed => {
            info!(target: "lictor::event", kind = "saga_ended", id, status, "a saga is completed");
        }
    }
}

/// Looks for what others have left, and deletes what has ended long ago, for as long as the block is on.
pub(crate) async fn run(admin: Arc<Admin>) {
    let Some(blocks) = admin.handle.blocks() else { return };
    let mut watch: Option<(String, SagaWatch)> = None;
    let (mut told, mut reloads) = (HashSet::new(), admin.reloads());
    while !admin.is_stopping() && !*admin.sagas.is_leaving.borrow() {
        let wanted = folder(&admin.loaded.read().config);
        if watch.as_ref().map(|(folder, _)| folder) != wanted.as_ref() {
            watch = wanted.map(|folder| (folder.clone(), blocks.sagas().watch(&folder)));
        }
        let Some((folder, watch)) = &watch else {
            let _ = reloads.changed().await; // the sender is in `admin`
            continue;
        };
        let mut known = watch.known();
        let seen = known.borrow_and_update().clone();
        if let Some(seen) = seen
            && admin.has_started()
        {
            sweep(&admin, blocks, folder, &seen, &mut told).await;
        }
        admin.sagas.news.send_modify(|count| *count = count.wrapping_add(1));
        let _ = timeout(TURN, known.changed()).await; // what could not be taken is tried again
        sleep(TURN / 10).await; // and changes that come together are looked at once
    }
}

async fn sweep(
    admin: &Arc<Admin>,
    blocks: &Blocks,
    folder: &str,
    seen: &[SagaSighted],
    told: &mut HashSet<(String, u64)>,
) {
    *admin.sagas.seen.lock() = seen.len();
    if told.len() > TOLD_MOST {
        told.clear();
    }
    let own = blocks.sagas().own_session().await;
    for sighted in seen.iter().filter(|sighted| !sighted.line.status.is_ended()) {
        let is_free = sighted.session.is_none() || sighted.session == own;
        let is_named = sighted.key.strip_prefix(folder) == Some(&sighted.line.id);
        let is_told = told.contains(&(sighted.key.clone(), sighted.index));
        if !is_free || !is_named || is_told || admin.sagas.stage(&sighted.line.id).is_some() {
            continue;
        }
        let Ok(place) = Arc::clone(&admin.sagas.others).try_acquire_owned() else { break };
        let Some(entry) = admin.sagas.enter(&sighted.line.id, place) else { continue };
        if let Err(why) = take_over(admin, blocks, sighted, entry).await {
            warn!(key = sighted.key, why, "a saga that nobody works on is left to other instances");
            told.insert((sighted.key.clone(), sighted.index));
        }
    }
    for sighted in outdated(seen, now_ms()) {
        let _ = blocks.sagas().remove(&sighted.key, sighted.index).await; // somebody else removes it, or we do next time
    }
}

/// Goes on with what nobody works on. The words are why this instance cannot.
async fn take_over(admin: &Arc<Admin>, blocks: &Blocks, sighted: &SagaSighted, entry: Entry) -> Result<(), String> {
    let sagas = blocks.sagas();
    let Ok(Some(known)) = sagas.read(&sighted.key).await else { return Ok(()) };
    if known.index != sighted.index {
        return Ok(()); // it is seen again as it is now
    }
    let saga = Saga::read(&known.value)?;
    if known.is_held && !saga.is_begun() {
        // Ours, and nobody was told that it was made: Consul has said so too late. Whoever asked may ask again.
        let _ = sagas.remove(&sighted.key, sighted.index).await;
        return Ok(());
    }
    for step in saga.steps() {
        check_service(admin, &step.service)?;
    }
    if let Ok(Some(held)) = sagas.take(sighted.key.clone(), sighted.index, &saga.kept()).await {
        info!(target: "lictor::event", kind = "saga_taken", id = saga.id(), status = saga.status().as_str(), "goes on with a saga that nobody worked on");
        tokio::spawn(drive(Arc::clone(admin), held, saga, entry));
    }
    Ok(())
}

/// What has ended long enough ago, and what is too much. What is for people stays until they have looked.
fn outdated(seen: &[SagaSighted], now_ms: u64) -> Vec<&SagaSighted> {
    let is_over = |sighted: &&SagaSighted| matches!(sighted.line.status, Status::Completed | Status::Failed);
    let mut ended: Vec<&SagaSighted> = seen.iter().filter(is_over).collect();
    ended.sort_by_key(|sighted| sighted.line.changed_ms);
    let surplus = ended.len().saturating_sub(KEPT_MOST);
    let is_old = |sighted: &SagaSighted| now_ms.saturating_sub(sighted.line.changed_ms) > KEPT.as_millis() as u64;
    let gone = ended.into_iter().enumerate().filter(|(index, sighted)| *index < surplus || is_old(sighted));
    gone.map(|(_, sighted)| sighted).take(REMOVED_AT_ONCE).collect()
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use lictor_core::saga::Headline;

    use super::*;

    #[test]
    fn what_has_ended_is_kept_for_a_day_and_so_many_of_it() {
        let day = KEPT.as_millis() as u64;
        let sighted = |number: u64, status| SagaSighted {
            key: format!("sagas/a/{number}"),
            index: number,
            session: None,
            line: Headline { id: number.to_string(), status, changed_ms: number },
        };
        let numbers = |seen: &[SagaSighted], now| -> Vec<u64> {
            outdated(seen, now).into_iter().map(|sighted| sighted.index).collect()
        };
        let few = [
            sighted(5, Status::Completed),
            sighted(6, Status::Failed),
            sighted(1, Status::Manual),
            sighted(2, Status::Running),
            sighted(3, Status::Compensating),
        ];
        assert!(numbers(&few, 5 + day).is_empty());
        assert_eq!(numbers(&few, 6 + day), [5]);
        assert_eq!(numbers(&few, 7 + day), [5, 6]);
        assert!(numbers(&few, 0).is_empty(), "a clock that went back");
        let many: Vec<SagaSighted> = (0..1003).rev().map(|number| sighted(number, Status::Completed)).collect();
        assert_eq!(numbers(&many, 10), [0, 1, 2]);
        assert_eq!(numbers(&many, 10_000 + day).len(), REMOVED_AT_ONCE);
    }
}
