//! What we call: is it there, is it well, is it what the configuration thinks?

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lictor_config::{Config, Query, Source, suggest};
use lictor_consul::{Agent, ConsulError, encode};
use lictor_core::mesh::Protocol;
use serde_json::Value as Json;

use super::consul::{Granted, queries};
use super::{Code, Findings};

/// For one name.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn examine(found: &mut Findings, agent: &mut Agent, config: &Config, granted: &Granted) {
    let mut catalogs: HashMap<Option<String>, Vec<String>> = HashMap::new();
    for (name, query) in queries(config) {
        let subject = format!("upstreams.{name}");
        let datacenter = query.datacenter.clone().or_else(|| config.consul.datacenter.clone());
        let query = Query { datacenter: datacenter.clone(), ..query.clone() };
        let known = match instances(agent, &Query { tags: Vec::new(), filter: None, ..query.clone() }).await {
            Ok(known) => known,
            Err(error) => {
                refused(found, &subject, &query, &error);
                continue;
            }
        };
        if query.is_prepared && known.is_empty() {
            let what = format!("the prepared query `{}` finds nobody", query.service);
            found.add(Code::NothingPassing, &subject, what, "see what it asks for, and why the checks of those fail");
            continue;
        }
        if known.is_empty() {
            if granted.sees(&query.service) {
                let names = match catalogs.get(&datacenter) {
                    Some(names) => names.clone(),
                    None => services(agent, datacenter.as_deref()).await,
                };
                unknown(found, &subject, &query.service, &names);
                catalogs.insert(datacenter, names);
            }
            continue;
        }
        let matching = if query.tags.is_empty() && query.filter.is_none() {
            known.clone()
        } else {
            match instances(agent, &query).await {
                Ok(matching) => matching,
                Err(error) => {
                    refused(found, &subject, &query, &error);
                    continue;
                }
            }
        };
        judge(found, &subject, &query, &known, &matching);
        let protocol = config.upstreams.iter().find(|upstream| upstream.name == name).and_then(|it| it.protocol);
        compare_protocols(found, &subject, protocol, &matching);
    }
}

/// Names of endpoints that the configuration says, which Consul knows nothing of.
pub(super) async fn resolve(found: &mut Findings, config: &Config) {
    for upstream in &config.upstreams {
        let (key, hosts) = match &upstream.source {
            Source::Static(hosts) => ("static", hosts),
            Source::Consul(_) => ("bootstrap", &upstream.bootstrap),
        };
        for host in hosts {
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).trim_matches(['[', ']']);
            let looked = tokio::time::timeout(LOOK_UP_WITHIN, lictor_os::names::look_up(name)).await;
            if let Err(error) = looked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                let subject = format!("upstreams.{}.{key}", upstream.name);
                found.add(Code::NoSuchHost, subject, format!("`{host}`: {error}"), "correct the name, or DNS");
            }
        }
    }
}

async fn instances(agent: &mut Agent, query: &Query) -> Result<Vec<Json>, ConsulError> {
    let mut parameters: Vec<(&str, &str)> = vec![("stale", "")];
    parameters.extend(query.tags.iter().map(|tag| ("tag", tag.as_str())));
    parameters.extend(query.filter.iter().map(|filter| ("filter", filter.as_str())));
    parameters.extend(query.datacenter.iter().map(|name| ("dc", name.as_str())));
    let name = encode(&query.service);
    if query.is_prepared {
        let reply = agent.get(&format!("/v1/query/{name}/execute"), &parameters).await?;
        return Ok(reply.json["Nodes"].as_array().cloned().unwrap_or_default());
    }
    let reply = agent.get(&format!("/v1/health/service/{name}"), &parameters).await?;
    Ok(reply.json.as_array().cloned().unwrap_or_default())
}

async fn services(agent: &mut Agent, datacenter: Option<&str>) -> Vec<String> {
    let parameters: Vec<(&str, &str)> = datacenter.iter().map(|name| ("dc", *name)).collect();
    let reply = agent.get("/v1/catalog/services", &parameters).await;
    let names = reply.ok().and_then(|reply| reply.json.as_object().map(|names| names.keys().cloned().collect()));
    names.unwrap_or_default()
}

