//! The pages: pure functions from the live state to JSON. The shapes of `/health`, `/ready` and `/stats` are those that
//! the services themselves used to have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use lictor_config::{Config, Effective};
use lictor_consul::{AppHealth, DiskSnapshot, RegistrationState, Standing};
use lictor_core::mesh::{Census, Standby};
use lictor_core::policy::Balance;
use lictor_core::track::Recent;
use lictor_core::{Endpoint, Mesh, Upstream};
use lictor_proxy::Report;
use serde_json::{Map, Value as Json, json};

use super::standing::{Facts, Level};
use crate::events::Told;
use crate::metrics::{Process, Requests};

/// More than this is a sign of trouble in a sidecar.
const MEMORY_WARNING: u64 = 64 << 20;

pub(crate) const INDEX: &str = "\
lictor

GET  /live              the process runs
GET  /startup           egress works
GET  /ready             this service may be called
GET  /health            this service, its application, its upstreams, Consul
GET  /metrics           Prometheus
GET  /endpoints[/NAME]  instances of upstreams, and how they are doing
GET  /upstreams         upstreams and their policy
GET  /breakers          circuit breakers
GET  /routes            routes with a policy of their own
GET  /gateway/routes    the gateway's routes in order, and tags of services that are none
GET  /config[?origin=1] effective configuration
GET  /config/changes    what reloads and KV changed, or could not
GET  /stats             instances by service
GET  /gateway/stats     the gateway's routes, and what became of their requests
GET  /consul            watches and registration
GET  /history           the last ten minutes, second by second: ?upstream=&since=2m
GET  /events            what changed, as server-sent events, or once: ?since=10m or an event's id, ?as=json
GET  /requests[/ID]     requests that failed, and some others: ?upstream=&status=5xx&reason=&path=&limit= [?as=text]
GET  /tap               requests as they end, as server-sent events: ?upstream=&status=5xx&reason=&path=
GET  /ui                the dashboard; /ui/live and /ui/data are its numbers, as events each second and once
GET  /openapi.json      all of this for programs: OpenAPI 3.1
GET  /explain           what would become of a request: ?method=&upstream=&path=&header=Name:value
     /v1/..             building blocks for the application, where they are on
POST /drain, /undrain   leave circulation, and come back
POST /endpoints/ID/eject, /pin, /undo   order about an endpoint: ?for=5m&upstream=
POST /breakers/NAME     order about a breaker: ?state=open, close or auto, &for=5m
POST /maintenance       the gateway is in maintenance, or not: ?state=on or off, &for=30m&route=LABEL
POST /reload            read the configuration again
POST /log-level?level=  change what is logged
POST /quit              stop in order
";

pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Whether this service may be called: its application, required upstreams and draining can say no.
pub(crate) fn ready(mesh: &Mesh, app: Option<&AppHealth>, is_started: bool, is_draining: bool) -> (bool, Json) {
    let mut is_ready = is_started && !is_draining && app.is_none_or(|app| app.is_up);
    let (mut checks, now_is) = (Map::new(), Instant::now());
    for (name, upstream) in &mesh.upstreams {
        let count = upstream.endpoints.len();
        let has_some = count > 0;
        is_ready &= has_some || !upstream.is_required;
        let (level, state) = Facts::of(upstream, now_is).word();
        let message = match count {
            0 => format!("No healthy instances of {} found", upstream.service),
            count if level == Level::Good => format!("{count} healthy instances found"),
            count => format!("{state}; {count} instances found"),
        };
        let status = if has_some { "ready" } else { "not_ready" };
        checks.insert(
            name.to_string(),
            json!({ "status": status, "state": state, "message": message, "required": upstream.is_required }),
        );
    }
    if let Some(app) = app {
        let status = if app.is_up { "ready" } else { "not_ready" };
        checks.insert("app".to_owned(), json!({ "status": status, "message": app.message }));
    }
    if !is_started {
        checks.insert("startup".to_owned(), json!({ "status": "not_ready", "message": "egress is not up yet" }));
    }
    if is_draining {
        checks.insert("drain".to_owned(), json!({ "status": "not_ready", "message": "this instance is leaving" }));
    }
    let status = if is_ready { "ready" } else { "not_ready" };
    (is_ready, json!({ "status": status, "timestamp": now(), "checks": checks }))
}

