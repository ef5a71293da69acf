//! Maintenance: a gateway, or a route of it, answers that it will be back, to everybody but those who look after it.
//!
//! The configuration may say so, and an operator may order it. What lasts longest holds; only a route that says `off` is not
//! reached by what is ordered of all.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::when::When;
use super::{Gateway, Route};
use crate::cidr::Cidrs;
use crate::secret::Secret;

/// So many orders about routes hold at a time, so many routes a gateway has at most.
pub const ORDERS_MAX: usize = 10_000;

/// Of many so many are told.
const SHOWN: usize = 10;

/// The year 9999: an end that no date can say is none.
const LATEST_MS: u64 = 253_370_764_800_000;

/// What a route says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Whether it is in maintenance.
    pub switch: Switch,
    /// When clients may come back, where no end is known.
    pub retry_after: Duration,
    /// Who is served as ever.
    pub allow: Allow,
}

/// What the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// It is, once somebody orders it.
    #[default]
    Ordered,
    /// It is.
    On,
    /// It is not, but for an order about this very route.
    Never,
}

/// Who is served as ever: whoever one of these is true of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allow {
    /// The client's address.
    pub addresses: Cidrs,
    /// Fields that the request has once, with this value.
    pub headers: Vec<(HeaderName, Secret)>,
    /// What is known of who asks; empty: that lets nobody in.
    pub claims: When,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { switch: Switch::default(), retry_after: Duration::from_secs(60), allow: Allow::default() }
    }
}

/// What an operator orders: this is in maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The route's label; `None`: all. To be written in any case: what somebody forgot does not mean all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub route: Option<String>,
    /// Its end, in milliseconds since the epoch; `None`: when it is taken back.
    #[serde(deserialize_with = "Option::deserialize")]
    pub until_ms: Option<u64>,
}

/// All that is ordered: each route once, and sorted by routes, since each request asks for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Order>")]
pub struct Orders(Vec<Order>);

/// Whether a route is in maintenance. The greater lasts longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is not.
    #[default]
    Off,
    /// It is, until then.
    Until(SystemTime),
    /// It is.
    On,
}

impl Orders {
    /// As they are written down; in words why they are none.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let orders: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if orders.0.len() > ORDERS_MAX + 1 { Err(format!("there are more than {ORDERS_MAX}")) } else { Ok(orders) }
    }

    /// Whether nothing is ordered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is ordered after this: that a route (`None`: all) is in maintenance until then (`None`: until it is taken back).
    pub fn on(&self, route: Option<&str>, end: Option<SystemTime>, now: SystemTime) -> Result<Self, String> {
        let mut orders = self.without(route, now);
        if route.is_some() && orders.0.len() >= ORDERS_MAX {
            return Err(format!("{ORDERS_MAX} routes are in maintenance already"));
        }
        let (Ok(place) | Err(place)) = orders.place(route);
        orders.0.insert(place, Order { route: route.map(str::to_owned), until_ms: end.map(millis) });
        Ok(orders)
    }

    /// The same, after the order about a route, or all orders, were taken back.
    #[must_use]
    pub fn off(&self, route: Option<&str>, now: SystemTime) -> Self {
        if route.is_none() { Self::default() } else { self.without(route, now) }
    }

    /// What has ended is left out, too.
    fn without(&self, route: Option<&str>, now: SystemTime) -> Self {
        let now = millis(now);
        let stays = |order: &&Order| order.route.as_deref() != route && order.until_ms.is_none_or(|end| end > now);
        Self(self.0.iter().filter(stays).cloned().collect())
    }

    fn of(&self, route: Option<&str>) -> State {
        self.place(route).map(|place| self.0[place].state()).unwrap_or_default()
    }

    /// Where the order about a route is, or would be.
    fn place(&self, route: Option<&str>) -> Result<usize, usize> {
        self.0.binary_search_by(|order| order.route.as_deref().cmp(&route))
    }

    /// Labels of the gateway's routes that are in maintenance now, and how long.
    pub fn routes<'g>(&'g self, gateway: &'g Gateway, now: SystemTime) -> impl Iterator<Item = (&'g str, State)> {
        let all = gateway.routes.iter().map(move |route| (&*route.label, State::of(route, self, now)));
        all.filter(|(_, state)| *state != State::Off)
    }
}

