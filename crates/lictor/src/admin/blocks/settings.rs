//! `/v1/config/KEY`: a key of KV, read, watched, and written by compare-and-set.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use lictor_consul::{KvEntry, Written};
use serde_json::{Value as Json, json};

use super::{Asked, key, unanswered};
use crate::admin::api::VALUE_MAX;
use crate::admin::reply::{self, Body, refuse, reply};
use crate::admin::stream;

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
        return stream::documents(looking, "config", move |known| page(&name, known.as_ref()), asked.goes_on());
    }
    match known {
        None => {
            let message = format!("there is no key `{key}` in Consul");
            reply(StatusCode::NOT_FOUND, &json!({ "status": "error", "message": message, "modify_index": 0 }))
        }
        Some(entry) if asked.query.is_set("raw") => raw(entry),
        Some(entry) => reply(StatusCode::OK, &page(name, Some(&entry))),
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
        return stream::documents(looking, "config", move |known| page_of_all(&prefix, known), asked.goes_on());
    }
    reply(StatusCode::OK, &page_of_all(prefix, &known))
}

fn page_of_all(prefix: &str, known: &[(String, KvEntry)]) -> Json {
    let entries = known.iter().map(|(key, entry)| page(key.strip_prefix(prefix).unwrap_or(key), Some(entry)));
    json!({ "entries": entries.collect::<Vec<_>>() })
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
        Ok(Written::Meanwhile(index)) => {
            let message = format!("`{key}` is not as it was at {cas} any more: read it again");
            reply(StatusCode::CONFLICT, &json!({ "status": "error", "message": message, "modify_index": index }))
        }
        Err(error) => unanswered(&error),
    }
}

/// Whatever is JSON as JSON, other text as text.
fn page(name: &str, entry: Option<&KvEntry>) -> Json {
    let Some(KvEntry { modify_index, value }) = entry else {
        return json!({ "key": name, "modify_index": 0, "value": null });
    };
    let text = std::str::from_utf8(value);
    match text.map(|text| (text, serde_json::from_str::<Json>(text))) {
        Ok((_, Ok(value))) => json!({ "key": name, "modify_index": modify_index, "value": value }),
        Ok((text, Err(_))) => json!({ "key": name, "modify_index": modify_index, "value": text }),
        Err(_) => json!({ "key": name, "modify_index": modify_index, "value_base64": BASE64_STANDARD.encode(value) }),
    }
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
        let shown = |value: &[u8]| page("k", Some(&KvEntry { modify_index: 7, value: value.to_vec() }));
        for (value, key, expected) in [
            (&b"{\"a\": [1, null]}"[..], "value", json!({ "a": [1, null] })),
            (b"42", "value", json!(42)),
            (b"a: 1\n", "value", json!("a: 1\n")),
            (b"", "value", json!("")),
            (b"\xff\x00", "value_base64", json!("/wA=")),
        ] {
            let page = shown(value);
            assert_eq!((&page[key], &page["modify_index"]), (&expected, &json!(7)), "{page}");
        }
        assert_eq!(page("k", None), json!({ "key": "k", "modify_index": 0, "value": null }));
        let deep = "[".repeat(10_000);
        assert_eq!(shown(deep.as_bytes())["value"], deep);
    }
}
