//! `upstreams:`, whom we call.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use lictor_core::Secret;
use lictor_core::bearer::Bearer;
use lictor_core::gateway::headers::FRAMING;
use lictor_core::mesh::Protocol;
use lictor_core::policy::Policy;
use lictor_core::route::Routes;
use serde_json::json;

use super::listen::{client_tls, listener, protocol_of};
use super::policy;
use super::service::is_service_name;
use super::source::{bootstrap, failover, source};
use crate::bounds::{CALLED_MAX, too_many_called};
use crate::config::{Query, Source, Upstream};
use crate::ours::Ours;
use crate::tree::Node;

/// What our calls show of us.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    /// In `X-Service-Auth`: the first.
    pub(super) tokens: &'a [Secret],
    /// In `Authorization`.
    pub(super) bearer: Option<&'a Arc<Bearer>>,
}

/// All that are within the bound, each with its routes.
pub(super) fn upstreams(node: &Node<'_>, defaults: &Policy, shown: &Shown<'_>, ours: &Ours<'_>) -> Vec<Upstream> {
    let mut room = CALLED_MAX;
    let mut upstreams = Vec::new();
    let entries = node.entries();
    if let Some(entry) = entries.get(room) {
        entry.key_error(too_many_called(), None);
        return upstreams;
    }
    for entry in entries {
        let Some(rest) = room.checked_sub(1) else {
            entry.key_error(too_many_called(), None);
            break;
        };
        // Whoever writes the KV key chooses whom an upstream of his leads to: this machine's token is not his to send.
        let shown = if ours.has(&entry.name()) { *shown } else { Shown { tokens: &[], bearer: None } };
        let upstream = upstream(&entry, rest, defaults, &shown);
        room = rest.saturating_sub(upstream.routes.iter().count());
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(node: &Node<'_>, most_routes: usize, defaults: &Policy, shown: &Shown<'_>) -> Upstream {
    let name = node.name();
    if name != "*" && !is_service_name(&name) {
        node.key_error(format!("`{name}` is not a service name: letters, digits, `-`, `_` and `.`"), None);
    }
    // `user-service: 3001` is the listener alone.
    let section = node.section_or_short("listen", &[json!({ "type": "integer" })]);
    let listen = listener(&section.field("listen", "Its listener: port, address, unix:/path, or a map with more."));
    let source = source(&section, &name);
    let bootstrap = bootstrap(&section, &source);
    let failover = failover(&section, &source);
    let prefers_zone = section.field("prefer_zone", "Instances of our own `zone` first, as far as they can carry it.");
    let prefers_zone = prefers_zone.boolean(true);
    let protocol = section.field("protocol", "What its instances speak; default: their Meta `protocol`, else http1.");
    let protocol = protocol_of(&protocol, None);
    let tls = client_tls(&section.field("tls", "TLS towards its instances: true, or a map."));
    let is_required = section.field("required", "Counts in /ready.").boolean(false);
    let policy = policy::policy(&section, defaults);
    let routes = policy::routes(
        &section.field("routes", "Routes with a policy of their own; the first match wins."),
        most_routes,
        &policy,
    );
    let mut set_headers = headers(&section.field("headers", "Headers of every request to it."));
    let auth = section.field("auth", "What is shown to it instead of `auth.outbound`: `off`, or a map.");
    let bearer = auth_of(&auth, shown.bearer);
    for (name, value) in token_header(shown.tokens) {
        if !set_headers.iter().any(|(known, _)| *known == name) {
            set_headers.push((name, value));
        }
    }
    if protocol == Some(Protocol::Tcp) {
        for http in ["routes", "headers", "hedge", "cache", "fallback", "auth", "deadline", "per_try_timeout"] {
            let node = section.field(http, "");
            if node.is_set() {
                node.key_error(format!("`{http}` is about HTTP, but `protocol: tcp` carries bytes"), None);
            }
        }
    }
    if protocol == Some(Protocol::Grpc) {
        let routes = section.field("routes", "").elements();
        for route in routes.iter().filter(|route| route.is_map()) {
            policy::nothing_kept(&route.section(&[]), "and gRPC asks by POST");
        }
        policy::nothing_kept(&section, "and gRPC asks by POST");
    }
    section.finish();
    Upstream {
        name,
        listen,
        source,
        bootstrap,
        failover,
        prefers_zone,
        protocol,
        tls,
        is_required,
        policy,
        routes,
        set_headers,
        bearer,
    }
}

/// One that only the gateway names: as if nothing were said of it.
pub(super) fn implied(name: &str, defaults: &Policy, shown: &Shown<'_>) -> Upstream {
    Upstream {
        name: name.to_owned(),
        listen: None,
        source: Source::Consul(Query { service: name.to_owned(), ..Query::default() }),
        bootstrap: Vec::new(),
        failover: Vec::new(),
        prefers_zone: true,
        protocol: None,
        tls: None,
        is_required: false,
        policy: defaults.clone(),
        routes: Routes::default(),
        set_headers: token_header(shown.tokens),
        bearer: shown.bearer.cloned(),
    }
}

/// A token, or `file:` and where it is.
pub(super) fn bearer(node: &Node<'_>) -> Option<Arc<Bearer>> {
    let token = node.secret()?;
    let file = node.scalar().and_then(|text| text.strip_prefix("file:")).map(PathBuf::from);
    let bearer = Bearer::new(&token, file).map(Arc::new);
    if bearer.is_none() {
        node.error("not a token: it is empty, or has spaces or signs that are not ASCII", None);
    }
    bearer
}

fn auth_of(node: &Node<'_>, default: Option<&Arc<Bearer>>) -> Option<Arc<Bearer>> {
    if node.is_off() {
        return None;
    }
    let section = node.section(&[json!({ "const": "off" })]);
    let own = bearer(&section.field("bearer", "A token of its own."));
    section.finish();
    own.or_else(|| default.cloned())
}

fn token_header(tokens: &[Secret]) -> Vec<(HeaderName, HeaderValue)> {
    let value = tokens.first().and_then(|token| HeaderValue::try_from(token.reveal()).ok());
    value
        .map(|mut value| {
            value.set_sensitive(true);
            (HeaderName::from_static("x-service-auth"), value)
        })
        .into_iter()
        .collect()
}

/// Fields by which lictors know each other and where a request has been.
const OURS: [&str; 4] = ["via", "x-lictor-attempt", "x-lictor-from", "x-lictor-to"];

fn headers(node: &Node<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let section = node.section(&[]);
    let set = section.field("set", "Set, in place of what the application sent and of what lictor would say.");
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in set.entries() {
        let Some(value) = entry.secret() else { continue };
        let Ok(mut value) = HeaderValue::try_from(value.reveal()) else {
            entry.error("not a header value: no line breaks or control characters", None);
            continue;
        };
        value.set_sensitive(true);
        let Ok(name) = HeaderName::try_from(entry.name().as_str()) else {
            if entry.name() != "*" {
                entry.key_error(format!("`{}` is not a header name", entry.name()), None);
            }
            continue;
        };
        if FRAMING.contains(&name.as_str()) {
            entry.key_error(format!("`{name}` says how a message is framed or carried: lictor alone writes it"), None);
        } else if OURS.contains(&name.as_str()) {
            entry.key_error(format!("`{name}` is how sidecars know each other: lictor alone writes it"), None);
        } else if headers.iter().any(|(known, _)| *known == name) {
            entry.key_error(format!("`{name}` is set twice: names of fields do not differ by case"), None);
        } else if name == HOST && !is_authority(&value) {
            entry.error("not a host, or a host and a port", None);
        } else {
            headers.push((name, value));
        }
    }
    section.finish();
    headers
}

fn is_authority(value: &HeaderValue) -> bool {
    let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    authority.is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@') && is_port_or_none(&it))
}

fn is_port_or_none(authority: &Authority) -> bool {
    authority.port_u16().is_some() || authority.as_str().len() == authority.host().len()
}
