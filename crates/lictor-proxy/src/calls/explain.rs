//! What a worker would do with a request: the same matching, picking and deciding as for a real one, without sending
//! anything and without a trace in balancers, budgets or breakers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Uri};
use lictor_core::breaker::{BreakerState, BreakerView};
use lictor_core::candidates::{Candidates, Choice, WhyNot};
use lictor_core::deadline::callers_deadline;
use lictor_core::policy::{DeadlineMode, Policy};
use lictor_core::retry::{self, Denied, Next, Tried};
use lictor_core::story::{PolicyView, Then, millis};
use lictor_core::{Address, Failure, Reason};
use serde::Serialize;
use serde_json::{Map, Value};

use super::call::{attempts_allowed, hash_of};
use crate::admission::permit::is_open;
use crate::admission::routed::Routed;
use crate::admission::{split, target};
use crate::choose::pick::{no_endpoints, pick};
use crate::names::fields_of;
use crate::world::view::{UpstreamState, View};
use crate::world::worker::Worker;

/// A request that is not sent.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// The upstream's name; empty where `url` is asked for.
    pub upstream: String,
    /// Its path, perhaps with a query.
    pub path: String,
    /// What a client of the gateway asks for.
    pub url: Option<Uri>,
    /// Those that matter for it.
    pub headers: HeaderMap,
}

/// What would become of it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Whose answer this is; others have loads of their own.
    pub worker: usize,
    /// The upstream.
    pub upstream: Arc<str>,
    /// The service's name in Consul.
    pub service: Arc<str>,
    /// Whose word its endpoints are: `Consul`, `snapshot`, `bootstrap` or `static`; empty until there is one.
    pub source: &'static str,
    /// What its endpoints speak.
    pub protocol: &'static str,
    /// What the gateway does with it, if it is asked there.
    pub gateway: Option<GatewayView>,
    /// The first that matches.
    pub route: Option<RouteView>,
    /// In force for it.
    pub policy: PolicyView,
    /// A second processing is harmless.
    pub is_idempotent: bool,
    /// In all, less than the policy's when a caller retries already.
    pub attempts_allowed: u32,
    /// The time that its caller gives.
    pub deadline_ms: Option<u64>,
    /// Now.
    pub breaker: BreakerView,
    /// Requests to the upstream now.
    pub in_flight: u32,
    /// The share that is left.
    pub retry_budget_remaining: f64,
    /// So many endpoints are ejected that ejection is ignored.
    pub is_panic: bool,
    /// The share that stays in our zone while all endpoints are well; `None`: zones do not count.
    pub zone_share: Option<f64>,
    /// Where it could go.
    pub endpoints: Vec<Candidate>,
    /// The id of the one that the next request gets; `None`: see `refused`.
    pub picked: Option<Arc<str>>,
    /// Why it would not be sent at all.
    pub refused: Option<Refusal>,
    /// What would follow the first attempt's failure.
    pub on_failure: Vec<OnFailure>,
}

/// A route that matches.
#[derive(Clone, Debug, Serialize)]
pub struct RouteView {
    /// From 0, in the configuration's order.
    pub index: usize,
    /// `None` is any.
    pub method: Option<String>,
    /// The pattern.
    pub path: Arc<str>,
}

/// A route of the gateway.
#[derive(Clone, Debug, Serialize)]
pub struct GatewayView {
    /// Its host, if it has one, and path; of one from a tag what that says.
    pub route: Arc<str>,
    /// What it asks of claims: other routes at its place are for others.
    pub when: Option<String>,
    /// Its variants and their weights, where it has several: the next such request may go to another one.
    pub variants: Option<String>,
    /// What goes on.
    pub target: String,
    /// Where copies go.
    pub mirror: Option<Arc<str>>,
    /// Who may ask, and who this is; `None`: anybody.
    pub auth: Option<AuthView>,
}

