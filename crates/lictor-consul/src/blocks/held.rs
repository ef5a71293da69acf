//! The locks that this process holds, and how many it may.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch as channel};

/// Where it is said whether Consul knows that a lock was given back.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

#[derive(Debug)]
pub(super) struct Holdings {
    /// What others are told of who has a lock.
    pub(super) holder: String,
    places: Arc<Semaphore>,
    most: usize,
    is_closing: channel::Sender<bool>,
    held: Mutex<HashMap<String, Holding>>,
}

/// A lock that is held.
#[derive(Debug)]
struct Holding {
    name: String,
    release: mpsc::Sender<Done>,
}

/// Its entry among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    holdings: Arc<Holdings>,
    owner: String,
    /// Who wants it to be given back.
    pub(super) releases: mpsc::Receiver<Done>,
}

impl Holdings {
    pub(super) fn new(most: usize, holder: String) -> Self {
        let (is_closing, places) = (channel::Sender::new(false), Arc::new(Semaphore::new(most)));
        Self { holder, places, most, is_closing, held: Mutex::default() }
    }

    /// For one more; `None` when there are enough.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(super) fn add(self: &Arc<Self>, name: &str, owner: &str) -> Entry {
        let (release, releases) = mpsc::channel(1);
        self.held.lock().insert(owner.to_owned(), Holding { name: name.to_owned(), release });
        Entry { holdings: Arc::clone(self), owner: owner.to_owned(), releases }
    }

    /// `None`: there is no such lock of this owner, or it is being given back.
    pub(super) async fn release(&self, name: &str, owner: &str) -> Option<Result<(), String>> {
        let (done, is_done) = oneshot::channel();
        let release = self.held.lock().get(owner).filter(|held| held.name == name).map(|held| held.release.clone())?;
        release.try_send(done).ok()?;
        is_done.await.ok()
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Until all have to end.
    pub(super) async fn closing(&self) {
        let _ = self.is_closing.subscribe().wait_for(|is_closing| *is_closing).await;
    }

    /// Ends all, and returns when they have.
    pub(super) async fn close(&self) {
        self.is_closing.send_replace(true);
        let _ = self.places.acquire_many(self.most as u32).await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.holdings.held.lock().remove(&self.owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_owner_gives_a_lock_back_and_only_once() {
        let holdings = Arc::new(Holdings::new(2, "us".to_owned()));
        let mut entry = holdings.add("a", "one");
        assert_eq!(holdings.release("a", "two").await, None);
        assert_eq!(holdings.release("b", "one").await, None);
        let (released, ()) = tokio::join!(holdings.release("a", "one"), async {
            let done = entry.releases.recv().await.unwrap();
            assert_eq!(holdings.release("a", "none").await, None);
            done.send(Ok(())).unwrap();
        });
        assert_eq!(released, Some(Ok(())));
        drop(entry);
        assert_eq!(holdings.release("a", "one").await, None);
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_none_once_it_closes() {
        let holdings = Arc::new(Holdings::new(2, "us".to_owned()));
        let places = [holdings.place(), holdings.place()];
        assert!(places.iter().all(Option::is_some) && holdings.place().is_none());
        let leaving = async {
            holdings.closing().await;
            drop(places);
        };
        tokio::join!(holdings.close(), leaving);
        assert!(holdings.is_closing());
    }
}