/// Whoever writes to KV may write them in any order, and a route twice: the longest holds.
impl From<Vec<Order>> for Orders {
    fn from(mut orders: Vec<Order>) -> Self {
        orders.sort_by(|a, b| (&a.route, Reverse(a.state())).cmp(&(&b.route, Reverse(b.state()))));
        orders.dedup_by(|after, before| after.route == before.route);
        Self(orders)
    }
}

/// `all on, shop.example/a/* until Mon, 30 Nov 2026 13:00:00 GMT`, or `none`; of many the first.
impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, order) in self.0.iter().take(SHOWN).enumerate() {
            let route = order.route.as_deref().unwrap_or("all");
            write!(f, "{}{route} {}", if number == 0 { "" } else { ", " }, order.state())?;
        }
        match self.0.len() {
            0 => f.write_str("none"),
            count if count > SHOWN => write!(f, ", and {} more", count - SHOWN),
            _ => Ok(()),
        }
    }
}

impl Order {
    fn state(&self) -> State {
        // Whoever writes to KV may write any number.
        let end = self.until_ms.filter(|ms| *ms < LATEST_MS).map(Duration::from_millis);
        end.map_or(State::On, |end| State::Until(SystemTime::UNIX_EPOCH + end))
    }
}

impl State {
    /// Whether this route is in maintenance now.
    pub fn of(route: &Route, orders: &Orders, now: SystemTime) -> Self {
        Self::at(route.rules.maintenance.as_deref(), orders, &route.label, now)
    }

    /// The same, by what the route says and its label.
    pub fn at(own: Option<&Maintenance>, orders: &Orders, label: &str, now: SystemTime) -> Self {
        let of_all = || orders.of(None);
        let state = match own.map(|own| own.switch).unwrap_or_default() {
            Switch::On => Self::On,
            Switch::Ordered => of_all().max(orders.of(Some(label))),
            Switch::Never => orders.of(Some(label)),
        };
        if matches!(state, Self::Until(end) if end <= now) { Self::Off } else { state }
    }

    /// When clients may come back.
    pub fn retry_after(self, own: Option<&Maintenance>, now: SystemTime) -> Duration {
        match self {
            Self::Until(end) => end.duration_since(now).unwrap_or_default(),
            Self::On | Self::Off => own.map_or_else(|| Maintenance::default().retry_after, |own| own.retry_after),
        }
    }
}

/// `on`, `until Mon, 30 Nov 2026 13:00:00 GMT`, or nothing.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::On => f.write_str("on"),
            Self::Until(end) => write!(f, "until {}", httpdate::fmt_http_date(*end)),
        }
    }
}

impl Allow {
    /// Whether this client, or what his request shows, may pass, whoever he is.
    pub fn passes(&self, client: Option<IpAddr>, headers: &HeaderMap) -> bool {
        let has = |(name, value): &(HeaderName, Secret)| {
            let mut shown = headers.get_all(name).into_iter();
            shown.next().is_some_and(|shown| value.is(shown.as_bytes())) && shown.next().is_none()
        };
        client.is_some_and(|client| self.addresses.has(client)) || self.headers.iter().any(has)
    }

    /// Whether somebody of whom this is known may.
    pub fn passes_as(&self, claims: Option<&Map<String, Value>>) -> bool {
        !self.claims.is_empty() && self.claims.holds(claims)
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + SECOND * 1_000_000
    }

