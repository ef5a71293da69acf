//! Who we are: the service, its application, its registration, its server side.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_core::mesh::Protocol;
use lictor_core::{Address, Secret};
use serde_json::json;

use super::advertised::registered;
use super::limit;
use super::listen::{ANY, LOCAL, listen, protocol_of};
use crate::config::{App, AppProbe, Check, Inbound, Listen, Registration, Restart};
use crate::environment::{Environment, is_withheld};
use crate::refused;
use crate::tree::{Node, Section};

/// Secrets that stand in tutorials: whoever has read one has them.
const WELL_KNOWN: [&str; 2] = ["internal-service-secret", "your-secret-key"];
const IS_WELL_KNOWN: &str = "this token stands in public tutorials";
/// Consul's least: a smaller value is raised to it without a word (CONSUL: agent/check.go).
const LEAST_DEREGISTER: Duration = Duration::from_secs(60);

pub(super) fn is_service_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(is_inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

pub(super) fn name(top: &Section<'_>) -> Option<String> {
    let node = top.field("service", "Our service's name in Consul.");
    let parse = |text: &str| {
        let message = || format!("`{text}` is not a service name: letters, digits, `-`, `_` and `.`");
        if is_service_name(text) { Ok(text.to_owned()) } else { Err(message()) }
    };
    if !node.is_map() {
        return node.parsed(json!({ "type": ["string", "object"] }), None, parse);
    }
    let section = node.section(&[]);
    let name = section.field("name", "Its name.").parsed(json!({ "type": "string" }), None, parse);
    section.finish();
    name
}

pub(super) fn app(top: &Section<'_>) -> App {
    let short = top.field("port", "Where the application listens, on 127.0.0.1; short for app.port.");
    let section = top.field("app", "The application beside us.").section(&[]);
    let long = section.field("port", "Port or address that it listens on.");
    let full = section.field("address", "Where it listens, when that is more than a port: unix:/run/app.sock.");
    let ways = Node::of_the_last_source([full, long, short]);
    let address = ways.iter().find_map(|node| node.address(None, LOCAL));
    let given: Vec<&Node<'_>> = ways.iter().filter(|node| node.is_set()).collect();
    if let [first, second, ..] = given[..] {
        second.error(format!("`{}` and `{}` are both given", second.path(), first.path()), Some("keep one".to_owned()));
    }
    let is_portless = address.as_ref().and_then(Address::tcp).is_some_and(|address| address.port() == 0);
    if let (true, [first, ..]) = (is_portless, &given[..]) {
        first.error("the application needs a real port", None);
    }
    let app = App {
        address,
        protocol: protocol_of(&section.field("protocol", "What it speaks."), Some("http1")).unwrap_or(Protocol::Http1),
        probe: app_probe(&section.field(
            "probe",
            "What readiness asks it: a path, tcp or off. Default: the path of the first check with one, else tcp.",
        )),
        command: section
            .field("command", "What `lictor run` starts when its command line names nothing.")
            .elements()
            .iter()
            .filter_map(|word| word.text(None))
            .collect(),
        restart: restart(
            &section.field("restart", "Whether `lictor run` starts it again: never, on_failure, or a map."),
        ),
        inherit: section
            .field("inherit", "Variables with lictor's own secrets that `lictor run` leaves to it: CONSUL_HTTP_TOKEN.")
            .elements()
            .iter()
            .filter_map(inherited)
            .collect(),
    };
    section.finish();
    app
}

/// `never`, `on_failure`, or `{on_failure: {delay: 5s, max: 3}}`.
fn restart(node: &Node<'_>) -> Restart {
    let (delay, max) = (Duration::from_secs(5), 3);
    if node.scalar().is_some() {
        let words =
            [("never", Restart::Never), ("off", Restart::Never), ("no", Restart::Never), ("false", Restart::Never)];
        let words = [&words[..], &[("on_failure", Restart::OnFailure { delay, max })]].concat();
        return node.choice(&words, None).unwrap_or(Restart::Never);
    }
    let section = node.off_unless(false).section(&[json!({ "enum": ["never", "on_failure"] })]);
    let on_failure = section.field("on_failure", "When it ended with another code than 0, or by a signal.");
    let how = on_failure.section(&[]);
    let delay =
        how.field("delay", "Before the first restart; twice as long before each further one in a row.").duration(delay);
    let max = how.field("max", "Restarts in a row; a run of ten minutes ends the row.").integer(max, 1);
    how.finish();
    section.finish();
    if node.is_set() && !on_failure.is_set() {
        node.error(
            "`restart` needs a condition",
            Some("write `restart: {on_failure: {delay: 5s, max: 3}}`".to_owned()),
        );
    }
    if on_failure.is_set() { Restart::OnFailure { delay, max } } else { Restart::Never }
}

fn inherited(name: &Node<'_>) -> Option<String> {
    name.parsed(json!({ "type": "string" }), None, |text| match text {
        "LICTOR_ADMIN_TOKEN" => Err("the application never gets LICTOR_ADMIN_TOKEN".to_owned()),
        name if is_withheld(name) => Ok(name.to_owned()),
        name => Err(format!("`{name}` is no secret of lictor's: the application has it anyway")),
    })
}

fn app_probe(node: &Node<'_>) -> Option<AppProbe> {
    let parse = |text: &str| match text {
        "off" | "false" | "none" | "no" => Ok(AppProbe::Off),
        "tcp" => Ok(AppProbe::Connect),
        path if path.starts_with('/') => Ok(AppProbe::Path(path.to_owned())),
        other => Err(format!("`{other}` is not a path such as /health, tcp or off")),
    };
    node.parsed(json!({ "type": ["string", "boolean"] }), None, parse)
}

/// The token that services show one another: the first is sent, all are accepted.
pub(super) fn tokens(top: &Section<'_>, env: &Environment) -> Vec<Secret> {
    let node = top.field("service_token", "Sent as X-Service-Auth, and accepted by inbound; two during rotation. What stands in public tutorials is refused, but with `--dev` or LICTOR_DEV=1.");
    let tokens: Vec<(Node<'_>, Secret)> =
        node.elements().into_iter().filter_map(|entry| entry.secret().map(|secret| (entry, secret))).collect();
    for (entry, secret) in &tokens {
        if secret.reveal().trim().is_empty() {
            entry.error("this token is empty: anybody has it", None);
        }
        refuse_in_production(entry, secret, env);
    }
    tokens.into_iter().map(|(_, secret)| secret).collect()
}

/// Refuses what everybody can read.
pub(super) fn refuse_well_known(node: &Node<'_>, secret: &Secret) {
    if WELL_KNOWN.contains(&secret.reveal()) {
        node.error(IS_WELL_KNOWN, Some("make one of your own: openssl rand -hex 32".to_owned()));
    }
}

/// The same, but on a developer's machine, whose owner says that it is one.
fn refuse_in_production(node: &Node<'_>, secret: &Secret, env: &Environment) {
    if !WELL_KNOWN.contains(&secret.reveal()) {
        return;
    }
    if env.is_true("LICTOR_DEV") {
        let help = "do not say LICTOR_DEV=1 or --dev where anybody else can reach the service".to_owned();
        return node.warn(format!("{IS_WELL_KNOWN}: whoever has read them has it"), Some(help));
    }
    let help = "make one of your own, or say LICTOR_DEV=1, or --dev, on a developer's machine".to_owned();
    node.error(IS_WELL_KNOWN, Some(help));
}

pub(super) fn inbound(top: &Section<'_>, app: &App, tokens: &[Secret]) -> Option<Inbound> {
    let node = top.field("inbound", "Other sidecars' way in: metrics, token check, limits. `true`, a map, or off.");
    let is_wanted = node.is_set() && !node.is_off();
    if matches!(node.scalar(), Some("off" | "false" | "none" | "no")) {
        return None;
    }
    let is_plain = matches!(node.scalar(), Some("true" | "on" | "yes"));
    let port = app.address.as_ref().and_then(Address::tcp).map(|address| address.port());
    let port = port.map(|port| port.checked_add(10_000).unwrap_or(0));
    let default = Address::Tcp((ANY, port.unwrap_or(0)).into());
    let shape = [json!({ "type": "boolean" })];
    let plain = Listen { address: default.clone(), tls: None, proxy_protocol: false, max_connection_age: None };
    let empty = Inbound { listen: plain.clone(), max_in_flight: 1024, tokens: tokens.to_vec(), limits: [].into() };
    let inbound = if is_plain {
        empty
    } else {
        let section = node.off_unless(false).section(&shape);
        let verifies = section
            .field("verify_service_token", "Refuse requests without the service token; default: when there is one.")
            .boolean(!tokens.is_empty());
        let listen_node =
            section.field("listen", "Port, address or a map; default: the application's port + 10000, everywhere.");
        let listen = listen(&listen_node, Some(default), ANY).unwrap_or(plain);
        if listen.address.path().is_some() {
            listen_node.error("other machines cannot reach a Unix socket: inbound needs a port", None);
        }
        let inbound = Inbound {
            listen,
            max_in_flight: section.field("max_in_flight", "Requests at a time.").integer(1024, 1),
            limits: limit::limits(
                &section.field("limit", "How often somebody may ask: `100/60s`, a map, or a list of them; `off`."),
                &[].into(),
                limit::INBOUND,
            ),
            tokens: if verifies { tokens.to_vec() } else { Vec::new() },
        };
        section.finish();
        if verifies && tokens.is_empty() && is_wanted {
            node.error(
                "verify_service_token needs `service_token`",
                Some("set service_token or INTERNAL_SERVICE_TOKEN".to_owned()),
            );
        }
        inbound
    };
    if is_wanted
        && app.address.is_some()
        && port.is_none()
        && inbound.listen.address.tcp().is_some_and(|at| at.port() == 0)
        && !(node.is_map() && node.section(&shape).field("listen", "").is_set())
    {
        node.error(
            "inbound needs a port of its own: the application has none",
            Some("set `inbound.listen`".to_owned()),
        );
    }
    if is_wanted && app.address.is_none() {
        node.error("inbound needs to know where the application listens", Some("set `port`".to_owned()));
        return None;
    }
    is_wanted.then_some(inbound)
}

pub(super) fn registration(
    top: &Section<'_>,
    service: Option<&str>,
    app: &App,
    inbound: Option<&Inbound>,
    env: &Environment,
) -> Option<Registration> {
    let node = top.field("registration", "How we are registered; `off` for a caller that nobody calls.");
    let check = top.field("check", "Short for one check: a path such as /health, or a map.");
    if node.is_off() {
        return None;
    }
    let section = node.section(&[json!({ "const": "off" })]);
    let advertise_node = section.field("advertise", "auto, inbound or app: whose port is registered.");
    let advertise = advertise_node
        .choice(&[("auto", Advertise::Auto), ("inbound", Advertise::Inbound), ("app", Advertise::App)], Some("auto"));
    if matches!(advertise, Some(Advertise::Inbound)) && inbound.is_none() {
        advertise_node
            .error("there is no `inbound` whose port could be registered", Some("add an `inbound` block".to_owned()));
    }
    let advertised = match advertise {
        Some(Advertise::App) => app.address.as_ref(),
        _ => inbound.map(|inbound| &inbound.listen.address).or(app.address.as_ref()),
    };
    let port = match advertised {
        Some(address) => address.tcp().map_or(0, |address| address.port()),
        None => gateway_port(top).unwrap_or(0),
    };
    let default_id = "${service}-${hostname}-${port}";
    let id_node = section.field("id", "The instance's id; stable across restarts.");
    let id = id_node.text(Some(default_id)).unwrap_or_default();
    let id = id
        .replace("${service}", service.unwrap_or_default())
        .replace("${hostname}", &env.hostname)
        .replace("${port}", &port.to_string());
    id_node.obeys(refused::id(&id));
    let address = section.field("address", "What callers dial: auto, env:POD_IP, interface:eth0, or an address.");
    let address = registered(&address, env);
    let (weight_passing, weight_warning) =
        weights(&section.field("weights", "Shares of the load while passing and warning."));
    let meta = meta(&section.field("meta", "Meta; version and protocol are used by callers."), app.protocol);
    let registration = Registration {
        id,
        address,
        port,
        tags: section.field("tags", "Tags.").elements().iter().filter_map(|tag| tag.text(None)).collect(),
        meta,
        weight_passing,
        weight_warning,
        checks: checks(&section.field("checks", "Checks; several count together."), &check, app.protocol),
        deregister_after: deregister_after(&section),
    };
    let details = section.field("meta", "").entries().into_iter().chain([section.field("address", "")]);
    let others = details.into_iter().find(Node::is_others);
    section.finish();
    // A name that others' variables say may be for them alone.
    let named = top.field("service", "");
    let blamed = if !node.is_set() && named.is_others() { &named } else { &node };
    match (service, port) {
        (Some(_), 1..) => Some(registration),
        (Some(_), 0) if advertised.is_some_and(|address| address.path().is_some()) => {
            let help = "add an `inbound` block with a port, or `registration: off`".to_owned();
            blamed.error("callers cannot reach the application's Unix socket", Some(help));
            None
        }
        (Some(_), 0) => {
            let help = "set `port` to where the application listens, or `registration: off`".to_owned();
            blamed.error("a registration needs the application's port", Some(help));
            None
        }
        (None, _) => {
            if node.is_set() && node.is_map() || check.is_set() {
                let blamed = others.as_ref().unwrap_or(&node);
                blamed.error("a registration needs the service's name", Some("set `service`".to_owned()));
            }
            None
        }
    }
}

/// Where the clients of a gateway without an application connect; what is wrong with it is told where it is read.
fn gateway_port(top: &Section<'_>) -> Option<u16> {
    let listen = top.field("gateway", "").below("listen");
    let address = listen.scalar().or(listen.below("address").scalar())?;
    address.rsplit(':').next()?.parse().ok()
}

/// The Meta, which says what the application speaks, unless it says so itself.
fn meta(node: &Node<'_>, protocol: Protocol) -> BTreeMap<String, String> {
    let mut meta: BTreeMap<String, String> = BTreeMap::new();
    for entry in node.entries() {
        let (name, value) = (entry.name(), entry.text(None).unwrap_or_default());
        entry.obeys(refused::meta_value(&value));
        match refused::meta_key(&name) {
            Err(message) if name != "*" => entry.key_error(message, None),
            Ok(()) | Err(_) => {
                meta.insert(name, value);
            }
        }
    }
    // What an application of any protocol speaks is for each caller to say.
    if protocol != Protocol::Auto {
        meta.entry("protocol".to_owned()).or_insert_with(|| protocol.as_str().to_owned());
    }
    node.obeys(refused::meta_pairs(meta.len()));
    meta
}

#[derive(Clone, Copy)]
enum Advertise {
    Auto,
    Inbound,
    App,
}

fn weights(node: &Node<'_>) -> (u32, u32) {
    let section = node.section(&[]);
    let passing = section.field("passing", "While all checks pass.").integer_within(1, 1, refused::WEIGHT_MAX);
    let warning = section.field("warning", "While a check warns; 0: none.");
    let warning = warning.integer_within(1, 0, refused::WEIGHT_MAX);
    section.finish();
    (passing, warning)
}

fn deregister_after(section: &Section<'_>) -> Duration {
    let node = section.field("deregister_after", "Consul removes an instance that was critical for this long.");
    let wanted = node.duration(LEAST_DEREGISTER);
    if wanted < LEAST_DEREGISTER {
        node.warn("Consul's least is 1m (LIC-C101)", Some("1m is used".to_owned()));
    }
    wanted.max(LEAST_DEREGISTER)
}

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

fn checks(list: &Node<'_>, short: &Node<'_>, protocol: Protocol) -> Vec<Check> {
    let [list, short] = &Node::of_the_last_source([list.clone(), short.clone()]);
    let listed: Vec<Check> = list.elements().iter().filter_map(check).collect();
    let shorthand = match short.scalar() {
        Some(path) => http(short, path).map(|target| Check::Http { target, interval: INTERVAL, timeout: TIMEOUT }),
        None => check(short),
    };
    if list.is_set() && short.is_set() {
        short.error("`check` and `registration.checks` are both given", Some("keep one".to_owned()));
    }
    match (list.is_set(), shorthand) {
        (true, _) => listed,
        (false, Some(check)) => vec![check],
        (false, None) if protocol == Protocol::Grpc => {
            vec![Check::Grpc { service: String::new(), interval: INTERVAL, timeout: TIMEOUT }]
        }
        (false, None) => vec![Check::Tcp { interval: INTERVAL, timeout: TIMEOUT }],
    }
}

fn http(node: &Node<'_>, target: &str) -> Option<String> {
    let is_target = target.starts_with('/') || target.starts_with("http://") || target.starts_with("https://");
    if !is_target {
        node.error(format!("`{target}` is not a path"), Some("write `check: /health`".to_owned()));
    }
    is_target.then(|| target.to_owned())
}

fn check(node: &Node<'_>) -> Option<Check> {
    let section = node.section(&[json!({ "type": "string" })]);
    let http_node = section.field("http", "Consul asks for this path or URL.");
    let tcp = section.field("tcp", "Consul connects.");
    let grpc = section.field("grpc", "Consul calls grpc.health.v1: true, or the service's name in it.");
    let ttl_node = section.field("ttl", "lictor probes the application and reports every third of this.");
    let probe = section.field("probe", "With ttl: the path that is probed; default: a TCP connect.");
    let interval_node = section.field("interval", "Between runs.");
    let interval = interval_node.duration(INTERVAL);
    interval_node.obeys(refused::interval(interval));
    let timeout = section.field("timeout", "For one run.").duration(TIMEOUT);
    let kinds = [&http_node, &tcp, &grpc, &ttl_node].into_iter().filter(|kind| kind.is_set()).count();
    let target = http_node.text(None).and_then(|target| http(&http_node, &target));
    let wants_tcp = tcp.boolean(false);
    let ttl = ttl_node.limit(None);
    let probe = probe.text(None);
    let grpc_service = grpc.text(None);
    section.finish();
    if !node.is_set() {
        return None;
    }
    if kinds != 1 {
        node.error("a check is one of http, tcp, grpc and ttl", Some("write `{http: /health}`".to_owned()));
        return None;
    }
    if let Some(ttl) = ttl {
        if ttl < Duration::from_secs(3) {
            ttl_node.error("too short to be beaten in time: at least 3s", None);
        }
        return Some(Check::Ttl { ttl, probe });
    }
    if let Some(target) = target {
        return Some(Check::Http { target, interval, timeout });
    }
    if let Some(service) = grpc_service {
        let service = if service == "true" { String::new() } else { service };
        return Some(Check::Grpc { service, interval, timeout });
    }
    wants_tcp.then_some(Check::Tcp { interval, timeout })
}
