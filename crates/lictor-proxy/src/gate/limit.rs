//! May he ask so often? Each limit has one unit less for a request; what one limit refuses is given back to the others. What
//! the answer tells of it is from the same look.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};
use lictor_core::gateway::Gateway;
use lictor_core::limit::{Decision, Facts, Fields, IfUnreachable, Limit, Mode};
use lictor_core::{Failure, Reason};
use lictor_http::decimal;
use smallvec::SmallVec;

use super::Stop;
use crate::admission::routed::{Found, Says};
use crate::stores::limiter;
use crate::world::client::Connection;
use crate::world::redis;
use crate::world::worker::Worker;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const TOGETHER: HeaderName = HeaderName::from_static("ratelimit");

/// A client that comes back later than it must by up to this share does not come with all the others.
const SPREAD: f64 = 0.1;

/// What limits say of a request.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    taken: SmallVec<[Taken; 2]>,
    told: Option<Told>,
}

/// One unit of a limit's key.
#[derive(Debug)]
struct Taken {
    limits: Arc<[Limit]>,
    index: usize,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Here(limiter::Key),
    InRedis(redis::Key),
}

/// What an answer tells: of the limit that is nearest to its end.
#[derive(Clone, Copy, Debug)]
struct Told {
    fields: Fields,
    limit: u32,
    remaining: u32,
    reset: u64,
    window: u64,
}

/// When limits are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Nobody knows yet who it is.
    Before,
    /// It is known, if it can be.
    After,
}

impl When {
    /// Whether this limit is asked then.
    pub(crate) fn is_of(self, limit: &Limit) -> bool {
        limit.needs_identity() == (self == Self::After)
    }
}

impl Counted {
    /// Takes one of each of these limits, or refuses.
    pub(crate) async fn take(
        &mut self,
        limits: &Arc<[Limit]>,
        when: When,
        facts: &Facts<'_>,
        connection: &Connection,
    ) -> Result<(), Stop> {
        for (index, limit) in limits.iter().enumerate() {
            if !when.is_of(limit) {
                continue;
            }
            let (worker, now) = (&connection.worker, Instant::now());
            let metrics = &worker.shared.metrics;
            let (decision, key) = match decide(limit, facts, worker, now).await {
                Ok(decided) => decided,
                Err(cause) if limit.is_enforced => {
                    metrics.limited(&limit.scope, "unavailable");
                    self.give_back(worker);
                    let sentence =
                        format!("the limit of {} is counted in Redis, which cannot be asked ({cause})", limit.scope);
                    let failure = Failure::new(Reason::LimitUnavailable, sentence).retry_after(Duration::from_secs(1));
                    return Err(Stop::Refused(failure, "limits cannot be checked at the moment"));
                }
                Err(_) => {
                    metrics.limited(&limit.scope, "unavailable");
                    continue;
                }
            };
            match (decision.is_admitted, limit.is_enforced) {
                (true, is_enforced) => {
                    metrics.limited(&limit.scope, "admitted");
                    self.taken.push(Taken { limits: Arc::clone(limits), index, key });
                    if is_enforced {
                        self.tell(Told::of(limit, &decision, seconds(decision.reset)));
                    }
                }
                (false, false) => metrics.limited(&limit.scope, "would_refuse"),
                (false, true) => return Err(self.refused(limit, &decision, worker)),
            }
        }
        Ok(())
    }

    /// Refuses a network that has failed too often to show who it is, before anything is verified.
    pub(crate) fn failures(&mut self, limits: &[Limit], connection: &Connection) -> Result<(), Stop> {
        let (worker, now) = (&connection.worker, Instant::now());
        for limit in limits.iter().filter(|limit| is_guard(limit)) {
            let key = worker.shared.limiter.key_of_failures(limit, connection.client);
            let decision = worker.shared.limiter.look(limit, key, now).filter(|decision| !decision.is_admitted);
            if let Some(decision) = decision {
                return Err(self.refused(limit, &decision, worker));
            }
        }
        Ok(())
    }

