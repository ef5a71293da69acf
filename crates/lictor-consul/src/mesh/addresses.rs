//! Where instances can be dialled: at literal addresses, at what their host names resolved to, or where the configuration
//! says.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use lictor_config::{Source, Upstream};

use super::inputs::Inputs;
use crate::agent::Instance;
use crate::agent::health::Condition;
use crate::watch::Observed;

/// What the configuration says that there is: nothing, where Consul is the source and has answered.
pub(super) fn fixed_by(upstream: &Upstream, inputs: &Inputs<'_>) -> Observed {
    let hosts = match &upstream.source {
        Source::Static(hosts) => hosts,
        Source::Consul(query) if !inputs.observed.contains_key(query) => &upstream.bootstrap,
        Source::Consul(_) => return Observed::default(),
    };
    Observed::of(hosts.iter().map(|host| fixed(host)).collect())
}

/// A fixed `host:port` as an instance that always passes.
pub(super) fn fixed(host_port: &str) -> Instance {
    let (host, port) = host_port.rsplit_once(':').unwrap_or((host_port, "0"));
    Instance {
        node: String::new(),
        id: host_port.to_owned(),
        service: String::new(),
        host: unbracketed(host).to_owned(),
        port: port.parse().unwrap_or(0),
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weight_passing: 1,
        weight_warning: 1,
        condition: Condition::Passing,
    }
}

/// The addresses of an instance: its literal one, or what its name resolved to.
pub(super) fn resolve(instance: &Instance, addresses: &HashMap<String, Vec<IpAddr>>) -> Vec<SocketAddr> {
    let host = unbracketed(&instance.host);
    if let Ok(ip) = host.parse() {
        return vec![SocketAddr::new(ip, instance.port)];
    }
    let found = addresses.get(host).map(Vec::as_slice).unwrap_or_default();
    found.iter().map(|ip| SocketAddr::new(*ip, instance.port)).collect()
}

/// Host names that an observation or the configuration needs resolved.
pub(crate) fn names(inputs: &Inputs<'_>) -> Vec<String> {
    let fixed: Vec<Observed> = inputs.config.upstreams.iter().map(|upstream| fixed_by(upstream, inputs)).collect();
    let mut names: Vec<String> = inputs.observed.values().chain(&fixed).flat_map(names_in).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Those that one answer needs.
pub(crate) fn names_in(observed: &Observed) -> impl Iterator<Item = &str> {
    observed.instances.iter().chain(&observed.suspects).filter_map(name_of)
}

/// The host name that has to be resolved before the instance can be dialled.
pub(super) fn name_of(instance: &Instance) -> Option<&str> {
    let host = unbracketed(&instance.host);
    (instance.is_usable() && host.parse::<IpAddr>().is_err()).then_some(host)
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}
