//! `fallback:`, what is answered in place of a failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use lictor_core::mesh::Protocol;
use lictor_core::policy::{Fallback, FixedAnswer, Policy};
use serde_json::json;

use crate::config::Config;
use crate::diagnose::suggest;
use crate::tree::{Node, Section};

/// Of an answer in the configuration: each process has it in memory, and pages show it.
const BODY_MAX: usize = 64 << 10;

/// How old an answer may be that is given again, and what else is answered; what is not said is `base`'s.
pub(super) fn fallback(node: &Node<'_>, base: &Policy) -> (Option<Duration>, Option<Arc<Fallback>>) {
    if node.is_off() {
        return (None, None);
    }
    let section = node.section(&[json!({ "const": "none" })]);
    let stale = section.field("stale", "A kept answer, for so long past its life.").limit(base.stale);
    let upstream = section.field("upstream", "The answer of another upstream, asked once.");
    let own_upstream = upstream.text(None).map(Arc::from);
    let earlier = base.fallback.as_deref();
    let answer = answer(&section, earlier.and_then(|base| base.answer.as_ref()));
    section.finish();
    let fallback =
        Fallback { upstream: own_upstream.or_else(|| earlier.and_then(|base| base.upstream.clone())), answer };
    if Some(&fallback) == earlier {
        return (stale, base.fallback.clone());
    }
    (stale, (fallback != Fallback::default()).then(|| Arc::new(fallback)))
}

pub(super) fn answer(section: &Section<'_>, base: Option<&FixedAnswer>) -> Option<FixedAnswer> {
    let body = section.field("body", "This text; at most 64KiB.");
    let status = section.field("status", "Its status: 200 to 599.");
    let kind = section.field("content_type", "What it is.");
    let text = body.parsed(json!({ "type": ["string", "number"] }), None, |text| {
        let is_short = text.len() <= BODY_MAX;
        if is_short { Ok(Bytes::from(text.to_owned())) } else { Err(format!("longer than {BODY_MAX} bytes")) }
    });
    let known = |text: &str| match text.parse::<u16>().ok().filter(|code| (200..=599).contains(code)) {
        Some(code) => StatusCode::from_u16(code).map_err(|error| error.to_string()),
        None => Err(format!("`{text}` is not a status from 200 to 599")),
    };
    let from = base.map_or((StatusCode::OK, HeaderValue::from_static("application/json")), |base| {
        (base.status, base.content_type.clone())
    });
    // Without a body there is nothing that they would be of.
    let is_answer = text.is_some() || base.is_some() || section.node().is_describing();
    let said = status.parsed(json!({ "type": ["integer", "string"] }), is_answer.then_some(from.0.as_str()), known);
    let shown = from.1.to_str().ok().map(str::to_owned);
    let shown = shown.as_deref().filter(|_| is_answer);
    let content_type = kind.parsed(json!({ "type": "string" }), shown, |text| {
        HeaderValue::try_from(text).map_err(|_| format!("`{text}` is not a header value"))
    });
    let Some(body_text) = text.or_else(|| base.map(|base| base.body.clone())) else {
        for lonely in [&status, &kind] {
            if lonely.is_set() && !body.is_set() {
                lonely.error("there is no `body` that it could be about", None);
            }
        }
        return None;
    };
    let status = said.unwrap_or(from.0);
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
        && !body_text.is_empty()
    {
        body.error(
            format!("an answer with status {} has no body", status.as_u16()),
            Some("write `body: ''`".to_owned()),
        );
    }
    Some(FixedAnswer { status, content_type: content_type.unwrap_or(from.1), body: body_text })
}

/// Whether upstreams that stand in are there, and can.
pub(super) fn check(top: &Section<'_>, config: &Config) {
    let upstreams: HashMap<&str, Option<Protocol>> =
        config.upstreams.iter().map(|upstream| (upstream.name.as_str(), upstream.protocol)).collect();
    let names = |node: &Node<'_>, own: Option<&str>| {
        let node = node.below("fallback").below("upstream");
        let Some(name) = node.scalar() else { return };
        match upstreams.get(name) {
            _ if own == Some(name) => node.error("an upstream cannot stand in for itself", None),
            Some(Some(Protocol::Tcp)) => node.error(format!("`{name}` carries bytes, and answers no requests"), None),
            Some(_) => (),
            None => {
                let meant = suggest(name, upstreams.keys().copied()).map(|name| format!("did you mean `{name}`?"));
                node.error(format!("there is no upstream `{name}`"), meant);
            }
        }
    };
    names(&top.field("defaults", ""), None);
    for entry in top.field("upstreams", "").entries() {
        let own = entry.name();
        names(&entry, Some(&own));
        if upstreams.get(own.as_str()) == Some(&Some(Protocol::Grpc)) && entry.below("fallback").below("body").is_set()
        {
            entry.below("fallback").below("body").error("a body is no answer to gRPC", None);
        }
        let routes = entry.below("routes");
        if !routes.is_map() {
            routes.elements().iter().for_each(|route| names(route, Some(&own)));
        }
    }
}
