//! The application under `lictor run`, from its first start to its last end: whether it runs, and whether it is started
//! again after it has ended by itself. What a start is, is `child`'s.

use std::time::Duration;

use lictor_config::{Restart, SignalTo};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::child::{CannotStart, Child, Reaper};
use crate::exit::Exit;

/// A run of this length ends a row of failures.
const RECOVERED: Duration = Duration::from_secs(600);
/// The longest wait, where the configured delay is not longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The application, where it is ours to start.
#[derive(Debug)]
pub(crate) struct Application {
    /// Empty where there is none.
    command: Vec<String>,
    reaper: Reaper,
    restarts: Restarts,
    /// It runs, or has ended and is not started again yet.
    child: Option<Child>,
    started: Instant,
    /// When it is started again.
    due: Option<Instant>,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended so.
    Ended(Exit),
    /// Now it is to be started again.
    Due,
}

impl Application {
    pub(crate) fn new(command: &[String], how: Restart) -> Self {
        let restarts = Restarts { how, in_a_row: 0 };
        let command = command.to_vec();
        Self { command, reaper: Reaper::default(), restarts, child: None, started: Instant::now(), due: None }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.command.is_empty()
    }

    pub(crate) fn start(&mut self, variables: Vec<(String, String)>, withheld: &[String]) -> Result<(), CannotStart> {
        self.due = None;
        self.child = Some(Child::start(&self.reaper, &self.command, variables, withheld)?);
        self.started = Instant::now();
        Ok(())
    }

    /// Waits for it to end, or to be due again.
    pub(crate) async fn next(&mut self) -> Change {
        match (self.due, &mut self.child) {
            (Some(due), _) => {
                sleep_until(due).await;
                Change::Due
            }
            (None, Some(child)) => Change::Ended(child.exited().await),
            (None, None) => std::future::pending().await,
        }
    }

    /// Whether it will be started again after an end with this code: [`next`](Self::next) says when.
    pub(crate) fn again_after(&mut self, code: u8) -> Option<Again> {
        let again = self.restarts.after(code, self.started.elapsed());
        self.due = again.map(|again| Instant::now() + again.after);
        again
    }

    /// Sends it a signal; `false` where there is nobody to send it to.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.child.as_ref().inspect(|child| child.signal(signal)).is_some()
    }

    /// Ends what a run has left that has ended.
    pub(crate) fn signal_rest(&self, signal: Signal, whom: SignalTo) {
        if let Some(child) = &self.child {
            child.signal_all(signal, whom);
        }
    }

    /// What is left of it when all else ends.
    pub(crate) fn into_child(self) -> Option<Child> {
        self.child
    }
}

/// How often it was started again, and may be.
#[derive(Debug)]
struct Restarts {
    how: Restart,
    in_a_row: u32,
}

/// Another start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// From now.
    pub(crate) after: Duration,
    /// In a row, this one included.
    pub(crate) number: u32,
    pub(crate) max: u32,
}

impl Restarts {
    /// What follows an end with this code, 128 + n for a signal, of an application that ran for so long.
    fn after(&mut self, code: u8, ran: Duration) -> Option<Again> {
        let Restart::OnFailure { delay, max } = self.how else { return None };
        if code == 0 {
            return None;
        }
        if ran >= RECOVERED {
            self.in_a_row = 0;
        }
        if self.in_a_row >= max {
            return None;
        }
        let doubled = delay.saturating_mul(2_u32.saturating_pow(self.in_a_row.min(31)));
        self.in_a_row += 1;
        Some(Again { after: doubled.min(LONGEST.max(delay)), number: self.in_a_row, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(how: Restart) -> Restarts {
        Restarts { how, in_a_row: 0 }
    }

    fn seconds(restarts: &mut Restarts, ends: &[(u8, u64)]) -> Vec<Option<u64>> {
        let after = |&(code, ran): &(u8, u64)| restarts.after(code, Duration::from_secs(ran));
        ends.iter().map(after).map(|again| again.map(|again| again.after.as_secs())).collect()
    }

    #[test]
    fn failures_are_restarted_ever_later_and_not_for_ever() {
        let on_failure = |delay, max| restarts(Restart::OnFailure { delay: Duration::from_secs(delay), max });
        let crash = (1, 0);
        for (mut restarts, ends, expected) in [
            (restarts(Restart::Never), vec![crash], vec![None]),
            (on_failure(5, 3), vec![crash; 4], vec![Some(5), Some(10), Some(20), None]),
            (on_failure(5, 3), vec![(0, 0)], vec![None]),
            (on_failure(5, 3), vec![(137, 0), (143, 0), (0, 0)], vec![Some(5), Some(10), None]),
            (on_failure(5, 1), vec![crash, (1, 600), crash], vec![Some(5), Some(5), None]),
            (on_failure(5, 2), vec![crash, (1, 599), crash], vec![Some(5), Some(10), None]),
            (on_failure(50, 9), vec![crash; 3], vec![Some(50), Some(60), Some(60)]),
            (on_failure(90, 9), vec![crash; 2], vec![Some(90), Some(90)]),
            (on_failure(0, 2), vec![crash; 3], vec![Some(0), Some(0), None]),
        ] {
            assert_eq!(seconds(&mut restarts, &ends), expected, "{ends:?}");
        }
        let mut endless = on_failure(5, u32::MAX);
        assert_eq!(seconds(&mut endless, &[crash; 100]).last(), Some(&Some(60)));
    }
}
