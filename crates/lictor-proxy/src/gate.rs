//! What a gateway asks of a request before it goes on, and does to its answer. Who asks is a stranger, and the route's
//! [`Rules`] say what he may.
//!
//! | in this order | file | refuses with |
//! |---|---|---|
//! | what is gRPC-Web is gRPC from here on | [`grpc_web`] | |
//! | is the head as short as it must be | [`head`] | `headers_too_large` |
//! | is it a browser's preflight, or a WebSocket of a page of somebody else | [`cors`] | `forbidden`; it answers |
//! | is it in maintenance; for whom it is not may take until he is known | [`maintenance`] | `maintenance` |
//! | may he ask so often, if that does not hang on who he is | [`limit`] | `limit_unavailable`, `rate_limited` |
//! | who asks, whose route of several at its place is it (`when`), and may he ([`keys`], [`basic`], [`certificate`], [`asking`] are ways to show it; [`shown`]) | [`auth`] | `unauthenticated`, `forbidden`, `auth_unavailable`, `bad_request` |
//! | and if it does | [`limit`] | `limit_unavailable`, `rate_limited` |
//! | is the body as short as it must be | [`body`] | `body_too_large` |
//! | what becomes of its fields | [`headers`] | |
//! | what is REST and JSON is gRPC from here on | [`transcode`] | `no_route`, `bad_request`, `body_too_large`, `request_timeout`, `overloaded` |
//!
//! | of every answer, whoever made it | file |
//! |---|---|
//! | what is gRPC and was asked for by REST is JSON | [`transcode`] |
//! | where it leads, with what `strip` took off | [`location`], `lictor-core/src/gateway/location.rs` |
//! | what the configuration changes of its fields | [`headers`], `lictor-core/src/gateway/headers.rs` |
//! | what makes browsers careful | `lictor-core/src/gateway/security.rs` |
//! | whose pages may read it | `lictor-core/src/gateway/cors.rs` |
//! | a failure's shape | [`errors`] |
//! | it is gRPC-Web again | [`grpc_web`] |
//! | compression | [`compress`] |
//! | what is nobody's business outside | `names.rs` |

mod asking;
mod auth;
mod basic;
mod body;
mod certificate;
mod compress;
mod cors;
mod errors;
pub(crate) mod explain;
mod grpc_web;
mod head;
mod headers;
pub(crate) mod inbound;
mod keys;
mod limit;
mod location;
mod maintenance;
mod query;
mod refusal;
mod shown;
mod transcode;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, Response};
use lictor_core::gateway::auth::{How, Identity};
use lictor_core::gateway::compress::Wish;
use lictor_core::gateway::grpc_web::Call;
use lictor_core::gateway::headers::{Made, Operations};
use lictor_core::gateway::maintenance::Orders;
use lictor_core::gateway::{Gateway, Rules};
use lictor_core::limit::Facts;
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_http::fields::Fields;

use self::headers::Source;
use self::limit::{Counted, When};
use self::location::Restores;
use self::shown::Shows;
use crate::admission::cache::Untold;
use crate::admission::routed::{Found, Routed, Says, Told};
use crate::admission::split;
use crate::calls::ending::ResponseBody;
use crate::names::{self, Looked};
use crate::world::client::Connection;
use crate::world::view::View;

