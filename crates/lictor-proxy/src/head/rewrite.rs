//! What a request's head becomes on its way (RFC 9110, section 7.6): which of the client's fields pass, and which are
//! lictor's own. The head itself is not changed: each attempt writes it from what the client sent and what is here.

use http::header::{CONNECTION, HOST, TE, VIA};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use lictor_core::trace::{TraceContext, TraceSettings};
use lictor_core::{Failure, Reason};
use lictor_http::WriteHead;
use lictor_http::fields::{Fields, join_cookies, strip_named, takes_trailers};

use crate::admission::target::Target;
use crate::books::record::Record;
use crate::names::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_LICTOR_FROM, X_REQUEST_ID};
use crate::stores::request_id::RequestId;
use crate::world::client::Connection;
use crate::world::view::{UpstreamState, View};

#[cfg(any(feature = "laws", test))]
pub(crate) mod laws;

/// Decided once for a request.
#[derive(Debug)]
pub(crate) struct Rewrite {
    host: Host,
    via: HeaderValue,
    forwarded_host: Option<HeaderValue>,
    forwarded_proto: Option<&'static str>,
    /// In place of the client's.
    forwarded_for: Option<String>,
    from: Option<HeaderValue>,
    request_id: RequestId,
    trace: TraceContext,
    /// Each attempt is the parent of what it causes.
    has_attempt_spans: bool,
    is_inbound: bool,
    /// What the client says of who somebody is goes on.
    is_peer: bool,
    /// Some name may be taken for another.
    has_odd: bool,
    keeps_upgrade: bool,
    takes_trailers: bool,
    /// Each attempt says how much time is left.
    is_timed: bool,
}

/// What `Host` is.
#[derive(Debug)]
enum Host {
    /// `:authority` says it (HTTP/2).
    Authority,
    /// Our application keeps the name that it was called by.
    AsTold(HeaderValue),
    /// A callee is called by its service's name.
    OfEndpoint,
}

impl Rewrite {
    /// Refuses what has been here before. Of the head only what `Connection` names is taken off.
    pub(crate) fn new(
        connection: &Connection,
        target: &Target,
        head: &mut Parts,
        record: &Record,
        keeps_upgrade: bool,
        is_http2: bool,
        is_timed: bool,
    ) -> Result<Self, Failure> {
        let worker = &connection.worker;
        let is_inbound = connection.is_inbound();
        let authority = head.uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
        if let Some(query) = head.uri.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('?')) {
            let path = format!("/{query}"); // `http://users?x` (RFC 9112, section 3.2.1)
            head.uri = path.parse().map_err(|_| Failure::new(Reason::BadRequest, "the URL has no valid path"))?;
        }
        let headers = &mut head.headers;
        let fields = record.fields;
        if fields.has(Fields::CONNECTION) {
            strip_named(headers, names::is_lictors);
        }
        if head.version == Version::HTTP_2 && !is_http2 {
            join_cookies(headers);
        }
        if fields.has(Fields::VIA) && names::is_loop(headers, &worker.hop) {
            let sentence = "the request has been here before (Via names this sidecar)";
            return Err(Failure::new(Reason::LoopDetected, sentence));
        }
        let told = authority.or_else(|| headers.get(HOST).cloned());
        let host = match &told {
            _ if is_http2 => Host::Authority,
            Some(told) if is_inbound => Host::AsTold(told.clone()),
            _ => Host::OfEndpoint,
        };
        let peer = connection.peer.map(|peer| peer.ip()).filter(|peer| !peer.is_loopback());
        let scheme = if connection.is_encrypted { "https" } else { "http" };
        Ok(Self {
            host,
            via: worker.hop.clone(),
            forwarded_host: told
                .filter(|_| !fields.has(names::FORWARDED_BY) || !headers.contains_key(X_FORWARDED_HOST)),
            forwarded_proto: (!fields.has(names::FORWARDED_BY) || !headers.contains_key(X_FORWARDED_PROTO))
                .then_some(scheme),
            forwarded_for: peer.map(|peer| names::forwarded_for(headers, peer)),
            from: if is_inbound { None } else { worker.from.clone() },
            request_id: record.request_id.clone(),
            trace: record.trace,
            has_attempt_spans: record.has_attempt_spans(),
            is_inbound,
            is_peer: target.is_peer,
            has_odd: fields.has(names::ODD),
            keeps_upgrade,
            takes_trailers: fields.has(Fields::TE) && takes_trailers(headers),
            is_timed,
        })
    }

    /// Writes the client's fields that go on, and those of lictor, for the attempt with this number.
    pub(crate) fn write(
        &self,
        headers: &HeaderMap,
        upstream: &UpstreamState,
        of_endpoint: &HeaderValue,
        view: &View,
        number: usize,
        to: &mut impl WriteHead,
    ) {
        let host = match &self.host {
            Host::Authority => None,
            Host::AsTold(host) => Some(host),
            Host::OfEndpoint => Some(of_endpoint),
        };
        if let Some(host) = host {
            to.own(&HOST, host.as_bytes());
        }
        self.write_fields(headers, &upstream.upstream.set_headers, &view.mesh.trace, number, to);
    }

    fn write_fields(
        &self,
        headers: &HeaderMap,
        set_headers: &[(HeaderName, HeaderValue)],
        settings: &TraceSettings,
        number: usize,
        to: &mut impl WriteHead,
    ) {
        for (name, value) in headers {
            let is_set = || set_headers.iter().any(|(set, _)| set == name);
            if self.passes(name, settings) && !is_set() && !self.is_shadow(name, set_headers) {
                to.pass(name, value);
            }
        }
        to.own(&VIA, self.via.as_bytes());
        if let Some(host) = &self.forwarded_host {
            to.own(&X_FORWARDED_HOST, host.as_bytes());
        }
        if let Some(proto) = self.forwarded_proto {
            to.own(&X_FORWARDED_PROTO, proto.as_bytes());
        }
        if let Some(chain) = &self.forwarded_for {
            to.own(&X_FORWARDED_FOR, chain.as_bytes());
        }
        if let Some(from) = &self.from {
            to.own(&X_LICTOR_FROM, from.as_bytes());
        }
        to.own(&X_REQUEST_ID, self.request_id.as_bytes());
        let trace = if self.has_attempt_spans { self.trace.attempt(number) } else { self.trace };
        trace.fields(settings, |name, value| to.own(name, value));
        for (name, value) in set_headers {
            to.own(name, value.as_bytes());
        }
        if self.takes_trailers {
            to.own(&TE, b"trailers");
        }
        if self.keeps_upgrade {
            to.own(&CONNECTION, b"upgrade");
        }
    }

    fn passes(&self, name: &HeaderName, settings: &TraceSettings) -> bool {
        match name.as_str() {
            "connection"
            | "host"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "x-lictor-attempt"
            | "x-lictor-debug"
            | "x-lictor-retry"
            | "x-lictor-to"
            | "x-request-id" => false,
            "grpc-timeout" | "x-request-timeout-ms" => !self.is_timed,
            "upgrade" => self.keeps_upgrade,
            "x-forwarded-for" => self.forwarded_for.is_none(),
            "x-service-auth" => !self.is_inbound,
            name if names::is_identity(name) => self.is_peer && (self.is_inbound || name != X_LICTOR_FROM),
            name => !self.trace.replaces(name, settings),
        }
    }

    fn is_shadow(&self, name: &HeaderName, set_headers: &[(HeaderName, HeaderValue)]) -> bool {
        self.has_odd && names::shadows(name, |plain| set_headers.iter().any(|(set, _)| set == plain))
    }
}
