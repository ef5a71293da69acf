//! Whether a history of locks is one that the documentation allows. Pure: what happened is an argument.
//!
//! A client has a lock surely from the moment when it read `held` until it read `lost`, saw its connection end, or began to
//! give it back or to leave, whichever came first. A sidecar that is stopped (SIGSTOP) can tell its client nothing: what it
//! had said holds surely until it was stopped, and from then on the store's look at fencing tokens alone protects.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Since the history began, by one monotonic clock.
pub(crate) type At = Duration;

/// A stopped sidecar tells this soon after it goes on that a lock is lost; a bound for debug builds on busy machines.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What clients did and saw, and which sidecars were stopped meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) holds: Vec<Hold>,
    /// In the order in which the store did them.
    pub(crate) writes: Vec<Write>,
    pub(crate) pauses: Vec<Pause>,
    /// The least time that a lock lives without a renewal.
    pub(crate) ttl: Duration,
}

/// A client asks for a lock, gives one back, or is told that one is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) lock: usize,
    pub(crate) asked: At,
    pub(crate) answered: At,
    pub(crate) what: String,
}

/// A lock that a client was told to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) client: usize,
    pub(crate) sidecar: usize,
    pub(crate) lock: usize,
    pub(crate) token: u64,
    /// It has read `held`.
    pub(crate) held: At,
    /// It stops to believe that.
    pub(crate) end: At,
    pub(crate) why: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It read `lost`.
    Lost,
    /// Its connection ended without a word.
    Cut,
    /// It was about to give the lock back.
    Released,
    /// It was about to close its connection.
    Left,
}

/// A write to the store, with a fencing token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) client: usize,
    pub(crate) lock: usize,
    pub(crate) token: u64,
    pub(crate) asked: At,
    pub(crate) answered: At,
    pub(crate) is_accepted: bool,
}

/// SIGSTOP, which came after `from`, and SIGCONT, which came after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) sidecar: usize,
    pub(crate) from: At,
    pub(crate) to: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    /// Two have one lock.
    Exclusion,
    /// A later holder's token is not larger.
    Growth,
    /// The store took a write of an older holder after one of a newer.
    Fence,
    /// The store refused a write of one that surely had the lock.
    Refusal,
    /// A sidecar that was stopped for longer than a lock lives does not say that it is lost.
    Told,
    /// No history: something ends before it begins, or a client does two things at once.
    Form,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) law: Law,
    pub(crate) lock: usize,
    pub(crate) at: At,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of lock {} at {:?}: {}", self.law, self.lock, self.at, self.text)
    }
}

impl History {
    /// All that there are, in the order of time; of a pair the second is told.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut found = self.malformed();
        let mut holds: Vec<&Hold> = self.holds.iter().collect();
        holds.sort_by_key(|hold| (hold.lock, hold.held));
        for of_one in holds.chunk_by(|a, b| a.lock == b.lock) {
            self.overlaps(of_one, &mut found);
        }
        self.stale(&mut found);
        self.refused(&mut found);
        self.untold(&mut found);
        found.sort_by_key(|violation| (violation.at, violation.law));
        found
    }

    /// Until when it surely has the lock; not at all where that is before `held`.
    fn surely_until(&self, hold: &Hold) -> At {
        let pauses = self.pauses.iter().filter(|pause| pause.sidecar == hold.sidecar);
        let within = pauses.filter(|pause| pause.from < hold.end && hold.held < pause.to);
        within.map(|pause| pause.from).fold(hold.end, At::min)
    }

    /// Of one lock, in the order in which they began.
    fn overlaps(&self, holds: &[&Hold], found: &mut Vec<Violation>) {
        let Some((mut longest, rest)) = holds.split_first() else { return };
        let mut largest = longest;
        for hold in rest {
            let told = |law, before: &Hold| Violation {
                law,
                lock: hold.lock,
                at: hold.held,
                text: format!("{hold:?} after {before:?}"),
            };
            if hold.held < self.surely_until(longest) {
                found.push(told(Law::Exclusion, longest));
            }
            if hold.token <= largest.token {
                found.push(told(Law::Growth, largest));
            }
            if self.surely_until(hold) > self.surely_until(longest) {
                longest = hold;
            }
            if hold.token > largest.token {
                largest = hold;
            }
        }
    }

    fn stale(&self, found: &mut Vec<Violation>) {
        let mut newest: BTreeMap<usize, &Write> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.is_accepted) {
            let before = newest.get(&write.lock).copied().filter(|before| before.token > write.token);
            if let Some(before) = before {
                let text = format!("{write:?} was taken after {before:?}");
                found.push(Violation { law: Law::Fence, lock: write.lock, at: write.answered, text });
            } else {
                newest.insert(write.lock, write);
            }
        }
    }

    fn refused(&self, found: &mut Vec<Violation>) {
        let mut holds: BTreeMap<(usize, usize, u64), &Hold> = BTreeMap::new();
        holds.extend(self.holds.iter().map(|hold| ((hold.client, hold.lock, hold.token), hold)));
        for write in self.writes.iter().filter(|write| !write.is_accepted) {
            let hold = holds.get(&(write.client, write.lock, write.token));
            let surely = hold.filter(|hold| hold.held <= write.asked && write.answered < self.surely_until(hold));
            if let Some(hold) = surely {
                let text = format!("{write:?} within {hold:?}");
                found.push(Violation { law: Law::Refusal, lock: write.lock, at: write.answered, text });
            }
        }
    }

    fn untold(&self, found: &mut Vec<Violation>) {
        for pause in self.pauses.iter().filter(|pause| pause.from + self.ttl < pause.to) {
            let of_it = self.holds.iter().filter(|hold| hold.sidecar == pause.sidecar);
            for hold in of_it.filter(|hold| hold.held < pause.from && pause.to < hold.end) {
                let is_told = matches!(hold.why, End::Lost | End::Cut) && hold.end <= pause.to + TOLD_WITHIN;
                if !is_told {
                    let text = format!("{hold:?} after {pause:?}");
                    found.push(Violation { law: Law::Told, lock: hold.lock, at: hold.end, text });
                }
            }
        }
    }

    fn malformed(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut wrong = |lock, at, text| found.push(Violation { law: Law::Form, lock, at, text });
        for hold in self.holds.iter().filter(|hold| hold.end < hold.held) {
            wrong(hold.lock, hold.held, format!("{hold:?}"));
        }
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        operations.sort_by_key(|operation| (operation.client, operation.asked, operation.answered));
        for operation in operations.iter().filter(|operation| operation.answered < operation.asked) {
            wrong(operation.lock, operation.asked, format!("{operation:?}"));
        }
        for pair in operations.windows(2).filter(|pair| pair[0].client == pair[1].client) {
            if pair[1].asked < pair[0].answered {
                wrong(pair[1].lock, pair[1].asked, format!("{:?} within {:?}", pair[1], pair[0]));
            }
        }
        found
    }
}