/// This service's health. A warning never makes it unhealthy: lictor serves from the last endpoints it knew.
pub(crate) fn health(
    mesh: &Mesh,
    config: &Config,
    consul: &Standing,
    app: Option<&AppHealth>,
    uptime: Duration,
) -> (bool, Json) {
    let (mut checks, now_is) = (Map::new(), Instant::now());
    let is_healthy = app.is_none_or(|app| app.is_up);
    if let Some(app) = app {
        let status = if app.is_up { "healthy" } else { "unhealthy" };
        let took = app.took.as_millis() as u64;
        checks.insert("app".to_owned(), json!({ "status": status, "message": app.message, "responseTime": took }));
    }
    if consul.address.is_some() {
        checks.insert("consul".to_owned(), consul_check(consul));
    }
    if let Some(snapshot) = &consul.snapshot {
        checks.insert("snapshot".to_owned(), snapshot_check(snapshot));
    }
    if let Some(gateway) = &mesh.gateway {
        let count = mesh.orders().routes(gateway, SystemTime::now()).count();
        let status = if count > 0 { "warning" } else { "healthy" };
        let message = format!("{count} of {} routes in maintenance", gateway.routes.len());
        checks.insert("maintenance".to_owned(), json!({ "status": status, "message": message }));
    }
    for (name, upstream) in &mesh.upstreams {
        let count = upstream.endpoints.len();
        let (level, state) = Facts::of(upstream, now_is).word();
        let (status, message) = match level {
            Level::Good => ("healthy", format!("{count} healthy instances")),
            Level::Warn | Level::Bad => ("warning", format!("{state}; {count} instances")),
        };
        checks.insert(format!("upstream.{name}"), json!({ "status": status, "state": state, "message": message }));
    }
    let memory = Process::read().resident_bytes;
    let status = if memory > MEMORY_WARNING { "warning" } else { "healthy" };
    checks
        .insert("memory".to_owned(), json!({ "status": status, "message": format!("{} MiB resident", memory >> 20) }));
    let version = config.registration.as_ref().and_then(|registration| registration.meta.get("version"));
    let mut page = json!({
        "status": if is_healthy { "healthy" } else { "unhealthy" },
        "timestamp": now(),
        "service": config.service,
        "version": version,
        "checks": checks,
    });
    if let Some(gateway) = &mesh.gateway {
        page["uptime"] = json!(uptime.as_secs_f64());
        page["routes"] = json!(gateway.routes.len());
    }
    (is_healthy, page)
}

fn consul_check(consul: &Standing) -> Json {
    let oldest = consul.watches.iter().filter_map(|watch| watch.age_ms).max();
    let (status, message) = match (consul.up, consul.registration) {
        (Some(true), RegistrationState::Registering) => ("warning", "not registered yet".to_owned()),
        (Some(true), _) => ("healthy", format!("{} answers", consul.address.as_deref().unwrap_or("the agent"))),
        (None, _) => ("warning", "not asked yet".to_owned()),
        (Some(false), _) => {
            let age = oldest.map_or_else(|| "no data yet".to_owned(), |age| format!("data is {} s old", age / 1000));
            let error = consul.registration_error.clone();
            let error = consul.watches.iter().find_map(|watch| watch.last_error.clone()).or(error);
            ("warning", format!("{}; {age}", error.unwrap_or_else(|| "the agent does not answer".to_owned())))
        }
    };
    json!({ "status": status, "message": message })
}

fn snapshot_check(snapshot: &DiskSnapshot) -> Json {
    let seconds = |ms: u64| ms / 1000;
    let (status, message) = match (snapshot.in_use, &snapshot.last_error, &snapshot.refused) {
        (1.., ..) => {
            let age = seconds(snapshot.age_ms.unwrap_or_default());
            let message = format!("queries answered from the snapshot: {}, as of {age} s ago", snapshot.in_use);
            ("warning", message)
        }
        (0, Some(error), _) => ("warning", format!("{} cannot be written: {error}", snapshot.path)),
        (0, None, Some(reason)) if snapshot.saved_ms.is_none() => {
            ("warning", format!("{} was refused: {reason}", snapshot.path))
        }
        (0, None, _) => ("healthy", format!("{} is not in use", snapshot.path)),
    };
    json!({ "status": status, "message": message })
}

