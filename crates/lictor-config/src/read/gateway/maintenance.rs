//! `maintenance:` of the gateway and its routes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use lictor_core::Secret;
use lictor_core::gateway::When;
use lictor_core::gateway::auth::{Auth, Mode};
use lictor_core::gateway::maintenance::{Allow, Maintenance, Switch};
use serde_json::json;

use super::auth::tests;
use super::door::cidrs;
use crate::tree::{Node, Section};

/// What the gateway or a route says; what it does not say is `base`'s.
pub(super) fn maintenance(
    node: &Node<'_>,
    is_route: bool,
    base: Option<&Arc<Maintenance>>,
) -> Option<Arc<Maintenance>> {
    let known = base.map(|base| (**base).clone()).unwrap_or_default();
    let section = node.section_or_short("enabled", &[json!({ "type": "boolean" })]);
    let enabled =
        section.field("enabled", "Whether it is; a route that says `false` is not when all are ordered to be.");
    let retry_after = section.field("retry_after", "`Retry-After` where no end is known: 1s to 24h.");
    let allow_node = section.field("allow", "Who is served as ever: addresses, or a map with more.");
    let own = Maintenance {
        switch: match (enabled.boolean(known.switch == Switch::On), is_route) {
            _ if !enabled.is_set() => known.switch,
            (true, _) => Switch::On,
            (false, true) => Switch::Never,
            (false, false) => Switch::Ordered,
        },
        retry_after: retry_after.duration(known.retry_after),
        allow: allow(&allow_node, known.allow),
    };
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&own.retry_after) {
        retry_after.error("must be between 1s and 24h", None);
    }
    section.finish();
    if node.is_set() { Some(Arc::new(own)) } else { base.cloned() }
}

fn allow(node: &Node<'_>, base: Allow) -> Allow {
    let is_short = node.is_set() && !node.is_map();
    let section = if is_short { node.unset() } else { node.clone() }.section(&[json!({ "type": "array" })]);
    let addresses =
        section.field("addresses", "The client's address is in one of these ranges, as `trusted_proxies` have it.");
    let headers = section.field("headers", "The request has this field, once, with this value: a secret.");
    let claims = section.field("claims", "All of these are known of who asks, as `auth` finds out.");
    let own = Allow {
        addresses: cidrs(if is_short { node } else { &addresses }),
        headers: fields(&headers),
        claims: When(tests(&claims).into()),
    };
    section.finish();
    if node.is_set() { own } else { base }
}

fn fields(node: &Node<'_>) -> Vec<(HeaderName, Secret)> {
    let mut fields: Vec<(HeaderName, Secret)> = Vec::new();
    for entry in node.entries() {
        let value = entry.secret();
        if entry.is_describing() {
            continue;
        }
        let Ok(name) = HeaderName::try_from(entry.name()) else {
            entry.key_error(format!("`{}` is not a header name", entry.name()), None);
            continue;
        };
        let text = value.as_ref().map_or("", Secret::reveal);
        let is_sendable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.trim() == text;
        if fields.iter().any(|(known, _)| *known == name) {
            entry.key_error(format!("`{name}` is there twice: names of fields do not differ by case"), None);
        } else if text.is_empty() || text == "*" || !is_sendable {
            entry.error("needs the value that lets a request in, of ASCII; any (`*`) would let in everybody", None);
        } else {
            fields.extend(value.map(|value| (name, value)));
        }
    }
    fields
}

/// Claims are of somebody who was asked who he is.
pub(super) fn check(section: &Section<'_>, auth: Option<&Auth>) {
    let claims = section.node().below("maintenance").below("allow").below("claims");
    if claims.is_set() && auth.is_none_or(|auth| auth.mode == Mode::None) {
        let help = "give the gateway, or the route, an `auth`".to_owned();
        claims.key_error("`claims` are of who asks, and nobody is asked here", Some(help));
    }
}
