//! What the workers know of their upstreams, added up.

use std::sync::Arc;
use std::time::Instant;

use lictor_core::Address;
use serde::Serialize;

use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// What the workers know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// By name.
    pub upstreams: Vec<UpstreamReport>,
}

/// One upstream.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub name: Arc<str>,
    /// Mean of the workers', 0 to 1.
    pub retry_budget_remaining: f64,
    /// In the mesh's order.
    pub endpoints: Vec<EndpointReport>,
    #[serde(skip)]
    workers: u32,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointReport {
    /// Consul's service id.
    pub id: Arc<str>,
    /// What is dialled.
    pub address: Address,
    /// Requests now.
    pub in_flight: u32,
    /// EWMA of the time to the response head; the largest of the workers'.
    pub ewma_ms: Option<f64>,
    /// Connections now open.
    pub connections: u32,
    /// Of those, how many wait for a request (HTTP/1.1).
    pub idle_connections: usize,
    /// Time left of its ejection.
    pub ejected_for_ms: Option<u64>,
    /// Ejections so far that still count.
    pub ejections: u32,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// It said that it is stopping.
    pub is_draining: bool,
}

impl Report {
    pub(super) fn of(worker: &Worker) -> Self {
        let view = worker.view();
        let now = Instant::now();
        let mut upstreams: Vec<_> = view.upstreams.values().map(|state| UpstreamReport::of(state, now)).collect();
        upstreams.sort_by(|a, b| a.name.cmp(&b.name));
        Self { upstreams }
    }

    pub(super) fn add(&mut self, part: Self) {
        for upstream in part.upstreams {
            match self.upstreams.iter_mut().find(|known| known.name == upstream.name) {
                Some(known) => known.add(upstream),
                None => self.upstreams.push(upstream),
            }
        }
    }
}

impl UpstreamReport {
    fn of(state: &UpstreamState, now: Instant) -> Self {
        let endpoints = state.endpoints.iter().map(|endpoint| {
            let health = &endpoint.endpoint.health;
            let (connections, idle_connections) = endpoint.pool.counts();
            EndpointReport {
                id: Arc::clone(&endpoint.endpoint.key.id),
                address: endpoint.endpoint.address.clone(),
                in_flight: endpoint.load.in_flight(),
                ewma_ms: endpoint.load.average().map(|ewma| ewma.as_secs_f64() * 1e3),
                connections,
                idle_connections,
                ejected_for_ms: health.ejected_for(now).map(|left| left.as_millis() as u64),
                ejections: health.ejections(),
                consecutive_failures: health.consecutive_failures(),
                is_draining: health.is_draining(now),
            }
        });
        Self {
            name: Arc::clone(&state.upstream.name),
            retry_budget_remaining: state.budget.remaining_ratio(now),
            endpoints: endpoints.collect(),
            workers: 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.workers += 1;
        self.retry_budget_remaining +=
            (other.retry_budget_remaining - self.retry_budget_remaining) / f64::from(self.workers);
        for endpoint in other.endpoints {
            let known =
                self.endpoints.iter_mut().find(|known| known.address == endpoint.address && known.id == endpoint.id);
            if let Some(known) = known {
                known.in_flight += endpoint.in_flight;
                known.connections += endpoint.connections;
                known.idle_connections += endpoint.idle_connections;
                known.ewma_ms = known.ewma_ms.into_iter().chain(endpoint.ewma_ms).reduce(f64::max);
            } else {
                self.endpoints.push(endpoint);
            }
        }
    }
}
