//! `lictor diff`: what would another file change?

use std::path::Path;

use lictor_config::{Change, Effective, Origin, changes};
use serde_json::{Value as Json, json};

use crate::cli::probe::{self, Running};

pub(super) fn diff(file: &Path, running: &Running) -> anyhow::Result<u8> {
    let configured = &running.configured;
    let after = configured.with(file).load()?.values;
    let admin = running.admin()?;
    let (before, from) = match probe::page(&admin, "config?origin=1") {
        Ok(page) => (values(&page), format!("the sidecar at {admin}")),
        Err(error) => (configured.load()?.values, format!("{} ({admin}: {error})", configured.source())),
    };
    let (hidden, shown): (Vec<Change>, Vec<Change>) =
        changes(&before, &after).into_iter().partition(|change| is_from_kv(&before, change));
    let mut lines = vec![format!("compared with {from}:")];
    lines.extend(shown.iter().map(ToString::to_string));
    if shown.is_empty() {
        lines.push("nothing changes".to_owned());
    }
    if !hidden.is_empty() {
        lines.push(format!("values from KV that stay over the file: {}", hidden.len()));
    }
    let page = json!({
        "compared_with": from,
        "changes": changed(&shown),
        "hidden_by_kv": changed(&hidden),
    });
    running.output.print(&page, |_| lines.join("\n") + "\n");
    Ok(0)
}

/// Changes, for programs.
pub(super) fn changed(changes: &[Change]) -> Json {
    let of = |it: &Change| json!({ "key": it.path, "before": it.before, "after": it.after, "origin": it.origin.to_string() });
    changes.iter().map(of).collect()
}

/// A page of `/config?origin=1` as the values that it shows.
fn values(page: &Json) -> Vec<Effective> {
    let entries = page.as_object().into_iter().flatten();
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    entries.map(|(path, it)| Effective::shown(path.clone(), text(&it["value"]), origin(&text(&it["origin"])))).collect()
}

fn origin(shown: &str) -> Origin {
    match shown.strip_prefix("kv:") {
        Some(key) => Origin::Kv { key: key.to_owned(), line: 0, column: 0 },
        None if shown == "default" => Origin::Default,
        None => Origin::File { name: shown.to_owned(), line: 0, column: 0 },
    }
}

/// A file changes nothing of what KV says over it.
fn is_from_kv(before: &[Effective], change: &Change) -> bool {
    let known = before.iter().find(|value| value.path == change.path);
    known.is_some_and(|value| matches!(value.origin, Origin::Kv { .. }))
}
