//! The rules of a blocking query, without I/O: which index to ask with, when an answer counts, how long to pause.
//!
//! The documentation's own rules (Consul: "Blocking Queries") and those that measurements added: an error's index is
//! never stored; an index that goes back means fetching anew; an early answer with the same index means that the server
//! gave the query up, and what it says may be old; after an error the old index is kept, with a short wait, because a
//! server that replays its log then blocks instead of answering with an empty list.

use std::time::{Duration, Instant};

use super::error::ConsulError;

/// The wait of the first query after a lost connection: a restarted agent's index starts over, and a query with a
/// higher index returns only when its wait is over.
const WAIT_AFTER_LOSS: Duration = Duration::from_secs(1);
/// The same after an error that the agent itself told: long enough for a server to replay its log.
const WAIT_AFTER_ERROR: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// An agent on this machine that is not there: asking in vain costs nothing.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);
/// With its jitter less than one query a second on average, and an answer within two once there is one again.
const LONGEST_PAUSE: Duration = Duration::from_millis(1200);
const DENIED_PAUSE: Duration = Duration::from_secs(10);
const LARGE_PAUSE: Duration = Duration::from_secs(5);

/// Where a watch stands.
#[derive(Debug)]
pub(crate) struct Cursor {
    index: u64,
    backoff: Backoff,
    /// The longest wait of the next query.
    short_wait: Option<Duration>,
    asks_anew: bool,
    /// The index is from before this process began: to compare with, not to ask with.
    is_remembered: bool,
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
    /// At the start. A local agent is asked again sooner when it is gone.
    pub(crate) fn new(is_local: bool) -> Self {
        Self {
            index: 0,
            backoff: Backoff::new(is_local),
            short_wait: None,
            asks_anew: false,
            is_remembered: false,
            is_suspicious: false,
        }
    }

    /// An index that was Consul's before this process began. The first query does not block; a lower index in its answer
    /// is one that went back.
    pub(crate) fn remember(&mut self, index: u64) {
        (self.index, self.is_remembered) = (index, index > 0);
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Whether the last query failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.backoff.failures > 0
    }

    /// The next query.
    pub(crate) fn ask(&self, wait: Duration) -> Ask {
        let index = (self.index > 0 && !self.asks_anew && !self.is_remembered).then_some(self.index);
        Ask { index, wait: self.short_wait.map_or(wait, |short| short.min(wait)) }
    }

    /// A 200 came back `took` after `asked`.
    pub(crate) fn answered(&mut self, asked: Ask, index: Option<u64>, took: Duration) -> Worth {
        self.backoff.succeeded();
        self.short_wait = None;
        self.asks_anew = false;
        self.is_remembered = false;
        let index = index.filter(|index| *index > 0).unwrap_or(1);
        match asked.index {
            Some(old) if index < old => {
                self.index = 0;
                self.is_suspicious = true;
                Worth::AskAgain
            }
            Some(old) if index == old && took < asked.wait / 2 => {
                self.asks_anew = true;
                Worth::AskAgain
            }
            Some(_) => {
                self.index = index;
                Worth::Believe
            }
            None => {
                let went_back = std::mem::take(&mut self.is_suspicious) || index < self.index;
                self.index = index;
                if went_back { Worth::Doubt } else { Worth::Believe }
            }
        }
    }

    /// Somebody else asks now, as far as Consul can tell: what he may see is asked for at once, and compared with the index.
    pub(crate) fn asks_anew(&mut self) {
        self.asks_anew = true;
        self.short_wait = None;
        self.backoff.succeeded();
    }

    /// What was answered could not be confirmed: it is read again, and doubted again.
    pub(crate) fn unconfirmed(&mut self) {
        self.index = 0;
        self.is_suspicious = true;
    }

    /// It failed; how long to pause before the next query. `random` is uniform in 0 to 1.
    pub(crate) fn failed(&mut self, error: &ConsulError, random: f64) -> Duration {
        self.asks_anew = false;
        let is_loss = matches!(error, ConsulError::Unreachable(_) | ConsulError::Broken(_) | ConsulError::Timeout(_));
        self.short_wait = Some(if is_loss { WAIT_AFTER_LOSS } else { WAIT_AFTER_ERROR });
        self.backoff.failed(error, random)
    }
}

