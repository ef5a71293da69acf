//! Consul itself: does it answer, how old is it, what may our token do?

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use lictor_config::{Config, Query};
use lictor_consul::{Agent, ConsulError};
use serde_json::{Value as Json, json};

use super::{Code, Findings, Seen};

/// CONSUL: agent/config/default.go, `limits.http_max_conns_per_client`.
const DEFAULT_CONNECTIONS: u64 = 200;
/// The oldest that lictor is tested with.
const OLDEST: (u32, u32) = (1, 8);
const CLOCKS_APART: Duration = Duration::from_secs(5);
/// CONSUL: agent/acl_endpoint.go, ACLAuthorize, maxRequests.
const RIGHTS_AT_ONCE: usize = 64;

/// A right, as Consul's authorizer and its rules name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Right {
    resource: &'static str,
    access: &'static str,
    name: String,
    is_prefix: bool,
    what_for: &'static str,
}

/// What the token may see.
#[derive(Debug)]
pub(super) struct Granted {
    denied: HashSet<String>,
}

impl Granted {
    /// Whether an empty answer about a service means something.
    pub(super) fn sees(&self, service: &str) -> bool {
        !self.denied.contains(service) && !self.denied.contains("")
    }
}

/// `None` when there is nobody to ask further.
pub(super) async fn examine(found: &mut Findings, agent: &mut Agent, config: &Config) -> Option<Granted> {
    let address = agent.address();
    let leader = match agent.get("/v1/status/leader", &[]).await {
        Ok(reply) => {
            compare_clocks(found, &address, reply.date.as_deref());
            reply.json.as_str().unwrap_or_default().to_owned()
        }
        Err(error @ ConsulError::Status { .. }) if !error.is_denied() => {
            no_leader(found, &address, &error.to_string());
            return None;
        }
        Err(error) => {
            let fix = "start the agent, or say where it is: consul.address or CONSUL_HTTP_ADDR";
            found.add(Code::Unreachable, address, error.to_string(), fix);
            return None;
        }
    };
    if leader.is_empty() {
        no_leader(found, &address, "its servers have not elected one");
        return None;
    }
    let about = match agent.get("/v1/agent/self", &[]).await {
        Ok(reply) => reply.json,
        Err(ConsulError::Status { code: 401 | 403, text }) if is_unknown_token(&text) => {
            let fix = "use a token that exists: consul.token_file or CONSUL_HTTP_TOKEN_FILE";
            found.add(Code::TokenRefused, "consul.token", text, fix);
            return None;
        }
        Err(_) => Json::Null, // needs agent:read, which lictor does without
    };
    let version = about["Config"]["Version"].as_str().map(str::to_owned);
    compare_version(found, &address, version.as_deref());
    count_connections(found, config, about["DebugConfig"]["HTTPMaxConnsPerClient"].as_u64());
    found.consul = Some(Seen { address, version, leader });
    Some(check_rights(found, agent, config).await)
}

fn no_leader(found: &mut Findings, address: &str, why: &str) {
    let fix = "bring back enough servers for a quorum; `consul operator raft list-peers` names them";
    found.add(Code::NoLeader, address, why, fix);
}

fn is_unknown_token(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("acl not found") || text.contains("token does not exist")
}

fn compare_clocks(found: &mut Findings, address: &str, date: Option<&str>) {
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
    let ours = SystemTime::now();
    let apart = ours.duration_since(theirs).unwrap_or_else(|error| error.duration());
    if apart > CLOCKS_APART {
        let what = format!("its clock and ours are {} s apart", apart.as_secs());
        found.add(Code::Clock, address, what, "let both machines keep time (NTP): certificates and logs depend on it");
    }
}

fn compare_version(found: &mut Findings, address: &str, version: Option<&str>) {
    let Some(version) = version else { return };
    let mut numbers = version.split(['.', '+', '-']).map_while(|part| part.parse::<u32>().ok());
    if let (Some(major), Some(minor)) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        let what = format!("this is Consul {version}");
        found.add(Code::OldConsul, address, what, "lictor is tested with 1.8 and later: upgrade the agents");
    }
}

