//! Two never have a lock at once: clients of several sidecars take locks and give them back while leaders, agents, sidecars and
//! clients go, all that they see is written down, and the history is checked against what the documentation says.
//!
//! `LOCKS_SEED=7` chooses what clients and faults draw; how their threads meet is the machine's. `LOCKS_MINUTES=15` lets a machine
//! that is busy with something else take so long.

mod check;
mod client;
mod faults;
mod journal;

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_testkit::{Consul, Sidecar, lictor};
use parking_lot::Mutex;

use check::{At, History};
use client::Client;
use faults::Host;
use journal::{Journal, State};

const TOKEN: &str = "0123456789abcdef";
/// Consul's least.
const TTL: Duration = Duration::from_secs(10);
/// How long nobody gets a lock whose holder was lost: shorter than `TTL`, as long, and longer.
const DELAYS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(12)];
const LOCKS: usize = 10;
const HOSTS: usize = 4;
const CLIENTS_OF_A_HOST: usize = 8;
const OPERATIONS: usize = 10_000;
/// So many of them at least are locks that were had.
const HOLDS: usize = 1_000;
/// For each thing that a fault waits for.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "five minutes of locks and faults, with eleven processes"]
fn two_never_have_a_lock_at_once_whoever_dies_in_ten_thousand_operations() {
    let seed = number("LOCKS_SEED", 20);
    let at_most = Duration::from_secs(60 * number("LOCKS_MINUTES", 5));
    println!("LOCKS_SEED={seed}");
    let journal = Journal::new(TTL);
    let mut servers = Consul::cluster();
    let host = |number| {
        let agent = servers[0].client();
        let sidecar = serve(&agent);
        Host { number, agent, sidecar }
    };
    let mut hosts: Vec<Host> = (0..HOSTS).map(host).collect();
    let doors: Vec<Mutex<String>> = hosts.iter().map(|host| Mutex::new(host.sidecar.admin())).collect();
    let (stopped, restarted) = hosts.split_at_mut(HOSTS / 2);
    println!("{:?}: the cluster is up", journal.now());
    std::thread::scope(|scope| {
        for number in 0..HOSTS * CLIENTS_OF_A_HOST {
            let sidecar = number % HOSTS;
            let (door, random) = (&doors[sidecar], Random::new(seed, number as u64));
            let client = Client { number, sidecar, door, journal: &journal, random };
            scope.spawn(|| client.run());
        }
        let [one, two] = [1_000, 1_001].map(|lane| Random::new(seed, lane));
        scope.spawn(|| faults::of_servers(&journal, &mut servers));
        scope.spawn(|| faults::of_agents(&journal, restarted, one));
        scope.spawn(|| faults::of_sidecars(&journal, stopped, &doors, two));
        journal.wait(at_most, is_enough);
        journal.over();
    });
    report(&journal);
    journal.look(|state| assert!(is_enough(state), "it was not enough; is this machine busy with something else?"));
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a variable of this test is a number"))
}

/// Each lane has done all its faults, and a stopped sidecar has had a successor.
fn is_enough(state: &State) -> bool {
    let History { operations, holds, .. } = &state.history;
    let is_much = operations.len() >= OPERATIONS && holds.len() >= HOLDS;
    is_much && state.rounds.len() == 3 && !state.refused.is_empty()
}

/// Prints what there was, and panics with what must not be.
fn report(journal: &Journal) {
    journal.look(|state| {
        let history = &state.history;
        let accepted = history.writes.iter().filter(|write| write.is_accepted).count();
        println!("{} operations in {:?}:", history.operations.len(), journal.now());
        for (what, count) in &state.counts {
            let operations = history.operations.iter().filter(|operation| operation.what == *what);
            let mut times: Vec<At> =
                operations.map(|operation| operation.answered.saturating_sub(operation.asked)).collect();
            times.sort();
            println!("  {count} {what}, {:?} half of them", times[times.len() / 2]);
        }
        println!("{} writes taken, {} refused", accepted, history.writes.len() - accepted);
        let mut faults: BTreeMap<String, u64> = BTreeMap::new();
        for (_, what) in &state.faults {
            *faults.entry(what.chars().filter(|char| !char.is_ascii_digit()).collect()).or_default() += 1;
        }
        println!("faults: {faults:#?}");
        let violations = history.violations();
        for violation in violations.iter().take(5) {
            println!("{violation}\n{}", around(history, &state.faults, violation.lock, violation.at));
        }
        assert!(violations.is_empty(), "{} violations; the first: {}", violations.len(), violations[0]);
    });
}

/// What was done with a lock in the half minute before, and after.
fn around(history: &History, faults: &[(At, String)], lock: usize, at: At) -> String {
    let is_near = |from: At, to: At| from < at + Duration::from_secs(5) && at < to + Duration::from_secs(30);
    let holds = history.holds.iter().filter(|hold| hold.lock == lock && is_near(hold.held, hold.end));
    let faults = faults.iter().filter(|(when, _)| is_near(*when, *when));
    let mut lines: Vec<(At, String)> = holds.map(|hold| (hold.held, format!("{hold:?}"))).collect();
    lines.extend(faults.cloned());
    lines.sort();
    let lines: Vec<String> = lines.iter().map(|(when, line)| format!("  {:8.3} {line}", when.as_secs_f64())).collect();
    lines.join("\n")
}

fn serve(agent: &Consul) -> Sidecar {
    let yaml = format!(
        "registration: off\nservice: orders\nconsul: {{address: '{}'}}\nbuilding_blocks: {{token: {TOKEN}, locks: true}}\n",
        agent.url()
    );
    Sidecar::serve(lictor(), &yaml).up()
}

/// What is drawn by a seed: SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// One of several that a seed gives.
    fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(1_000_003).wrapping_add(number));
        Self(random.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}