    fn list(list: &[(Option<&str>, Option<u64>)]) -> Vec<Order> {
        let order = |(route, until_s): &(Option<&str>, Option<u64>)| Order {
            route: route.map(str::to_owned),
            until_ms: until_s.map(|seconds| millis(now()) + seconds * 1000),
        };
        list.iter().map(order).collect()
    }

    fn orders(list: &[(Option<&str>, Option<u64>)]) -> Orders {
        self::list(list).into()
    }

    #[test]
    fn what_lasts_longest_holds() {
        let until = |seconds: u32| State::Until(now() + SECOND * seconds);
        let (all, all_for_9, own, own_for_5) =
            ((None, None), (None, Some(9)), (Some("/a"), None), (Some("/a"), Some(5)));
        for (switch, ordered, expected) in [
            (Switch::Ordered, &[][..], State::Off),
            (Switch::On, &[], State::On),
            (Switch::Never, &[], State::Off),
            (Switch::Ordered, &[all], State::On),
            (Switch::Ordered, &[all_for_9], until(9)),
            (Switch::Ordered, &[own], State::On),
            (Switch::Ordered, &[all_for_9, own_for_5], until(9)),
            (Switch::Ordered, &[all, own_for_5], State::On),
            (Switch::Ordered, &[all_for_9, own], State::On),
            (Switch::Ordered, &[(Some("/b"), None)], State::Off),
            (Switch::Ordered, &[(Some("/A"), None)], State::Off),
            (Switch::Ordered, &[(None, Some(0))], State::Off),
            (Switch::On, &[all_for_9], State::On),
            (Switch::Never, &[all, all_for_9], State::Off),
            (Switch::Never, &[all, own_for_5], until(5)),
        ] {
            let own = Maintenance { switch, ..Maintenance::default() };
            assert_eq!(State::at(Some(&own), &orders(ordered), "/a", now()), expected, "{switch:?} {ordered:?}");
        }
        let own = Maintenance { retry_after: SECOND * 7, ..Maintenance::default() };
        assert_eq!(until(9).retry_after(Some(&own), now()), SECOND * 9);
        assert_eq!(State::On.retry_after(Some(&own), now()), SECOND * 7);
        assert_eq!(State::On.retry_after(None, now()), SECOND * 60);
    }

    #[test]
    fn an_order_replaces_that_of_its_route_and_the_end_of_all_ends_each() {
        let (all, one, two, over) = ((None, None), (Some("/a"), None), (Some("/b"), Some(9)), (Some("/c"), Some(0)));
        let before = orders(&[all, one, two, over]);
        let end = Some(now() + SECOND * 5);
        assert_eq!(before.on(Some("/a"), end, now()), Ok(orders(&[all, two, (Some("/a"), Some(5))])));
        assert_eq!(before.on(None, end, now()), Ok(orders(&[one, two, (None, Some(5))])));
        assert_eq!(before.off(Some("/a"), now()), orders(&[all, two]));
        assert_eq!(before.off(Some("/d"), now()), orders(&[all, one, two]));
        assert_eq!(before.off(None, now()), orders(&[]));
        let each = (0..ORDERS_MAX).map(|n| Order { route: Some(n.to_string()), until_ms: None });
        let full = Orders::from(each.collect::<Vec<_>>());
        assert!(full.on(Some("one more"), None, now()).is_err() && full.on(Some("7"), None, now()).is_ok());
        let all = full.on(None, None, now()).expect("all is one of few words");
        assert_eq!(Orders::parse(&serde_json::to_vec(&all).unwrap()), Ok(all));
    }

