//! `/openapi.json`: the table as an OpenAPI document (<https://spec.openapis.org/oas/v3.1.1>).

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::{Answer, Content, Does, Kind, Operation, Parameter, Path, Who, paths, refusal, schemas};
use crate::version;

/// RFC 9110, section 5.6.2.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";

/// Humantime's.
const UNITS: &str = "nanos|nsec|ns|usec|us|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|\
days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y";

static DOCUMENT: LazyLock<Json> = LazyLock::new(make);

const ABOUT: &str = "Pages of the live state, orders, and building blocks. Programs of the sidecar's machine (of its pod) may use \
all of it, building blocks with `building_blocks.token`; others have health and metrics, and the rest with `admin.token`. Requests of \
browsers (`Origin`, `Sec-Fetch-Site`) are refused. What GET answers, HEAD does too, but for building blocks. A method that \
there is not is 405, with `Allow`. An answer of a later version may have further members.";

/// The same for as long as the process lives.
pub(in crate::admin) fn document() -> &'static Json {
    &DOCUMENT
}

fn make() -> Json {
    let mut items = Map::new();
    for path in paths() {
        items.insert(path.template.to_owned(), item(path));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lictor's admin listener",
            "version": version::NUMBER,
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The admin listener: http://127.0.0.1:9901, if nobody says otherwise." }],
        "tags": [
            { "name": "pages", "description": "What there is to look at." },
            { "name": "orders", "description": "What an operator can have done." },
            { "name": "blocks", "description": "What an application asks of Consul through the sidecar, where `building_blocks` says so." },
        ],
        "paths": items,
        "components": {
            "schemas": schemas::schemas(),
            "securitySchemes": {
                "admin": { "type": "http", "scheme": "bearer", "description": "`admin.token`; programs of the sidecar's machine need none." },
                "application": { "type": "http", "scheme": "bearer", "description": "`building_blocks.token`, which `lictor run` gives the application as `LICTOR_TOKEN`." },
            },
        },
    })
}

fn item(path: &Path) -> Json {
    let mut item = Map::new();
    for operation in path.operations {
        item.insert(operation.method.to_ascii_lowercase(), self::operation(path, operation));
    }
    Json::Object(item)
}

fn operation(path: &Path, operation: &Operation) -> Json {
    let tag = match operation.does {
        Does::Page(_) => "pages",
        Does::Command(_) => "orders",
        Does::Block(_) => "blocks",
    };
    let mut page = json!({
        "operationId": operation.id,
        "tags": [tag],
        "summary": operation.summary,
        "responses": responses(path.who, operation),
        "security": match path.who {
            Who::Prober | Who::Anyone => json!([]),
            Who::Operator => json!([{}, { "admin": [] }]),
            Who::Application => json!([{ "application": [] }]),
        },
    });
    if !operation.told.is_empty() {
        page["description"] = json!(operation.told);
    }
    let parameters: Vec<Json> = named(path).into_iter().chain(operation.query.iter().map(parameter)).collect();
    if !parameters.is_empty() {
        page["parameters"] = json!(parameters);
    }
    if let Some(body) = &operation.body {
        let schema = body.schema.map_or_else(|| json!({}), reference);
        page["requestBody"] = json!({
            "description": format!("{} At most {} bytes.", body.told, body.most),
            "required": body.is_required,
            "content": { body.kind: { "schema": schema } },
        });
    }
    page
}

/// What stands for `{..}`.
fn named(path: &Path) -> Option<Json> {
    let (_, rest) = path.template.split_once('{')?;
    let (name, _) = rest.split_once('}')?;
    let known = path.name?;
    let schema = match known.part {
        Some(part) => json!({ "type": "string", "pattern": format!("^{part}(/{part})*$") }),
        None => json!({ "type": "string", "minLength": 1 }),
    };
    Some(json!({ "name": name, "in": "path", "required": true, "description": known.told, "schema": schema }))
}

