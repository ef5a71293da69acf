//! `/v1/saga`: steps of services that are done in their order, or undone.

use std::time::{Duration, SystemTime};

use http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use lictor_core::saga::{BODY_MAX, Plan, Saga, check_id};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{Asked, read, unanswered};
use crate::admin::api::WAIT;
use crate::admin::reply::{Body, refuse, reply};
use crate::sagas::{self, NoSaga};

/// How long the end is waited for.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// What a list has, the latest first.
const LISTED_MOST: usize = 1000;

/// Begins one, or finds it begun, and waits for its end.
pub(super) async fn begin(asked: &Asked<'_>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match read(body, BODY_MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let (id, plan, wait) = match wanted(asked, &head.headers, &body) {
        Ok(wanted) => wanted,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let until = Instant::now() + wait;
    let begun = sagas::begin(asked.admin, asked.blocks, &id, plan.clone()).await;
    if let Err(refusal) = begun {
        return refused(&id, refusal);
    }
    ended(asked, &id, until, Some(plan)).await
}

/// Tries the rest of one again, and waits for its end.
pub(super) async fn again(asked: &Asked<'_>, id: &str) -> Response<Body> {
    let until = match check_id(id).and_then(|()| wait(asked)) {
        Ok(wait) => Instant::now() + wait,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    match sagas::again(asked.admin, asked.blocks, id).await {
        Ok(()) => ended(asked, id, until, None).await,
        Err(refusal) => refused(id, refusal),
    }
}

/// How it is now.
pub(super) async fn one(asked: &Asked<'_>, id: &str) -> Response<Body> {
    if let Err(why) = check_id(id) {
        return refuse(StatusCode::BAD_REQUEST, &why);
    }
    match sagas::outcome(asked.admin, asked.blocks, id, Instant::now()).await {
        Ok(Some(saga)) => reply(StatusCode::OK, &page(&saga)),
        Ok(None) => refused(id, NoSaga::Missing),
        Err(refusal) => refused(id, refusal),
    }
}

/// Those of our service.
pub(super) async fn list(asked: &Asked<'_>) -> Response<Body> {
    let folder = sagas::folder(&asked.admin.loaded.read().config).unwrap_or_default();
    match asked.blocks.sagas().list(&folder).await {
        Ok(mut seen) => {
            seen.sort_by_key(|sighted| std::cmp::Reverse(sighted.line.changed_ms));
            let lines = seen.iter().take(LISTED_MOST).map(|sighted| {
                let line = &sighted.line;
                json!({ "id": line.id, "status": line.status.as_str(), "changed": time(line.changed_ms) })
            });
            reply(StatusCode::OK, &json!({ "sagas": lines.collect::<Vec<_>>() }))
        }
        Err(error) => unanswered(&error),
    }
}

/// Its id, its steps, and how long to wait.
fn wanted(asked: &Asked<'_>, headers: &HeaderMap, body: &[u8]) -> Result<(String, Plan, Duration), String> {
    let plan = Plan::read(body)?;
    let wait = wait(asked)?;
    for service in plan.services() {
        sagas::check_service(asked.admin, service)?;
    }
    let id = match (&plan.id, headers.get("idempotency-key")) {
        (Some(id), _) => id.clone(),
        (None, Some(key)) => {
            // A string of structured fields, or as it is (draft-ietf-httpapi-idempotency-key-header, 2.1).
            let key = key.to_str().unwrap_or_default().trim();
            let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
            check_id(key).map_err(|why| format!("`Idempotency-Key` is the id where the body has none, and {why}"))?;
            key.to_owned()
        }
        (None, None) => made_up()?,
    };
    Ok((id, plan, wait))
}

fn wait(asked: &Asked<'_>) -> Result<Duration, String> {
    let wait = asked.query.duration("wait")?.unwrap_or(WAIT_DEFAULT);
    if (WAIT[0]..=WAIT[1]).contains(&wait) {
        Ok(wait)
    } else {
        Err(format!("`wait` is 0s to 10m, not {}", humantime::format_duration(wait)))
    }
}

fn made_up() -> Result<String, String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers: send an `id`".to_owned())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Its end, or where it is to be asked for.
async fn ended(asked: &Asked<'_>, id: &str, until: Instant, plan: Option<Plan>) -> Response<Body> {
    let saga = match (sagas::outcome(asked.admin, asked.blocks, id, until).await, plan) {
        (Ok(Some(saga)), _) => saga,
        // It is begun, whatever Consul does not say of it now.
        (Err(NoSaga::Consul(error)), Some(plan)) if error.is_outage() => {
            Saga::new(id.to_owned(), plan, sagas::now_ms())
        }
        // Whoever was asked first could not begin it.
        (Ok(None), Some(_)) => return busy("it was not begun: ask again"),
        (Ok(None), None) => return refused(id, NoSaga::Missing),
        (Err(refusal), _) => return refused(id, refusal),
    };
    let status = match saga.status() {
        status if !status.is_ended() => StatusCode::ACCEPTED,
        lictor_core::saga::Status::Completed => StatusCode::OK,
        _ => StatusCode::CONFLICT,
    };
    let mut response = reply(status, &page(&saga));
    if status == StatusCode::ACCEPTED
        && let Ok(place) = HeaderValue::try_from(format!("/v1/saga/{id}"))
    {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn page(saga: &Saga) -> Json {
    let steps = saga.steps().map(|step| {
        json!({ "name": step.name, "service": step.service, "action": step.action, "compensation": step.compensation })
    });
    let [started, changed] = saga.times_ms();
    json!({
        "id": saga.id(),
        "status": saga.status().as_str(),
        "current": saga.current(),
        "completed": saga.completed(),
        "failed": saga.failed(),
        "compensated": saga.compensated(),
        "remaining": saga.remaining(),
        "reason": saga.reason(),
        "steps": steps.collect::<Vec<_>>(),
        "started": time(started),
        "changed": time(changed),
    })
}

fn time(ms: u64) -> String {
    /// The year 10000, which RFC 3339 has no word for.
    const YEARS_END: u64 = 253_402_300_800_000;
    let since = Duration::from_millis(if ms < YEARS_END { ms } else { 0 });
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

fn busy(why: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refused(id: &str, refusal: NoSaga) -> Response<Body> {
    match refusal {
        NoSaga::Other => {
            let message = format!("there is a saga `{id}` with other steps already: another saga has another id");
            refuse(StatusCode::UNPROCESSABLE_ENTITY, &message)
        }
        NoSaga::TooMany(why) => busy(why),
        NoSaga::Stopping => busy("the sidecar is stopping"),
        NoSaga::NotManual(saga) => {
            let message = format!("`{id}` is `{}`: only what is `manual` is tried again", saga.status().as_str());
            refuse(StatusCode::CONFLICT, &message)
        }
        NoSaga::Missing => refuse(StatusCode::NOT_FOUND, &format!("there is no saga `{id}` of this service")),
        NoSaga::Unreadable(why) => {
            let message = format!("what KV has of `{id}` is no saga: {why}");
            refuse(StatusCode::BAD_GATEWAY, &message)
        }
        NoSaga::Consul(error) => unanswered(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_made_up_are_ids_and_differ() {
        let [one, two] = [made_up().unwrap(), made_up().unwrap()];
        assert!(check_id(&one).is_ok() && one != two, "{one} {two}");
    }

    #[test]
    fn a_page_has_what_users_of_a_hand_written_one_know() {
        let plan =
            Plan::read(br#"{"steps":[{"name":"a","service":"s","action":"x","payload":{"secret":1}}]}"#).unwrap();
        let page = page(&Saga::new("o".to_owned(), plan, 1_000));
        assert_eq!((&page["status"], &page["current"], &page["reason"]), (&json!("running"), &json!(0), &Json::Null));
        assert_eq!(page["steps"][0], json!({ "name": "a", "service": "s", "action": "x", "compensation": null }));
        assert_eq!(page["started"], "1970-01-01T00:00:01.000Z");
        assert!(!page.to_string().contains("secret"), "what is sent is not shown");
        assert_eq!(time(u64::MAX), time(0), "what no clock has");
    }
}
