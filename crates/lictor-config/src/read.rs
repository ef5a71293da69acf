//! One walk over the tree: every key, its type, its default, its rules. One function a section.

mod consul;
mod policy;
mod service;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use lictor_core::mesh::{AccessLog, Protocol};
use lictor_core::policy::Policy;
use lictor_core::tls::{ClientTls, KeyPair, ServerTls};
use lictor_core::trace::{B3, TraceSettings};
use lictor_core::{Address, Secret};
use serde_json::json;

use crate::config::{
    Admin, Config, Lifecycle, Listen, Log, LogFormat, Metrics, Otlp, OtlpProtocol, Outbound, Query, Source, Trace,
    Upstream,
};
use crate::env::Environment;
use crate::tree::{Node, Section, Tree, texts};
use crate::values;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Of the admin token.
const TOKEN_MIN: usize = 16;

/// The whole file. Mistakes are noted in the tree; where there is one, a default stands in, so that all are found.
pub(crate) fn config(tree: &Tree, env: &Environment) -> Config {
    let top = tree.root().section(&[]);
    let version = top.field("version", "Version of this file's format.");
    if version.integer(1, 1) != 1 {
        version.error("only version 1 is known", None);
    }
    let service = service::name(&top);
    let app = service::app(&top);
    let tokens = service::tokens(&top, env);
    let inbound = service::inbound(&top, &app, &tokens);
    let registration = service::registration(&top, service.as_deref(), &app, inbound.as_ref(), env);
    let defaults_node = top.field("defaults", "The policy of every upstream that does not say otherwise.");
    let defaults_section = defaults_node.section(&[]);
    let defaults = policy::policy(&defaults_section, &Policy::default());
    defaults_section.finish();
    let outbound = outbound(&top.field("outbound", "The forward proxy, and what `lictor run` exports."));
    let upstreams_node = top.field("upstreams", "Services that are called, by name.");
    let upstreams: Vec<Upstream> =
        upstreams_node.entries().iter().map(|node| upstream(node, &defaults, &tokens)).collect();
    let needs_consul = registration.is_some()
        || !outbound.allow.is_empty()
        || upstreams.iter().any(|upstream| matches!(upstream.source, Source::Consul(_)));
    let consul = consul::consul(&top.field("consul", "How Consul is reached."), needs_consul, service.as_deref());
    let config = Config {
        trace: trace(&top.field("trace", "Trace headers, sampling and export."), service.as_deref()),
        metrics: metrics(&top.field("metrics", "The Prometheus endpoint.")),
        log: log(&top.field("log", "Logs, on standard output.")),
        admin: admin(&top.field("admin", "The admin listeners.")),
        workers: workers(&top.field("workers", "Data-plane threads; `auto` is the CPUs that this process may use.")),
        lifecycle: lifecycle(&top.field("lifecycle", "Starting and stopping.")),
        service,
        registration,
        app,
        inbound,
        consul,
        outbound,
        defaults,
        upstreams,
    };
    ports(&top, &config);
    top.finish();
    config
}

fn upstream(node: &Node<'_>, defaults: &Policy, tokens: &[Secret]) -> Upstream {
    let name = node.name();
    if name != "*" && !service::is_service_name(&name) {
        node.key_error(format!("`{name}` is not a service name: letters, digits, `-`, `_` and `.`"), None);
    }
    // `user-service: 3001` is the listener alone.
    let is_short = node.scalar().is_some();
    let section = if is_short { node.unset() } else { node.clone() }.section(&[json!({ "type": "integer" })]);
    let listen = section.field("listen", "Its listener: port, address, unix:/path, or a map with more.");
    let listen = listener(&if is_short { node.short_for("listen") } else { listen });
    let source = source(&section, &name);
    let protocol = section.field("protocol", "What its instances speak; default: their Meta `protocol`, else http1.");
    let protocol = protocol_of(&protocol, None);
    let tls = client_tls(&section.field("tls", "TLS towards its instances: true, or a map."));
    let is_required = section.field("required", "Counts in /ready.").boolean(false);
    let policy = policy::policy(&section, defaults);
    let routes =
        policy::routes(&section.field("routes", "Routes with a policy of their own; the first match wins."), &policy);
    let mut set_headers = headers(&section.field("headers", "Headers of every request to it."));
    for (name, value) in token_header(tokens) {
        if !set_headers.iter().any(|(known, _)| *known == name) {
            set_headers.push((name, value));
        }
    }
    if protocol == Some(Protocol::Tcp) {
        for http in ["routes", "headers", "hedge", "cache", "fallback"] {
            let node = section.field(http, "");
            if node.is_set() {
                node.key_error(format!("`{http}` is about HTTP, but `protocol: tcp` carries bytes"), None);
            }
        }
    }
    section.finish();
    Upstream { name, listen, source, protocol, tls, is_required, policy, routes, set_headers }
}

