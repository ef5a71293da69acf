//! What is shown of a gateway: its routes as `/gateway/stats` tells them, and the busiest of them for the dashboard, with
//! what became of their requests and what their limits say. Pure functions of the mesh and of the counters.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lictor_core::Mesh;
use lictor_core::gateway::auth::Mode;
use lictor_core::gateway::maintenance::State;
use lictor_core::gateway::{Action, Gateway, Route, Send};
use lictor_core::limit::Limit;
use serde_json::{Map, Value as Json, json};

use crate::metrics::{LimitCounted, Process, RouteCounted, Tally, added};

/// Routes of a frame.
pub(super) const SHOWN: usize = 50;
/// What a route's rank keeps of itself each second: the busiest of the last ten seconds or so, and no row that jumps.
const KEPT: f64 = 0.9;

/// A gateway's routes by their label, which several may have.
pub(super) struct Labels<'g> {
    routes: HashMap<&'g str, Vec<&'g Route>>,
}

impl<'g> Labels<'g> {
    pub(super) fn of(gateway: Option<&'g Gateway>) -> Self {
        let mut routes: HashMap<&str, Vec<&Route>> = HashMap::new();
        for route in gateway.into_iter().flat_map(|gateway| &gateway.routes) {
            routes.entry(&route.label).or_default().push(route);
        }
        Self { routes }
    }

    /// Whether requests of this upstream, or of none, are those of the route: what goes elsewhere is a copy, and of a route that
    /// is gone nothing is told. Without a label are those that no route is for.
    pub(super) fn lead(&self, upstream: &str, label: &str) -> bool {
        let leads = |send: &Send| {
            let mut variants = send.split.iter().flat_map(|split| &split.variants);
            *send.upstream == *upstream || variants.any(|variant| *variant.upstream == *upstream)
        };
        let of = |route: &&Route| matches!(&route.action, Action::Send(send) if leads(send));
        if upstream.is_empty() {
            return label.is_empty() || self.routes.contains_key(label);
        }
        self.routes.get(label).is_some_and(|routes| routes.iter().any(of))
    }
}

/// In the words of gateways that were written by hand: `route`, `target` of what is at a URL, `serviceName` of what Consul
/// has, and `auth` whether one must show who he is; for each method and path one.
pub(super) fn stats(mesh: &Mesh, gateway: &Gateway, tally: &Tally, uptime: Duration) -> Map<String, Json> {
    let nothing = RouteCounted::default();
    let rows = gateway.table.iter().filter_map(|(index, matcher)| Some((gateway.routes.get(index)?, matcher)));
    let rows = rows.flat_map(|(route, matcher)| {
        let methods = matcher.conditions.methods.iter().map(http::Method::as_str);
        let methods: Vec<&str> = if methods.len() > 0 { methods.collect() } else { vec!["ALL"] };
        let page = of_route(mesh, route, tally.routes.get(&*route.label).unwrap_or(&nothing));
        methods.into_iter().map(move |method| {
            let mut page = page.clone();
            page.insert("route".to_owned(), json!(format!("{method} {}", route.label)));
            Json::Object(page)
        })
    });
    let mut page = Map::new();
    page.insert("routes".to_owned(), rows.collect());
    page.insert("uptime".to_owned(), json!(uptime.as_secs_f64()));
    page.insert("memoryUsage".to_owned(), json!({ "rss": Process::read().resident_bytes }));
    page
}

