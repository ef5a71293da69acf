//! The requests that our application serves now: whose child a call of its is that does not say so.
//!
//! Kept only while `trace.infer_parent` asks for it. Then its one lock is taken as a request to the application begins
//! and ends, and by each call without a context. Two that could be meant are as good as none: nothing is guessed.

use std::collections::HashMap;
use std::sync::Arc;

use lictor_core::balance::hash_bytes;
use lictor_core::trace::TraceContext;
use parking_lot::Mutex;

use super::request_id::RequestId;

/// Ids that are told apart. A request with one more is counted, and causes nothing.
const MOST: usize = 4096;

/// What is served by all workers.
#[derive(Debug, Default)]
pub(crate) struct Causes(Mutex<Serving>);

#[derive(Debug, Default)]
struct Serving {
    /// By their ids, hashed.
    by_id: HashMap<u64, Same>,
    /// Requests, those without an entry included.
    all: usize,
}

/// Requests with one id.
#[derive(Debug)]
struct Same {
    /// Of the first of them.
    trace: TraceContext,
    requests: usize,
}

/// A request that is being served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Cause {
    causes: Arc<Causes>,
    key: Option<u64>,
}

impl Causes {
    /// A request with this id and context is served from now on.
    pub(crate) fn serve(self: &Arc<Self>, id: &RequestId, trace: TraceContext) -> Cause {
        let mut serving = self.0.lock();
        serving.all += 1;
        let key = Some(hash_bytes(id.as_bytes()));
        let key = key.filter(|key| serving.by_id.len() < MOST || serving.by_id.contains_key(key));
        if let Some(key) = key {
            serving.by_id.entry(key).or_insert(Same { trace, requests: 0 }).requests += 1;
        }
        Cause { causes: Arc::clone(self), key }
    }

    /// Which of them caused a call that shows this id, or none: the only one, or else the only one with that id.
    pub(crate) fn of(&self, id: Option<&RequestId>) -> Option<TraceContext> {
        let serving = self.0.lock();
        let only = if serving.all == 1 {
            serving.by_id.values().next()
        } else {
            id.and_then(|id| serving.by_id.get(&hash_bytes(id.as_bytes())))
        };
        only.filter(|same| same.requests == 1).map(|same| same.trace)
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        let mut serving = self.causes.0.lock();
        serving.all -= 1;
        let Some(key) = self.key else { return };
        if let Some(same) = serving.by_id.get_mut(&key) {
            same.requests -= 1;
            if same.requests == 0 {
                serving.by_id.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use lictor_core::trace::TraceSettings;

    use super::*;

    fn trace(number: u64) -> TraceContext {
        TraceContext::start(&TraceSettings::default(), &mut || number)
    }

    fn id(text: &str) -> RequestId {
        RequestId::Told(HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn the_only_one_or_else_the_only_one_with_the_id_is_the_cause() {
        let (a, b) = (("a", trace(1)), ("b", trace(3)));
        for (served, shown, expected) in [
            (&[][..], None, None),
            (&[], Some("a"), None),
            (&[a], None, Some(a.1)),
            (&[a], Some("a"), Some(a.1)),
            (&[a], Some("its own"), Some(a.1)),
            (&[a, b], None, None),
            (&[a, b], Some("a"), Some(a.1)),
            (&[a, b], Some("b"), Some(b.1)),
            (&[a, b], Some("its own"), None),
            (&[a, a], None, None),
            (&[a, a], Some("a"), None),
            (&[a, a, b], Some("a"), None),
            (&[a, a, b], Some("b"), Some(b.1)),
        ] {
            let causes = Arc::new(Causes::default());
            let held: Vec<Cause> = served.iter().map(|(name, trace)| causes.serve(&id(name), *trace)).collect();
            assert_eq!(causes.of(shown.map(id).as_ref()), expected, "{served:?} {shown:?}");
            drop(held);
            assert_eq!(causes.of(shown.map(id).as_ref()), None, "nobody is served any more");
        }
    }

    #[test]
    fn who_is_left_is_the_only_one() {
        let causes = Arc::new(Causes::default());
        let (first, second) = (causes.serve(&id("a"), trace(1)), causes.serve(&id("b"), trace(3)));
        assert_eq!(causes.of(None), None);
        drop(first);
        assert_eq!(causes.of(None), Some(trace(3)));
        drop(second);
    }

    #[test]
    fn more_than_are_told_apart_are_counted_and_cause_nothing() {
        let causes = Arc::new(Causes::default());
        let serve = |number: usize| causes.serve(&id(&number.to_string()), trace(number as u64));
        let mut held: Vec<Cause> = (0..=MOST).map(serve).collect();
        assert_eq!(causes.of(Some(&id("7"))), Some(trace(7)));
        assert_eq!(causes.of(Some(&id(&MOST.to_string()))), None, "it has no entry");
        held.drain(1..MOST);
        assert_eq!(causes.of(None), None, "two are served, though one alone has an entry");
        held.remove(0);
        assert_eq!(causes.of(None), None, "the only one, of which nothing is known");
        held.clear();
        assert!(causes.0.lock().by_id.is_empty() && causes.0.lock().all == 0);
    }
}
