//! Answers that are kept, for routes that say so: given again, to requests that came at the same time, or in place of a
//! failure. What may be done with an answer is `lictor_core::caching`'s to say (RFC 9111); here is who asks, what waits for
//! whom, and what becomes of the upstream's answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use lictor_core::caching::{self, Exchanged, Head, Keeper, Key, Place, Question, Use};
use lictor_core::deadline::End;
use lictor_core::policy::Policy;
use lictor_core::trace::TraceContext;
use lictor_core::{Failure, Reason};
use lictor_http::fields::{Fields, strip_hop_by_hop, told_length};

use super::collapse;
use super::target::Target;
use crate::names::{self, X_REQUEST_ID, X_SPAN_ID, X_TRACE_ID};
use crate::stores::kept::{Cache, Flight, Kept, Looked, Next, Room};
use crate::world::client::Connection;
use crate::world::shared::Shared;

/// A larger answer is passed on and not kept.
const ENTRY_MAX: usize = 256 << 10;
/// What our own application is told apart by from a service of the same name.
const INBOUND: &str = "inbound\n";
/// Who answers, in `Cache-Status` (RFC 9211).
const OURSELVES: &str = "lictor";

/// What the cache has for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// An answer.
    Given(Given),
    /// None, and the upstream is not to be asked.
    Nothing,
    /// The upstream must be asked; without a cache having anything to do with it.
    Ask(Option<Box<Asking>>),
    /// An equal request's answer is on its way.
    Wait(Box<Asking>),
}

/// A kept answer, as this client gets it.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) kept: Arc<Kept>,
    pub(crate) how: How,
    /// Only its head is wanted.
    pub(crate) is_head: bool,
    /// The client has it already: it is told so (304).
    pub(crate) is_known: bool,
    /// As `Cache-Status` has it.
    pub(crate) status: String,
}

/// How a kept answer was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It was there.
    Hit,
    /// It was on its way for an equal request.
    Coalesced,
    /// The upstream has confirmed it.
    Revalidated,
    /// It stands in for a failure.
    Stale,
}

impl How {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Coalesced => "coalesced",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
        }
    }
}

/// What to do with the upstream's answer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is always in a box of its own")]
pub(crate) enum Asking {
    /// It may be kept, or a kept one given in its place.
    May(May),
    /// It may make invalid what is kept.
    Spoils(Spoils),
}

/// A request that a cache has a say in.
#[derive(Debug)]
pub(crate) struct May {
    question: Question,
    keeper: Keeper,
    cache: Cache,
    key: Key,
    flight: Option<Flight>,
    kept: Option<Arc<Kept>>,
    /// The client's conditions, in whose place ours are sent.
    clients: Option<HeaderMap>,
    is_confirming: bool,
    /// Why the upstream is asked (RFC 9211, section 2.2).
    why: &'static str,
}

/// What becomes invalid when the upstream has done what is asked.
#[derive(Debug)]
pub(crate) struct Spoils {
    cache: Cache,
    method: Method,
    service: String,
    hosts: [String; 2],
    target: String,
}

/// An answer's head has come.
#[derive(Debug)]
pub(crate) struct Came<'a> {
    /// The request's head.
    pub(crate) request: &'a HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) trace: &'a TraceContext,
    pub(crate) when: Exchanged,
}

/// What becomes of an answer.
#[derive(Debug)]
pub(crate) enum Verdict {
    PassOn,
    /// This is given in its place.
    Give(Given),
    /// It is about something else than what is kept: the whole answer must be asked for.
    AskAgain,
}

/// An answer that is being kept while it passes.
#[derive(Debug)]
pub(crate) struct Keeping {
    flight: Flight,
    head: Head,
    room: Room,
    body: Vec<u8>,
    asked_by: Option<(u128, u64)>,
}

/// An extension of a request: who asks is known, and nothing that goes on tells it, so that no two requests are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untold;

