//! `split:` and `split_by:` of a route, where the parts of its requests go.

use std::time::Duration;

use http::HeaderName;
use lictor_core::gateway::split::{Cookie, Split, Variant};
use lictor_jose::rules::Claim;
use serde_json::json;

use super::leads::{Leads, To};
use crate::tree::{Node, Section};

/// Each is an upstream of its own.
const VARIANTS_MAX: usize = 16;
/// Browsers keep none longer (RFC 6265bis, section 5.5).
const COOKIE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// The variants, and where the upstream of each is, in their order.
pub(super) fn split(section: &Section<'_>, leads: &mut Leads<'_>) -> Option<(Split, Vec<usize>)> {
    let node = section.field(
        "split",
        "Instead of `to`: upstreams and their weights. `orders@v2` is those instances whose Meta `version` is that, and `orders` beside it the others.",
    );
    let by = section.field("split_by", "What chooses before the weights do.").section(&[]);
    let header = by.field("header", "A variant's name in this field: `orders@v2`, or `v2`.");
    let header = header.parsed(json!({ "type": "string" }), None, |text| {
        HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a header name"))
    });
    let claim = by.field("claim", "A variant's name in this claim of the client's token, where no field has one.");
    let claim = claim.parsed(json!({ "type": "string" }), None, |text| {
        Claim::parse(text).ok_or_else(|| format!("`{text}` is no claim"))
    });
    let cookie = cookie(&by.field("cookie", "Clients stay with their variant by a cookie of this name, or a map."));
    let by_node = by.node().clone();
    by.finish();
    if by_node.is_set() && !node.is_set() {
        by_node.key_error("there is no `split` that it could be about", None);
    }
    let entries = node.entries();
    if let Some(entry) = entries.get(VARIANTS_MAX) {
        entry.key_error(format!("at most {VARIANTS_MAX} variants"), None);
        return None;
    }
    let written: Vec<(&Node<'_>, f64)> = entries.iter().map(|entry| (entry, entry.number(0.0, 0.0))).collect();
    if !node.is_set() || node.is_describing() {
        return None;
    }
    let mut parsed: Vec<(&Node<'_>, To, f64)> = Vec::new();
    for (entry, weight) in written {
        match To::parse(&entry.name()) {
            Ok(to) => parsed.push((entry, to, weight)),
            Err(why) => entry.key_error(why, None),
        }
    }
    if !parsed.iter().any(|(_, _, weight)| *weight > 0.0) {
        node.error("some variant needs a weight that is not 0", None);
        return None;
    }
    let beside: Vec<To> = parsed.iter().map(|(_, to, _)| to.clone()).collect();
    let to = section.field("to", "");
    if to.is_set() && !to.scalar().is_some_and(|to| entries.iter().any(|entry| entry.name() == to)) {
        to.error("it is none of the variants of `split`", Some("leave `to` out".to_owned()));
    }
    let mut variants = Vec::new();
    let mut upstreams = Vec::new();
    for (entry, to, weight) in &parsed {
        upstreams.push(leads.find(entry, &others(to, &beside))?);
        variants.push(Variant::new(&entry.name(), *weight));
    }
    Some((Split { variants: variants.into(), header, claim, cookie }, upstreams))
}

/// A service beside versions of itself is its other instances: a weight is what a variant gets in all.
fn others(to: &To, beside: &[To]) -> To {
    let To::Service(service) = to else { return to.clone() };
    let of_it = |other: &To| match other {
        To::Version(of, version) if of == service => Some(version.clone()),
        _ => None,
    };
    match beside.iter().filter_map(of_it).collect::<Vec<_>>() {
        versions if versions.is_empty() => to.clone(),
        versions => To::Rest(service.clone(), versions),
    }
}

/// `canary`, or `{name: canary, max_age: 30d}`.
fn cookie(node: &Node<'_>) -> Option<Cookie> {
    let section = node.section_or_short("name", &[json!({ "type": "string" })]);
    let name = section.field("name", "Its name; with `__Host-` before it no other host can set it.");
    let max_age = section.field("max_age", "How long clients keep it; `none`: until the browser is closed.");
    let kept = max_age.limit(None);
    if kept.is_some_and(|kept| kept > COOKIE_MAX || kept < Duration::from_secs(1)) {
        max_age.error("from 1s to 400d: browsers keep no cookie longer (RFC 6265bis, section 5.5)", None);
    }
    let parsed = name.parsed(json!({ "type": "string" }), None, |text| {
        // A cookie's name and a field's have the same signs (RFC 6265, section 4.1.1).
        let is_name = text.len() <= 128 && HeaderName::try_from(text).is_ok();
        if is_name { Ok(text.into()) } else { Err(format!("`{text}` is not a cookie's name")) }
    });
    section.finish();
    if node.is_map() && !name.is_set() {
        node.error("a cookie needs a `name`", None);
    }
    Some(Cookie { name: parsed?, max_age: kept })
}
