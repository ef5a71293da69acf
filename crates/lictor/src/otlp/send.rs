//! The way to an OTLP receiver: OpenTelemetry's exporter, with our TLS settings. The library encodes, sends, and tries
//! again as OTLP wants it (backoff, `Retry-After`, `RetryInfo`; OTLP specification, "Failures").
//!
//! Two things it keeps to itself, and both are worth counting or telling: partial success goes to its own log, and why
//! an attempt over HTTP failed goes nowhere. They come out here as notes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use lictor_config::{Otlp, OtlpProtocol};
use lictor_tls::{Alpn, ClientSpec, Trust};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};

use crate::otlp::convert;

/// One attempt.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);
/// All attempts of a batch. Meanwhile the queue fills.
const EXPORT_WITHIN: Duration = Duration::from_secs(60);
/// After the first attempt: with the waits of 1, 2, 4 and 8 s about a quarter of a minute where attempts fail at once.
const RETRIES: usize = 4;
const BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
/// So that the sidecars of a receiver that comes back do not come together.
const JITTER: Duration = Duration::from_millis(500);

/// What happened during an export, beside its result.
#[derive(Debug)]
pub(super) enum Note {
    /// An attempt failed; others may follow.
    Failed(String),
    /// The receiver took the batch but for so many spans, or has something to say about it.
    Partial { rejected: u64, why: String },
}

/// An OTLP receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    exporter: SpanExporter,
    /// Where the library's log goes during an export.
    log: Dispatch,
    /// Unbounded, but an export makes few, and each is taken at once.
    notes: mpsc::UnboundedReceiver<Note>,
}

impl Receiver {
    /// Reads what is needed; nothing is sent yet.
    pub(super) fn new(settings: &Otlp) -> anyhow::Result<Self> {
        let (sender, notes) = mpsc::unbounded_channel();
        let only = FilterFn::new(|metadata| metadata.name().ends_with(".PartialSuccess"));
        let said = Said(sender.clone()).with_filter(only.with_max_level_hint(LevelFilter::WARN));
        let connector = Connector::new(settings).with_context(|| format!("trace.otlp: {}", settings.endpoint))?;
        if let Some(tls) = &connector.tls {
            tokio::spawn(lictor_tls::follow(Arc::downgrade(tls)));
        }
        let mut exporter =
            exporter(settings, connector, sender).with_context(|| format!("trace.otlp: {}", settings.endpoint))?;
        exporter.set_resource(&convert::resource(settings));
        Ok(Self { exporter, log: Dispatch::new(tracing_subscriber::registry().with(said)), notes })
    }

    /// Sends a batch, again while there is hope.
    pub(super) async fn export(&mut self, batch: Vec<SpanData>, mut note: impl FnMut(Note)) -> Result<(), String> {
        let mut exporting = pin!(self.exporter.export(batch).with_subscriber(self.log.clone()));
        let result = loop {
            tokio::select! {
                biased;
                Some(said) = self.notes.recv() => note(said),
                result = &mut exporting => break result,
            }
        };
        while let Ok(said) = self.notes.try_recv() {
            note(said);
        }
        result.map_err(|error| error.to_string())
    }
}

/// What is known to be wrong before anything is sent.
pub(super) fn check(settings: &Otlp) -> anyhow::Result<()> {
    headers(settings)?;
    Connector::new(settings).map(|_| ()).with_context(|| format!("trace.otlp: {}", settings.endpoint))
}

