//! The flight recorder: the latest stories worth keeping, bounded in number and so in memory.
//!
//! A story is at most some 4 KiB (see `lictor_core::story`), usually less than one: at most 5 MiB in all. One lock for
//! all workers, held to move one pointer, and taken only for requests that are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lictor_core::story::{ID_MAX, Kept, Story, cut};
use parking_lot::Mutex;

/// Requests that failed.
const FAILURES: usize = 1000;
/// Heads that could not be read: whoever scans ports has plenty of them, and must not push other stories out.
const REFUSALS: usize = 100;
/// Others.
const SUCCESSES: usize = 200;
/// One in so many of a worker's good requests.
const SAMPLE: u32 = 1000;
/// An answer whose head takes longer is slow.
const SLOW: Duration = Duration::from_secs(1);

/// The stories.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    failures: VecDeque<(u64, Arc<Story>)>,
    refusals: VecDeque<(u64, Arc<Story>)>,
    successes: VecDeque<(u64, Arc<Story>)>,
    /// Stories so far.
    total: u64,
}

/// What is known of a good request when it is over.
pub(crate) struct Course {
    pub(crate) is_asked: bool,
    pub(crate) attempts: usize,
    /// To its answer's head.
    pub(crate) head: Duration,
    /// Its worker's requests before it.
    pub(crate) number: u32,
}

impl Course {
    /// Whether a good request is worth keeping.
    pub(crate) fn kept(&self) -> Option<Kept> {
        if self.is_asked {
            Some(Kept::Asked)
        } else if self.attempts > 1 {
            Some(Kept::Retried)
        } else if self.head > SLOW {
            Some(Kept::Slow)
        } else {
            self.number.is_multiple_of(SAMPLE).then_some(Kept::Sampled)
        }
    }
}

impl Recorder {
    /// Keeps it; the oldest of its kind goes.
    pub(crate) fn keep(&self, story: Arc<Story>) {
        let mut rings = self.0.lock();
        rings.total += 1;
        let number = rings.total;
        let (ring, most) = match story.kept {
            Kept::Failed => (&mut rings.failures, FAILURES),
            Kept::Refused => (&mut rings.refusals, REFUSALS),
            Kept::Asked | Kept::Retried | Kept::Slow | Kept::Sampled => (&mut rings.successes, SUCCESSES),
        };
        let oldest = if ring.len() == most { ring.pop_front() } else { None };
        ring.push_back((number, story));
        drop(rings); // freeing the oldest one takes longer than all of this
        drop(oldest);
    }

    /// All of them, the newest first.
    pub(crate) fn stories(&self) -> Vec<Arc<Story>> {
        let mut all: Vec<_> = {
            let rings = self.0.lock();
            rings.failures.iter().chain(&rings.refusals).chain(&rings.successes).cloned().collect()
        };
        all.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        all.into_iter().map(|(_, story)| story).collect()
    }

    /// Those of this id, the newest first: a request that called on has one for each call.
    pub(crate) fn with_id(&self, id: &str) -> Vec<Arc<Story>> {
        let id = cut(id, ID_MAX);
        self.stories().into_iter().filter(|story| story.id == id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(id: &str, kept: Kept) -> Arc<Story> {
        Arc::new(Story::empty(id, kept))
    }

    #[test]
    fn the_oldest_goes_and_neither_successes_nor_refusals_push_failures_out() {
        let recorder = Recorder::default();
        for number in 0..1200 {
            recorder.keep(story(&number.to_string(), Kept::Failed));
        }
        for number in 0..5000 {
            recorder.keep(story(&format!("good-{number}"), Kept::Sampled));
        }
        for number in 0..5000 {
            recorder.keep(story(&format!("refused-{number}"), Kept::Refused));
        }
        let mut stories = recorder.stories();
        assert_eq!(stories.len(), FAILURES + SUCCESSES + REFUSALS);
        assert_eq!((&*stories[0].id, &*stories[REFUSALS - 1].id), ("refused-4999", "refused-4900"));
        stories.drain(..REFUSALS);
        assert_eq!((&*stories[0].id, &*stories[SUCCESSES].id), ("good-4999", "1199"));
        assert_eq!(&*stories.last().unwrap().id, "200");
        assert_eq!((recorder.with_id("200").len(), recorder.with_id("199").len()), (1, 0));
    }

    #[test]
    fn an_id_that_is_too_long_is_found_as_it_was_kept() {
        let recorder = Recorder::default();
        let id = "x".repeat(1000);
        recorder.keep(story(&cut(&id, ID_MAX), Kept::Failed));
        assert_eq!(recorder.with_id(&id).len(), 1);
    }

    #[test]
    fn good_requests_are_kept_when_asked_for_retried_slow_or_by_number() {
        let course = |is_asked, attempts, millis, number| {
            Course { is_asked, attempts, head: Duration::from_millis(millis), number }.kept()
        };
        assert_eq!(course(false, 1, 5, 1), None);
        assert_eq!(course(true, 1, 5, 1), Some(Kept::Asked));
        assert_eq!(course(false, 2, 5, 1), Some(Kept::Retried));
        assert_eq!(course(false, 1, 1001, 1), Some(Kept::Slow));
        assert_eq!(course(false, 1, 5, 3000), Some(Kept::Sampled));
    }
}
