//! What is asked of requests and done to answers: keys of `gateway`, and of each route, whose own replace the gateway's.

use lictor_core::gateway::headers::Side;
use lictor_core::gateway::{PathPattern, Rules};
use serde_json::json;

use super::super::limit;
use super::compress::compress;
use super::cors::cors;
use super::errors::errors;
use super::headers::operations;
use super::maintenance::maintenance;
use super::security::security;
use crate::tree::{Node, Section};
use crate::values;

/// What `section` says; what it does not say is `base`'s. `pattern` is a route's path.
pub(super) fn rules(section: &Section<'_>, pattern: Option<&PathPattern>, base: &Rules) -> Rules {
    let head_max = section.field("head_max", "The longest head of a request, its target and fields; above it is 431.");
    let limit = section.field(
        "limit",
        "How often somebody may ask: `100/60s`, a map, or a list of them; `off`: as often as he likes.",
    );
    let body_max = section.field("body_max", "The longest body of a request; above it is 413. `none`: any.");
    let cors_node = section.field("cors", "Whose pages may read the answers; `off`: nothing is said of it.");
    let errors_node =
        section.field("errors", "What failures of the gateway's own look like; `off`: as lictor says them.");
    let compress_node = section.field("compress", "Answers are compressed for clients that take it; `off`: never.");
    let maintenance_node = section.field(
        "maintenance",
        "Requests are answered 503, but for those of `allow`: `true`, or a map. `lictor maintenance on` says it, too.",
    );
    let grpc_web = section.field("grpc_web", "gRPC-Web of browsers is translated to gRPC and back.");
    let asked = section.field("request_headers", "What becomes of the fields of requests; `off`: nothing.");
    let answered =
        section.field("response_headers", "What becomes of the fields of answers, whoever made them; `off`: nothing.");
    let security_node =
        section.field("security_headers", "Fields that make browsers careful: `true`, or a map; `off`: none.");
    Rules {
        auth: base.auth.clone(),
        limits: limit::limits(&limit, &base.limits, limit::GATEWAY),
        head_max: head_max.size(base.head_max),
        body_max: size_or_none(&body_max, base.body_max),
        cors: cors(&cors_node, base.cors.as_ref()),
        maintenance: maintenance(&maintenance_node, pattern.is_some(), base.maintenance.as_ref()),
        errors: errors(&errors_node, base.errors.as_ref()),
        request_headers: operations(&asked, Side::Request, pattern, base.request_headers.as_ref()),
        response_headers: operations(&answered, Side::Answer, pattern, base.response_headers.as_ref()),
        security: security(&security_node, base.security.as_ref()),
        compress: compress(&compress_node, base.compress.as_ref()),
        grpc_web: grpc_web.boolean(base.grpc_web),
        transcode: None, // a route's own
    }
}

fn size_or_none(node: &Node<'_>, base: Option<u64>) -> Option<u64> {
    let shown = base.map_or_else(|| "none".to_owned(), |most| values::show_size(most as usize));
    let schema = json!({ "type": ["string", "integer"], "examples": ["10MiB", "none"] });
    let parse = |text: &str| match text {
        "none" | "off" => Ok(None),
        text => values::size(text).map(|most| Some(most as u64)),
    };
    node.parsed(schema, Some(&shown), parse).unwrap_or(base)
}
