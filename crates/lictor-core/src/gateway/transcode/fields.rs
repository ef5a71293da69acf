//! Fields of messages, as names in templates and queries say them (`book.name`), and values of theirs as text.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Value};
use serde_json::{Value as Json, json};

/// Deeper ones are nobody's.
const PARTS_MAX: usize = 16;

/// A field, and the messages that it is in, the outermost first.
pub(super) type Path = Vec<FieldDescriptor>;

/// A field by its name in the file or in JSON.
pub(super) fn named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}

/// Finds the field that a dotted name means; in words why there is none.
pub(super) fn find(message: &MessageDescriptor, name: &str) -> Result<Path, String> {
    let unknown = || format!("`{}` has no field `{}`", message.full_name(), short(name));
    let mut path = Path::new();
    let mut inner = Some(message.clone());
    for part in name.split('.') {
        let message = inner.ok_or_else(unknown)?;
        let field = named(&message, part).filter(|_| path.len() < PARTS_MAX).ok_or_else(unknown)?;
        inner = match field.kind() {
            Kind::Message(inner) if field.cardinality() != Cardinality::Repeated => Some(inner),
            _ => None,
        };
        path.push(field);
    }
    let last = path.last().ok_or_else(unknown)?;
    if last.is_map() || !is_single(&last.kind()) {
        return Err(format!("`{name}` of `{}` is not one value", message.full_name()));
    }
    Ok(path)
}

/// Whether it is written as one word in JSON.
fn is_single(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => {
            let name = message.full_name().strip_prefix("google.protobuf.").unwrap_or_default();
            matches!(name, "Timestamp" | "Duration" | "FieldMask") || wrapped(message).is_some()
        }
        _ => true,
    }
}

/// The kind that `google/protobuf/wrappers.proto` wraps.
pub(super) fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    const WRAPPERS: [&str; 9] = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];
    let name = message.full_name().strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    WRAPPERS.contains(&name).then(|| message.get_field(1)).flatten().map(|field| field.kind())
}

/// Reads texts as the value of a field, several where it is repeated.
pub(super) fn value(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let wrong = |why: &str| format!("`{}`: {why}", field.name());
    let one = word(&field.kind(), text).map_err(|why| wrong(&why))?;
    let whole = if field.is_list() { json!([one]) } else { one };
    let mut members = serde_json::Map::new();
    members.insert(field.json_name().to_owned(), whole);
    let read = DynamicMessage::deserialize(field.parent_message().clone(), Json::Object(members));
    let read = read.map_err(|why| wrong(&short(&why.to_string())))?;
    Ok(read.get_field(field).into_owned())
}

/// The same as JSON has it.
fn word(kind: &Kind, text: &str) -> Result<Json, String> {
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ => Err(format!("`{}` is neither `true` nor `false`", short(text))),
        },
        Kind::Enum(of) => {
            let number = text.parse::<i32>().ok();
            let known = number.map_or_else(|| of.get_value_by_name(text), |number| of.get_value(number));
            let known = known.ok_or_else(|| format!("`{}` has no `{}`", of.full_name(), short(text)))?;
            Ok(json!(known.number()))
        }
        Kind::Message(message) => wrapped(message).map_or_else(|| Ok(json!(text)), |kind| word(&kind, text)),
        _ => Ok(json!(text)),
    }
}

/// So much of what a client said as is shown to it.
pub(super) fn short(text: &str) -> String {
    const SHOWN: usize = 120;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

/// Gives a field its value, or one more of several. What the message has there already must be the same.
pub(super) fn put(message: &mut DynamicMessage, path: &[FieldDescriptor], value: Value) -> Result<(), String> {
    let Some((field, above)) = path.split_last() else { return Ok(()) };
    let mut inner = message;
    for field in above {
        alone(inner, field)?;
        inner = inner.get_field_mut(field).as_message_mut().ok_or("a field within no message")?;
    }
    if let Value::List(more) = value {
        if let Some(list) = inner.get_field_mut(field).as_list_mut() {
            list.extend(more);
        }
        return Ok(());
    }
    alone(inner, field)?;
    if inner.has_field(field) && *inner.get_field(field) != value {
        return Err(format!("`{}` is said twice, and not the same", field.name()));
    }
    inner.set_field(field, value);
    Ok(())
}

/// What would be taken away by this one must not be there.
fn alone(message: &DynamicMessage, field: &FieldDescriptor) -> Result<(), String> {
    let others = field.containing_oneof();
    match others.iter().flat_map(OneofDescriptor::fields).find(|other| other != field && message.has_field(other)) {
        Some(other) => Err(format!("`{}` and `{}` exclude one another", other.name(), field.name())),
        None => Ok(()),
    }
}
