//! Spans on their way to an OTLP receiver: a bounded queue, batches, one exporter; off the request path.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use lictor_config::{Otlp, OtlpProtocol};
use lictor_proxy::{Span, SpanKind, Value};
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig, tonic_types::metadata::MetadataMap,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{info, warn};

const QUEUE: usize = 2048;
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(2);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts exporting. The task ends, after a last batch, when every sender is gone or `stop` is called.
pub(crate) fn start(settings: &Otlp) -> anyhow::Result<(mpsc::Sender<Span>, Export)> {
    let mut exporter = exporter(settings)?;
    exporter.set_resource(&resource(settings));
    let (spans, queue) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(export(exporter, queue, stopped));
    Ok((spans, Export { task, stop }))
}

/// The running export.
#[derive(Debug)]
pub(crate) struct Export {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Export {
    /// Sends what is left, for two seconds at most.
    pub(crate) async fn finish(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
    }
}

fn exporter(settings: &Otlp) -> anyhow::Result<SpanExporter> {
    if settings.endpoint.starts_with("https://") {
        anyhow::bail!("trace.otlp: https is not in this version yet; send to a collector beside the sidecar");
    }
    let exporter = match settings.protocol {
        OtlpProtocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .with_metadata(metadata(settings)?)
            .build(),
        OtlpProtocol::HttpProtobuf => SpanExporter::builder()
            .with_http()
            .with_http_client(HyperClient::with_default_connector(EXPORT_TIMEOUT, None))
            .with_endpoint(traces_url(&settings.endpoint))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .with_headers(headers(settings))
            .build(),
    };
    exporter.with_context(|| format!("trace.otlp: {}", settings.endpoint))
}

/// A base URL gets the path of the specification; one with a path is taken as it is.
fn traces_url(endpoint: &str) -> String {
    let after_scheme = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let has_path = after_scheme.trim_end_matches('/').contains('/');
    if has_path { endpoint.to_owned() } else { format!("{}/v1/traces", endpoint.trim_end_matches('/')) }
}

fn headers(settings: &Otlp) -> HashMap<String, String> {
    settings.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect()
}

fn metadata(settings: &Otlp) -> anyhow::Result<MetadataMap> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &settings.headers {
        let name = http::HeaderName::try_from(name.as_str()).with_context(|| format!("trace.headers: `{name}`"))?;
        let value =
            http::HeaderValue::try_from(value.reveal()).with_context(|| format!("trace.headers: {name}'s value"))?;
        headers.insert(name, value);
    }
    Ok(MetadataMap::from_headers(headers))
}

fn resource(settings: &Otlp) -> Resource {
    let attributes = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes(attributes)
        .with_attribute(KeyValue::new("service.name", settings.service_name.clone()))
        .build()
}

async fn export(exporter: SpanExporter, mut queue: mpsc::Receiver<Span>, mut stop: oneshot::Receiver<()>) {
    let scope = InstrumentationScope::builder("lictor").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    let mut is_failing = false;
    loop {
        let is_last = tokio::select! {
            biased;
            _ = &mut stop => {
                while let Ok(span) = queue.try_recv() {
                    batch.push(convert(span, &scope));
                }
                true
            }
            span = queue.recv() => match span {
                Some(span) => {
                    batch.push(convert(span, &scope));
                    if batch.len() < BATCH {
                        continue;
                    }
                    false
                }
                None => true,
            },
            _ = tick.tick() => false,
        };
        if !batch.is_empty() {
            let result = exporter.export(std::mem::take(&mut batch)).await;
            match (&result, is_failing) {
                (Err(error), false) => warn!(%error, "spans cannot be exported; they are lost until this changes"),
                (Ok(()), true) => info!("spans are exported again"),
                _ => (),
            }
            is_failing = result.is_err();
        }
        if is_last {
            return;
        }
    }
}

fn convert(span: Span, scope: &InstrumentationScope) -> SpanData {
    let events = span.events.into_iter().map(|event| Event::new(event.name, event.at, attributes(event.attributes), 0));
    let mut kept = SpanEvents::default();
    kept.events = events.collect();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.trace_id),
            SpanId::from(span.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            SpanKind::Client => OtelKind::Client,
            SpanKind::Server => OtelKind::Server,
        },
        name: Cow::Owned(span.name),
        start_time: span.start,
        end_time: span.end,
        attributes: attributes(span.attributes),
        dropped_attributes_count: 0,
        events: kept,
        links: SpanLinks::default(),
        status: if span.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_gets_the_specified_path() {
        assert_eq!(traces_url("http://otel:4318"), "http://otel:4318/v1/traces");
        assert_eq!(traces_url("http://otel:4318/"), "http://otel:4318/v1/traces");
        assert_eq!(traces_url("http://otel:4318/custom"), "http://otel:4318/custom");
    }
}