fn parameter(parameter: &Parameter) -> Json {
    let mut schema = schema(parameter.kind);
    match parameter.kind {
        Kind::Text if parameter.is_required => {
            schema["minLength"] = json!(1);
        }
        Kind::Flag if parameter.is_required => {
            schema = json!({ "type": "boolean", "const": true });
        }
        _ => (),
    }
    if let Some(default) = parameter.default {
        schema["default"] = match parameter.kind {
            Kind::Whole(_) => default.parse::<u64>().map_or_else(|_| json!(default), |number| json!(number)),
            _ => json!(default),
        };
    }
    let told = match parameter.kind {
        Kind::Duration { least, most } => {
            let [least, most] = [least, most].map(|bound: Duration| humantime::format_duration(bound).to_string());
            format!("{} {least} to {most}.", parameter.told)
        }
        _ => parameter.told.to_owned(),
    };
    let mut page = json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": told,
        "schema": schema,
    });
    if matches!(parameter.kind, Kind::Flag) {
        page["allowEmptyValue"] = json!(true);
    }
    page
}

fn schema(kind: Kind) -> Json {
    let list = |of: Json| json!({ "type": "array", "items": of });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => list(json!({ "type": "string" })),
        Kind::Flag => json!({ "type": "boolean", "default": false }),
        Kind::Words(words) => json!({ "type": "string", "enum": words }),
        Kind::Whole(most) => json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": most }),
        Kind::Status => json!({ "type": "string", "pattern": "^[1-9]([0-9][0-9]|xx)$", "examples": ["503", "5xx"] }),
        // As humantime reads it: numbers with a unit, one after the other.
        Kind::Duration { .. } => {
            json!({ "type": "string", "pattern": format!("^(0|( *[0-9]+ *({UNITS}) *)+)$"), "examples": ["30s"] })
        }
        Kind::Since => {
            json!({ "type": "string", "pattern": format!("^([0-9]{{1,18}}(-[0-9]{{1,18}})?|( *[0-9]+ *({UNITS}) *)+)$"), "examples": ["17", "10m"] })
        }
        Kind::Method => json!({ "type": "string", "pattern": format!("^{TOKEN}$") }),
        Kind::Path => json!({ "type": "string", "pattern": "^/" }),
        Kind::Url => {
            json!({ "type": "string", "pattern": "^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,4})?(/[A-Za-z0-9/._~%-]*)?$" })
        }
        Kind::Fields => list(
            json!({ "type": "string", "pattern": format!("^{TOKEN}:[^\\u0000-\\u0008\\u000A-\\u001F\\u007F]*$"), "examples": ["X-Tenant: acme"] }),
        ),
        Kind::Level => schemas::level(),
    }
}

/// Its own, and those that all of its kind have.
fn responses(who: Who, operation: &Operation) -> Json {
    const FOREIGN: Answer =
        refusal(403, "A browser asks, or by a name that is none of this machine, or from another machine.");
    const NO_PARAMETER: Answer =
        refusal(400, "There is no such parameter, or its value is no good; the message says how.");
    const NO_TOKEN: Answer = refusal(401, "No token, or another one.");
    const BUSY: Answer = refusal(503, "Too many connections to this listener, or from this address.");
    const CONSUL: Answer = refusal(503, "Consul does not answer, or there are enough of these already.");
    const OFF: Answer = refusal(404, "No building block is on.");
    const CLOSED: Answer =
        refusal(403, "This block is off; or who asks is another machine or a browser; or Consul's ACLs refuse it.");
    let general: &[Answer] = match who {
        Who::Prober => &[FOREIGN],
        Who::Anyone => &[FOREIGN, BUSY],
        Who::Operator => &[FOREIGN, NO_PARAMETER, NO_TOKEN, BUSY],
        Who::Application => &[CLOSED, NO_PARAMETER, NO_TOKEN, OFF, CONSUL],
    };
    let mut page = Map::new();
    for answer in operation.answers {
        add(&mut page, answer);
    }
    let own: Vec<u16> = operation.answers.iter().map(|answer| answer.status).collect();
    for answer in general.iter().filter(|answer| !own.contains(&answer.status)) {
        add(&mut page, answer);
    }
    Json::Object(page)
}

