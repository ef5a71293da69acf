//! A compose file as a source: the variables, ports and dependencies of one of its services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use anyhow::{Context, bail};
use lictor_config::authority;
use serde_json::Value as Json;

use super::{Plan, Wanted};

/// What is not a service of ours: stores, brokers, registries, and what watches over them.
const INFRASTRUCTURE: [&str; 34] = [
    "cassandra",
    "clickhouse",
    "config-server",
    "consul",
    "couchdb",
    "db",
    "discovery",
    "elasticsearch",
    "etcd",
    "eureka",
    "fluentd",
    "grafana",
    "haproxy",
    "influxdb",
    "jaeger",
    "kafka",
    "kibana",
    "loki",
    "mariadb",
    "memcached",
    "minio",
    "mongo",
    "mongodb",
    "mysql",
    "nacos",
    "nats",
    "postgres",
    "postgresql",
    "prometheus",
    "rabbitmq",
    "redis",
    "registry",
    "zipkin",
    "zookeeper",
];
/// Schemes that a service of ours is called with, and what they mean.
const SCHEMES: [(&str, Option<&str>); 4] = [("http", None), ("ws", None), ("grpc", Some("grpc")), ("h2c", Some("h2c"))];

/// What is known of a service from outside.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    variables: BTreeMap<String, String>,
    /// Ports in its container.
    ports: Vec<u16>,
    depends_on: Vec<String>,
    health_check: Option<String>,
    /// Other services, with their ports and whether they are infrastructure.
    others: BTreeMap<String, (Option<u16>, bool)>,
}

pub(super) fn plan(name: &str, compose: &Json, service: Option<&str>) -> anyhow::Result<Plan> {
    let services = compose["services"].as_object().filter(|services| !services.is_empty());
    let services = services.with_context(|| {
        format!("{name} has no services: is it a compose file, an OpenAPI document, or nginx's (NAME.conf)?")
    })?;
    let ours: Vec<&str> =
        services.iter().filter(|(name, it)| !is_infrastructure(name, it)).map(|(name, _)| name.as_str()).collect();
    let chosen = match (service, &ours[..]) {
        (Some(service), _) if services.contains_key(service) => service,
        (Some(service), _) => bail!("{name} has no service `{service}`: it has {}", ours.join(", ")),
        (None, [only]) => only,
        (None, []) => bail!("{name} has no service of yours, only infrastructure; name one with --service"),
        (None, _) => {
            bail!("{name} has several services: say --service NAME, or SERVICE=NAME; it has {}", ours.join(", "))
        }
    };
    let others = services.iter().filter(|(name, _)| *name != chosen);
    let others = others.map(|(name, it)| (name.clone(), (port_of(it), is_infrastructure(name, it)))).collect();
    let it = &services[chosen];
    let surroundings = Surroundings {
        variables: variables(&it["environment"]),
        ports: ports(it),
        depends_on: names(&it["depends_on"]),
        health_check: health_check(&it["healthcheck"]["test"]),
        others,
    };
    let mut plan = Plan {
        source: format!("{name}, service {chosen}"),
        service: Some((chosen.to_owned(), "its name there".to_owned())),
        ..Plan::default()
    };
    surroundings.fill(&mut plan);
    Ok(plan)
}

impl Surroundings {
    /// Nothing else is known.
    pub(super) fn of_variables(variables: BTreeMap<String, String>) -> Self {
        Self { variables, ..Self::default() }
    }

