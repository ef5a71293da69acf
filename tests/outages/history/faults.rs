//! What goes wrong meanwhile, in three lanes at once: servers, client agents, sidecars.

use std::time::Duration;

use lictor_testkit::{Consul, Sidecar, get, request};
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value as Json;

use super::check::Pause;
use super::journal::Journal;
use super::{PATIENCE, Random, TTL, serve};

/// Locks that are taken between two faults of a lane.
const CALM: u64 = 60;
/// Where that takes longer, the next one comes all the same.
const CALM_AT_MOST: Duration = Duration::from_secs(10);
/// Between two looks at an agent.
const POLL: Duration = Duration::from_millis(50);
/// With each leader the time of all sessions begins anew, and Consul takes twice that: in this time those of the dead end.
const BETWEEN_LEADERS: Duration = Duration::from_secs(35);
/// Locks that clients of a sidecar have when something happens to it.
const AT_STAKE: usize = 2;

/// An agent, and the sidecar beside it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) agent: Consul,
    pub(crate) sidecar: Sidecar,
}

/// Ends all when a lane ends, also by a panic.
#[derive(Debug)]
struct Ending<'a>(&'a Journal);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// Kills leaders.
pub(crate) fn of_servers(journal: &Journal, servers: &mut [Consul]) {
    let _ending = Ending(journal);
    while !journal.is_over() {
        let Some(killed) = leader(servers) else {
            journal.rest(POLL);
            continue;
        };
        journal.fault(format!("the leader is killed, server {killed}"));
        servers[killed].kill();
        knows_all(journal, &servers[(killed + 1) % servers.len()]);
        servers[killed].resume();
        knows_all(journal, &servers[killed]);
        journal.round("servers");
        journal.rest(BETWEEN_LEADERS);
    }
}

fn leader(servers: &[Consul]) -> Option<usize> {
    let leader = get(&servers[0].address(), "/v1/status/leader").ok()?.text();
    servers.iter().position(|server| leader.contains(&server.server_address()))
}

/// Until this agent has a leader that answers.
fn knows_all(journal: &Journal, agent: &Consul) {
    let until = journal.now() + PATIENCE;
    let answers = || get(&agent.address(), "/v1/catalog/nodes").is_ok_and(|answer| answer.status == 200);
    while !journal.is_over() && journal.now() < until && !answers() {
        journal.rest(POLL);
    }
}

/// Restarts client agents of these hosts, and ends sessions there.
pub(crate) fn of_agents(journal: &Journal, hosts: &mut [Host], mut random: Random) {
    let _ending = Ending(journal);
    while !journal.is_over() {
        let mut kinds = [0, 1, 2, 3, 4];
        random.shuffle(&mut kinds);
        for kind in kinds {
            let chosen = random.below(hosts.len() as u64) as usize;
            let host = &mut hosts[chosen];
            journal.linger(host.number, true);
            at_stake(journal, host.number);
            match kind {
                0 => agent_goes(journal, host, "is killed (SIGKILL)", Consul::kill, false),
                1 => agent_goes(journal, host, "is killed (SIGKILL)", Consul::kill, true),
                2 => agent_goes(journal, host, "leaves (SIGTERM)", Consul::terminate, false),
                3 => agent_goes(journal, host, "leaves (SIGTERM)", Consul::terminate, true),
                _ => sessions_end(journal, host),
            }
            journal.linger(host.number, false);
            if journal.is_over() {
                return;
            }
            calm(journal);
        }
        journal.round("agents");
    }
}

fn agent_goes(journal: &Journal, host: &mut Host, how: &str, end: fn(&mut Consul), is_for_long: bool) {
    let until = if is_for_long { "until its locks are lost" } else { "and started at once" };
    journal.fault(format!("agent {} {how}, {until}", host.number));
    let before = journal.now();
    end(&mut host.agent);
    if is_for_long {
        none_from_before(journal, host.number, before);
    }
    host.agent.resume();
    knows_all(journal, &host.agent);
}

