//! `/v1/config/KEY`: a key of KV, read, watched, and written by compare-and-set.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use lictor_consul::{KvEntry, Written};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Asked, key, unanswered};
use crate::admin::api::VALUE_MAX;
use crate::admin::reply::{self, Body, refuse, reply};
use crate::admin::stream;

/// Of JSON in JSON that is shown; deeper is shown as text.
const LEVELS_MAX: usize = 100;

pub(super) async fn read(asked: &Asked<'_>, name: &str) -> Response<Body> {
    if asked.query.is_set("recurse") {
        return read_all(asked, name).await;
    }
    let key = match key(&asked.config.config_prefix, name) {
        Ok(key) => key,
        Err(refusal) => return refusal,
    };
    // What is wrong with the question is told before there is a stream.
    let known = match asked.blocks.setting(&key).await {
        Ok(known) => known,
        Err(error) => return unanswered(&error),
    };
    if asked.query.is_set("watch") {
        let Some(looking) = asked.blocks.look_at_setting(&key) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many watch services and keys already");
        };
        let name = name.to_owned();
        return stream::documents(
            looking,
            "config",
            move |known| reply::line(&Shown::of(&name, known.as_ref())),
            asked.closed(),
        );
    }
    match known {
        None => {
            let message = format!("there is no key `{key}` in Consul");
            reply(StatusCode::NOT_FOUND, &json!({ "status": "error", "message": message, "modify_index": 0 }))
        }
        Some(entry) if asked.query.is_set("raw") => raw(entry),
        Some(entry) => reply::ok(&Shown::of(name, Some(&entry))),
    }
}

/// All keys of a folder, with those of folders in it; of no name, all.
pub(super) async fn read_all(asked: &Asked<'_>, name: &str) -> Response<Body> {
    let name = name.trim_end_matches('/');
    let prefix = &asked.config.config_prefix;
    let folder = match name {
        "" => Ok(prefix.clone()),
        name => key(prefix, name).map(|key| format!("{key}/")),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(refusal) => return refusal,
    };
    let known = match asked.blocks.settings(&folder).await {
        Ok(known) => known,
        Err(error) => return unanswered(&error),
    };
    if asked.query.is_set("watch") {
        let Some(looking) = asked.blocks.look_at_settings(&folder) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many watch services and keys already");
        };
        let prefix = prefix.clone();
        return stream::documents(
            looking,
            "config",
            move |known| reply::line(&entries(&prefix, known)),
            asked.closed(),
        );
    }
    reply::ok(&entries(prefix, &known))
}

/// Those of a folder.
#[derive(Serialize)]
struct Entries<'a> {
    entries: Vec<Shown<'a>>,
}

fn entries<'a>(prefix: &str, known: &'a [(String, KvEntry)]) -> Entries<'a> {
    let entries = known.iter().map(|(key, entry)| Shown::of(key.strip_prefix(prefix).unwrap_or(key), Some(entry)));
    Entries { entries: entries.collect() }
}

pub(super) async fn write(asked: &Asked<'_>, name: &str, body: Incoming) -> Response<Body> {
    let key = match key(&asked.config.config_prefix, name) {
        Ok(key) => key,
        Err(refusal) => return refusal,
    };
    let cas = match asked.query.get("cas").map(str::parse::<u64>) {
        Some(Ok(cas)) => cas,
        Some(Err(_)) => return refuse(StatusCode::BAD_REQUEST, "`cas` is a `modify_index` that was read, or 0"),
        None => {
            let sentence = "say what is replaced: `?cas=` with the `modify_index` that was read, or 0 for a key that is not there yet";
            return refuse(StatusCode::PRECONDITION_REQUIRED, sentence);
        }
    };
    let value = match super::read(body, VALUE_MAX).await {
        Ok(value) => value,
        Err(refusal) => return refusal,
    };
    // Consul writes keys that it does not read again: with characters that cannot be printed.
    if !key.is_ascii()
        && let Err(error) = asked.blocks.setting(&key).await
    {
        return unanswered(&error);
    }
    match asked.blocks.write_setting(&key, &value, cas).await {
        Ok(Written::Yes(index)) => reply(StatusCode::OK, &json!({ "key": name, "modify_index": index })),
        Ok(Written::Meanwhile { index, is_same }) => {
            let what = if is_same { "but holds this value: go on from its `modify_index`" } else { "read it again" };
            let message = format!("`{key}` is not as it was at {cas} any more: {what}");
            let page = json!({ "status": "error", "message": message, "modify_index": index, "same_value": is_same });
            reply(StatusCode::CONFLICT, &page)
        }
        Err(error) => unanswered(&error),
    }
}

