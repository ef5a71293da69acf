//! What the value of the KV key may say. Whoever may write that key need not be who runs this machine: it tunes how
//! services are called, and may add listeners for applications of this machine. It may not say who we are, read this
//! machine's files and environment, nor open what others can reach.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use indexmap::IndexMap;
use lictor_core::Address;

use crate::config::{Config, ConsulAddress, Gateway, Listen, Source};
use crate::diagnose::Severity;
use crate::names::Names;
use crate::ours::Ours;
use crate::places::Places;
use crate::read;
use crate::tree::{Origin, Tree, steps};
use crate::value::{Step, Value, show};
use crate::values;

/// The keys that it may change. All of them work on a running sidecar.
const MAY: [&[&str]; 15] = [
    &["version"],
    &["defaults"],
    &["upstreams"],
    &["outbound", "proxy"],
    &["outbound", "allow"],
    &["inbound", "max_in_flight"],
    &["trace", "sample"],
    &["trace", "parent_based"],
    &["trace", "propagate"],
    &["trace", "legacy_headers"],
    &["trace", "infer_parent"],
    &["log", "level"],
    &["log", "access"],
    &["log", "levels"],
    &["lifecycle"],
];

/// Finds what can be seen in the value alone, and leaves nothing of it in the value: then each mistake is told once.
pub(crate) fn vet(value: &mut Value, places: &Places, tree: &Tree) {
    let vetting = Vetting { places, tree };
    match value {
        Value::Null => (),
        Value::Map(entries) => {
            vetting.keys(entries);
            vetting.values(value, &mut Vec::new());
        }
        Value::Scalar(..) | Value::List(_) => {
            vetting.refuse(&[], false, format!("expected a map, found {}", value.kind()), None);
            *value = Value::Null;
        }
    }
}

struct Vetting<'a> {
    places: &'a Places,
    tree: &'a Tree,
}

impl Vetting<'_> {
    fn keys(&self, entries: &mut IndexMap<String, Value>) {
        let described = read::described();
        // An unknown key is a mistake of another kind.
        let may_not = |path: &[&str]| !MAY.contains(&path) && described.describes(&steps(path));
        for (key, value) in entries.iter_mut().filter(|(key, _)| may_not(&[key.as_str()])) {
            match value {
                Value::Map(below) if MAY.iter().any(|may| may[0] == key) => {
                    for (sub, value) in below.iter_mut().filter(|(sub, _)| may_not(&[key.as_str(), sub.as_str()])) {
                        self.not_from_kv(&[key.as_str(), sub.as_str()]);
                        *value = Value::Null;
                    }
                    below.retain(|_, value| *value != Value::Null);
                    if below.is_empty() {
                        *value = Value::Null;
                    }
                }
                _ => {
                    self.not_from_kv(&[key.as_str()]);
                    *value = Value::Null;
                }
            }
        }
    }

    fn not_from_kv(&self, path: &[&str]) {
        let path = steps(path);
        let may: Vec<String> = MAY.iter().map(|keys| keys.join(".")).collect();
        let help = format!("it belongs in the file; KV may change {}", may.join(", "));
        self.refuse(&path, true, format!("KV may not change `{}`", show(&path)), Some(help));
    }

    fn values(&self, value: &mut Value, path: &mut Vec<Step>) {
        match value {
            Value::Null => (),
            Value::Scalar(text) => {
                if text.starts_with("file:") {
                    self.refuse(path, false, "KV may not read this machine's files".to_owned(), None);
                } else if text.contains("${") {
                    let help = Some("write the value itself".to_owned());
                    self.refuse(path, false, "KV may not read this machine's environment".to_owned(), help);
                } else {
                    return;
                }
                *value = Value::Null;
            }
            Value::List(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    path.push(Step::Index(index));
                    self.values(value, path);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    path.push(Step::Key(key.clone().into()));
                    if key == "tls" {
                        let help = Some("keys, and who is believed, belong in the file".to_owned());
                        self.refuse(path, true, "KV may not change TLS".to_owned(), help);
                        *value = Value::Null;
                    }
                    self.values(value, path);
                    path.pop();
                }
            }
        }
    }

    fn refuse(&self, path: &[Step], at_key: bool, message: String, help: Option<String>) {
        self.tree.say(Severity::Error, path, message, help, || self.places.find(path, at_key));
    }
}

