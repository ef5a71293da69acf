//! The latest sampled trace in each bucket of a latency histogram: from a slow bucket to a request that was slow.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// The limits of the buckets that latencies are counted in, in seconds.
pub(super) const LATENCY_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A request that was observed.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: u128,
    /// Its span.
    pub span_id: u64,
    /// Seconds.
    pub value: f64,
    /// When.
    pub at: SystemTime,
}

/// One place for each bucket, the last of which has no limit.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<[Option<Exemplar>; LATENCY_BUCKETS.len() + 1]>);

impl Exemplars {
    /// Notes a sampled request. One that finds the place taken for a moment is left out: nobody waits for an example.
    pub(super) fn note(&self, trace_id: u128, span_id: u64, took: Duration) {
        let value = took.as_secs_f64();
        let bucket = LATENCY_BUCKETS.partition_point(|limit| *limit < value);
        if let Some(mut kept) = self.0.try_lock() {
            kept[bucket] = Some(Exemplar { trace_id, span_id, value, at: SystemTime::now() });
        }
    }

    /// In the order of the buckets.
    pub(super) fn kept(&self) -> Vec<Option<Exemplar>> {
        self.0.lock().to_vec()
    }
}
