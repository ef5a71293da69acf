//! `/v1/locks/NAME`: the open request is the lock.

use std::time::Duration;

use http::{Response, StatusCode};
use lictor_consul::{LockWanted, NoLock};
use serde_json::json;

use super::{Asked, key, unanswered};
use crate::admin::api::{DELAY, TTL, WAIT};
use crate::admin::query::Query;
use crate::admin::reply::{Body, refuse, reply};
use crate::admin::stream;

const TTL_DEFAULT: Duration = Duration::from_secs(30);
/// Consul's.
const DELAY_DEFAULT: Duration = Duration::from_secs(15);

/// Takes it, and tells of its end in what is answered.
pub(super) async fn take(asked: &Asked<'_>, name: String) -> Response<Body> {
    let wanted = match wanted(asked, name.clone()) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    let ttl = wanted.ttl;
    // Who waits for it may have to wait for long, too.
    let taken = tokio::select! {
        biased;
        () = asked.closed() => return refuse(StatusCode::FORBIDDEN, stream::CLOSED),
        taken = asked.blocks.lock(wanted) => taken,
    };
    match taken {
        Ok(held) => {
            let page = json!({
                "name": name,
                "owner": held.owner,
                "fencing_token": held.fencing_token,
                "ttl_ms": ttl.as_millis() as u64,
            });
            stream::lock(held, page, asked.closed())
        }
        Err(refusal) => no_lock(&name, refusal),
    }
}

/// Gives it back; the next one may have it at once.
pub(super) async fn release(asked: &Asked<'_>, name: &str) -> Response<Body> {
    let Some(owner) = asked.query.get("owner") else {
        return refuse(StatusCode::BAD_REQUEST, "say whose it is: `?owner=` with what the lock's request was told");
    };
    match asked.blocks.release(name, owner).await {
        Some(Ok(())) => reply(StatusCode::OK, &json!({ "status": "released", "name": name })),
        Some(Err(why)) => {
            let message = format!(
                "`{name}` is given up here, but Consul does not know yet: {why}. It is free when its session ends"
            );
            refuse(StatusCode::BAD_GATEWAY, &message)
        }
        None => {
            let message =
                format!("lock not owned by this client: `{name}` was not taken here by this owner, or is lost");
            refuse(StatusCode::CONFLICT, &message)
        }
    }
}

fn wanted(asked: &Asked<'_>, name: String) -> Result<LockWanted, Response<Body>> {
    let key = key(&asked.config.lock_prefix, &name)?;
    let within = |name, default, bounds| {
        within(&asked.query, name, default, bounds).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))
    };
    Ok(LockWanted {
        key,
        name,
        ttl: within("ttl", TTL_DEFAULT, TTL)?,
        wait: within("wait", Duration::ZERO, WAIT)?,
        delay: within("delay", DELAY_DEFAULT, DELAY)?,
    })
}

fn within(query: &Query, name: &str, default: Duration, bounds: [Duration; 2]) -> Result<Duration, String> {
    let given = query.duration(name)?.unwrap_or(default);
    let [least, most] = bounds;
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    let [least, most] = bounds.map(|bound| humantime::format_duration(bound).to_string());
    Err(format!("`{name}` is {least} to {most}, not {}", humantime::format_duration(given)))
}

fn no_lock(name: &str, refusal: NoLock) -> Response<Body> {
    let busy = |sentence: &str| refuse(StatusCode::SERVICE_UNAVAILABLE, sentence);
    match refusal {
        NoLock::Taken(holder) => {
            let by = holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default();
            let message = format!("`{name}` is held{by}");
            reply(StatusCode::CONFLICT, &json!({ "status": "error", "message": message, "holder": holder }))
        }
        NoLock::Delayed => {
            let message = format!("`{name}` was lost by its last holder a moment ago, and is free after the delay");
            refuse(StatusCode::CONFLICT, &message)
        }
        NoLock::TooMany => busy("this sidecar has as many locks as it may, with those that are waited for"),
        NoLock::Stopping => busy("the sidecar is stopping"),
        NoLock::Consul(error) => unanswered(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_consuls_bounds() {
        let ttl = |query: &str| within(&Query::parse(query), "ttl", TTL_DEFAULT, TTL);
        assert_eq!((ttl(""), ttl("ttl=10s")), (Ok(TTL_DEFAULT), Ok(Duration::from_secs(10))));
        assert_eq!(ttl("ttl=9999ms").unwrap_err(), "`ttl` is 10s to 1day, not 9s 999ms");
        assert!(ttl("ttl=25h").is_err() && ttl("ttl=soon").is_err());
        let delay = |query: &str| within(&Query::parse(query), "delay", DELAY_DEFAULT, DELAY);
        assert_eq!((delay(""), delay("delay=5s")), (Ok(DELAY_DEFAULT), Ok(Duration::from_secs(5))));
        assert_eq!(delay("delay=0s").unwrap_err(), "`delay` is 5s to 1m, not 0s");
    }
}
