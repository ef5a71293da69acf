//! The flight recorder: the latest stories worth keeping, bounded in number and so in memory.
//!
//! A story is at most some 4 KiB (see `lictor_core::story`), usually less than one, and one without attempts never more: at
//! most 6 MiB in all. One lock for all workers, held to move one pointer, and taken only for requests that are kept.
//!
//! What is evidence is not pushed out by what follows from it. Requests that ended before anything was sent (the breaker is
//! open, there is no endpoint, a limit) are as many as clients send, and alike: they have a room of their own and are
//! counted, and the first and the last of each upstream and reason stay. In each room, who has more than his share makes
//! room for others.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lictor_core::Reason;
use lictor_core::story::{ID_MAX, Kept, Refusals, Story, cut};
use parking_lot::Mutex;

/// Requests that failed.
const FAILURES: usize = 1000;
/// Those of which nothing was sent.
const UNSENT: usize = 200;
/// Upstreams and reasons of those: of so many the first and the last stay.
const KINDS: usize = 256;
/// Heads that could not be read: whoever scans ports has plenty of them, and must not push other stories out.
const REFUSALS: usize = 100;
/// Others.
const SUCCESSES: usize = 200;
/// One in so many of a worker's good requests.
const SAMPLE: u32 = 1000;
/// An answer whose head takes longer is slow.
const SLOW: Duration = Duration::from_secs(1);

/// The stories.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Rooms>);

#[derive(Debug)]
struct Rooms {
    failures: Room,
    unsent: Room,
    refused: Room,
    successes: Room,
    kinds: HashMap<Whose, Kind>,
    /// Stories so far.
    total: u64,
}

/// With how many there were before it.
type Numbered = (u64, Arc<Story>);
/// An upstream, and of what was not sent the reason, too.
type Whose = (Option<Arc<str>>, Option<Reason>);

/// The latest of several, shared fairly.
#[derive(Debug)]
struct Room {
    most: usize,
    len: usize,
    of: HashMap<Whose, VecDeque<Numbered>>,
}

/// Requests of one upstream that ended for one reason before anything was sent.
#[derive(Debug)]
struct Kind {
    count: u64,
    first: Numbered,
    last: Numbered,
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

impl Default for Recorder {
    fn default() -> Self {
        let room = |most| Room { most, len: 0, of: HashMap::new() };
        let [failures, unsent] = [FAILURES, UNSENT].map(room);
        let [refused, successes] = [REFUSALS, SUCCESSES].map(room);
        Self(Mutex::new(Rooms { failures, unsent, refused, successes, kinds: HashMap::new(), total: 0 }))
    }
}

impl Recorder {
    /// Keeps it; an old one of its kind goes.
    pub(crate) fn keep(&self, story: Arc<Story>) {
        let mut whose: Whose = (story.upstream.clone(), None);
        let mut rooms = self.0.lock();
        rooms.total += 1;
        let numbered = (rooms.total, Arc::clone(&story));
        let mut before = None;
        let room = match story.kept {
            Kept::Failed if story.is_unsent() => {
                whose.1 = story.reason;
                before = rooms.count(&whose, &numbered);
                &mut rooms.unsent
            }
            Kept::Failed => &mut rooms.failures,
            Kept::Refused => &mut rooms.refused,
            Kept::Asked | Kept::Retried | Kept::Slow | Kept::Sampled => &mut rooms.successes,
        };
        let oldest = room.push(whose, numbered);
        drop(rooms); // freeing the oldest one takes longer than all of this
        drop((oldest, before, story));
    }

    /// All of them, the newest first.
    pub(crate) fn stories(&self) -> Vec<Arc<Story>> {
        let mut all: Vec<Numbered> = {
            let rooms = self.0.lock();
            let kept = [&rooms.failures, &rooms.unsent, &rooms.refused, &rooms.successes];
            let kept = kept.into_iter().flat_map(|room| room.of.values().flatten());
            kept.chain(rooms.kinds.values().flat_map(|kind| [&kind.first, &kind.last])).cloned().collect()
        };
        all.sort_unstable_by_key(|(number, _)| Reverse(*number));
        all.dedup_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, story)| story).collect()
    }

    /// How many requests ended before anything was sent, by upstream and reason, the latest first.
    pub(crate) fn refusals(&self) -> Vec<Refusals> {
        let mut all: Vec<(u64, Refusals)> = {
            let rooms = self.0.lock();
            let told = |Kind { count, first, last }: &Kind| {
                (last.0, Refusals { count: *count, first: Arc::clone(&first.1), last: Arc::clone(&last.1) })
            };
            rooms.kinds.values().map(told).collect()
        };
        all.sort_unstable_by_key(|(number, _)| Reverse(*number));
        all.into_iter().map(|(_, refusals)| refusals).collect()
    }

    /// Those of this id, the newest first: a request that called on has one for each call.
    pub(crate) fn with_id(&self, id: &str) -> Vec<Arc<Story>> {
        let id = cut(id, ID_MAX);
        self.stories().into_iter().filter(|story| story.id == id).collect()
    }
}

