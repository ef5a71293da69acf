//! `request_headers:` and `response_headers:`, what becomes of the fields of requests and answers.

use std::sync::Arc;

use http::HeaderName;
use lictor_core::gateway::PathPattern;
use lictor_core::gateway::headers::{OPERATIONS_MAX, Operations, Side, Value, may_become, may_change};
use serde_json::json;

use crate::tree::Node;

/// What the gateway or a route says; what it does not say is `base`'s. `pattern` is a route's path.
pub(super) fn operations(
    node: &Node<'_>,
    side: Side,
    pattern: Option<&PathPattern>,
    base: Option<&Arc<Operations>>,
) -> Option<Arc<Operations>> {
    if node.is_off() {
        return None;
    }
    let section = node.section(&[json!({ "const": "none" })]);
    let rename = section.field("rename", "Fields that get another name, first of all: old name, new name.");
    let remove = section.field("remove", "Fields that are taken off, after that.");
    let set = section.field("set", "Fields in place of those that are there: a value, perhaps with `{client_ip}`, `{request_id}`, `{host}`, `{method}`, `{path}`, `{scheme}`, `{route}`, `{param:id}`, `{claim:sub}` (of requests), `{header:X-Name}`. Where there is nothing to put in, the field is left out.");
    let add = section.field("add", "Fields beside those that are there, the last of all; values as in `set`.");
    let operations = Operations {
        rename: renamed(&rename),
        remove: removed(&remove),
        set: values(&set, side, pattern),
        add: values(&add, side, pattern),
    };
    section.finish();
    if !node.is_set() {
        return base.cloned();
    }
    let Operations { rename, remove, set, add } = &operations;
    if rename.len() + remove.len() + set.len() + add.len() > OPERATIONS_MAX {
        node.error(format!("more than {OPERATIONS_MAX} fields"), None);
    }
    (!operations.is_empty()).then(|| Arc::new(operations))
}

fn renamed(node: &Node<'_>) -> Vec<(HeaderName, HeaderName)> {
    let mut renamed: Vec<(HeaderName, HeaderName)> = Vec::new();
    for entry in node.entries() {
        let new = entry.parsed(json!({ "type": "string" }), None, |text| field(text, may_become));
        let (Some(new), Some(old)) = (new, key(&entry)) else { continue };
        if renamed.iter().any(|(known, _)| *known == old) {
            entry.key_error(format!("`{old}` is there twice: names of fields do not differ by case"), None);
        }
        renamed.push((old, new));
    }
    renamed
}

fn removed(node: &Node<'_>) -> Vec<HeaderName> {
    node.elements()
        .iter()
        .filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, |text| field(text, may_change)))
        .collect()
}

fn values(node: &Node<'_>, side: Side, pattern: Option<&PathPattern>) -> Vec<(HeaderName, Value)> {
    let mut values: Vec<(HeaderName, Value)> = Vec::new();
    for entry in node.entries() {
        let (Some(value), Some(name)) = (entry.secret(), key(&entry)) else { continue };
        match Value::parse(value.reveal(), side, |name| pattern?.position_of(name)) {
            Err(why) => entry.error(why, None),
            Ok(_) if values.iter().any(|(known, _)| *known == name) => {
                entry.key_error(format!("`{name}` is there twice: names of fields do not differ by case"), None);
            }
            Ok(value) => values.push((name, value)),
        }
    }
    values
}

/// A key that is a field's name, and one that may be changed.
fn key(entry: &Node<'_>) -> Option<HeaderName> {
    if entry.is_describing() {
        return None;
    }
    field(&entry.name(), may_change).map_err(|why| entry.key_error(why, None)).ok()
}

fn field(text: &str, may: fn(&HeaderName) -> Result<(), String>) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a header name"))?;
    may(&name).map(|()| name)
}