/// Endpoints, with what the workers know of them.
pub(crate) fn endpoints(mesh: &Mesh, report: &Report, consul: &Standing, only: Option<&str>) -> Json {
    let now = Instant::now();
    let wanted = mesh.upstreams.iter().filter(|(name, _)| only.is_none_or(|only| only == name.as_ref()));
    let page: Map<String, Json> = wanted
        .map(|(name, upstream)| {
            let known = report.upstreams.iter().find(|known| known.name == *name);
            let orders = upstream.steering.in_force(now);
            let recent: Vec<Recent> =
                upstream.endpoints.iter().map(|endpoint| endpoint.health.track.recent()).collect();
            let all: u64 = recent.iter().map(|recent| recent.requests).sum();
            let list = upstream.endpoints.iter().zip(&recent).map(|(endpoint, recent)| {
                let live = known.and_then(|known| {
                    known.endpoints.iter().find(|live| live.address == endpoint.address && live.id == endpoint.key.id)
                });
                json!({
                    "id": endpoint.key.id,
                    "node": endpoint.key.node,
                    "address": endpoint.address,
                    "state": endpoint.state(now),
                    "order": orders.about(&endpoint.key.id).map(|ordered| json!({
                        "order": ordered.order.as_str(),
                        "for_ms": ordered.until.saturating_duration_since(now).as_millis() as u64,
                    })),
                    "status": endpoint.status.as_str(),
                    "tier": endpoint.tier,
                    "service": endpoint.service,
                    "weight": endpoint.weight,
                    "tags": endpoint.tags,
                    "meta": endpoint.meta,
                    "warming_for_ms": warming(endpoint, &upstream.policy.balance, now),
                    "recent": of_late(endpoint, recent, all, now),
                    "live": live,
                })
            });
            (
                name.to_string(),
                json!({
                    "service": upstream.service,
                    "census": census(upstream, consul),
                    "failover": standby(upstream),
                    "endpoints": list.collect::<Vec<_>>(),
                }),
            )
        })
        .collect();
    Json::Object(page)
}

/// Its last minute, beside all attempts at its upstream's endpoints; and how it failed last.
fn of_late(endpoint: &Endpoint, recent: &Recent, all: u64, now: Instant) -> Json {
    let health = &endpoint.health;
    let failed = health.failed_ago(now).zip(health.track.cause());
    json!({
        "requests": recent.requests,
        "failures": recent.failures,
        "share": (all > 0).then(|| recent.requests as f64 / all as f64),
        "p50_ms": recent.p50_ms,
        "p99_ms": recent.p99_ms,
        "last_failure": failed.map(|(ago, cause)| json!({
            "ago_ms": ago.as_millis() as u64,
            "cause": cause.to_string(),
        })),
        "total": { "requests": recent.total, "failures": recent.total_failures },
    })
}

/// For how long it has had less than its share already, and has still.
fn warming(endpoint: &Endpoint, balance: &Balance, now: Instant) -> Option<u64> {
    let age = now.saturating_duration_since(endpoint.warms_from?);
    (age < balance.slow_start).then_some(age.as_millis() as u64)
}

fn census(upstream: &Upstream, consul: &Standing) -> Json {
    let watches = consul.watches.iter().filter(|watch| watch.service == *upstream.service);
    let mut page = seen(&upstream.census);
    page["age_ms"] = json!(watches.filter_map(|watch| watch.age_ms).max());
    page
}

/// The further tiers.
fn standby(upstream: &Upstream) -> Vec<Json> {
    let page = |standby: &Standby| json!({ "name": standby.name, "census": seen(&standby.census) });
    upstream.standby.iter().map(page).collect()
}

fn seen(census: &Census) -> Json {
    json!({
        "source": census.source,
        "known": census.is_known,
        "total": census.total,
        "critical": census.critical,
        "maintenance": census.maintenance,
        "unusable": census.unusable,
        "flapping": census.flapping,
        "suspect": census.suspect,
    })
}

/// Upstreams and how they are called.
pub(crate) fn upstreams(mesh: &Mesh, report: &Report) -> Json {
    let page: Map<String, Json> = mesh
        .upstreams
        .iter()
        .map(|(name, upstream)| {
            let live = report.upstreams.iter().find(|known| known.name == *name);
            let policy = &upstream.policy;
            let page = json!({
                "service": upstream.service,
                "protocol": upstream.protocol.as_str(),
                "required": upstream.is_required,
                "endpoints": upstream.endpoints.len(),
                "in_flight": upstream.in_flight.running(),
                "pending": upstream.pending(),
                "connections": upstream.in_flight.connections(),
                "breaker": upstream.breaker.state().as_str(),
                "retry_budget_remaining": live.map(|live| live.retry_budget_remaining),
                "policy": {
                    "timeout_ms": policy.timeouts.total.map(|limit| limit.as_millis() as u64),
                    "connect_timeout_ms": policy.timeouts.connect.as_millis() as u64,
                    "balance": policy.balance.algorithm.to_string(),
                    "retry_attempts": policy.retry.attempts,
                    "retry_statuses": policy.retry.statuses.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
                },
            });
            (name.to_string(), page)
        })
        .collect();
    Json::Object(page)
}

