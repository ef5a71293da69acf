//! `limit`: how often somebody may ask, of the gateway, of a route, of `inbound`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use lictor_core::gateway::Matcher;
use lictor_core::limit::{Algorithm, Fields, Id, IfUnreachable, Limit, Mode, Part, Quota};
use serde_json::json;

use crate::tree::{Node, Section};
use crate::values;

/// Limits of one place.
const LIMITS_MAX: usize = 8;
/// Parts of a key.
const PARTS_MAX: usize = 8;
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// A request in less than this is no limit that can be told apart from none.
const INTERVAL_MIN: Duration = Duration::from_micros(1);

/// What limits of a place may be by, and are where they do not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// As it reads in messages.
    name: &'static str,
    is_gateway: bool,
}

pub(super) const GATEWAY: Place = Place { name: "gateway", is_gateway: true };
pub(super) const INBOUND: Place = Place { name: "inbound", is_gateway: false };

impl Place {
    fn by(self) -> Box<[Part]> {
        if self.is_gateway { [Part::Route, Part::User, Part::Ip].into() } else { [Part::Ip].into() }
    }
}

/// The limits of a place; those of `base` where nothing is said.
pub(super) fn limits(node: &Node<'_>, base: &Arc<[Limit]>, place: Place) -> Arc<[Limit]> {
    if node.is_off() {
        return [].into();
    }
    if !node.is_set() && !node.is_describing() {
        return Arc::clone(base);
    }
    let entries = if node.is_map() || node.is_describing() { vec![node.clone()] } else { node.elements() };
    if let Some(entry) = entries.get(LIMITS_MAX) {
        entry.error(format!("more than {LIMITS_MAX} limits for one place"), None);
    }
    let read: Vec<Limit> = entries.iter().take(LIMITS_MAX).filter_map(|entry| limit(entry, place)).collect();
    named(read, &place.name.into())
}

/// The same limits, as those of a route: of all that share its place where they count before it is known who asks.
pub(super) fn of_route(
    limits: &Arc<[Limit]>,
    base: &Arc<[Limit]>,
    matcher: &Matcher,
    label: &Arc<str>,
) -> Arc<[Limit]> {
    if Arc::ptr_eq(limits, base) {
        return Arc::clone(base);
    }
    let place: Arc<str> = format!("{label} {}", matcher.conditions).into();
    let route: Arc<str> = format!("{label} {}", matcher.only()).into();
    let own = limits.iter().cloned().enumerate().map(|(index, limit)| {
        let whose = if limit.needs_identity() { &route } else { &place };
        limit.identify(whose, index)
    });
    own.map(|limit| Limit { scope: Arc::clone(label), ..limit }).collect()
}

fn named(limits: Vec<Limit>, scope: &Arc<str>) -> Arc<[Limit]> {
    limits.into_iter().enumerate().map(|(place, limit)| limit.identify(scope, place)).collect()
}

fn limit(node: &Node<'_>, place: Place) -> Option<Limit> {
    let section = node.section_or_short("rate", &[json!({ "type": "string" }), json!({ "type": "array" })]);
    let rate_node = section.field("rate", "Requests and their time, as `100/60s`.");
    let given = rate_node.parsed(json!({ "type": "string", "examples": ["100/60s"] }), None, rate);
    let by_node = section.field("by", "What has a limit of its own: a list of route, user, ip, key, `header: NAME` and `claim: NAME`; `[]`: all requests together. Default: route, user, ip; of `inbound` ip.");
    let by = by(&by_node, place).unwrap_or_else(|| place.by());
    let algo = section.field("algo", "How requests are counted.");
    let algorithm = algo.choice(&Algorithm::ALL, Some("token_bucket")).unwrap_or_default();
    let (requests, window) = given.unwrap_or((1, WINDOW_MIN));
    let burst = section.field("burst", "So many at once, of a token bucket; default: the rate's.");
    if burst.is_set() && algorithm != Algorithm::TokenBucket {
        burst.key_error("`burst` is a token bucket's", None);
    }
    let burst = burst.parsed(json!({ "type": ["integer", "string"], "minimum": 1 }), None, count).unwrap_or(requests);
    let mode = section.field("mode", "Who counts: this process, all gateways a part each, or Redis for all.");
    let mode = mode.choice(&Mode::ALL, Some("local")).unwrap_or_default();
    let unreachable =
        section.field("if_unreachable", "When Redis cannot be asked: this process counts, or requests are refused.");
    if unreachable.is_set() && mode != Mode::Redis {
        unreachable.key_error("`if_unreachable` is about `mode: redis`", None);
    }
    let if_unreachable = unreachable.choice(&IfUnreachable::ALL, Some("local")).unwrap_or_default();
    let is_enforced =
        section.field("enforce", "Whether requests are refused; if not, they are only counted.").boolean(true);
    let fields = section.field("fields", "What answers tell of it: RateLimit-Limit, -Remaining and -Reset; the newer RateLimit and RateLimit-Policy; both; or nothing.");
    let fields = fields.choice(&Fields::ALL, Some("old")).unwrap_or_default();
    section.finish();
    if !node.is_describing() && !rate_node.is_set() {
        node.error("a limit needs a `rate`", Some("write `rate: 100/60s`".to_owned()));
    }
    given?;
    let quota = Quota { algorithm, requests, window, burst };
    Some(Limit { scope: place.name.into(), quota, by, mode, if_unreachable, is_enforced, fields, id: Id::default() })
}