/// A request at a gateway, from its head to the head of its answer.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Its route's, or the gateway's while there is none.
    rules: Arc<Rules>,
    /// The query as it came, where it had a token.
    query: Option<Box<str>>,
    /// Who asks, once he has shown it.
    identity: Option<Identity>,
    /// The API key that the request had.
    key: keys::Taken,
    /// What a refusal says besides.
    said: Vec<(HeaderName, HeaderValue)>,
    /// When that is over, where streams end with it.
    expires: Option<Instant>,
    /// Nothing in the head says for whom the answer is.
    is_private: bool,
    /// Something was shown that is not believed: limits count that by the client's network.
    has_failed: bool,
    /// What limits say of it.
    counted: Counted,
    /// The route's label.
    label: Option<Arc<str>>,
    /// Whose page asks, if it may read the answer.
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// What the configuration writes into the answer's head.
    made: Option<Box<Made>>,
    /// The head has other fields than it came with.
    is_changed: bool,
    /// TLS was spoken to the client.
    is_encrypted: bool,
    /// What answers do not know of their own path.
    restores: Option<Box<Restores>>,
    /// The ticket that its client is to keep.
    cookie: Option<HeaderValue>,
    /// How the client takes its answer, where the route compresses.
    wish: Option<Box<(Wish, Rc<Connection>)>>,
    /// What it is in gRPC-Web, where the route translates that.
    grpc_web: Option<Box<Call>>,
    /// The call of gRPC that it has become, where the route makes one of it.
    transcode: Option<Box<transcode::Call>>,
}

/// Why a request does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is refused. The client hears this sentence; log and story have the failure's.
    Refused(Failure, &'static str),
    /// It is answered.
    Told(Told),
}

impl Visit {
    /// Takes off a request what only the gateway says, and what only the gateway is told, before anything else looks at it.
    pub(crate) fn begin(gateway: &Gateway, connection: &Connection, request: &mut Request<RequestBody>) -> Self {
        let Shows { key, query } = shown::take(gateway, request);
        let mut visit = Self {
            rules: Arc::clone(&gateway.rules),
            query,
            key,
            identity: None,
            said: Vec::new(),
            expires: None,
            is_private: false,
            has_failed: false,
            counted: Counted::default(),
            label: None,
            origin: None,
            is_preflight: false,
            made: None,
            is_changed: false,
            is_encrypted: connection.is_encrypted,
            restores: None,
            cookie: None,
            wish: None,
            grpc_web: None,
            transcode: None,
        };
        visit.note(request);
        visit
    }

    /// The stages. The first that objects ends the request; their order is part of what the product does.
    pub(crate) async fn enter(
        &mut self,
        gateway: &Gateway,
        orders: Option<&Orders>,
        connection: &Rc<Connection>,
        request: &mut Request<RequestBody>,
        found: &mut Found,
    ) -> Result<(), Stop> {
        self.label = Some(Arc::clone(&found.label));
        if !Arc::ptr_eq(&self.rules, &found.rules) {
            self.rules = Arc::clone(&found.rules);
            self.note(request);
        }
        let is_short = head::check(&self.rules, request);
        self.prepare(connection, request);
        // Before anything is added to the head or taken off it.
        if let Some(compress) = &self.rules.compress {
            let wish = compress.wish(request.method(), request.headers());
            self.wish = Some(Box::new((wish, Rc::clone(connection))));
        }
        if self.rules.grpc_web && self.rules.transcode.is_none() {
            self.grpc_web = grpc_web::enter(request);
            self.is_changed |= self.grpc_web.is_some();
        }
        is_short?;
        cors::check(self, connection, request)?;
        let held = maintenance::check(&self.rules, orders, &found.label, connection.client, request.headers());
        if let Some(held) = held.as_ref().filter(|held| !held.may_show) {
            return Err(held.stop(&self.rules));
        }
        // The same before and after it is known who asks, which may make the route another one.
        let guards = self.rules.auth.is_some().then(|| limit::guards(gateway, found));
        if let Some(guards) = &guards {
            self.counted.failures(guards, connection)?;
        }
        self.count(When::Before, connection, request, found).await?;
        if let Err(stop) = auth::check(self, gateway, connection, request, found).await {
            if let Some(guards) = guards.filter(|_| self.has_failed) {
                Counted::failed(&guards, connection);
            }
            let Some(held) = held else { return Err(stop) };
            self.said.clear();
            return Err(held.stop(&self.rules));
        }
        if let Some(held) = held.filter(|_| !maintenance::passes(&self.rules, self.identity.as_ref())) {
            return Err(held.stop(&self.rules));
        }
        if let Says::Send(routed) = &mut found.says {
            routed.expires = self.expires;
        }
        self.count(When::After, connection, request, found).await?;
        body::check(&self.rules, request)?;
        if let Some(operations) = self.rules.request_headers.clone() {
            let made = self.source(connection, request).made(&operations);
            operations.apply(made, request.headers_mut());
            self.is_changed = true;
            // Without the field that he was known by, nothing tells a cache that the answer is one client's.
            if self.identity.is_some() && operations.names().any(|name| *name == AUTHORIZATION) {
                request.extensions_mut().insert(Untold);
            }
        }
        Ok(())
    }

