//! The admin listeners: pages of the live state, and a few orders. It runs on the control runtime, so that a scrape
//! never waits for a request nor a request for a scrape.

mod pages;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lictor_config::Loaded;
use lictor_consul::Handle;
use lictor_proxy::DataPlane;
use parking_lot::RwLock;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::events::Events;
use crate::log::Logs;
use crate::metrics::Scrape;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) handle: Arc<Handle>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) loaded: RwLock<Arc<Loaded>>,
    pub(crate) scrape: Scrape,
    pub(crate) events: Events,
    pub(crate) logs: Logs,
    /// Egress works: listeners are open and the first endpoints known, or waited for long enough.
    pub(crate) is_started: AtomicBool,
    /// This service is leaving.
    pub(crate) is_draining: AtomicBool,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// What a caller may ask for.
#[derive(Debug)]
pub(crate) enum Order {
    Drain(oneshot::Sender<Result<(), String>>),
    Undrain(oneshot::Sender<Result<(), String>>),
    Reload(oneshot::Sender<Result<(), String>>),
    Quit,
}

/// Who may see what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Full,
    /// Health and metrics.
    Public,
}

/// Opens a listener; it serves until the process ends.
pub(crate) async fn listen(admin: &Arc<Admin>, address: SocketAddr, access: Access) -> anyhow::Result<SocketAddr> {
    let key = if access == Access::Full { "admin.listen" } else { "admin.public" };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {key}"))?;
    let bound = listener.local_addr()?;
    let admin = Arc::clone(admin);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(serve(Arc::clone(&admin), stream, peer.ip(), access));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await, // out of descriptors: they come back
            }
        }
    });
    Ok(bound)
}

async fn serve(admin: Arc<Admin>, stream: TcpStream, peer: IpAddr, access: Access) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request, peer, access).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    let _ = builder.serve_connection(TokioIo::new(stream), service).await; // the client's business
}

async fn answer(admin: &Arc<Admin>, request: Request<Incoming>, peer: IpAddr, access: Access) -> Response<Body> {
    if let Err(refusal) = guard(&request, peer, access) {
        return refusal;
    }
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match *request.method() {
        Method::GET | Method::HEAD => get(admin, &path, request.uri().query().unwrap_or_default(), access).await,
        Method::POST if access == Access::Full => post(admin, &path, request).await,
        _ => not_allowed(if access == Access::Full { "GET, HEAD, POST" } else { "GET, HEAD" }),
    }
}

/// Only this machine's programs, never a browser's page, may give orders or look at more than health.
fn guard<B>(request: &Request<B>, peer: IpAddr, access: Access) -> Result<(), Response<Body>> {
    if access == Access::Public {
        return Ok(());
    }
    if request.headers().contains_key(ORIGIN) {
        return Err(refuse(StatusCode::FORBIDDEN, "requests from browsers (with an Origin) are refused"));
    }
    if !peer.to_canonical().is_loopback() {
        return Err(refuse(StatusCode::FORBIDDEN, "the admin listener answers to this machine only"));
    }
    // A name that resolves to loopback is how a web page would get here.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if name != "localhost" && name.parse::<IpAddr>().is_err() {
        return Err(refuse(StatusCode::FORBIDDEN, "the Host header must be localhost or an address"));
    }
    Ok(())
}

async fn get(admin: &Arc<Admin>, path: &str, query: &str, access: Access) -> Response<Body> {
    let mesh = || admin.handle.mesh().borrow().clone();
    match path {
        "/live" => return reply(StatusCode::OK, &json!({ "status": "live" })),
        "/startup" => {
            let is_up = admin.is_started.load(Relaxed);
            let word = if is_up { "started" } else { "starting" };
            return reply(health_code(is_up), &json!({ "status": word }));
        }
        "/ready" => {
            return state(pages::ready(&mesh(), admin.is_started.load(Relaxed), admin.is_draining.load(Relaxed)));
        }
        "/health" => {
            let loaded = Arc::clone(&admin.loaded.read());
            let app = pages::app(&loaded.config).await;
            return state(pages::health(&mesh(), &loaded.config, &admin.handle.status().snapshot(), app));
        }
        "/metrics" => {
            let text = admin.scrape.text(&mesh(), &admin.handle.status().snapshot(), &admin.logs);
            return text_reply("text/plain; version=0.0.4; charset=utf-8", text);
        }
        _ => (),
    }
    if access == Access::Public {
        return refuse(StatusCode::NOT_FOUND, "here are /live /ready /health /startup /metrics");
    }
    match path {
        "" => text_reply("text/plain; charset=utf-8", pages::INDEX.to_owned()),
        "/endpoints" => reply(StatusCode::OK, &pages::endpoints(&mesh(), &admin.plane.report().await, None)),
        "/upstreams" => reply(StatusCode::OK, &pages::upstreams(&mesh(), &admin.plane.report().await)),
        "/breakers" => reply(StatusCode::OK, &pages::breakers(&mesh())),
        "/routes" => reply(StatusCode::OK, &pages::routes(&mesh())),
        "/config" => {
            let loaded = Arc::clone(&admin.loaded.read());
            let with_origin = query.split('&').any(|pair| matches!(pair, "origin" | "origin=1" | "origin=true"));
            reply(StatusCode::OK, &pages::config(&loaded.values, with_origin))
        }
        "/stats" => reply(StatusCode::OK, &pages::stats(&mesh())),
        "/consul" => {
            let snapshot = serde_json::to_value(admin.handle.status().snapshot());
            reply(StatusCode::OK, &snapshot.unwrap_or_default())
        }
        "/events" => events(&admin.events),
        "/drain" | "/undrain" | "/quit" | "/reload" | "/log-level" => not_allowed("POST"),
        _ => match path.strip_prefix("/endpoints/") {
            Some(service) if mesh().upstreams.contains_key(service) => {
                reply(StatusCode::OK, &pages::endpoints(&mesh(), &admin.plane.report().await, Some(service)))
            }
            Some(service) => refuse(StatusCode::NOT_FOUND, &format!("no upstream is named {service}")),
            None => refuse(StatusCode::NOT_FOUND, "no such page; / lists them"),
        },
    }
}

