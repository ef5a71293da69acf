//! `/ui/live` and `/ui/data`: one frame a second for whoever looks, the dashboard or `lictor top`. It is made once for
//! all of them, from counters that are there anyway, and not at all while nobody looks.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

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

impl Live {
    /// Frames for one more, by whom `start` sets to work if nobody makes them yet; `None` when too many look already.
    pub(super) fn look(&self, start: impl FnOnce()) -> Option<Looking> {
        let mut is_running = self.is_running.lock();
        let is_free = self.frames.receiver_count() < LISTENERS;
        let looking = is_free.then(|| Looking(self.frames.subscribe()))?;
        if !std::mem::replace(&mut *is_running, true) {
            start();
        }
        Some(looking)
    }

    /// The next one; whether anybody looks. Else whoever made it ends.
    pub(super) fn show(&self, frame: Frame) -> bool {
        let mut is_running = self.is_running.lock();
        *is_running = self.frames.send(frame).is_ok();
        *is_running
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