/// How long to leave the agent alone after an error.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    is_local: bool,
}

impl Backoff {
    /// A local agent is asked again sooner when it is gone.
    pub(crate) fn new(is_local: bool) -> Self {
        Self { failures: 0, is_local }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause after this error. `random` is uniform in 0 to 1.
    pub(crate) fn failed(&mut self, error: &ConsulError, random: f64) -> Duration {
        let doubling = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let pause = match error {
            ConsulError::Unreachable(_) if self.is_local => doubling.min(UNREACHABLE_PAUSE),
            // An agent with too many connections closes them too.
            ConsulError::Unreachable(_) | ConsulError::Broken(_) | ConsulError::Elsewhere(_) => {
                doubling.min(LONGEST_PAUSE)
            }
            error if error.is_denied() => DENIED_PAUSE.mul_f64(4.0 / 3.0),
            // It costs both sides what was sent of it.
            ConsulError::TooLarge(_) | ConsulError::TooMany(_) => LARGE_PAUSE,
            ConsulError::Status { code: 429, .. } | ConsulError::Timeout(_) | ConsulError::Decode(_) => {
                doubling.clamp(Duration::from_millis(500), LONGEST_PAUSE)
            }
            ConsulError::Status { .. } => doubling.clamp(Duration::from_millis(200), LONGEST_PAUSE),
        };
        pause.mul_f64(0.75 + random / 2.0)
    }
}

/// Lets a burst of queries through and then some a second, whatever the answers are.
#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: f64,
    burst: f64,
    per_second: f64,
    at: Instant,
}

impl Throttle {
    /// For a watch: a change is not delayed, and the average is one query a second, or ten that each brought news.
    pub(crate) fn of_watch(now: Instant) -> Self {
        Self::new(10.0, 1.0, now)
    }

    pub(crate) fn new(burst: f64, per_second: f64, now: Instant) -> Self {
        Self { tokens: burst, burst, per_second, at: now }
    }