fn token_header(tokens: &[Secret]) -> Vec<(HeaderName, HeaderValue)> {
    let value = tokens.first().and_then(|token| HeaderValue::try_from(token.reveal()).ok());
    value
        .map(|mut value| {
            value.set_sensitive(true);
            (HeaderName::from_static("x-service-auth"), value)
        })
        .into_iter()
        .collect()
}

/// A listener for applications of this machine.
fn listener(node: &Node<'_>) -> Option<Listen> {
    let listen = listen(node, None, LOCAL)?;
    if !listen.address.is_local() {
        node.warn(
            format!(
                "{} can be reached from other machines: anyone there may call through this sidecar",
                listen.address
            ),
            Some("a port alone listens on 127.0.0.1".to_owned()),
        );
    }
    Some(listen)
}

/// `3001`, `127.0.0.1:3001`, `unix:/run/users.sock`, or a map with that as its `address`.
pub(super) fn listen(node: &Node<'_>, default: Option<Address>, host: IpAddr) -> Option<Listen> {
    let plain = |address| Listen { address, tls: None, max_connection_age: None };
    if node.scalar().is_some() {
        return node.address(default, host).map(plain);
    }
    let section = node.section(&[json!({ "type": ["integer", "string"] })]);
    let address = section.field("address", "Port, address, or unix:/path.").address(default, host);
    let tls = server_tls(&section.field("tls", "TLS is spoken there: certificate and key."));
    let max_connection_age =
        section.field("max_connection_age", "A connection is ended gracefully when it is this old.").limit(None);
    section.finish();
    if node.is_map() && address.is_none() {
        node.error("a listener needs an `address`", Some("write `{address: 3001}`".to_owned()));
    }
    address.map(|address| Listen { address, tls, max_connection_age })
}

fn server_tls(node: &Node<'_>) -> Option<ServerTls> {
    let section = node.section(&[]);
    let identity = key_pair(node, &section, "What we show, PEM; intermediate certificates follow it.");
    let client_ca =
        section.field("client_ca", "Clients must show a certificate of one of these CAs (PEM); default: none.").file();
    section.finish();
    if node.is_map() && identity.is_none() {
        node.error("TLS on a listener needs `cert` and `key`", None);
    }
    identity.map(|identity| ServerTls { identity, client_ca })
}

fn client_tls(node: &Node<'_>) -> Option<ClientTls> {
    if node.is_off() {
        return None;
    }
    if matches!(node.scalar(), Some("true" | "on" | "yes")) {
        return Some(ClientTls::default());
    }
    let section = node.section(&[json!({ "type": "boolean" })]);
    let tls = ClientTls {
        ca: section.field("ca", "CAs that are believed (PEM); default: the system's.").file(),
        identity: key_pair(node, &section, "What we show when asked, PEM."),
        server_name: section
            .field("server_name", "For SNI, and what the certificate must name; default: the instance's address.")
            .text(None),
    };
    section.finish();
    node.is_set().then_some(tls)
}

fn key_pair(node: &Node<'_>, section: &Section<'_>, help: &'static str) -> Option<KeyPair> {
    let (cert, key) = (section.field("cert", help).file(), section.field("key", "Its private key, PEM.").file());
    if cert.is_some() != key.is_some() {
        node.error("`cert` and `key` belong together", None);
    }
    Some(KeyPair { cert: cert?, key: key? })
}

fn source(section: &Section<'_>, name: &str) -> Source {
    let fixed = section.field("static", "Fixed endpoints, `host:port`, instead of Consul's.");
    let endpoints: Vec<String> = fixed
        .elements()
        .iter()
        .filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, values::host_port))
        .collect();
    let service = section.field("service", "Its name in Consul, when that is not the key's.");
    let tag = section.field("tag", "Only instances with this tag, or all of these.");
    let filter = section.field("filter", "Only instances for which this Consul filter expression holds.");
    let version = section.field("version", "Only instances with this Meta `version`.");
    let near = section.field("near", "Sorted by round-trip time from this node, or `_agent`.");
    let datacenter = section.field("datacenter", "Another datacenter.");
    let query = Query {
        service: service.text(None).unwrap_or_else(|| name.to_owned()),
        tags: tag.elements().iter().filter_map(|tag| tag.text(None)).collect(),
        filter: filter_of(filter.text(None), version.text(None)),
        near: near.text(None),
        datacenter: datacenter.text(None),
    };
    if !fixed.is_set() {
        return Source::Consul(query);
    }
    for other in [&service, &tag, &filter, &version, &near, &datacenter] {
        if other.is_set() {
            other.error(format!("`{}` asks Consul, but the endpoints are static", other.name()), None);
        }
    }
    if endpoints.is_empty() {
        fixed.error("static endpoints need at least one `host:port`", None);
    }
    Source::Static(endpoints)
}