    /// What can be told from it.
    pub(super) fn fill(&self, plan: &mut Plan) {
        let first = |names: &[&str]| {
            let found = names.iter().find_map(|name| Some((name, self.variables.get(*name)?)));
            found
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (unfolded(value).to_owned(), format!("from {name}")))
        };
        plan.service = first(&["SERVICE_NAME", "APP_NAME"]).or(plan.service.take());
        let said = first(&["SERVICE_PORT", "PORT"]).and_then(|(port, found)| Some((port.parse().ok()?, found)));
        plan.port = said.or_else(|| self.ports.first().map(|port| (*port, "from ports".to_owned())));
        plan.check = self.health_check.clone().map(|path| (path, "from its healthcheck".to_owned()));
        plan.version = first(&["SERVICE_VERSION"]);
        plan.consul = first(&["CONSUL_HTTP_ADDR"]).or_else(|| {
            let (host, found) = first(&["CONSUL_HOST"])?;
            let port = first(&["CONSUL_PORT"]).and_then(|(port, _)| port.parse().ok()).unwrap_or(8500);
            let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
            let authority = if is_ipv6 { authority(&host, port) } else { format!("{host}:{port}") };
            Some((format!("http://{authority}"), found))
        });
        let mut others = BTreeSet::new();
        let mut wanted = self.declared();
        wanted.extend(self.by_url(&mut others));
        wanted.extend(self.by_host(&mut others));
        wanted.extend(self.by_dependency(&mut others));
        for one in wanted {
            let is_us = plan.service.as_ref().is_some_and(|(name, _)| *name == one.name);
            match plan.upstreams.iter_mut().find(|known| known.name == one.name) {
                Some(known) if known.port.is_none() => known.port = one.port,
                None if !is_us => plan.upstreams.push(one),
                _ => (),
            }
        }
        for upstream in plan.upstreams.iter_mut().filter(|upstream| upstream.port.is_none()) {
            upstream.port = self.others.get(&upstream.name).and_then(|(port, _)| *port);
        }
        plan.others = others.into_iter().filter(|name| name != "consul").collect();
    }

    /// LICTOR_UPSTREAMS=user-service:3001,product-service
    fn declared(&self) -> Vec<Wanted> {
        let list = self.variables.get("LICTOR_UPSTREAMS").map_or("", |list| unfolded(list));
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let wanted = entries.map(|entry| {
            let (name, port) = entry.split_once(':').unwrap_or((entry, ""));
            Wanted {
                name: name.to_owned(),
                port: port.parse().ok(),
                found: "from LICTOR_UPSTREAMS".to_owned(),
                ..Wanted::default()
            }
        });
        wanted.collect()
    }

    /// USER_SERVICE_URL=http://user-service:3001
    fn by_url(&self, others: &mut BTreeSet<String>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (variable, value) in &self.variables {
            let Some((scheme, host, port)) = url(unfolded(value)) else { continue };
            let protocol = SCHEMES.iter().find(|(known, _)| *known == scheme).map(|(_, protocol)| *protocol);
            let is_tool =
                ["HTTP_PROXY", "CONSUL_", "OTEL_", "LICTOR_"].iter().any(|it| variable.to_uppercase().starts_with(it));
            match protocol {
                _ if is_tool || !is_name(host) => (),
                Some(protocol) if !self.is_infrastructure(host) => wanted.push(Wanted {
                    name: host.to_owned(),
                    port,
                    protocol: protocol.map(str::to_owned),
                    found: format!("from {variable}"),
                }),
                _ => {
                    others.insert(host.to_owned());
                }
            }
        }
        wanted
    }

    /// USER_SERVICE_HOST=user-service, with USER_SERVICE_PORT or without
    fn by_host(&self, others: &mut BTreeSet<String>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (variable, value) in &self.variables {
            let (Some(stem), host) = (variable.strip_suffix("_HOST"), unfolded(value)) else { continue };
            if self.is_infrastructure(host) {
                others.insert(host.to_owned());
            } else if self.others.contains_key(host) {
                let port = self.variables.get(&format!("{stem}_PORT")).and_then(|port| unfolded(port).parse().ok());
                wanted.push(Wanted {
                    name: host.to_owned(),
                    port,
                    found: format!("from {variable}"),
                    ..Wanted::default()
                });
            } else if is_name(host) && stem != "SERVICE" {
                others.insert(host.to_owned()); // DB_HOST=mysql-user, which another file starts
            }
        }
        wanted
    }

    fn by_dependency(&self, others: &mut BTreeSet<String>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for name in &self.depends_on {
            if self.is_infrastructure(name) || others.contains(name) {
                others.insert(name.clone());
            } else {
                let found = "from depends_on".to_owned();
                wanted.push(Wanted { name: name.clone(), found, ..Wanted::default() });
            }
        }
        wanted
    }

    fn is_infrastructure(&self, name: &str) -> bool {
        self.others.get(name).map_or_else(|| is_known(name), |(_, is_infrastructure)| *is_infrastructure)
    }
}

