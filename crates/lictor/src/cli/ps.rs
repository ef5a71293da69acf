//! `lictor ps`: the sidecars of this machine, and how they are.

use std::thread;

use anyhow::Context;
use lictor_core::plain;
use serde_json::{Value as Json, json};

use crate::cli::output::Output;
use crate::cli::probe;
use crate::neighbours::{Neighbour, neighbours};
use crate::term::{Paint, table};

/// So many are asked at the same time.
const AT_ONCE: usize = 16;

pub(super) fn ps(output: Output) -> anyhow::Result<u8> {
    let found = neighbours().context("cannot see who is here: /proc/net/unix")?;
    let mut sidecars = Vec::new();
    for some in found.chunks(AT_ONCE) {
        let pages = thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|it| scope.spawn(move || page(it))).collect();
            asked.into_iter().filter_map(|asked| asked.join().ok()).collect::<Vec<_>>()
        });
        sidecars.extend(pages);
    }
    output.print(&json!({ "sidecars": sidecars }), |_| in_rows(&sidecars));
    Ok(0)
}

fn page(of: &Neighbour) -> Json {
    let admin = of.admin.into();
    let ready = probe::answer(&admin, "GET", "ready");
    let health = probe::answer(&admin, "GET", "health").map(|(_, page)| page).unwrap_or_default();
    let upstreams = health["checks"].as_object();
    let upstreams = upstreams.map(|checks| checks.keys().filter(|name| name.starts_with("upstream.")).count());
    json!({
        "service": of.service,
        "pid": of.pid,
        "admin": format!("http://{}", of.admin),
        "admin_port_was_taken": of.has_moved,
        "version": of.version,
        "upstreams": upstreams,
        "state": ready.map_or_else(|_| "does not answer".to_owned(), |(_, page)| state(&page)),
    })
}

/// In a few words, by what `/ready` says.
fn state(ready: &Json) -> String {
    let checks = &ready["checks"];
    let fails = |(_, check): &(&String, &Json)| check["status"] != "ready" && check["required"] != false;
    if ready["status"] == "ready" {
        return "ready".to_owned();
    }
    if checks.get("drain").is_some() {
        return "leaving".to_owned();
    }
    if checks.get("startup").is_some() {
        return "starting".to_owned();
    }
    let failing: Vec<&str> =
        checks.as_object().into_iter().flatten().filter(fails).map(|(name, _)| name.as_str()).collect();
    format!("not ready: {}", failing.join(", "))
}

fn in_rows(sidecars: &[Json]) -> String {
    if sidecars.is_empty() {
        return "no sidecar runs here\n".to_owned();
    }
    let paint = Paint::stdout();
    let heads = ["service", "pid", "admin", "version", "upstreams", "state"];
    let mut rows = vec![heads.map(|head| paint.dim(head)).to_vec()];
    for sidecar in sidecars {
        let text = |key: &str| plain::line(sidecar[key].as_str().unwrap_or_default()).into_owned();
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let moved = if sidecar["admin_port_was_taken"] == true { " (9901 was taken)" } else { "" };
        let state = text("state");
        rows.push(vec![
            or_none(text("service")),
            sidecar["pid"].to_string(),
            text("admin") + moved,
            text("version"),
            sidecar["upstreams"].as_u64().map_or("-".to_owned(), |count| count.to_string()),
            paint.verdict(&state, state == "ready"),
        ]);
    }
    table(&rows)
}