fn add(page: &mut Map<String, Json>, answer: &Answer) {
    let entry = page.entry(answer.status.to_string()).or_insert_with(|| json!({ "description": "", "content": {} }));
    if !answer.told.is_empty() {
        entry["description"] = json!(answer.told);
    }
    let (kind, content) = match answer.content {
        Content::Json(name) => ("application/json", json!({ "schema": reference(name) })),
        Content::Text(kind) => (kind, json!({ "schema": { "type": "string" } })),
        Content::Bytes => ("application/octet-stream", json!({ "schema": {} })),
        // OpenAPI 3.1 has no word for what an event's `data` is.
        Content::Events(kinds) => {
            let kinds: Map<String, Json> =
                kinds.iter().map(|(kind, name)| ((*kind).to_owned(), reference(name))).collect();
            ("text/event-stream", json!({ "schema": { "type": "string" }, "x-events": kinds }))
        }
    };
    entry["content"][kind] = content;
    let headers = match (answer.status, answer.content) {
        (401, _) => json!({ "WWW-Authenticate": header("`Bearer`.") }),
        (200, Content::Bytes) => json!({ "ETag": header("With the bytes alone: the index, in quotes.") }),
        _ => return,
    };
    entry["headers"] = headers;
}

fn header(told: &str) -> Json {
    json!({ "description": told, "schema": { "type": "string" } })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All names that something refers to.
    fn referred(page: &Json, found: &mut BTreeSet<String>) {
        match page {
            Json::Object(members) => {
                let name = members.get("$ref").and_then(|name| name.as_str()?.strip_prefix("#/components/schemas/"));
                found.extend(name.map(str::to_owned));
                members.values().for_each(|member| referred(member, found));
            }
            Json::Array(items) => items.iter().for_each(|item| referred(item, found)),
            _ => (),
        }
    }

    #[test]
    fn each_schema_is_there_and_is_referred_to() {
        let mut found = BTreeSet::new();
        referred(document(), &mut found);
        let there: BTreeSet<String> = schemas::schemas().keys().cloned().collect();
        assert_eq!(found, there);
    }

    #[test]
    fn each_operation_of_the_table_is_in_it_with_a_name_of_its_own_and_words() {
        let document = document();
        let mut ids = BTreeSet::new();
        for path in paths() {
            let item = document["paths"][path.template].as_object().unwrap();
            assert_eq!(item.len(), path.operations.len(), "{}", path.template);
            for operation in path.operations {
                let page = &item[&operation.method.to_ascii_lowercase()];
                assert!(!operation.id.is_empty() && ids.insert(operation.id), "{} {}", operation.method, path.template);
                assert!(operation.summary.ends_with(['.', '?']), "{}", operation.id);
                assert_eq!(page["operationId"], operation.id);
                let texts =
                    page["responses"].as_object().unwrap().values().map(|answer| answer["description"].as_str());
                assert!(texts.into_iter().all(|text| text.is_some_and(|text| !text.is_empty())), "{}", operation.id);
                let is_named = path.template.contains('{');
                assert_eq!(is_named, path.name.is_some(), "{}", path.template);
            }
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), paths().count(), "no path is there twice");
    }

    #[test]
    fn who_may_ask_is_told() {
        let security = |path: &str, method: &str| document()["paths"][path][method]["security"].clone();
        assert_eq!(security("/live", "get"), json!([]));
        assert_eq!(security("/quit", "post"), json!([{}, { "admin": [] }]));
        assert_eq!(security("/v1/services", "get"), json!([{ "application": [] }]));
    }
}