pub(crate) fn breakers(mesh: &Mesh) -> Json {
    let now = Instant::now();
    let page: Map<String, Json> =
        mesh.upstreams.iter().map(|(name, upstream)| (name.to_string(), json!(upstream.breaker.view(now)))).collect();
    Json::Object(page)
}

pub(crate) fn routes(mesh: &Mesh) -> Json {
    let page: Map<String, Json> = mesh
        .upstreams
        .iter()
        .map(|(name, upstream)| {
            let routes = upstream.routes.iter().enumerate().map(|(index, route)| {
                json!({
                    "gateway": upstream.routes.is_gateways(index),
                    "method": route.method().map(http::Method::as_str),
                    "path": route.label,
                    "idempotent": route.is_idempotent,
                    "timeout_ms": route.policy.timeouts.total.map(|limit| limit.as_millis() as u64),
                    "retry_attempts": route.policy.retry.attempts,
                })
            });
            (name.to_string(), Json::Array(routes.collect()))
        })
        .collect();
    Json::Object(page)
}

/// What has changed, and who says so.
pub(crate) fn events(mesh: &Mesh, told: &Told) -> Json {
    let events = told.events.iter().map(|event| serde_json::from_str::<Json>(&event.json).unwrap_or_default());
    json!({
        "service": mesh.local.service,
        "instance": mesh.local.instance,
        "newest": told.newest,
        "whole": told.is_whole,
        "events": events.collect::<Vec<_>>(),
    })
}

pub(crate) fn config(values: &[Effective], with_origin: bool) -> Json {
    let page: Map<String, Json> = values
        .iter()
        .map(|value| {
            let page = if with_origin {
                json!({ "value": value.value, "origin": value.origin.to_string() })
            } else {
                json!(value.value)
            };
            (value.path.clone(), page)
        })
        .collect();
    Json::Object(page)
}

