//! `keys:`, clients that show a key.

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use lictor_core::Secret;
use lictor_core::gateway::keys::{ApiKeys, KEYS_MAX, KeyClient, KeyHash};
use serde_json::json;

use crate::tree::Node;

/// The usual field.
const HEADER: &str = "X-API-Key";

/// The keys, and where they are looked for.
pub(super) fn keys(node: &Node<'_>) -> Option<ApiKeys> {
    let section = node.section(&[]);
    let header_node = section.field("header", "The field that has the key; `off`: none.");
    let query_node = section.field(
        "query",
        "The parameter of the query that has it, for clients that can set no field. It is in logs and histories of all on the way.",
    );
    let clients = section.field(
        "clients",
        "Whose keys there are: a name, and the SHA-256 of its key or keys, as `lictor hash-key` prints it.",
    );
    let header = header(&header_node);
    let query = if query_node.is_off() { None } else { query(&query_node) };
    if node.is_map() && header.is_none() && query.is_none() {
        header_node.error("keys are in a field or in the query", Some(format!("write `header: {HEADER}`")));
    }
    let mut keys = ApiKeys::new(header, query);
    let entries = clients.entries();
    for entry in &entries {
        client(entry, &mut keys);
    }
    section.finish();
    if node.is_map() && entries.is_empty() {
        clients.error("there is no client", Some("write `clients: {partner: 'sha256:..'}`".to_owned()));
    }
    node.is_set().then_some(keys)
}

/// A field that a credential may be in.
pub(super) fn field_name(text: &str) -> Result<HeaderName, String> {
    match HeaderName::try_from(text) {
        Ok(name) if name == COOKIE || name == HOST || name.as_str().starts_with("x-forwarded-") => {
            Err(format!("`{text}` has a meaning of its own"))
        }
        Ok(name) => Ok(name),
        Err(_) => Err(format!("`{text}` is not a header name")),
    }
}

fn header(node: &Node<'_>) -> Option<HeaderName> {
    if node.is_off() {
        return None;
    }
    let parse = |text: &str| match field_name(text)? {
        name if name == AUTHORIZATION => Err("`Authorization` has a scheme, which a key has not".to_owned()),
        name => Ok(name),
    };
    let own = node.parsed(json!({ "type": "string" }), Some(HEADER), parse);
    if node.is_set() { own } else { HeaderName::try_from(HEADER).ok() }
}

fn query(node: &Node<'_>) -> Option<Box<str>> {
    node.parsed(json!({ "type": "string", "examples": ["api_key"] }), Some("off"), |text| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_name = !text.is_empty() && is_plain;
        if is_name {
            Ok(text.into())
        } else {
            Err(format!("`{text}` is not a name: letters, digits, `-`, `_` and `.`"))
        }
    })
}

/// `partner: sha256:..`, a list of such, or a map.
fn client(node: &Node<'_>, keys: &mut ApiKeys) {
    let is_short = !node.is_map();
    let section = if is_short { node.unset() } else { node.clone() }.section(&[json!({ "type": "string" })]);
    let hashes = section.field("keys", "SHA-256 of its keys: one, and while it is replaced two.");
    let hashes = if is_short { node.short_for("keys") } else { hashes };
    let scopes = words(&section.field("scopes", "What it may do: its claim `scope`."));
    let roles = words(&section.field("roles", "What it is: its claim `role`."));
    let client = Arc::new(KeyClient::new(&node.name(), scopes, roles));
    let elements = hashes.elements();
    if elements.len() > KEYS_MAX {
        hashes.error(format!("a client has at most {KEYS_MAX} keys"), None);
    } else if elements.is_empty() {
        node.error("a client needs a key", Some("write `keys: ['sha256:..']`".to_owned()));
    }
    for element in elements {
        let Some(text) = element.secret() else { continue };
        match KeyHash::parse(Secret::reveal(&text)) {
            Ok(hash) => {
                if let Err(other) = keys.give(hash, &client) {
                    element.error(format!("`{other}` has this key already"), None);
                }
            }
            Err(why) => {
                element.error(
                    why,
                    Some("print it by `lictor hash-key`, which reads the key from standard input".to_owned()),
                );
            }
        }
    }
    section.finish();
}

pub(super) fn words(node: &Node<'_>) -> Vec<String> {
    let parse = |text: &str| {
        let is_word = !text.is_empty() && !text.contains(char::is_whitespace);
        if is_word { Ok(text.to_owned()) } else { Err(format!("`{text}` is not one word")) }
    };
    node.elements().iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, parse)).collect()
}
