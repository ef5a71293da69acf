//! The admin listeners: pages of the live state, and a few orders. It runs on the control runtime, so that a scrape
//! never waits for a request nor a request for a scrape.

mod frame;
mod live;
mod pages;
mod query;
mod reply;
mod requests;
mod steer;
mod stream;
mod ui;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lictor_config::Loaded;
use lictor_consul::Handle;
use lictor_core::{Mesh, Secret};
use lictor_proxy::DataPlane;
use parking_lot::RwLock;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::changes::Changes;
use crate::cli;
use crate::events::Events;
use crate::log::Logs;
use crate::metrics::{Scrape, Seen};
use crate::openmetrics::Form;
use query::Query;
use reply::{Body, health_code, not_allowed, refuse, reply, text_reply, unauthorized};

/// Connections to one listener at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 128;
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For an order that Consul has to hear.
const CONSUL_WITHIN: Duration = Duration::from_secs(10);

const ORDERS: [&str; 5] = ["/drain", "/undrain", "/reload", "/log-level", "/quit"];
const PUBLIC: [&str; 5] = ["/live", "/startup", "/ready", "/health", "/metrics"];
const PAGES: [&str; 16] = [
    "",
    "/endpoints",
    "/upstreams",
    "/breakers",
    "/routes",
    "/config",
    "/config/changes",
    "/stats",
    "/consul",
    "/events",
    "/requests",
    "/explain",
    "/tap",
    "/ui",
    "/ui/live",
    "/ui/data",
];
/// Pages that have more below.
const FOLDERS: [&str; 2] = ["/endpoints/", "/requests/"];

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) handle: Handle,
    pub(crate) plane: DataPlane,
    pub(crate) loaded: RwLock<Arc<Loaded>>,
    pub(crate) scrape: Scrape,
    pub(crate) logs: Logs,
    pub(crate) changes: Changes,
    events: Events,
    live: live::Live,
    /// Egress works: listeners are open and the first endpoints known, or waited for long enough.
    is_started: AtomicBool,
    /// Nobody should be sent here.
    is_draining: AtomicBool,
    /// For good.
    is_stopping: AtomicBool,
    orders: mpsc::Sender<Order>,
}

/// What only the boot sequence can do.
#[derive(Debug)]
pub(crate) enum Order {
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

impl Admin {
    pub(crate) fn new(
        handle: Handle,
        plane: DataPlane,
        loaded: Loaded,
        scrape: Scrape,
        events: Events,
        logs: Logs,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let loaded = RwLock::new(Arc::new(loaded));
        let [is_started, is_draining, is_stopping] = Default::default();
        let (changes, live) = Default::default();
        Self {
            handle,
            plane,
            loaded,
            scrape,
            logs,
            changes,
            events,
            live,
            is_started,
            is_draining,
            is_stopping,
            orders,
        }
    }

    /// Egress is up.
    pub(crate) fn started(&self) {
        self.is_started.store(true, Relaxed);
    }

    /// Out of circulation for good.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
        self.mark_draining(true);
    }

    fn mark_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Relaxed);
        self.plane.set_draining(is_draining);
    }

    fn mesh(&self) -> Arc<Mesh> {
        Arc::clone(&self.handle.mesh().borrow())
    }
}

