//! `/v1/services`, `/v1/services/NAME` and `/v1/watch/services/NAME`.

use http::{Response, StatusCode};
use lictor_config::Query as Wanted;
use lictor_consul::Found;
use serde_json::{Value as Json, json};

use super::{Asked, unanswered};
use crate::admin::reply::{Body, refuse, reply};
use crate::admin::stream;

pub(super) async fn list(asked: &Asked<'_>) -> Response<Body> {
    match asked.blocks.services().await {
        Ok(offers) => reply(StatusCode::OK, &json!({ "services": offers })),
        Err(error) => unanswered(&error),
    }
}

pub(super) async fn one(asked: &Asked<'_>, name: &str) -> Response<Body> {
    let wanted = match wanted(asked, name) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    match asked.blocks.instances(&wanted).await {
        Ok(found) => reply(StatusCode::OK, &page(name, &found, asked.query.is_set("all"))),
        Err(error) => unanswered(&error),
    }
}

pub(super) async fn watch(asked: &Asked<'_>, name: &str) -> Response<Body> {
    let wanted = match wanted(asked, name) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    // What is wrong with the question is told before there is a stream.
    if let Err(error) = asked.blocks.instances(&wanted).await {
        return unanswered(&error);
    }
    let Some(looking) = asked.blocks.look_at_instances(&wanted) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many watch services and keys already");
    };
    let (name, all) = (name.to_owned(), asked.query.is_set("all"));
    stream::documents(looking, "instances", move |found| page(&name, found, all).to_string(), asked.closed())
}

/// `?tag=a&tag=b&filter=Service.Meta.version==v2&dc=dc2`
fn wanted(asked: &Asked<'_>, name: &str) -> Result<Wanted, Response<Body>> {
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        // Consul reads names as paths.
        return Err(refuse(StatusCode::BAD_REQUEST, &format!("`{name}` is no service's name")));
    }
    let query = &asked.query;
    Ok(Wanted {
        service: name.to_owned(),
        tags: query.all("tag").map(str::to_owned).collect(),
        filter: query.get("filter").map(str::to_owned),
        datacenter: query.get("dc").map(str::to_owned),
        ..Wanted::default()
    })
}

fn page(name: &str, found: &[Found], all: bool) -> Json {
    let shown: Vec<&Found> = found.iter().filter(|found| all || found.is_usable).collect();
    json!({ "name": name, "instances": shown })
}
