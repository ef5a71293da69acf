//! The words that schemas are made of.

use serde_json::{Map, Value as Json, json};

/// Members of an object.
pub(super) type Members<'a> = &'a [(&'a str, Json)];
/// Schemas by their names.
pub(super) type Named = Vec<(&'static str, Json)>;

/// An error that says more.
pub(super) fn error(more: Members<'_>) -> Json {
    object("", &[&[("status", constant("error")), ("message", text(""))][..], more].concat())
}

pub(super) fn object(told: &str, members: Members<'_>) -> Json {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in members {
        let key = name.trim_end_matches('?');
        properties.insert(key.to_owned(), schema.clone());
        if key.len() == name.len() {
            required.push(key);
        }
    }
    described(json!({ "type": "object", "properties": properties, "required": required }), told)
}

/// The same object with further members, each of which may be missing.
pub(super) fn with_optional(mut schema: Json, members: Members<'_>) -> Json {
    for (name, member) in members {
        schema["properties"][*name] = member.clone();
    }
    schema
}

pub(super) fn map(told: &str, of: Json) -> Json {
    described(json!({ "type": "object", "additionalProperties": of }), told)
}

pub(super) fn list(told: &str, of: Json) -> Json {
    described(json!({ "type": "array", "items": of }), told)
}

pub(super) fn text(told: &str) -> Json {
    described(json!({ "type": "string" }), told)
}

pub(super) fn time(told: &str) -> Json {
    described(json!({ "type": "string", "format": "date-time" }), told)
}

pub(super) fn one_of(told: &str, words: &[&str]) -> Json {
    described(json!({ "type": "string", "enum": words }), told)
}

pub(super) fn constant(value: impl Into<Json>) -> Json {
    json!({ "const": value.into() })
}

/// A whole number that is not negative.
pub(super) fn int(told: &str) -> Json {
    described(json!({ "type": "integer", "format": "int64", "minimum": 0 }), told)
}

pub(super) fn millis(told: &str) -> Json {
    int(&format!("Milliseconds. {told}"))
}

pub(super) fn number(told: &str) -> Json {
    described(json!({ "type": "number", "format": "double" }), told)
}

pub(super) fn flag(told: &str) -> Json {
    described(json!({ "type": "boolean" }), told)
}

pub(super) fn named(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn or_null(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

pub(super) fn breaker_state() -> Json {
    one_of("", &["closed", "open", "half-open"])
}

pub(super) fn endpoint_state() -> Json {
    one_of("", &["healthy", "failing", "slow", "warning", "flapping", "suspect", "ejected", "draining", "resting"])
}

pub(super) fn direction() -> Json {
    one_of("Where it came in.", &["inbound", "outbound", "gateway"])
}

pub(super) fn kept() -> Json {
    one_of("Why it was kept.", &["failed", "refused", "asked", "retried", "slow", "sampled"])
}

/// Pairs of name and value.
pub(super) fn headers(told: &str) -> Json {
    list(told, json!({ "type": "array", "items": text(""), "minItems": 2, "maxItems": 2 }))
}

pub(super) fn described(mut schema: Json, told: &str) -> Json {
    if !told.is_empty() {
        schema["description"] = json!(told.trim_end());
    }
    schema
}
