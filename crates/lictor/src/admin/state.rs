//! What the pages show, and the orders that only the boot sequence can carry out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use lictor_config::Loaded;
use lictor_consul::Handle;
use lictor_core::Mesh;
use lictor_proxy::DataPlane;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use super::live::Live;
use crate::changes::Changes;
use crate::events::Events;
use crate::history::History;
use crate::log::Logs;
use crate::metrics::Scrape;
use crate::sagas::Sagas;

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) handle: Handle,
    pub(crate) plane: DataPlane,
    pub(crate) loaded: RwLock<Arc<Loaded>>,
    pub(crate) scrape: Scrape,
    pub(crate) logs: Logs,
    pub(crate) changes: Changes,
    pub(crate) sagas: Arc<Sagas>,
    pub(crate) history: History,
    pub(super) events: Events,
    pub(super) live: Live,
    /// Egress works: listeners are open and the first endpoints known, or waited for long enough.
    pub(super) is_started: AtomicBool,
    /// Nobody should be sent here.
    pub(super) is_draining: AtomicBool,
    /// For good.
    pub(super) is_stopping: AtomicBool,
    pub(super) orders: mpsc::Sender<Order>,
    reloads: watch::Sender<()>,
    /// When the pages were first there.
    pub(super) since: Instant,
}

/// What only the boot sequence can do.
#[derive(Debug)]
pub(crate) enum Order {
    Reload(oneshot::Sender<Result<(), String>>),
    Quit,
}

impl Admin {
    pub(crate) fn new(
        handle: Handle,
        plane: DataPlane,
        loaded: Loaded,
        scrape: Scrape,
        events: Events,
        logs: Logs,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let loaded = RwLock::new(Arc::new(loaded));
        let [is_started, is_draining, is_stopping] = Default::default();
        let (changes, live, sagas, history) = Default::default();
        Self {
            handle,
            plane,
            loaded,
            scrape,
            logs,
            changes,
            sagas,
            history,
            events,
            live,
            is_started,
            is_draining,
            is_stopping,
            orders,
            reloads: watch::Sender::new(()),
            since: Instant::now(),
        }
    }

    /// This configuration is in force.
    pub(crate) fn adopt(&self, loaded: Loaded) {
        *self.loaded.write() = Arc::new(loaded);
        self.reloads.send_replace(());
    }

    /// Told after each [`Self::adopt`].
    pub(crate) fn reloads(&self) -> watch::Receiver<()> {
        self.reloads.subscribe()
    }

    /// Egress is up.
    pub(crate) fn started(&self) {
        self.is_started.store(true, Relaxed);
    }

    pub(crate) fn has_started(&self) -> bool {
        self.is_started.load(Relaxed)
    }

    /// Out of circulation for good.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
        self.mark_draining(true);
    }

    /// Whether [`Self::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    pub(super) fn mark_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Relaxed);
        self.plane.set_draining(is_draining);
    }

    pub(crate) fn mesh(&self) -> Arc<Mesh> {
        Arc::clone(&self.handle.mesh().borrow())
    }
}
