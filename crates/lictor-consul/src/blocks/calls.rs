//! Single calls, on a few connections that are kept.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::agent::{Client, Connection, ConsulError, PATIENCE};
use crate::status::Status;

/// At the same time. An agent has 200 connections for all of a machine.
const CALLS: usize = 8;
/// Connections that stay open for the next ones.
const KEPT: usize = 2;

#[derive(Debug)]
pub(super) struct Calls {
    client: Arc<Client>,
    status: Arc<Status>,
    kept: Mutex<Vec<Connection>>,
    places: Semaphore,
}

/// A place, with a connection. One that is dropped before its answer is there takes its connection with it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) connection: Connection,
    calls: &'a Calls,
    _place: SemaphorePermit<'a>,
}

impl Calls {
    pub(super) fn new(client: &Arc<Client>, status: &Arc<Status>) -> Self {
        let (client, status) = (Arc::clone(client), Arc::clone(status));
        Self { client, status, kept: Mutex::default(), places: Semaphore::new(CALLS) }
    }

    /// Waits for a place as long as for an answer.
    pub(super) async fn place(&self) -> Result<Call<'_>, ConsulError> {
        let place = timeout(PATIENCE, self.places.acquire()).await.map_err(|_| ConsulError::Timeout(PATIENCE))?;
        let place = place.expect("it is never closed");
        let kept = self.kept.lock().pop();
        let connection = kept.unwrap_or_else(|| Connection::new(&self.client, self.status.connections()));
        Ok(Call { connection, calls: self, _place: place })
    }
}

impl Call<'_> {
    /// There is an answer.
    pub(super) fn done(self) {
        let mut kept = self.calls.kept.lock();
        if kept.len() < KEPT {
            kept.push(self.connection);
        }
    }
}
