//! `compress`: which answers are compressed.

use std::sync::Arc;

use lictor_core::gateway::compress::{Coding, Compress, MediaType};
use serde_json::json;

use crate::tree::Node;

pub(super) fn compress(node: &Node<'_>, base: Option<&Arc<Compress>>) -> Option<Arc<Compress>> {
    if node.is_off() {
        return None;
    }
    let from = base.map(|base| (**base).clone()).unwrap_or_default();
    if node.scalar().is_some() {
        return node.boolean(false).then(|| Arc::new(from));
    }
    let section = node.off_unless(base.is_some()).section(&[json!({ "type": "boolean" })]);
    let codings = section
        .field("codings", "`zstd`, `br` and `gzip`, or some of them; of those that a client likes equally, the first.");
    let types = section.field("types", "Types of content: `text/html`, `text/*`, `*+json`. Default: text, JSON, XML, JavaScript, WebAssembly and fonts that are not compressed.");
    let compress = Compress {
        min_size: section.field("min_size", "A shorter answer goes as it is.").size(from.min_size),
        with_credentials: section
            .field(
                "with_credentials",
                "Also answers to requests with a cookie, a token or a key, and those that set a cookie (BREACH).",
            )
            .boolean(from.with_credentials),
        codings: list(&codings, from.codings, coding),
        types: list(&types, from.types, MediaType::parse),
    };
    section.finish();
    (base.is_some() || node.is_set()).then(|| Arc::new(compress))
}

fn coding(text: &str) -> Result<Coding, String> {
    let known = Coding::ALL.iter().copied().find(|coding| coding.as_str() == text);
    known.ok_or_else(|| {
        let all: Vec<_> = Coding::ALL.iter().map(|coding| format!("`{}`", coding.as_str())).collect();
        format!("`{text}` is none of {}", all.join(", "))
    })
}

fn list<T>(node: &Node<'_>, base: Vec<T>, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let elements = node.elements();
    if node.is_set() && elements.is_empty() {
        node.error("needs at least one; `compress: off` switches it off", None);
    }
    let parsed = elements.iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, &parse)).collect();
    if node.is_set() { parsed } else { base }
}
