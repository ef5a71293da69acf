//! What we say of ourselves to Consul, and whether what the agent holds is that. Pure.
//!
//! Only fields that Consul 1.8 knows: an unknown one is refused with a 400.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lictor_config::{App, Config, META_PAIRS, META_VALUE, Registration, Upstream, check_meta};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// Maintenance that lictor itself began says so; whatever a person began is left alone.
pub(super) const OWN_MAINTENANCE: &str = "lictor: ";

/// The Meta key with the services that we call, for whoever draws the map: `user-service,product-service`. What does
/// not fit into one value goes on in `lictor-upstreams-2`, and so on.
pub const UPSTREAMS: &str = "lictor-upstreams";
/// More than so many values are not written; the last one ends in `...` then.
const UPSTREAM_VALUES: usize = 8;

/// Who we are.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(super) service: String,
    pub(super) registration: Registration,
    pub(super) app: App,
    /// The registered port is `inbound`'s.
    pub(super) is_inbound: bool,
    followed: RwLock<Followed>,
    patched: RwLock<Patched>,
}

/// What the application has changed of our Meta since the start.
#[derive(Clone, Debug, Default)]
struct Patched {
    /// How often.
    count: u64,
    /// `None`: a pair of the configuration's that is taken away.
    pairs: BTreeMap<String, Option<String>>,
}

/// Changes of Meta; `None` takes a pair away.
pub type MetaPatch = BTreeMap<String, Option<String>>;

/// What a reload changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    /// The services that we call, in order.
    upstreams: Vec<String>,
    /// Where `inbound` listens, while it is on.
    inbound: Option<u16>,
}

/// From where the agent and others see us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The agent is on this machine: it reaches the application on loopback.
    pub(crate) is_agent_local: bool,
    /// Our address on the way to the agent.
    pub(crate) seen_as: Option<IpAddr>,
}

