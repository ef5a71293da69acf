//! A request of the admin listeners, and its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use lictor_core::{Mesh, steering};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::api::{self, Command, Does, HISTORY, LEVEL_MAX, LEVELS, Page};
use super::gateway::{self, Labels};
use super::guard::{Access, guard, route};
use super::query::Query;
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
    if access == Access::Full && request.uri().path().starts_with(api::BLOCKS) {
        return blocks::answer(admin, request, peer).await;
    }
    let loaded = Arc::clone(&admin.loaded.read());
    let token = loaded.config.admin.token.as_ref();
    let (operation, found) = match guard(&request, peer, access, token).and_then(|()| route(&request, access)) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Err(message) = query.check(operation, found.path.who) {
        return refuse(StatusCode::BAD_REQUEST, &message);
    }
    match operation.does {
        Does::Page(wanted) => page(admin, wanted, &found.name, &query, request.headers()).await,
        Does::Command(command) => order(admin, command, &found.name, &query, request).await,
        Does::Block(_) => refuse(StatusCode::NOT_FOUND, "no such page; / lists them"), // they are answered elsewhere
    }
}

async fn page(admin: &Arc<Admin>, wanted: Page, name: &str, query: &Query, headers: &HeaderMap) -> Response<Body> {
    let mesh = admin.mesh();
    match wanted {
        Page::Index => text_reply("text/plain; charset=utf-8", pages::INDEX.to_owned()),
        Page::OpenApi => reply(StatusCode::OK, api::document()),
        Page::Live => reply(StatusCode::OK, &json!({ "status": "live" })),
        Page::Startup => startup(admin),
        Page::Ready => ready(admin, &mesh),
        Page::Health => health(admin, &mesh),
        Page::Metrics => metrics(admin, &mesh, Form::wanted(headers)).await,
        Page::Endpoints => endpoints(admin, &mesh, None).await,
        Page::EndpointsOf => endpoints(admin, &mesh, Some(name)).await,
        Page::Upstreams => reply(StatusCode::OK, &pages::upstreams(&mesh, &admin.plane.report().await)),
        Page::Breakers => reply(StatusCode::OK, &pages::breakers(&mesh)),
        Page::Routes => reply(StatusCode::OK, &pages::routes(&mesh)),
        Page::GatewayRoutes => match &admin.loaded.read().config.gateway {
            Some(gateway) => reply(StatusCode::OK, &routes::page(gateway, &mesh.orders(), SystemTime::now())),
            None => refuse(StatusCode::NOT_FOUND, "there is no gateway in this configuration"),
        },
        Page::Config => {
            let loaded = Arc::clone(&admin.loaded.read());
            reply(StatusCode::OK, &pages::config(&loaded.values, query.is_set("origin")))
        }
        Page::Changes => reply(StatusCode::OK, &admin.changes.page()),
        Page::Stats | Page::GatewayStats => stats(admin, &mesh, wanted),
        Page::Consul => {
            let standing = serde_json::to_value(admin.handle.status().standing());
            reply(StatusCode::OK, &standing.unwrap_or_default())
        }
        Page::History => history(admin, &mesh, query),
        Page::Events => events(admin, &mesh, query, headers),
        Page::Requests => match requests::list(&admin.plane.stories(), &admin.plane.refusals(), query) {
            Ok(page) => reply(StatusCode::OK, &page),
            Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        },
        Page::Request => request_of(admin, name, query),
        Page::Explain => explain(admin, query).await,
        Page::Tap => match query.filter().map(|filter| admin.plane.tap(filter)) {
            Ok(Some(tapping)) => stream::tap(tapping),
            Ok(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen to /tap already"),
            Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        },
        Page::Ui => ui::page(),
        Page::UiLive => match frame::look(admin) {
            Some(looking) => stream::live(looking),
            None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many look at /ui already"),
        },
        Page::UiData => data(admin).await,
    }
}

/// `/history`
fn history(admin: &Admin, mesh: &Mesh, query: &Query) -> Response<Body> {
    let since = match query.duration("since") {
        Ok(since) => since.unwrap_or(HISTORY[1]),
        Err(message) => return refuse(StatusCode::BAD_REQUEST, &message),
    };
    if !(HISTORY[0]..=HISTORY[1]).contains(&since) {
        return refuse(StatusCode::BAD_REQUEST, "`since` takes 1s to 10m: more is not kept");
    }
    match query.get("upstream") {
        Some(name) if !mesh.upstreams.contains_key(name) => {
            refuse(StatusCode::NOT_FOUND, &format!("no upstream is named {name}; /upstreams lists them"))
        }
        only => {
            let mut page = admin.history.page(mesh, only, since);
            page["at"] = json!(pages::now());
            reply(StatusCode::OK, &page)
        }
    }
}

fn startup(admin: &Admin) -> Response<Body> {
    let is_started = admin.is_started.load(Relaxed);
    reply(health_code(is_started), &json!({ "status": if is_started { "started" } else { "starting" } }))
}

fn ready(admin: &Admin, mesh: &Mesh) -> Response<Body> {
    let (is_started, is_draining) = (admin.is_started.load(Relaxed), admin.is_draining.load(Relaxed));
    let (is_ready, page) = pages::ready(mesh, admin.handle.app().as_ref(), is_started, is_draining);
    reply(health_code(is_ready), &page)
}

fn health(admin: &Admin, mesh: &Mesh) -> Response<Body> {
    let loaded = Arc::clone(&admin.loaded.read());
    let consul = admin.handle.status().standing();
    let app = admin.handle.app();
    let (is_healthy, page) = pages::health(mesh, &loaded.config, &consul, app.as_ref(), admin.since.elapsed());
    reply(health_code(is_healthy), &page)
}

/// `/gateway/stats`, and `/stats`, which has the same keys where there is a gateway.
fn stats(admin: &Admin, mesh: &Mesh, wanted: Page) -> Response<Body> {
    let labels = Labels::of(mesh.gateway.as_deref());
    let tally = admin.scrape.tally(|upstream, route| labels.lead(upstream, route));
    let mut page = if wanted == Page::Stats { pages::stats(mesh, &tally.upstreams) } else { json!({}) };
    match (&mesh.gateway, page.as_object_mut()) {
        (Some(gateway), Some(page)) => page.extend(gateway::stats(mesh, gateway, &tally, admin.since.elapsed())),
        (None, _) if wanted != Page::Stats => return refuse(StatusCode::NOT_FOUND, "this is no gateway"),
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

/// `/events`: those that are kept and those to come, or with `?as=json` the former alone.
fn events(admin: &Admin, mesh: &Mesh, query: &Query, headers: &HeaderMap) -> Response<Body> {
    let asked = query.get("since").map(|text| admin.events.since(text).ok_or(text)).transpose();
    let asked = match asked {
        Ok(asked) => asked,
        Err(text) => {
            let message = format!("`since` takes an event's id such as 17, or a duration such as 10m, not `{text}`");
            return refuse(StatusCode::BAD_REQUEST, &message);
        }
    };
    if query.get("as") == Some("json") {
        return reply(StatusCode::OK, &pages::events(mesh, &admin.events.told(asked)));
    }
    // Whoever comes again asks as before, and says what he has been told.
    let last = headers.get("last-event-id").and_then(|id| admin.events.since(id.to_str().ok()?));
    match admin.events.subscribe(last.or(asked)) {
        Some(subscription) => stream::events(subscription),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many listen to /events already"),
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
            "{id} is not kept: the last failures are (of those that were not sent the first and the last), and some good requests; \
             /requests lists them. The access log has it"
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
async fn endpoints(admin: &Admin, mesh: &Mesh, only: Option<&str>) -> Response<Body> {
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

async fn order(
    admin: &Arc<Admin>,
    command: Command,
    name: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let stopping = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is stopping");
    if command != Command::LogLevel && admin.is_stopping() {
        return stopping();
    }
    match command {
        Command::LogLevel => log_level(admin, query, request).await,
        Command::Eject => steer::endpoint(admin, name, Some(steering::Order::Eject), query),
        Command::Pin => steer::endpoint(admin, name, Some(steering::Order::Pin), query),
        Command::Undo => steer::endpoint(admin, name, None, query),
        Command::Breaker => steer::breaker(admin, name, query),
        Command::Maintenance => maintain(admin, query).await,
        Command::Drain => {
            admin.mark_draining(true);
            circulation(admin.handle.enter_maintenance("drained by an operator"), "draining").await
        }
        Command::Undrain => {
            admin.mark_draining(false);
            circulation(admin.handle.leave_maintenance(), "serving").await
        }
        Command::Reload => {
            let (done, result) = oneshot::channel();
            let _ = admin.orders.send(Order::Reload(done)).await;
            match result.await {
                Ok(Ok(())) => reply(StatusCode::OK, &json!({ "status": "reloaded" })),
                Ok(Err(message)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &message),
                Err(_) => stopping(),
            }
        }
        Command::Quit => {
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
async fn log_level(admin: &Admin, query: &Query, request: Request<Incoming>) -> Response<Body> {
    let level = match query.get("level") {
        Some(level) => level.to_owned(),
        None => match timeout(BODY_WITHIN, Limited::new(request.into_body(), LEVEL_MAX).collect()).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Ok(Err(_)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a level is a word"),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "a level is a word, and said at once"),
        },
    };
    if level.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "say which: POST /log-level?level=debug");
    }
    if !api::is_level(&level) {
        let message = format!("`{level}` is none of {}, nor such as info,lictor_proxy=debug", LEVELS.join(", "));
        return refuse(StatusCode::BAD_REQUEST, &message);
    }
    match admin.logs.set_level(&level) {
        Ok(()) => reply(StatusCode::OK, &json!({ "level": level })),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("`{level}`: {error}")),
    }
}