    /// Takes one of each limit that can be asked by now.
    async fn count(
        &mut self,
        when: When,
        connection: &Connection,
        request: &Request<RequestBody>,
        found: &Found,
    ) -> Result<(), Stop> {
        if !self.rules.limits.iter().any(|limit| when.is_of(limit)) {
            return Ok(());
        }
        let claims = self.identity.as_ref().map(|identity| &identity.known.claims);
        let claim = |name: &str| claims?.get(name).map(ToString::to_string);
        let issuer = claims.and_then(|claims| claims.get("iss")?.as_str()).unwrap_or_default();
        let user = self.identity.as_ref().and_then(Identity::subject).map(|subject| [issuer, subject]);
        let by_key = self.identity.as_ref().filter(|identity| identity.how == How::Key);
        let key = by_key.and_then(Identity::subject);
        let (route, headers) = (Some(&*found.label), request.headers());
        let facts = Facts { route, ip: connection.client, user, key, headers, claim: &claim };
        self.counted.take(&self.rules.limits, when, &facts, connection).await
    }

    /// What becomes of a request that no route is for: a browser asks first, and is to learn of the 404 that it will get.
    pub(crate) fn missed(
        &mut self,
        failure: Failure,
        connection: &Connection,
        request: &mut Request<RequestBody>,
    ) -> Result<Told, Failure> {
        self.prepare(connection, request);
        cors::judge(self, connection, request);
        if self.is_preflight && failure.reason == Reason::NoRoute { Ok(cors::preflight()) } else { Err(failure) }
    }

    /// Which fields the head has by now. What its `Connection` names was the client's, and has gone.
    pub(crate) fn fields(&self, request: &Request<RequestBody>, fields: Fields) -> Fields {
        if self.is_changed { Fields::of::<Looked>(request.headers()) } else { fields }
    }

    /// Where a request goes that was let in.
    pub(crate) fn lead<B>(
        &mut self,
        connection: &Connection,
        view: &View,
        request: &mut Request<B>,
        routed: &mut Routed,
    ) {
        if routed.split.is_some() {
            let claims = self.identity.as_ref().map(|identity| &*identity.known.claims);
            self.cookie = split::choose(connection, view, claims, request, routed);
        }
        self.restores = Restores::of(view, request, routed);
    }

    /// Makes a call of gRPC of a request that was let in, where its route does that.
    pub(crate) async fn ask(
        &mut self,
        connection: &Connection,
        view: &View,
        request: &mut Request<RequestBody>,
        routed: &mut Routed,
        fields: &mut Fields,
    ) -> Result<(), Failure> {
        if let Some(rule) = &self.rules.transcode {
            let call = transcode::enter(rule, &connection.worker.shared, view, request, routed);
            self.transcode = Some(Box::pin(call).await?);
            *fields = Fields::of::<Looked>(request.headers());
        }
        Ok(())
    }

    /// Makes JSON of the answer to such a call, before anything else is done to it.
    pub(crate) async fn answer(&self, connection: &Connection, response: &mut Response<ResponseBody>) {
        if let Some(call) = &self.transcode {
            Box::pin(transcode::leave(call, &connection.worker.shared, response)).await;
        }
    }

