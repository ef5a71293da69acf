//! What is another value in force than before.

use std::collections::BTreeMap;
use std::fmt;

use lictor_core::plain;

use crate::tree::{Effective, Origin};

/// One key's change; secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub path: String,
    /// What was in force; `None`: nothing.
    pub before: Option<String>,
    /// What is; `None`: nothing.
    pub after: Option<String>,
    /// Where what is in force came from; for a key that is gone, where it had come from.
    pub origin: Origin,
}

/// What changed, by key. What only follows from another key's change (a default of the built-in ones, an inherited value)
/// is left out.
pub fn changes(before: &[Effective], after: &[Effective]) -> Vec<Change> {
    let (old, new) = (by_path(before), by_path(after));
    let mut paths: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let change = |path: &str| {
        let (old, new) = (old.get(path).copied(), new.get(path).copied());
        let is_said = [old, new].into_iter().flatten().any(|value| value.origin != Origin::Default);
        let is_same = matches!((old, new), (Some(old), Some(new)) if is_same(old, new));
        let shown = |value: Option<&Effective>| value.map(|value| value.value.clone());
        (is_said && !is_same).then(|| Change {
            path: path.to_owned(),
            before: shown(old),
            after: shown(new),
            origin: new.or(old).map_or(Origin::Default, |value| value.origin.clone()),
        })
    };
    paths.into_iter().filter_map(change).collect()
}

fn by_path(values: &[Effective]) -> BTreeMap<&str, &Effective> {
    values.iter().map(|value| (value.path.as_str(), value)).collect()
}

/// Secrets and contents of files that cannot be compared (another process's) count as the same.
fn is_same(old: &Effective, new: &Effective) -> bool {
    let is_unknown = old.fingerprint.is_none() || new.fingerprint.is_none();
    old.value == new.value && (old.fingerprint == new.fingerprint || is_unknown)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        let line = format!("{}: {} -> {}", self.path, show(&self.before), show(&self.after));
        f.write_str(&plain::line(&line))
    }
}
