//! What a service answers, in JSON.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::prost::DecodeError;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde_json::{Value as Json, json};

use super::super::grpc::Status;

/// How deep a message may be that holds others by `google.protobuf.Any`; prost reads none by itself that is deeper than 100.
const DEPTH_MAX: usize = 128;
const ANY: &str = "google.protobuf.Any";
/// Its padding is optional on the wire.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a method's answers are written.
#[derive(Clone, Debug)]
pub struct Answers {
    message: MessageDescriptor,
    /// Only this field of it.
    field: Option<FieldDescriptor>,
    options: SerializeOptions,
    /// Its fields are named as in the file.
    proto_names: bool,
    holds_any: bool,
}

impl Answers {
    pub(super) fn new(
        message: MessageDescriptor,
        field: Option<FieldDescriptor>,
        options: SerializeOptions,
        proto_names: bool,
    ) -> Self {
        let holds_any = may_hold_any(&message, &mut HashSet::new());
        Self { message, field, options, proto_names, holds_any }
    }

    /// A message in JSON; in words why it is none.
    pub fn json(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let message = decode(&self.message, message)?;
        if self.holds_any {
            check_depth(&message, 0)?;
        }
        let Some(field) = &self.field else { return self.written(&message) };
        let mut only = DynamicMessage::new(self.message.clone());
        if message.has_field(field) {
            only.set_field(field, message.get_field(field).into_owned());
        }
        // What has no value is written too: it is the whole answer.
        let is_there = message.has_field(field);
        let options = if is_there { self.options.clone() } else { self.options.clone().skip_default_fields(false) };
        let whole = only.serialize_with_options(serde_json::value::Serializer, &options).map_err(unwritten)?;
        let name = if self.proto_names { field.name() } else { field.json_name() };
        serde_json::to_vec(&whole[name]).map_err(unwritten)
    }

    fn written(&self, message: &DynamicMessage) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &self.options).map_err(unwritten)?;
        Ok(out)
    }

    /// A failure, as `google.rpc.Status` is in JSON. Details of types that the descriptor does not have are left out.
    pub fn status(&self, status: &Status) -> Vec<u8> {
        let details = status.details.as_ref().and_then(|text| details(self.message.parent_pool(), text));
        let told =
            json!({ "code": status.code, "message": status.message, "details": details.unwrap_or_else(|| json!([])) });
        told.to_string().into_bytes()
    }
}

fn decode(of: &MessageDescriptor, message: &[u8]) -> Result<DynamicMessage, String> {
    let message = DynamicMessage::decode(of.clone(), message);
    message.map_err(|why| format!("the service answered with what is no `{}`: {why}", of.full_name()))
}

fn unwritten(why: impl std::fmt::Display) -> String {
    format!("the service's answer has no form in JSON: {why}")
}

/// Refuses messages that hold messages that hold messages: each `Any` is read anew as it is written, so that there is no
/// end but the stack's.
fn check_depth(message: &DynamicMessage, depth: usize) -> Result<(), String> {
    if depth == DEPTH_MAX {
        return Err(format!("the service's answer is deeper than {DEPTH_MAX}"));
    }
    if message.descriptor().full_name() == ANY {
        return held(message).map_or(Ok(()), |held| check_depth(&held.map_err(unwritten)?, depth + 1));
    }
    let inner = |value: &Value| value.as_message().map_or(Ok(()), |inner| check_depth(inner, depth + 1));
    let extensions = message.extensions().map(|(_, value)| value);
    for value in message.fields().map(|(_, value)| value).chain(extensions) {
        match value {
            Value::List(values) => values.iter().try_for_each(inner)?,
            Value::Map(values) => values.values().try_for_each(inner)?,
            value => inner(value)?,
        }
    }
    Ok(())
}

/// What an `Any` holds; `None` where its type is not known, which is said as it is written.
fn held(any: &DynamicMessage) -> Option<Result<DynamicMessage, DecodeError>> {
    let (url, held) = (any.get_field_by_number(1)?, any.get_field_by_number(2)?);
    let name = url.as_str()?.rsplit('/').next()?;
    let of = any.descriptor().parent_pool().get_message_by_name(name)?;
    Some(DynamicMessage::decode(of, held.as_bytes()?.clone()))
}

/// Whether a message of this type may have an `Any` in it.
fn may_hold_any(of: &MessageDescriptor, seen: &mut HashSet<String>) -> bool {
    let is_open = of.full_name() == ANY || of.extension_ranges().next().is_some();
    is_open || (seen.insert(of.full_name().to_owned()) && inner_types(of).any(|inner| may_hold_any(&inner, seen)))
}

fn inner_types(of: &MessageDescriptor) -> impl Iterator<Item = MessageDescriptor> {
    of.fields().filter_map(|field| field.kind().as_message().cloned())
}

/// `grpc-status-details-bin`
fn details(pool: &DescriptorPool, text: &[u8]) -> Option<Json> {
    let of = pool.get_message_by_name("google.rpc.Status")?;
    let status = decode(&of, &BASE64.decode(text).ok()?).ok()?;
    check_depth(&status, 0).ok()?;
    let details = status.get_field_by_name("details")?;
    let written = |detail: &Value| serde_json::to_value(detail.as_message()?).ok();
    Some(details.as_list()?.iter().filter_map(written).collect())
}