/// Looks a request up, where its policy keeps answers at all.
pub(crate) fn look<B: Body>(client: &Connection, target: &Target, policy: &Policy, request: &Request<B>) -> Found {
    let shared = &client.worker.shared;
    if policy.cache.is_none() && policy.stale.is_none() {
        let may_spoil = !is_safe(request.method()) && shared.cache.is_used();
        return Found::Ask(may_spoil.then(|| Box::new(Asking::Spoils(Spoils::of(client, target, request)))));
    }
    let upstream = &target.upstream.upstream.name;
    let question = Question::of(request.method(), request.headers(), !request.body().is_end_stream());
    // A client certificate is told to nobody behind a gateway.
    let is_shown = client.is_edge() && client.shown.is_some();
    let is_told = !is_shown && request.extensions().get::<Untold>().is_none();
    let Some(question) = question.filter(|question| is_told && !question.is_secret()) else {
        shared.metrics.cached(upstream, "bypass");
        let may_spoil = !is_safe(request.method());
        return Found::Ask(may_spoil.then(|| Box::new(Asking::Spoils(Spoils::of(client, target, request)))));
    };
    let found = May::look(client, target, policy, request, question);
    match &found {
        Found::Given(given) => shared.metrics.cached(upstream, given.how.as_str()),
        Found::Nothing | Found::Ask(_) => shared.metrics.cached(upstream, "miss"),
        Found::Wait(_) => (),
    }
    found
}

/// Waits for the answer to an equal request, until the end at most. Where there is none for this one it is asked for: it has
/// got the place in front, or all go by themselves.
pub(crate) async fn wait<B>(
    shared: &Shared,
    upstream: &str,
    end: Option<End>,
    request: &Request<B>,
    mut asking: Box<Asking>,
) -> Found {
    let kept = match &mut *asking {
        Asking::May(May { flight: Some(flight), .. }) => collapse::wait(flight, end).await,
        Asking::May(_) | Asking::Spoils(_) => None,
    };
    if let (Asking::May(may), Some(kept)) = (&*asking, kept)
        && kept.head.answers(request.headers())
        && kept.head.is_shared(&may.question, &may.keeper)
    {
        shared.metrics.cached(upstream, How::Coalesced.as_str());
        return Found::Given(may.give(kept, How::Coalesced, request.headers()));
    }
    shared.metrics.cached(upstream, "miss");
    Found::Ask(Some(asking))
}

fn is_safe(method: &Method) -> bool {
    !caching::spoils(method, None)
}

/// Who answers, whose answers change together, and the host that the client named.
fn place<'a, B>(
    client: &Connection,
    target: &'a Target,
    request: &'a Request<B>,
    service: &'a str,
    instance: &'a str,
) -> Place<'a> {
    let host = || request.headers().get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    Place {
        service,
        upstream: &target.upstream.upstream.name,
        is_believed: target.is_peer,
        scheme: if client.is_encrypted { "https" } else { "http" },
        authority: request.uri().authority().map_or_else(host, |authority| authority.as_str().as_bytes()),
        instance,
        target: request.uri().path_and_query().map_or("/", |path| path.as_str()),
    }
}

fn service(client: &Connection, target: &Target) -> String {
    let service = &target.upstream.upstream.service;
    if client.is_inbound() { format!("{INBOUND}{service}") } else { service.to_string() }
}

