//! Our own registration: would Consul's checks reach the application, and is the place free?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use lictor_config::{Check, Config, Registration};
use lictor_consul::{Agent, encode, probe};
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
    timing(found, ours);
    for (index, check) in body["Checks"].as_array().into_iter().flatten().enumerate() {
        reach(found, agent, index, check).await;
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
    let Some((target, path)) = target(check) else { return };
    if !agent.is_local() {
        if target.ip().is_loopback() {
            let what = format!("Consul would ask {target}, which is the agent's own machine");
            let fix = "set registration.address to what callers dial, or use a check that lictor reports: {ttl: 30s}";
            found.add(Code::CheckOutOfReach, subject(index), what, fix);
        }
        return;
    }
    if let Err(why) = probe(&Address::Tcp(target), path.as_deref(), PROBE_WITHIN).await {
        let fix = "start the application, or correct the check's path";
        found.add(Code::CheckFails, subject(index), why, fix);
    }
}

/// Where a check goes, if that is an address that can be tried from here.
fn target(check: &Json) -> Option<(SocketAddr, Option<String>)> {
    if let Some(url) = check["HTTP"].as_str() {
        let url: Uri = url.parse().ok()?;
        let ip: IpAddr = url.host()?.trim_matches(['[', ']']).parse().ok()?;
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let is_plain = url.scheme_str() == Some("http");
        return is_plain.then(|| (SocketAddr::new(ip, url.port_u16().unwrap_or(80)), Some(path)));
    }
    let plain = check["TCP"].as_str().or(check["GRPC"].as_str())?;
    Some((plain.split('/').next()?.parse().ok()?, None))
}

async fn taken(found: &mut Findings, agent: &mut Agent, ours: &Registration, body: &Json) {
    let Ok(held) = agent.get(&format!("/v1/agent/service/{}", encode(&ours.id)), &[]).await else { return };
    let (service, name) =
        (held.json["Service"].as_str().unwrap_or_default(), body["Name"].as_str().unwrap_or_default());
    if service != name {
        let what = format!("`{}` is an instance of `{service}` there", ours.id);
        let fix = "set registration.id: registering would replace that one";
        found.add(Code::IdTaken, "registration.id", what, fix);
    }
}

fn subject(index: usize) -> String {
    format!("registration.checks[{index}]")
}
