//! A key of Consul's KV: read, written, and what its answer holds.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
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
    let (answer, items) = items(connection, key, &more, ask, consistency).await?;
    let known = first(items)?;
    Ok((answer, known.map(|known| known.entry)))
}

/// Keys of a folder and what they hold, by key.
pub type KvFolder = Vec<(String, KvEntry)>;

/// All keys that begin so, now or once that is something else; at most so many.
pub(crate) async fn list(
    connection: &mut Connection,
    prefix: &str,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
    most: usize,
) -> Result<(Answer, KvFolder), ConsulError> {
    let (answer, owned) = list_owned(connection, prefix, datacenter, ask, consistency, most).await?;
    Ok((answer, owned.into_iter().map(|owned| (owned.key, owned.entry)).collect()))
}

/// A key, and the session that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) key: String,
    pub(crate) session: Option<String>,
    pub(crate) entry: KvEntry,
}

/// The key with whom it belongs to, now or once that is otherwise; `None`: there is no such key.
pub(crate) async fn owned(
    connection: &mut Connection,
    key: &str,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, Option<Owned>), ConsulError> {
    let (answer, items) = items(connection, key, &[], ask, consistency).await?;
    Ok((answer, first(items)?))
}

/// The same of all keys that begin so; at most so many.
pub(crate) async fn list_owned(
    connection: &mut Connection,
    prefix: &str,
    datacenter: Option<&str>,
    ask: Ask,
    consistency: Consistency,
    most: usize,
) -> Result<(Answer, Vec<Owned>), ConsulError> {
    let more: Vec<(&str, &str)> =
        [("recurse", "")].into_iter().chain(datacenter.map(|datacenter| ("dc", datacenter))).collect();
    let (answer, items) = items(connection, prefix, &more, ask, consistency).await?;
    if items.len() > most {
        return Err(ConsulError::TooMany(most));
    }
    let owned = items.into_iter().map(Item::owned).collect::<Result<_, _>>()?;
    Ok((answer, owned))
}

/// None where there is no such key.
async fn items(
    connection: &mut Connection,
    key: &str,
    more: &[(&str, &str)],
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, Vec<Item>), ConsulError> {
    let answer = connection.query(&path(key), ask, consistency, more).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok((answer, Vec::new()));
    }
    let answer = answer.accepted()?;
    let items = parse_items(&answer.body)?;
    Ok((answer, items))
}

/// Deletes it, if it is still as it was at this index; whether it was.
pub(crate) async fn delete(connection: &mut Connection, key: &str, index: u64) -> Result<bool, ConsulError> {
    let query = [("cas", &*index.to_string())];
    let answer = connection.ask(Method::DELETE, &path(key), &query, Bytes::new(), PATIENCE).await?.accepted()?;
    Ok(answer.body.trim_ascii() == b"true")
}

/// Gives up a key that belongs to the session; whether it did.
pub(crate) async fn release(connection: &mut Connection, key: &str, session: &str) -> Result<bool, ConsulError> {
    let answer = connection.put(&path(key), &[("release", session)], Bytes::new(), PATIENCE).await?;
    Ok(answer.body.trim_ascii() == b"true")
}

/// Parses the answer: a list of one.
#[cfg(any(fuzzing, test))]
pub(crate) fn parse(body: &[u8]) -> Result<KvKnown, ConsulError> {
    Ok(first(parse_items(body)?)?.map(|known| known.entry))
}

fn first(items: Vec<Item>) -> Result<Option<Owned>, ConsulError> {
    items.into_iter().next().map(Item::owned).transpose()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(default)]
    key: String,
    modify_index: u64,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    session: Option<String>,
}

impl Item {
    fn owned(self) -> Result<Owned, ConsulError> {
        let value = BASE64_STANDARD.decode(self.value.unwrap_or_default());
        let value = value.map_err(|error| ConsulError::Decode(error.to_string()))?;
        let session = self.session.filter(|session| !session.is_empty());
        Ok(Owned { key: self.key, session, entry: KvEntry { modify_index: self.modify_index, value } })
    }
}

fn parse_items(body: &[u8]) -> Result<Vec<Item>, ConsulError> {
    serde_json::from_slice(body).map_err(|error| ConsulError::Decode(error.to_string()))
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