/// Bad histories by hand: a checker that finds nothing in them shows nothing.
mod tests {
    use super::*;

    fn at(millis: u64) -> At {
        Duration::from_millis(millis)
    }

    /// Of the lock 0, by the client of the same number as its sidecar.
    fn hold(client: usize, token: u64, held: u64, end: u64, why: End) -> Hold {
        Hold { client, sidecar: client, lock: 0, token, held: at(held), end: at(end), why }
    }

    fn write(client: usize, token: u64, when: u64, is_accepted: bool) -> Write {
        Write { client, lock: 0, token, asked: at(when), answered: at(when + 1), is_accepted }
    }

    fn history(holds: &[Hold], writes: &[Write], pauses: &[Pause]) -> History {
        let (holds, writes, pauses) = (holds.to_vec(), writes.to_vec(), pauses.to_vec());
        History { operations: Vec::new(), holds, writes, pauses, ttl: at(10_000) }
    }

    fn laws(history: &History) -> Vec<Law> {
        history.violations().iter().map(|violation| violation.law).collect()
    }

    const PAUSED: Pause = Pause { sidecar: 0, from: Duration::from_secs(1), to: Duration::from_secs(30) };

    #[test]
    fn one_after_the_other_is_good() {
        let one_by_one = [
            hold(0, 3, 0, 100, End::Released),
            hold(1, 4, 100, 200, End::Lost),
            hold(0, 9, 5_200, 5_300, End::Left),
            Hold { lock: 1, ..hold(1, 1, 50, 150, End::Cut) }, // another lock is no neighbour
        ];
        let writes = [write(0, 3, 10, true), write(0, 3, 20, true), write(1, 4, 110, true), write(0, 3, 120, false)];
        assert_eq!(laws(&history(&one_by_one, &writes, &[])), []);
        assert_eq!(laws(&History::default()), []);
    }

    #[test]
    fn two_holders_at_once_are_found() {
        for (second, expected) in [(99, vec![Law::Exclusion]), (100, vec![])] {
            for why in [End::Lost, End::Cut, End::Released, End::Left] {
                let two = [hold(1, 2, second, 200, why), hold(0, 1, 0, 100, why)];
                assert_eq!(laws(&history(&two, &[], &[])), expected, "{why:?} at {second}");
            }
        }
        // Who had it for long is found also behind one who had it shortly; the same client is no exception.
        let behind =
            [hold(0, 1, 0, 1_000, End::Lost), hold(1, 2, 100, 200, End::Released), hold(1, 3, 300, 400, End::Released)];
        assert_eq!(laws(&history(&behind, &[], &[])), [Law::Exclusion; 2]);
        assert_eq!(
            laws(&history(&[hold(0, 1, 0, 9, End::Lost), hold(0, 2, 5, 20, End::Lost)], &[], &[])),
            [Law::Exclusion]
        );
    }