/// `100/60s`
fn rate(text: &str) -> Result<(u32, Duration), String> {
    let (requests, window) = text.split_once('/').ok_or_else(|| format!("`{text}` is not a rate: write `100/60s`"))?;
    let requests = count(requests)?;
    let window = values::duration(window)?;
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        return Err(format!("`{text}`: the time is from 1s to 31 days (744h)"));
    }
    if window / requests < INTERVAL_MIN {
        return Err(format!("`{text}` is more than a million a second"));
    }
    Ok((requests, window))
}

fn count(text: &str) -> Result<u32, String> {
    let count = text.trim().parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("`{text}` is not a whole number of at least 1"))
}

fn by(node: &Node<'_>, place: Place) -> Option<Box<[Part]>> {
    if !node.is_set() && !node.is_describing() {
        return None;
    }
    let entries = node.elements();
    if let Some(entry) = entries.get(PARTS_MAX) {
        entry.error(format!("more than {PARTS_MAX} parts"), None);
    }
    let mut parts: Vec<Part> = Vec::new();
    for entry in entries.iter().take(PARTS_MAX) {
        let Some(part) = part(entry, place) else { continue };
        if !place.is_gateway && !matches!(part, Part::Ip | Part::Header(_)) {
            entry.error(format!("`inbound` knows no {part}: it has `ip` and `header`"), None);
        } else if parts.contains(&part) {
            entry.error(format!("{part} is there twice"), None);
        } else {
            parts.push(part);
        }
    }
    Some(parts.into())
}

fn part(node: &Node<'_>, place: Place) -> Option<Part> {
    if node.is_map() || node.is_describing() {
        let words = if place.is_gateway { &["route", "user", "ip", "key"][..] } else { &["ip"] };
        let section = node.section(&[json!({ "enum": words })]);
        let header = section.field("header", "A field of the request, all lines of it.");
        let name = header.parsed(json!({ "type": "string" }), None, |text| {
            HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a header name"))
        });
        let claim = place.is_gateway.then(|| section.field("claim", "What a verified token says."));
        let says = claim.as_ref().and_then(|claim| claim.text(None));
        section.finish();
        if header.is_set() == claim.is_some_and(|claim| claim.is_set()) && !node.is_describing() {
            node.error("a part is `header: NAME` or `claim: NAME`", None);
        }
        return name.map(Part::Header).or_else(|| says.map(|claim| Part::Claim(claim.into())));
    }
    let known = [("route", Part::Route), ("user", Part::User), ("ip", Part::Ip), ("key", Part::Key)];
    node.choice(&known, None)
}

/// Refuses limits whose counter is not there.
pub(super) fn check(top: &Section<'_>, limits: &[(&'static str, &Limit)], has_redis: bool, is_registered: bool) {
    let find = |mode| limits.iter().find(|(_, limit)| limit.mode == mode);
    if let Some((place, _)) = find(Mode::Redis)
        && !has_redis
    {
        top.field(place, "").error(
            "a limit has `mode: redis`, and there is no `redis`",
            Some("add `redis: 127.0.0.1:6379`".to_owned()),
        );
    }
    if let Some((place, _)) = find(Mode::Shared)
        && !is_registered
    {
        top.field(place, "").error(
            "a limit has `mode: shared`, and this instance is not registered: nobody would know of it",
            Some("give it a `service`, without `registration: off`".to_owned()),
        );
    }
}
