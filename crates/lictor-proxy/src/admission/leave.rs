//! Whether a request goes out, and when: decided once, from the caller's deadline, the breaker and the limits.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use lictor_core::deadline::callers_deadline;
use lictor_core::policy::DeadlineMode;
use lictor_core::{Failure, Reason};

use super::permit::{Probe, Running};
use crate::books::record::Record;
use crate::names;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// Leave to send, from the caller's deadline, the breaker and the limits.
#[derive(Debug)]
pub(crate) struct Leave {
    /// How long the caller waits, from the request's arrival.
    pub(crate) callers: Option<Duration>,
    pub(crate) probe: Probe,
    pub(crate) running: Running,
    pub(crate) since: Instant,
}

/// Decides once whether a request goes out, and when.
pub(crate) async fn admit<B>(
    worker: &Rc<Worker>,
    upstream: &Rc<UpstreamState>,
    request: &Request<B>,
    record: &Record,
) -> Result<Leave, Failure> {
    let now = Instant::now();
    let callers = match upstream.policy(record.route).deadline {
        DeadlineMode::Propagate if record.fields.has(names::DEADLINE) => callers_deadline(request.headers()),
        DeadlineMode::Propagate | DeadlineMode::Ignore => None,
    };
    record.deadline.set(callers);
    if callers.is_some_and(|callers| callers.is_zero()) {
        worker.shared.metrics.deadline_exceeded("on_arrival");
        return Err(Failure::new(Reason::DeadlineExceeded, "the caller's deadline had passed on arrival"));
    }
    let probe = Probe::admit(worker, upstream, record.route, now)?;
    let (running, since) = match Running::try_enter(upstream, record.route) {
        Some(running) => (running, now),
        None => (Running::enter(upstream, record.route).await?, Instant::now()),
    };
    Ok(Leave { callers, probe, running, since })
}
