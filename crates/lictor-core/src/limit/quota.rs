//! How much one key has, and the arithmetic of it. Whole numbers alone; a request that is refused is not counted.

use std::fmt;
use std::time::Duration;

/// So much of what, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How it is counted.
    pub algorithm: Algorithm,
    /// At least 1.
    pub requests: u32,
    /// Within this time.
    pub window: Duration,
    /// What a token bucket holds, at least 1: so many at once, after a rest.
    pub burst: u32,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// A bucket that refills steadily: `burst` at once, and `requests` in each window after that (GCRA, ITU-T I.371).
    #[default]
    TokenBucket,
    /// What this window and, in proportion, the one before had. It takes the requests of the window before for evenly spread.
    SlidingWindow,
    /// What this window had. A window begins with a key's first request; at its edge twice as many may come at once.
    FixedWindow,
}

/// What is remembered of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When it is as if the key had never asked. A token bucket is nothing but this.
    pub(super) until: u64,
    /// In the window that began a window (two, of a sliding one) before `until`.
    count: u32,
    /// In the window before.
    before: u32,
}

/// What one look at a key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub is_admitted: bool,
    /// How many there are at most.
    pub limit: u32,
    /// How many more may come at once.
    pub remaining: u32,
    /// When all are there again; if refused: when one is.
    pub reset: Duration,
}

impl Quota {
    /// Takes one, if there is one.
    pub fn take(&self, state: &mut State, now: u64) -> Decision {
        match self.algorithm {
            Algorithm::TokenBucket => self.token(state, now),
            Algorithm::FixedWindow => self.fixed(state, now),
            Algorithm::SlidingWindow => self.sliding(state, now),
        }
    }

    /// Says what [`Quota::take`] would, and takes nothing.
    pub fn look(&self, state: &State, now: u64) -> Decision {
        self.take(&mut { *state }, now)
    }

    /// Gives one back that was taken for a request that another limit refused.
    pub fn give_back(&self, state: &mut State, now: u64) {
        match self.algorithm {
            Algorithm::TokenBucket => {
                state.until = state.until.saturating_sub(self.interval()).max(now.min(state.until));
            }
            Algorithm::FixedWindow | Algorithm::SlidingWindow => state.count = state.count.saturating_sub(1),
        }
    }

    /// The part that one of so many has: at least one request.
    #[must_use]
    pub fn divided_by(mut self, parts: u32) -> Self {
        let part = |whole: u32| (whole / parts.max(1)).max(1);
        (self.requests, self.burst) = (part(self.requests), part(self.burst));
        self
    }

    /// The most that can be had: what `RateLimit-Limit` tells.
    pub fn limit(&self) -> u32 {
        if self.algorithm == Algorithm::TokenBucket { self.burst } else { self.requests }
    }

    /// Between two requests at the rate, rounded up: never more than the rate.
    fn interval(&self) -> u64 {
        nanos(self.window).div_ceil(u64::from(self.requests.max(1))).max(1)
    }

    fn token(&self, state: &mut State, now: u64) -> Decision {
        let interval = self.interval();
        let room = interval.saturating_mul(u64::from(self.burst));
        let next = state.until.max(now).saturating_add(interval);
        let debt = next - now;
        if debt > room {
            return self.refuse(debt - room);
        }
        state.until = next;
        self.admit((room - debt) / interval, debt)
    }

    fn fixed(&self, state: &mut State, now: u64) -> Decision {
        if state.until <= now {
            *state = State { until: now.saturating_add(nanos(self.window)), count: 0, before: 0 };
        }
        let reset = state.until - now;
        if state.count >= self.requests {
            return self.refuse(reset);
        }
        state.count += 1;
        self.admit(u64::from(self.requests - state.count), reset)
    }

    fn sliding(&self, state: &mut State, now: u64) -> Decision {
        let window = nanos(self.window);
        let rolled = if state.until <= now {
            State { until: now.saturating_add(2 * window), count: 0, before: 0 }
        } else if state.until - now <= window {
            State { until: state.until + window, count: 0, before: state.count }
        } else {
            *state
        };
        // What is left of this window; the clock of another thread may be a little ahead.
        let left = (rolled.until - now).saturating_sub(window).min(window);
        let (window, all) = (u128::from(window), u128::from(self.requests));
        let used = u128::from(rolled.before) * u128::from(left) + u128::from(rolled.count) * window;
        if used + window > all * window {
            return self.refuse(wait(all, &rolled, u128::from(left), window));
        }
        *state = State { count: rolled.count + 1, ..rolled };
        self.admit(((all * window - used - window) / window) as u64, state.until - now)
    }

    fn admit(&self, remaining: u64, reset: u64) -> Decision {
        let limit = self.limit();
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX).min(limit);
        Decision { is_admitted: true, limit, remaining, reset: Duration::from_nanos(reset) }
    }

    fn refuse(&self, wait: u64) -> Decision {
        Decision { is_admitted: false, limit: self.limit(), remaining: 0, reset: Duration::from_nanos(wait.max(1)) }
    }
}

/// How long until a sliding window has one: when so little of the window before counts that there is room, be it of this
/// window's or, if that is full by itself, of the next.
fn wait(all: u128, state: &State, left: u128, window: u128) -> u64 {
    let (counted, free, more) = match u128::from(state.count) {
        count if count < all => (u128::from(state.before), all - 1 - count, 0),
        count => (count, all - 1, left),
    };
    let whole = if more > 0 { window } else { left };
    let left_then = (free * window).checked_div(counted).unwrap_or(window);
    (more + whole.saturating_sub(left_then)) as u64
}

