//! Passwords that were right, and turns for finding it out of others: a hash is made to be slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_core::gateway::remembered::{Digest, Remembered};
use ring::hmac::{Context, HMAC_SHA256, Key};
use ring::rand::SystemRandom;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a right password is known; a reload with another hash finds nothing.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Memory for those that are known, of each worker.
const KNOWN_MAX: usize = 1 << 20;
/// Compared at once, by the process: the rest of it has other things to do.
const AT_ONCE: usize = 2;
/// Who comes when so many wait is not compared at all.
const WAITING_MAX: usize = 64;

/// Of the process.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Nobody outside knows what a password is known by.
    key: Key,
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiting<'t>(&'t Turns);

impl Turns {
    /// `None` when the system has no random numbers.
    pub(crate) fn new() -> Option<Self> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { free: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0), key })
    }

    /// What this is known by: all of it.
    pub(crate) fn digest(&self, name: &str, password: &str, hash: &str) -> Digest {
        let mut context = Context::with_key(&self.key);
        for part in [name, password, hash] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// A place among those who wait, if there is one.
    pub(crate) fn queue(&self) -> Option<Waiting<'_>> {
        if self.waiting.fetch_add(1, Relaxed) < WAITING_MAX {
            return Some(Waiting(self));
        }
        self.waiting.fetch_sub(1, Relaxed);
        None
    }
}

impl Waiting<'_> {
    /// A turn; it lasts until it is dropped, which is for whoever computes: a client that goes away ends no computing.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.free).acquire_owned().await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// One worker's.
#[derive(Debug)]
pub(crate) struct Passwords(Remembered<()>);

impl Default for Passwords {
    fn default() -> Self {
        Self(Remembered::new(KNOWN_MAX))
    }
}

impl Passwords {
    pub(crate) fn has(&mut self, digest: &Digest, now: Instant) -> bool {
        self.0.get(digest, now).is_some()
    }

    pub(crate) fn keep(&mut self, digest: Digest, now: Instant) {
        self.0.keep(digest, (), 0, now + KNOWN_FOR);
    }
}