fn of_route(mesh: &Mesh, route: &Route, counted: &RouteCounted) -> Map<String, Json> {
    let mut page = Map::new();
    if let Action::Send(send) = &route.action
        && let Some(upstream) = mesh.upstreams.get(&send.upstream)
    {
        if upstream.census.source == "static" {
            let scheme = if upstream.tls.is_some() { "https" } else { "http" };
            let first = upstream.endpoints.first().map(|endpoint| format!("{scheme}://{}", endpoint.address));
            page.extend(first.map(|url| ("target".to_owned(), json!(url))));
        } else {
            page.insert("serviceName".to_owned(), json!(upstream.service));
        }
    }
    let is_asked = route.rules.auth.as_ref().is_some_and(|auth| auth.mode == Mode::Required);
    page.insert("auth".to_owned(), json!(is_asked));
    let RouteCounted { total, failed, reasons } = counted;
    page.insert("requests".to_owned(), json!({ "total": total, "failed": failed, "reasons": reasons }));
    page
}

/// The counters at one moment, and how busy each route has been.
#[derive(Debug, Default)]
pub(super) struct Moment {
    routes: HashMap<String, RouteCounted>,
    limits: HashMap<String, LimitCounted>,
    ranks: HashMap<String, f64>,
    /// Of the routes that are shown.
    latencies: HashMap<String, Vec<u64>>,
}

/// What the data plane is asked about single routes.
pub(super) struct Asked<'a> {
    /// How many of its requests took how long.
    pub(super) latencies: &'a dyn Fn(&str) -> Option<Vec<u64>>,
    /// How much of a limit is taken.
    pub(super) taken: &'a dyn Fn(&Limit, &str) -> Option<f64>,
    /// Whether it is in maintenance.
    pub(super) maintenance: &'a dyn Fn(&Route) -> State,
}

impl Moment {
    pub(super) fn new(tally: &mut Tally) -> Self {
        let (routes, limits) = (std::mem::take(&mut tally.routes), std::mem::take(&mut tally.limits));
        Self { routes, limits, ..Self::default() }
    }

    /// What is shown of this moment, which came so many seconds after the one before.
    pub(super) fn frame(
        &mut self,
        gateway: &Gateway,
        labels: &Labels<'_>,
        before: Option<(&Self, f64)>,
        asked: &Asked<'_>,
    ) -> Json {
        self.rank(before);
        let shown = self.busiest(gateway);
        self.latencies = shown.iter().filter_map(|label| Some((label.clone(), (asked.latencies)(label)?))).collect();
        let rows: Vec<Json> = shown.iter().map(|label| self.row(label, labels, before, asked)).collect();
        let own = gateway.rules.limits.iter().map(|limit| self.limit(limit, "", before, asked));
        json!({ "routes": gateway.routes.len(), "rows": rows, "limits": own.collect::<Vec<_>>() })
    }

    fn rank(&mut self, before: Option<(&Self, f64)>) {
        let Some((before, seconds)) = before else { return };
        for (label, counted) in &self.routes {
            let grown = counted.total.saturating_sub(before.routes.get(label).map_or(0, |counted| counted.total));
            let rank = before.ranks.get(label).copied().unwrap_or_default() * KEPT + grown as f64 / seconds;
            self.ranks.insert(label.clone(), rank);
        }
    }

    /// The labels that are shown: the busiest first, then those that nobody has asked for, in the configuration's order.
    fn busiest(&self, gateway: &Gateway) -> Vec<String> {
        let mut asked: Vec<(&String, &RouteCounted)> = self.routes.iter().collect();
        let rank = |label: &String| self.ranks.get(label).copied().unwrap_or_default();
        let order = |(label, counted): &(&String, &RouteCounted), (other, theirs): &(&String, &RouteCounted)| {
            let ranks = rank(other).partial_cmp(&rank(label)).unwrap_or(Ordering::Equal);
            ranks.then(theirs.total.cmp(&counted.total)).then(label.cmp(other))
        };
        if asked.len() > SHOWN {
            asked.select_nth_unstable_by(SHOWN, order);
            asked.truncate(SHOWN);
        }
        asked.sort_unstable_by(order);
        let mut shown: Vec<String> = asked.into_iter().map(|(label, _)| label.clone()).collect();
        let mut known: HashSet<&str> = self.routes.keys().map(String::as_str).collect();
        let quiet = gateway.routes.iter().filter(|route| known.insert(&route.label));
        let room = SHOWN.saturating_sub(shown.len());
        shown.extend(quiet.take(room).map(|route| route.label.to_string()));
        shown
    }