impl May {
    fn look<B>(
        client: &Connection,
        target: &Target,
        policy: &Policy,
        request: &Request<B>,
        question: Question,
    ) -> Found {
        let (service, instance) = (service(client, target), target.only.as_ref().map(ToString::to_string));
        let place = place(client, target, request, &service, instance.as_deref().unwrap_or_default());
        let headers = request.headers();
        let (key, cache) = (Question::key(&place, headers), &client.worker.shared.cache);
        let ttl = policy.cache.map_or(Duration::ZERO, |cache| cache.ttl);
        let keeper = Keeper { ttl, stale: policy.stale };
        let coalesces = policy.cache.is_some_and(|cache| cache.coalesce) && !question.wants_validation();
        let now = Instant::now();
        let mut why = "uri-miss";
        let next = |kept: Option<&Kept>, is_on_its_way: bool| {
            let usable = kept.filter(|_| policy.cache.is_some()).map(|kept| kept.head.usable(&question, &keeper, now));
            match usable {
                Some(Use::Fresh | Use::Stale) => return Next::Take,
                Some(Use::Validate { meanwhile: true }) if is_on_its_way => return Next::Take,
                Some(Use::Validate { .. }) => why = if question.wants_validation() { "request" } else { "stale" },
                None => (),
            }
            if question.is_for_the_cache_only() && policy.cache.is_some() {
                return Next::Leave;
            }
            // What is asked by the client's own conditions may have no answer for others.
            let leads = !question.is_conditional || kept.is_some_and(|kept| kept.head.has_validator());
            Next::Ask { waits: coalesces && !question.is_head, leads }
        };
        let Looked { kept, has_other_variants, next, flight } =
            cache.look(&key, |kept| kept.head.answers(headers), next);
        let why = if has_other_variants { "vary-miss" } else { why };
        let flight = flight.filter(|_| !question.is_head);
        let cache = cache.clone();
        let may = Self { question, keeper, cache, key, flight, kept, clients: None, is_confirming: false, why };
        match (next, &may.kept) {
            (Next::Take, Some(kept)) => Found::Given(may.give(Arc::clone(kept), How::Hit, headers)),
            (Next::Take | Next::Leave, _) => Found::Nothing,
            (Next::Ask { .. }, _) => {
                let is_behind = may.flight.as_ref().is_some_and(Flight::is_behind);
                let asking = Box::new(Asking::May(may));
                if is_behind { Found::Wait(asking) } else { Found::Ask(Some(asking)) }
            }
        }
    }

    /// What the client gets of a kept answer, whose conditions these are.
    fn give(&self, kept: Arc<Kept>, how: How, conditions: &HeaderMap) -> Given {
        let ttl = kept.head.ttl(&self.keeper, Instant::now());
        let why = self.why;
        let status = match how {
            How::Hit => format!("{OURSELVES}; hit; ttl={ttl}"),
            How::Coalesced => format!("{OURSELVES}; fwd={why}; collapsed; ttl={ttl}"),
            How::Revalidated => format!("{OURSELVES}; fwd={why}; fwd-status=304; ttl={ttl}"),
            How::Stale => format!("{OURSELVES}; fwd={why}; ttl={ttl}; detail=stale"),
        };
        let is_known = kept.head.is_what_the_client_has(conditions);
        Given { kept, how, is_head: self.question.is_head, is_known, status }
    }

    /// What stands in for a failure.
    fn instead(&self) -> Option<Given> {
        let kept = self.kept.as_ref()?;
        let may_be = kept.head.usable_instead(&self.question, &self.keeper, Instant::now());
        let nothing = HeaderMap::new();
        may_be.then(|| self.give(Arc::clone(kept), How::Stale, self.clients.as_ref().unwrap_or(&nothing)))
    }

    /// What a 304 to our own conditions makes of the kept answer.
    fn confirmed(&mut self, request: &HeaderMap, told: &HeaderMap, when: &Exchanged) -> Verdict {
        let Some(kept) = self.kept.clone() else { return Verdict::PassOn };
        let confirmed = kept.head.freshened(&self.question, request, told, &self.keeper, when);
        let Some((head, is_kept)) = confirmed else {
            self.is_confirming = false;
            return Verdict::AskAgain;
        };
        let kept = Arc::new(Kept { head, body: kept.body.clone(), asked_by: kept.asked_by });
        if let Some(flight) = self.flight.take() {
            if is_kept {
                flight.keep(&kept);
            } else {
                flight.forget(&kept);
            }
        }
        let nothing = HeaderMap::new();
        Verdict::Give(self.give(kept, How::Revalidated, self.clients.as_ref().unwrap_or(&nothing)))
    }
}

