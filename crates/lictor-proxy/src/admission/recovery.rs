//! While a breaker is open because nobody could be connected to, that is tried without a request: when a connection is made,
//! a request may be the next probe at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lictor_core::breaker::Transition;
use lictor_core::mesh::Protocol;
use lictor_tls::Alpn;
use tokio::task::{JoinSet, spawn_local};

use crate::world::room::Want;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// Endpoints that are tried at a time.
const AT_ONCE: usize = 3;

/// Begins to try, if the breaker is open for that; `tell` is told of the change that it makes.
pub(super) fn begin(
    worker: &Rc<Worker>,
    upstream: &Rc<UpstreamState>,
    route: Option<usize>,
    tell: impl Fn(&Transition) + 'static,
) {
    let breaker = Arc::clone(&upstream.upstream.breaker);
    let Some(opening) = breaker.unconnected() else { return };
    let (worker, name) = (Rc::clone(worker), Arc::clone(&upstream.upstream.name));
    let policy = upstream.policy(route).breaker.clone();
    spawn_local(async move {
        let mut first = worker.random() as usize;
        while let Some(wait) = breaker.next_connect(&policy, opening, Instant::now()) {
            tokio::time::sleep(wait).await;
            let view = worker.view();
            let Some(upstream) = view.upstreams.get(&name) else { return };
            if connects(&worker, upstream, first).await {
                if let Some(change) = breaker.connected(opening, Instant::now()) {
                    tell(&change);
                }
                return;
            }
            first = first.wrapping_add(AT_ONCE);
        }
    });
}

/// Whether one of a few endpoints takes a connection, which ends again. One that was ejected may be asked again.
async fn connects(worker: &Worker, upstream: &Rc<UpstreamState>, first: usize) -> bool {
    let count = upstream.endpoints.len();
    let orders = upstream.upstream.steering.in_force(Instant::now());
    let has_pinned = orders.pins_any(upstream.endpoints.iter().map(|endpoint| &endpoint.endpoint.key.id));
    let alpn = match upstream.upstream.protocol {
        Protocol::Tcp => Alpn::None,
        Protocol::H2c | Protocol::Grpc => Alpn::Http2,
        Protocol::Http1 | Protocol::Auto => Alpn::Http1,
    };
    let mut tries = JoinSet::new();
    for place in 0..count.min(AT_ONCE) {
        let endpoint = Rc::clone(&upstream.endpoints[first.wrapping_add(place) % count]);
        if orders.allows(&endpoint.endpoint.key.id, has_pinned) {
            let (upstream, process) = (Arc::clone(&upstream.upstream), Arc::clone(&worker.shared));
            tries.spawn_local(async move {
                let (policy, in_flight) = (&*upstream.policy, &upstream.in_flight);
                let want = Want { process: &process, policy, in_flight, end: None };
                let is_made = endpoint.pool.bytes(&want, Some(alpn)).await.is_ok();
                if is_made {
                    endpoint.endpoint.health.readmit();
                }
                is_made
            });
        }
    }
    while let Some(tried) = tries.join_next().await {
        if matches!(tried, Ok(true)) {
            return true;
        }
    }
    false
}
