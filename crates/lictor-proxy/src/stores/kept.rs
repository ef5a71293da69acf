//! Answers that are kept, and requests that are on their way, for others to wait for. Which of them may be given to whom is
//! `admission::cache`'s to know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::AGE;
use parking_lot::Mutex;
use tokio::sync::watch;

/// All answers of the process; the oldest make room.
const TOTAL_MAX: usize = 16 << 20;
/// What a kept answer costs besides its body, about.
const ENTRY_COST: usize = 1 << 10;

/// All kept answers of the process.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    kept: HashMap<Arc<str>, Arc<Kept>>,
    size: usize,
    /// Requests that are on their way, for others to wait for.
    asked: HashMap<Arc<str>, watch::Receiver<Option<Arc<Kept>>>>,
}

/// A kept answer, always 200.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The trace and span of the request that it answered first, if that was sampled.
    pub(crate) asked_by: Option<(u128, u64)>,
    pub(crate) at: Instant,
}

impl Kept {
    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed()
    }

    /// Seconds since it was made, as far as is known (RFC 9111, section 5.1).
    pub(crate) fn age_seconds(&self) -> u64 {
        let before = self.headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or(0_u64);
        before.saturating_add(self.age().as_secs())
    }

    fn cost(&self) -> usize {
        self.body.len() + ENTRY_COST
    }
}

/// What there is for a key.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) kept: Option<Arc<Kept>>,
    /// An equal request's answer is on its way.
    pub(crate) asked: Option<watch::Receiver<Option<Arc<Kept>>>>,
    /// Others wait for the answer to this one.
    pub(crate) told: Option<watch::Sender<Option<Arc<Kept>>>>,
}

impl Cache {
    /// Finds what there is; who does not find it fresh, and `coalesces`, is the one whom others wait for, or waits.
    pub(crate) fn look(&self, key: &Arc<str>, is_fresh: impl Fn(&Kept) -> bool, coalesces: bool) -> Looked {
        let mut contents = self.0.lock();
        let kept = contents.kept.get(key).cloned();
        if !coalesces || kept.as_deref().is_some_and(is_fresh) {
            return Looked { kept, asked: None, told: None };
        }
        let asked = contents.asked.get(key).cloned();
        let told = asked.is_none().then(|| {
            let (told, asked) = watch::channel(None);
            contents.asked.insert(Arc::clone(key), asked);
            told
        });
        Looked { kept, asked, told }
    }

    /// Nobody is to wait for it any more.
    pub(crate) fn forget_asked(&self, key: &Arc<str>) {
        self.0.lock().asked.remove(key);
    }

    /// Keeps an answer; the oldest make room.
    pub(crate) fn keep(&self, key: &Arc<str>, kept: &Arc<Kept>) {
        let mut contents = self.0.lock();
        contents.forget(key);
        while contents.size + kept.cost() > TOTAL_MAX {
            let oldest = contents.kept.iter().min_by_key(|(_, kept)| kept.at).map(|(key, _)| Arc::clone(key));
            let Some(oldest) = oldest else { break };
            contents.forget(&oldest);
        }
        contents.size += kept.cost();
        contents.kept.insert(Arc::clone(key), Arc::clone(kept));
    }
}

impl Contents {
    fn forget(&mut self, key: &Arc<str>) {
        if let Some(kept) = self.kept.remove(key) {
            self.size -= kept.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 256 << 10;

    #[test]
    fn the_oldest_answers_make_room() {
        let cache = Cache::default();
        let kept = |size: usize| {
            Arc::new(Kept {
                headers: HeaderMap::new(),
                body: Bytes::from(vec![0; size]),
                asked_by: None,
                at: Instant::now(),
            })
        };
        for number in 0..(TOTAL_MAX / LARGE + 8) {
            cache.keep(&Arc::from(number.to_string()), &kept(LARGE));
            assert!(cache.0.lock().size <= TOTAL_MAX);
        }
        let contents = cache.0.lock();
        assert!(!contents.kept.contains_key("0") && contents.kept.contains_key("70"));
        assert_eq!(contents.size, contents.kept.values().map(|kept| kept.cost()).sum::<usize>());
    }
}
