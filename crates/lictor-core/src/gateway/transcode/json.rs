//! JSON of requests, read strictly: what two readers might read otherwise is refused.
//!
//! prost-reflect knows the mapping (<https://protobuf.dev/programming-guides/json/>), takes the last of two members of one
//! name, and any number for an enum. So a text is looked at before: no member twice, also not by a field's two names, no
//! field that there is not, no value of an enum that is not named, no number that a 64-bit integer does not hold exactly.

use lictor_jose::Why;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json};

use super::fields::{named, short, wrapped};

/// How deep a request may be.
pub(super) const DEPTH_MAX: usize = 64;

/// Reads a text; an empty one says nothing.
pub(super) fn parse(text: &[u8]) -> Result<Json, String> {
    lictor_jose::value(text, DEPTH_MAX).map_err(|why| match why {
        Why::Duplicate => "the JSON has a member twice".to_owned(),
        Why::TooDeep => format!("the JSON is deeper than {DEPTH_MAX}"),
        _ => "the body is not JSON".to_owned(),
    })
}

/// Makes a message of it.
pub(super) fn message(of: &MessageDescriptor, value: Json) -> Result<DynamicMessage, String> {
    check(&Kind::Message(of.clone()), &value)?;
    DynamicMessage::deserialize(of.clone(), value).map_err(|why| short(&why.to_string()))
}

/// A message with one field.
pub(super) fn message_with(field: &FieldDescriptor, value: Json) -> Result<DynamicMessage, String> {
    let members = Map::from_iter([(field.json_name().to_owned(), value)]);
    message(field.parent_message(), Json::Object(members))
}

fn check(kind: &Kind, value: &Json) -> Result<(), String> {
    match (kind, value) {
        (Kind::Enum(of), Json::Number(number)) => {
            let number = number.as_i64().and_then(|number| i32::try_from(number).ok());
            let is_known = number.is_some_and(|number| of.get_value(number).is_some());
            if is_known { Ok(()) } else { Err(format!("`{}` has no such number", of.full_name())) }
        }
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64, Json::Number(number)) => {
            const EXACT: f64 = 9_007_199_254_740_992.0;
            let is_exact = !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() <= EXACT);
            if is_exact { Ok(()) } else { Err(format!("{number} is no integer of 64 bits")) }
        }
        (Kind::Message(of), value) => check_message(of, value),
        _ => Ok(()),
    }
}

/// What has a form of its own is what it holds; others have none but their members.
fn check_message(of: &MessageDescriptor, value: &Json) -> Result<(), String> {
    if let Some(kind) = wrapped(of) {
        return check(&kind, value);
    }
    match (of.full_name(), value) {
        ("google.protobuf.Any", Json::Object(members)) => check_any(of, members),
        ("google.protobuf.Struct" | "google.protobuf.Value", _) => Ok(()),
        (_, Json::Object(members)) => check_members(of, members.iter()),
        _ => Ok(()),
    }
}

/// A type that nobody knows is refused by whoever reads it.
fn check_any(any: &MessageDescriptor, members: &Map<String, Json>) -> Result<(), String> {
    let name = members.get("@type").and_then(|url| url.as_str()?.rsplit('/').next());
    let Some(of) = name.and_then(|name| any.parent_pool().get_message_by_name(name)) else { return Ok(()) };
    if has_own_form(&of) {
        return members.get("value").map_or(Ok(()), |value| check_message(&of, value));
    }
    let others = members.iter().filter(|(name, _)| *name != "@type");
    check_members(&of, others)
}

/// Whether it is a member `value` of what holds it.
fn has_own_form(of: &MessageDescriptor) -> bool {
    let name = of.full_name().strip_prefix("google.protobuf.").unwrap_or_default();
    matches!(name, "Any" | "Duration" | "Empty" | "FieldMask" | "ListValue" | "Struct" | "Timestamp" | "Value")
        || wrapped(of).is_some()
}

fn check_members<'a>(
    of: &MessageDescriptor,
    members: impl Iterator<Item = (&'a String, &'a Json)>,
) -> Result<(), String> {
    let mut seen = Vec::new();
    for (name, value) in members {
        let field = named(of, name).ok_or_else(|| format!("`{}` has no field `{}`", of.full_name(), short(name)))?;
        if seen.contains(&field.number()) {
            return Err(format!("`{}` is there twice, by both its names", field.name()));
        }
        seen.push(field.number());
        let kind = field.kind();
        match (value, &kind) {
            (Json::Object(entries), Kind::Message(entry)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                entries.values().try_for_each(|value| check(&kind, value))?;
            }
            (Json::Array(values), _) if field.is_list() => values.iter().try_for_each(|value| check(&kind, value))?,
            (value, kind) => check(kind, value)?,
        }
    }
    Ok(())
}
