//! The sagas that this process works on: which, how many, and how far each is for whoever waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use lictor_core::saga::Saga;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// Begun here, at a time.
const OWN: usize = 16;
/// Of others, at a time.
const OTHERS: usize = 8;

/// Those of this process.
#[derive(Debug)]
pub(crate) struct Sagas {
    at_work: Mutex<HashMap<String, watch::Sender<Stage>>>,
    pub(super) own: Arc<Semaphore>,
    pub(super) others: Arc<Semaphore>,
    pub(super) is_leaving: watch::Sender<bool>,
    /// Rings when there is news of any.
    pub(super) news: watch::Sender<usize>,
    /// How many there are of our service, as they were seen last.
    pub(super) seen: Mutex<usize>,
}

/// How far one of this process is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Going,
    Ended(Arc<Saga>),
    /// It is somebody else's, or anybody's.
    Gone,
}

/// One's place among those of this process, until it is dropped.
pub(super) struct Entry {
    sagas: Arc<Sagas>,
    id: String,
    pub(super) stage: watch::Sender<Stage>,
    _place: OwnedSemaphorePermit,
}

impl Default for Sagas {
    fn default() -> Self {
        Self {
            at_work: Mutex::default(),
            own: Arc::new(Semaphore::new(OWN)),
            others: Arc::new(Semaphore::new(OTHERS)),
            is_leaving: watch::Sender::new(false),
            news: watch::Sender::new(0),
            seen: Mutex::default(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sagas.at_work.lock().remove(&self.id);
        self.stage.send_if_modified(|stage| {
            let was_going = matches!(stage, Stage::Going);
            if was_going {
                *stage = Stage::Gone;
            }
            was_going
        });
    }
}

impl Sagas {
    /// Lets calls that are under way end, until then; everything else is for another instance. No more begin.
    pub(crate) async fn leave(&self, until: Instant) {
        self.is_leaving.send_replace(true);
        let all = async {
            let _ = self.own.acquire_many(OWN as u32).await;
            let _ = self.others.acquire_many(OTHERS as u32).await;
        };
        let _ = timeout_at(until, all).await; // what is still called is called again by somebody else
    }

    /// `None`: there is one of this id already.
    pub(super) fn enter(self: &Arc<Self>, id: &str, place: OwnedSemaphorePermit) -> Option<Entry> {
        let stage = watch::Sender::new(Stage::Going);
        let mut at_work = self.at_work.lock();
        if at_work.contains_key(id) {
            return None;
        }
        at_work.insert(id.to_owned(), stage.clone());
        Some(Entry { sagas: Arc::clone(self), id: id.to_owned(), stage, _place: place })
    }

    /// How far it is, while it is one of this process.
    pub(super) fn stage(&self, id: &str) -> Option<watch::Receiver<Stage>> {
        self.at_work.lock().get(id).map(watch::Sender::subscribe)
    }
}
