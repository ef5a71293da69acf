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
use tracing::{error, info, warn};

const QUEUE: usize = 2048;
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why these settings cannot work, where that is known before trying.
pub(crate) fn complaint(settings: &Otlp) -> Option<String> {
    settings.endpoint.starts_with("https://").then(|| {
        let endpoint = &settings.endpoint;
        format!("trace.otlp: this version cannot export to {endpoint}: only http; send to a collector beside lictor")
    })
}

/// Starts exporting. A sidecar without traces is better than none: why there are none is told, and it goes on.
pub(crate) fn start_or_tell(settings: &Otlp) -> Option<(mpsc::Sender<Span>, Export)> {
    let started = start(settings);
    if let Err(error) = &started {
        error!(target: "lictor::event", kind = "traces_not_exported", "no traces are exported: {error:#}");
    }
    started.ok()
}

/// The task ends, after a last batch, when every sender is gone or it is told to finish.
fn start(settings: &Otlp) -> anyhow::Result<(mpsc::Sender<Span>, Export)> {
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
    if let Some(complaint) = complaint(settings) {
        anyhow::bail!(complaint);
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
                (Err(error), false) => {
                    warn!(target: "lictor::event", kind = "traces_failing", %error, "spans cannot be exported; they are lost until this changes");
                }
                (Ok(()), true) => info!(target: "lictor::event", kind = "traces_back", "spans are exported again"),
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
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::time::SystemTime;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use lictor_core::Secret;
    use tokio::net::TcpListener;

    use super::*;

    /// What an exporter sent: the path, the content type, the token, and the protobuf as text.
    #[derive(Debug)]
    struct Received {
        path: String,
        kind: String,
        token: String,
        body: String,
    }

    /// A receiver of both protocols. To gRPC its answer is a trailers-only OK.
    async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Received>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| answer(request, sender.clone()));
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (address, received)
    }

    async fn answer(
        request: Request<Incoming>,
        sender: mpsc::UnboundedSender<Received>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let header = |name: &str| {
            request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (path, kind, token) = (request.uri().path().to_owned(), header("content-type"), header("x-token"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let response = Response::builder().header("content-type", &kind).header("grpc-status", "0");
        sender.send(Received { path, kind, token, body }).unwrap();
        Ok(response.body(Full::default()).unwrap())
    }

    fn settings(endpoint: String, protocol: OtlpProtocol) -> Otlp {
        Otlp {
            endpoint,
            protocol,
            headers: vec![("x-token".to_owned(), Secret::new("t0ken"))],
            service_name: "order-service".to_owned(),
            resource: [("deployment.environment".to_owned(), "test".to_owned())].into(),
        }
    }

    fn span() -> Span {
        Span {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 7,
            parent: None,
            kind: SpanKind::Client,
            name: "GET /carts/{id}".to_owned(),
            start: SystemTime::now(),
            end: SystemTime::now(),
            attributes: vec![("server.address", Value::Text("cart-service".to_owned()))],
            events: Vec::new(),
            is_error: false,
        }
    }

    async fn exported(protocol: OtlpProtocol) -> Received {
        let (address, mut received) = collector().await;
        let (spans, export) = start(&settings(format!("http://{address}"), protocol)).unwrap();
        spans.send(span()).await.unwrap();
        export.finish().await;
        received.try_recv().expect("what is queued is sent before the end")
    }

    #[tokio::test]
    async fn spans_travel_as_protobuf_over_http() {
        let received = exported(OtlpProtocol::HttpProtobuf).await;
        assert_eq!((received.path.as_str(), received.kind.as_str()), ("/v1/traces", "application/x-protobuf"));
        assert_complete(&received);
    }

    #[tokio::test]
    async fn spans_travel_over_grpc() {
        let received = exported(OtlpProtocol::Grpc).await;
        assert_eq!(received.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_complete(&received);
    }

    fn assert_complete(received: &Received) {
        assert_eq!(received.token, "t0ken");
        for expected in ["order-service", "deployment.environment", "GET /carts/{id}", "cart-service"] {
            assert!(received.body.contains(expected), "no {expected} in {received:?}");
        }
    }

    #[tokio::test]
    async fn https_is_refused_with_a_sentence() {
        let settings = settings("https://otel.example:4317".to_owned(), OtlpProtocol::Grpc);
        let error = start(&settings).unwrap_err().to_string();
        assert!(error.contains("https://otel.example:4317: only http"), "{error}");
        assert!(start_or_tell(&settings).is_none());
    }

    #[test]
    fn a_base_url_gets_the_specified_path() {
        assert_eq!(traces_url("http://otel:4318"), "http://otel:4318/v1/traces");
        assert_eq!(traces_url("http://otel:4318/"), "http://otel:4318/v1/traces");
        assert_eq!(traces_url("http://otel:4318/custom"), "http://otel:4318/custom");
    }
}
