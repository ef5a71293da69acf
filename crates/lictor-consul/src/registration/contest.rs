//! When our registration is given up where it was, and when somebody else makes it his. Pure.

use std::time::{Duration, Instant};

use crate::agent::ConsulError;

/// So often in a row must an address lead to others before the agent that had our registration is given up.
const STRANGERS: u32 = 3;
/// So often within this time must our id be another's to be contested.
const CONTEST: u32 = 3;
const CONTEST_WITHIN: Duration = Duration::from_secs(300);

/// How often the address has led to others than the agent that has our registration, in a row.
#[derive(Debug, Default)]
pub(super) struct Strangers(u32);

impl Strangers {
    /// Whether that is often enough to register there.
    pub(super) fn moves(&mut self, error: &ConsulError) -> bool {
        self.0 = if matches!(error, ConsulError::Elsewhere(_)) { self.0 + 1 } else { 0 };
        if self.0 < STRANGERS {
            return false;
        }
        self.0 = 0;
        true
    }
}

/// Whether somebody else registers our id: it was another's, again and again. Once is a predecessor with another port.
#[derive(Debug, Default)]
pub(super) struct Contest {
    since: Option<Instant>,
    times: u32,
    is_told: bool,
}

impl Contest {
    /// It was another's again; whether it is to be told that this is a contest.
    pub(super) fn is_one(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > CONTEST_WITHIN) {
            (self.since, self.times) = (Some(now), 0);
        }
        self.times += 1;
        self.times >= CONTEST && !std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_in_a_row_move_us_and_any_other_error_begins_anew() {
        let (elsewhere, gone) = (ConsulError::Elsewhere(String::new()), ConsulError::Unreachable(String::new()));
        let mut strangers = Strangers::default();
        let errors = [&elsewhere, &elsewhere, &gone, &elsewhere, &elsewhere, &elsewhere, &elsewhere];
        let moves: Vec<bool> = errors.into_iter().map(|error| strangers.moves(error)).collect();
        assert_eq!(moves, [false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_contest_is_told_once_and_a_predecessor_is_none() {
        let start = Instant::now();
        let mut slow = Contest::default();
        assert!((0..9_u32).all(|round| !slow.is_one(start + CONTEST_WITHIN * round * 2)));
        let mut quick = Contest::default();
        let told: Vec<bool> = (0..5).map(|_| quick.is_one(start)).collect();
        assert_eq!(told, [false, false, true, false, false]);
    }
}
