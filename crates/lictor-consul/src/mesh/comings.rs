//! Which endpoints of an upstream came, went, and are not what they were, from one mesh to the next, and why: in words, for
//! an event.

use std::sync::Arc;
use std::time::Instant;

use lictor_core::mesh::{EndpointKey, Status};
use lictor_core::{Endpoint, Upstream};

use super::upstream::BOOTSTRAP;
use crate::agent::Instance;
use crate::agent::health::Condition;
use crate::watch::Observed;

/// So many of a kind are named; the rest is counted.
const NAMED: usize = 10;

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comings {
    pub(crate) came: Vec<String>,
    pub(crate) went: Vec<String>,
    /// Still there, and told otherwise by Consul.
    pub(crate) turned: Vec<String>,
}

impl Comings {
    /// `seen` is what Consul says of the upstream now; nothing, where it is not asked.
    pub(crate) fn between<'a>(
        earlier: Option<&Upstream>,
        upstream: &Upstream,
        seen: impl Iterator<Item = &'a Observed> + Clone,
        now: Instant,
    ) -> Self {
        let before = earlier.map(|earlier| &*earlier.endpoints).unwrap_or_default();
        let was_bootstrap = earlier.is_some_and(|earlier| earlier.census.source == BOOTSTRAP);
        let mut comings = Self::default();
        for endpoint in &upstream.endpoints {
            let status = endpoint.status.as_str();
            let why =
                || if endpoint.status == Status::Suspect { word(endpoint, seen.clone()) } else { status.to_owned() };
            match find(before, &endpoint.key) {
                None => comings.came.push(format!("{} ({status})", name(endpoint))),
                Some(old) if old.status != endpoint.status => {
                    let kept = if endpoint.status == Status::Suspect { ", kept as a suspect" } else { "" };
                    comings.turned.push(format!("{} ({}{kept}; was {})", name(endpoint), why(), old.status.as_str()));
                }
                Some(_) => (),
            }
        }
        for gone in before.iter().filter(|endpoint| find(&upstream.endpoints, &endpoint.key).is_none()) {
            let why = match upstream.census.source {
                "static" => "configured no more".to_owned(),
                _ if was_bootstrap => "Consul's own are in use".to_owned(),
                _ => word(gone, seen.clone()),
            };
            let was = match gone.status {
                Status::Suspect => "; was a suspect",
                _ if gone.health.is_ejected(now) => "; was ejected",
                _ => "",
            };
            comings.went.push(format!("{} ({why}{was})", name(gone)));
        }
        comings
    }
}

/// Some of them, and how many more there are; `None`: none.
pub(crate) fn named(all: &[String]) -> Option<String> {
    let more = all.len().saturating_sub(NAMED);
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match more {
        _ if all.is_empty() => None,
        0 => Some(named),
        more => Some(format!("{named} and {more} more")),
    }
}

/// `users-1 at 10.0.3.7:8001`
fn name(endpoint: &Endpoint) -> String {
    let address = endpoint.address.to_string();
    if *endpoint.key.id == *address { address } else { format!("{} at {address}", endpoint.key.id) }
}

/// They are in the order of their keys.
fn find<'a>(list: &'a [Arc<Endpoint>], key: &EndpointKey) -> Option<&'a Arc<Endpoint>> {
    Some(&list[list.binary_search_by(|other| other.key.cmp(key)).ok()?])
}

