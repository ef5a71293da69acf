//! Spans as OTLP's protobuf messages.

use std::time::SystemTime;

use lictor_config::Otlp;
use lictor_proxy::{Span, SpanKind, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind as Kind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};

/// The names in the spans are those of this version of the semantic conventions.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.27.0";
/// W3C's sampled flag, and OTLP's: it is known whether the parent is remote; it is.
const SAMPLED: u32 = 1;
const KNOWS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// A batch, as it is sent.
pub(super) fn request(settings: &Otlp, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let spans = ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "lictor".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        spans: spans.into_iter().map(message).collect(),
        schema_url: SCHEMA.to_owned(),
    };
    let of_resource =
        ResourceSpans { resource: Some(resource(settings)), scope_spans: vec![spans], schema_url: SCHEMA.to_owned() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

fn resource(settings: &Otlp) -> Resource {
    let given = settings.resource.iter().filter(|(key, _)| *key != "service.name");
    let pairs = given.map(|(key, value)| (key.as_str(), value.as_str()));
    let all = pairs.chain([("service.name", settings.service_name.as_str())]);
    let attributes = all.map(|(key, value)| attribute(key, Value::Text(value.to_owned()))).collect();
    Resource { attributes, ..Resource::default() }
}

fn message(span: Span) -> Message {
    let id = |id: u64| id.to_be_bytes().to_vec();
    let events = span.events.into_iter().map(|event| Event {
        time_unix_nano: nanos(event.at),
        name: event.name.to_owned(),
        attributes: attributes(event.attributes),
        dropped_attributes_count: 0,
    });
    let link = |(trace, span): (u128, u64)| Link {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id(span),
        flags: SAMPLED,
        ..Link::default()
    };
    let is_remote = if span.is_parent_remote && span.parent.is_some() { IS_REMOTE } else { 0 };
    Message {
        trace_id: span.trace_id.to_be_bytes().to_vec(),
        span_id: id(span.span_id),
        parent_span_id: span.parent.map(id).unwrap_or_default(),
        flags: SAMPLED | KNOWS_REMOTE | is_remote,
        name: span.name,
        kind: match span.kind {
            SpanKind::Internal => Kind::Internal,
            SpanKind::Client => Kind::Client,
            SpanKind::Server => Kind::Server,
        }
        .into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes(span.attributes),
        events: events.collect(),
        links: span.link.map(link).into_iter().collect(),
        status: span.is_error.then(|| Status { code: StatusCode::Error.into(), message: String::new() }),
        ..Message::default()
    }
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

fn attributes(pairs: Vec<(&'static str, Value)>) -> Vec<KeyValue> {
    pairs.into_iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Int(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
