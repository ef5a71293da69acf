//! The application and all that it has started, by what /proc says: also what has left its process group to become a
//! daemon, which the kernel gives to us when its parent is gone (PR_SET_CHILD_SUBREAPER, prctl(2)).

use std::collections::{HashMap, HashSet};
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Whoever was below us before the application was started is not of it: a shell that became us has started it.
#[derive(Debug)]
pub(crate) struct Descendants {
    others: HashSet<i32>,
}

impl Default for Descendants {
    /// Of an application that is not started yet.
    fn default() -> Self {
        let others = below(&HashSet::new(), &processes());
        Self { others: others.into_iter().collect() }
    }
}

impl Descendants {
    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.now().is_empty()
    }

    /// Sends each of them a signal; one that is gone meanwhile needs none. False where nobody can be found.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let found = self.now();
        for pid in found.iter().copied().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
        !found.is_empty()
    }

    fn now(&self) -> Vec<i32> {
        below(&self.others, &processes())
    }
}

/// Those below this process, parents first, without these and what is below them.
fn below(without: &HashSet<i32>, processes: &[(i32, i32)]) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes {
        children.entry(*parent).or_default().push(*pid);
    }
    let mut found = vec![getpid().as_raw_nonzero().get()];
    let mut at = 0;
    while at < found.len() {
        let next = children.remove(&found[at]).unwrap_or_default();
        found.extend(next.into_iter().filter(|pid| !without.contains(pid)));
        at += 1;
    }
    found.split_off(1)
}

/// Every process that has not ended, and its parent. Where there is no /proc there is none.
fn processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parent(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    });
    stats.collect()
}

/// The fourth field of proc_pid_stat(5): the second is the program's name, in brackets, and may have any. `None` for a
/// process that has ended.
fn parent(stat: &str) -> Option<i32> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.next()?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        for (stat, expected) in [
            ("7 (sh) S 3 7 7 0 -1", Some(3)),
            ("7 (a) S 9 (b) R 3 7 7", Some(3)),
            ("7 ((sd-pam)) S 3 7", Some(3)),
            ("7 (sh) Z 3 7 7 0 -1", None),
            ("7 (sh", None),
            ("", None),
        ] {
            assert_eq!(parent(stat), expected, "{stat}");
        }
    }

    #[test]
    fn whoever_was_there_before_is_left_out_with_what_is_below() {
        let own = getpid().as_raw_nonzero().get();
        let tree = [(1, 0), (own, 1), (-10, own), (-11, -10), (-20, own), (-21, -20), (-30, 1)];
        assert_eq!(below(&HashSet::new(), &tree), [-10, -20, -11, -21]);
        assert_eq!(below(&HashSet::from([-20]), &tree), [-10, -11]);
    }
}