/// What Consul says now of one that may not be picked any more.
fn word<'a>(endpoint: &Endpoint, mut seen: impl Iterator<Item = &'a Observed>) -> String {
    let is_it = |instance: &&Instance| *instance.id == *endpoint.key.id && *instance.node == *endpoint.key.node;
    let found = seen.find_map(|observed| observed.instances.iter().find(is_it));
    let word = match found.map(|instance| (instance, instance.condition)) {
        None => "not in Consul any more",
        Some((_, Condition::Maintenance)) => "in maintenance in Consul",
        Some((_, Condition::Critical)) => "critical in Consul",
        Some((_, Condition::Unchecked)) => "not checked by Consul yet",
        Some((instance, _)) if instance.weight() == 0 => "its weight in Consul is 0",
        Some((instance, _)) if !instance.is_usable() => "without an address or a port in Consul",
        Some(_) => "at another address",
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use lictor_config::{Config, Environment, Text, load};
    use lictor_core::Mesh;

    use super::super::addresses::fixed;
    use super::super::assemble::assemble;
    use super::super::inputs::{Changed, Inputs};
    use super::*;

    fn config() -> Config {
        let yaml = "registration: off\nupstreams: {users: {listen: 3001}}\n";
        let text = Text { name: "test".to_owned(), text: yaml.to_owned() };
        load(Some(&text), &Environment::default(), &[]).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn mesh(observed: &Observed, previous: Option<&Mesh>, now: Instant) -> Mesh {
        let config = config();
        let query = config.upstreams[0].queries().next().unwrap().clone();
        let inputs = Inputs {
            config: &config,
            observed: &HashMap::from([(query, observed.clone())]),
            remembered: &HashMap::new(),
            addresses: &HashMap::new(),
            demanded: &[],
            maintenance: None,
            changed: Changed::Anything,
        };
        assemble(&inputs, previous, now).mesh
    }

    fn instance(name: &str, condition: Condition) -> Instance {
        let port = 8000 + name.len() as u16;
        Instance { id: name.to_owned(), condition, ..fixed(&format!("127.0.0.1:{port}")) }
    }

    fn changes(before: &Observed, after: &Observed) -> Comings {
        let now = Instant::now();
        let first = mesh(before, None, now);
        let second = mesh(after, Some(&first), now);
        Comings::between(Some(&first.upstreams["users"]), &second.upstreams["users"], std::iter::once(after), now)
    }

    #[test]
    fn who_came_went_and_turned_and_why() {
        let there =
            |names: &[&str]| Observed::of(names.iter().map(|name| instance(name, Condition::Passing)).collect());
        let both = there(&["a", "bb"]);
        let with = |other: Instance| Observed::of(vec![instance("a", Condition::Passing), other]);
        let went = |after: Observed, why: &str| {
            let told = changes(&both, &after);
            assert_eq!((told.went, told.came.len()), (vec![format!("bb at 127.0.0.1:8002 ({why})")], 0), "{why}");
        };
        went(there(&["a"]), "not in Consul any more");
        went(with(instance("bb", Condition::Critical)), "critical in Consul");
        went(with(instance("bb", Condition::Maintenance)), "in maintenance in Consul");
        went(with(instance("bb", Condition::Unchecked)), "not checked by Consul yet");
        went(with(Instance { weight_passing: 0, ..instance("bb", Condition::Passing) }), "its weight in Consul is 0");
        went(
            with(Instance { port: 0, ..instance("bb", Condition::Passing) }),
            "without an address or a port in Consul",
        );

        let moved = changes(&both, &with(Instance { port: 9, ..instance("bb", Condition::Passing) }));
        assert_eq!(moved.went, ["bb at 127.0.0.1:8002 (at another address)"]);
        assert_eq!(moved.came, ["bb at 127.0.0.1:9 (passing)"]);
        assert_eq!(changes(&both, &both), Comings::default());
        assert_eq!(changes(&there(&["a"]), &both).came, ["bb at 127.0.0.1:8002 (passing)"]);
    }

    #[test]
    fn suspects_and_those_that_flap_have_turned() {
        let both = Observed::of(vec![instance("a", Condition::Passing), instance("bb", Condition::Passing)]);
        let kept = Observed {
            instances: vec![instance("a", Condition::Passing), instance("bb", Condition::Critical)],
            suspects: vec![instance("bb", Condition::Passing)],
            flapping: BTreeSet::new(),
        };
        let told = changes(&both, &kept);
        assert_eq!(told.turned, ["bb at 127.0.0.1:8002 (critical in Consul, kept as a suspect; was passing)"]);
        assert!(told.came.is_empty() && told.went.is_empty(), "{told:?}");
        assert_eq!(changes(&kept, &both).turned, ["bb at 127.0.0.1:8002 (passing; was suspect)"]);
        let gone = Observed { suspects: Vec::new(), ..kept.clone() };
        assert_eq!(changes(&kept, &gone).went, ["bb at 127.0.0.1:8002 (critical in Consul; was a suspect)"]);
        let warns = Observed::of(vec![instance("a", Condition::Warning), instance("bb", Condition::Passing)]);
        assert_eq!(changes(&both, &warns).turned, ["a at 127.0.0.1:8001 (warning; was passing)"]);
    }

    #[test]
    fn an_endpoint_without_an_id_of_its_own_is_its_address_and_many_are_counted() {
        let static_one = Observed::of(vec![fixed("127.0.0.1:7")]);
        assert_eq!(changes(&Observed::default(), &static_one).came, ["127.0.0.1:7 (passing)"]);
        let many: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(named(&many).as_deref(), Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"));
        assert_eq!((named(&many[..1]).as_deref(), named(&[])), (Some("0"), None));
    }
}