fn filter_of(filter: Option<String>, version: Option<String>) -> Option<String> {
    let version = version.map(|version| format!("Service.Meta.version == \"{}\"", version.replace('"', "")));
    match (filter, version) {
        (Some(filter), Some(version)) => Some(format!("({filter}) and {version}")),
        (filter, version) => filter.or(version),
    }
}

pub(super) fn protocol_of(node: &Node<'_>, default: Option<&str>) -> Option<Protocol> {
    let choices = [
        ("auto", Protocol::Auto),
        ("tcp", Protocol::Tcp),
        ("http1", Protocol::Http1),
        ("http", Protocol::Http1),
        ("h2c", Protocol::H2c),
        ("http2", Protocol::H2c),
        ("grpc", Protocol::Grpc),
    ];
    node.choice(&choices, default)
}

fn headers(node: &Node<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let section = node.section(&[]);
    let set = section.field("set", "Set, whatever the application sent.");
    let headers = set.entries().into_iter().filter_map(|entry| {
        let name = HeaderName::try_from(entry.name().as_str());
        let value = entry.secret()?;
        let Ok(mut value) = HeaderValue::try_from(value.reveal()) else {
            entry.error("not a header value: no line breaks or control characters", None);
            return None;
        };
        value.set_sensitive(true);
        match name {
            Ok(name) => Some((name, value)),
            Err(_) if entry.name() == "*" => None,
            Err(_) => {
                entry.key_error(format!("`{}` is not a header name", entry.name()), None);
                None
            }
        }
    });
    let headers = headers.collect();
    section.finish();
    headers
}

