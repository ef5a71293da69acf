//! `transcode:` of a route, gRPC as REST and JSON.

use std::sync::Arc;

use http::StatusCode;
use lictor_core::gateway::claim;
use lictor_core::gateway::transcode::{DESCRIPTOR_MAX, Mapped, Terms, Transcode};
use serde_json::json;

use crate::tree::{Node, Section};

/// Longer messages are for those who speak gRPC.
const MESSAGE_MAX: usize = 16 << 20;

/// What its descriptor set says of its paths.
pub(super) fn of_route(node: &Node<'_>) -> Option<Arc<Transcode>> {
    let section = node.section(&[]);
    let descriptor = section.field("descriptor", "The descriptor set's file, as `protoc --include_imports --descriptor_set_out` writes it: at most 4MiB. It is followed.");
    let services = section.field("services", "Services whose methods' `google.api.http` options are its paths.");
    let map = section.field("map", "Paths of methods: `GET /users/{id}: users.Users/GetUser`, or a map with more.");
    let proto_names = section.field(
        "proto_names",
        "Fields of answers are named as in the file (`page_size`), not as JSON's are (`pageSize`).",
    );
    let defaults = section.field("defaults", "Answers have also the fields that are not set.");
    let message = section.field("message_max", "The longest message, and the longest body; at most 16MiB.");
    let terms = Terms {
        services: services.elements().iter().filter_map(|service| service.text(None)).collect(),
        map: map.entries().iter().filter_map(mapped).collect(),
        proto_names: proto_names.boolean(false),
        defaults: defaults.boolean(false),
        message_max: message.size(Terms::MESSAGE_MAX),
    };
    let content = descriptor.content(DESCRIPTOR_MAX);
    if terms.message_max > MESSAGE_MAX {
        message.error("at most 16MiB: a message is held in memory", None);
    }
    section.finish();
    if !node.is_map() {
        return None;
    }
    if !descriptor.is_set() {
        node.error("`transcode` needs a `descriptor`", Some("write `descriptor: /etc/lictor/api.pb`".to_owned()));
    }
    if !services.is_set() && !map.is_set() {
        let help = "write `services: [pkg.Service]`, or `map: {GET /users/{id}: pkg.Users/GetUser}`".to_owned();
        node.error("`transcode` needs `services` or a `map`", Some(help));
        return None;
    }
    match Transcode::new(&content?, terms) {
        Ok(transcode) => Some(Arc::new(transcode)),
        Err(why) => {
            let file = descriptor.scalar().unwrap_or_default();
            descriptor.error(format!("{file} does not do: {why}"), None);
            None
        }
    }
}

/// What a route that translates cannot do.
pub(super) fn check(section: &Section<'_>) {
    for (key, why) in [
        ("cache", "answers of gRPC are not kept"),
        ("mirror", "calls of gRPC are not copied"),
        ("grpc_web", "its paths are those of the descriptor"),
    ] {
        let node = section.field(key, "");
        if node.is_set() && !node.is_off() {
            node.key_error(format!("`{key}` is not for a route with `transcode`: {why}"), None);
        }
    }
}

/// `GET /users/{id}: users.Users/GetUser`, or a map.
fn mapped(node: &Node<'_>) -> Option<Mapped> {
    let section = node.section_or_short("call", &[json!({ "type": "string" })]);
    let call = section.field("call", "The method: `users.Users/GetUser`.").text(None);
    let body = section.field("body", "The field that the body is: `*` is the whole message, `none` is no body. Default: `*` for POST, PUT and PATCH.");
    let response_body = section.field("response_body", "The field that the answer is. Default: the whole message.");
    let status = section.field("status", "What success is: 200 to 299.");
    let parse = |text: &str| {
        let status = text.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
        status.filter(StatusCode::is_success).ok_or_else(|| format!("`{text}` is not a status of success"))
    };
    let has_content = |status: &StatusCode| *status != StatusCode::NO_CONTENT && *status != StatusCode::RESET_CONTENT;
    let read = status
        .parsed(json!({ "type": "integer" }), (!section.is_short()).then_some("200"), parse)
        .unwrap_or(StatusCode::OK);
    if !has_content(&read) {
        status.error("the answer's message is its content, and with this status there is none", None);
    }
    let body = if body.is_off() { body.parsed(json!({}), None, |_| Ok(String::new())) } else { body.text(None) };
    let response_body = response_body.text(None);
    section.finish();
    let name = node.name();
    let Some((method, template)) = name.split_once(' ') else {
        if !node.is_describing() {
            node.key_error(format!("`{name}` is no method and path: write `GET /users/{{id}}`"), None);
        }
        return None;
    };
    let method = claim::method(method).map_err(|why| node.key_error(why, None)).ok()?;
    if call.is_none() && node.is_map() {
        node.error("it needs the method that is called", Some("write `call: pkg.Service/Method`".to_owned()));
    }
    Some(Mapped { method, template: template.trim().to_owned(), call: call?, body, response_body, status: read })
}
