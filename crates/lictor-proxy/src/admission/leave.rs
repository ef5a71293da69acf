//! Whether a request goes out, and when: decided once, from its deadline, the breaker and the limits.

use std::rc::Rc;
use std::time::Instant;

use lictor_core::deadline::End;
use lictor_core::{Failure, Reason};

use super::permit::{Probe, Running};
use crate::books::record::Record;
use crate::clock::{self, Stage};
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// Leave to send, from the deadline, the breaker and the limits.
#[derive(Debug)]
pub(crate) struct Leave {
    pub(crate) probe: Probe,
    pub(crate) running: Running,
    pub(crate) since: Instant,
}

/// Decides once whether a request goes out, and when.
pub(crate) async fn admit(
    worker: &Rc<Worker>,
    upstream: &Rc<UpstreamState>,
    record: &Record,
    end: Option<End>,
) -> Result<Leave, Failure> {
    let now = Instant::now();
    clock::check(end, now).map_err(|end| too_late(worker, record, end))?;
    let probe = Probe::admit(worker, upstream, record.route, now)?;
    let (running, since) = match Running::try_enter(upstream, record.route) {
        Some(running) => (running, now),
        None => {
            let running = Running::enter(worker, upstream, record.route, end).await?;
            let since = Instant::now();
            clock::check(end, since).map_err(|end| too_late(worker, record, end))?;
            (running, since)
        }
    };
    Ok(Leave { probe, running, since })
}

fn too_late(worker: &Worker, record: &Record, end: End) -> Failure {
    let metrics = &worker.shared.metrics;
    if end.reason == Reason::DeadlineExceeded && end.is_over(record.arrival()) {
        return clock::ran_out(metrics, end, Stage::OnArrival, "the caller's deadline had passed on arrival");
    }
    clock::ran_out(metrics, end, Stage::Queue, "the time was over before it could be sent")
}
