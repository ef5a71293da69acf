//! Our spans as those of OpenTelemetry's library.

use std::borrow::Cow;
use std::str::FromStr;

use lictor_config::Otlp;
use lictor_proxy::{Span, SpanKind, Value};
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind as Kind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// The names in the spans are those of this version of the semantic conventions.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.27.0";

/// What makes spans: this program.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("lictor").with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA).build()
}

/// Whose spans they are.
pub(super) fn resource(settings: &Otlp) -> Resource {
    let given = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_schema_url(given, SCHEMA)
        .with_service_name(settings.service_name.clone()) // the later one of a name stands
        .build()
}

pub(super) fn span(span: Span, scope: &InstrumentationScope) -> SpanData {
    let mut events = SpanEvents::default();
    let told = span.events.into_iter().map(|event| Event::new(event.name, event.at, attributes(event.attributes), 0));
    events.events = told.collect();
    let mut links = SpanLinks::default();
    links.links =
        span.link.map(|(trace, span)| Link::new(context(trace, span, ""), Vec::new(), 0)).into_iter().collect();
    SpanData {
        span_context: context(span.trace_id, span.span_id, &span.trace_state),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.is_parent_remote && span.parent.is_some(),
        span_kind: match span.kind {
            SpanKind::Internal => Kind::Internal,
            SpanKind::Client => Kind::Client,
            SpanKind::Server => Kind::Server,
        },
        name: Cow::Owned(span.name),
        start_time: span.start,
        end_time: span.end,
        attributes: attributes(span.attributes),
        dropped_attributes_count: 0,
        events,
        links,
        status: if span.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
}

/// Of a span of ours. Only sampled ones get here.
fn context(trace: u128, span: u64, state: &str) -> SpanContext {
    let state = TraceState::from_str(state).unwrap_or_default();
    SpanContext::new(TraceId::from(trace), SpanId::from(span), TraceFlags::SAMPLED, false, state)
}

fn attributes(pairs: Vec<(&'static str, Value)>) -> Vec<KeyValue> {
    pairs
        .into_iter()
        .map(|(key, value)| match value {
            Value::Text(text) => KeyValue::new(key, text),
            Value::Int(number) => KeyValue::new(key, number),
        })
        .collect()
}
