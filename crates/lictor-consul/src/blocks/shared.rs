//! One watch for all who look at the same, while anybody looks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as channel};
use tokio::task::AbortHandle;

use crate::agent::ConsulError;
use crate::watch::{Asked, KnownWatch};

/// Where it is told that a watch is not answered what it should be, and will not be by waiting.
pub(super) type Failed = channel::Sender<Option<ConsulError>>;

/// The watches, by what is looked at.
#[derive(Debug)]
pub(super) struct Shared<K, V>(Mutex<HashMap<K, Weak<Watched<V>>>>);

/// How many may look.
#[derive(Debug)]
pub(super) struct Lookers(Arc<Semaphore>);

/// One who looks, until it is dropped.
#[derive(Debug)]
pub struct Looking<V> {
    known: channel::Receiver<Option<V>>,
    failed: channel::Receiver<Option<ConsulError>>,
    _watched: Arc<Watched<V>>,
    _place: OwnedSemaphorePermit,
}

/// A watch; it ends with the last who looks.
#[derive(Debug)]
struct Watched<V> {
    known: channel::Sender<Option<V>>,
    failed: Failed,
    task: AbortHandle,
}

impl<V> Drop for Watched<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Lookers {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// One more; `None` when there are enough. The watch is made for the first, and after one that has failed.
    pub(super) fn look<K, V, A>(
        &self,
        shared: &Shared<K, V>,
        at: K,
        watch: impl FnOnce(channel::Sender<Option<V>>, Failed) -> KnownWatch<A>,
    ) -> Option<Looking<V>>
    where
        K: Eq + Hash,
        V: Clone + Send + Sync + 'static,
        A: Asked<Known = V> + Send + Sync + 'static,
    {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let mut all = shared.0.lock();
        let watched = all.get(&at).and_then(Weak::upgrade).filter(|watched| watched.failed.borrow().is_none());
        let watched = watched.unwrap_or_else(|| {
            all.retain(|_, watched| watched.strong_count() > 0);
            let (known, failed) = (channel::Sender::new(None), channel::Sender::new(None));
            let task = tokio::spawn(watch(known.clone(), failed.clone()).run()).abort_handle();
            let watched = Arc::new(Watched { known, failed, task });
            all.insert(at, Arc::downgrade(&watched));
            watched
        });
        let mut known = watched.known.subscribe();
        known.mark_changed(); // what is known already is news to whoever has just come
        Some(Looking { known, failed: watched.failed.subscribe(), _watched: watched, _place: place })
    }
}

impl<V: Clone> Looking<V> {
    /// What is known, once something is, and then whenever it is something else. While Consul is away nothing comes; an error
    /// is one that stays until somebody changes something.
    pub async fn next(&mut self) -> Result<V, ConsulError> {
        loop {
            tokio::select! {
                biased;
                failed = self.failed.changed() => failed.expect("the watch is ours while we look"),
                changed = self.known.changed() => changed.expect("the watch is ours while we look"),
            }
            // An error is told before what is known beside it.
            if let Some(error) = self.failed.borrow().clone() {
                return Err(error);
            }
            if let Some(known) = self.known.borrow_and_update().clone() {
                return Ok(known);
            }
        }
    }
}

/// Tells of an error, if it is none that Consul gets over.
pub(super) fn tell(failed: &Failed, error: &ConsulError) {
    if !error.is_outage() {
        failed.send_replace(Some(error.clone()));
    }
}
