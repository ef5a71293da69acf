//! What Consul is told of our checks: which it runs itself, and which lictor runs and reports as a TTL check. Pure.
//!
//! Checks are about the application. Where Consul would meet `inbound` in its place, which asks for a token, speaks TLS
//! or sheds, and answers for itself where the application is gone, lictor asks the application and reports. So a
//! check means the same wherever the agent is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use lictor_config::{Check, authority};
use lictor_core::Address;
use serde_json::{Value as Json, json};

use super::definition::{Definition, Place};
use super::probe::Question;

/// One call to the agent may hang this long (see `heartbeat`) without the instance turning critical.
const SLACK: Duration = Duration::from_secs(10);
/// Consul's own: smaller ones are raised to it (CONSUL: agent/checks/check.go, MinInterval).
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// What Consul takes where a check has none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A check as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// It has the kind, because Consul goes on running a check of another kind under the same id beside the new one,
    /// even with `replace-existing-checks` (seen with 1.8.7).
    pub(super) id: String,
    kind: &'static str,
    way: Way,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Consul(Json),
    Lictor(Report),
}

/// A check that lictor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) question: Question,
    /// Between runs.
    pub(super) every: Duration,
    /// For one run.
    pub(super) at_most: Duration,
    /// After this much silence of ours the instance is critical.
    ttl: Duration,
    /// The configuration has it for Consul to run.
    is_relayed: bool,
}

/// A check that lictor runs, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) id: String,
    pub(super) report: Report,
}

/// A check that lictor runs, for who looks at a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Its place in the configuration.
    pub index: usize,
    /// What the application is asked.
    pub question: Question,
    /// After this much silence of ours the instance is critical.
    pub ttl: Duration,
    /// The configuration has it for Consul to run, which would meet `inbound`, or nobody, instead of the application.
    pub is_instead: bool,
}

/// Those that lictor runs.
pub(super) fn reported(checks: Vec<Registered>) -> Vec<Reported> {
    let reports = checks.into_iter().filter_map(|check| match check.way {
        Way::Lictor(report) => Some(Reported { id: check.id, report }),
        Way::Consul(_) => None,
    });
    reports.collect()
}

impl Definition {
    /// Our checks, as an agent at this place has to have them.
    pub(super) fn checks(&self, place: Place) -> Vec<Registered> {
        let checks = self.registration.checks.iter().enumerate();
        checks.map(|(index, check)| Registered::new(&self.registration.id, index, self.way(check, place))).collect()
    }

    /// Those that lictor runs.
    pub(crate) fn relayed(&self, place: Place) -> Vec<Relayed> {
        let checks = self.checks(place).into_iter().enumerate();
        let relayed = checks.filter_map(|(index, check)| match check.way {
            Way::Lictor(Report { question, ttl, is_relayed, .. }) => {
                Some(Relayed { index, question, ttl, is_instead: is_relayed })
            }
            Way::Consul(_) => None,
        });
        relayed.collect()
    }

    fn way(&self, check: &Check, place: Place) -> Way {
        let target = || self.target(place);
        let is_relayed = self.is_relayed(place);
        match check {
            Check::Ttl { ttl, probe } => {
                let every = *ttl / 3;
                let question = Question::of(probe.as_deref());
                Way::Lictor(Report { question, every, at_most: every, ttl: *ttl, is_relayed: false })
            }
            Check::Http { target: path, interval, timeout } if path.starts_with('/') => {
                if is_relayed {
                    return relay(Question::Get(path.clone()), *interval, *timeout);
                }
                consul("HTTP", format!("http://{}{path}", target()), *interval, *timeout)
            }
            Check::Http { target: url, interval, timeout } => match self.path_behind_inbound(url, place) {
                Some(path) => relay(Question::Get(path), *interval, *timeout),
                None => consul("HTTP", url.clone(), *interval, *timeout),
            },
            Check::Tcp { interval, timeout } if is_relayed => relay(Question::Connect, *interval, *timeout),
            Check::Tcp { interval, timeout } => consul("TCP", target(), *interval, *timeout),
            Check::Grpc { service, interval, timeout } if is_relayed => {
                relay(Question::Grpc(service.clone()), *interval, *timeout)
            }
            Check::Grpc { service, interval, timeout } => {
                let slash = if service.is_empty() { "" } else { "/" };
                consul("GRPC", format!("{}{slash}{service}", target()), *interval, *timeout)
            }
        }
    }

    /// Whether a check of the application would meet `inbound`: the agent cannot reach the application itself.
    fn is_relayed(&self, place: Place) -> bool {
        let is_reached = place.is_agent_local && self.app.address.as_ref().is_some_and(|app| app.tcp().is_some());
        self.is_inbound_there() && !is_reached
    }

