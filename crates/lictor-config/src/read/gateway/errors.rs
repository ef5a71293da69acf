//! `errors:`, what failures of the gateway's own look like.

use std::sync::Arc;

use http::HeaderValue;
use lictor_core::gateway::errors::{Page, Shape};
use serde_json::json;

use crate::tree::Node;

/// The words for a shape; `None` is the configuration's own.
const FORMATS: [(&str, Option<Shape>); 6] = [
    ("problem", Some(Shape::Problem)),
    ("status_message", Some(Shape::StatusMessage)),
    ("error", Some(Shape::Error)),
    ("error_message", Some(Shape::ErrorMessage)),
    ("text", Some(Shape::Text)),
    ("template", None),
];

/// What the gateway or a route says; what it does not say is `base`'s. `None`: lictor's own shape.
pub(super) fn errors(node: &Node<'_>, base: Option<&Arc<Shape>>) -> Option<Arc<Shape>> {
    if node.is_off() {
        return None;
    }
    let section = node.section_or_short("format", &[json!({ "type": "string" })]);
    let format = section.field("format", "problem (RFC 9457), status_message, error, error_message, text or template.");
    let template = section.field("template", "The body, with `{status}`, `{title}`, `{reason}`, `{message}`, `{request_id}`, `{timestamp}`, `{retry_after}`, `{route}`; at most 64KiB.");
    let kind =
        section.field("content_type", "What the template is; values are escaped for JSON, HTML or not, as it says.");
    let chosen = format.choice(&FORMATS, None);
    let said = kind.parsed(json!({ "type": "string" }), None, |text| {
        HeaderValue::try_from(text).map_err(|_| format!("`{text}` is not a header value"))
    });
    let content_type = said.unwrap_or(HeaderValue::from_static("application/json"));
    let page = template.parsed(json!({ "type": "string" }), None, |text| Page::parse(text, content_type));
    section.finish();
    if !node.is_set() {
        return base.cloned();
    }
    let is_own = matches!(chosen, Some(None)) || (!format.is_set() && template.is_set());
    if !is_own {
        for lonely in [&template, &kind] {
            if lonely.is_set() {
                lonely.key_error(format!("`{}` is for `format: template`", lonely.name()), None);
            }
        }
        if !format.is_set() {
            node.error("`errors` needs a `format`", Some("write `errors: problem`".to_owned()));
        }
        return chosen.flatten().map(Arc::new);
    }
    if !template.is_set() {
        node.error("`format: template` needs a `template`", None);
    }
    page.map(|page| Arc::new(Shape::Template(Box::new(page))))
}