/// By its image; one that is built here is by its name only if that says nothing else.
fn is_infrastructure(name: &str, service: &Json) -> bool {
    let image = service["image"].as_str().unwrap_or_default();
    let image = image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
    is_known(name) || is_known(image) || image == "all-in-one"
}

/// `mysql`, and `mysql-user`; but not `discovery-service`, nor `db-admin`.
fn is_known(name: &str) -> bool {
    let name = name.to_lowercase();
    if name.ends_with("-service") || name.ends_with("-gateway") || name.ends_with("-api") {
        return false;
    }
    let first = name.split(['-', '_']).next().unwrap_or_default();
    INFRASTRUCTURE.contains(&name.as_str()) || (first.len() > 2 && INFRASTRUCTURE.contains(&first))
}

/// A list of `NAME=value`, or a map.
fn variables(environment: &Json) -> BTreeMap<String, String> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    match environment {
        Json::Array(lines) => {
            let pairs = lines.iter().filter_map(|line| line.as_str()?.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
        Json::Object(map) => map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        _ => BTreeMap::new(),
    }
}

/// A list of names, or a map with conditions.
fn names(node: &Json) -> Vec<String> {
    match node {
        Json::Array(names) => names.iter().filter_map(|name| name.as_str()).map(str::to_owned).collect(),
        Json::Object(map) => map.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Ports within the container: `ports`, then `expose`.
fn ports(service: &Json) -> Vec<u16> {
    let published = service["ports"].as_array().into_iter().flatten();
    let exposed = service["expose"].as_array().into_iter().flatten();
    let port = |entry: &Json| {
        let text = entry.as_str().or_else(|| entry["target"].as_str())?;
        unfolded(text.split('/').next()?.rsplit(':').next()?).parse().ok()
    };
    published.chain(exposed).filter_map(port).collect()
}

fn port_of(service: &Json) -> Option<u16> {
    let variables = variables(&service["environment"]);
    let said = ["SERVICE_PORT", "PORT"].iter().find_map(|name| unfolded(variables.get(*name)?).parse().ok());
    said.or_else(|| ports(service).first().copied())
}

/// The path that a health check asks for.
fn health_check(test: &Json) -> Option<String> {
    let line = match test {
        Json::Array(words) => words.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str()?.to_owned(),
    };
    let url = line.split_whitespace().find(|word| word.starts_with("http://"))?.trim_end_matches(['"', '\'', ';']);
    let (_, path) = url.strip_prefix("http://")?.split_once('/')?;
    let is_path = path.chars().all(|c| c.is_ascii_alphanumeric() || "-_./?=&".contains(c));
    is_path.then(|| format!("/{path}"))
}

/// `scheme://[user@]host[:port]`
fn url(text: &str) -> Option<(&str, &str, Option<u16>)> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    Some((scheme, host, port.parse().ok()))
}

/// A name within the network, not one of the Internet, nor this machine.
fn is_name(host: &str) -> bool {
    !host.is_empty() && host != "localhost" && !host.contains(['.', '[', '$', '{'])
}

/// `${USER_SERVICE_URL:-http://user-service:3001}` is its default.
fn unfolded(value: &str) -> &str {
    let inner = value.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inner.and_then(|inner| inner.split_once(":-").or_else(|| inner.split_once('-'))).map_or(value.trim(), |(_, it)| it)
}
