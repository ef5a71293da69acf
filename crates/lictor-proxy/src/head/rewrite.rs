//! What a request's head becomes on its way (RFC 9110, section 7.6): which of the client's fields pass, and which are
//! lictor's own. The head itself is not changed: each attempt writes it from what the client sent and what is here.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, TE, VIA};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use lictor_core::trace::{TraceContext, TraceSettings};
use lictor_core::{Failure, Reason};
use lictor_http::WriteHead;
use lictor_http::fields::{Fields, expects_continue, join_cookies, takes_trailers};

use crate::admission::target::Target;
use crate::books::record::Record;
use crate::names::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_LICTOR_FROM, X_REQUEST_ID};
use crate::stores::request_id::RequestId;
use crate::world::client::Connection;

#[cfg(any(feature = "laws", test))]
pub(crate) mod laws;

/// What is known of how a request goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sends {
    /// Endpoints are spoken to in HTTP/2.
    pub(crate) is_http2: bool,
    /// It has a body, or may have one.
    pub(crate) has_content: bool,
    /// As an upgrade.
    pub(crate) keeps_upgrade: bool,
}

/// Decided once for a request.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// Whom the request is to, where that is not as its endpoint's service is called.
    host: Option<HeaderValue>,
    /// `:authority` says it.
    is_http2: bool,
    via: HeaderValue,
    forwarded_host: Option<HeaderValue>,
    forwarded_proto: Option<&'static str>,
    /// In place of the client's.
    forwarded_for: Option<Vec<u8>>,
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
    /// The client's `Expect` goes on: HTTP/1.0 has no 100, and nobody waits for one before no content (RFC 9110, section
    /// 10.1.1).
    expects: bool,
}

