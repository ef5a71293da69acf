//! What is written down while it happens, by one clock, and the store that looks at fencing tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::check::{At, End, History, Hold, Operation, Pause, Write};

/// Shared by all clients and faults.
#[derive(Debug)]
pub(crate) struct Journal {
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
    is_over: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) history: History,
    /// Operations by what came of them, and losses by what the sidecar said.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Faults with the times at which they began.
    pub(crate) faults: Vec<(At, String)>,
    /// Whoever believes now to have a lock.
    pub(crate) holding: BTreeMap<usize, Holding>,
    /// Sidecars whose clients give nothing back.
    pub(crate) lingering: Vec<usize>,
    /// Writes that the store has refused, by sidecar.
    pub(crate) refused: BTreeMap<usize, u64>,
    /// How often the faults of each lane have all been done.
    pub(crate) rounds: BTreeMap<&'static str, u64>,
    pub(crate) is_over: bool,
    /// The store: by lock, the largest token that it has seen.
    largest: BTreeMap<usize, u64>,
}

/// A lock that is believed to be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) client: usize,
    pub(crate) sidecar: usize,
    pub(crate) lock: usize,
    pub(crate) token: u64,
    pub(crate) held: At,
}

impl State {
    /// The locks that clients of this sidecar believe to have.
    pub(crate) fn held_at(&self, sidecar: usize) -> impl Iterator<Item = &Holding> {
        self.holding.values().filter(move |holding| holding.sidecar == sidecar)
    }
}

impl Journal {
    pub(crate) fn new(ttl: Duration) -> Self {
        let history = History { ttl, ..History::default() };
        let state = Mutex::new(State { history, ..State::default() });
        Self { began: Instant::now(), state, changed: Condvar::new(), is_over: Condvar::new() }
    }

    pub(crate) fn now(&self) -> At {
        self.began.elapsed()
    }

    pub(crate) fn did(&self, operation: Operation) {
        self.change(|state| {
            *state.counts.entry(operation.what.clone()).or_default() += 1;
            state.history.operations.push(operation);
        });
    }

    pub(crate) fn holds(&self, holding: Holding) {
        self.change(|state| {
            state.holding.insert(holding.client, holding);
        });
    }

    pub(crate) fn ended(&self, holding: Holding, end: At, why: End) {
        let Holding { client, sidecar, lock, token, held } = holding;
        self.change(|state| {
            state.holding.remove(&client);
            state.history.holds.push(Hold { client, sidecar, lock, token, held, end, why });
        });
    }

    /// A write to the store, which refuses tokens smaller than one that it has seen.
    pub(crate) fn write(&self, holding: &Holding) {
        let asked = self.now();
        self.change(|state| {
            let largest = state.largest.entry(holding.lock).or_default();
            let is_accepted = holding.token >= *largest;
            *largest = holding.token.max(*largest);
            if !is_accepted {
                *state.refused.entry(holding.sidecar).or_default() += 1;
            }
            let Holding { client, lock, token, .. } = *holding;
            state.history.writes.push(Write { client, lock, token, asked, answered: self.now(), is_accepted });
        });
    }

    pub(crate) fn fault(&self, what: String) {
        let now = self.now();
        println!("{:7.3} {what}", now.as_secs_f64());
        self.change(|state| state.faults.push((now, what)));
    }

    pub(crate) fn paused(&self, pause: Pause) {
        self.change(|state| state.history.pauses.push(pause));
    }

    pub(crate) fn round(&self, lane: &'static str) {
        self.change(|state| *state.rounds.entry(lane).or_default() += 1);
    }

    /// Clients of this sidecar keep what they have until it is lost, or until they need not any more.
    pub(crate) fn linger(&self, sidecar: usize, do_they: bool) {
        self.change(|state| {
            state.lingering.retain(|other| *other != sidecar);
            if do_they {
                state.lingering.push(sidecar);
            }
        });
    }

    pub(crate) fn lingers(&self, sidecar: usize) -> bool {
        let state = self.state.lock();
        !state.is_over && state.lingering.contains(&sidecar)
    }

    /// Everybody stops.
    pub(crate) fn over(&self) {
        self.change(|state| state.is_over = true);
        self.is_over.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// Until it is over, but not for longer than this.
    pub(crate) fn rest(&self, most: Duration) {
        let mut state = self.state.lock();
        self.is_over.wait_while_for(&mut state, |state| !state.is_over, most);
    }

    /// Until this is so, or all is over, but not for longer than this.
    pub(crate) fn wait(&self, most: Duration, is_so: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.is_over && !is_so(state), most);
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.state.lock())
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state.lock());
        self.changed.notify_all();
    }
}