/// Who may ask there.
#[derive(Clone, Debug, Serialize)]
pub struct AuthView {
    /// `required, roles admin`.
    pub asks: String,
    /// The claim `sub` of who asks, where there is one.
    pub subject: Option<String>,
    /// In which way he has shown it: `jwt`, `keys`, `basic`.
    pub by: Option<&'static str>,
    /// What was not found out, because nothing is sent: who would be asked.
    pub open: Option<String>,
}

/// An endpoint, as the picker sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Consul's service id.
    pub id: Arc<str>,
    /// What is dialled.
    pub address: Address,
    /// `healthy`, `warning`, `flapping`, `suspect`, `ejected`, `draining` or `resting`.
    pub state: &'static str,
    /// Until it is not ejected any more.
    pub ejected_for_ms: Option<u64>,
    /// An operator's, if one is in force: `eject` or `pin`.
    pub order: Option<&'static str>,
    /// 0 is the best.
    pub tier: u8,
    /// Why it does not take the next request: `ordered`, `ejected`, `draining`, `resting`, `warning` or `tier`.
    pub why_not: Option<&'static str>,
    /// For weighted draws.
    pub weight: u32,
    /// The share of its weight that it has, 0 to 1: less than all of it while it is new.
    pub warmth: f64,
    /// This worker's requests to it now.
    pub in_flight: u32,
    /// The average of its latency.
    pub ewma_ms: Option<f64>,
    /// What the algorithm compares; the lower the better.
    pub score: Option<f64>,
    /// Of requests like this one, if nothing changed.
    pub share: f64,
}

/// An answer of lictor's own.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The word; `None`: a route of the gateway answers itself.
    pub reason: Option<Reason>,
    /// The sentence.
    pub detail: String,
}

/// What would follow.
#[derive(Clone, Debug, Serialize)]
pub struct OnFailure {
    /// How the attempt failed.
    pub reason: Reason,
    /// And then.
    #[serde(flatten)]
    pub then: Then,
}

/// What the gateway has said of it, if it is asked there.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) routed: Box<Routed>,
    /// The place that its route claims, if a service does.
    pub(crate) claims_place: Option<Arc<str>>,
    /// What its route asks of claims.
    pub(crate) when: Option<String>,
    pub(crate) auth: Option<AuthView>,
    /// What is known of who asks.
    pub(crate) claims: Option<Arc<Map<String, Value>>>,
}