fn exporter(settings: &Otlp, connector: Connector, notes: mpsc::UnboundedSender<Note>) -> anyhow::Result<SpanExporter> {
    let retries = RetryPolicy::default()
        .with_max_retries(RETRIES)
        .with_initial_delay(BACKOFF)
        .with_max_delay(LONGEST_BACKOFF)
        .with_max_jitter(JITTER);
    let headers = headers(settings)?;
    Ok(match settings.protocol {
        OtlpProtocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_channel(channel(settings, connector)?)
            .with_timeout(EXPORT_WITHIN)
            .with_metadata(MetadataMap::from_headers(headers))
            .with_retry_policy(retries)
            .build()?,
        OtlpProtocol::HttpProtobuf => SpanExporter::builder()
            .with_http()
            .with_http_client(Client { client: HyperClient::new(connector, ATTEMPT_WITHIN, None), notes })
            .with_endpoint(traces_url(&settings.endpoint))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_WITHIN)
            .with_headers(texts(&headers)?)
            .with_retry_policy(retries)
            .build()?,
    })
}

/// The one connection of gRPC, made when it is needed.
fn channel(settings: &Otlp, connector: Connector) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(settings.endpoint.clone())?.timeout(ATTEMPT_WITHIN).connect_with_connector_lazy(connector))
}

/// Makes connections, each with the certificates that were read last.
#[derive(Clone, Debug)]
struct Connector {
    tcp: HttpConnector,
    /// `None` for a receiver in the clear, where there need not be any CA on the machine.
    tls: Option<Arc<lictor_tls::Client>>,
    alpn: Alpn,
}

impl Connector {
    fn new(settings: &Otlp) -> anyhow::Result<Self> {
        let uri: Uri = settings.endpoint.parse()?;
        let trust = settings.ca.clone().map_or(Trust::System, Trust::File);
        let tls = match uri.scheme_str() {
            Some("https") => Some(Arc::new(lictor_tls::Client::read(ClientSpec { trust, ..ClientSpec::default() })?)),
            _ => None,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let alpn = if settings.protocol == OtlpProtocol::Grpc { Alpn::Http2 } else { Alpn::Http1 };
        Ok(Self { tcp, tls, alpn })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self.tls.as_ref().and_then(|tls| tls.config(self.alpn)) {
            Some(config) => HttpsConnector::from((self.tcp.clone(), config)).call(uri),
            None => {
                let connecting = self.tcp.call(uri);
                Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
        }
    }
}

/// A base URL gets the path of the specification; one with a path is taken as it is.
fn traces_url(endpoint: &str) -> String {
    let after_scheme = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let has_path = after_scheme.trim_end_matches('/').contains('/');
    if has_path { endpoint.to_owned() } else { format!("{}/v1/traces", endpoint.trim_end_matches('/')) }
}

fn headers(settings: &Otlp) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let key = HeaderName::try_from(name.as_str()).with_context(|| format!("trace.headers: `{name}`"))?;
        let value = HeaderValue::try_from(value.reveal()).with_context(|| format!("trace.headers: {name}'s value"))?;
        headers.insert(key, value);
    }
    Ok(headers)
}

/// As the library wants them for HTTP.
fn texts(headers: &HeaderMap) -> anyhow::Result<HashMap<String, String>> {
    headers.iter().map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned()))).collect()
}

/// The library's HTTP client, which says why an attempt failed.
#[derive(Debug)]
struct Client {
    client: HyperClient<Connector>,
    notes: mpsc::UnboundedSender<Note>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.client.send_bytes(request).await;
        let why = match &sent {
            Ok(response) if response.status().is_success() => return sent,
            Ok(response) => format!("the receiver answered {}", response.status()),
            Err(error) => chain(error.as_ref()),
        };
        let _ = self.notes.send(Note::Failed(why)); // nobody listens once the exporter is gone
        sent
    }
}

/// An error with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The library's log, of which partial success is taken.
struct Said(mpsc::UnboundedSender<Note>);

impl<S: Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let mut partial = Partial::default();
        event.record(&mut partial);
        let _ = self.0.send(Note::Partial { rejected: partial.rejected, why: partial.why });
    }
}

/// The fields of the library's `PartialSuccess`.
#[derive(Default)]
struct Partial {
    rejected: u64,
    why: String,
}

impl Visit for Partial {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.rejected = value.max(0).cast_unsigned();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error_message" {
            value.clone_into(&mut self.why);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
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
