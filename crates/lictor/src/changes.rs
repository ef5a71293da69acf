//! What changed in the configuration while it ran, or was refused, for the log and for `/config/changes`. Secrets are masked before they
//! get here.

use std::collections::VecDeque;
use std::time::SystemTime;

use lictor_config::Change;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

const KEPT: usize = 50;
/// As many fit into a line that a person reads.
const TOLD: usize = 20;

/// The latest changes, by the reload that made them.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<VecDeque<Json>>);

impl Changes {
    /// A reload because of `origin` has made these.
    pub(crate) fn add(&self, origin: &str, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let changes: Vec<Json> = changes.iter().map(record).collect();
        self.keep(json!({ "at": now(), "origin": origin, "changes": changes }));
    }

    /// A reload because of `origin` has changed nothing.
    pub(crate) fn refused(&self, origin: &str, reason: &str) {
        self.keep(json!({ "at": now(), "origin": origin, "changes": [], "refused": reason }));
    }

    fn keep(&self, entry: Json) {
        let mut kept = self.0.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// The newest first.
    pub(crate) fn page(&self) -> Json {
        self.0.lock().iter().rev().cloned().collect()
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// In one line.
pub(crate) fn told(changes: &[Change]) -> String {
    let mut lines: Vec<String> = changes.iter().take(TOLD).map(ToString::to_string).collect();
    match changes.len() {
        0 => lines.push("nothing".to_owned()),
        count if count > TOLD => lines.push(format!("and {} more", count - TOLD)),
        _ => (),
    }
    lines.join("; ")
}

/// The record that change listeners of the older services knew.
fn record(change: &Change) -> Json {
    let (key, origin) = (&change.path, change.origin.to_string());
    match (&change.before, &change.after) {
        (Some(old), Some(new)) => {
            json!({ "type": "modified", "key": key, "oldValue": old, "newValue": new, "origin": origin })
        }
        (None, new) => json!({ "type": "added", "key": key, "value": new, "origin": origin }),
        (old, None) => json!({ "type": "deleted", "key": key, "value": old, "origin": origin }),
    }
}

#[cfg(test)]
mod tests {
    use lictor_config::Origin;

    use super::*;

    fn change(path: &str, before: Option<&str>, after: Option<&str>) -> Change {
        let text = |value: Option<&str>| value.map(str::to_owned);
        Change { path: path.to_owned(), before: text(before), after: text(after), origin: Origin::Flag }
    }

    #[test]
    fn the_latest_fifty_are_kept_and_nothing_is_no_change() {
        let changes = Changes::default();
        changes.add("kv", &[]);
        for number in 0..60 {
            changes.add("reload", &[change(&format!("key-{number}"), Some("a"), Some("b"))]);
        }
        let page = changes.page();
        assert_eq!(page.as_array().unwrap().len(), KEPT);
        assert_eq!(page[0]["origin"], "reload");
        let record =
            json!({ "type": "modified", "key": "key-59", "oldValue": "a", "newValue": "b", "origin": "--set" });
        assert_eq!(page[0]["changes"], json!([record]));
    }

    #[test]
    fn what_was_refused_is_among_them() {
        let changes = Changes::default();
        changes.refused("file", "unknown field");
        let page = changes.page();
        assert_eq!((&page[0]["refused"], &page[0]["changes"]), (&json!("unknown field"), &json!([])));
    }

    #[test]
    fn a_line_has_each_key_and_does_not_become_a_page() {
        let few = [change("a", None, Some("1")), change("b", Some("2"), None)];
        assert_eq!(told(&few), "a: (none) -> 1; b: 2 -> (none)");
        assert_eq!(told(&[]), "nothing");
        let many: Vec<Change> = (0..30).map(|_| few[0].clone()).collect();
        assert!(told(&many).ends_with("; and 10 more"));
    }
}