impl State {
    /// Whether nothing is lost when it is forgotten.
    pub fn is_as_new(&self, now: u64) -> bool {
        self.until <= now
    }
}

impl Algorithm {
    /// All of them, by their words.
    pub const ALL: [(&'static str, Self); 3] = [
        ("token_bucket", Self::TokenBucket),
        ("sliding_window", Self::SlidingWindow),
        ("fixed_window", Self::FixedWindow),
    ];
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenBucket => "token_bucket",
            Self::SlidingWindow => "sliding_window",
            Self::FixedWindow => "fixed_window",
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const ALL: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow];

    fn quota(algorithm: Algorithm, requests: u32, seconds: u64) -> Quota {
        Quota { algorithm, requests, window: Duration::from_secs(seconds), burst: requests }
    }

    #[test]
    fn a_limit_of_so_many_admits_so_many_and_tells_how_many_are_left() {
        for algorithm in ALL {
            for requests in [1, 2, 5, 100] {
                let (quota, mut state) = (quota(algorithm, requests, 60), State::default());
                for taken in 1..=requests {
                    let told = quota.take(&mut state, 7 * SECOND);
                    let left = (told.is_admitted, told.limit, told.remaining);
                    assert_eq!(left, (true, requests, requests - taken), "{algorithm} {requests}: {taken}");
                }
                let before = state;
                let told = quota.take(&mut state, 7 * SECOND);
                assert_eq!((told.is_admitted, told.remaining), (false, 0), "{algorithm} {requests}");
                assert!(told.reset > Duration::ZERO && told.reset <= Duration::from_secs(120), "{told:?}");
                assert_eq!(state, before, "{algorithm}: a refused request is not counted");
            }
        }
    }

    #[test]
    fn a_client_that_waits_as_told_is_admitted_and_a_moment_earlier_it_is_not() {
        for algorithm in ALL {
            for (requests, at) in [(1, 0), (3, 0), (5, 20), (7, 59)] {
                let (quota, mut state) = (quota(algorithm, requests, 60), State::default());
                let mut now = SECOND;
                for round in 0..200 {
                    now += at * SECOND * u64::from(round % 3 == 0);
                    let told = quota.take(&mut state, now);
                    if !told.is_admitted {
                        let wait = u64::try_from(told.reset.as_nanos()).unwrap();
                        assert!(!quota.look(&state, now + wait - 1).is_admitted, "{algorithm} {requests}: {told:?}");
                        now += wait;
                        assert!(quota.take(&mut state, now).is_admitted, "{algorithm} {requests}: {told:?} {state:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn at_the_edge_of_a_window_only_a_fixed_one_admits_twice_as_many() {
        for (algorithm, late, later) in
            [(Algorithm::FixedWindow, 9, 10), (Algorithm::SlidingWindow, 9, 0), (Algorithm::TokenBucket, 10, 0)]
        {
            let (quota, mut state) = (quota(algorithm, 10, 60), State::default());
            assert!(quota.take(&mut state, SECOND).is_admitted);
            let mut at = |second| (0..20).filter(|_| quota.take(&mut state, second * SECOND).is_admitted).count();
            assert_eq!((at(60), at(61)), (late, later), "{algorithm}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_admits_nothing_more_and_loses_nothing() {
        for algorithm in ALL {
            let (quota, mut state) = (quota(algorithm, 4, 10), State::default());
            assert_eq!((0..9).filter(|_| quota.take(&mut state, 100 * SECOND).is_admitted).count(), 4);
            for back in [99, 95, 50, 1, 0] {
                assert!(!quota.take(&mut state, back * SECOND).is_admitted, "{algorithm} {back}");
            }
            assert!(quota.take(&mut state, 121 * SECOND).is_admitted, "{algorithm}");
            assert!(state.until > 121 * SECOND && state.until <= 150 * SECOND, "{algorithm} {state:?}");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        for algorithm in ALL {
            let (quota, mut state) = (quota(algorithm, 3, 30), State::default());
            for now in [5, 6, 7] {
                quota.take(&mut state, now * SECOND);
            }
            let left = |state: &State| quota.look(state, 7 * SECOND).is_admitted;
            assert!(!left(&state), "{algorithm}");
            quota.give_back(&mut state, 7 * SECOND);
            assert!(left(&state), "{algorithm}");
            for _ in 0..9 {
                quota.give_back(&mut state, 7 * SECOND);
            }
            assert_eq!((0..9).filter(|_| quota.take(&mut state, 7 * SECOND).is_admitted).count(), 3, "{algorithm}");
        }
    }

    #[test]
    fn a_part_of_a_limit_is_never_nothing_and_keeps_what_was_counted() {
        for algorithm in ALL {
            let whole = quota(algorithm, 10, 60);
            for (parts, requests) in [(0, 10), (1, 10), (2, 5), (3, 3), (10, 1), (11, 1), (u32::MAX, 1)] {
                assert_eq!(whole.divided_by(parts).requests, requests);
            }
            let mut state = State::default();
            assert_eq!((0..20).filter(|_| whole.take(&mut state, SECOND).is_admitted).count(), 10);
            let half = whole.divided_by(2);
            assert!(!half.take(&mut state, SECOND).is_admitted, "{algorithm}: a new division is no new budget");
        }
    }
}