/// One for each distinct query, one for our registration and one for KV.
fn count_connections(found: &mut Findings, config: &Config, limit: Option<u64>) {
    let queries: HashSet<&Query> = queries(config).map(|(_, query)| query).collect();
    let ours = queries.len() as u64 + u64::from(config.registration.is_some()) + u64::from(config.consul.kv.is_some());
    let limit = limit.unwrap_or(DEFAULT_CONNECTIONS);
    if limit > 0 && ours * 2 > limit {
        let what = format!("this sidecar keeps {ours} connections, and the agent takes {limit} from one address");
        let fix = "raise limits.http_max_conns_per_client on the agent: all sidecars on this address share it";
        found.add(Code::Connections, "consul", what, fix);
    }
}

/// What is asked of Consul, by the upstream that asks.
pub(super) fn queries(config: &Config) -> impl Iterator<Item = (&str, &Query)> {
    let all = config.upstreams.iter();
    all.flat_map(|upstream| upstream.queries().map(|query| (upstream.name.as_str(), query)))
}

/// Consul says what a token may do without anything being done with it (the endpoint that its own UI asks).
async fn check_rights(found: &mut Findings, agent: &mut Agent, config: &Config) -> Granted {
    let mut granted = Granted { denied: HashSet::new() };
    for rights in wanted(config).chunks(RIGHTS_AT_ONCE) {
        let asked: Vec<Json> = rights
            .iter()
            .map(|right| json!({ "Resource": right.resource, "Access": right.access, "Segment": right.name }))
            .collect();
        match agent.post("/v1/internal/acl/authorize", &Json::Array(asked)).await {
            Ok(reply) => {
                for (right, answer) in rights.iter().zip(reply.json.as_array().into_iter().flatten()) {
                    if answer["Allow"] == false {
                        lacks(found, right, &mut granted);
                    }
                }
            }
            Err(ConsulError::Status { code: 401, .. }) => return granted, // ACLs are off
            Err(error) => {
                let fix = "compare the token's policies with docs/doctor.md yourself";
                found.add(Code::RightsUnknown, "consul.token", error.to_string(), fix);
                return granted;
            }
        }
    }
    granted
}

fn lacks(found: &mut Findings, right: &Right, granted: &mut Granted) {
    if right.resource == "service" && right.access == "read" {
        granted.denied.insert(right.name.clone());
    }
    if right.resource == "node" {
        granted.denied.insert(String::new());
    }
    let what = format!("{}:{} on `{}` is missing: {}", right.resource, right.access, right.name, right.what_for);
    found.add(Code::MissingRule, "consul.token", what, format!("add to its policy: {}", right.rule()));
}

/// Exactly what lictor does with this configuration.
fn wanted(config: &Config) -> Vec<Right> {
    let right = |resource, access, name: &str, what_for| Right {
        resource,
        access,
        name: name.to_owned(),
        is_prefix: false,
        what_for,
    };
    let mut wanted = Vec::new();
    if let (Some(service), Some(_)) = (&config.service, &config.registration) {
        wanted.push(right(
            "service",
            "write",
            service,
            "to register, to report checks, and for maintenance while draining",
        ));
    }
    // A prepared query may run with a token of its own, and what it asks for is Consul's to know.
    let named = queries(config).filter(|(_, query)| !query.is_prepared);
    let mut services: Vec<&str> = named.map(|(_, query)| query.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    wanted.extend(services.iter().map(|name| right("service", "read", name, "to see its instances")));
    for name in &config.outbound.allow {
        let prefix = name.strip_suffix('*');
        let read = right("service", "read", prefix.unwrap_or(name), "the forward proxy may call it");
        wanted.push(Right { is_prefix: prefix.is_some(), ..read });
    }
    if !services.is_empty() || !config.outbound.allow.is_empty() {
        wanted.push(Right { is_prefix: true, ..right("node", "read", "", "instances are seen with their node") });
    }
    if let Some(kv) = &config.consul.kv {
        wanted.push(right("key", "read", &kv.config, "the configuration in KV"));
        if config.gateway.is_some() {
            wanted.push(right("key", "read", &kv.maintenance, "what is ordered of the gateway's maintenance"));
        }
        let status = format!("{}/", kv.status);
        wanted.push(Right { is_prefix: true, ..right("key", "write", &status, "to say what became of it") });
    }
    wanted
}

impl Right {
    /// In a policy's language.
    fn rule(&self) -> String {
        let kind = if self.is_prefix { "_prefix" } else { "" };
        format!("{}{kind} \"{}\" {{ policy = \"{}\" }}", self.resource, self.name, self.access)
    }
}