    /// Counts one more failed try.
    pub(crate) fn failed(limits: &[Limit], connection: &Connection) {
        let (limiter, now) = (&connection.worker.shared.limiter, Instant::now());
        for limit in limits.iter().filter(|limit| is_guard(limit)) {
            limiter.take(limit, limiter.key_of_failures(limit, connection.client), now);
        }
    }

    fn refused(&mut self, limit: &Limit, decision: &Decision, worker: &Rc<Worker>) -> Stop {
        worker.shared.metrics.limited(&limit.scope, "refused");
        self.give_back(worker);
        let wait = seconds(decision.reset.mul_f64(1.0 + SPREAD * worker.chance()));
        self.told = Some(Told::of(limit, decision, wait));
        refuse(limit, wait)
    }

    fn tell(&mut self, told: Told) {
        let is_nearer = |known: &Told| (told.remaining, known.reset) < (known.remaining, told.reset);
        if self.told.as_ref().is_none_or(is_nearer) {
            self.told = Some(told);
        }
    }

    fn give_back(&mut self, worker: &Rc<Worker>) {
        for Taken { limits, index, key } in self.taken.drain(..) {
            match key {
                Key::Here(key) => worker.shared.limiter.give_back(&limits[index], key, Instant::now()),
                Key::InRedis(key) => {
                    let worker = Rc::clone(worker);
                    tokio::task::spawn_local(async move { worker.redis.give_back(&limits[index], &key).await });
                }
            }
        }
    }

    /// Tells the client, unless what the upstream tells is stricter. A kept answer's fields are of another request.
    pub(crate) fn leave(&self, headers: &mut HeaderMap) {
        let Some(told) = self.told.filter(|told| told.fields != Fields::Off) else { return };
        if headers.keys().any(|name| name.as_str().starts_with("ratelimit")) {
            let is_kept = headers.contains_key(AGE);
            if !is_kept && theirs(headers).is_some_and(|remaining| remaining < u64::from(told.remaining)) {
                return;
            }
            for name in [LIMIT, REMAINING, RESET, POLICY, TOGETHER] {
                headers.remove(name);
            }
        }
        if matches!(told.fields, Fields::Old | Fields::Both) {
            headers.insert(LIMIT, number(told.limit.into()));
            headers.insert(REMAINING, number(told.remaining.into()));
            headers.insert(RESET, number(told.reset));
        }
        if matches!(told.fields, Fields::New | Fields::Both) {
            let Told { limit, remaining, reset, window, .. } = told;
            for (name, value) in [
                (POLICY, format!("\"default\";q={limit};w={window}")),
                (TOGETHER, format!("\"default\";r={remaining};t={reset}")),
            ] {
                headers.insert(name, HeaderValue::try_from(value).expect("numbers and words"));
            }
        }
    }
}

impl Told {
    fn of(limit: &Limit, decision: &Decision, reset: u64) -> Self {
        let Decision { limit: most, remaining, .. } = *decision;
        Self { fields: limit.fields, limit: most, remaining, reset, window: seconds(limit.quota.window) }
    }
}

/// The limits that failed tries to show who one is are counted against. Where that decides whose route of a place it is, they are
/// those of the last one that has any, which is the nearest to everybody's.
pub(super) fn guards(gateway: &Gateway, found: &Found) -> Arc<[Limit]> {
    let own = &found.rules.limits;
    let Says::Depends(first) = found.says else { return Arc::clone(own) };
    let routes = gateway.table.shared(first).unwrap_or_default().iter().rev();
    let mut limits = routes.filter_map(|index| Some(&gateway.routes.get(*index)?.rules.limits));
    Arc::clone(limits.find(|limits| limits.iter().any(is_guard)).unwrap_or(own))
}

fn is_guard(limit: &Limit) -> bool {
    limit.is_enforced && limit.needs_identity()
}

