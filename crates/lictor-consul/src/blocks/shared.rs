//! One watch for all who look at the same, while anybody looks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as channel};
use tokio::task::AbortHandle;

use crate::watch::{Asked, KnownWatch};

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
    _watched: Arc<Watched<V>>,
    _place: OwnedSemaphorePermit,
}

/// A watch; it ends with the last who looks.
#[derive(Debug)]
struct Watched<V> {
    known: channel::Sender<Option<V>>,
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

    /// One more; `None` when there are enough. The watch is made for the first.
    pub(super) fn look<K, V, A>(
        &self,
        shared: &Shared<K, V>,
        at: K,
        watch: impl FnOnce(channel::Sender<Option<V>>) -> KnownWatch<A>,
    ) -> Option<Looking<V>>
    where
        K: Eq + Hash,
        V: Clone + Send + Sync + 'static,
        A: Asked<Known = V> + Send + Sync + 'static,
    {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let mut all = shared.0.lock();
        let watched = all.get(&at).and_then(Weak::upgrade).unwrap_or_else(|| {
            all.retain(|_, watched| watched.strong_count() > 0);
            let known = channel::Sender::new(None);
            let task = tokio::spawn(watch(known.clone()).run()).abort_handle();
            let watched = Arc::new(Watched { known, task });
            all.insert(at, Arc::downgrade(&watched));
            watched
        });
        let mut known = watched.known.subscribe();
        known.mark_changed(); // what is known already is news to whoever has just come
        Some(Looking { known, _watched: watched, _place: place })
    }
}

impl<V: Clone> Looking<V> {
    /// What is known, once something is, and then whenever it is something else.
    pub async fn next(&mut self) -> V {
        loop {
            self.known.changed().await.expect("the watch is ours while we look");
            if let Some(known) = self.known.borrow_and_update().clone() {
                return known;
            }
        }
    }
}
