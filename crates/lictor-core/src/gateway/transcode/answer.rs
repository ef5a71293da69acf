//! What a service answers, in JSON.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::prost::DecodeError;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde_json::value::RawValue;
use serde_json::{Serializer, Value as Json, json};

use super::super::grpc::Status;
use super::terms::Terms;

/// How deep a message may be that holds others by `google.protobuf.Any`; prost reads none by itself that is deeper than 100.
const DEPTH_MAX: usize = 128;
/// So many times longer may a message be in JSON than `message_max`: two bytes of protobuf can say `{"name":"","size":"0"}`.
const LONGER: usize = 16;
const NULL: Bytes = Bytes::from_static(b"null");
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
    /// How long one may be in JSON, in bytes.
    most: usize,
}

/// Why an answer is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// The message is to blame, in words.
    Wrong(String),
    /// There is no room for it.
    Crowded,
}

/// JSON as it is made, which asks for its room before it takes that.
struct Made<'a> {
    bytes: Vec<u8>,
    most: usize,
    room: &'a mut dyn FnMut(usize) -> bool,
    refused: Option<Unmade>,
}

impl Answers {
    pub(super) fn new(
        message: MessageDescriptor,
        field: Option<FieldDescriptor>,
        options: SerializeOptions,
        terms: &Terms,
    ) -> Self {
        let holds_any = may_hold_any(&message, &mut HashSet::new());
        let (proto_names, most) = (terms.proto_names, terms.message_max.saturating_mul(LONGER));
        Self { message, field, options, proto_names, holds_any, most }
    }

    /// A message in JSON. `room` is asked, each time that it grows, whether there is room for so many bytes of it in all.
    pub fn json(&self, message: &[u8], room: &mut dyn FnMut(usize) -> bool) -> Result<Bytes, Unmade> {
        let message = decode(&self.message, message).map_err(Unmade::Wrong)?;
        if self.holds_any {
            check_depth(&message, 0).map_err(Unmade::Wrong)?;
        }
        let Some(field) = &self.field else { return self.made(&message, &self.options, room) };
        let mut only = DynamicMessage::new(self.message.clone());
        if message.has_field(field) {
            only.set_field(field, message.get_field(field).into_owned());
        }
        // What has no value is written too: it is the whole answer.
        let is_there = message.has_field(field);
        let options = if is_there { self.options.clone() } else { self.options.clone().skip_default_fields(false) };
        let whole = self.made(&only, &options, room)?;
        let name = if self.proto_names { field.name() } else { field.json_name() };
        let wrong = |why| Unmade::Wrong(unwritten(why));
        let members: HashMap<String, &RawValue> = serde_json::from_slice(&whole).map_err(wrong)?;
        Ok(members.get(name).map_or(NULL, |value| whole.slice_ref(value.get().as_bytes())))
    }

    fn made(
        &self,
        message: &DynamicMessage,
        options: &SerializeOptions,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, Unmade> {
        let mut made = Made { bytes: Vec::new(), most: self.most, room, refused: None };
        let written = message.serialize_with_options(&mut Serializer::new(&mut made), options);
        match (made.refused, written) {
            (Some(refused), _) => Err(refused),
            (None, Err(why)) => Err(Unmade::Wrong(unwritten(why))),
            (None, Ok(())) => {
                made.bytes.shrink_to_fit();
                Ok(made.bytes.into())
            }
        }
    }

    /// A failure, as `google.rpc.Status` is in JSON. Details of types that the descriptor does not have are left out.
    pub fn status(&self, status: &Status) -> Vec<u8> {
        let details = status.details.as_ref().and_then(|text| details(self.message.parent_pool(), text));
        let told =
            json!({ "code": status.code, "message": status.message, "details": details.unwrap_or_else(|| json!([])) });
        told.to_string().into_bytes()
    }
}

impl Write for Made<'_> {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        let length = self.bytes.len() + more.len();
        if length > self.most {
            self.refused =
                Some(Unmade::Wrong(format!("the service's answer is longer than {} bytes in JSON", self.most)));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if length > self.bytes.capacity() {
            // JSON is written sign by sign.
            let capacity = length.max(2 * self.bytes.capacity()).max(256).min(self.most);
            if !(self.room)(capacity) {
                self.refused = Some(Unmade::Crowded);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
