//! `security_headers:`, by which answers tell browsers to be careful with them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use lictor_core::gateway::security::Security;
use serde_json::json;

use crate::tree::Node;

/// A year: what the lists of browsers ask for.
const HSTS: Duration = Duration::from_secs(365 * 86_400);

const REFERRERS: [(&str, Option<&str>); 9] = [
    ("strict-origin-when-cross-origin", Some("strict-origin-when-cross-origin")),
    ("strict-origin", Some("strict-origin")),
    ("same-origin", Some("same-origin")),
    ("origin", Some("origin")),
    ("origin-when-cross-origin", Some("origin-when-cross-origin")),
    ("no-referrer", Some("no-referrer")),
    ("no-referrer-when-downgrade", Some("no-referrer-when-downgrade")),
    ("unsafe-url", Some("unsafe-url")),
    ("off", None),
];

/// What the gateway or a route says; what it does not say is `base`'s.
pub(super) fn security(node: &Node<'_>, base: Option<&Arc<Security>>) -> Option<Arc<Security>> {
    if node.is_off() {
        return None;
    }
    let is_short = matches!(node.scalar(), Some("true" | "on" | "yes"));
    let section =
        if is_short { node.unset() } else { node.off_unless(base.is_some()) }.section(&[json!({ "type": "boolean" })]);
    let hsts_node = section.field("hsts", "Strict-Transport-Security over TLS, for so long; `off`: not.");
    let hsts = hsts_node.limit(Some(HSTS));
    if hsts.is_some_and(|age| age.as_secs() == 0) {
        hsts_node.error("has browsers forget it (RFC 6797, section 6.1.1): `off` says nothing of it", None);
    }
    let subdomains = section.field("hsts_subdomains", "It is about all names under the host too.").boolean(false);
    let is_exact = section.field("nosniff", "X-Content-Type-Options: nosniff.").boolean(true);
    let frames = [("deny", Some(true)), ("sameorigin", Some(false)), ("off", None)];
    let frame = section.field("frame", "Who may put a page into a frame: X-Frame-Options, and frame-ancestors where there is no Content-Security-Policy.");
    let frame = frame.choice(&frames, Some("deny")).flatten();
    let referrer = section.field("referrer", "Referrer-Policy.");
    let referrer = referrer.choice(&REFERRERS, Some("strict-origin-when-cross-origin")).flatten();
    let replaces = section.field("override", "In place of what the upstream says.").boolean(false);
    section.finish();
    if !node.is_set() {
        return base.cloned();
    }
    let end = if subdomains { "; includeSubDomains" } else { "" };
    let hsts = hsts.and_then(|age| HeaderValue::try_from(format!("max-age={}{end}", age.as_secs())).ok());
    let mut fields = Vec::new();
    fields.extend(is_exact.then(Security::nosniff));
    fields.extend(frame.map(Security::frames).into_iter().flatten());
    fields.extend(referrer.map(Security::referrer));
    Some(Arc::new(Security { hsts, fields, replaces }))
}
