//! The rules of a blocking query, without I/O: which index to ask with, when an answer counts, how long to pause.
//!
//! The documentation's own rules (Consul: "Blocking Queries") and those that measurements added: an error's index is
//! never stored; an index that goes back means fetching anew; an early answer with the same index means that the server
//! gave the query up, and what it says may be old; after an error the old index is kept, with a short wait, because a
//! server that replays its log then blocks instead of answering with an empty list.

use std::time::{Duration, Instant};

use crate::client::ConsulError;

/// The wait of the first query after an error: a restarted agent's index starts over, and a query with a higher index
/// returns only when its wait is over.
const SHORT_WAIT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The agent is on this machine: asking once a second costs nothing, and it is back soon.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const DENIED_PAUSE: Duration = Duration::from_secs(10);

/// Where a watch stands.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    index: u64,
    failures: u32,
    asks_anew: bool,
    is_suspicious: bool,
}

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) index: Option<u64>,
    pub(crate) wait: Duration,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is the state.
    Believe,
    /// It is the state after the index went back: a loss needs confirming.
    Doubt,
    /// Ask again before believing anything.
    AskAgain,
}

impl Cursor {
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The next query.
    pub(crate) fn ask(&self, wait: Duration) -> Ask {
        let index = (self.index > 0 && !self.asks_anew).then_some(self.index);
        Ask { index, wait: if self.failures > 0 { SHORT_WAIT.min(wait) } else { wait } }
    }

    /// A 200 came back `took` after `asked`.
    pub(crate) fn answered(&mut self, asked: Ask, index: Option<u64>, took: Duration) -> Worth {
        let was_failing = std::mem::take(&mut self.failures) > 0;
        let index = index.filter(|index| *index > 0).unwrap_or(1);
        self.asks_anew = false;
        match asked.index {
            Some(old) if index < old => {
                self.index = 0;
                self.is_suspicious = true;
                Worth::AskAgain
            }
            Some(old) if index == old && took < asked.wait / 2 && !was_failing => {
                self.asks_anew = true;
                Worth::AskAgain
            }
            Some(_) => {
                self.index = index;
                Worth::Believe
            }
            None => {
                let went_back = index < self.index || std::mem::take(&mut self.is_suspicious);
                self.index = index;
                if went_back { Worth::Doubt } else { Worth::Believe }
            }
        }
    }

    /// It failed; how long to pause before the next query. `random` is uniform in 0 to 1.
    pub(crate) fn failed(&mut self, error: &ConsulError, random: f64) -> Duration {
        self.asks_anew = false;
        let doubling = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let pause = match error {
            ConsulError::Unreachable(_) => doubling.min(UNREACHABLE_PAUSE),
            error if error.is_denied() => DENIED_PAUSE,
            // A full server says so and another may answer: soon again. A busy one wants to be left alone.
            ConsulError::Status { code: 429, .. } => doubling.clamp(Duration::from_millis(500), Duration::from_secs(5)),
            ConsulError::Status { .. } => doubling.max(Duration::from_millis(200)).min(LONGEST_PAUSE),
            ConsulError::Timeout(_) | ConsulError::Decode(_) => {
                doubling.clamp(Duration::from_millis(500), LONGEST_PAUSE)
            }
        };
        pause.mul_f64(0.75 + random / 2.0)
    }
}

/// Lets a burst of queries through and then one a second, whatever the answers are.
#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: f64,
    at: Instant,
}

const BURST: f64 = 10.0;
const PER_SECOND: f64 = 1.0;

impl Throttle {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// How long the next query has to wait.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + earned).min(BURST) - 1.0;
        self.at = now;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / PER_SECOND) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);
    const EARLY: Duration = Duration::from_millis(5);

    fn at(index: u64) -> Cursor {
        Cursor { index, ..Cursor::default() }
    }

    #[test]
    fn the_first_query_does_not_block_and_the_next_does() {
        let mut cursor = Cursor::default();
        let ask = cursor.ask(WAIT);
        assert_eq!(ask, Ask { index: None, wait: WAIT });
        assert_eq!(cursor.answered(ask, Some(17), EARLY), Worth::Believe);
        assert_eq!(cursor.ask(WAIT), Ask { index: Some(17), wait: WAIT });
    }

    #[test]
    fn an_index_that_goes_back_is_fetched_anew_and_doubted() {
        let mut cursor = at(329);
        let ask = cursor.ask(WAIT);
        assert_eq!(cursor.answered(ask, Some(12), EARLY), Worth::AskAgain);
        let ask = cursor.ask(WAIT);
        assert_eq!(ask.index, None);
        assert_eq!(cursor.answered(ask, Some(12), EARLY), Worth::Doubt);
        assert_eq!(cursor.ask(WAIT).index, Some(12));
    }

    #[test]
    fn a_missing_or_zero_index_is_one() {
        for index in [None, Some(0)] {
            let mut cursor = Cursor::default();
            cursor.answered(cursor.ask(WAIT), index, EARLY);
            assert_eq!(cursor.ask(WAIT).index, Some(1));
        }
    }

    #[test]
    fn an_early_answer_with_the_same_index_is_asked_again_without_one() {
        let mut cursor = at(271);
        let ask = cursor.ask(WAIT);
        assert_eq!(cursor.answered(ask, Some(271), EARLY), Worth::AskAgain);
        let ask = cursor.ask(WAIT);
        assert_eq!(ask.index, None);
        assert_eq!(cursor.answered(ask, Some(265), EARLY), Worth::Doubt, "a restored snapshot");
        assert_eq!(cursor.answered(at(7).ask(WAIT), Some(7), WAIT), Worth::Believe, "the wait was over");
    }

    #[test]
    fn after_an_error_the_index_stays_and_the_wait_is_short() {
        let mut cursor = at(329);
        cursor.failed(&ConsulError::Unreachable(String::new()), 0.5);
        assert_eq!(cursor.ask(WAIT), Ask { index: Some(329), wait: SHORT_WAIT });
    }

    #[test]
    fn pauses_fit_their_errors() {
        let status = |code| ConsulError::Status { code, text: String::new() };
        let mut cursor = at(1);
        assert!(cursor.failed(&status(403), 0.0) >= Duration::from_secs(7));
        let mut cursor = at(1);
        let gone: Vec<_> = (0..9).map(|_| cursor.failed(&ConsulError::Unreachable(String::new()), 0.5)).collect();
        assert_eq!(gone[0], FIRST_PAUSE);
        assert_eq!(gone[8], UNREACHABLE_PAUSE);
        let mut cursor = at(1);
        let busy: Vec<_> = (0..12).map(|_| cursor.failed(&status(500), 0.5)).collect();
        assert_eq!(busy[11], LONGEST_PAUSE);
    }

    proptest! {
        /// Whatever the agent answers, at once: ten queries in a burst, then one a second.
        #[test]
        fn no_answers_make_it_a_busy_loop(answers in prop::collection::vec(prop::option::of(0_u64..50), 50..300)) {
            let start = Instant::now();
            let (mut now, mut cursor, mut throttle) = (start, Cursor::default(), Throttle::new(start));
            for answer in &answers {
                now += throttle.take(now);
                let ask = cursor.ask(WAIT);
                match answer {
                    Some(index) => {
                        cursor.answered(ask, Some(*index), EARLY);
                    }
                    None => now += cursor.failed(&ConsulError::Decode(String::new()), 0.0),
                }
            }
            let spent = now.duration_since(start).as_secs_f64();
            prop_assert!(spent >= answers.len() as f64 - BURST - 1.0, "{} queries in {spent} s", answers.len());
        }
    }
}
