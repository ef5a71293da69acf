//! How an upstream is, in a word: the same one on every page (`/health`, `/ready`, the dashboard and `lictor top`).

use std::time::Instant;

use lictor_core::Upstream;
use lictor_core::breaker::BreakerState;
use lictor_core::standout::Finding;

/// A larger share of errors is a failing upstream.
const FAILING: f64 = 0.05;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Good,
    Warn,
    Bad,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What the word is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    breaker: BreakerState,
    endpoints: usize,
    /// Consul, or whoever says so, has answered.
    is_known: bool,
    /// Endpoints that are not healthy.
    unwell: usize,
    /// Of those, endpoints that fail where others do not.
    failing: usize,
    /// The share of errors of late, where somebody measures.
    errors: f64,
    /// There were retries of late.
    is_retrying: bool,
}

impl Facts {
    /// What is known at any moment.
    pub(super) fn of(upstream: &Upstream, now: Instant) -> Self {
        let count = |is_it: fn(&str) -> bool| upstream.endpoints.iter().filter(|it| is_it(it.state(now))).count();
        Self {
            breaker: upstream.breaker.state(),
            endpoints: upstream.endpoints.len(),
            is_known: upstream.census.is_known,
            unwell: count(|state| state != "healthy"),
            failing: count(|state| state == Finding::Failing.as_str()),
            errors: 0.0,
            is_retrying: false,
        }
    }

    /// With what was measured.
    pub(super) fn measured(self, errors: Option<f64>, retries: Option<f64>) -> Self {
        Self { errors: errors.unwrap_or_default(), is_retrying: retries.is_some_and(|retries| retries > 0.0), ..self }
    }

    /// The worst that is true of it.
    pub(super) fn word(&self) -> (Level, String) {
        let (level, word) = match self.breaker {
            BreakerState::Open => (Level::Bad, "breaker open"),
            _ if self.endpoints == 0 && !self.is_known => (Level::Warn, "not known yet"),
            _ if self.endpoints == 0 => (Level::Bad, "no endpoint"),
            _ if self.errors > FAILING => (Level::Bad, "failing"),
            BreakerState::HalfOpen => (Level::Warn, "probing"),
            BreakerState::Closed if self.failing > 0 => {
                return (Level::Warn, format!("{} of {} failing", self.failing, self.endpoints));
            }
            BreakerState::Closed if self.errors > 0.0 => (Level::Warn, "some errors"),
            BreakerState::Closed if self.unwell > 0 => {
                return (Level::Warn, format!("{} of {} unwell", self.unwell, self.endpoints));
            }
            BreakerState::Closed if self.is_retrying => (Level::Good, "retrying"),
            BreakerState::Closed => (Level::Good, "healthy"),
        };
        (level, word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_for_one_state() {
        let all = Facts {
            breaker: BreakerState::Closed,
            endpoints: 2,
            is_known: true,
            unwell: 0,
            failing: 0,
            errors: 0.0,
            is_retrying: false,
        };
        let none = Facts { endpoints: 0, ..all };
        let (open, half_open) = (BreakerState::Open, BreakerState::HalfOpen);
        for (facts, level, word) in [
            (all, "good", "healthy"),
            (all.measured(Some(0.0), Some(1.0)), "good", "retrying"),
            (all.measured(None, None), "good", "healthy"),
            (Facts { unwell: 1, ..all }, "warn", "1 of 2 unwell"),
            (Facts { unwell: 2, ..all }.measured(None, Some(1.0)), "warn", "2 of 2 unwell"),
            (Facts { unwell: 1, ..all }.measured(Some(0.01), None), "warn", "some errors"),
            (Facts { unwell: 2, failing: 1, ..all }.measured(Some(0.01), None), "warn", "1 of 2 failing"),
            (Facts { unwell: 1, failing: 1, ..all }.measured(Some(0.06), None), "bad", "failing"),
            (all.measured(Some(0.05), None), "warn", "some errors"),
            (all.measured(Some(0.051), None), "bad", "failing"),
            (Facts { breaker: half_open, ..all }, "warn", "probing"),
            (Facts { breaker: half_open, unwell: 2, ..all }.measured(Some(0.04), None), "warn", "probing"),
            (Facts { breaker: half_open, ..all }.measured(Some(0.5), None), "bad", "failing"),
            (none, "bad", "no endpoint"),
            (Facts { breaker: half_open, ..none }, "bad", "no endpoint"),
            (Facts { is_known: false, ..none }, "warn", "not known yet"),
            (Facts { breaker: open, ..all }, "bad", "breaker open"),
            (Facts { breaker: open, ..all }.measured(Some(1.0), Some(1.0)), "bad", "breaker open"),
            (Facts { breaker: open, is_known: false, ..none }, "bad", "breaker open"),
        ] {
            let (is, said) = facts.word();
            assert_eq!((is.as_str(), said.as_str()), (level, word), "{facts:?}");
        }
    }
}
