//! Whether another connection to an endpoint may be opened: `limits.max_connections`, counted for the whole process. Who
//! finds no room waits like a request that finds no place, by the same limits and the same clock.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::deadline::{End, sooner};
use lictor_core::limits::{InFlight, Places, Shed};
use lictor_core::policy::Policy;
use lictor_core::{Address, Failure, Reason};
use tokio::sync::oneshot;

use super::shared::Shared as Process;
use crate::clock::{self, Stage};
use crate::stores::millis::Millis;

/// Who wants a connection.
#[derive(Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) process: &'a Arc<Process>,
    pub(crate) policy: &'a Policy,
    /// Where its upstream's open connections are counted.
    pub(crate) in_flight: &'a Arc<InFlight>,
    /// Nobody waits longer.
    pub(crate) end: Option<End>,
}

/// One endpoint's connections, counted.
#[derive(Debug)]
pub(super) struct Room {
    /// The process's.
    places: Arc<Places>,
    /// This worker's.
    open: Rc<Cell<u32>>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open {
    places: Arc<Places>,
    here: Rc<Cell<u32>>,
    in_flight: Arc<InFlight>,
}

/// What somebody has waited for.
pub(super) enum Come<T> {
    /// One may be opened.
    Room(Open),
    /// This one came back.
    Back(T),
}

impl Room {
    pub(super) fn new(places: Arc<Places>) -> Self {
        Self { places, open: Rc::default() }
    }

    /// This worker's connections.
    pub(super) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Those who wait, on all workers.
    pub(super) fn waiting(&self) -> u32 {
        self.places.waiting()
    }

    /// Whether there is room for one more, as far as can be seen.
    pub(super) fn is_free(&self, max: u32) -> bool {
        self.places.waiting() == 0 && self.places.taken() < max
    }

    /// Whether this worker has more than its share of what is open.
    pub(super) fn is_above_share(&self, workers: usize) -> bool {
        self.open.get() as usize * workers > self.places.taken() as usize
    }

    /// Room for one more, if there is.
    pub(super) fn enter(&self, want: &Want<'_>) -> Option<Open> {
        self.places.enter(want.policy.limits.max_connections).then(|| self.entered(want.in_flight))
    }

    /// Room for one more, or one that comes back meanwhile.
    pub(super) async fn wait<T>(
        &self,
        want: &Want<'_>,
        address: &Address,
        mut back: Option<oneshot::Receiver<T>>,
    ) -> Result<Come<T>, Failure> {
        let limits = &want.policy.limits;
        let max = limits.max_connections;
        let full = |more: &str| {
            let sentence = format!("all {max} connections to {address} are in use (limits.max_connections){more}");
            Failure::new(Reason::Overloaded, sentence).retry_after(Duration::from_secs(1))
        };
        let Some(room) = self.places.queue(max, limits.max_pending, want.policy.priority) else {
            return Err(full(&format!(" and {} requests wait already", limits.max_pending)));
        };
        want.process.ask_for_idle();
        let come = async {
            tokio::select! {
                biased;
                Ok(connection) = returned(&mut back) => Ok(Come::Back(connection)),
                room = room => room.map(|()| Come::Room(self.entered(want.in_flight))),
            }
        };
        let patience = End { at: Instant::now() + limits.pending_timeout, reason: Reason::Overloaded };
        match clock::within(sooner(want.end, Some(patience)), come).await {
            Ok(Ok(come)) => Ok(come),
            Ok(Err(Shed)) => Err(full(", and more important requests wait (routes[].priority)")),
            Err(End { reason: Reason::Overloaded, .. }) => {
                Err(full(&format!("; waited {}", Millis(limits.pending_timeout))))
            }
            Err(end) => {
                let sentence = format!("all {max} connections to {address} were in use until the time was over");
                Err(clock::ran_out(&want.process.metrics, end, Stage::Queue, sentence))
            }
        }
    }

    fn entered(&self, in_flight: &Arc<InFlight>) -> Open {
        self.open.set(self.open.get() + 1);
        in_flight.connected();
        Open { places: Arc::clone(&self.places), here: Rc::clone(&self.open), in_flight: Arc::clone(in_flight) }
    }
}

async fn returned<T>(back: &mut Option<oneshot::Receiver<T>>) -> Result<T, oneshot::error::RecvError> {
    match back {
        Some(back) => back.await,
        None => std::future::pending().await,
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.here.set(self.here.get() - 1);
        self.in_flight.disconnected();
        self.places.leave();
    }
}