impl Definition {
    /// `None` for a caller that is not registered.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let (service, registration) = (config.service.clone()?, config.registration.clone()?);
        let followed = Followed::of(config);
        let is_inbound = followed.inbound == Some(registration.port);
        let (app, followed, patched) = (config.app.clone(), RwLock::new(followed), RwLock::default());
        Some(Self { service, registration, app, is_inbound, followed, patched })
    }

    /// Takes from another configuration what may change while we are registered; whether that is another registration.
    pub(super) fn follow(&self, config: &Config) -> bool {
        let (mut followed, next) = (self.followed.write(), Followed::of(config));
        let is_other = *followed != next;
        *followed = next;
        is_other
    }

    /// Changes our Meta, if Consul will take what it is then; what that is, without our own keys, and of how many changes.
    pub(super) fn patch(&self, patch: &MetaPatch) -> Result<(BTreeMap<String, String>, u64), String> {
        if let Some(key) = patch.keys().find(|key| key.starts_with(UPSTREAMS)) {
            return Err(format!("`{key}` is lictor's own"));
        }
        let mut patched = self.patched.write();
        let mut next = patched.clone();
        next.pairs.extend(patch.clone());
        next.pairs.retain(|key, value| value.is_some() || self.registration.meta.contains_key(key));
        let meta = self.patched_meta(&next);
        check_meta(&meta)?;
        next.count += 1;
        let count = next.count;
        *patched = next;
        Ok((meta, count))
    }

    /// How often it was changed.
    pub(super) fn patches(&self) -> u64 {
        self.patched.read().count
    }

    /// The configuration's, as the application has changed it.
    fn patched_meta(&self, patched: &Patched) -> BTreeMap<String, String> {
        let mut meta = self.registration.meta.clone();
        for (key, value) in &patched.pairs {
            match value {
                Some(value) => drop(meta.insert(key.clone(), value.clone())),
                None => drop(meta.remove(key)),
            }
        }
        meta
    }

    /// Whether `inbound` listens at the registered port: a reload may have moved or closed it.
    pub(super) fn is_inbound_there(&self) -> bool {
        self.followed.read().inbound == Some(self.registration.port)
    }

    /// The body of the registration. New checks start as `status`; those that exist keep theirs.
    pub(crate) fn body(&self, place: Place, status: &str) -> Json {
        let ours = &self.registration;
        let mut body = json!({
            "ID": ours.id,
            "Name": self.service,
            "Port": ours.port,
            "Tags": ours.tags,
            "Meta": self.meta(),
            "Weights": { "Passing": ours.weight_passing, "Warning": ours.weight_warning },
            "EnableTagOverride": false,
        });
        let address = self.address(place);
        if let Some(address) = &address {
            body["Address"] = json!(address);
        }
        let checks = self.checks(place).into_iter().map(|check| check.body(self, status));
        body["Checks"] = Json::Array(checks.collect());
        body
    }

    /// Whether what the agent holds is not what we said. Addresses that Consul adds by itself do not count.
    pub(super) fn drift(&self, held: &[u8], place: Place) -> Result<Drift, serde_json::Error> {
        let held: Held = serde_json::from_slice(held)?;
        let is_elsewhere = held.service == self.service
            && (held.port != i64::from(self.registration.port)
                || self.address(place).is_some_and(|address| !held.address.is_empty() && address != held.address));
        Ok(match self.has_drifted(&held, place) {
            false => Drift::None,
            true if is_elsewhere => Drift::Elsewhere(format!("{}:{}", held.address, held.port)),
            true => Drift::Otherwise,
        })
    }

    fn has_drifted(&self, held: &Held, place: Place) -> bool {
        let ours = &self.registration;
        let weights = held.weights.unwrap_or(HeldWeights { passing: 1, warning: 1 });
        held.service != self.service
            || held.port != i64::from(ours.port)
            || held.tags.clone().unwrap_or_default() != ours.tags
            || held.meta.clone().unwrap_or_default() != self.meta()
            || (weights.passing, weights.warning) != (ours.weight_passing, ours.weight_warning)
            || self.address(place).is_some_and(|address| address != held.address)
    }

    /// Compares the agent's checks for our id with ours.
    pub(super) fn compare(&self, held: &[HeldCheck], place: Place) -> Comparison {
        let ours: BTreeSet<String> = self.checks(place).into_iter().map(|check| check.id).collect();
        let (maintenance, checks): (Vec<_>, Vec<_>) =
            held.iter().partition(|check| check.check_id.starts_with("_service_maintenance:"));
        let theirs: BTreeSet<String> = checks.iter().map(|check| check.check_id.clone()).collect();
        Comparison {
            has_foreign: !theirs.is_subset(&ours),
            lacks_ours: !ours.is_subset(&theirs),
            maintenance: maintenance.first().map(|check| check.notes.clone()),
        }
    }

    /// The configuration's as the application has changed it, and what we call.
    fn meta(&self) -> BTreeMap<String, String> {
        let mut meta = self.patched_meta(&self.patched.read());
        let room = META_PAIRS.saturating_sub(meta.len()).min(UPSTREAM_VALUES);
        for (index, value) in written_upstreams(&self.followed.read().upstreams, room).into_iter().enumerate() {
            meta.entry(numbered(index)).or_insert(value);
        }
        meta
    }

    /// Where callers and, from elsewhere, Consul find us; `None`: the node's address.
    pub(super) fn address(&self, place: Place) -> Option<String> {
        let outside = place.seen_as.filter(|ip| !place.is_agent_local && !ip.is_loopback());
        self.registration.address.clone().or_else(|| outside.map(|ip| ip.to_string()))
    }
}

/// A check as the agent holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HeldCheck {
    #[serde(rename = "CheckID", default)]
    pub(super) check_id: String,
    #[serde(default)]
    pub(super) notes: String,
}

/// What the agent holds against what we said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// It is the same.
    None,
    /// An instance of our service at another address, which is shown.
    Elsewhere(String),
    /// It says something else of us.
    Otherwise,
}

/// The agent's checks for our id against ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// One is there that we do not have (any more): left by an earlier version of us.
    pub(super) has_foreign: bool,
    pub(super) lacks_ours: bool,
    /// Why the instance is in maintenance, if it is.
    pub(super) maintenance: Option<String>,
}

impl Comparison {
    /// Whether the maintenance was begun by lictor: by this process, or by one before it that did not end it.
    pub(super) fn is_own_maintenance(&self) -> bool {
        self.maintenance.as_ref().is_some_and(|reason| reason.starts_with(OWN_MAINTENANCE))
    }
}

/// The services that an instance's Meta says it calls, and whether that is all of them.
pub fn named_upstreams<'a>(value: impl Fn(&str) -> Option<&'a str>) -> (Vec<String>, bool) {
    let values: Vec<&str> = (0..UPSTREAM_VALUES).map_while(|index| value(&numbered(index))).collect();
    let names = values.iter().flat_map(|value| value.split(',')).filter(|name| !name.is_empty());
    let (cut, names): (Vec<&str>, Vec<&str>) = names.partition(|name| *name == "...");
    (names.into_iter().map(str::to_owned).collect(), cut.is_empty())
}

