//! `/ui/live` and `/ui/data`: one frame a second for whoever looks, the dashboard or `lictor top`. It is made once for
//! all of them, from counters that are there anyway, and not at all while nobody looks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::Admin;
use crate::admin::frame::{Sample, frame};

const EVERY: Duration = Duration::from_secs(1);
const LISTENERS: usize = 16;
/// A listener that is slower than this misses frames; the next one has everything again.
const AHEAD: usize = 2;

/// Whoever looks, and whether frames are being made.
#[derive(Debug)]
pub(crate) struct Live {
    frames: broadcast::Sender<Frame>,
    is_running: Mutex<bool>,
}

/// One moment, as JSON.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) json: Bytes,
    /// The first one has nothing to compare with, and so no rates.
    pub(super) has_rates: bool,
}

/// Frames from now on.
#[derive(Debug)]
pub(super) struct Looking(broadcast::Receiver<Frame>);

impl Default for Live {
    fn default() -> Self {
        Self { frames: broadcast::Sender::new(AHEAD), is_running: Mutex::default() }
    }
}

impl Looking {
    /// The next one; `None` when there will be none.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.0.recv().await {
                Ok(frame) => return Some(frame),
                Err(RecvError::Lagged(_)) => (),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Frames for one more; `None` when too many look already.
pub(super) fn look(admin: &Arc<Admin>) -> Option<Looking> {
    let mut is_running = admin.live.is_running.lock();
    let is_free = admin.live.frames.receiver_count() < LISTENERS;
    let looking = is_free.then(|| Looking(admin.live.frames.subscribe()))?;
    if !*is_running {
        *is_running = true;
        tokio::spawn(run(Arc::clone(admin)));
    }
    Some(looking)
}

/// Until nobody looks any more.
async fn run(admin: Arc<Admin>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Sample> = None;
    loop {
        ticks.tick().await;
        let now = Sample::take(&admin);
        let json = frame(&admin, before.as_ref(), &now).await;
        let has_rates = before.replace(now).is_some();
        let mut is_running = admin.live.is_running.lock();
        if admin.live.frames.send(Frame { json: json.to_string().into(), has_rates }).is_err() {
            *is_running = false;
            return;
        }
    }
}