/// Decides as for a real request.
pub(crate) fn explain(
    worker: &Worker,
    view: &View,
    question: &Question,
    admitted: Option<Admitted>,
) -> Result<Explanation, Refusal> {
    let (mut routed, mut gateway) = (None, None);
    if let Some(Admitted { routed: lead, claims_place, when, auth, claims }) = admitted {
        let (lead, variants) = variant(worker, view, lead, claims.as_deref(), question);
        gateway = Some(GatewayView {
            route: claims_place.unwrap_or_else(|| Arc::clone(&lead.label)),
            when,
            variants,
            target: lead.target.to_string(),
            auth,
            mirror: lead.mirror.as_ref().map(|mirror| Arc::clone(&mirror.upstream)),
        });
        routed = Some(lead);
    }
    let name = routed.as_ref().map_or(question.upstream.as_str(), |routed| &routed.upstream);
    let upstream = view.upstreams.get(name);
    let upstream = upstream.ok_or_else(|| Refusal::from(target::unknown(view, name)))?;
    let path = question.path.split('?').next().unwrap_or_default();
    let now = Instant::now();
    let index = match &routed {
        Some(routed) => routed.route(upstream, &question.method),
        None => upstream.route(&question.method, path),
    };
    let route = index.and_then(|index| upstream.upstream.routes.get(index));
    let policy = upstream.policy(index);
    let mut headers = question.headers.clone();
    let fields = fields_of(&mut headers);
    let headers = &headers;
    let deadline = match policy.deadline {
        DeadlineMode::Propagate => callers_deadline(headers),
        DeadlineMode::Ignore => None,
    };
    let route_says = route.and_then(|route| route.is_idempotent);
    let asked = Asked {
        question,
        is_idempotent: retry::is_idempotent(&policy.retry, &question.method, headers, route_says),
        attempts: attempts_allowed(policy, headers, fields),
        remaining: policy.timeouts.total.into_iter().chain(deadline).min(),
    };
    let hash = hash_of(policy, headers, None);
    let picked = upstream.balancer(index).preview(|| pick(upstream, index, &[], hash, None, now));
    let orders = upstream.upstream.steering.in_force(now);
    let considered = upstream.candidates(policy, &orders, None, &[], now);
    let choice = considered.choice();
    let has_other = picked.as_ref().is_ok_and(|first| upstream.has_other(&[*first], now));
    let refused = would_refuse(upstream, policy, deadline.is_some_and(|left| left.is_zero()), now);
    let refused = refused.or(picked.as_ref().err().cloned()).map(Refusal::from);
    Ok(Explanation {
        worker: worker.index,
        upstream: Arc::clone(&upstream.upstream.name),
        service: Arc::clone(&upstream.upstream.service),
        source: upstream.upstream.census.source,
        protocol: upstream.upstream.protocol.as_str(),
        gateway,
        route: index.zip(route).map(|(index, route)| RouteView {
            index,
            method: route.method().map(ToString::to_string),
            path: Arc::clone(&route.label),
        }),
        policy: PolicyView::from(policy),
        is_idempotent: asked.is_idempotent,
        attempts_allowed: asked.attempts,
        deadline_ms: deadline.map(|deadline| deadline.as_millis() as u64),
        breaker: upstream.upstream.breaker.view(now),
        in_flight: upstream.upstream.in_flight.running(),
        retry_budget_remaining: upstream.budget.remaining_ratio(now),
        is_panic: choice.is_some_and(|choice| choice.is_panic),
        zone_share: upstream.zones.as_ref().map(|zones| zones.own),
        endpoints: candidates(upstream, index, hash, &considered, choice.as_ref()),
        picked: picked.ok().map(|index| Arc::clone(&upstream.endpoints[index].endpoint.key.id)),
        refused,
        on_failure: asked.failures(upstream, policy, has_other, now),
    })
}

/// The variant that it goes to, by its fields, by who asks or by lot, and all of them.
fn variant(
    worker: &Worker,
    view: &View,
    mut routed: Box<Routed>,
    claims: Option<&Map<String, Value>>,
    question: &Question,
) -> (Box<Routed>, Option<String>) {
    let Some(split) = routed.split.take() else { return (routed, None) };
    let chosen = split::chosen(&split, view, claims, &question.headers, || worker.random());
    if let Some(variant) = split.variants.get(chosen.variant) {
        routed.choose(variant);
    }
    (routed, Some(split.to_string()))
}

/// What admission would say.
fn would_refuse(upstream: &UpstreamState, policy: &Policy, is_late: bool, now: Instant) -> Option<Failure> {
    let breaker = upstream.upstream.breaker.view(now);
    let limits = &policy.limits;
    if is_late {
        return Some(Failure::new(Reason::DeadlineExceeded, "the caller's deadline had passed on arrival"));
    }
    if upstream.upstream.endpoints.is_empty() {
        return Some(no_endpoints(upstream));
    }
    let is_judged = policy.breaker.enabled || breaker.forced.is_some();
    let next = breaker.next_probe_ms.map(|probe| breaker.next_connect_ms.map_or(probe, |connect| connect.min(probe)));
    let wait = next.filter(|ms| *ms > 0 && is_judged && breaker.state == BreakerState::Open);
    if let Some(wait) = wait {
        let sentence = is_open(&breaker, Duration::from_millis(wait));
        return Some(Failure::new(Reason::BreakerOpen, sentence));
    }
    let is_full = upstream.upstream.in_flight.running() >= limits.max_in_flight
        && upstream.upstream.in_flight.pending() >= limits.max_pending;
    is_full.then(|| Failure::new(Reason::Overloaded, format!("{} requests are in flight", limits.max_in_flight)))
}