impl Asking {
    /// Asks whether what is kept is still good, in place of the client's own conditions.
    pub(crate) fn put_conditions(&mut self, headers: &mut HeaderMap) {
        let Self::May(may) = self else { return };
        let Some(kept) = may.kept.as_ref().filter(|kept| kept.head.has_validator() && !may.question.is_head) else {
            return;
        };
        let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE];
        may.clients = may.question.is_conditional.then(|| {
            let of_client = headers.iter().filter(|(name, _)| conditions.contains(name));
            of_client.map(|(name, value)| (name.clone(), value.clone())).collect()
        });
        forget_conditions(headers);
        headers.extend(kept.head.conditions());
        may.is_confirming = true;
    }

    /// Whether its conditions are ours.
    pub(crate) fn is_confirming(&self) -> bool {
        matches!(self, Self::May(may) if may.is_confirming)
    }

    /// What stands in for a failure with this status, if that is a server's.
    pub(crate) fn instead(&self, status: StatusCode) -> Option<Given> {
        match self {
            Self::May(may) if status.is_server_error() => may.instead(),
            Self::May(_) | Self::Spoils(_) => None,
        }
    }

    /// What becomes of an answer, before it is passed on.
    pub(crate) fn judge(
        &mut self,
        request: &HeaderMap,
        status: StatusCode,
        told: &mut HeaderMap,
        fields: Fields,
        when: &Exchanged,
    ) -> Verdict {
        let Self::May(may) = self else { return Verdict::PassOn };
        if status == StatusCode::NOT_MODIFIED && may.is_confirming {
            strip_hop_by_hop(told, fields, false);
            forget_ids(told);
            return may.confirmed(request, told, when);
        }
        let instead = if status.is_server_error() { may.instead() } else { None };
        instead.map_or(Verdict::PassOn, Verdict::Give)
    }

    /// Another upstream is asked instead, without our conditions; what that says is not kept.
    pub(crate) fn stands_back(self, headers: &mut HeaderMap, reason: Reason, was_sent: bool) {
        if self.is_confirming() {
            forget_conditions(headers);
        }
        self.fail(reason, was_sent);
    }

    /// Its upstream has no answer for the client; if it `was_sent`, nobody knows what came of it.
    pub(crate) fn fail(self, reason: Reason, was_sent: bool) {
        match self {
            Self::Spoils(spoils) if was_sent => spoils.answered(None, &HeaderMap::new()),
            Self::May(May { flight: Some(flight), .. }) => flight.fail(reason),
            Self::Spoils(_) | Self::May(_) => (),
        }
    }

    /// The answer is passed on: what that makes invalid goes, and it is kept if it may be. The head is as the client gets
    /// it, but for what is only this request's.
    pub(crate) fn passes(self, came: &Came<'_>, headers: &mut HeaderMap) -> Option<Keeping> {
        let may = match self {
            Self::May(may) => may,
            Self::Spoils(spoils) => {
                spoils.answered(Some(came.status), headers);
                return None;
            }
        };
        if let Some(kept) = may.kept.as_ref().filter(|_| may.question.is_head && came.status == StatusCode::OK)
            && kept.head.is_contradicted(headers)
        {
            may.cache.spoil(&may.key.resource);
        }
        let begin = |flight| Keeping::begin(flight, &may.question, &may.keeper, came, headers);
        let keeping = may.flight.and_then(begin);
        let stored = if keeping.is_some() { "; stored" } else { "" };
        let cache_status = format!("{OURSELVES}; fwd={}; fwd-status={}{stored}", may.why, came.status.as_u16());
        if let Ok(value) = HeaderValue::try_from(cache_status) {
            headers.append(names::CACHE_STATUS, value);
        }
        keeping
    }
}

/// Takes off what asks whether something is still good.
pub(crate) fn forget_conditions(headers: &mut HeaderMap) {
    headers.remove(IF_NONE_MATCH);
    headers.remove(IF_MODIFIED_SINCE);
}