/// The keys that say whom an upstream leads to.
const LEADS: [&str; 8] = ["service", "query", "static", "tag", "filter", "version", "datacenter", "failover"];

/// Finds what shows when all is put together: where it listens, whom it would send what this machine says to somebody
/// else, and a server side that nobody else asked for.
pub(crate) fn check(tree: &Tree, config: &Config) {
    if !tree.has_kv() {
        return;
    }
    let homes = homes(tree, config);
    if let Some(listen) = &config.outbound.proxy {
        listens(tree, &homes, PROXY, &PROXY_ADDRESS, listen);
    }
    let known = known(tree, config);
    stands_in(tree, [steps(&["defaults"])].into_iter());
    for upstream in &config.upstreams {
        let name = upstream.name.as_str();
        if let Some(listen) = &upstream.listen {
            listens(tree, &homes, name, &["upstreams", name, "listen", "address"], listen);
        }
        leads(tree, &known, name);
        let bootstrap = steps(&["upstreams", name, "bootstrap"]);
        if tree.is_changed_by_kv(&bootstrap) {
            let help = Some("it is for a start without Consul, so it belongs in the file".to_owned());
            tree.refuse(&bootstrap, format!("KV may not set `bootstrap` of `{name}`"), help);
        }
    }
    if tree.is_only_in_kv("inbound") {
        tree.refuse(&steps(&["inbound"]), "there is no inbound listener that KV could tune".to_owned(), None);
    }
}

/// The forward proxy, among the names of upstreams: none of them has a space.
const PROXY: &str = "the forward proxy";
const PROXY_ADDRESS: [&str; 3] = ["outbound", "proxy", "address"];
/// Where only the port counts.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn listens(tree: &Tree, homes: &HashMap<u16, String>, owner: &str, path: &[&str], listen: &Listen) {
    if !is_kv(tree, path) || tree.is_refused(&steps(path)) {
        return;
    }
    let (path, address) = (steps(path), &listen.address);
    if !is_harmless(listen) {
        let help = Some("a port of at least 1024 on 127.0.0.1".to_owned());
        return tree.refuse(&path, format!("KV may not listen on {address}"), help);
    }
    if let Some(home) = port(address).and_then(|port| homes.get(&port)).filter(|home| *home != owner) {
        let help = Some("what is sent there is meant for that; take another port".to_owned());
        tree.refuse(&path, format!("KV may not listen on {address}: on this machine that port means {home}"), help);
    }
}

fn is_kv(tree: &Tree, path: &[&str]) -> bool {
    matches!(tree.origin_of(path), Origin::Kv { .. })
}

/// The ports that mean something to this machine's programs, on whichever of its addresses, because `localhost` has more
/// than one; and whom they mean, also while nobody listens there or KV has moved it.
fn homes(tree: &Tree, config: &Config) -> HashMap<u16, String> {
    let Config { app, admin, inbound, consul, outbound, upstreams, .. } = config;
    let mut homes = HashMap::new();
    let mut means = |port: Option<u16>, owner: &str| {
        if let Some(port @ 1..) = port {
            homes.entry(port).or_insert_with(|| owner.to_owned());
        }
    };
    means(app.address.as_ref().and_then(port), "the application");
    means(Some(admin.listen.port()), "the admin listener");
    means(admin.public.map(|address| address.port()), "the public admin listener");
    means(inbound.as_ref().and_then(|inbound| port(&inbound.listen.address)), "the inbound listener");
    match &consul.address {
        Some(ConsulAddress::Http(host, port) | ConsulAddress::Https(host, port)) if is_here(host) => {
            means(Some(*port), "Consul's agent");
        }
        Some(ConsulAddress::Http(..) | ConsulAddress::Https(..) | ConsulAddress::Unix(_)) | None => (),
    }
    let mut listens = |path: &[&str], listen: Option<&Listen>, owner: &str| {
        let own = listen.filter(|_| !is_kv(tree, path));
        means(own.and_then(|listen| port(&listen.address)), owner);
        // Whatever a listener is short for ends in its address.
        let said = (2..=path.len()).find_map(|end| tree.said_in_file(&steps(&path[..end])));
        means(said.and_then(|text| values::address(text, ANYWHERE).ok()).as_ref().and_then(port), owner);
    };
    listens(&PROXY_ADDRESS, outbound.proxy.as_ref(), PROXY);
    for upstream in upstreams {
        let name = upstream.name.as_str();
        listens(&["upstreams", name, "listen", "address"], upstream.listen.as_ref(), name);
    }
    for upstream in upstreams.iter().filter(|upstream| !tree.is_kvs_own(&steps(&["upstreams", &upstream.name]))) {
        let endpoints = match &upstream.source {
            Source::Static(endpoints) => endpoints,
            Source::Consul(_) => &upstream.bootstrap,
        };
        let here = endpoints.iter().filter_map(|endpoint| endpoint.rsplit_once(':')).filter(|(host, _)| is_here(host));
        here.for_each(|(_, port)| means(port.parse().ok(), &upstream.name));
    }
    homes
}