impl Rewrite {
    /// Refuses what has been here before.
    pub(crate) fn new(
        connection: &Connection,
        target: &Target,
        head: &mut Parts,
        record: &Record,
        sends: Sends,
    ) -> Result<Self, Failure> {
        let Sends { is_http2, has_content, keeps_upgrade } = sends;
        let worker = &connection.worker;
        let is_inbound = connection.is_inbound();
        let hop = if is_inbound { &worker.inbound_hop } else { &worker.hop };
        let authority = head.uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
        if let Some(query) = head.uri.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('?')) {
            let path = format!("/{query}"); // `http://users?x` (RFC 9112, section 3.2.1)
            head.uri = path.parse().map_err(|_| Failure::new(Reason::BadRequest, "the URL has no valid path"))?;
        }
        let headers = &mut head.headers;
        let fields = record.fields;
        if head.version == Version::HTTP_2 && !is_http2 {
            join_cookies(headers);
        }
        if fields.has(Fields::VIA) && names::is_loop(headers, &hop.name) {
            let sentence = "the request has been here before (Via names this sidecar)";
            return Err(Failure::new(Reason::LoopDetected, sentence));
        }
        let told = authority.or_else(|| headers.get(HOST).cloned());
        // Our application keeps the name that it was called by.
        let callers = told.as_ref().filter(|told| is_inbound && !(is_http2 && told.is_empty()));
        // A gateway's client may be on this machine as anywhere.
        let is_told = |peer: &IpAddr| connection.is_edge() || !peer.is_loopback();
        let peer = connection.peer.map(|peer| peer.ip()).filter(is_told);
        let scheme = if connection.is_encrypted { "https" } else { "http" };
        Ok(Self {
            host: callers.or(target.upstream.set_host()).cloned(),
            is_http2,
            via: hop.entry(head.version).clone(),
            forwarded_host: told
                .filter(|told| !told.is_empty())
                .filter(|_| !fields.has(names::FORWARDED_BY) || !headers.contains_key(X_FORWARDED_HOST)),
            forwarded_proto: (!fields.has(names::FORWARDED_BY) || !headers.contains_key(X_FORWARDED_PROTO))
                .then_some(scheme),
            forwarded_for: peer.map(|peer| names::forwarded_for(headers, fields, peer)),
            from: if is_inbound { None } else { worker.from.clone() },
            request_id: record.request_id.clone(),
            trace: record.trace,
            has_attempt_spans: record.has_attempt_spans(),
            is_inbound,
            is_peer: target.is_peer,
            has_odd: fields.has(names::ODD),
            keeps_upgrade,
            takes_trailers: fields.has(Fields::TE) && takes_trailers(headers),
            expects: fields.has(Fields::EXPECT)
                && ((head.version != Version::HTTP_10 && has_content) || !expects_continue(headers)),
        })
    }

    /// Whom the request is to, at an endpoint whose service is called like this.
    pub(crate) fn host<'a>(&'a self, of_endpoint: &'a HeaderValue) -> &'a [u8] {
        self.host.as_ref().unwrap_or(of_endpoint).as_bytes()
    }

    /// Writes the client's fields that go on, and those of lictor, for the attempt with this number.
    pub(crate) fn write<W: WriteHead>(
        &self,
        headers: &HeaderMap,
        of_endpoint: &HeaderValue,
        settings: &TraceSettings,
        number: usize,
        to: &mut Setting<'_, W>,
    ) {
        if !self.is_http2 {
            to.own(&HOST, self.host(of_endpoint));
        }
        let trace = if self.has_attempt_spans { self.trace.attempt(number) } else { self.trace };
        for (name, value) in headers {
            let is_shadow = || self.has_odd && names::shadows(name, |plain| to.sets(plain));
            if self.passes(name, &trace, settings) && !is_shadow() {
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
            to.own(&X_FORWARDED_FOR, chain);
        }
        if let Some(from) = &self.from {
            to.own(&X_LICTOR_FROM, from.as_bytes());
        }
        to.own(&X_REQUEST_ID, self.request_id.as_bytes());
        trace.fields(settings, |name, value| to.own(name, value));
        if self.takes_trailers {
            to.own(&TE, b"trailers");
        }
        // RFC 9110, section 10.1.4: who sends TE says so. (HTTP/2 has no Connection.)
        match (self.keeps_upgrade, self.takes_trailers) {
            (true, true) => to.own(&CONNECTION, b"upgrade, te"),
            (true, false) => to.own(&CONNECTION, b"upgrade"),
            (false, true) => to.own(&CONNECTION, b"te"),
            (false, false) => (),
        }
    }

    fn passes(&self, name: &HeaderName, trace: &TraceContext, settings: &TraceSettings) -> bool {
        match name.as_str() {
            // Deadlines too: what is left is told anew with each attempt, if there is a limit at all.
            "connection"
            | "grpc-timeout"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "l5d-timeout"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "x-envoy-upstream-rq-timeout-ms"
            | "x-lictor-attempt"
            | "x-lictor-debug"
            | "x-lictor-retry"
            | "x-lictor-timeout"
            | "x-lictor-to"
            | "x-request-id"
            | "x-request-timeout-ms" => false,
            "expect" => self.expects,
            "upgrade" => self.keeps_upgrade,
            "x-forwarded-for" => self.forwarded_for.is_none(),
            "x-service-auth" => !self.is_inbound,
            "x-lictor-from" => self.is_peer && self.is_inbound,
            name if !self.is_peer && names::is_identity(name) => false,
            name => !trace.replaces(name, settings),
        }
    }
}

/// A head that is being written, in which what the configuration sets stands in place of whatever else would have its name.
#[derive(Debug)]
pub(crate) struct Setting<'a, W> {
    to: &'a mut W,
    set: &'a [(HeaderName, HeaderValue)],
}

impl<'a, W: WriteHead> Setting<'a, W> {
    /// What is set for an upstream, but for its `Host`, which a [`Rewrite`] has.
    pub(crate) fn new(to: &'a mut W, set: &'a [(HeaderName, HeaderValue)]) -> Self {
        Self { to, set }
    }

    /// Writes what is set.
    pub(crate) fn end(self) {
        for (name, value) in self.set.iter().filter(|(name, _)| *name != HOST) {
            self.to.own(name, value.as_bytes());
        }
    }

    fn sets(&self, name: &str) -> bool {
        self.set.iter().any(|(set, _)| set == name)
    }

    fn is_free(&self, name: &HeaderName) -> bool {
        self.set.iter().all(|(set, _)| set != name) || *name == HOST
    }
}

impl<W: WriteHead> WriteHead for Setting<'_, W> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        if self.is_free(name) {
            self.to.pass(name, value);
        }
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        if self.is_free(name) {
            self.to.own(name, value);
        }
    }
}
