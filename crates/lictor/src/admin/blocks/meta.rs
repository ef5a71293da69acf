//! `PATCH /v1/self/meta`: Meta of our own registration.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use lictor_consul::MetaPatch;
use serde_json::json;

use crate::admin::api::PATCH_MAX;
use crate::admin::reply::{Body, refuse, reply};
use crate::admin::state::Admin;

/// For the agent to take it.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Merges what is sent over it (RFC 7396): text replaces, `null` takes away.
pub(super) async fn patch(admin: &Arc<Admin>, body: Incoming) -> Response<Body> {
    let body = match super::read(body, PATCH_MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let patch: MetaPatch = match serde_json::from_slice(&body) {
        Ok(patch) => patch,
        Err(error) => {
            let message =
                format!("send a map of texts, or null for what goes, such as {{\"version\": \"v2\"}}: {error}");
            return refuse(StatusCode::BAD_REQUEST, &message);
        }
    };
    match admin.handle.patch_meta(&patch, TOLD_WITHIN).await {
        None => refuse(StatusCode::CONFLICT, "this process is not registered"),
        Some(Err(why)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Some(Ok((meta, true))) => reply(StatusCode::OK, &json!({ "meta": meta, "registered": true })),
        Some(Ok((meta, false))) => reply(StatusCode::ACCEPTED, &json!({ "meta": meta, "registered": false })),
    }
}