    #[test]
    fn each_route_is_found_however_they_were_written_and_ordered() {
        let until = |seconds: u32| State::Until(now() + SECOND * seconds);
        let written = [
            (Some("/b"), Some(3)),
            (Some("/a/*"), Some(7)),
            (None, Some(1)),
            (Some("shop.example/a"), None),
            (Some("/a"), Some(5)),
            (Some("/b"), None),
            (Some("/a"), Some(2)),
            (None, Some(2)),
            (Some("/b"), Some(9)),
            (Some(""), Some(4)),
        ];
        let found = [
            (None, until(2)),
            (Some("/a"), until(5)),
            (Some("/a/*"), until(7)),
            (Some("/b"), State::On),
            (Some("shop.example/a"), State::On),
            (Some(""), until(4)),
            (Some("/"), State::Off),
            (Some("/a/"), State::Off),
            (Some("shop.example/b"), State::Off),
            (Some("~"), State::Off),
        ];
        for turn in 0..written.len() {
            let turned = [&written[turn..], &written[..turn]].concat();
            let read = Orders::parse(&serde_json::to_vec(&list(&turned)).unwrap()).unwrap();
            let ordered = turned.iter().fold(Orders::default(), |before, (route, seconds)| {
                before.on(*route, seconds.map(|seconds| now() + SECOND * seconds as u32), now()).unwrap()
            });
            assert_eq!((read.0.len(), ordered.0.len()), (6, 6), "{turned:?}");
            for (route, longest) in found {
                let last = turned.iter().rfind(|(own, _)| *own == route);
                let last = last.map_or(State::Off, |(_, end)| end.map_or(State::On, |end| until(end as u32)));
                assert_eq!((read.of(route), ordered.of(route)), (longest, last), "{route:?} of {turned:?}");
            }
        }
    }

    #[test]
    fn what_is_in_kv_is_read_or_refused() {
        let written = serde_json::to_vec(&orders(&[(None, None), (Some("/a"), Some(5))])).unwrap();
        assert_eq!(Orders::parse(&written), Ok(orders(&[(None, None), (Some("/a"), Some(5))])));
        for text in [
            "",
            "nonsense",
            "{}",
            "[1]",
            "[{}",
            "[{}]",
            r#"[{"route": 1, "until_ms": null}]"#,
            r#"[{"rout": "/a"}]"#,
            r#"[{"route": "/a"}]"#,
            r#"[{"until_ms": 5}]"#,
        ] {
            assert!(Orders::parse(text.as_bytes()).is_err(), "{text}");
        }
        let last = format!(r#"[{{"route": null, "until_ms": {}}}]"#, u64::MAX);
        let state = State::at(None, &Orders::parse(last.as_bytes()).unwrap(), "/a", now());
        assert_eq!((state, state.to_string()), (State::On, "on".to_owned()));
    }

    #[test]
    fn who_is_allowed_passes() {
        let claims = |json: Value| json.as_object().cloned();
        let tests = vec![(
            lictor_jose::rules::Claim::parse("role").unwrap(),
            lictor_jose::rules::Test::OneOf(vec!["ops".into()]),
        )];
        let allow = Allow {
            addresses: ["192.0.2.0/24", "2001:db8::/32"].iter().map(|range| range.parse().unwrap()).collect(),
            headers: vec![(HeaderName::from_static("x-preview"), Secret::new("let me in"))],
            claims: When(tests.into()),
        };
        for (client, shown, passes) in [
            (None, &[][..], false),
            (Some("198.51.100.7"), &[], false),
            (Some("192.0.2.7"), &[], true),
            (Some("::ffff:192.0.2.7"), &[], true),
            (Some("2001:db8::1"), &[], true),
            (None, &["let me in"], true),
            (None, &["let me in", "let me in"], false),
            (None, &["let me"], false),
            (None, &["let me in!"], false),
            (None, &[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in shown {
                headers.append("x-preview", value.parse().unwrap());
            }
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(allow.passes(client, &headers), passes, "{client:?} {shown:?}");
        }
        assert!(allow.passes_as(claims(serde_json::json!({"role": "ops"})).as_ref()));
        assert!(!allow.passes_as(claims(serde_json::json!({"role": "user"})).as_ref()) && !allow.passes_as(None));
        assert!(!Allow::default().passes_as(claims(serde_json::json!({"role": "ops"})).as_ref()));
    }
}