    fn row(&self, label: &str, labels: &Labels<'_>, before: Option<(&Self, f64)>, asked: &Asked<'_>) -> Json {
        let routes = labels.routes.get(label).map_or(&[][..], Vec::as_slice);
        let nothing = RouteCounted::default();
        let now = self.routes.get(label).unwrap_or(&nothing);
        let mut known = HashSet::new();
        let limits = routes.iter().flat_map(|route| route.rules.limits.iter()).filter(|limit| known.insert(&limit.id));
        let limits = limits.map(|limit| self.limit(limit, label, before, asked));
        let mut page = json!({
            "route": label,
            "maintenance": routes.iter().map(|route| (asked.maintenance)(route)).max().map(|state| state.to_string()),
            "to": routes.first().map(|route| to(&route.action)),
            "total": now.total,
            "failed": now.failed,
            "limits": limits.collect::<Vec<_>>(),
        });
        let then = |(before, _): (&Self, f64)| before.routes.get(label).cloned().unwrap_or_default();
        let (then, seconds) = (before.map(then), before.map(|(_, seconds)| seconds));
        let rate = |now: u64, then: u64| seconds.map(|seconds| now.saturating_sub(then) as f64 / seconds);
        let mut reasons: Vec<Json> = Vec::new();
        for (reason, count) in &now.reasons {
            let then = then.as_ref().and_then(|then| then.reasons.get(reason)).copied().unwrap_or_default();
            reasons.push(json!({ "reason": reason, "total": count, "rate": rate(*count, then) }));
        }
        page["reasons"] = json!(reasons);
        let Some(then) = then else { return page };
        let (grown, failed) = (now.total.saturating_sub(then.total), now.failed.saturating_sub(then.failed));
        page["rate"] = json!(rate(now.total, then.total));
        page["errors"] = json!(rate(now.failed, then.failed));
        page["error_ratio"] = json!((grown > 0).then(|| failed as f64 / grown as f64));
        let earlier = before.and_then(|(before, _)| before.latencies.get(label));
        let took = self.latencies.get(label).zip(earlier).map(|(now, then)| added(Some(then), Some(now)));
        for (key, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
            page[key] = json!(took.as_ref().and_then(|took| lictor_proxy::quantile(took, share)));
        }
        page
    }

    /// A limit as it is for this route; what it has said is of all that it is for.
    fn limit(&self, limit: &Limit, label: &str, before: Option<(&Self, f64)>, asked: &Asked<'_>) -> Json {
        let of = |moment: &Self| moment.limits.get(&*limit.scope).copied().unwrap_or_default();
        let now = of(self);
        let by = limit.by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let seconds = limit.quota.window.as_secs_f64();
        let rates = before.map(|(before, seconds)| {
            let then = of(before);
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            json!({
                "admitted": rate(now.admitted, then.admitted),
                "refused": rate(now.refused, then.refused),
                "would_refuse": rate(now.would_refuse, then.would_refuse),
                "unavailable": rate(now.unavailable, then.unavailable),
            })
        });
        json!({
            "limit": limit.scope,
            "requests": limit.quota.requests,
            "seconds": seconds,
            "by": by,
            "taken": (asked.taken)(limit, label),
            "refused": now.refused + now.would_refuse,
            "rates": rates,
        })
    }
}

/// Where it leads, in a word or two.
fn to(action: &Action) -> String {
    match action {
        Action::Send(Send { upstream, split, .. }) => {
            split.as_ref().map_or_else(|| upstream.to_string(), ToString::to_string)
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.status.as_u16()),
        Action::Answer(answer) => format!("answer {}", answer.status.as_u16()),
    }
}
