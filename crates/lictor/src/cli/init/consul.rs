//! A registered service as a source: what its instances and their checks say.

use anyhow::{Context, bail};
use lictor_config::{Consul, ConsulAddress, authority, suggest};
use lictor_consul::{Agent, encode, named_upstreams};
use serde_json::Value as Json;

use super::{Plan, Wanted};
use crate::cli::kv::block_on;

pub(super) fn plan(consul: &Consul, service: &str) -> anyhow::Result<Plan> {
    let (instances, proxies) = block_on(read(consul, service))?;
    let about = &instances[0]["Service"];
    let meta = |key: &str| about["Meta"][key].as_str();
    let mut plan = Plan {
        source: format!("Consul's service {service}"),
        service: Some((service.to_owned(), format!("{} instances", instances.len()))),
        port: about["Port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .map(|port| (port, "as registered".to_owned())),
        check: instances.iter().find_map(check).map(|path| (path, "from its check in Consul".to_owned())),
        version: meta("version").map(|version| (version.to_owned(), "from its Meta".to_owned())),
        consul: address(consul),
        ..Plan::default()
    };
    for (name, port) in proxies.iter().flat_map(|proxy| connect_upstreams(&proxy["Service"]["Proxy"])) {
        let found = "from its Connect proxy".to_owned();
        add(&mut plan, Wanted { name, port, protocol: None, found });
    }
    for instance in &instances {
        for name in named_upstreams(|key| instance["Service"]["Meta"][key].as_str()).0 {
            add(&mut plan, Wanted { name, found: "from its sidecar's Meta".to_owned(), ..Wanted::default() });
        }
    }
    Ok(plan)
}

/// Its instances, and its Connect proxies.
async fn read(consul: &Consul, service: &str) -> anyhow::Result<(Vec<Json>, Vec<Json>)> {
    let mut agent = Agent::new(consul)?.context("there is no Consul agent in the configuration")?;
    let list = |json: Json| json.as_array().cloned().unwrap_or_default();
    let name = encode(service);
    let instances = agent.get(&format!("/v1/health/service/{name}"), &[]).await.context("cannot ask Consul")?;
    let instances = list(instances.json);
    if instances.is_empty() {
        let catalog = agent.get("/v1/catalog/services", &[]).await.context("cannot list the services")?;
        let names: Vec<&str> =
            catalog.json.as_object().into_iter().flat_map(|it| it.keys()).map(String::as_str).collect();
        match suggest(service, names.iter().copied()) {
            Some(other) => bail!("Consul knows no service `{service}`; did you mean `{other}`?"),
            None => bail!("Consul knows no service `{service}`; it knows {}", names.join(", ")),
        }
    }
    // An agent without Connect says no here, which is nothing to us.
    let proxies = agent.get(&format!("/v1/health/connect/{name}"), &[]).await;
    Ok((instances, proxies.map(|reply| list(reply.json)).unwrap_or_default()))
}

fn add(plan: &mut Plan, wanted: Wanted) {
    if plan.upstreams.iter().all(|known| known.name != wanted.name) {
        plan.upstreams.push(wanted);
    }
}

/// The path of its HTTP check. Consul tells it in the definition, or, where that is empty, in what the last run said.
fn check(instance: &Json) -> Option<String> {
    let checks = instance["Checks"].as_array()?.iter();
    checks.clone().filter(|check| check["ServiceID"] != "").find_map(|check| {
        let defined = check["Definition"]["HTTP"].as_str().filter(|url| !url.is_empty());
        let said = || check["Output"].as_str()?.strip_prefix("HTTP GET ")?.split(": ").next();
        let url = defined.or_else(said)?;
        let path = url.split_once("://")?.1.split_once('/')?.1;
        Some(format!("/{path}"))
    })
}

fn connect_upstreams(proxy: &Json) -> Vec<(String, Option<u16>)> {
    let upstreams = proxy["Upstreams"].as_array().into_iter().flatten();
    let named = upstreams.filter_map(|upstream| {
        let port = upstream["LocalBindPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        Some((upstream["DestinationName"].as_str()?.to_owned(), port))
    });
    named.collect()
}

/// Only where it is not the default.
fn address(consul: &Consul) -> Option<(String, String)> {
    let text = match consul.address.as_ref()? {
        ConsulAddress::Http(host, 8500) if host == "127.0.0.1" => return None,
        ConsulAddress::Http(host, port) => format!("http://{}", authority(host, *port)),
        ConsulAddress::Https(host, port) => format!("https://{}", authority(host, *port)),
        ConsulAddress::Unix(path) => format!("unix://{}", path.display()),
    };
    Some((text, "where it was asked".to_owned()))
}
