//! Where an upstream's endpoints come from, and where else when nobody there is well.

use serde_json::json;

use crate::config::{Query, Source};
use crate::tree::{Node, Section};
use crate::values;

/// Each is a watch of its own.
const FAILOVER_MAX: usize = 8;

/// What is asked of Consul, key by key.
struct Asked<'t> {
    prepared: Node<'t>,
    service: Node<'t>,
    tag: Node<'t>,
    filter: Node<'t>,
    version: Node<'t>,
    datacenter: Node<'t>,
}

impl<'t> Asked<'t> {
    fn read(section: &Section<'t>) -> Self {
        let prepared = "A prepared query of Consul's, by name, instead of a service; asked anew every 10s or so.";
        let asked = Self {
            service: section.field("service", "Its name in Consul, when that is not the key's."),
            prepared: section.field("query", prepared),
            tag: section.field("tag", "Only instances with this tag, or all of these."),
            filter: section.field("filter", "Only instances for which this Consul filter expression holds."),
            version: section.field("version", "Only instances with this Meta `version`."),
            datacenter: section.field("datacenter", "Another datacenter."),
        };
        let [_, service, subset @ ..] = asked.of_instances();
        for other in [service].into_iter().chain(subset).filter(|_| asked.prepared.is_set()) {
            if other.is_set() {
                other.key_error(format!("`{}` is for the prepared query to say", other.name()), None);
            }
        }
        asked
    }

    /// The keys that choose among a service's instances, after the two that name it.
    fn of_instances(&self) -> [&Node<'t>; 5] {
        [&self.prepared, &self.service, &self.tag, &self.filter, &self.version]
    }

    /// What it does not say is as in `of`.
    fn query(&self, of: &Query) -> Query {
        let named = self.prepared.text(None).or_else(|| self.service.text(None));
        let tags = self.tag.elements().iter().filter_map(|tag| tag.text(None)).collect();
        let filter = filter_of(self.filter.text(None), self.version.text(None));
        // Tags and versions are a service's own.
        let is_same = named.is_none() && !self.of_instances().iter().any(|key| key.is_set());
        Query {
            is_prepared: self.prepared.is_set() || (named.is_none() && of.is_prepared),
            service: named.unwrap_or_else(|| of.service.clone()),
            tags: if is_same { of.tags.clone() } else { tags },
            filter: if is_same { of.filter.clone() } else { filter },
            datacenter: self.datacenter.text(None).or_else(|| of.datacenter.clone()),
        }
    }
}

/// Consul, unless fixed endpoints are given.
pub(super) fn source(section: &Section<'_>, name: &str) -> Source {
    let fixed = section.field("static", "Fixed endpoints, `host:port`, instead of Consul's.");
    let endpoints = hosts(&fixed);
    let asked = Asked::read(section);
    let query = asked.query(&Query { service: name.to_owned(), ..Query::default() });
    if !fixed.is_set() {
        return Source::Consul(query);
    }
    for other in asked.of_instances().into_iter().chain([&asked.datacenter]) {
        if other.is_set() {
            other.error(format!("`{}` asks Consul, but the endpoints are static", other.name()), None);
        }
    }
    if endpoints.is_empty() {
        fixed.error("static endpoints need at least one `host:port`", None);
    }
    Source::Static(endpoints)
}

/// Who is called until Consul has answered.
pub(super) fn bootstrap(section: &Section<'_>, source: &Source) -> Vec<String> {
    let node = section.field(
        "bootstrap",
        "Endpoints, `host:port`, for a start without Consul: until it has answered for the first time, where no snapshot has any.",
    );
    if node.is_set() && matches!(source, Source::Static(_)) {
        node.error("`bootstrap` is in place of Consul's first answer, but the endpoints are static", None);
    }
    hosts(&node)
}

fn hosts(node: &Node<'_>) -> Vec<String> {
    let parsed = |entry: &Node<'_>| entry.parsed(json!({ "type": "string" }), None, values::host_port);
    node.elements().iter().filter_map(parsed).collect()
}

/// Where else, the best first.
pub(super) fn failover(section: &Section<'_>, source: &Source) -> Vec<Query> {
    let node = section.field(
        "failover",
        "Where else while nobody there is well, the best first: `dc2` is the same in that datacenter; or a map.",
    );
    let elements = node.elements();
    if let Some(entry) = elements.get(FAILOVER_MAX) {
        entry.error(format!("at most {FAILOVER_MAX}: each is a watch of its own"), None);
    }
    let mut queries: Vec<Query> = Vec::new();
    for entry in elements.iter().take(FAILOVER_MAX) {
        let Some(query) = standby(entry, source) else { continue };
        let is_itself = matches!(source, Source::Consul(of) if *of == query);
        if is_itself || queries.contains(&query) {
            entry.error("this is where it goes already", Some("name another service, datacenter or subset".to_owned()));
        }
        queries.push(query);
    }
    queries
}

fn standby(entry: &Node<'_>, source: &Source) -> Option<Query> {
    let section = entry.section_or_short("datacenter", &[json!({ "type": "string" })]);
    let asked = Asked::read(&section);
    section.finish();
    let is_named = asked.service.is_set() || asked.prepared.is_set();
    match source {
        Source::Consul(of) => Some(asked.query(of)),
        Source::Static(_) if is_named => Some(asked.query(&Query::default())),
        Source::Static(_) => {
            let help = "write `{service: NAME}`, with `datacenter` where it is elsewhere".to_owned();
            entry.error("the endpoints are static: name the service that takes over", Some(help));
            None
        }
    }
}

fn filter_of(filter: Option<String>, version: Option<String>) -> Option<String> {
    let version = version.map(|version| format!("Service.Meta.version == \"{}\"", version.replace('"', "")));
    match (filter, version) {
        (Some(filter), Some(version)) => Some(format!("({filter}) and {version}")),
        (filter, version) => filter.or(version),
    }
}