fn outbound(node: &Node<'_>) -> Outbound {
    let section = node.section(&[]);
    let proxy = section.field("proxy", "The forward proxy: port, address, unix:/path, or a map. Default: none.");
    let allow = section.field("allow", "Services it may call besides the upstreams; `pay-*` is a prefix.");
    let allow = allow
        .elements()
        .iter()
        .filter_map(|entry| {
            let parse = |text: &str| {
                let is_pattern = service::is_service_name(text.strip_suffix('*').unwrap_or(text)) || text == "*";
                if is_pattern { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a service name or prefix")) }
            };
            entry.parsed(json!({ "type": "string" }), None, parse)
        })
        .collect();
    let outbound = Outbound {
        proxy: listener(&proxy),
        allow,
        export_env: section.field("env", "`lictor run` exports USER_SERVICE_URL and the like.").boolean(true),
        export_proxy_env: section.field("proxy_env", "`lictor run` exports HTTP_PROXY and NO_PROXY.").boolean(false),
    };
    section.finish();
    outbound
}

fn trace(node: &Node<'_>, service: Option<&str>) -> Trace {
    let section = node.section(&[]);
    let endpoint = section.field("otlp", "Where spans go, such as http://otel:4318; `off`: nowhere.");
    let protocol = section.field("protocol", "grpc or http/protobuf; default by the port: 4317 is gRPC.");
    let chosen = protocol.choice(&[("http/protobuf", OtlpProtocol::HttpProtobuf), ("grpc", OtlpProtocol::Grpc)], None);
    let parse = |text: &str| {
        if values::names_user(text) {
            return Err(
                "a user and password belong in `trace.headers`, as `authorization`: the URL is shown".to_owned()
            );
        }
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        if is_url { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a URL: write `http://otel:4318`")) }
    };
    let url = if endpoint.is_off() { None } else { endpoint.parsed(json!({ "type": "string" }), None, parse) };
    let propagate = section.field(
        "propagate",
        "Headers that are always sent: w3c, b3, b3multi; default: w3c, and b3 when the caller did.",
    );
    let choices = [("w3c", "w3c"), ("b3", "b3"), ("b3multi", "b3multi")];
    let kinds: Vec<&str> = propagate.elements().iter().filter_map(|kind| kind.choice(&choices, None)).collect();
    let b3 = kinds.iter().find_map(|kind| match *kind {
        "b3" => Some(B3::Single),
        "b3multi" => Some(B3::Multiple),
        _ => None,
    });
    let headers = section.field("headers", "Sent with every export.");
    let headers: Vec<_> =
        headers.entries().into_iter().filter_map(|entry| Some((entry.name(), entry.secret()?))).collect();
    let ca = section.field("ca", "CA certificates for an https receiver; default: the system's.").file();
    let service_name = section.field("service_name", "`service.name` of the spans; default: the service.");
    let service_name = service_name.text(Some(service.unwrap_or("lictor")));
    let resource: BTreeMap<_, _> = texts(&section.field("resource", "Further resource attributes."));
    let settings = TraceSettings {
        w3c: !propagate.is_set() || kinds.contains(&"w3c"),
        b3: b3.unwrap_or(if propagate.is_set() { B3::Off } else { B3::Echoed }),
        legacy: section
            .field("legacy_headers", "X-Trace-ID and X-Span-ID are understood, sent and echoed.")
            .boolean(true),
        sample: section.field("sample", "Share of traces that is kept, decided by their id.").share(0.1),
        parent_based: section
            .field("parent_based", "A caller's decision stands; `sample` is for new traces. Off: `sample` is for all.")
            .boolean(true),
        export: url.is_some(),
    };
    section.finish();
    let otlp = url.map(|endpoint| Otlp {
        protocol: chosen.unwrap_or(if endpoint.trim_end_matches('/').ends_with(":4317") {
            OtlpProtocol::Grpc
        } else {
            OtlpProtocol::HttpProtobuf
        }),
        endpoint,
        headers,
        ca,
        service_name: service_name.unwrap_or_default(),
        resource,
    });
    Trace { settings, otlp }
}

fn metrics(node: &Node<'_>) -> Metrics {
    let section = node.section(&[]);
    let metrics = Metrics {
        compat: section.field("compat", "Also the names that older services use.").boolean(true),
        otel: section.field("otel", "Also OpenTelemetry's histograms of requests, in and out.").boolean(false),
        merge_app: section
            .field("merge_app", "The application's own metrics, on this machine, put behind these. Default: none.")
            .parsed(json!({ "type": "string" }), None, local_url),
        max_label_values: section
            .field("max_label_values", "Distinct values of one label before further ones become `other`.")
            .integer(200, 1) as usize,
    };
    section.finish();
    metrics
}

/// `http://127.0.0.1:8082/metrics`: on this machine, because whoever may scrape us sees what it says.
fn local_url(text: &str) -> Result<String, String> {
    if values::names_user(text) {
        return Err("the URL may name no user: it is shown".to_owned());
    }
    let rest = text.strip_prefix("http://").filter(|rest| rest.chars().all(|letter| letter.is_ascii_graphic()));
    let rest = rest.ok_or_else(|| format!("`{text}` is not a URL: write `http://127.0.0.1:8082/metrics`"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/metrics"), |at| rest.split_at(at));
    let port = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let host = port.map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_local { Ok(format!("http://{authority}{path}")) } else { Err(format!("`{host}` is not on this machine")) }
}

fn log(node: &Node<'_>) -> Log {
    let section = node.section(&[]);
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let access = section.field("access", "Which requests are logged: all, errors, off, or `sampled 10%`.");
    let parse = |text: &str| match text {
        "all" | "on" | "true" => Ok(AccessLog::All),
        "errors" => Ok(AccessLog::Errors),
        "off" | "none" | "false" => Ok(AccessLog::Off),
        text => match text.strip_prefix("sampled ") {
            Some(share) => values::share(share).map(AccessLog::Sampled),
            None => Err(format!("`{text}` is none of: all, errors, off, sampled 10%")),
        },
    };
    let levels =
        section.field("level", "error, warn, info, debug, trace, or a filter such as `info,lictor_consul=debug`.");
    let level = |text: &str| {
        let words = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = words.contains(&text.to_lowercase().as_str()) || text.contains(['=', ',']);
        if is_level {
            return Ok(text.to_lowercase());
        }
        let meant = crate::diagnose::suggest(text, words).map(|word| format!("; did you mean `{word}`?"));
        Err(format!("`{text}` is not a log level{}", meant.unwrap_or_default()))
    };
    let log = Log {
        level: levels.parsed(json!({ "type": "string" }), Some("info"), level).unwrap_or_else(|| "info".to_owned()),
        format: section
            .field("format", "json, or text for people.")
            .choice(&formats, Some("json"))
            .unwrap_or(LogFormat::Json),
        access: access.parsed(json!({ "type": "string" }), Some("all"), parse).unwrap_or_default(),
    };
    section.finish();
    log
}

fn admin(node: &Node<'_>) -> Admin {
    let section = node.section(&[]);
    let default = SocketAddr::from((LOCAL, 9901));
    let listen = section.field("listen", "All endpoints, for this machine; for others with `token`.");
    let address = listen.socket(Some(default), LOCAL).unwrap_or(default);
    let public = section.field("public", "Health and metrics only, for probes and scrapers. Default: none.");
    let token = admin_token(&section.field(
        "token",
        "Other machines show it (`Authorization: Bearer`) for anything but health and metrics. Default: none, and they get nothing else.",
    ));
    if !address.ip().is_loopback() && token.is_none() {
        let help = "set `admin.token`, or publish health and metrics alone with `admin.public`".to_owned();
        listen.warn("other machines reach the admin listener, and get health and metrics only", Some(help));
    }
    let admin = Admin { listen: address, public: public.socket(None, ANY), token };
    section.finish();
    admin
}

/// It can stop this sidecar and may be tried by whoever reaches it, so it is not short; and it is fit for a header.
fn admin_token(node: &Node<'_>) -> Option<Secret> {
    let token = node.secret()?;
    let is_fit = token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
    if is_fit && token.reveal().len() >= TOKEN_MIN {
        return Some(token);
    }
    let help = "make one with `openssl rand -hex 32`".to_owned();
    node.error(format!("a token has at least {TOKEN_MIN} characters, and no spaces"), Some(help));
    None
}

fn workers(node: &Node<'_>) -> usize {
    let auto = || std::thread::available_parallelism().map_or(1, usize::from);
    let parse = |text: &str| match text {
        "auto" => Ok(auto()),
        text => match text.parse() {
            Ok(count @ 1..=256) => Ok(count),
            _ => Err(format!("`{text}` is neither `auto` nor a number from 1 to 256")),
        },
    };
    node.parsed(json!({ "type": ["string", "integer"] }), Some("auto"), parse).unwrap_or_else(auto)
}

fn lifecycle(node: &Node<'_>) -> Lifecycle {
    let section = node.section(&[]);
    let lifecycle = Lifecycle {
        start_timeout: section
            .field("start_timeout", "How long the first endpoints may take.")
            .duration(Duration::from_secs(30)),
        drain_delay: section
            .field("drain_delay", "How long to wait, still serving, until callers no longer see us.")
            .duration(Duration::from_secs(5)),
        drain_timeout: section
            .field("drain_timeout", "How long requests in flight may take to finish.")
            .duration(Duration::from_secs(30)),
        kill_after: section
            .field("kill_after", "From SIGTERM to SIGKILL of the child.")
            .duration(Duration::from_secs(10)),
    };
    section.finish();
    lifecycle
}

/// No two of our own listeners, nor the application, may be on one port of one address.
fn ports(top: &Section<'_>, config: &Config) {
    let mut taken: Vec<(Address, String)> = Vec::new();
    if let Some(app) = &config.app.address {
        taken.push((app.clone(), "the application".to_owned()));
    }
    let mut claim = |address: Address, owner: String, node: &Node<'_>| {
        if let Some((_, first)) = taken.iter().find(|(other, _)| overlaps(other, &address)) {
            node.error(
                match &address {
                    Address::Tcp(address) => format!("port {} is taken already by {first}", address.port()),
                    Address::Unix(_) => format!("{address} is taken already by {first}"),
                },
                Some("each listener needs its own".to_owned()),
            );
        }
        taken.push((address, owner));
    };
    let node = |section: &'static str, key: &'static str| {
        let field = top.field(section, "");
        if field.is_map() { field.section(&[]).field(key, "") } else { field }
    };
    claim(config.admin.listen.into(), "the admin listener".to_owned(), &node("admin", "listen"));
    if let Some(address) = config.admin.public {
        claim(address.into(), "the public admin listener".to_owned(), &node("admin", "public"));
    }
    if let Some(inbound) = &config.inbound {
        claim(inbound.listen.address.clone(), "inbound".to_owned(), &node("inbound", "listen"));
    }
    if let Some(proxy) = &config.outbound.proxy {
        claim(proxy.address.clone(), "the forward proxy".to_owned(), &node("outbound", "proxy"));
    }
    let entries = top.field("upstreams", "").entries();
    for (upstream, entry) in config.upstreams.iter().zip(&entries) {
        let Some(listen) = &upstream.listen else { continue };
        let node = if entry.is_map() { entry.section(&[]).field("listen", "") } else { entry.clone() };
        claim(listen.address.clone(), format!("upstream {}", upstream.name), &node);
    }
}

fn overlaps(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && same_ip
        }
        (one, other) => one == other,
    }
}
