//! `forward:`, a service that is asked whether a request may go on.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderName, Method};
use lictor_core::gateway::asking::{Asking, may_go_along};
use serde_json::json;

use crate::tree::Node;

/// Its client waits for it, before anything of what it asked for begins.
const TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Nobody who lost his rights keeps them for longer.
const CACHE_MAX: Duration = Duration::from_secs(300);
const ANSWER: usize = 64 << 10;
const ANSWER_MAX: usize = 1 << 20;

/// What is asked, of the upstream with this name.
pub(super) fn asking(node: &Node<'_>, mut to: impl FnMut(&Node<'_>) -> Option<Arc<str>>) -> Option<Asking> {
    let section = node.section(&[]);
    let to_node = section.field("to", "The upstream that is asked.");
    let path_node = section.field("path", "What it is asked for: `/api/auth/validate`.");
    let to = to_node.is_set().then(|| to(&to_node)).flatten();
    if to_node.is_describing() {
        to_node.text(None);
    }
    let path = path_node.parsed(json!({ "type": "string" }), None, |text| {
        let path = text.parse::<PathAndQuery>().ok().filter(|_| text.starts_with('/') && !text.contains('#'));
        path.ok_or_else(|| format!("`{text}` is not a path: write `/api/auth/validate`"))
    });
    let method = section.field("method", "By which method.");
    let method = method.choice(&[("GET", Method::GET), ("POST", Method::POST), ("HEAD", Method::HEAD)], Some("GET"));
    let asking = Asking {
        headers_out: names(
            &section.field(
                "headers_out",
                "The request's fields that go along: its credentials. A request with none of them asks nobody.",
            ),
            &[AUTHORIZATION],
        ),
        tells_request: section
            .field(
                "tells_request",
                "`X-Forwarded-Method`, `-Uri` and `-Host` say what the client asks for; without, an answer holds for whatever its credential comes with.",
            )
            .boolean(true),
        headers_in: names(
            &section.field(
                "headers_to_upstream",
                "The answer's fields that go on with the request, in place of any that the client has sent.",
            ),
            &[],
        ),
        timeout: bounded(&section.field("timeout", "How long its answer may take; at most 10s."), TIMEOUT, TIMEOUT_MAX),
        keep: keep(&section.field("cache", "How long a yes holds; `off`: it is asked each time; at most 5m.")),
        fail_open: section
            .field("fail_open", "A request goes on, as nobody's, when the service is not there or has failed.")
            .boolean(false),
        answer_max: answer_max(&section.field("answer_max", "A longer answer is none; at most 1MiB.")),
        to: to.clone().unwrap_or_else(|| "".into()),
        path: path.clone().unwrap_or_else(|| PathAndQuery::from_static("/")),
        method: method.unwrap_or(Method::GET),
    };
    section.finish();
    for (needed, example) in [(&to_node, "to: user-service"), (&path_node, "path: /api/auth/validate")] {
        if node.is_map() && !needed.is_set() {
            node.error(format!("asking a service needs `{}`", needed.name()), Some(format!("write `{example}`")));
        }
    }
    (to.is_some() && path.is_some()).then_some(asking)
}

fn names(node: &Node<'_>, default: &[HeaderName]) -> Vec<HeaderName> {
    let parse = |text: &str| match HeaderName::try_from(text) {
        Ok(name) if may_go_along(&name) => Ok(name),
        Ok(_) => Err(format!("`{text}` belongs to one message or connection, or is set by lictor")),
        Err(_) => Err(format!("`{text}` is not a header name")),
    };
    let elements = node.elements();
    if !node.is_set() {
        return default.to_vec();
    }
    elements.iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, parse)).collect()
}

fn bounded(node: &Node<'_>, default: Duration, most: Duration) -> Duration {
    let own = node.duration(default);
    if own.is_zero() || own > most {
        node.error(format!("from 1ms to {}s", most.as_secs()), None);
    }
    own
}

fn keep(node: &Node<'_>) -> Option<Duration> {
    let own = node.limit(None);
    if own.is_some_and(|own| own > CACHE_MAX) {
        node.error("at most 5m: somebody who may not any more still may for so long", None);
    }
    own.filter(|own| !own.is_zero())
}

fn answer_max(node: &Node<'_>) -> usize {
    let own = node.size(ANSWER);
    if own > ANSWER_MAX {
        node.error("at most 1MiB", None);
    }
    own
}