fn forget_ids(headers: &mut HeaderMap) {
    for of_one_request in [&X_REQUEST_ID, &X_TRACE_ID, &X_SPAN_ID] {
        headers.remove(of_one_request);
    }
}

impl Spoils {
    fn of<B>(client: &Connection, target: &Target, request: &Request<B>) -> Self {
        let service = service(client, target);
        let place = place(client, target, request, &service, "");
        // As the client named it, and as the callee is called.
        let hosts =
            [String::from_utf8_lossy(place.authority).into_owned(), target.upstream.upstream.service.to_string()];
        let (method, target) = (request.method().clone(), place.target.to_owned());
        Self { cache: client.worker.shared.cache.clone(), method, service, hosts, target }
    }

    fn answered(&self, status: Option<StatusCode>, headers: &HeaderMap) {
        if !caching::spoils(&self.method, status) {
            return;
        }
        let [named, ours] = &self.hosts;
        let hosts = [named.as_str(), ours.as_str()];
        let also = caching::also_spoiled(headers, &hosts, &self.target);
        for target in std::iter::once(self.target.clone()).chain(also) {
            self.cache.spoil(&Question::resource(&self.service, &target));
        }
    }
}

impl Keeping {
    /// Begins to keep an answer, if it may be kept and there is room for it.
    fn begin(
        flight: Flight,
        question: &Question,
        keeper: &Keeper,
        came: &Came<'_>,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let length = told_length(headers).and_then(|length| usize::try_from(length).ok());
        let Some((head, room)) = may_begin(flight.cache(), question, keeper, came, headers, length) else {
            flight.share_nothing();
            return None;
        };
        let body = Vec::with_capacity(length.unwrap_or_default());
        let asked_by = came.trace.is_sampled.then_some((came.trace.trace_id, came.trace.span_id));
        Some(Self { flight, head, room, body, asked_by })
    }

    /// Adds what has just passed; gives up when it becomes too much.
    pub(crate) fn add(mut self, data: &Bytes) -> Option<Self> {
        let length = self.body.len() + data.len();
        if length > ENTRY_MAX {
            return self.give_up();
        }
        if length > self.body.capacity() {
            let capacity = length.max(2 * self.body.capacity()).min(ENTRY_MAX);
            if !self.room.grow(capacity - self.body.capacity()) {
                return self.give_up();
            }
            self.body.reserve_exact(capacity - self.body.len());
        }
        self.body.extend_from_slice(data);
        Some(self)
    }

    /// It is not an answer to keep after all.
    pub(crate) fn give_up(self) -> Option<Self> {
        self.flight.share_nothing();
        None
    }

    /// The answer did not become whole.
    pub(crate) fn fail(self, reason: Reason) {
        self.flight.fail(reason);
    }

    /// The answer was whole.
    pub(crate) fn finish(self) {
        let Self { flight, head, body, asked_by, room } = self;
        let kept = Arc::new(Kept { head, body: body.into_boxed_slice().into(), asked_by });
        flight.keep(&kept);
        drop(room);
    }
}

/// What is kept of an answer's head, and room for its body; `None` where it may not be kept.
fn may_begin(
    cache: &Cache,
    question: &Question,
    keeper: &Keeper,
    came: &Came<'_>,
    headers: &HeaderMap,
    length: Option<usize>,
) -> Option<(Head, Room)> {
    if names::is_stream(headers) || length.is_some_and(|length| length > ENTRY_MAX) {
        return None;
    }
    let mut copied = copied(headers);
    forget_ids(&mut copied);
    let head = Head::keep(question, came.request, came.status, copied, keeper, &came.when)?;
    Some((head, cache.room(length.unwrap_or_default())?))
}

/// With memory of its own: what came is a piece of what was read, which it would hold.
fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut copied = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            copied.append(name, value);
        }
    }
    copied
}

/// There is no answer, and the upstream is not to be asked.
pub(crate) fn nothing() -> Failure {
    Failure::new(Reason::NotCached, "the client wants a kept answer or none (only-if-cached), and none can be given")
}
