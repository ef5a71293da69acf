//! The gateway's table as people see it, in the order in which routes are asked: whose each route is, and which tags of
//! services are none.

use std::time::SystemTime;

use lictor_config::{Gateway, Refused};
use lictor_core::gateway::maintenance::{Orders, State};
use lictor_core::gateway::{Action, Redirect, Route, Send};
use serde_json::{Value as Json, json};

/// Of tags that are no routes, so many are shown.
const SHOWN: usize = 1000;

/// What the configuration says.
const OWN: &str = "configuration";

pub(crate) fn page(gateway: &Gateway, orders: &Orders, now: SystemTime) -> Json {
    let rows = gateway.routes.table.iter().filter_map(|(index, matcher)| {
        let route = gateway.routes.routes.get(index)?;
        let case = if matcher.path.ignores_case() { " (any case)" } else { "" };
        Some(json!({
            "host": matcher.host.to_string(),
            "path": format!("{}{case}", matcher.path.as_str()),
            "only": matcher.only(),
            "auth": auth(route),
            "maintenance": State::of(route, orders, now).to_string(),
            "becomes": becomes(&route.action),
            "from": route.claimed_by.as_ref().map_or_else(|| OWN.to_owned(), |service| format!("consul:{service}")),
        }))
    });
    let mut page = json!({ "routes": rows.collect::<Vec<_>>(), "orders": orders });
    if let Some(asked) = &gateway.from_consul {
        let row = |Refused { tag, reason }: &Refused| json!({ "service": tag.service, "tag": format!("{}={}", asked.tag, tag.text), "reason": reason });
        page["refused"] = asked.refused.iter().take(SHOWN).map(row).collect();
        page["refused_in_all"] = json!(asked.refused.len());
    }
    page
}

fn auth(route: &Route) -> String {
    route.rules.auth.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn becomes(action: &Action) -> String {
    match action {
        Action::Send(Send { upstream, rewrite, split, mirror, .. }) => {
            let to = split.as_ref().map_or_else(|| upstream.to_string(), ToString::to_string);
            let rewrite = rewrite.as_ref().map(|rewrite| format!(", {rewrite}")).unwrap_or_default();
            let mirror = mirror.as_ref().map(|mirror| format!("; copies to {}", mirror.upstream)).unwrap_or_default();
            format!("{to}{rewrite}{mirror}")
        }
        Action::Redirect(Redirect { status, origin, rewrite }) => {
            let origin = origin.as_ref().and_then(|origin| origin.to_str().ok()).unwrap_or_default();
            let path = rewrite.as_ref().map_or_else(|| "the same path".to_owned(), ToString::to_string);
            format!("{} {origin} {path}", status.as_u16())
        }
        Action::Answer(answer) => format!("{} of its own", answer.status.as_u16()),
    }
}
