//! A key of Consul's KV: read, written, and what its answer holds.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::StatusCode;
use lictor_config::Consistency;
use serde::{Deserialize, Serialize};

use super::blocking::Ask;
use super::connection::{Answer, Connection, PATIENCE, encode};
use super::error::ConsulError;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// Consul's: another one for each write.
    pub modify_index: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// What is known of the watched key; `None` is that there is no such key.
pub type KvKnown = Option<KvEntry>;

/// What the key holds now, or once that is something else.
pub(crate) async fn get(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, KvKnown), ConsulError> {
    let more: Vec<(&str, &str)> = datacenter.map(|datacenter| ("dc", datacenter)).into_iter().collect();
    let answer = connection.query(&path(key), ask, consistency, &more).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok((answer, None));
    }
    let answer = answer.accepted()?;
    let known = parse(&answer.body)?;
    Ok((answer, known))
}

/// Parses the answer: a list of one.
pub(crate) fn parse(body: &[u8]) -> Result<KvKnown, ConsulError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        modify_index: u64,
        #[serde(default)]
        value: Option<String>,
    }
    let decode = |error: &dyn ToString| ConsulError::Decode(error.to_string());
    let items: Vec<Item> = serde_json::from_slice(body).map_err(|error| decode(&error))?;
    let Some(item) = items.into_iter().next() else { return Ok(None) };
    let value = BASE64_STANDARD.decode(item.value.unwrap_or_default()).map_err(|error| decode(&error))?;
    Ok(Some(KvEntry { modify_index: item.modify_index, value }))
}

/// Writes it, if it is still as it was at this index (0: if there is none); whether it was.
pub(crate) async fn put(
    connection: &mut Connection,
    key: &str,
    datacenter: Option<&str>,
    value: &str,
    cas: Option<u64>,
) -> Result<bool, ConsulError> {
    let cas = cas.map(|index| index.to_string());
    let cas = cas.as_deref().map(|index| ("cas", index));
    let query: Vec<(&str, &str)> = cas.into_iter().chain(datacenter.map(|datacenter| ("dc", datacenter))).collect();
    let answer = connection.put(&path(key), &query, Bytes::copy_from_slice(value.as_bytes()), PATIENCE).await?;
    Ok(answer.body.trim_ascii() == b"true")
}

fn path(key: &str) -> String {
    let steps: Vec<String> = key.split('/').map(encode).collect();
    format!("/v1/kv/{}", steps.join("/"))
}
