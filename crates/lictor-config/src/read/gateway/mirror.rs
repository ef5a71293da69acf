//! `mirror:` of a route, where copies of its requests go.

use std::sync::Arc;

use lictor_core::gateway::Mirror;
use serde_json::json;

use super::leads::Leads;
use crate::tree::Node;

/// What copies hold at once is at most `max_running` bodies.
const BODY_MAX: usize = 16 << 20;
const RUNNING_MAX: u32 = 10_000;

/// `orders-next`, or a map; and where its upstream is.
pub(super) fn mirror(node: &Node<'_>, leads: &mut Leads<'_>) -> Option<(Mirror, usize)> {
    if node.is_off() {
        return None;
    }
    let section = node.section_or_short("to", &[json!({ "type": "string" })]);
    let to = section.field("to", "An upstream, its instances of one version, or a URL.");
    let share = section.field("percent", "Of the requests.").share(1.0);
    let body = section
        .field("body_max", "The longest body that is copied: a request with a longer one is not; at most 16MiB.");
    let body_max = body.size(64 << 10);
    if body_max > BODY_MAX {
        body.error("at most 16MiB: copies are held in memory", None);
    }
    let running = section.field("max_running", "Copies at a time; while there are so many, no others are made.");
    let max_running = running.integer_within(100, 1, RUNNING_MAX);
    let credentials = section.field("credentials", "What shows who somebody is goes along: cookies, tokens, keys.");
    let shows_credentials = credentials.boolean(false);
    section.finish();
    if node.is_map() && !to.is_set() {
        node.error("a mirror needs `to`", Some("write `mirror: {to: orders-next}`".to_owned()));
    }
    let of = if to.is_set() || to.is_describing() { leads.named(&to)? } else { return None };
    let upstream = leads.mirror(&to, of, shows_credentials)?;
    let (name, running) = (Arc::from(""), Arc::default());
    Some((Mirror { upstream: name, index: 0, share, body_max, max_running, shows_credentials, running }, upstream))
}