fn port(address: &Address) -> Option<u16> {
    address.tcp().map(|address| address.port())
}

/// Whether a host's name or address is this machine's own.
fn is_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = |address: IpAddr| address.to_canonical().is_loopback() || address.is_unspecified();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_own)
}

/// An upstream that this machine's sources name, its gateway among them, carries what they give it (headers, the service
/// token), and what the application and clients say to whom they take it for: so these sources alone say whom it leads to.
/// One of KV's own carries none of that (`read` gives it no token), and leads to whomever KV says.
fn leads(tree: &Tree, known: &Names, name: &str) {
    if !known.has(&name.to_ascii_lowercase()) {
        return;
    }
    // A router that instances share goes by the host that it is told.
    let set = ["upstreams", name, "headers", "set"];
    let keys = tree.keys_in_kv(&steps(&set));
    let hosts = keys.iter().filter(|key| key.eq_ignore_ascii_case("host"));
    let hosts = hosts.map(|key| ("headers.set.Host", steps(&[&set[..], &[key.as_str()]].concat())));
    let kv_routes = tree.length_in_kv(&steps(&["upstreams", name, "routes"]));
    let routes =
        (0..kv_routes).map(|index| [&steps(&["upstreams", name, "routes"])[..], &[Step::Index(index)]].concat());
    stands_in(tree, routes.chain([steps(&["upstreams", name])]));
    for (key, path) in LEADS.map(|key| (key, steps(&["upstreams", name, key]))).into_iter().chain(hosts) {
        if tree.is_changed_by_kv(&path) {
            let help =
                format!("`{key}` belongs where `{name}` is declared; an upstream of another name may have its own");
            tree.refuse(&path, format!("KV may not change whom this machine's `{name}` leads to"), Some(help));
        }
    }
}

/// Whoever says what is answered in place of a failure can cause the failure too: that is to lead it elsewhere.
fn stands_in(tree: &Tree, policies: impl Iterator<Item = Vec<Step>>) {
    for policy in policies {
        for key in ["upstream", "body", "status", "content_type"] {
            let path = [&policy[..], &steps(&["fallback", key])].concat();
            if tree.is_changed_by_kv(&path) {
                let help = "it belongs in the file; KV may say `fallback.stale`".to_owned();
                tree.refuse(&path, format!("KV may not change `{}`", show(&path)), Some(help));
            }
        }
    }
}

/// Names that mean something to this machine without KV: its upstreams, what its gateway calls, and what the forward proxy
/// reaches by its name in Consul.
///
/// In small letters: what a client writes as a host has no case (RFC 9110, section 4.2.3).
fn known(tree: &Tree, config: &Config) -> Names {
    let ours = Ours::of(tree, config.gateway.as_ref());
    let upstreams = config.upstreams.iter().map(|upstream| upstream.name.as_str()).filter(|name| ours.has(name));
    let called = config.gateway.iter().flat_map(Gateway::calls);
    let reached = config.outbound.proxy.iter().flat_map(|_| &config.outbound.allow).map(String::as_str);
    upstreams.chain(called).chain(reached).map(str::to_ascii_lowercase).collect()
}

/// For this machine only, without privileges. Port 0 is one of the kernel's choice.
fn is_harmless(listen: &Listen) -> bool {
    match &listen.address {
        Address::Tcp(address) => address.ip().is_loopback() && (address.port() == 0 || address.port() >= 1024),
        Address::Unix(_) => false,
    }
}