async fn decide(
    limit: &Limit,
    facts: &Facts<'_>,
    worker: &Rc<Worker>,
    now: Instant,
) -> Result<(Decision, Key), redis::Cause> {
    if limit.mode == Mode::Redis {
        let key = redis::Key::of(limit, facts);
        match Box::pin(worker.redis.take(limit, &key)).await {
            Ok(decision) => return Ok((decision, Key::InRedis(key))),
            Err(cause) => {
                worker.shared.metrics.limits_unreachable(cause);
                if limit.if_unreachable == IfUnreachable::Refuse {
                    return Err(cause);
                }
            }
        }
    }
    let limiter = &worker.shared.limiter;
    let key = limiter.key(limit, facts);
    let (decision, is_crowded) = limiter.take(limit, key, now);
    if is_crowded {
        worker.shared.metrics.limit_crowded();
    }
    Ok((decision, Key::Here(key)))
}

fn refuse(limit: &Limit, wait: u64) -> Stop {
    let quota = &limit.quota;
    let by: Vec<String> = limit.by.iter().map(ToString::to_string).collect();
    let by = if by.is_empty() { "all".to_owned() } else { by.join(", ") };
    let sentence =
        format!("more than {} in {} s, by {by} (the limit of {})", quota.requests, seconds(quota.window), limit.scope);
    let failure = Failure::new(Reason::RateLimited, sentence).retry_after(Duration::from_secs(wait));
    Stop::Refused(failure, "too many requests: come back after the time that Retry-After tells")
}

/// Whole, rounded up, and at least one.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

/// In one piece of memory, of which `HeaderValue::from` takes two.
fn number(number: u64) -> HeaderValue {
    HeaderValue::from_bytes(decimal(number, &mut [0; 20])).expect("digits")
}

/// What the upstream says is left, in whichever of the drafts' forms.
fn theirs(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let together = || {
        let text = headers.get(TOGETHER)?.to_str().ok()?;
        let parameters = text.split([';', ',']).map(str::trim);
        let left = |part: &str| part.strip_prefix("r=").or(part.strip_prefix("remaining=")).map(str::to_owned);
        parameters.filter_map(left).find_map(|left| left.parse().ok())
    };
    number(&REMAINING).or_else(together)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_rounded_up() {
        for (millis, whole) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole, "{millis}");
        }
    }

    #[test]
    fn an_upstreams_fields_pass_only_where_they_are_stricter() {
        let told = Told { fields: Fields::Old, limit: 10, remaining: 4, reset: 7, window: 60 };
        let counted = Counted { told: Some(told), taken: SmallVec::new() };
        for (name, value, is_kept, remaining) in [
            ("ratelimit-remaining", "3", false, "3"),
            ("ratelimit-remaining", "4", false, "4"),
            ("ratelimit-remaining", "5", false, "4"),
            ("ratelimit-remaining", "many", false, "4"),
            ("ratelimit-remaining", "3", true, "4"),
            ("ratelimit", "\"default\";r=3;t=9", false, ""),
            ("ratelimit", "limit=10, remaining=3, reset=9", false, ""),
            ("ratelimit", "\"default\";r=9;t=9", false, "4"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            if is_kept {
                headers.insert(AGE, HeaderValue::from_static("1"));
            }
            counted.leave(&mut headers);
            let told = headers.get(REMAINING).map_or("", |value| value.to_str().unwrap());
            assert_eq!(told, remaining, "{name}: {value}");
        }
    }

    #[test]
    fn both_forms_tell_the_same() {
        let told = Told { fields: Fields::Both, limit: 10, remaining: 4, reset: 7, window: 60 };
        let mut headers = HeaderMap::new();
        Counted { told: Some(told), taken: SmallVec::new() }.leave(&mut headers);
        let line = |name| headers[&name].to_str().unwrap();
        assert_eq!((line(LIMIT), line(REMAINING), line(RESET)), ("10", "4", "7"));
        assert_eq!((line(POLICY), line(TOGETHER)), ("\"default\";q=10;w=60", "\"default\";r=4;t=7"));
    }
}
