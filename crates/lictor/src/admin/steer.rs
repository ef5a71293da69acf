//! An operator's orders about endpoints and breakers: in force for a time, told to log and `/events`, and ended by a timer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use lictor_core::Upstream;
use lictor_core::breaker::Forced;
use lictor_core::steering::{Order, Ordered};
use serde_json::json;
use tracing::{info, warn};

use super::api::STEERED_AT_MOST;
use super::query::Query;
use super::reply::{Body, refuse, reply};
use super::state::Admin;

/// Nobody says for how long.
const USUALLY: Duration = Duration::from_secs(300);

/// Nothing is sent to an endpoint (`/endpoints/ID/eject`), or all of it (`pin`), or it is as any other again.
pub(super) fn endpoint(admin: &Arc<Admin>, id: &str, order: Option<Order>, query: &Query) -> Response<Body> {
    done(duration(query).and_then(|lasts| order_endpoint(admin, id, order, lasts, query.get("upstream"))))
}

/// `/breakers/NAME`
pub(super) fn breaker(admin: &Arc<Admin>, name: &str, query: &Query) -> Response<Body> {
    let state = query.get("state").unwrap_or_default();
    done(duration(query).and_then(|lasts| order_breaker(admin, name, state, lasts)))
}

fn done(done: Done) -> Response<Body> {
    match done {
        Ok(page) => reply(StatusCode::OK, &page),
        Err((status, message)) => refuse(status, &message),
    }
}

type Done = Result<serde_json::Value, Refused>;
type Refused = (StatusCode, String);

fn duration(query: &Query) -> Result<Duration, Refused> {
    let wrong = |message| (StatusCode::BAD_REQUEST, message);
    let lasts = query.duration("for").map_err(wrong)?.unwrap_or(USUALLY);
    if lasts.is_zero() || lasts > STEERED_AT_MOST {
        return Err(wrong("an order holds for more than nothing and at most 24h".to_owned()));
    }
    Ok(lasts)
}

/// About every endpoint of that id: two upstreams may be the same service.
fn order_endpoint(admin: &Arc<Admin>, id: &str, order: Option<Order>, lasts: Duration, only: Option<&str>) -> Done {
    let (mesh, now) = (admin.mesh(), Instant::now());
    let meant: Vec<&Arc<Upstream>> = mesh
        .upstreams
        .values()
        .filter(|upstream| only.is_none_or(|only| *upstream.name == *only))
        .filter(|upstream| upstream.endpoints.iter().any(|endpoint| *endpoint.key.id == *id))
        .collect();
    if meant.is_empty() {
        return Err((StatusCode::NOT_FOUND, format!("no endpoint has the id {id}; /endpoints lists them")));
    }
    for upstream in &meant {
        match order {
            Some(order) => {
                upstream.steering.order(Ordered { id: id.into(), order, until: now + lasts });
                warn!(target: "lictor::event", kind = "endpoint_ordered", upstream = %upstream.name, endpoint = id, order = order.as_str(), for_ms = lasts.as_millis() as u64, "an operator's order about an endpoint is in force");
            }
            None => {
                upstream.steering.undo(id);
                let meant = upstream.endpoints.iter().filter(|endpoint| *endpoint.key.id == *id);
                meant.for_each(|endpoint| endpoint.health.readmit());
                info!(target: "lictor::event", kind = "endpoint_order_ended", upstream = %upstream.name, endpoint = id, cause = "undo", "an endpoint is as any other again");
            }
        }
    }
    if order.is_some() {
        end_later(admin, lasts);
    }
    Ok(json!({
        "endpoint": id,
        "order": order.map_or("undo", Order::as_str),
        "upstreams": meant.iter().map(|upstream| &upstream.name).collect::<Vec<_>>(),
        "for_ms": order.map(|_| lasts.as_millis() as u64),
    }))
}

fn order_breaker(admin: &Arc<Admin>, name: &str, state: &str, lasts: Duration) -> Done {
    let (mesh, now) = (admin.mesh(), Instant::now());
    let forced = match state {
        "open" => Some(Forced::Open),
        "close" | "closed" => Some(Forced::Closed),
        "auto" => None,
        _ => return Err((StatusCode::BAD_REQUEST, "say which: ?state=open, close or auto".to_owned())),
    };
    let Some(upstream) = mesh.upstreams.get(name) else {
        return Err((StatusCode::NOT_FOUND, format!("no upstream is named {name}; /breakers lists them")));
    };
    let change = upstream.breaker.force(forced.map(|forced| (forced, now + lasts)), now);
    let for_ms = forced.map_or(0, |_| lasts.as_millis() as u64);
    warn!(target: "lictor::event", kind = "breaker_ordered", upstream = %upstream.name, order = state, for_ms, "an operator's order about a circuit breaker");
    if let Some(change) = change {
        admin.plane.breaker_changed(name, &change);
    }
    if forced.is_some() {
        end_later(admin, lasts);
    }
    Ok(json!(upstream.breaker.view(now)))
}

/// Sees to it that orders end also when nobody looks.
fn end_later(admin: &Arc<Admin>, lasts: Duration) {
    let admin = Arc::clone(admin);
    tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        end_due(&admin);
    });
}

fn end_due(admin: &Admin) {
    let now = Instant::now();
    for (name, upstream) in &admin.mesh().upstreams {
        for ended in upstream.steering.expire(now) {
            info!(target: "lictor::event", kind = "endpoint_order_ended", upstream = %name, endpoint = %ended.id, order = ended.order.as_str(), cause = "time", "an endpoint is as any other again");
        }
        if let Some((forced, change)) = upstream.breaker.expire(now) {
            info!(target: "lictor::event", kind = "breaker_order_ended", upstream = %name, order = ?forced, cause = "time", "a circuit breaker judges by itself again");
            if let Some(change) = change {
                admin.plane.breaker_changed(name, &change);
            }
        }
    }
}
