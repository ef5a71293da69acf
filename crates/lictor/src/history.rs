//! What was before anybody looked: once a second the counters are read, whether anybody looks or not. A request costs nothing
//! for it.

mod past;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::{Upstream, track};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use self::past::History;
use crate::admin::Admin;

const EVERY: Duration = Duration::from_secs(1);

/// Reads once a second, for as long as the process runs.
pub(crate) async fn run(admin: Arc<Admin>) {
    let began = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (mesh, second) = (admin.mesh(), began.elapsed().as_secs());
        mesh.upstreams.values().for_each(|upstream| note_endpoints(upstream, second));
        admin.history.note(&mesh, admin.plane.flowed(), second);
    }
}

fn note_endpoints(upstream: &Upstream, second: u64) {
    let tracks: Vec<_> = upstream.endpoints.iter().map(|endpoint| &endpoint.health.track).collect();
    track::note(&tracks, second);
}
