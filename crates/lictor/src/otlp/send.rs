//! One export to an OTLP receiver: over HTTP with protobuf, or gRPC; in the clear or with TLS. Says what became of it
//! in the protocol's own terms (OTLP specification, "Failures" and "Partial Success"); trying again is for the caller.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, TE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lictor_config::{Otlp, OtlpProtocol};
use lictor_core::tls::ClientTls;
use lictor_proxy::client_tls;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// An answer is a few numbers and perhaps a sentence.
const MAX_ANSWER: usize = 64 << 10;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What became of an export.
#[derive(Debug)]
pub(super) enum Sent {
    /// All of it was taken but for so many spans, with the receiver's reason.
    Taken { rejected: u64, why: String },
    /// Not now; perhaps when this time is over.
    Later { after: Option<Duration>, why: String },
    /// Not at all.
    Refused { why: String },
}

/// A receiver, with a connection that is kept.
#[derive(Debug)]
pub(super) struct Receiver {
    uri: Uri,
    host: String,
    port: u16,
    protocol: OtlpProtocol,
    headers: HeaderMap,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    open: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Receiver {
    /// Reads what is needed; nothing is sent yet.
    pub(super) fn new(settings: &Otlp) -> anyhow::Result<Self> {
        let endpoint = || format!("trace.otlp: {}", settings.endpoint);
        let base: Uri = settings.endpoint.parse().with_context(endpoint)?;
        let is_encrypted = base.scheme() == Some(&Scheme::HTTPS);
        let authority = base.authority().with_context(endpoint)?.clone();
        let is_grpc = settings.protocol == OtlpProtocol::Grpc;
        let path = if is_grpc { PathAndQuery::from_static(METHOD) } else { traces_path(&base) };
        let uri = Uri::builder().scheme(if is_encrypted { "https" } else { "http" }).authority(authority.as_str());
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = if is_encrypted {
            let trust = ClientTls { ca: settings.ca.clone(), ..ClientTls::default() };
            let name = ServerName::try_from(host.clone()).with_context(endpoint)?;
            Some((client_tls(&trust, is_grpc).with_context(endpoint)?, name))
        } else {
            None
        };
        Ok(Self {
            uri: uri.path_and_query(path).build().with_context(endpoint)?,
            port: authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }),
            host,
            protocol: settings.protocol,
            headers: headers(settings)?,
            tls,
            open: None,
        })
    }

    /// Sends a batch once. What goes wrong on the way may go well later.
    pub(super) async fn send(&mut self, batch: &ExportTraceServiceRequest) -> Sent {
        let request = self.request(batch);
        let answer = match self.call(request).await {
            Ok(answer) => answer,
            Err(error) => return Sent::Later { after: None, why: format!("{error:#}") },
        };
        match self.protocol {
            OtlpProtocol::HttpProtobuf => of_http(&answer),
            OtlpProtocol::Grpc => of_grpc(&answer),
        }
    }

    fn request(&self, batch: &ExportTraceServiceRequest) -> Request<Full<Bytes>> {
        let mut body = BytesMut::with_capacity(batch.encoded_len() + 5);
        let kind = match self.protocol {
            OtlpProtocol::HttpProtobuf => "application/x-protobuf",
            // Uncompressed, then the length (gRPC over HTTP/2, "Length-Prefixed-Message").
            OtlpProtocol::Grpc => {
                body.put_u8(0);
                body.put_u32(batch.encoded_len() as u32);
                "application/grpc"
            }
        };
        batch.encode(&mut body).expect("a buffer grows as it must");
        let mut request = Request::new(Full::new(body.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if self.protocol == OtlpProtocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        request
    }

    async fn call(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let is_usable = match &self.open {
            Some(Connection::Http1(open)) => open.is_ready(),
            Some(Connection::Http2(open)) => open.is_ready(),
            None => false,
        };
        if !is_usable {
            self.open = Some(self.connect().await?);
        }
        let response = match self.open.as_mut().context("just opened")? {
            Connection::Http1(open) => open.send_request(origin_form(request)?).await?,
            Connection::Http2(open) => open.send_request(request).await?,
        };
        Answer::read(response).await
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.speak(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                self.speak(connector.connect(name.clone(), stream).await.context("TLS")?).await
            }
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> anyhow::Result<Connection> {
        // A connection's error reaches the call on it.
        Ok(match self.protocol {
            OtlpProtocol::HttpProtobuf => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            }
            OtlpProtocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            }
        })
    }
}

/// A base URL gets the path of the specification; one with a path is taken as it is.
fn traces_path(base: &Uri) -> PathAndQuery {
    match base.path_and_query() {
        Some(path) if path.as_str() != "/" => path.clone(),
        _ => PathAndQuery::from_static("/v1/traces"),
    }
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

/// HTTP/1.1 says the host in a field of its own (RFC 9112, section 3.2).
fn origin_form(mut request: Request<Full<Bytes>>) -> anyhow::Result<Request<Full<Bytes>>> {
    let authority = request.uri().authority().context("no authority")?;
    let host = HeaderValue::try_from(authority.as_str())?;
    let path = request.uri().path_and_query().cloned().context("no path")?;
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = path.into();
    Ok(request)
}

/// A whole answer, trailers among its headers.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> anyhow::Result<Self> {
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow!("within an answer: {error}"))?;
        let mut headers = head.headers;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Ok(Self { status: head.status, headers, body: body.to_bytes() })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

fn of_http(answer: &Answer) -> Sent {
    let why = format!("the receiver answered {}", answer.status);
    match answer.status.as_u16() {
        200..=299 => taken(&answer.body),
        429 | 502 | 503 | 504 => Sent::Later { after: retry_after(answer.header(RETRY_AFTER.as_str())), why },
        _ => Sent::Refused { why },
    }
}

/// Seconds (RFC 9110, section 10.2.3). Receivers do not send the date form; for one, our own backoff holds.
fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn of_grpc(answer: &Answer) -> Sent {
    let code = answer.header("grpc-status");
    let why = || {
        let status =
            if code.is_empty() { format!("answered {}", answer.status) } else { format!("grpc-status {code}") };
        format!("{status} {}", answer.header("grpc-message")).trim_end().to_owned()
    };
    let after = retry_info(answer.header("grpc-status-details-bin"));
    match code {
        "0" => taken(answer.body.get(5..).unwrap_or_default()),
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        "1" | "4" | "10" | "11" | "14" | "15" => Sent::Later { after, why: why() },
        // RESOURCE_EXHAUSTED only when the receiver says that it will pass.
        "8" if after.is_some() => Sent::Later { after, why: why() },
        // A proxy's answer, in HTTP's terms (gRPC, "HTTP to gRPC Status Code Mapping").
        "" if matches!(answer.status.as_u16(), 429 | 502 | 503 | 504) => Sent::Later { after: None, why: why() },
        _ => Sent::Refused { why: why() },
    }
}

fn taken(body: &[u8]) -> Sent {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    let partial = partial.unwrap_or_default();
    Sent::Taken { rejected: partial.rejected_spans.max(0) as u64, why: partial.error_message }
}

/// `google.rpc.RetryInfo` among the details of a gRPC status.
fn retry_info(details: &str) -> Option<Duration> {
    let status = RpcStatus::decode(&*BASE64.decode(details).ok()?).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    Some(Duration::new(delay.seconds.max(0) as u64, delay.nanos.clamp(0, 999_999_999) as u32))
}

/// What is needed of `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
