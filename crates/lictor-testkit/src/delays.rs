//! What this machine does to whoever is due: measured beside what is under test, it says how late that may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Two who sleep for a millisecond, again and again.
#[derive(Debug)]
pub struct Delays {
    is_over: Arc<AtomicBool>,
    sleepers: Vec<JoinHandle<Vec<Duration>>>,
}

impl Delays {
    /// From now on.
    pub fn measure() -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let sleeper = |_| {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut delays = Vec::new();
                while !is_over.load(Relaxed) {
                    let began = Instant::now();
                    #[expect(clippy::disallowed_methods, reason = "how much longer that takes is what is measured")]
                    std::thread::sleep(Duration::from_millis(1));
                    delays.push(began.elapsed().saturating_sub(Duration::from_millis(1)));
                }
                delays
            })
        };
        let sleepers = (0..2).map(sleeper).collect();
        Self { is_over, sleepers }
    }

    /// How late they woke, the least first.
    pub fn finish(mut self) -> Vec<Duration> {
        self.is_over.store(true, Relaxed);
        let join = |sleeper: JoinHandle<Vec<Duration>>| sleeper.join().expect("who sleeps does not panic");
        let mut delays: Vec<Duration> = self.sleepers.drain(..).flat_map(join).collect();
        delays.sort_unstable();
        delays
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}
