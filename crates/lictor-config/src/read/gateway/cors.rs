//! `cors:`, whose pages may read the answers.

use std::sync::Arc;

use http::{HeaderName, Method};
use lictor_core::gateway::cors::{Cors, Origin, Settings};
use serde_json::json;

use crate::tree::Node;

/// What the gateway or a route says; what it does not say is `base`'s.
pub(super) fn cors(node: &Node<'_>, base: Option<&Arc<Cors>>) -> Option<Arc<Cors>> {
    if node.is_off() {
        return None;
    }
    let section = node.off_unless(base.is_some()).section_or_short("origins", &[json!({ "type": "string" })]);
    let origins =
        section.field("origins", "`https://app.example`, `https://*.app.example` for all names under it, or `*`.");
    let methods = section.field("methods", "What pages may ask by.");
    let headers = section.field("headers", "Fields that pages may send; `*` has all but Authorization.");
    let expose = section.field("expose", "Fields of answers that pages may read; `*` has all.");
    let credentials = section.field("credentials", "Whether cookies and the like are sent; not with `*`.");
    let max_age = section.field("max_age", "How long browsers remember the answer to a preflight.");
    let settings = Settings {
        origins: list(&origins, &[], Origin::parse),
        methods: list(&methods, &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], method),
        headers: list(&headers, &["Content-Type", "Authorization"], field),
        expose: list(&expose, &[], field),
        has_credentials: credentials.boolean(false),
        max_age: max_age.limit(Some(std::time::Duration::from_mins(10))).map(|age| age.as_secs()),
    };
    section.finish();
    if !node.is_set() {
        return base.cloned();
    }
    if !origins.is_set() {
        node.error("`cors` needs `origins`", Some("write `origins: [\"https://app.example\"]`".to_owned()));
        return None;
    }
    if settings.origins.is_empty() && !origins.elements().is_empty() {
        return None; // each was refused
    }
    Cors::new(settings).map_err(|why| node.error(why, None)).ok().map(Arc::new)
}

fn list<T>(node: &Node<'_>, default: &[&str], parse: fn(&str) -> Result<T, String>) -> Vec<T> {
    let entries = node.elements();
    if !node.is_set() && !node.is_describing() {
        return default.iter().filter_map(|text| parse(text).ok()).collect();
    }
    let read = |entry: &Node<'_>| {
        if !entry.is_set() && !entry.is_describing() {
            entry.error("is empty; `null` is written in quotes", None);
        }
        entry.parsed(json!({ "type": "string" }), None, parse)
    };
    entries.iter().filter_map(read).collect()
}

fn method(text: &str) -> Result<String, String> {
    let is_usual = text == "*" || text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) if is_usual => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not a method: write `GET`")),
    }
}

fn field(text: &str) -> Result<String, String> {
    match HeaderName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is not a header name")),
    }
}