    /// Takes a place; how long it has to be waited for.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.per_second) }
    }

    /// The answer was worth it: it costs a tenth.
    pub(crate) fn was_news(&mut self) {
        self.tokens = (self.tokens + 0.9).min(self.burst);
    }

    /// The place was not used: nobody was there to be asked.
    pub(crate) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);
    const EARLY: Duration = Duration::from_millis(5);

    fn at(index: u64) -> Cursor {
        Cursor { index, ..Cursor::new(true) }
    }

    #[test]
    fn the_first_query_does_not_block_and_the_next_does() {
        let mut cursor = Cursor::new(true);
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
    fn a_remembered_index_is_compared_and_never_asked_with() {
        for (answered, worth) in [(Some(20), Worth::Believe), (Some(17), Worth::Believe), (Some(12), Worth::Doubt)] {
            let mut cursor = Cursor::new(true);
            cursor.remember(17);
            cursor.failed(&ConsulError::Unreachable(String::new()), 0.5);
            let ask = cursor.ask(WAIT);
            assert_eq!(ask.index, None, "nor after an error");
            assert_eq!(cursor.answered(ask, answered, EARLY), worth);
            assert_eq!(cursor.ask(WAIT).index, answered);
        }
    }

    #[test]
    fn a_missing_or_zero_index_is_one() {
        for index in [None, Some(0)] {
            let mut cursor = Cursor::new(true);
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
        assert_eq!(cursor.ask(WAIT), Ask { index: Some(329), wait: WAIT_AFTER_LOSS });
        cursor.failed(&ConsulError::Status { code: 500, text: String::new() }, 0.5);
        assert_eq!(cursor.ask(WAIT), Ask { index: Some(329), wait: WAIT_AFTER_ERROR });
        cursor.answered(cursor.ask(WAIT), Some(329), WAIT_AFTER_ERROR);
        assert_eq!(cursor.ask(WAIT).wait, WAIT, "only the first query is short");
    }

    #[test]
    fn an_agent_that_stops_answers_at_once_and_that_is_no_change() {
        let mut cursor = at(329);
        assert_eq!(cursor.answered(cursor.ask(WAIT), Some(329), EARLY), Worth::AskAgain);
        cursor.failed(&ConsulError::Unreachable(String::new()), 0.5);
        assert_eq!(cursor.ask(WAIT).index, Some(329), "a failed probe goes back to the index");
    }

    #[test]
    fn what_was_not_confirmed_stays_doubtful() {
        let mut cursor = at(329);
        cursor.unconfirmed();
        let ask = cursor.ask(WAIT);
        assert_eq!(ask.index, None);
        assert_eq!(cursor.answered(ask, Some(400), EARLY), Worth::Doubt);
    }

    #[test]
    fn pauses_fit_their_errors() {
        let status = |code| ConsulError::Status { code, text: String::new() };
        let mut cursor = at(1);
        assert!(cursor.failed(&status(403), 0.0) >= Duration::from_secs(10));
        let mut cursor = at(1);
        let gone: Vec<_> = (0..9).map(|_| cursor.failed(&ConsulError::Unreachable(String::new()), 0.5)).collect();
        assert_eq!(gone[0], FIRST_PAUSE);
        assert_eq!(gone[8], UNREACHABLE_PAUSE);
        let mut cursor = at(1);
        let busy: Vec<_> = (0..12).map(|_| cursor.failed(&status(500), 0.5)).collect();
        assert_eq!(busy[11], LONGEST_PAUSE);
    }

    fn error(kind: u8) -> ConsulError {
        match kind {
            0 => ConsulError::Unreachable(String::new()),
            1 => ConsulError::Broken(String::new()),
            2 => ConsulError::Decode(String::new()),
            3 => ConsulError::Status { code: 429, text: String::new() },
            _ => ConsulError::Status { code: 500, text: String::new() },
        }
    }

    proptest! {
        /// Whatever the agent answers, at once: ten queries in a burst, then one a second. Connections that are refused
        /// are no queries; they are two a second at most, after the first few.
        #[test]
        fn no_answers_make_it_a_busy_loop(
            answers in prop::collection::vec(prop::result::maybe_err(prop::option::of(0_u64..50), 0_u8..5), 50..300)
        ) {
            let start = Instant::now();
            let (mut now, mut cursor, mut throttle) = (start, Cursor::new(true), Throttle::of_watch(start));
            let mut queries = 0.0;
            for answer in &answers {
                now += throttle.take(now);
                let ask = cursor.ask(WAIT);
                match answer {
                    Ok(index) => {
                        queries += 1.0;
                        cursor.answered(ask, *index, EARLY);
                    }
                    Err(kind) => {
                        let error = error(*kind);
                        if matches!(error, ConsulError::Unreachable(_)) {
                            throttle.give_back();
                        } else {
                            queries += 1.0;
                        }
                        let pause = cursor.failed(&error, 0.0);
                        prop_assert!(pause >= Duration::from_millis(75));
                        now += pause;
                    }
                }
            }
            let spent = now.duration_since(start).as_secs_f64();
            prop_assert!(spent >= queries - 11.0, "{queries} queries in {spent} s");
        }

        /// The index that is asked with is always one that the last good answer had, and never 0.
        #[test]
        fn only_good_answers_move_the_index(steps in prop::collection::vec(prop::result::maybe_err(0_u64..50, 0_u8..5), 1..100)) {
            let mut cursor = Cursor::new(false);
            let mut last = None;
            for step in steps {
                let ask = cursor.ask(WAIT);
                prop_assert!(ask.index.is_none_or(|index| index > 0 && Some(index) == last));
                match step {
                    Ok(index) => {
                        cursor.answered(ask, Some(index), EARLY);
                        last = Some(index.max(1));
                    }
                    Err(kind) => {
                        cursor.failed(&error(kind), 0.5);
                    }
                }
            }
        }
    }
}
