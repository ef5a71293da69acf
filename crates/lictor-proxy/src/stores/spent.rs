//! Which requests have used up their retries here. When a service's callee fails, the application usually answers 5xx with
//! headers of its own; by the request's id, which it passes on, the inbound side knows that this answer is a failure that
//! was retried already, and tells the caller. Without that each tier adds its own fifth.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lictor_core::balance::hash_bytes;

use super::request_id::RequestId;

/// Hashes of the last ones, each in the one place where it can be: no lock, and what is old is written over. A lost entry
/// costs a retry, as does none of this.
#[derive(Debug)]
pub(crate) struct Spent(Box<[AtomicU64]>);

const PLACES: usize = 4096;

impl Default for Spent {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Spent {
    pub(crate) fn note(&self, id: &RequestId) {
        let (hash, place) = self.place(id);
        place.store(hash, Relaxed);
    }

    pub(crate) fn has(&self, id: &RequestId) -> bool {
        let (hash, place) = self.place(id);
        place.load(Relaxed) == hash
    }

    fn place(&self, id: &RequestId) -> (u64, &AtomicU64) {
        let hash = hash_bytes(id.as_bytes());
        (hash, &self.0[hash as usize % PLACES])
    }
}