impl Rooms {
    /// Counts one that was not sent; what it was the last of its kind before.
    fn count(&mut self, whose: &Whose, numbered: &Numbered) -> Option<Arc<Story>> {
        if let Some(kind) = self.kinds.get_mut(whose) {
            kind.count += 1;
            return Some(std::mem::replace(&mut kind.last, numbered.clone()).1);
        }
        if self.kinds.len() == KINDS {
            let oldest = self.kinds.iter().min_by_key(|(_, kind)| kind.last.0).map(|(whose, _)| whose.clone());
            oldest.and_then(|whose| self.kinds.remove(&whose));
        }
        let kind = Kind { count: 1, first: numbered.clone(), last: numbered.clone() };
        self.kinds.insert(whose.clone(), kind);
        None
    }
}

impl Room {
    /// Adds it; when all is full, the oldest goes of whoever has more than his share, or else of whoever has most.
    fn push(&mut self, whose: Whose, numbered: Numbered) -> Option<Numbered> {
        let own = self.of.entry(whose.clone()).or_default();
        own.push_back(numbered);
        let has = own.len();
        if self.len < self.most {
            self.len += 1;
            return None;
        }
        let share = (self.most / self.of.len()).max(1);
        let size = |stories: &VecDeque<Numbered>| (stories.len(), Reverse(stories.front().map(|(number, _)| *number)));
        let longest = || Some(self.of.iter().max_by_key(|(_, stories)| size(stories))?.0.clone());
        let from = if has > share { whose } else { longest()? };
        let stories = self.of.get_mut(&from)?;
        let oldest = stories.pop_front();
        if stories.is_empty() {
            self.of.remove(&from);
        }
        oldest
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

    fn of(upstream: &str, id: &str, reason: Option<Reason>) -> Arc<Story> {
        let upstream = Some(Arc::from(upstream));
        Arc::new(Story { upstream, reason, status: 503, ..Story::empty(id, Kept::Failed) })
    }

    #[test]
    fn what_was_not_sent_is_counted_and_pushes_no_failure_out() {
        let recorder = Recorder::default();
        recorder.keep(of("users", "it began so", None));
        for number in 0..5000 {
            recorder.keep(of("users", &format!("open-{number}"), Some(Reason::BreakerOpen)));
            if number < 3 {
                recorder.keep(of("carts", &format!("none-{number}"), Some(Reason::NoEndpoints)));
            }
        }
        let told: Vec<_> = recorder.refusals();
        let told: Vec<_> = told.iter().map(|it| (it.count, &*it.first.id, &*it.last.id)).collect();
        assert_eq!(told, [(5000, "open-0", "open-4999"), (3, "none-0", "none-2")]);
        for id in ["it began so", "open-0", "open-4999", "open-4900", "none-1"] {
            assert_eq!(recorder.with_id(id).len(), 1, "{id}");
        }
        assert!(recorder.with_id("open-1000").is_empty());
        assert_eq!(recorder.stories().len(), 1 + UNSENT + 1, "with the first, which stays");
    }

    #[test]
    fn a_loud_upstream_makes_room_for_others() {
        let recorder = Recorder::default();
        (0..3).for_each(|number| recorder.keep(of("quiet", &format!("quiet-{number}"), None)));
        (0..5000).for_each(|number| recorder.keep(of("loud", &format!("loud-{number}"), None)));
        assert_eq!(recorder.with_id("quiet-0").len(), 1);
        (0..600).for_each(|number| recorder.keep(of("other", &format!("other-{number}"), None)));
        let stories = recorder.stories();
        let count = |name: &str| stories.iter().filter(|story| story.upstream.as_deref() == Some(name)).count();
        assert_eq!((count("quiet"), stories.len()), (3, FAILURES));
        assert!(
            count("other") >= FAILURES / 3 && count("loud") >= FAILURES / 3,
            "{} {}",
            count("other"),
            count("loud")
        );
        assert_eq!((&*stories[0].id, recorder.with_id("loud-4999").len()), ("other-599", 1), "the latest are there");
    }

    #[test]
    fn kinds_of_what_was_not_sent_have_a_bound() {
        let recorder = Recorder::default();
        for number in 0..KINDS + 10 {
            recorder.keep(of(&format!("upstream-{number}"), &number.to_string(), Some(Reason::Overloaded)));
        }
        let told = recorder.refusals();
        assert_eq!((told.len(), &*told[0].last.id), (KINDS, "265"));
        assert!(recorder.stories().len() <= UNSENT + KINDS);
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
