//! Our own registration: would Consul's checks reach the application, and is the place free?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use lictor_config::{Check, Config, Registration};
use lictor_consul::{Agent, Question, Relayed, Verdict, encode, probe};
use lictor_core::Address;
use serde_json::Value as Json;

use super::{Code, Findings};

const PROBE_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn examine(found: &mut Findings, agent: &mut Agent, config: &Config) {
    let (Some(ours), Some(body)) = (&config.registration, agent.registration(config)) else { return };
    if !agent.is_local() {
        let what = format!("we register with the agent at {}", agent.address());
        let fix = "one agent on each machine is safer: an instance registered with a server, or behind a balancer, can \
                   only be removed by the same one";
        found.add(Code::RemoteAgent, "consul.address", what, fix);
    }
    let nodes = agent.nodes().await;
    if nodes.len() > 1 {
        let what = format!("it leads to the agents of {}", nodes.into_iter().collect::<Vec<_>>().join(", "));
        let fix = "give each machine its own agent, or name one of them: an agent knows its own registrations alone";
        found.add(Code::SeveralAgents, "consul.address", what, fix);
    }
    timing(found, ours);
    for (index, check) in body["Checks"].as_array().into_iter().flatten().enumerate() {
        reach(found, agent, index, check).await;
    }
    for check in agent.relayed(config) {
        relayed(found, agent, config, &check).await;
    }
    taken(found, agent, ours, &body).await;
}

/// Whether the numbers make sense together.
fn timing(found: &mut Findings, ours: &Registration) {
    for (index, check) in ours.checks.iter().enumerate() {
        let (Check::Http { interval, timeout, .. }
        | Check::Tcp { interval, timeout }
        | Check::Grpc { interval, timeout, .. }) = check
        else {
            continue;
        };
        if timeout >= interval {
            let what = format!("its timeout is {timeout:?} and its interval {interval:?}");
            let fix = "a slow application keeps the next run from starting in time: shorten the timeout";
            found.add(Code::CheckOverlaps, subject(index), what, fix);
        }
        if *interval >= ours.deregister_after {
            let what = format!("it runs every {interval:?}, and deregister_after is {:?}", ours.deregister_after);
            let fix = "one failed run removes the instance: check more often, or wait longer";
            found.add(Code::CheckTooRare, subject(index), what, fix);
        }
    }
}

/// Whether the address that Consul will ask can be reached from where the agent is, and answers.
async fn reach(found: &mut Findings, agent: &Agent, index: usize, check: &Json) {
    let Some((target, question)) = target(check) else { return };
    if !agent.is_local() {
        if target.ip().is_loopback() {
            let what = format!("Consul would ask {target}, which is the agent's own machine");
            let fix = "set registration.address to what callers dial, or use a check that lictor reports: {ttl: 30s}";
            found.add(Code::CheckOutOfReach, subject(index), what, fix);
        }
        return;
    }
    works(found, index, &Address::Tcp(target), &question).await;
}

/// What lictor asks itself can be tried wherever the agent is.
async fn relayed(found: &mut Findings, agent: &Agent, config: &Config, check: &Relayed) {
    let Some(app) = &config.app.address else { return };
    if check.is_instead {
        let way = if agent.is_local() { "with this agent" } else { "from where the agent is" };
        let what =
            format!("{way} Consul would meet `inbound`, which may ask for a token, or shed: lictor asks {app} itself");
        let fix = format!(
            "nothing: Consul shows a TTL check, which is critical when lictor has been silent for {:?}. Whether others \
             reach the registered address is not looked at",
            check.ttl
        );
        found.add(Code::CheckRelayed, subject(check.index), what, fix);
    }
    works(found, check.index, app, &check.question).await;
}

async fn works(found: &mut Findings, index: usize, address: &Address, question: &Question) {
    let said = probe(address, question, PROBE_WITHIN).await;
    if said.verdict != Verdict::Passing {
        let fix = "start the application, or correct the check's path";
        found.add(Code::CheckFails, subject(index), said.words, fix);
    }
}

/// Where a check of Consul's goes, and what it asks, if that is an address that can be tried from here.
fn target(check: &Json) -> Option<(SocketAddr, Question)> {
    if let Some(url) = check["HTTP"].as_str() {
        let url: Uri = url.parse().ok()?;
        let ip: IpAddr = url.host()?.trim_matches(['[', ']']).parse().ok()?;
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let is_plain = url.scheme_str() == Some("http");
        return is_plain.then(|| (SocketAddr::new(ip, url.port_u16().unwrap_or(80)), Question::Get(path)));
    }
    if let Some(grpc) = check["GRPC"].as_str() {
        let (target, service) = grpc.split_once('/').unwrap_or((grpc, ""));
        return Some((target.parse().ok()?, Question::Grpc(service.to_owned())));
    }
    Some((check["TCP"].as_str()?.parse().ok()?, Question::Connect))
}

async fn taken(found: &mut Findings, agent: &mut Agent, ours: &Registration, body: &Json) {
    let Ok(held) = agent.get(&format!("/v1/agent/service/{}", encode(&ours.id)), &[]).await else { return };
    let (service, name) =
        (held.json["Service"].as_str().unwrap_or_default(), body["Name"].as_str().unwrap_or_default());
    if service != name {
        let what = format!("`{}` is an instance of `{service}` there", ours.id);
        let fix = "set registration.id: registering would replace that one";
        found.add(Code::IdTaken, "registration.id", what, fix);
        return;
    }
    let at = |json: &Json| (json["Address"].as_str().unwrap_or_default().to_owned(), json["Port"].as_u64());
    let (theirs, mine) = (at(&held.json), at(body));
    if theirs.1 != mine.1 || (!mine.0.is_empty() && theirs.0 != mine.0) {
        let what = format!("`{}` is registered at {}:{}", ours.id, theirs.0, theirs.1.unwrap_or_default());
        let fix = "give each instance a registration.id of its own, unless that is this one with another address";
        found.add(Code::IdContested, "registration.id", what, fix);
    }
}

fn subject(index: usize) -> String {
    format!("registration.checks[{index}]")
}
