//! A request of the admin listeners, and its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use lictor_core::Mesh;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gateway::{self, Labels};
use super::guard::{Access, guard, route};
use super::query::{self, Query};
use super::reply::{self, Body, health_code, refuse, reply, text_reply};
use super::state::{Admin, Order};
use super::{blocks, frame, pages, requests, steer, stream, ui};
use crate::maintenance::Wanted;
use crate::metrics::Seen;
use crate::openmetrics::Form;
use crate::routes;
use crate::words::in_words;

/// For an order that Consul has to hear.
const CONSUL_WITHIN: Duration = Duration::from_secs(10);
/// For the rest of an order.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The page, what became of the order, or why not.
pub(super) async fn answer(
    admin: &Arc<Admin>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: Access,
) -> Response<Body> {
    if access == Access::Full && request.uri().path().starts_with(blocks::PREFIX) {
        return blocks::answer(admin, request, peer).await;
    }
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
            let consul = admin.handle.status().standing();
            let app = admin.handle.app();
            let (is_healthy, page) = pages::health(&mesh, &loaded.config, &consul, app.as_ref(), admin.since.elapsed());
            reply(health_code(is_healthy), &page)
        }
        "/metrics" => metrics(admin, &mesh, form).await,
        "/upstreams" => reply(StatusCode::OK, &pages::upstreams(&mesh, &admin.plane.report().await)),
        "/breakers" => reply(StatusCode::OK, &pages::breakers(&mesh)),
        "/routes" => reply(StatusCode::OK, &pages::routes(&mesh)),
        "/gateway/routes" => match &admin.loaded.read().config.gateway {
            Some(gateway) => reply(StatusCode::OK, &routes::page(gateway, &mesh.orders(), SystemTime::now())),
            None => refuse(StatusCode::NOT_FOUND, "there is no gateway in this configuration"),
        },
        "/config" => {
            let loaded = Arc::clone(&admin.loaded.read());
            let with_origin = query.split('&').any(|pair| matches!(pair, "origin" | "origin=1" | "origin=true"));
            reply(StatusCode::OK, &pages::config(&loaded.values, with_origin))
        }
        "/config/changes" => reply(StatusCode::OK, &admin.changes.page()),
        "/stats" | "/gateway/stats" => stats(admin, &mesh, path),
        "/consul" => {
            let standing = serde_json::to_value(admin.handle.status().standing());
            reply(StatusCode::OK, &standing.unwrap_or_default())
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
        "/ui/live" => match frame::look(admin) {
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

/// `/gateway/stats`, and `/stats`, which has the same keys where there is a gateway.
fn stats(admin: &Admin, mesh: &Mesh, path: &str) -> Response<Body> {
    let labels = Labels::of(mesh.gateway.as_deref());
    let tally = admin.scrape.tally(|upstream, route| labels.lead(upstream, route));
    let mut page = if path == "/stats" { pages::stats(mesh, &tally.upstreams) } else { json!({}) };
    match (&mesh.gateway, page.as_object_mut()) {
        (Some(gateway), Some(page)) => page.extend(gateway::stats(mesh, gateway, &tally, admin.since.elapsed())),
        (None, _) if path != "/stats" => return refuse(StatusCode::NOT_FOUND, "this is no gateway"),
        _ => (),
    }
    reply(StatusCode::OK, &page)
}

async fn metrics(admin: &Admin, mesh: &Mesh, form: Form) -> Response<Body> {
    let consul = admin.handle.status().standing();
    let app = admin.handle.app();
    let loaded = Arc::clone(&admin.loaded.read());
    let seen = Seen {
        mesh,
        consul: &consul,
        app: app.as_ref(),
        plane: &admin.plane,
        logs: &admin.logs,
        gateway: loaded.config.gateway.as_ref(),
    };
    let (form, text) = admin.scrape.text(form, &seen).await;
    text_reply(form.content_type(), text)
}

/// Puts the gateway of this process, or a route of it, into maintenance, or ends that.
async fn maintain(admin: &Admin, query: &Query) -> Response<Body> {
    let loaded = Arc::clone(&admin.loaded.read());
    let Some(gateway) = &loaded.config.gateway else {
        return refuse(StatusCode::NOT_FOUND, "there is no gateway in this configuration");
    };
    if let Some(kv) = &loaded.config.consul.kv {
        let message = format!("{} says it to all gateways: `lictor maintenance` writes it", kv.maintenance);
        return refuse(StatusCode::CONFLICT, &message);
    }
    let is_on = match query.get("state") {
        Some("on") => true,
        Some("off") => false,
        _ => return refuse(StatusCode::BAD_REQUEST, "say which: ?state=on or off"),
    };
    let lasts = match query.duration("for") {
        Ok(lasts) => lasts,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, &message),
    };
    let (wanted, now) = (Wanted { is_on, lasts, route: query.get("route").map(str::to_owned) }, SystemTime::now());
    match admin.handle.order_maintenance(|before| wanted.over(before, gateway, now)).await {
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        Ok(orders) => {
            let kept = if admin.handle.has_memory() {
                "after a restart, too"
            } else {
                "until a restart: `consul.snapshot` would keep it"
            };
            let kept = if orders.is_empty() { String::new() } else { format!("; {kept}") };
            let message = format!("at this gateway{kept}; {}", wanted.told(&orders, gateway, now));
            reply(StatusCode::OK, &json!({ "message": message, "orders": &*orders }))
        }
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
    let Some(mut looking) = frame::look(admin) else {
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
        Some("text") => text_reply("text/plain; charset=utf-8", in_words(&page)),
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
            let consul = admin.handle.status().standing();
            reply(StatusCode::OK, &pages::endpoints(mesh, &admin.plane.report().await, &consul, only))
        }
    }
}

async fn post(admin: &Arc<Admin>, path: &str, request: Request<Incoming>) -> Response<Body> {
    let stopping = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping");
    match path {
        "/log-level" => log_level(admin, request).await,
        _ if admin.is_stopping() => stopping(),
        path if steer::is_order(path) => {
            steer::steer(admin, path, &Query::parse(request.uri().query().unwrap_or_default()))
        }
        "/maintenance" => maintain(admin, &Query::parse(request.uri().query().unwrap_or_default())).await,
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
        "/quit" => {
            let _ = admin.orders.send(Order::Quit).await;
            reply(StatusCode::ACCEPTED, &json!({ "status": "stopping" }))
        }
        _ => refuse(StatusCode::NOT_FOUND, "no such page; / lists them"),
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
        None => match timeout(BODY_WITHIN, Limited::new(request.into_body(), 1024).collect()).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Ok(Err(_)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a level is a word"),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "a level is a word, and said at once"),
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
