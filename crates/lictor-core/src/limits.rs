//! Requests in flight to one upstream, counted for the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The counters. Who may wait, and for how long, is the caller's business.
#[derive(Debug, Default)]
#[repr(align(64))] // its own cache line: every request writes it
pub struct InFlight {
    running: AtomicU32,
    pending: AtomicU32,
    connections: AtomicU32,
}

impl InFlight {
    /// Takes a place unless `max` are taken. Whoever got one gives it back with [`InFlight::leave`].
    ///
    /// No guard here: a guard would own an `Arc`, and its count would be a second contended write per request.
    pub fn enter(&self, max: u32) -> bool {
        let is_admitted = self.running.fetch_add(1, Relaxed) < max;
        if !is_admitted {
            self.leave();
        }
        is_admitted
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.running.fetch_sub(1, Relaxed);
    }

    /// Joins the waiting unless `max` wait already.
    pub fn wait(self: &Arc<Self>, max: u32) -> Option<PendingPermit> {
        if self.pending.fetch_add(1, Relaxed) >= max {
            self.pending.fetch_sub(1, Relaxed);
            return None;
        }
        Some(PendingPermit(Arc::clone(self)))
    }

    /// Counts a connection for as long as the permit lives.
    pub fn connected(self: &Arc<Self>) -> ConnectionPermit {
        self.connections.fetch_add(1, Relaxed);
        ConnectionPermit(Arc::clone(self))
    }

    /// Requests now running.
    pub fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// Requests now waiting.
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// Connections now open.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }
}

/// A waiting request's place.
#[derive(Debug)]
pub struct PendingPermit(Arc<InFlight>);

impl Drop for PendingPermit {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<InFlight>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
