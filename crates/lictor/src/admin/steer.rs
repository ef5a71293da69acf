//! An operator's orders about endpoints and breakers: in force for a time, told to log and `/events`, and ended by a timer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use lictor_core::Upstream;
use lictor_core::breaker::Forced;
use lictor_core::steering::{Order, Ordered};
use serde_json::json;
use tracing::{info, warn};

use super::query::{Query, decode};
use super::reply::{Body, refuse, reply};
use super::state::Admin;

/// Nobody says for how long.
const USUALLY: Duration = Duration::from_secs(300);
/// What is meant to last belongs into the configuration.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// Whether such an order exists: `/endpoints/ID/eject`, `/breakers/NAME`.
pub(super) fn is_order(path: &str) -> bool {
    Asked::of(path).is_some()
}

/// What is asked for, and of whom.
enum Asked {
    Endpoint { id: String, order: Option<Order> },
    Breaker { name: String },
}

impl Asked {
    fn of(path: &str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("/breakers/") {
            return Some(Self::Breaker { name: decode(name) });
        }
        let (id, word) = path.strip_prefix("/endpoints/")?.rsplit_once('/')?;
        let order = match word {
            "eject" => Some(Order::Eject),
            "pin" => Some(Order::Pin),
            "undo" => None,
            _ => return None,
        };
        Some(Self::Endpoint { id: decode(id), order })
    }
}

/// Does what is asked.
pub(super) fn steer(admin: &Arc<Admin>, path: &str, query: &Query) -> Response<Body> {
    let asked = Asked::of(path).ok_or_else(|| (StatusCode::NOT_FOUND, "no such order".to_owned()));
    let done = asked.and_then(|asked| {
        let lasts = duration(query).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
        match asked {
            Asked::Endpoint { id, order } => endpoint(admin, &id, order, lasts, query.get("upstream")),
            Asked::Breaker { name } => breaker(admin, &name, query.get("state").unwrap_or_default(), lasts),
        }
    });
    match done {
        Ok(page) => reply(StatusCode::OK, &page),
        Err((status, message)) => refuse(status, &message),
    }
}

type Done = Result<serde_json::Value, (StatusCode, String)>;

fn duration(query: &Query) -> Result<Duration, String> {
    let lasts = query.duration("for")?.unwrap_or(USUALLY);
    if lasts.is_zero() || lasts > AT_MOST {
        return Err("an order holds for more than nothing and at most 24h".to_owned());
    }
    Ok(lasts)
}

/// About every endpoint of that id: two upstreams may be the same service.
fn endpoint(admin: &Arc<Admin>, id: &str, order: Option<Order>, lasts: Duration, only: Option<&str>) -> Done {
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

fn breaker(admin: &Arc<Admin>, name: &str, state: &str, lasts: Duration) -> Done {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_from_pages() {
        for order in ["/endpoints/users-1/eject", "/endpoints/a%2Fb/pin", "/endpoints/x/undo", "/breakers/users"] {
            assert!(is_order(order), "{order}");
        }
        for page in ["/endpoints", "/endpoints/users", "/endpoints/users/love", "/breakers", "/drain"] {
            assert!(!is_order(page), "{page}");
        }
    }
}