/// Opens a listener; it serves until the process ends.
pub(crate) async fn listen(admin: &Arc<Admin>, address: SocketAddr, access: Access) -> anyhow::Result<SocketAddr> {
    let key = if access == Access::Full { "admin.listen" } else { "admin.public" };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {key}"))?;
    let bound = listener.local_addr()?;
    let admin = Arc::clone(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let admin = Arc::clone(&admin);
                    tokio::spawn(async move {
                        serve(admin, stream, peer.ip(), access).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(Duration::from_millis(50)).await, // out of descriptors: they come back
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
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await; // the client's business
}

async fn answer(admin: &Arc<Admin>, request: Request<Incoming>, peer: IpAddr, access: Access) -> Response<Body> {
    let loaded = Arc::clone(&admin.loaded.read());
    let token = loaded.config.admin.token.as_ref();
    if let Err(refusal) = guard(&request, peer, access, token).and_then(|()| route(&request, access)) {
        return refusal;
    }
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match *request.method() {
        Method::POST => post(admin, &path, request).await,
        _ => get(admin, &path, request.uri().query().unwrap_or_default(), Form::wanted(request.headers())).await,
    }
}

/// Who may give orders, or look at more than health and metrics: programs of this machine, and those of others that show the
/// token. Never a page in a browser.
fn guard<B>(request: &Request<B>, peer: IpAddr, access: Access, token: Option<&Secret>) -> Result<(), Response<Body>> {
    if access == Access::Public {
        return Ok(());
    }
    if request.headers().contains_key(ORIGIN) {
        return Err(refuse(StatusCode::FORBIDDEN, "requests from browsers (with an Origin) are refused"));
    }
    // A page elsewhere that embeds ours, with no Origin to show (Fetch Metadata); a link to /ui may be followed.
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_foreign = matches!(header("sec-fetch-site"), Some("cross-site" | "same-site"));
    let is_link = request.method() == Method::GET && header("sec-fetch-dest") == Some("document");
    if is_foreign && !is_link {
        return Err(refuse(StatusCode::FORBIDDEN, "requests of other pages in a browser are refused"));
    }
    if peer.to_canonical().is_loopback() { check_host(request) } else { check_token(request, token) }
}

/// A name that resolves to loopback is how a web page would get here.
fn check_host<B>(request: &Request<B>) -> Result<(), Response<Body>> {
    let host = request.headers().get(HOST).map_or(Ok("localhost"), |host| host.to_str()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if name != "localhost" && name.parse::<IpAddr>().is_err() {
        return Err(refuse(StatusCode::FORBIDDEN, "the Host header must be localhost or an address"));
    }
    Ok(())
}

/// Other machines get what is public, and the rest for the token (RFC 6750). No web page knows it, so any Host will do.
fn check_token<B>(request: &Request<B>, token: Option<&Secret>) -> Result<(), Response<Body>> {
    if PUBLIC.contains(&request.uri().path().trim_end_matches('/')) {
        return Ok(());
    }
    let Some(token) = token else {
        let sentence = "other machines get health and metrics only: set admin.token (LICTOR_ADMIN_TOKEN) and send it as \
                        `Authorization: Bearer`, or ask from this machine";
        return Err(refuse(StatusCode::FORBIDDEN, sentence));
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|given| given.as_bytes().split_at_checked(7));
    match given {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") && token.is(given) => Ok(()),
        Some(_) => Err(unauthorized("that is not admin.token; send it as `Authorization: Bearer`")),
        None => Err(unauthorized("other machines have to send admin.token, as `Authorization: Bearer`")),
    }
}

/// Whether there is such a page or order here, and the method fits.
fn route<B>(request: &Request<B>, access: Access) -> Result<(), Response<Body>> {
    let path = request.uri().path().trim_end_matches('/');
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_page =
        PUBLIC.contains(&path) || PAGES.contains(&path) || FOLDERS.iter().any(|folder| path.starts_with(folder));
    let is_order = ORDERS.contains(&path) || steer::is_order(path);
    match access {
        Access::Public if !is_reading => Err(not_allowed("GET, HEAD")),
        Access::Public if PUBLIC.contains(&path) => Ok(()),
        Access::Public => Err(refuse(StatusCode::NOT_FOUND, "here are /live /startup /ready /health /metrics")),
        Access::Full if is_order && request.method() == Method::POST => Ok(()),
        Access::Full if is_order => Err(not_allowed("POST")),
        Access::Full if is_page && is_reading => Ok(()),
        Access::Full if is_page => Err(not_allowed("GET, HEAD")),
        Access::Full => Err(refuse(StatusCode::NOT_FOUND, "no such page; / lists them")),
    }
}

async fn get(admin: &Arc<Admin>, path: &str, query: &str, form: Form) -> Response<Body> {
    let mesh = admin.mesh();
    let is_started = admin.is_started.load(Relaxed);
    match path {
        "/live" => reply(StatusCode::OK, &json!({ "status": "live" })),
        "/startup" => {
            let word = if is_started { "started" } else { "starting" };
            reply(health_code(is_started), &json!({ "status": word }))
        }
        "/ready" => {
            let app = admin.handle.app();
            let (is_ready, page) = pages::ready(&mesh, app.as_ref(), is_started, admin.is_draining.load(Relaxed));
            reply(health_code(is_ready), &page)
        }
        "/health" => {
            let loaded = Arc::clone(&admin.loaded.read());
            let consul = admin.handle.status().snapshot();
            let (is_healthy, page) = pages::health(&mesh, &loaded.config, &consul, admin.handle.app().as_ref());
            reply(health_code(is_healthy), &page)
        }
        "/metrics" => {
            let consul = admin.handle.status().snapshot();
            let app = admin.handle.app();
            let seen = Seen { mesh: &mesh, consul: &consul, app: app.as_ref(), plane: &admin.plane, logs: &admin.logs };
            let (form, text) = admin.scrape.text(form, &seen).await;
            text_reply(form.content_type(), text)
        }
        "/upstreams" => reply(StatusCode::OK, &pages::upstreams(&mesh, &admin.plane.report().await)),
        "/breakers" => reply(StatusCode::OK, &pages::breakers(&mesh)),
        "/routes" => reply(StatusCode::OK, &pages::routes(&mesh)),
        "/config" => {
            let loaded = Arc::clone(&admin.loaded.read());
            let with_origin = query.split('&').any(|pair| matches!(pair, "origin" | "origin=1" | "origin=true"));
            reply(StatusCode::OK, &pages::config(&loaded.values, with_origin))
        }
        "/config/changes" => reply(StatusCode::OK, &admin.changes.page()),
        "/stats" => reply(StatusCode::OK, &pages::stats(&mesh, &admin.scrape.requests())),
        "/consul" => {
            let snapshot = serde_json::to_value(admin.handle.status().snapshot());
            reply(StatusCode::OK, &snapshot.unwrap_or_default())
        }
        "/events" => match admin.events.subscribe() {
            Some(subscription) => stream::events(subscription),
            None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen to /events already"),
        },
        "" => text_reply("text/plain; charset=utf-8", pages::INDEX.to_owned()),
        "/requests" => match requests::list(&admin.plane.stories(), &Query::parse(query)) {
            Ok(page) => reply(StatusCode::OK, &page),
            Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        },
        "/tap" => match Query::parse(query).filter().map(|filter| admin.plane.tap(filter)) {
            Ok(Some(tapping)) => stream::tap(tapping),
            Ok(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen to /tap already"),
            Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        },
        "/ui" => ui::page(),
        "/ui/live" => match live::look(admin) {
            Some(looking) => stream::live(looking),
            None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many look at /ui already"),
        },
        "/ui/data" => data(admin).await,
        "/explain" => explain(admin, &Query::parse(query)).await,
        path if path.starts_with("/requests/") => {
            request_of(admin, &query::decode(&path["/requests/".len()..]), &Query::parse(query))
        }
        _ => endpoints(admin, &mesh, path).await,
    }
}

async fn explain(admin: &Admin, query: &Query) -> Response<Body> {
    let question = match requests::question(query) {
        Ok(question) => question,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, &message),
    };
    match admin.plane.explain(question).await {
        Ok(answers) => {
            let loaded = Arc::clone(&admin.loaded.read());
            reply(StatusCode::OK, &requests::explained(&answers, &loaded.values))
        }
        Err(refusal) => reply(StatusCode::NOT_FOUND, &requests::nowhere(&refusal)),
    }
}

/// `/ui/data`: one frame with rates, a second from now at the latest (two for the only one who looks).
async fn data(admin: &Arc<Admin>) -> Response<Body> {
    let Some(mut looking) = live::look(admin) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many look at /ui already");
    };
    while let Some(frame) = looking.next().await {
        if frame.has_rates {
            return reply::of("application/json", Full::new(frame.json).boxed_unsync());
        }
    }
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping")
}

/// `/requests/ID`; with `?as=text` in the words of `lictor explain`.
fn request_of(admin: &Admin, id: &str, query: &Query) -> Response<Body> {
    let stories = admin.plane.stories_of(id);
    if stories.is_empty() {
        let message = format!(
            "{id} is not kept: the last failures are, and some good requests; /requests lists them. The access log has it"
        );
        return refuse(StatusCode::NOT_FOUND, &message);
    }
    let page = requests::whole(&stories);
    match query.get("as") {
        Some("text") => text_reply("text/plain; charset=utf-8", cli::in_words(&page)),
        _ => reply(StatusCode::OK, &page),
    }
}

/// `/endpoints`, or `/endpoints/NAME`.
async fn endpoints(admin: &Admin, mesh: &Mesh, path: &str) -> Response<Body> {
    let only = path.strip_prefix("/endpoints/");
    match only {
        Some(name) if !mesh.upstreams.contains_key(name) => {
            refuse(StatusCode::NOT_FOUND, &format!("no upstream is named {name}; /upstreams lists them"))
        }
        _ => {
            let consul = admin.handle.status().snapshot();
            reply(StatusCode::OK, &pages::endpoints(mesh, &admin.plane.report().await, &consul, only))
        }
    }
}

async fn post(admin: &Arc<Admin>, path: &str, request: Request<Incoming>) -> Response<Body> {
    let stopping = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping");
    match path {
        "/log-level" => log_level(admin, request).await,
        _ if admin.is_stopping.load(Relaxed) => stopping(),
        path if steer::is_order(path) => {
            steer::steer(admin, path, &Query::parse(request.uri().query().unwrap_or_default()))
        }
        "/drain" => {
            admin.mark_draining(true);
            circulation(admin.handle.enter_maintenance("drained by an operator"), "draining").await
        }
        "/undrain" => {
            admin.mark_draining(false);
            circulation(admin.handle.leave_maintenance(), "serving").await
        }
        "/reload" => {
            let (done, result) = oneshot::channel();
            let _ = admin.orders.send(Order::Reload(done)).await;
            match result.await {
                Ok(Ok(())) => reply(StatusCode::OK, &json!({ "status": "reloaded" })),
                Ok(Err(message)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &message),
                Err(_) => stopping(),
            }
        }
        _ => {
            let _ = admin.orders.send(Order::Quit).await;
            reply(StatusCode::ACCEPTED, &json!({ "status": "stopping" }))
        }
    }
}

/// What Consul says to an order that it has to hear; here it is in force already.
async fn circulation(told: impl Future<Output = Result<(), String>>, done: &str) -> Response<Body> {
    let refused = |reason: &str| {
        let message = format!("{done} here, but Consul does not know yet: {reason}");
        refuse(StatusCode::BAD_GATEWAY, &message)
    };
    match timeout(CONSUL_WITHIN, told).await {
        Ok(Ok(())) => reply(StatusCode::OK, &json!({ "status": done })),
        Ok(Err(reason)) => refused(&reason),
        Err(_) => refused("it does not answer"),
    }
}

/// `?level=debug`, or the level as the body.
async fn log_level(admin: &Admin, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let level = match query.split('&').find_map(|pair| pair.strip_prefix("level=")) {
        Some(level) => level.replace("%3D", "=").replace("%2C", ","),
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

#[cfg(test)]
mod tests {
    use http::header::ALLOW;

    use super::*;

    fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri(path);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn browsers_strangers_and_rebound_names_are_refused() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let stranger: IpAddr = "10.0.0.9".parse().unwrap();
        let with = |headers: &[(&str, &str)]| request(Method::POST, "/drain", headers);
        let plain = with(&[("host", "127.0.0.1:9901")]);
        assert!(guard(&plain, local, Access::Full, None).is_ok());
        assert!(guard(&plain, "::ffff:127.0.0.1".parse().unwrap(), Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "[::1]:9901")]), local, Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "localhost")]), local, Access::Full, None).is_ok());
        assert!(guard(&plain, stranger, Access::Full, None).is_err());
        assert!(guard(&with(&[("origin", "http://127.0.0.1:9901")]), local, Access::Full, None).is_err());
        assert!(
            guard(&with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "script")]), local, Access::Full, None)
                .is_err()
        );
        assert!(guard(&with(&[("sec-fetch-site", "same-origin")]), local, Access::Full, None).is_ok());
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")];
        assert!(guard(&request(Method::GET, "/ui", &link), local, Access::Full, None).is_ok());
        assert!(guard(&with(&[("host", "evil.example:9901")]), local, Access::Full, None).is_err());
        assert!(guard(&plain, stranger, Access::Public, None).is_ok());
        let form = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")];
        assert!(guard(&with(&form), local, Access::Full, None).is_err(), "an order is no link");
    }

    #[test]
    fn other_machines_show_the_token_for_all_but_health_and_metrics() {
        let (local, stranger): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        let token = Secret::new("0123456789abcdef");
        let asked = |path: &str, headers: &[(&str, &str)], token: Option<&Secret>| {
            let answer = guard(&request(Method::POST, path, headers), stranger, Access::Full, token);
            answer.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
        };
        let right = [("authorization", "Bearer 0123456789abcdef"), ("host", "orders.internal:9901")];
        assert_eq!(asked("/quit", &right, Some(&token)), 200);
        assert_eq!(asked("/config", &[("authorization", "bearer 0123456789abcdef")], Some(&token)), 200);
        assert_eq!(asked("/quit", &right, None), 403);
        for wrong in [
            "0123456789abcdef",
            "Bearer 0123456789abcdee",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Bearer ",
            "Bearer",
            "Basic MDEyMzQ1Njc4OWFiY2RlZg==",
        ] {
            assert_eq!(asked("/quit", &[("authorization", wrong)], Some(&token)), 401, "{wrong}");
        }
        assert_eq!(asked("/quit", &[], Some(&token)), 401);
        assert_eq!(asked("/quit", &[right[0], ("origin", "null")], Some(&token)), 403);
        assert_eq!((asked("/metrics", &[], Some(&token)), asked("/ready", &[], None)), (200, 200));
        let plain = request(Method::POST, "/quit", &[]);
        assert!(guard(&plain, local, Access::Full, Some(&token)).is_ok(), "none is needed on this machine");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_one() {
        let refused = |method, path, access| {
            let response = route(&request(method, path, &[]), access).unwrap_err();
            let allowed = response.headers().get(ALLOW).map_or("", |value| value.to_str().unwrap()).to_owned();
            (response.status().as_u16(), allowed)
        };
        assert_eq!(refused(Method::GET, "/drain", Access::Full), (405, "POST".to_owned()));
        assert_eq!(refused(Method::POST, "/config", Access::Full), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::GET, "/endpoints/users-1/eject", Access::Full), (405, "POST".to_owned()));
        assert_eq!(refused(Method::POST, "/endpoints/users", Access::Full), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::POST, "/breakers/users", Access::Public), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::POST, "/drain", Access::Public), (405, "GET, HEAD".to_owned()));
        assert_eq!(refused(Method::GET, "/nothing", Access::Full), (404, String::new()));
        assert_eq!(refused(Method::GET, "/config", Access::Public), (404, String::new()));
        for page in PUBLIC {
            assert!(route(&request(Method::HEAD, page, &[]), Access::Public).is_ok(), "{page}");
        }
    }

    #[test]
    fn the_index_names_every_page_and_order() {
        for path in PUBLIC.iter().chain(&PAGES).chain(&ORDERS) {
            assert!(pages::INDEX.contains(path), "{path}");
        }
    }
}
