//! An OpenAPI document as a source (2.0, 3.0 and 3.1): each path is a route with its methods, and leads to the service that
//! the document describes.

use serde_json::Value as Json;

use super::edge::{Edge, Planned, name, with_port};
use super::scalar;

/// Of a path's members, those that are operations (OpenAPI 3.1, 4.8.9).
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Variables may name one another.
const URL_MAX: usize = 4096;

pub(super) fn is_one(document: &Json) -> bool {
    document["openapi"].is_string() || document["swagger"].is_string() || document["swagger"].is_number()
}

pub(super) fn plan(file: &str, document: &Json) -> Edge {
    let title = document["info"]["title"].as_str().unwrap_or("service");
    let mut edge = Edge { source: file.to_owned(), ..Edge::default() };
    let (base, instance) = server(document, &mut edge);
    let to = name(title);
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        if path.starts_with("x-") {
            continue;
        }
        let asked: Vec<&str> = METHODS.into_iter().filter(|method| operations[method].is_object()).collect();
        let ids: Vec<&str> = asked.iter().filter_map(|method| operations[method]["operationId"].as_str()).collect();
        let found = if ids.is_empty() { path.clone() } else { ids.join(", ") };
        if operations["$ref"].is_string() {
            edge.left.push(format!("{path}: it is written elsewhere ($ref)"));
        }
        if asked.is_empty() {
            continue;
        }
        for method in &asked {
            let operation = &operations[method];
            if is_guarded(&operation["security"], &document["security"]) {
                edge.left.push(format!("{} {path}: `security`", method.to_uppercase()));
            }
        }
        edge.route(Planned {
            path: format!("{base}{}", renamed(path)),
            methods: asked.iter().map(|method| method.to_uppercase()).collect(),
            does: vec![("to", scalar(&to))],
            found,
            ..Planned::default()
        });
    }
    if document["webhooks"].is_object() {
        edge.left.push("`webhooks`: they are calls to clients".to_owned());
    }
    edge.upstreams.insert(to, instance.into_iter().collect());
    edge
}

/// An operation's own counts before the document's; an empty list, or one with an empty member, asks for nothing.
fn is_guarded(own: &Json, all: &Json) -> bool {
    let list = own.as_array().or(all.as_array());
    list.is_some_and(|list| {
        !list.is_empty() && list.iter().all(|one| one.as_object().is_none_or(|one| !one.is_empty()))
    })
}

/// The path before all paths, and where the service is.
fn server(document: &Json, edge: &mut Edge) -> (String, Option<String>) {
    if document["swagger"].is_null() {
        let servers = document["servers"].as_array().map_or(&[][..], Vec::as_slice);
        if servers.len() > 1 {
            edge.left.push(format!("`servers`: {} of {} (the first is taken)", servers.len() - 1, servers.len()));
        }
        let Some(server) = servers.first() else { return (String::new(), None) };
        let mut url = server["url"].as_str().unwrap_or("/").to_owned();
        for (variable, says) in server["variables"].as_object().into_iter().flatten() {
            url = url.replace(&format!("{{{variable}}}"), says["default"].as_str().unwrap_or_default());
            if url.len() > URL_MAX {
                edge.left.push("`servers`: the variables make it too long".to_owned());
                return (String::new(), None);
            }
        }
        let (scheme, rest) = url.split_once("://").map_or(("", url.as_str()), |(scheme, rest)| (scheme, rest));
        let (host, path) = match scheme {
            "" => ("", rest),
            _ => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        };
        return (path.trim_end_matches('/').to_owned(), instance(scheme, host));
    }
    let scheme = document["schemes"][0].as_str().unwrap_or("http");
    let base = document["basePath"].as_str().unwrap_or("").trim_end_matches('/').to_owned();
    (base, instance(scheme, document["host"].as_str().unwrap_or_default()))
}

fn instance(scheme: &str, host: &str) -> Option<String> {
    // Where TLS is spoken is the public address: what this gateway becomes.
    if host.is_empty() || scheme != "http" { None } else { Some(with_port(host)) }
}

/// Parameters by the names that they may have here: `{user-id}` is `{user_id}`.
fn renamed(path: &str) -> String {
    let mut is_inside = false;
    let rename = |c: char| {
        is_inside = c == '{' || (is_inside && c != '}');
        if is_inside && !c.is_ascii_alphanumeric() && c != '{' { '_' } else { c }
    };
    path.chars().map(rename).collect()
}
