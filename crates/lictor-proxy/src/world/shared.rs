//! What all workers of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;

use lictor_tls::Credentials;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::stores::awaited::Awaited;
use crate::stores::causes::Causes;
use crate::stores::challenges::Challenges;
use crate::stores::kept::Cache;
use crate::stores::limiter::Limiter;
use crate::stores::metrics::Metrics;
use crate::stores::passwords::Turns;
use crate::stores::reached::Reached;
use crate::stores::recorder::Recorder;
use crate::stores::span::Span;
use crate::stores::spent::Spent;
use crate::stores::tap::Tap;
use crate::stores::tokens::KeyBell;

/// So many answers are compressed at a time: each holds up to 0.5 MiB for it, for as long as its client takes to read.
pub(crate) const CODERS: usize = 256;

/// So much is held of messages that gateways translate to JSON and back: 64 MiB, by KiB.
pub(crate) const MESSAGES_HELD: usize = 64 << 10;

/// What all workers of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Another one for each process, and the same for all its workers.
    pub(crate) number: u64,
    pub(crate) metrics: Metrics,
    pub(crate) access_log: Option<SyncSender<Vec<u8>>>,
    pub(crate) spans: Option<mpsc::Sender<Span>>,
    /// Names that the forward proxy was asked for and that are not watched yet.
    pub(crate) demand: mpsc::UnboundedSender<Arc<str>>,
    /// Set while this sidecar's own service is leaving.
    pub(crate) is_draining: AtomicBool,
    /// Set when this sidecar waits no longer for requests to end.
    pub(crate) is_cut: AtomicBool,
    /// Requests to our own application that came with a trace and are being served.
    pub(crate) traced_inbound: AtomicUsize,
    pub(crate) tls: Credentials,
    pub(crate) challenges: Challenges,
    pub(crate) keys: Arc<KeyBell>,
    /// For passwords that have to be compared.
    pub(crate) passwords: Option<Turns>,
    /// Until when the callers of our application wait.
    pub(crate) awaited: Arc<Awaited>,
    /// Whose children our application's calls may be.
    pub(crate) causes: Arc<Causes>,
    pub(crate) cache: Cache,
    pub(crate) limiter: Limiter,
    /// Places for answers that are being compressed.
    pub(crate) coders: Arc<Semaphore>,
    /// Room for messages that are being translated.
    pub(crate) messages: Arc<Semaphore>,
    /// What was told of Redis.
    pub(crate) redis: Arc<Reached>,
    pub(crate) spent: Spent,
    pub(crate) recorder: Recorder,
    pub(crate) tap: Tap,
    /// Connections of each worker.
    pub(crate) live: Box<[Live]>,
}

impl Shared {
    /// Somebody waits for a connection: idle ones, on any worker, make room.
    pub(crate) fn ask_for_idle(&self) {
        for live in &self.live {
            live.wanted.notify_one();
        }
    }
}

/// One worker's connections; a cache line of its own, because only its worker writes it often.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Live {
    count: AtomicUsize,
    /// Somebody waits for a connection that may be idle here.
    pub(crate) wanted: Notify,
}

impl Live {
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.count.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}