fn refused(found: &mut Findings, subject: &str, query: &Query, error: &ConsulError) {
    let fix = if query.is_prepared {
        "create the prepared query in Consul, or correct `query` or the datacenter"
    } else {
        "correct its filter or datacenter"
    };
    found.add(Code::QueryRefused, subject, error.to_string(), fix);
}

fn unknown(found: &mut Findings, subject: &str, service: &str, names: &[String]) {
    let fix = match suggest(service, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "register it".to_owned(),
        None => format!("register it, or call one of {}", names.join(", ")),
    };
    found.add(Code::UnknownService, subject, format!("there is no service `{service}`"), fix);
}

/// Whether any instance can be called.
fn judge(found: &mut Findings, subject: &str, query: &Query, known: &[Json], matching: &[Json]) {
    if matching.is_empty() {
        let tags: BTreeSet<&str> = known
            .iter()
            .flat_map(|it| it["Service"]["Tags"].as_array().into_iter().flatten())
            .filter_map(Json::as_str)
            .collect();
        let tags = if tags.is_empty() { "none".to_owned() } else { tags.into_iter().collect::<Vec<_>>().join(", ") };
        let what = format!("{} instances of `{}` are there, none of which matches", known.len(), query.service);
        found.add(Code::NothingMatches, subject, what, format!("correct tag, version or filter; tags there: {tags}"));
        return;
    }
    let usable: Vec<(&Json, &str)> =
        matching.iter().map(|it| (it, status(it))).filter(|(_, status)| *status != "critical").collect();
    if usable.is_empty() {
        let what =
            format!("{} instances of `{}`, all critical; {}", matching.len(), query.service, complaint(&matching[0]));
        found.add(Code::NothingPassing, subject, what, "see why its checks fail");
        return;
    }
    let weight = |(instance, status): &(&Json, &str)| {
        let key = if *status == "warning" { "Warning" } else { "Passing" };
        instance["Service"]["Weights"][key].as_u64().unwrap_or(1)
    };
    if usable.iter().map(weight).sum::<u64>() == 0 {
        let what = format!("{} usable instances of `{}`, all with weight 0", usable.len(), query.service);
        found.add(Code::NoWeight, subject, what, "give them Weights.Warning, or see why their checks warn");
    }
}

/// The worst of an instance's checks.
fn status(instance: &Json) -> &str {
    let all = || instance["Checks"].as_array().into_iter().flatten().filter_map(|check| check["Status"].as_str());
    let worst = ["critical", "maintenance", "warning"].into_iter().find(|bad| all().any(|status| status == *bad));
    match worst {
        Some("maintenance") => "critical",
        other => other.unwrap_or("passing"),
    }
}

/// What the first bad check of an instance says.
fn complaint(instance: &Json) -> String {
    let bad = instance["Checks"].as_array().into_iter().flatten().find(|check| check["Status"] != "passing");
    let text = |value: &Json| value.as_str().unwrap_or_default().trim().chars().take(120).collect::<String>();
    let (name, output) = bad.map_or_else(Default::default, |check| (text(&check["Name"]), text(&check["Output"])));
    format!("{}: {name}: {output}", text(&instance["Service"]["ID"]))
}

fn compare_protocols(found: &mut Findings, subject: &str, configured: Option<Protocol>, instances: &[Json]) {
    let Some(configured) = configured.filter(|configured| *configured != Protocol::Auto) else { return };
    let said: BTreeSet<&str> =
        instances.iter().filter_map(|instance| instance["Service"]["Meta"]["protocol"].as_str()).collect();
    if let Some(other) = said.into_iter().find(|said| Protocol::named(said) != Some(configured)) {
        let what = format!("it is called as {}, and instances say {other}", configured.as_str());
        found.add(Code::OtherProtocol, subject, what, "leave `protocol` out: what instances say is used then");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_protocol_is_the_same_by_each_of_its_words() {
        for protocol in Protocol::ALL {
            for said in Protocol::ALL.iter().flat_map(|said| said.words()).chain(&["spdy"]) {
                let mut found = Findings::default();
                let instances = [json!({ "Service": { "Meta": { "protocol": said } } })];
                compare_protocols(&mut found, "upstreams.users", Some(protocol), &instances);
                let is_fine = protocol == Protocol::Auto || protocol.words().contains(said);
                assert_eq!(found.sorted().is_empty(), is_fine, "{protocol:?} {said}");
            }
        }
    }
}