/// The endpoints, each with its share of a number of picks.
fn candidates(
    upstream: &UpstreamState,
    route: Option<usize>,
    hash: Option<u64>,
    considered: &Candidates<'_>,
    choice: Option<&Choice>,
) -> Vec<Candidate> {
    let now = considered.now;
    let mut picks = vec![0_u32; upstream.endpoints.len()];
    // Enough to see shares; fewer where one pick looks at many endpoints, because requests wait meanwhile.
    let draws = (20_000 / picks.len().max(1)).clamp(20, 1000) as u32;
    upstream.balancer(route).preview(|| {
        for _ in 0..draws {
            let Ok(index) = pick(upstream, route, &[], hash, None, now) else { return };
            picks[index] += 1;
        }
    });
    let orders = considered.orders;
    let candidate = |(index, picks): (usize, u32)| {
        let state = &upstream.endpoints[index];
        Candidate {
            id: Arc::clone(&state.endpoint.key.id),
            address: state.endpoint.address.clone(),
            state: state.endpoint.state(now),
            ejected_for_ms: state.endpoint.health.ejected_for(now).map(|left| left.as_millis() as u64),
            order: orders.about(&state.endpoint.key.id).map(|ordered| ordered.order.as_str()),
            tier: state.endpoint.tier,
            why_not: considered.why_not(index, choice).map(WhyNot::as_str),
            weight: state.endpoint.weight,
            warmth: upstream.balancer(route).warmth(index, now),
            in_flight: state.load.in_flight(),
            ewma_ms: state.load.average().map(millis),
            score: upstream.balancer(route).score(index, now),
            share: f64::from(picks) / f64::from(draws),
        }
    };
    picks.into_iter().enumerate().map(candidate).collect()
}

/// What decides on retries.
struct Asked<'a> {
    question: &'a Question,
    is_idempotent: bool,
    attempts: u32,
    remaining: Option<Duration>,
}

impl Asked<'_> {
    /// The ways in which an attempt can end badly, each with what would follow if it were the first.
    fn failures(&self, upstream: &UpstreamState, policy: &Policy, has_other: bool, now: Instant) -> Vec<OnFailure> {
        const ENDINGS: [Reason; 11] = [
            Reason::ConnectRefused,
            Reason::ConnectTimeout,
            Reason::TlsFailed,
            Reason::Misdirected,
            Reason::ResetBeforeResponse,
            Reason::ProtocolError,
            Reason::Status,
            Reason::PerTryTimeout,
            Reason::Timeout,
            Reason::DeadlineExceeded,
            Reason::ResetMidResponse,
        ];
        ENDINGS.map(|reason| self.after(reason, upstream, policy, has_other, now)).into()
    }

    fn after(
        &self,
        reason: Reason,
        upstream: &UpstreamState,
        policy: &Policy,
        has_other: bool,
        now: Instant,
    ) -> OnFailure {
        let failure = Failure { is_unprocessed: reason == Reason::Misdirected, ..Failure::new(reason, "") };
        let tried = Tried {
            failure: &failure,
            attempts: 1,
            is_idempotent: self.is_idempotent,
            is_replayable: true,
            asked: retry::Asked::Nothing,
            remaining: self.remaining,
            has_other,
        };
        let next = if self.attempts <= 1 {
            Next::Stop(Denied::Attempts)
        } else {
            match retry::wish(&policy.retry, &tried, 0.5) {
                Next::Retry(_) if !upstream.budget.may_withdraw(now) => Next::Stop(Denied::Budget),
                next => next,
            }
        };
        OnFailure { reason, then: Then::of(next, &failure, &self.question.method) }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { status: failure.reason.status().as_u16(), reason: Some(failure.reason), detail: failure.detail }
    }
}