impl Followed {
    fn of(config: &Config) -> Self {
        let inbound = config.inbound.as_ref().and_then(|inbound| inbound.listen.address.tcp());
        Self { upstreams: called(config), inbound: inbound.map(|address| address.port()) }
    }
}

/// The services that a configuration calls through Consul.
fn called(config: &Config) -> Vec<String> {
    let queries = config.upstreams.iter().flat_map(Upstream::queries);
    let services = queries.filter(|query| !query.is_prepared).map(|query| query.service.clone());
    services.collect::<BTreeSet<_>>().into_iter().collect()
}

fn numbered(index: usize) -> String {
    if index == 0 { UPSTREAMS.to_owned() } else { format!("{UPSTREAMS}-{}", index + 1) }
}

/// The names in at most so many values.
fn written_upstreams(names: &[String], room: usize) -> Vec<String> {
    const CUT: &str = ",...";
    let mut values: Vec<String> = Vec::new();
    for name in names {
        let count = values.len();
        let last_place = if count == room { META_VALUE - CUT.len() } else { META_VALUE };
        match values.last_mut() {
            Some(value) if value.len() + 1 + name.len() <= last_place => {
                value.push(',');
                value.push_str(name);
            }
            _ if count < room => values.push(name.clone()),
            None => return values,
            Some(value) => {
                value.push_str(CUT);
                return values;
            }
        }
    }
    values
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Held {
    service: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<HeldWeights>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HeldWeights {
    passing: u32,
    warning: u32,
}

#[cfg(test)]
mod tests {
    use lictor_config::{Environment, Text, load};

    use super::*;

    const LOCAL: Place = Place { is_agent_local: true, seen_as: None };

    fn definition(yaml: &str) -> Definition {
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        let loaded = load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}"));
        Definition::of(&loaded.config).unwrap()
    }

    fn web() -> Definition {
        definition("service: web\nport: 8080\nregistration: {id: web-1, checks: [{http: /health}, {ttl: 15s}]}\n")
    }

    fn remote(ip: &str) -> Place {
        Place { is_agent_local: false, seen_as: Some(ip.parse().unwrap()) }
    }

    #[test]
    fn a_local_agent_checks_the_application_on_loopback_and_gives_its_own_address() {
        let body = web().body(LOCAL, "critical");
        assert_eq!(body.get("Address"), None);
        assert_eq!(body["Checks"][0]["HTTP"], "http://127.0.0.1:8080/health");
        assert_eq!(body["Checks"][0]["CheckID"], "web-1:1:http");
        assert_eq!(body["Checks"][1]["TTL"], "15000ms");
        assert_eq!(body["Checks"][1]["Status"], "critical");
        assert_eq!(body["Checks"][1]["DeregisterCriticalServiceAfter"], "60000ms");
    }

    #[test]
    fn a_remote_agent_is_told_where_we_are() {
        let body = web().body(remote("10.1.2.3"), "passing");
        assert_eq!(body["Address"], "10.1.2.3");
        assert_eq!(body["Checks"][0]["HTTP"], "http://10.1.2.3:8080/health");
        let body = web().body(remote("fd00::1"), "passing");
        assert_eq!(body["Checks"][0]["HTTP"], "http://[fd00::1]:8080/health");
    }

    #[test]
    fn what_consul_adds_is_no_drift_and_everything_else_is() {
        let web = web();
        let mut held = web.body(LOCAL, "passing");
        held["Service"] = held["Name"].clone();
        held["TaggedAddresses"] = json!({ "lan_ipv4": { "Address": "127.0.0.1", "Port": 8080 } });
        held["Address"] = json!("");
        let drifted = |held: &Json| web.drift(held.to_string().as_bytes(), LOCAL).unwrap() != Drift::None;
        assert!(!drifted(&held));
        for (field, value) in [
            ("Port", json!(1)),
            ("Port", json!(70_000)),
            ("Tags", json!(["x"])),
            ("Meta", Json::Null),
            ("Weights", json!({ "Passing": 7, "Warning": 1 })),
            ("Service", json!("other")),
        ] {
            let mut changed = held.clone();
            changed[field] = value;
            assert!(drifted(&changed), "{field}");
        }
        assert!(web.drift(b"{", LOCAL).is_err(), "an answer that cannot be read says nothing");
        let from_elsewhere = web.drift(held.to_string().as_bytes(), remote("10.1.2.3")).unwrap();
        assert_eq!(from_elsewhere, Drift::Otherwise, "it has no address yet");
        held["Port"] = json!(1);
        held["Address"] = json!("10.9.9.9");
        let elsewhere = web.drift(held.to_string().as_bytes(), LOCAL).unwrap();
        assert_eq!(elsewhere, Drift::Elsewhere("10.9.9.9:1".to_owned()));
    }

    #[test]
    fn what_we_call_is_in_meta_within_consuls_limits() {
        let few = definition("service: web\nport: 1\nupstreams: {users: 0, carts: 0, fixed: {static: ['a:1']}}\n");
        assert_eq!(few.body(LOCAL, "passing")["Meta"][UPSTREAMS], "carts,users");
        let none = definition("service: web\nport: 1\n").body(LOCAL, "passing");
        assert_eq!(none["Meta"].get(UPSTREAMS), None);
        let names =
            |count: usize| (0..count).map(|number| format!("{number:04}-{}", "n".repeat(95))).collect::<Vec<_>>();
        let read = |values: &[String]| {
            named_upstreams(|key| (0..values.len()).find(|at| numbered(*at) == key).map(|at| values[at].as_str()))
        };
        for count in [1, 4, 5, 6, 39, 40, 41, 200] {
            let names = names(count);
            let values = written_upstreams(&names, UPSTREAM_VALUES);
            assert!(values.len() <= UPSTREAM_VALUES && values.iter().all(|value| value.len() <= META_VALUE), "{count}");
            let (seen, is_all) = read(&values);
            assert_eq!(is_all, seen.len() == count, "{count}");
            assert_eq!(seen[..], names[..seen.len()]);
            assert!(seen.len() >= count.min(38), "{count}: {}", seen.len());
        }
        assert!(written_upstreams(&names(3), 0).is_empty());
    }

    #[test]
    fn meta_is_what_the_application_made_of_it_and_no_more_than_consul_takes() {
        let web =
            definition("service: web\nport: 1\nregistration: {meta: {version: v1, zone: a}}\nupstreams: {users: 0}\n");
        let patch = |pairs: &[(&str, Option<&str>)]| {
            web.patch(&pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect())
        };
        let said = || web.body(LOCAL, "passing")["Meta"].clone();
        let begins = said();
        assert_eq!(patch(&[("version", Some("v2")), ("zone", None), ("extra", Some("x"))]).unwrap().1, 1);
        let expected = json!({ "version": "v2", "extra": "x", UPSTREAMS: "users" });
        assert!(expected.as_object().unwrap().iter().all(|(key, value)| said()[key] == *value), "{}", said());
        assert_eq!(said().get("zone"), None);
        for refused in [
            vec![("a.b", Some("c"))],
            vec![("consul-x", Some("c"))],
            vec![(UPSTREAMS, Some("c"))],
            vec![("lictor-upstreams-2", None)],
        ] {
            assert!(patch(&refused).is_err(), "{refused:?}");
        }
        let long = "v".repeat(513);
        assert!(patch(&[("long", Some(&long))]).is_err());
        let many: Vec<String> = (0..65).map(|number| format!("k{number}")).collect();
        assert!(patch(&many.iter().map(|key| (key.as_str(), Some("v"))).collect::<Vec<_>>()).is_err());
        assert_eq!((web.patches(), said()["version"].clone()), (1, json!("v2")), "what is refused changes nothing");
        patch(&[("version", Some("v1")), ("zone", Some("a")), ("extra", None)]).unwrap();
        assert_eq!(said(), begins);
    }

    #[test]
    fn checks_of_an_earlier_version_and_whose_maintenance_it_is_are_seen() {
        let check = |check_id: &str, notes: &str| HeldCheck { check_id: check_id.to_owned(), notes: notes.to_owned() };
        let (one, two) = (check("web-1:1:http", ""), check("web-1:2:ttl", ""));
        let web = web();
        let compare = |held: &[HeldCheck]| web.compare(held, LOCAL);
        assert_eq!(compare(&[one.clone(), two.clone()]), Comparison::default());
        assert!(compare(std::slice::from_ref(&one)).lacks_ours);
        let other_kind = compare(&[check("web-1:1:ttl", ""), two.clone()]);
        assert!(other_kind.has_foreign && other_kind.lacks_ours);
        assert!(compare(&[one.clone(), two.clone(), check("web-1:3:http", "")]).has_foreign);
        let person = compare(&[one, two, check("_service_maintenance:web-1", "by hand")]);
        assert!(!person.has_foreign && !person.is_own_maintenance() && person.maintenance.is_some());
        assert!(compare(&[check("_service_maintenance:web-1", "lictor: draining")]).is_own_maintenance());
    }
}
