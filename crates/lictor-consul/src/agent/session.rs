//! Sessions: what a lock belongs to, for as long as it is renewed.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::connection::{Connection, PATIENCE, encode};
use super::error::ConsulError;

/// Makes one, and says its id. It ends when it has not been renewed for `ttl` (Consul takes up to twice that), and what belongs to
/// it cannot be had for `delay` then. Its node's end ends it at once (a client agent that leaves); a server that restarts does
/// not, if it is back in time.
pub(crate) async fn create(
    connection: &mut Connection,
    name: &str,
    ttl: Duration,
    delay: Duration,
) -> Result<String, ConsulError> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "ID")]
        id: String,
    }
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let body = json!({
        "Name": name,
        "TTL": millis(ttl),
        "LockDelay": millis(delay),
        "Behavior": "release",
        "Checks": [],
        "NodeChecks": [],
    });
    let answer = connection.put("/v1/session/create", &[], Bytes::from(body.to_string()), PATIENCE).await?;
    let created: Created =
        serde_json::from_slice(&answer.body).map_err(|error| ConsulError::Decode(error.to_string()))?;
    Ok(created.id)
}

/// Renews it; whether it was still there.
pub(crate) async fn renew(connection: &mut Connection, id: &str, at_most: Duration) -> Result<bool, ConsulError> {
    let path = format!("/v1/session/renew/{}", encode(id));
    let answer = connection.ask(Method::PUT, &path, &[], Bytes::new(), at_most).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    answer.accepted().map(|_| true)
}

/// Ends it.
pub(crate) async fn destroy(connection: &mut Connection, id: &str) -> Result<(), ConsulError> {
    let path = format!("/v1/session/destroy/{}", encode(id));
    connection.put(&path, &[], Bytes::new(), PATIENCE).await.map(drop)
}