    /// Where Consul asks for the application. A registered port that `inbound` has left is asked itself: nobody answers
    /// our callers there.
    fn target(&self, place: Place) -> String {
        let is_left = self.is_inbound && !self.is_inbound_there();
        match self.app.address.as_ref().and_then(Address::tcp) {
            Some(app) if place.is_agent_local && !is_left => {
                SocketAddr::new(reachable(app.ip()), app.port()).to_string()
            }
            _ => authority(self.address(place).as_deref().unwrap_or("127.0.0.1"), self.registration.port),
        }
    }

    /// The path of a URL that leads to our own `inbound`.
    fn path_behind_inbound(&self, url: &str, place: Place) -> Option<String> {
        let url: Uri = url.parse().ok()?;
        let host = url.host()?.trim_matches(['[', ']']);
        let standard = if url.scheme_str() == Some("https") { 443 } else { 80 };
        let ip: Option<IpAddr> = host.parse().ok();
        let is_loopback = host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback());
        let is_address = self
            .address(place)
            .is_some_and(|ours| host.eq_ignore_ascii_case(&ours) || ip.is_some_and(|ip| ours.parse() == Ok(ip)));
        let is_here = is_address || (place.is_agent_local && is_loopback);
        let is_inbound =
            self.is_inbound_there() && is_here && url.port_u16().unwrap_or(standard) == self.registration.port;
        is_inbound.then(|| url.path_and_query().map_or("/", |path| path.as_str()).to_owned())
    }
}

impl Registered {
    fn new(instance: &str, index: usize, way: Way) -> Self {
        let kind = match &way {
            Way::Lictor(_) => "ttl",
            Way::Consul(body) if body.get("HTTP").is_some() => "http",
            Way::Consul(body) if body.get("GRPC").is_some() => "grpc",
            Way::Consul(_) => "tcp",
        };
        Self { id: format!("{instance}:{}:{kind}", index + 1), kind, way }
    }

    /// The check in the body of a registration.
    pub(super) fn body(self, definition: &Definition, status: &str) -> Json {
        let mut body = match self.way {
            Way::Consul(body) => body,
            Way::Lictor(report) => json!({ "TTL": go(report.ttl) }),
        };
        body["CheckID"] = json!(self.id);
        body["Name"] = json!(format!("{} {}", definition.service, self.kind));
        body["Status"] = json!(status);
        body["DeregisterCriticalServiceAfter"] = json!(go(definition.registration.deregister_after));
        body
    }
}

fn consul(kind: &str, target: String, interval: Duration, timeout: Duration) -> Way {
    let mut body = json!({ "Interval": go(interval), "Timeout": go(timeout) });
    body[kind] = json!(target);
    if kind == "HTTP" {
        body["Method"] = json!("GET");
    }
    Way::Consul(body)
}

/// What Consul would have asked, as often and for as long.
fn relay(question: Question, interval: Duration, timeout: Duration) -> Way {
    let every = interval.max(LEAST_INTERVAL);
    let at_most = if timeout.is_zero() { TIMEOUT } else { timeout };
    Way::Lictor(Report { question, every, at_most, ttl: every + at_most + SLACK, is_relayed: true })
}

fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

