//! A request that may be sent: everything that its attempts need, decided once.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Version};
use lictor_core::balance::hash_bytes;
use lictor_core::deadline::{Deadline, End, sooner};
use lictor_core::policy::{Algorithm, HashOn, Hedge, HedgeDelay, Policy};
use lictor_core::{Address, Failure, Reason, retry};
use lictor_http::fields::Fields;
use lictor_http::{Interim, RequestBody, Spelling};
use smallvec::SmallVec;

use super::replay::Replay;
use super::sent::Sent;
use super::upgrade::Upgrade;
use crate::admission::leave::{Leave, admit};
use crate::admission::permit::{Probe, Running};
use crate::admission::target::Target;
use crate::books::record::Record;
use crate::head::rewrite::{Rewrite, Sends};
use crate::names::{self, X_LICTOR_ATTEMPT, X_LICTOR_RETRY, grpc_status};
use crate::world::client::Connection;
use crate::world::view::UpstreamState;
use crate::world::worker::Worker;

/// A request that may be sent: everything its attempts need.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) worker: Rc<Worker>,
    pub(super) upstream: Rc<UpstreamState>,
    /// The one endpoint that will do, if the client named it.
    pub(super) only: Option<Address>,
    pub(super) head: Parts,
    pub(super) rewrite: Rewrite,
    /// How the client wrote it.
    pub(super) spelling: Spelling,
    pub(super) interim: Option<Interim>,
    pub(super) body: Replay,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) is_inbound: bool,
    /// As a proxy that the client has chosen.
    pub(super) is_forward: bool,
    /// From somebody who is nobody of ours.
    pub(super) is_edge: bool,
    pub(super) is_grpc: bool,
    /// It is gRPC's, and its answer is one message.
    pub(super) is_unary: bool,
    /// Endpoints are spoken to in HTTP/2.
    pub(super) is_http2: bool,
    pub(super) is_idempotent: bool,
    pub(super) max_attempts: u32,
    /// Of what the balancer hashes on.
    pub(super) hash: Option<u64>,
    /// Endpoints by index, one entry an attempt. Hedged attempts write it at the same time.
    pub(super) tried: RefCell<SmallVec<[usize; 4]>>,
    /// Attempts at another upstream, before this one stood in for it.
    pub(super) earlier: usize,
    /// What the client's head has.
    pub(super) fields: Fields,
    pub(super) route: Option<usize>,
    /// When the first attempt may begin; none after it.
    admitted: Cell<Option<Instant>>,
    pub(super) deadline: Deadline,
    /// In place of what its policy gives it.
    pub(super) limit: Option<Duration>,
    pub(super) probe: Option<Probe>,
    pub(super) running: Running,
    /// What `Authorization` is to say, where the application says nothing.
    pub(super) token: RefCell<Option<HeaderValue>>,
    /// Another one than the first was shown.
    pub(super) has_shown_another: Cell<bool>,
    /// Its retries are used up, and by what: callers are told not to add their own.
    pub(super) spent: Option<&'static str>,
}

/// A request, as it is sent on.
#[derive(Debug)]
pub(super) struct Come {
    pub(super) head: Parts,
    pub(super) spelling: Spelling,
    pub(super) interim: Option<Interim>,
    pub(super) body: Replay,
}

impl Call {
    /// What all its attempts have in common.
    pub(super) fn new(
        connection: &Rc<Connection>,
        target: &Target,
        request: Request<RequestBody>,
        upgrade: Option<Upgrade>,
        record: &Record,
        leave: Leave,
    ) -> Result<Box<Self>, Failure> {
        let policy = target.upstream.policy(record.route);
        let max_attempts = attempts_allowed(policy, request.headers(), record.fields);
        // Also for methods that are not sent twice: a callee that says 421 has not processed them.
        let kept = if max_attempts > 1 { policy.retry.max_body } else { 0 };
        let (mut head, mut body) = request.into_parts();
        let (spelling, interim) = (body.take_spelling(), body.interim());
        let body = Replay::new(body, head.extensions.remove(), kept, record.deadline.arrival(), connection);
        Self::of(connection, target, Come { head, spelling, interim, body }, upgrade, record, leave)
    }

    /// The same, whoever made the request.
    pub(super) fn of(
        connection: &Rc<Connection>,
        target: &Target,
        come: Come,
        upgrade: Option<Upgrade>,
        record: &Record,
        leave: Leave,
    ) -> Result<Box<Self>, Failure> {
        let Come { mut head, spelling, interim, body } = come;
        let (worker, upstream, deadline) = (&connection.worker, &target.upstream, record.deadline);
        let policy = upstream.policy(record.route);
        let route_says = upstream.says_idempotent(record.route);
        // Of a call that was made of a GET the client has said that it changes nothing.
        let method = if record.rpc.is_some() { record.method() } else { &head.method };
        let is_idempotent = retry::is_idempotent(&policy.retry, method, &head.headers, route_says);
        let max_attempts = attempts_allowed(policy, &head.headers, record.fields);
        let hash = hash_of(policy, &head.headers, connection.client);
        let is_http2 = upstream.upstream.protocol.is_http2(head.version == Version::HTTP_2);
        let sends = Sends { is_http2, has_content: !body.is_empty(), keeps_upgrade: upgrade.is_some() };
        let rewrite = Rewrite::new(connection, target, &mut head, record, sends)?;
        let call = Box::new(Self {
            worker: Rc::clone(worker),
            upstream: Rc::clone(upstream),
            only: target.only.clone(),
            head,
            rewrite,
            spelling,
            interim,
            body,
            upgrade,
            is_inbound: connection.is_inbound(),
            is_forward: connection.is_forward(),
            is_edge: connection.is_edge(),
            is_grpc: record.is_grpc,
            is_unary: record.rpc.as_ref().is_some_and(|rpc| !rpc.is_stream),
            is_http2,
            is_idempotent,
            max_attempts,
            hash,
            tried: RefCell::default(),
            earlier: 0,
            fields: record.fields,
            route: record.route,
            admitted: Cell::new(Some(leave.since)),
            deadline,
            limit: None,
            probe: Some(leave.probe),
            running: leave.running,
            token: RefCell::default(),
            has_shown_another: Cell::new(false),
            spent: None,
        });
        call.show_token();
        Ok(call)
    }