    #[test]
    fn a_token_that_goes_back_or_comes_twice_is_found() {
        for (token, expected) in [(6, vec![]), (5, vec![Law::Growth]), (4, vec![Law::Growth])] {
            let holds = [hold(0, 5, 0, 10, End::Lost), hold(1, token, 20, 30, End::Lost)];
            assert_eq!(laws(&history(&holds, &[], &[])), expected, "{token}");
        }
        // The largest before counts, not the last.
        let holds = [
            hold(0, 5, 0, 10, End::Lost),
            hold(1, 3, 20, 30, End::Lost),
            hold(1, 4, 40, 50, End::Lost),
            hold(1, 6, 60, 70, End::Lost),
        ];
        assert_eq!(laws(&history(&holds, &[], &[])), [Law::Growth; 2]);
    }

    #[test]
    fn a_store_that_takes_an_older_holders_write_after_a_newers_is_found() {
        let holds = [hold(0, 1, 0, 10, End::Lost), hold(1, 2, 20, 90, End::Lost)];
        let late = |is_accepted| [write(0, 1, 5, true), write(1, 2, 30, true), write(0, 1, 40, is_accepted)];
        assert_eq!(laws(&history(&holds, &late(true), &[])), [Law::Fence]);
        assert_eq!(laws(&history(&holds, &late(false), &[])), []);
    }

    #[test]
    fn a_holder_whose_write_is_refused_is_found() {
        let holds = [hold(0, 1, 0, 50, End::Lost)];
        for (when, expected) in [(10, vec![Law::Refusal]), (49, vec![]), (60, vec![])] {
            assert_eq!(laws(&history(&holds, &[write(0, 1, when, false)], &[])), expected, "{when}");
        }
        assert_eq!(laws(&history(&holds, &[write(0, 2, 10, false)], &[])), [], "nobody's token");
    }

    #[test]
    fn a_stopped_sidecar_excuses_what_it_could_not_tell_and_nothing_else() {
        let stopped = hold(0, 1, 0, 30_010, End::Lost);
        let next = |held| hold(1, 2, held, 31_000, End::Released);
        let refused = [write(1, 2, 25_100, true), write(0, 1, 25_200, false)];
        assert_eq!(laws(&history(&[stopped.clone(), next(25_000)], &refused, &[PAUSED])), []);
        assert_eq!(laws(&history(&[stopped.clone(), next(25_000)], &refused, &[])), [Law::Exclusion, Law::Refusal]);
        // Before it was stopped, and where another one was.
        assert_eq!(laws(&history(&[stopped.clone(), next(999)], &[], &[PAUSED])), [Law::Exclusion]);
        let another = Pause { sidecar: 1, ..PAUSED };
        let found = laws(&history(&[stopped, next(25_000)], &[], &[another]));
        assert_eq!(found, [Law::Exclusion]);
        // Once it goes on, what it says counts: `held` that comes too late is no excuse.
        let late = hold(0, 1, 30_001, 30_002, End::Lost);
        let found = laws(&history(&[next(25_000), late], &[], &[PAUSED]));
        assert_eq!(found, [Law::Exclusion, Law::Growth]);
    }

    #[test]
    fn a_stopped_sidecar_that_does_not_tell_is_found() {
        for (end, why, expected) in [
            (30_010, End::Lost, vec![]),
            (30_010, End::Cut, vec![]),
            (35_001, End::Lost, vec![Law::Told]),
            (31_000, End::Released, vec![Law::Told]),
            (20_000, End::Left, vec![]),
        ] {
            assert_eq!(laws(&history(&[hold(0, 1, 0, end, why)], &[], &[PAUSED])), expected, "{end} {why:?}");
        }
        let short = Pause { to: at(9_000), ..PAUSED };
        assert_eq!(laws(&history(&[hold(0, 1, 0, 50_000, End::Released)], &[], &[short])), []);
    }

    #[test]
    fn what_is_no_history_is_found() {
        let operation = |client, asked, answered| Operation {
            client,
            lock: 0,
            asked: at(asked),
            answered: at(answered),
            what: String::new(),
        };
        let of = |operations: &[Operation]| History { operations: operations.to_vec(), ..History::default() };
        assert_eq!(laws(&of(&[operation(0, 0, 5), operation(0, 5, 6), operation(1, 3, 9)])), []);
        assert_eq!(laws(&of(&[operation(0, 0, 5), operation(0, 4, 6)])), [Law::Form], "two at once");
        assert_eq!(laws(&of(&[operation(0, 5, 4)])), [Law::Form]);
        assert_eq!(laws(&history(&[hold(0, 1, 5, 4, End::Lost)], &[], &[])), [Law::Form]);
    }
}