async fn post(admin: &Arc<Admin>, path: &str, request: Request<Incoming>) -> Response<Body> {
    match path {
        "/drain" => ordered(admin, Order::Drain, "draining").await,
        "/undrain" => ordered(admin, Order::Undrain, "serving").await,
        "/reload" => ordered(admin, Order::Reload, "reloaded").await,
        "/quit" => {
            let _ = admin.orders.send(Order::Quit).await;
            reply(StatusCode::ACCEPTED, &json!({ "status": "stopping" }))
        }
        "/log-level" => log_level(admin, request).await,
        _ => refuse(StatusCode::NOT_FOUND, "no such order: /drain /undrain /quit /reload /log-level"),
    }
}

async fn ordered(
    admin: &Admin,
    order: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Order,
    done: &str,
) -> Response<Body> {
    let (sender, answer) = oneshot::channel();
    if admin.orders.send(order(sender)).await.is_err() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping");
    }
    match answer.await {
        Ok(Ok(())) => reply(StatusCode::OK, &json!({ "status": done })),
        Ok(Err(message)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &message),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping"),
    }
}

/// `?level=debug`, or the level as the body.
async fn log_level(admin: &Admin, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let from_query = query.split('&').find_map(|pair| pair.strip_prefix("level=")).map(str::to_owned);
    let level = match from_query {
        Some(level) => level,
        None => match Limited::new(request.into_body(), 1024).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Err(_) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a level is a word"),
        },
    };
    if level.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "say which: POST /log-level?level=debug");
    }
    match admin.logs.set_level(&level) {
        Ok(()) => reply(StatusCode::OK, &json!({ "level": level })),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("`{level}`: {error}")),
    }
}

/// Server-sent events (HTML, section 9.2): those kept, then those to come; a comment every 15 s keeps it open.
fn events(events: &Events) -> Response<Body> {
    let (kept, live) = events.subscribe();
    let frame = |event: &Json| {
        let kind = event["kind"].as_str().unwrap_or("event");
        let text = format!("id: {}\nevent: {kind}\ndata: {event}\n\n", event["id"]);
        Bytes::from(text)
    };
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        for event in &kept {
            if sender.send(frame(event)).await.is_err() {
                return;
            }
        }
        let mut live = live;
        loop {
            let next = tokio::select! {
                biased;
                () = sender.closed() => return,
                event = live.recv() => match event {
                    Ok(event) => frame(&event),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                () = tokio::time::sleep(Duration::from_secs(15)) => Bytes::from_static(b": still here\n\n"),
            };
            if sender.send(next).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Stream(receiver).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A body that is sent as it comes.
struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn health_code(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn state((is_well, page): (bool, Json)) -> Response<Body> {
    reply(health_code(is_well), &page)
}

fn reply(status: StatusCode, page: &Json) -> Response<Body> {
    let mut response = text_reply("application/json", format!("{page:#}\n"));
    *response.status_mut() = status;
    response
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    reply(status, &json!({ "status": "error", "message": message }))
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text_reply(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let builder =
            headers.iter().fold(Request::post("/drain"), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn browsers_strangers_and_rebound_names_are_refused() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let stranger: IpAddr = "10.0.0.9".parse().unwrap();
        let plain = request(&[("host", "127.0.0.1:9901")]);
        assert!(guard(&plain, local, Access::Full).is_ok());
        assert!(guard(&request(&[("host", "[::1]:9901")]), local, Access::Full).is_ok());
        assert!(guard(&request(&[("host", "localhost")]), local, Access::Full).is_ok());
        assert!(guard(&plain, stranger, Access::Full).is_err());
        assert!(guard(&request(&[("origin", "http://127.0.0.1:9901")]), local, Access::Full).is_err());
        assert!(guard(&request(&[("host", "evil.example:9901")]), local, Access::Full).is_err());
        assert!(guard(&plain, stranger, Access::Public).is_ok());
    }
}
