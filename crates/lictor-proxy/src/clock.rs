//! The one place where something is waited for on behalf of a request: never past the request's [`End`].
//!
//! | what is waited for | where |
//! |---|---|
//! | endpoints that are unknown yet | `admission/target.rs` |
//! | the answer to an equal request | `admission/collapse.rs` |
//! | a place among the running | `admission/permit.rs` |
//! | a connection | `world/pool.rs`, for `calls/send.rs` and `calls/tunnel.rs` |
//! | the time for another attempt | `calls/run.rs`, `calls/tunnel.rs` |
//! | the answer's head | `calls/send.rs` |
//!
//! The answer's body has no single wait: `calls/ending.rs` looks at the same deadline as it comes.

use std::time::{Duration, Instant};

use lictor_core::deadline::End;
use lictor_core::{Failure, Reason};

use crate::stores::metrics::Metrics;

/// What a request's time ran out at: `where` in `lictor_deadline_exceeded_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It had none left as it came.
    OnArrival,
    /// Before there was leave to send it.
    Queue,
    /// Before there was a connection.
    Connect,
    /// At its endpoint.
    Upstream,
}

/// Waits for this, until the end at most.
pub(crate) async fn within<F: Future>(end: Option<End>, wanted: F) -> Result<F::Output, End> {
    match end {
        None => Ok(wanted.await),
        Some(end) => tokio::time::timeout_at(end.at.into(), wanted).await.map_err(|_| end),
    }
}

/// Lets this time pass, until the end at most.
pub(crate) async fn pause(end: Option<End>, time: Duration) -> Result<(), End> {
    if time.is_zero() {
        return Ok(());
    }
    within(end, tokio::time::sleep(time)).await
}

/// Whether there is time to send anything.
pub(crate) fn check(end: Option<End>, now: Instant) -> Result<(), End> {
    match end {
        Some(end) if end.is_over(now) => Err(end),
        _ => Ok(()),
    }
}

/// The request's time ran out, which is counted.
pub(crate) fn ran_out(metrics: &Metrics, end: End, stage: Stage, sentence: impl Into<String>) -> Failure {
    if matches!(end.reason, Reason::DeadlineExceeded | Reason::PerTryTimeout | Reason::Timeout) {
        metrics.deadline_exceeded(stage.as_str());
    }
    Failure::new(end.reason, sentence)
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OnArrival => "on_arrival",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Upstream => "upstream",
        }
    }
}