    /// What is done to every answer, whoever made it.
    pub(crate) fn leave(&mut self, response: &mut Response<ResponseBody>) {
        let headers = response.headers_mut();
        if let Some(restores) = &self.restores {
            restores.leave(headers);
        }
        self.counted.leave(headers);
        for (name, value) in self.said.drain(..) {
            headers.append(name, value);
        }
        if let (Some(operations), Some(made)) = (&self.rules.response_headers, self.made.take()) {
            operations.apply(*made, headers);
        }
        if self.is_private {
            auth::make_private(headers);
        }
        if let Some(cookie) = self.cookie.take() {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(security) = &self.rules.security {
            security.dress(headers, self.is_encrypted);
        }
        if let Some(cors) = &self.rules.cors {
            let origin = self.origin.as_ref();
            if self.is_preflight { headers.extend(cors.preflight(origin)) } else { cors.dress(origin, headers) }
        }
        if let Some(shape) = &self.rules.errors {
            errors::shape(shape, self.label.as_deref(), response, ResponseBody::whole);
        }
        if let Some(call) = &self.grpc_web {
            grpc_web::leave(call, response);
        }
        if let (Some(compress), Some(wished)) = (&self.rules.compress, &self.wish) {
            let (wish, connection) = &**wished;
            let is_known = self.identity.is_some() || connection.shown.is_some();
            compress::leave(compress, wish, is_known, &connection.worker.shared, response);
        }
        names::seal(response.headers_mut());
    }

    /// Makes what the configuration writes into the answer's head, while the request is as it came.
    fn prepare(&mut self, connection: &Connection, request: &mut Request<RequestBody>) {
        let rules = Arc::clone(&self.rules);
        self.name(connection, request);
        let made = |operations: &Arc<Operations>| Box::new(self.source(connection, request).made(operations));
        self.made = rules.response_headers.as_ref().map(made);
    }

    /// Gives the request a name, where something is made of it.
    fn name(&mut self, connection: &Connection, request: &mut Request<RequestBody>) {
        let operations = [&self.rules.request_headers, &self.rules.response_headers];
        if operations.into_iter().flatten().any(|operations| operations.names_request()) {
            self.is_changed |= headers::name(connection, request);
        }
    }

    /// Who asks has chosen another route of the same place, which says the same of all that was done until now.
    fn turn(&mut self, connection: &Connection, request: &mut Request<RequestBody>, rules: &Arc<Rules>) {
        self.rules = Arc::clone(rules);
        self.name(connection, request);
    }

    /// What values of fields are made of.
    fn source<'a>(&'a self, connection: &'a Connection, request: &'a Request<RequestBody>) -> Source<'a, RequestBody> {
        Source { connection, request, route: self.label.as_deref(), identity: self.identity.as_ref() }
    }

    /// What of the request its answer goes by.
    fn note(&mut self, request: &Request<RequestBody>) {
        let cors = self.rules.cors.as_ref();
        self.origin = cors.and_then(|cors| cors.asked(request.headers()));
        self.is_preflight = cors.is_some() && cors::is_preflight(request);
    }
}

/// What is done to what is said to a request whose head could not be read, of which nothing is known.
pub(crate) fn leave_unread(gateway: Option<&Gateway>, is_encrypted: bool, response: &mut Response<Bytes>) {
    if let Some(gateway) = gateway {
        let (rules, head) = (&gateway.rules, response.headers_mut());
        if let Some(operations) = &rules.response_headers {
            operations.apply(operations.made(|_, _| false), head);
        }
        if let Some(security) = &rules.security {
            security.dress(head, is_encrypted);
        }
        if let Some(cors) = &rules.cors {
            cors.dress(None, head);
        }
        if let Some(shape) = &rules.errors {
            errors::shape(shape, None, response, |body| body);
        }
    }
    names::seal(response.headers_mut());
}