/// What a key holds: whatever is JSON as it is written there, other text as text.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    modify_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Nothing,
}

impl<'a> Shown<'a> {
    fn of(key: &'a str, entry: Option<&'a KvEntry>) -> Self {
        let Some(KvEntry { modify_index, value }) = entry else {
            return Self { key, modify_index: 0, value: Some(Value::Nothing), value_base64: None };
        };
        let (value, value_base64) = match std::str::from_utf8(value) {
            Ok(text) => {
                let json = serde_json::from_str::<&RawValue>(text).ok().filter(|json| !is_deep(json.get()));
                (Some(json.map_or(Value::Text(text), Value::Json)), None)
            }
            Err(_) => (None, Some(BASE64_STANDARD.encode(value))),
        };
        Self { key, modify_index: *modify_index, value, value_base64 }
    }
}

/// Whether a reader may refuse it for its levels, and with it what is beside it.
fn is_deep(json: &str) -> bool {
    let (mut levels, mut is_text, mut is_escaped) = (0_usize, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if std::mem::take(&mut is_escaped) => (),
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => levels += 1,
            b']' | b'}' if !is_text => levels -= 1,
            _ => (),
        }
        levels > LEVELS_MAX
    })
}

/// Byte by byte.
fn raw(entry: KvEntry) -> Response<Body> {
    let body = Full::new(Bytes::from(entry.value)).boxed_unsync();
    let mut response = reply::of("application/octet-stream", body);
    let tag = HeaderValue::try_from(format!("\"{}\"", entry.modify_index));
    response.headers_mut().insert(ETAG, tag.expect("a number in quotes"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_what_it_is() {
        let shown = |value: &[u8]| {
            let entry = KvEntry { modify_index: 7, value: value.to_vec() };
            reply::line(&Shown::of("k", Some(&entry)))
        };
        let deep = |levels: usize| format!("{}\"[\"{}", "[".repeat(levels), "]".repeat(levels));
        for (value, expected) in [
            (r#"{"a": [1, null]}"#, None),
            ("42", None),
            ("12345678901234567890123456789.10", None),
            (r#"{"a":1e999,"a":2,"b":-0.0}"#, None),
            (r#""\ud800 \u0041""#, None),
            (&*deep(LEVELS_MAX), None),
            ("a: 1\n", Some(r#""a: 1\n""#)),
            ("", Some(r#""""#)),
            ("nul", Some(r#""nul""#)),
            (&*"[".repeat(10_000), Some(&*format!("\"{}\"", "[".repeat(10_000)))),
            (&*deep(LEVELS_MAX + 1), Some(&*serde_json::to_string(&deep(LEVELS_MAX + 1)).unwrap())),
        ] {
            let expected = expected.unwrap_or(value);
            assert_eq!(shown(value.as_bytes()), format!(r#"{{"key":"k","modify_index":7,"value":{expected}}}"#));
        }
        assert_eq!(shown(b"\xff\x00"), r#"{"key":"k","modify_index":7,"value_base64":"/wA="}"#);
        assert_eq!(shown(b" [\r\n\t1 ] "), r#"{"key":"k","modify_index":7,"value":[   1 ]}"#, "in a line");
        assert_eq!(reply::line(&Shown::of("k", None)), r#"{"key":"k","modify_index":0,"value":null}"#);
    }
}
