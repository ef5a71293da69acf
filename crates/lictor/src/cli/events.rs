//! `lictor events`: what has changed on a running sidecar, a line each.

use clap::Args;
use serde_json::Value as Json;

use crate::cli::probe::{self, Running, encode};
use crate::cli::say;
use crate::term::{Paint, shown};

/// Which of them, and how they are printed.
#[derive(Args, Debug)]
pub(super) struct Events {
    /// Only those of this last time (`10m`), or after the event with this id; default: all that are kept, 500 at most.
    #[arg(long)]
    since: Option<String>,
    #[command(flatten)]
    running: Running,
}

/// Prints them, the oldest first; whom it asked it says beside.
pub(super) fn events(asked: &Events) -> anyhow::Result<u8> {
    let admin = asked.running.admin()?;
    let since = asked.since.as_deref().map(|since| format!("&since={}", encode(since))).unwrap_or_default();
    let page = probe::page(&admin, &format!("events?as=json{since}"))?;
    let told = shown(&page);
    say(&format!("{} at {admin}", whom(&told)));
    let paint = Paint::stdout();
    asked.running.output.print(&page, |_| {
        told["events"].as_array().into_iter().flatten().map(|event| in_a_line(event, paint)).collect()
    });
    Ok(0)
}

/// `3 events of orders (orders-1)`
fn whom(page: &Json) -> String {
    let events = match page["events"].as_array().map_or(0, Vec::len) {
        0 => "no event".to_owned(),
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
    };
    let earlier = if page["whole"] == false { " (earlier ones are kept no more)" } else { "" };
    let instance = page["instance"].as_str().filter(|id| !id.is_empty()).map(|id| format!(" ({id})"));
    let service = page["service"].as_str().filter(|name| !name.is_empty()).unwrap_or("a sidecar without a service");
    format!("{events}{earlier} of {service}{}", instance.unwrap_or_default())
}

/// Time, kind, and what its log line says: the upstream first.
fn in_a_line(event: &Json, paint: Paint) -> String {
    const SAID: [&str; 6] = ["id", "timestamp", "level", "kind", "message", "upstream"];
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let upstream = event["upstream"].as_str().map(|name| format!("{name}: ")).unwrap_or_default();
    let members = event.as_object().into_iter().flatten().filter(|(key, _)| !SAID.contains(&key.as_str()));
    let value = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let members: Vec<String> = members.map(|(key, it)| format!("{key} {}", value(it))).collect();
    let members = if members.is_empty() { String::new() } else { format!(" ({})", members.join(", ")) };
    let kind = paint.verdict(&format!("{:<20}", text("kind")), text("level") == "INFO");
    format!("{}  {kind}  {upstream}{}{members}\n", paint.dim(text("timestamp")), text("message"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_the_time_the_kind_and_the_words() {
        let event = json!({
            "id": 7, "timestamp": "2026-01-02T03:04:05.678Z", "level": "INFO", "kind": "endpoints_changed",
            "message": "the endpoints of an upstream changed", "upstream": "users", "added": 1, "came": "a (passing)",
        });
        let line = in_a_line(&event, Paint::none());
        let words = "users: the endpoints of an upstream changed (added 1, came a (passing))";
        assert_eq!(line, format!("2026-01-02T03:04:05.678Z  endpoints_changed     {words}\n"));
        let started =
            json!({ "id": 1, "timestamp": "t", "level": "INFO", "kind": "started", "message": "egress is up" });
        assert_eq!(in_a_line(&started, Paint::none()), "t  started               egress is up\n");
    }

    #[test]
    fn it_says_whom_it_asked_and_whether_that_is_all() {
        let page = |service: &str, instance: &str, whole: bool, count: usize| {
            let events = vec![json!({}); count];
            whom(&json!({ "service": service, "instance": instance, "whole": whole, "events": events }))
        };
        assert_eq!(page("orders", "orders-1", true, 2), "2 events of orders (orders-1)");
        assert_eq!(page("orders", "", true, 0), "no event of orders");
        assert_eq!(page("", "", false, 1), "1 event (earlier ones are kept no more) of a sidecar without a service");
    }
}