    /// The same request to another upstream.
    pub(super) async fn move_to(
        &mut self,
        connection: &Rc<Connection>,
        upstream: Rc<UpstreamState>,
        record: &Record,
    ) -> Result<(), Failure> {
        let leave = admit(&self.worker, &upstream, record, record.end()).await?;
        (self.running, self.probe) = (leave.running, Some(leave.probe));
        let policy = upstream.policy(record.route);
        let route_says = upstream.says_idempotent(record.route);
        let Parts { method, headers, .. } = &self.head;
        self.is_idempotent = retry::is_idempotent(&policy.retry, method, headers, route_says);
        self.max_attempts = attempts_allowed(policy, headers, self.fields);
        self.hash = hash_of(policy, headers, connection.client);
        self.is_http2 = upstream.upstream.protocol.is_http2(self.head.version == Version::HTTP_2);
        let target = Target { upstream: Rc::clone(&upstream), only: None, is_peer: true };
        let has_content = !self.body.is_empty();
        let sends = Sends { is_http2: self.is_http2, has_content, keeps_upgrade: false };
        self.rewrite = Rewrite::new(connection, &target, &mut self.head, record, sends)?;
        self.earlier += self.tried.borrow_mut().drain(..).count();
        (self.only, self.spent, self.route, self.upstream) = (None, None, record.route, upstream);
        self.token.take();
        self.has_shown_another.set(false);
        self.show_token();
        Ok(())
    }

    /// When an attempt that begins now begins: the first one right after admission.
    pub(super) fn starts(&self) -> Instant {
        self.admitted.take().unwrap_or_else(Instant::now)
    }

    /// How this request is called.
    pub(super) fn policy(&self) -> &Policy {
        self.upstream.policy(self.route)
    }

    /// When an attempt that began at `started` must have its response head.
    pub(super) fn head_end(&self, started: Instant) -> Option<End> {
        let per_try = self.policy().timeouts.per_try.map(|per_try| {
            let since = match self.body.last_progress() {
                _ if self.body.is_awaited() => Instant::now(),
                progress => progress.map_or(started, |progress| progress.max(started)),
            };
            End { at: since + per_try, reason: Reason::PerTryTimeout }
        });
        sooner(self.end(), per_try)
    }

    /// When its time ends. Our own limit counts from the last byte that the client sent, and does not hold for gRPC, whose
    /// streams look like any call: there the caller's deadline is the limit, unless it is known to be none.
    pub(super) fn end(&self) -> Option<End> {
        let timeouts = &self.policy().timeouts;
        let ours = if self.is_grpc && !self.is_unary { Some(timeouts.idle) } else { self.limit.or(timeouts.total) };
        self.deadline.end(ours, self.body.last_progress().unwrap_or(self.deadline.arrival()))
    }

    /// Why an answer may not be the last word: its status is one to retry.
    pub(super) fn objection(&self, sent: &Sent) -> Option<Failure> {
        let status = sent.response.status();
        let headers = sent.response.headers();
        let is_grpc_unavailable = self.is_grpc && grpc_status(headers) == Some(14);
        if !is_grpc_unavailable && !self.policy().retry.statuses.contains(&status) {
            return None;
        }
        let shown = if is_grpc_unavailable { "grpc-status 14".to_owned() } else { status.as_u16().to_string() };
        Some(Failure::new(Reason::Status, format!("answered {shown}")))
    }

    /// An endpoint that was not tried yet exists.
    pub(super) fn has_other(&self, now: Instant) -> bool {
        self.only.is_none() && self.upstream.has_other(&self.tried.borrow(), now)
    }

    /// An attempt was answered after this long.
    pub(super) fn took(&self, latency: Duration, now: Instant) {
        if matches!(self.policy().hedge, Some(Hedge { after: HedgeDelay::Quantile(_), .. })) {
            self.upstream.latencies.borrow_mut().record(latency, now);
        }
    }
}

pub(super) fn attempts_allowed(policy: &Policy, headers: &HeaderMap, fields: Fields) -> u32 {
    if !fields.has(names::LICTOR) {
        return policy.retry.attempts;
    }
    if headers.get(X_LICTOR_RETRY).is_some_and(|value| value == "off") {
        return 1;
    }
    // A caller further up is retrying already: one retry here at most, or attempts multiply from tier to tier.
    let is_nested = headers.contains_key(X_LICTOR_ATTEMPT);
    if is_nested { policy.retry.attempts.min(2) } else { policy.retry.attempts }
}

pub(super) fn hash_of(policy: &Policy, headers: &HeaderMap, client: Option<IpAddr>) -> Option<u64> {
    let Algorithm::RingHash(on) = &policy.balance.algorithm else { return None };
    match on {
        HashOn::Header(name) => headers.get(name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::Cookie(name) => cookie(headers, name).map(|value| hash_bytes(value.as_bytes())),
        HashOn::SourceIp => client.map(|client| hash_bytes(client.to_string().as_bytes())),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}
