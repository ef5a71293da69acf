//! One instance of a service. Order-service calls the two others at the addresses that its environment names; that these
//! are lictor's listeners on localhost is nothing it has to know.

use std::convert::Infallible;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Headers that belong to the caller's request and go on with ours.
const PASSED_ON: [&str; 3] = ["traceparent", "tracestate", "x-request-id"];

/// Serves until SIGTERM, then lets requests in flight end.
pub(crate) fn run(kind: &str, port: u16) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(serve(kind, port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop {kind}: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Shop {
    kind: String,
    port: u16,
    /// Answer with this instead of doing the work; 0: do it.
    failing: AtomicU16,
}

async fn serve(kind: &str, port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let shop = Arc::new(Shop { kind: kind.to_owned(), port, failing: AtomicU16::new(0) });
    let mut term = signal(SignalKind::terminate())?;
    let stop = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            biased;
            _ = term.recv() => break,
            accepted = listener.accept() => accepted?,
        };
        let _ = stream.set_nodelay(true);
        let (shop, mut stopped) = (Arc::clone(&shop), stop.subscribe());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shop = Arc::clone(&shop);
                async move { Ok::<_, Infallible>(shop.answer(request).await) }
            });
            let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                biased;
                _ = stopped.wait_for(|is_stopped| *is_stopped) => (),
                _ = connection.as_mut() => return,
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await; // whoever broke it knows
        });
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if path == "/health" {
            return reply(StatusCode::OK, &json!({ "status": "healthy", "service": self.kind }));
        }
        if let Some(status) = path.strip_prefix("/_fail/") {
            self.failing.store(status.parse().unwrap_or(0), Relaxed);
            return reply(StatusCode::OK, &json!({ "failing": status }));
        }
        if let Ok(status @ 400..) = StatusCode::from_u16(self.failing.load(Relaxed)).map(|status| status.as_u16()) {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return reply(status, &json!({ "status": "error", "message": "told to fail" }));
        }
        let id = path.rsplit('/').next().unwrap_or("1").to_owned();
        match self.kind.as_str() {
            "user" => reply(StatusCode::OK, &json!({ "id": id, "name": "Ann", "served_by": self.port })),
            "product" => reply(StatusCode::OK, &json!({ "id": id, "title": "A book", "served_by": self.port })),
            _ => self.order(&id, request.headers()).await,
        }
    }

    /// An order is a user and a product.
    async fn order(&self, id: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let user = call("USER_SERVICE_URL", "http://localhost:3001", "/users/1", headers).await;
        let product = call("PRODUCT_SERVICE_URL", "http://localhost:3002", "/products/7", headers).await;
        match (user, product) {
            (Ok(user), Ok(product)) => reply(StatusCode::OK, &json!({ "order": id, "user": user, "product": product })),
            (Err(error), _) | (_, Err(error)) => {
                reply(StatusCode::BAD_GATEWAY, &json!({ "status": "error", "message": error }))
            }
        }
    }
}

/// The plain HTTP client of a service that leaves everything else to its sidecar.
async fn call(variable: &str, default: &str, path: &str, headers: &HeaderMap) -> Result<Json, String> {
    let base = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let address = base.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let text = |error: &dyn std::fmt::Display| format!("{variable}: {error}");
    let stream = TcpStream::connect(&address).await.map_err(|error| text(&error))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, &address);
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| text(&error))?.to_bytes();
    let body = String::from_utf8_lossy(&body);
    if !status.is_success() {
        return Err(format!("{variable}{path} answered {status}: {body}"));
    }
    serde_json::from_str(&body).map_err(|error| text(&error))
}

fn reply(status: StatusCode, body: &Json) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a constant"));
    response
}
