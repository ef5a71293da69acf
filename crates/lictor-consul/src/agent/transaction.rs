//! A transaction on one key: unlike a write of a key it says which index the key has then, and holds several conditions together.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::connection::{Connection, PATIENCE};
use super::error::ConsulError;

/// What is done to a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    /// It is written, if it is still as it was at this index (0: if there is none).
    CompareAndSet(u64),
    /// It is made, and belongs to this session, if there is no such key.
    LockNew(&'a str),
    /// It belongs to this session, if it belongs to no other and is still as it was at this index. Without the index, a lock
    /// that is asked for just before another session ends is had at once: Consul looks for the LockDelay when it is asked, and
    /// does what it was asked for when its log has it (agent/consul/txn_endpoint.go, `preCheck`).
    LockAt(&'a str, u64),
    /// It does not belong to this session any more, if it is still as it was at this index.
    UnlockAt(&'a str, u64),
}

/// The key's index then, which is that of Consul's log: it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Indexes {
    pub(crate) modify_index: u64,
}

/// Why it was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was written meanwhile.
    Changed,
    /// It belongs to another session.
    Held,
    /// It belonged to one that ended a moment ago (LockDelay).
    Delayed,
    /// There is no such session.
    NoSession,
}

/// Does it, or says why not.
pub(crate) async fn run(
    connection: &mut Connection,
    operation: Operation<'_>,
    key: &str,
    value: &[u8],
    datacenter: Option<&str>,
) -> Result<Result<Indexes, Refused>, ConsulError> {
    let body = Bytes::from(written(operation, key, value).to_string());
    let query: Vec<(&str, &str)> = datacenter.map(|datacenter| ("dc", datacenter)).into_iter().collect();
    let answer = connection.ask(Method::PUT, "/v1/txn", &query, body, PATIENCE).await?;
    match answer.status {
        StatusCode::OK => done(&answer.body).map(Ok),
        StatusCode::CONFLICT => refused(&answer.body).map(Err),
        _ => {
            Err(answer.accepted().err().unwrap_or_else(|| ConsulError::Decode("no answer to a transaction".to_owned())))
        }
    }
}

/// The conditions before what is written. The value is there once: Consul bounds what a transaction has.
fn written(operation: Operation<'_>, key: &str, value: &[u8]) -> serde_json::Value {
    let only_if = match operation {
        Operation::CompareAndSet(_) => None,
        Operation::LockNew(_) => Some(json!({ "Verb": "check-not-exists", "Key": key })),
        Operation::LockAt(_, index) | Operation::UnlockAt(_, index) => {
            Some(json!({ "Verb": "check-index", "Key": key, "Index": index }))
        }
    };
    let mut kv = json!({ "Key": key, "Value": BASE64_STANDARD.encode(value) });
    match operation {
        Operation::CompareAndSet(index) => (kv["Verb"], kv["Index"]) = (json!("cas"), json!(index)),
        Operation::LockNew(session) | Operation::LockAt(session, _) => {
            (kv["Verb"], kv["Session"]) = (json!("lock"), json!(session));
        }
        Operation::UnlockAt(session, _) => (kv["Verb"], kv["Session"]) = (json!("unlock"), json!(session)),
    }
    only_if.into_iter().chain([kv]).map(|kv| json!({ "KV": kv })).collect()
}

fn done(body: &[u8]) -> Result<Indexes, ConsulError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Done {
        results: Vec<Outcome>,
    }
    #[derive(Deserialize)]
    struct Outcome {
        #[serde(rename = "KV")]
        kv: Indexes,
    }
    let done: Done = serde_json::from_slice(body).map_err(|error| ConsulError::Decode(error.to_string()))?;
    let last = done.results.last().ok_or_else(|| ConsulError::Decode("a transaction without a result".to_owned()))?;
    Ok(last.kv)
}

/// Consul says it in words (agent/consul/state/txn.go, agent/consul/txn_endpoint.go).
fn refused(body: &[u8]) -> Result<Refused, ConsulError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Failed {
        errors: Vec<What>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct What {
        what: String,
    }
    let failed: Failed = serde_json::from_slice(body).map_err(|error| ConsulError::Decode(error.to_string()))?;
    let what = failed.errors.into_iter().next().map(|error| error.what).unwrap_or_default();
    let says = |words: &str| what.contains(words);
    Ok(if says("index is stale") || says("index check") || says("exist") {
        Refused::Changed
    } else if says("already held") || says("held by another") {
        Refused::Held
    } else if says("lock delay") {
        Refused::Delayed
    } else if says("invalid session") {
        Refused::NoSession
    } else {
        let code = if says("Permission denied") { 403 } else { 409 };
        return Err(ConsulError::Status { code, text: what.chars().take(200).collect() });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_hold_is_asked_before_what_is_written() {
        let lock = json!({ "Verb": "lock", "Key": "k", "Value": "dg==", "Session": "s" });
        for (operation, expected) in [
            (
                Operation::CompareAndSet(7),
                json!([{ "KV": { "Verb": "cas", "Key": "k", "Value": "dg==", "Index": 7 } }]),
            ),
            (Operation::LockNew("s"), json!([{ "KV": { "Verb": "check-not-exists", "Key": "k" } }, { "KV": lock }])),
            (
                Operation::LockAt("s", 7),
                json!([{ "KV": { "Verb": "check-index", "Key": "k", "Index": 7 } }, { "KV": lock }]),
            ),
            (
                Operation::UnlockAt("s", 7),
                json!([
                    { "KV": { "Verb": "check-index", "Key": "k", "Index": 7 } },
                    { "KV": { "Verb": "unlock", "Key": "k", "Value": "dg==", "Session": "s" } },
                ]),
            ),
        ] {
            assert_eq!(written(operation, "k", b"v"), expected, "{operation:?}");
        }
    }

    #[test]
    fn what_consul_says_is_understood() {
        let answer = br#"{"Results":[{"KV":{"LockIndex":3,"Key":"k","Flags":0,"Value":null,"CreateIndex":7,"ModifyIndex":9}}],"Errors":null}"#;
        assert_eq!(done(answer).unwrap(), Indexes { modify_index: 9 });
        assert!(done(br#"{"Results":[],"Errors":null}"#).is_err());
        let error = |what: &str| {
            let body = json!({ "Results": null, "Errors": [{ "OpIndex": 0, "What": what }] }).to_string();
            refused(body.as_bytes())
        };
        for (what, expected) in [
            ("failed to set key \"k\", index is stale", Refused::Changed),
            ("failed to lock key \"k\", lock is already held", Refused::Held),
            ("failed to lock key \"k\" due to lock delay", Refused::Delayed),
            ("invalid session \"s\"", Refused::NoSession),
        ] {
            assert_eq!(error(what), Ok(expected), "{what}");
        }
        assert!(error("Permission denied").unwrap_err().is_denied());
        assert!(!error("something else").unwrap_err().is_denied());
        assert!(refused(b"{").is_err());
    }
}