/// Somebody ends the sessions of all locks at this host.
fn sessions_end(journal: &Journal, host: &Host) {
    journal.fault(format!("the sessions of the locks at agent {} are ended", host.number));
    let before = journal.now();
    let locks: Vec<usize> = journal.look(|state| state.held_at(host.number).map(|holding| holding.lock).collect());
    for lock in locks {
        // Without a leader these are errors, and the locks are kept.
        let key = get(&host.agent.address(), &format!("/v1/kv/locks/l{lock}")).map(|answer| answer.text());
        let key: Json = key.ok().and_then(|key| serde_json::from_str(&key).ok()).unwrap_or_default();
        if let Json::String(session) = &key[0]["Session"] {
            let _ = request(&host.agent.address(), "PUT", &format!("/v1/session/destroy/{session}"), &[], b"");
        }
    }
    journal.linger(host.number, false);
    none_from_before(journal, host.number, before);
}

/// Stops sidecars of these hosts beyond the time of their locks, ends them, and kills them.
pub(crate) fn of_sidecars(journal: &Journal, hosts: &mut [Host], doors: &[Mutex<String>], mut random: Random) {
    let _ending = Ending(journal);
    while !journal.is_over() {
        let mut kinds = [0, 0, 1, 2];
        random.shuffle(&mut kinds);
        for kind in kinds {
            let chosen = random.below(hosts.len() as u64) as usize;
            let host = &mut hosts[chosen];
            journal.linger(host.number, true);
            at_stake(journal, host.number);
            match kind {
                0 => pause(journal, host),
                1 => again(journal, host, Signal::TERM, doors),
                _ => again(journal, host, Signal::KILL, doors),
            }
            journal.linger(host.number, false);
            if journal.is_over() {
                return;
            }
            calm(journal);
        }
        journal.round("sidecars");
    }
}

/// Ends a sidecar, and starts another in its place.
fn again(journal: &Journal, host: &mut Host, signal: Signal, doors: &[Mutex<String>]) {
    journal.fault(format!("sidecar {} is ended ({signal:?}) and started again", host.number));
    host.sidecar.signal(signal);
    host.sidecar.wait();
    host.sidecar = serve(&host.agent);
    *doors[host.number].lock() = host.sidecar.admin();
}

/// Until the store has refused a write of a holder whose sidecar is stopped: then somebody newer has its lock.
fn pause(journal: &Journal, host: &Host) {
    let sidecar = host.number;
    journal.fault(format!("sidecar {sidecar} is paused (SIGSTOP)"));
    let refused = journal.look(|state| state.refused.get(&sidecar).copied());
    let from = journal.now();
    host.sidecar.signal(Signal::STOP);
    journal.wait(PATIENCE, |state| {
        state.refused.get(&sidecar).copied() > refused && journal.now() > from + TTL + Duration::from_secs(1)
    });
    let to = journal.now();
    host.sidecar.signal(Signal::CONT);
    journal.fault(format!("sidecar {sidecar} goes on (SIGCONT)"));
    journal.paused(Pause { sidecar, from, to });
    none_from_before(journal, sidecar, from);
}

/// Where a wait of a lane is in vain, the run is too short in the end, and says so.
fn at_stake(journal: &Journal, sidecar: usize) {
    journal.wait(PATIENCE, |state| state.held_at(sidecar).count() >= AT_STAKE);
}

fn none_from_before(journal: &Journal, sidecar: usize, when: Duration) {
    journal.wait(PATIENCE, |state| state.held_at(sidecar).all(|holding| holding.held > when));
}

/// Until all goes well again.
fn calm(journal: &Journal) {
    let taken = |counts: &std::collections::BTreeMap<String, u64>| counts.get("acquire: held").copied().unwrap_or(0);
    let before = journal.look(|state| taken(&state.counts));
    journal.wait(CALM_AT_MOST, |state| taken(&state.counts) >= before + CALM);
}
