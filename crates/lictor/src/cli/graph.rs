//! `lictor graph`: who calls whom. Each sidecar says in its Meta what it calls; everything else comes from the catalog.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use lictor_consul::{Agent, encode, named_upstreams};
use lictor_core::plain;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::cli::kv::block_on;
use crate::cli::output::Output;
use crate::cli::print;
use crate::configured::Configured;

/// The servers register themselves.
const CONSUL: &str = "consul";

/// All services by name.
type Map = BTreeMap<String, Service>;

/// A service in Consul, or one that somebody calls.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Service {
    instances: usize,
    passing: usize,
    /// What its sidecars call.
    calls: BTreeSet<String>,
    /// There was no room in its Meta for all that it calls.
    is_cut: bool,
}

pub(super) fn graph(dot: bool, output: Output, configured: &Configured) -> anyhow::Result<u8> {
    let consul = configured.consul()?;
    let map = block_on(async {
        let mut agent = Agent::new(&consul)?.context("there is no Consul agent in the configuration")?;
        let datacenter: Vec<(&str, &str)> = consul.datacenter.iter().map(|name| ("dc", name.as_str())).collect();
        read(&mut agent, &datacenter).await
    })?;
    let page = json!({ "services": map });
    if dot {
        print(&as_dot(&shown(map)));
    } else {
        output.print(&page, |_| as_tree(&shown(map)));
    }
    Ok(0)
}

/// With names as they may be shown.
fn shown(map: Map) -> Map {
    let name = |name: String| plain::line(&name).into_owned();
    let service = |service: Service| Service { calls: service.calls.into_iter().map(name).collect(), ..service };
    map.into_iter().map(|(key, value)| (name(key), service(value))).collect()
}

async fn read(agent: &mut Agent, datacenter: &[(&str, &str)]) -> anyhow::Result<Map> {
    let catalog = agent.get("/v1/catalog/services", datacenter).await.context("cannot list the services")?;
    let mut map = Map::new();
    for name in catalog.json.as_object().into_iter().flat_map(|names| names.keys()).filter(|name| *name != CONSUL) {
        let path = format!("/v1/health/service/{}", encode(name));
        let instances = agent.get(&path, datacenter).await.with_context(|| format!("cannot read {name}"))?;
        let instances = instances.json.as_array().cloned().unwrap_or_default();
        let service = map.entry(name.clone()).or_default();
        for instance in &instances {
            service.count(instance);
        }
    }
    let called: BTreeSet<String> = map.values().flat_map(|service| service.calls.iter().cloned()).collect();
    for name in called {
        map.entry(name).or_default();
    }
    Ok(map)
}

impl Service {
    fn count(&mut self, instance: &Json) {
        let mut checks = instance["Checks"].as_array().into_iter().flatten();
        self.instances += 1;
        self.passing += usize::from(checks.all(|check| check["Status"] == "passing"));
        let (names, is_all) = named_upstreams(|key| instance["Service"]["Meta"][key].as_str());
        self.calls.extend(names);
        self.is_cut |= !is_all;
    }

    fn state(&self) -> String {
        if self.instances == 0 {
            "not in Consul".to_owned()
        } else {
            format!("{}/{} passing", self.passing, self.instances)
        }
    }
}

/// From those that nobody calls downwards.
fn as_tree(map: &Map) -> String {
    let called: BTreeSet<&String> = map.values().flat_map(|service| &service.calls).collect();
    let is_alone = |name: &String| map[name].calls.is_empty() && !called.contains(name);
    let (mut text, mut shown) = (String::new(), BTreeSet::new());
    let roots = map.keys().filter(|name| !called.contains(*name) && !is_alone(name));
    // What is left after the roots are services that call one another in a circle.
    for name in roots.chain(map.keys().filter(|name| called.contains(name))) {
        if !shown.contains(name.as_str()) {
            branch(map, name, "", "", &mut shown, &mut text);
        }
    }
    let alone: Vec<String> =
        map.keys().filter(|name| is_alone(name)).map(|name| format!("{name} ({})", map[name].state())).collect();
    if !alone.is_empty() {
        text += &format!("without a known dependency: {}\n", alone.join(", "));
    }
    if map.is_empty() { "no services\n".to_owned() } else { text }
}

fn branch<'a>(map: &'a Map, name: &'a str, first: &str, rest: &str, shown: &mut BTreeSet<&'a str>, text: &mut String) {
    let service = &map[name];
    let is_new = shown.insert(name);
    let seen = if is_new || service.calls.is_empty() { "" } else { ", see above" };
    *text += &format!("{first}{name} ({}{seen})\n", service.state());
    if !is_new {
        return;
    }
    let mut calls = service.calls.iter().peekable();
    while let Some(called) = calls.next() {
        let is_last = calls.peek().is_none() && !service.is_cut;
        let (here, below) = if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
        branch(map, called, &format!("{rest}{here}"), &format!("{rest}{below}"), shown, text);
    }
    if service.is_cut {
        *text += &format!("{rest}└── and more than its Meta has room for\n");
    }
}

fn as_dot(map: &Map) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph lictor {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (name, service) in map {
        let colour = match (service.passing, service.instances) {
            (0, _) => ", color=red",
            (passing, instances) if passing < instances => ", color=orange",
            _ => "",
        };
        text += &format!(
            "  {} [label={}{colour}];\n",
            quoted(name),
            quoted(&format!("{name}\n{}", service.state())).replace('\n', "\\n")
        );
        for called in &service.calls {
            text += &format!("  {} -> {};\n", quoted(name), quoted(called));
        }
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(services: &[(&str, &[&str])]) -> Map {
        let service = |calls: &[&str]| Service {
            instances: 1,
            passing: 1,
            calls: calls.iter().map(|name| (*name).to_owned()).collect(),
            is_cut: false,
        };
        services.iter().map(|(name, calls)| ((*name).to_owned(), service(calls))).collect()
    }

    #[test]
    fn a_tree_starts_where_nobody_calls_and_ends_in_circles() {
        let shop = map(&[
            ("web", &["orders", "users"]),
            ("orders", &["stock", "users"]),
            ("users", &["mail"]),
            ("stock", &[]),
            ("mail", &[]),
            ("cron", &[]),
        ]);
        let tree = as_tree(&shop).replace(" (1/1 passing", " (");
        assert_eq!(
            tree,
            "web ()\n├── orders ()\n│   ├── stock ()\n│   └── users ()\n│       └── mail ()\n└── users (, see above)\n\
             without a known dependency: cron ()\n"
        );
        let circle = as_tree(&map(&[("a", &["b"]), ("b", &["a"])]));
        assert_eq!(circle, "a (1/1 passing)\n└── b (1/1 passing)\n    └── a (1/1 passing, see above)\n");
    }
}