/// Instances and requests by service, in the words of the older registries.
pub(crate) fn stats(mesh: &Mesh, requests: &BTreeMap<String, Requests>) -> Json {
    let services: Vec<Json> = mesh
        .upstreams
        .iter()
        .map(|(name, upstream)| {
            let healthy = upstream.endpoints.len();
            let total = upstream.census.total.max(healthy);
            json!({
                "name": upstream.service,
                "totalInstances": total,
                "healthyInstances": healthy,
                "unhealthyInstances": total - healthy,
                "requests": requests.get(name.as_ref()).copied().unwrap_or_default(),
            })
        })
        .collect();
    let types: BTreeSet<&str> = mesh.upstreams.values().map(|upstream| upstream.service.as_ref()).collect();
    let instances: u64 = services.iter().filter_map(|service| service["totalInstances"].as_u64()).sum();
    let sum = |count: fn(&Requests) -> u64| requests.values().map(count).sum::<u64>();
    json!({
        "totalServices": instances,
        "serviceTypes": types.len(),
        "services": services,
        "requests": Requests {
            total: sum(|requests| requests.total),
            failed: sum(|requests| requests.failed),
            retries: sum(|requests| requests.retries),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lictor_config::{Environment, Text, load};
    use lictor_consul::Handle;

    use super::*;

    /// The control plane of this file, with its static endpoints known.
    async fn started(yaml: &str) -> (Config, Handle, Arc<Mesh>) {
        let file = Text { name: "test.yaml".to_owned(), text: format!("registration: off\nservice: orders\n{yaml}") };
        let env = Environment { vars: [].into(), hostname: "host".to_owned() };
        let config = load(Some(&file), &env, &[]).unwrap().config;
        let handle = lictor_consul::start(Arc::new(config.clone())).unwrap();
        let is_resolved = |mesh: &Arc<Mesh>| {
            let mut all = mesh.upstreams.values();
            all.all(|upstream| upstream.census.source != "static" || !upstream.endpoints.is_empty())
        };
        let mesh = handle.mesh().wait_for(is_resolved).await.unwrap().clone();
        (config, handle, mesh)
    }

    const TWO: &str = "upstreams:\n  users: {listen: 3001, required: true, static: ['127.0.0.1:1', '127.0.0.1:2']}\n  carts: {listen: 3002}\nconsul: {address: 'http://127.0.0.1:1'}\n";

    #[tokio::test]
    async fn only_required_upstreams_startup_and_draining_decide_on_readiness() {
        let (_, _handle, mesh) = started(TWO).await;
        let (is_ready, page) = ready(&mesh, None, true, false);
        assert!(is_ready, "{page}");
        assert_eq!(page["status"], "ready");
        assert_eq!(page["checks"]["users"]["message"], "2 healthy instances found");
        assert_eq!(page["checks"]["carts"]["status"], "not_ready");
        assert_eq!(page["checks"]["carts"]["message"], "No healthy instances of carts found");
        assert!(humantime::parse_rfc3339(page["timestamp"].as_str().unwrap()).is_ok());
        assert!(!ready(&mesh, None, false, false).0);
        let (is_ready, page) = ready(&mesh, None, true, true);
        assert_eq!((is_ready, page["status"].as_str()), (false, Some("not_ready")));
        let (_, _handle, mesh) = started(&TWO.replace("3002}", "3002, required: true}")).await;
        assert!(!ready(&mesh, None, true, false).0);
    }

    #[tokio::test]
    async fn health_has_the_old_keys_and_a_warning_is_not_the_end() {
        let (config, handle, mesh) = started(TWO).await;
        let app = AppHealth { is_up: true, message: String::new(), took: Duration::from_millis(1) };
        let (is_healthy, page) = health(&mesh, &config, &handle.status().standing(), Some(&app), Duration::ZERO);
        assert!(is_healthy, "{page}");
        let keys: Vec<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["checks", "service", "status", "timestamp", "version"]);
        assert_eq!((page["status"].as_str(), page["service"].as_str()), (Some("healthy"), Some("orders")));
        assert_eq!(page["checks"]["consul"]["status"], "warning");
        assert_eq!(page["checks"]["upstream.users"]["status"], "healthy");
        assert_eq!(page["checks"]["upstream.carts"]["status"], "warning");
        assert!(page["checks"]["memory"]["message"].is_string());
    }

    #[tokio::test]
    async fn an_application_that_is_down_is_neither_healthy_nor_ready() {
        let (config, handle, mesh) = started(TWO).await;
        let app = AppHealth { is_up: false, message: "127.0.0.1:1: refused".to_owned(), took: Duration::ZERO };
        let (is_healthy, page) = health(&mesh, &config, &handle.status().standing(), Some(&app), Duration::ZERO);
        assert_eq!((is_healthy, page["status"].as_str()), (false, Some("unhealthy")));
        assert_eq!(page["checks"]["app"]["message"], "127.0.0.1:1: refused", "{page}");
        assert!(page["checks"]["app"]["responseTime"].is_u64());
        let (is_ready, page) = ready(&mesh, Some(&app), true, false);
        assert_eq!((is_ready, page["checks"]["app"]["status"].as_str()), (false, Some("not_ready")));
        assert_eq!(page["checks"]["app"]["message"], "127.0.0.1:1: refused", "{page}");
        assert!(ready(&mesh, Some(&AppHealth { is_up: true, ..app }), true, false).0);
    }

    #[tokio::test]
    async fn stats_have_the_old_keys_and_requests() {
        let (_, _handle, mesh) = started(TWO).await;
        let requests = Requests { total: 10, failed: 3, retries: 1 };
        let page = stats(&mesh, &[("users".to_owned(), requests)].into());
        assert_eq!((page["totalServices"].as_u64(), page["serviceTypes"].as_u64()), (Some(2), Some(2)));
        let users = &page["services"][1];
        assert_eq!(users["name"], "users");
        assert_eq!(
            [&users["totalInstances"], &users["healthyInstances"], &users["unhealthyInstances"]],
            [&json!(2), &json!(2), &json!(0)]
        );
        assert_eq!((&users["requests"]["failed"], &page["requests"]["total"]), (&json!(3), &json!(10)));
    }

    #[tokio::test]
    async fn breakers_endpoints_and_routes_are_shown_by_upstream() {
        let (_, handle, mesh) = started(TWO).await;
        assert_eq!(breakers(&mesh)["users"]["state"], "closed");
        let page = endpoints(&mesh, &Report::default(), &handle.status().standing(), Some("users"));
        assert!(page.get("carts").is_none());
        assert_eq!(page["users"]["endpoints"][0]["address"], "127.0.0.1:1");
        assert_eq!(page["users"]["endpoints"][0]["state"], "healthy");
        assert_eq!(routes(&mesh)["users"], json!([]));
        assert_eq!(upstreams(&mesh, &Report::default())["users"]["breaker"], "closed");
    }
}
