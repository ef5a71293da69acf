//! Waiting for the answer to an equal request that is on its way ("collapsed requests", RFC 9111, section 4).

use std::sync::Arc;
use std::time::Duration;

use lictor_core::deadline::End;

use crate::clock;
use crate::stores::kept::{Flight, Kept};

/// Others wait for an answer that is on its way for at most this long when there is no other limit.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The answer to the equal request; `None` when it has none to share, has left its place to this one, or the time is over.
pub(super) async fn wait(flight: &mut Flight, end: Option<End>) -> Option<Arc<Kept>> {
    Box::pin(clock::within(end, tokio::time::timeout(WAIT_MAX, flight.wait()))).await.ok()?.ok()?
}
