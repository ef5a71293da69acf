//! What a person on call asks for afterwards: once a second the counters are looked at, whether anybody looks here or not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_core::{Endpoint, track};
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::Admin;

const EVERY: Duration = Duration::from_secs(1);

/// For as long as the process runs.
pub(crate) async fn run(admin: Arc<Admin>) {
    let began = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (mesh, second) = (admin.mesh(), began.elapsed().as_secs());
        for upstream in mesh.upstreams.values() {
            let tracks: Vec<_> =
                upstream.endpoints.iter().map(|endpoint: &Arc<Endpoint>| &endpoint.health.track).collect();
            track::note(&tracks, second);
        }
    }
}
