//! Spans on their way to an OTLP receiver: a bounded queue, batches, one task off the request path.
//!
//! Nothing waits for it. What finds the queue full is dropped and counted; a receiver that asks for patience gets it,
//! and while it does the queue fills. Every span that left the request path is in `lictor_spans_exported_total`.

mod convert;
mod send;

use std::time::Duration;

use lictor_config::Otlp;
use lictor_proxy::Span;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::SpanData;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::family::register;
use crate::otlp::send::{Note, Receiver};

const QUEUE: usize = 2048;
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(5);

/// Why these settings cannot work, where that is known before trying.
pub(crate) fn complaint(settings: &Otlp) -> Option<String> {
    send::check(settings).err().map(|error| format!("{error:#}"))
}

/// Starts exporting. A sidecar without traces is better than none: why there are none is told, and it goes on.
pub(crate) fn start_or_tell(settings: &Otlp, registry: &Registry) -> Option<(mpsc::Sender<Span>, Export)> {
    let started = start(settings, registry);
    if let Err(error) = &started {
        error!(target: "lictor::event", kind = "traces_not_exported", "no traces are exported: {error:#}");
    }
    started.ok()
}

/// The task ends, after a last batch, when every sender is gone or it is told to finish.
fn start(settings: &Otlp, registry: &Registry) -> anyhow::Result<(mpsc::Sender<Span>, Export)> {
    let exported = Opts::new("lictor_spans_exported_total", "Spans by what became of them: taken, rejected, failed.");
    let exporter = Exporter {
        receiver: Receiver::new(settings)?,
        scope: convert::scope(),
        told: Told { exported: register(registry, IntCounterVec::new(exported, &["outcome"])?), is_failing: false },
    };
    for outcome in ["taken", "rejected", "failed"] {
        exporter.told.count(outcome, 0); // known from the start, so that a rate is right from the first failure on
    }
    let (spans, queue) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(exporter.run(queue, stopped));
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

struct Exporter {
    receiver: Receiver,
    scope: InstrumentationScope,
    told: Told,
}

impl Exporter {
    async fn run(mut self, mut queue: mpsc::Receiver<Span>, mut stop: oneshot::Receiver<()>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            let is_last = tokio::select! {
                biased;
                _ = &mut stop => {
                    while let Ok(span) = queue.try_recv() {
                        batch.push(convert::span(span, &self.scope));
                    }
                    true
                }
                span = queue.recv() => match span {
                    Some(span) => {
                        batch.push(convert::span(span, &self.scope));
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
                self.export(std::mem::take(&mut batch)).await;
            }
            if is_last {
                return;
            }
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let (count, mut rejected) = (batch.len() as u64, 0);
        let told = &mut self.told;
        let result = self.receiver.export(batch, |note| match note {
            Note::Failed(why) => told.failing(&why),
            Note::Partial { rejected: by, why } => {
                rejected = by.min(count);
                warn_of_partial(rejected, &why);
            }
        });
        match result.await {
            Ok(()) => self.told.taken(count, rejected),
            Err(why) => {
                self.told.failing(&why);
                self.told.count("failed", count);
            }
        }
    }
}

/// What the metrics and the log say.
struct Told {
    exported: IntCounterVec,
    /// The log has been told.
    is_failing: bool,
}

impl Told {
    fn taken(&mut self, count: u64, rejected: u64) {
        self.count("taken", count - rejected);
        self.count("rejected", rejected);
        if std::mem::take(&mut self.is_failing) {
            info!(target: "lictor::event", kind = "traces_back", "spans are exported again");
        }
    }

    fn failing(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(target: "lictor::event", kind = "traces_failing", error = why, "spans cannot be exported; they are lost when this lasts");
        }
    }

    fn count(&self, outcome: &str, spans: u64) {
        self.exported.with_label_values(&[outcome]).inc_by(spans);
    }
}

fn warn_of_partial(rejected: u64, why: &str) {
    if rejected > 0 {
        warn!(target: "lictor::event", kind = "spans_rejected", rejected, why, "the receiver did not take all spans");
    } else {
        warn!(target: "lictor::event", kind = "spans_warned", why, "the receiver has something to say about spans");
    }
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
    use lictor_config::OtlpProtocol;
    use lictor_core::Secret;
    use lictor_proxy::{SpanKind, Value};
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
            ca: None,
            service_name: "order-service".to_owned(),
            resource: [("deployment.environment".to_owned(), "test".to_owned())].into(),
        }
    }

    fn span() -> Span {
        Span {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 7,
            parent: None,
            trace_state: String::new(),
            is_parent_remote: false,
            kind: SpanKind::Client,
            name: "GET /carts/{id}".to_owned(),
            start: SystemTime::now(),
            end: SystemTime::now(),
            attributes: vec![("server.address", Value::Text("cart-service".to_owned()))],
            events: Vec::new(),
            link: None,
            is_error: false,
        }
    }

    async fn exported(protocol: OtlpProtocol) -> Received {
        let (address, mut received) = collector().await;
        let (spans, export) = start(&settings(format!("http://{address}"), protocol), &Registry::new()).unwrap();
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
    async fn what_cannot_work_is_told_before_trying() {
        let settings =
            Otlp { ca: Some("/nowhere/ca.pem".into()), ..settings("https://otel:4317".to_owned(), OtlpProtocol::Grpc) };
        assert!(complaint(&settings).is_some_and(|sentence| sentence.contains("/nowhere/ca.pem")));
        assert!(start_or_tell(&settings, &Registry::new()).is_none());
    }
}