/// A duration as Go writes it.
fn go(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use lictor_config::{Config, Environment, Text, load};

    use super::*;

    const LOCAL: Place = Place { is_agent_local: true, seen_as: None };
    const ADDRESS: &str = "192.0.2.7";

    fn elsewhere() -> Place {
        Place { is_agent_local: false, seen_as: Some(ADDRESS.parse().unwrap()) }
    }

    fn config(yaml: &str) -> Config {
        let text = Text { name: "test".to_owned(), text: format!("service: web\n{yaml}\n") };
        load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config
    }

    /// The only check's kind and what it asks: Consul's target, or, for lictor, the question.
    fn asked(definition: &Definition, place: Place) -> String {
        match definition.checks(place).as_slice() {
            [] => "nothing".to_owned(),
            [Registered { way: Way::Lictor(report), .. }] => match &report.question {
                Question::Connect => "lictor connects".to_owned(),
                Question::Get(path) => format!("lictor gets {path}"),
                Question::Grpc(service) => format!("lictor calls {service}"),
            },
            [Registered { way: Way::Consul(body), .. }] => {
                let kinds = ["HTTP", "TCP", "GRPC"].into_iter();
                kinds.filter_map(|kind| Some(format!("{kind} {}", body[kind].as_str()?))).collect()
            }
            _ => "several".to_owned(),
        }
    }

    const CHECKS: [&str; 9] = [
        "{http: /up}",
        "{http: 'http://192.0.2.9:80/up'}",
        "{http: 'http://192.0.2.7:9000/up?x'}",
        "{http: 'http://localhost:9000/up'}",
        "{grpc: true}",
        "{grpc: shop.Shop}",
        "{tcp: true}",
        "{ttl: 15s, probe: /up}",
        "",
    ];

    #[track_caller]
    fn are(more: &str, place: Place, asks: [&str; 9]) {
        for (check, asks) in CHECKS.iter().zip(asks) {
            let config = config(&format!("registration: {{checks: [{check}]}}\n{more}"));
            assert_eq!(asked(&Definition::of(&config).unwrap(), place), asks, "{check} with {more}");
        }
    }

    #[test]
    fn every_kind_of_check_asks_the_application_wherever_the_agent_is() {
        let (app, inbound) = ("port: 8080", "port: 8080\ninbound: {listen: 9000}");
        let direct = [
            "HTTP http://127.0.0.1:8080/up",
            "HTTP http://192.0.2.9:80/up",
            "HTTP http://192.0.2.7:9000/up?x",
            "HTTP http://localhost:9000/up",
            "GRPC 127.0.0.1:8080",
            "GRPC 127.0.0.1:8080/shop.Shop",
            "TCP 127.0.0.1:8080",
            "lictor gets /up",
            "nothing",
        ];
        are(app, LOCAL, direct);
        let mut own_url = direct;
        own_url[3] = "lictor gets /up";
        are(inbound, LOCAL, own_url);
        let mut far = direct;
        far[0] = "HTTP http://192.0.2.7:8080/up";
        (far[4], far[5]) = ("GRPC 192.0.2.7:8080", "GRPC 192.0.2.7:8080/shop.Shop");
        far[6] = "TCP 192.0.2.7:8080";
        are(app, elsewhere(), far);
        let relayed = [
            "lictor gets /up",
            "HTTP http://192.0.2.9:80/up",
            "lictor gets /up?x",
            "HTTP http://localhost:9000/up",
            "lictor calls ",
            "lictor calls shop.Shop",
            "lictor connects",
            "lictor gets /up",
            "nothing",
        ];
        are(inbound, elsewhere(), relayed);
        let unix = "app: {address: 'unix:/run/app.sock'}\ninbound: {listen: 9000}";
        are(unix, elsewhere(), relayed);
        let mut beside = relayed;
        (beside[2], beside[3]) = (direct[2], "lictor gets /up");
        are(unix, LOCAL, beside);
    }

    #[test]
    fn an_inbound_that_is_not_registered_is_not_met() {
        let yaml = "port: 8080\ncheck: /up\ninbound: {listen: 9000}\nregistration: {advertise: app}";
        let definition = Definition::of(&config(yaml)).unwrap();
        assert_eq!(asked(&definition, elsewhere()), "HTTP http://192.0.2.7:8080/up");
    }

    #[test]
    fn a_reload_that_takes_inbound_away_lets_consul_see_that_nobody_is_there() {
        let off = config("port: 8080\ncheck: /up");
        let moved = config("port: 8080\ncheck: /up\ninbound: {listen: 9001}");
        let on = config("port: 8080\ncheck: /up\ninbound: {listen: 9000}");
        let definition = Definition::of(&on).unwrap();
        for config in [&off, &moved] {
            assert!(definition.follow(config));
            assert!(!definition.follow(config), "it is the same");
            assert_eq!(asked(&definition, elsewhere()), "HTTP http://192.0.2.7:9000/up");
            assert_eq!(asked(&definition, LOCAL), "HTTP http://127.0.0.1:9000/up");
            assert!(definition.follow(&on));
            assert_eq!(asked(&definition, elsewhere()), "lictor gets /up");
        }
        // One that began without keeps the application's port.
        let definition = Definition::of(&off).unwrap();
        definition.follow(&on);
        assert_eq!(asked(&definition, elsewhere()), "HTTP http://192.0.2.7:8080/up");
    }

    #[test]
    fn a_relayed_check_runs_as_often_as_consuls_and_outlives_a_call_that_hangs() {
        let secs = Duration::from_secs;
        for (interval, timeout, every, at_most, ttl) in
            [(secs(10), secs(5), secs(10), secs(5), 25), (secs(0), secs(0), secs(1), secs(10), 21)]
        {
            let Way::Lictor(report) = relay(Question::Connect, interval, timeout) else { panic!() };
            assert_eq!((report.every, report.at_most, report.ttl), (every, at_most, secs(ttl)));
        }
        let definition = Definition::of(&config("port: 8080\ninbound: {listen: 9000}\ncheck: /up")).unwrap();
        let body = definition.body(elsewhere(), "passing");
        assert_eq!(body["Checks"][0]["TTL"], "25000ms");
        assert_eq!(body["Checks"][0]["DeregisterCriticalServiceAfter"], "60000ms");
        assert_eq!(body["Checks"][0].get("HTTP"), None);
    }
}
