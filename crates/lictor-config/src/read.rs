//! One walk over the tree: every key, its type, its default, its rules. One function a section.

mod advertised;
mod blocks;
mod consul;
mod exported;
mod fallback;
mod gateway;
mod limit;
mod listen;
mod policy;
mod ports;
mod redis;
mod service;
mod source;
mod upstream;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lictor_core::Secret;
use lictor_core::bearer::Bearer;
use lictor_core::mesh::{AccessLevels, AccessLog, Level};
use lictor_core::policy::Policy;
use lictor_core::trace::{B3, TraceSettings};
use serde_json::json;

use self::listen::{ANY, LOCAL, listener};
use self::upstream::Shown;
use crate::config::{
    Admin, Claims, Config, Lifecycle, Log, LogFormat, Metrics, Otlp, OtlpProtocol, Outbound, SignalTo, Trace, Upstream,
};
use crate::environment::Environment;
use crate::ours::Ours;
use crate::tree::{Node, Tree, texts};
use crate::values;

/// Of the admin token.
const TOKEN_MIN: usize = 16;

/// The whole file. Mistakes are noted in the tree; where there is one, a default stands in, so that all are found.
pub(crate) fn config(tree: &Tree, env: &Environment, claims: &Claims) -> Config {
    let top = tree.root().section(&[]);
    let version = top.field("version", "Version of this file's format.");
    if version.integer(1, 1) != 1 {
        version.error("only version 1 is known", None);
    }
    let service = service::name(&top);
    let app = service::app(&top);
    let tokens = service::tokens(&top, env);
    let bearer = auth(&top.field("auth", "What our calls show of us, besides `service_token`."));
    let inbound = service::inbound(&top, &app, &tokens);
    let registration = service::registration(&top, service.as_deref(), &app, inbound.as_ref(), env);
    let zone = top.field(
        "zone",
        "Where we are: instances with the same Meta `zone` come first; default: `registration.meta.zone`.",
    );
    let zone = zone.text(None).or_else(|| registration.as_ref()?.meta.get("zone").cloned());
    let defaults_node = top.field("defaults", "The policy of every upstream that does not say otherwise.");
    let defaults_section = defaults_node.section(&[]);
    let defaults = policy::policy(&defaults_section, &Policy::default());
    defaults_section.finish();
    let outbound = outbound(&top.field("outbound", "The forward proxy, and what `lictor run` exports."));
    let upstreams_node = top.field("upstreams", "Services that are called, by name.");
    let shown = Shown { tokens: &tokens, bearer: bearer.as_ref() };
    let gateway_node = top
        .field("gateway", "Routes for clients from outside: one listener, and where each request goes.")
        .off_unless(false);
    let gateway = |upstreams: &mut Vec<Upstream>, claims: &Claims| {
        gateway::gateway(&gateway_node, upstreams, |name| upstream::implied(name, &defaults, &shown), claims)
    };
    // What KV says of an upstream is read by whether the gateway calls it, so the gateway is read before and after.
    let before = tree.has_kv().then(|| gateway_node.again(|| gateway(&mut Vec::new(), &Claims::default()))).flatten();
    let ours = Ours::of(tree, before.as_ref());
    let mut upstreams = upstream::upstreams(&upstreams_node, &defaults, &shown, &ours);
    let gateway = gateway(&mut upstreams, claims);
    let building_blocks = blocks::building_blocks(
        &top.field("building_blocks", "What the application may ask of Consul through the admin listener."),
        registration.is_some(),
        service.is_some(),
    );
    let needs_consul = registration.is_some()
        || building_blocks.is_on()
        || gateway.as_ref().is_some_and(|gateway| gateway.from_consul.is_some())
        || !outbound.allow.is_empty()
        || upstreams.iter().any(|upstream| upstream.queries().next().is_some());
    let consul = consul::consul(&top.field("consul", "How Consul is reached."), needs_consul, service.as_deref());
    let config = Config {
        trace: trace(&top.field("trace", "Trace headers, sampling and export."), service.as_deref()),
        metrics: metrics(&top.field("metrics", "The Prometheus endpoint.")),
        log: log(&top.field("log", "Logs, on standard output.")),
        admin: admin(&top.field("admin", "The admin listeners.")),
        building_blocks,
        workers: workers(&top.field("workers", "Data-plane threads; `auto` is the CPUs that this process may use.")),
        lifecycle: lifecycle(&top.field("lifecycle", "Starting and stopping.")),
        service,
        registration,
        zone,
        app,
        inbound,
        consul,
        outbound,
        defaults,
        upstreams,
        gateway,
        redis: redis::redis(&top),
    };
    let limits: Vec<_> = config.limits().collect();
    limit::check(&top, &limits, config.redis.is_some(), config.registration.is_some());
    ports::check(&top, &config);
    exported::check(&top, &config);
    fallback::check(&top, &config);
    top.finish();
    config
}

/// Every key once, with its page.
pub(crate) fn described() -> Tree {
    let tree = Tree::describing();
    config(&tree, &Environment::default(), &Claims::default());
    tree
}

fn auth(node: &Node<'_>) -> Option<Arc<Bearer>> {
    let section = node.section(&[]);
    let outbound = section.field("outbound", "To every upstream that does not say otherwise.").section(&[]);
    let bearer = upstream::bearer(&outbound.field(
        "bearer",
        "`Authorization: Bearer ..` where the application sends no `Authorization`; a file's is read again after a 401.",
    ));
    outbound.finish();
    section.finish();
    bearer
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
        infer_parent: section
            .field(
                "infer_parent",
                "A call without a context is a child of the only request that `inbound` serves, or of the one with its X-Request-ID.",
            )
            .boolean(false),
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
        endpoints: section
            .field(
                "endpoints",
                "Also requests, failures, latency and state of each endpoint, of `max_label_values` at most.",
            )
            .boolean(false),
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
    let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
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
    let by_status =
        section.field("levels", "The level of a request's line, by status or class; default: error from 4xx on, and warn where a gateway refuses with 4xx.");
    let log = Log {
        level: levels.parsed(json!({ "type": "string" }), Some("info"), level).unwrap_or_else(|| "info".to_owned()),
        format: section
            .field("format", "json, text for people, or auto: text on a terminal, json elsewhere.")
            .choice(&formats, Some("auto"))
            .unwrap_or(LogFormat::Auto),
        access: access.parsed(json!({ "type": "string" }), Some("all"), parse).unwrap_or_default(),
        levels: Arc::new(levels_by_status(&by_status)),
    };
    section.finish();
    log
}

/// `{4xx: warn, 404: info}`
fn levels_by_status(node: &Node<'_>) -> AccessLevels {
    let words = [("debug", Level::Debug), ("info", Level::Info), ("warn", Level::Warn), ("error", Level::Error)];
    let mut levels = AccessLevels::default();
    for entry in node.entries() {
        let name = entry.name();
        let level = entry.choice(&words, None);
        let class = name.strip_suffix("xx").and_then(|class| class.parse::<usize>().ok());
        match (class, name.parse::<u16>()) {
            (Some(class @ 1..=5), _) => {
                levels.classes[class - 1] = level.unwrap_or(levels.classes[class - 1]);
                levels.strangers = level.filter(|_| class == 4).unwrap_or(levels.strangers);
            }
            (_, Ok(status @ 100..=599)) => levels.statuses.extend(level.map(|level| (status, level))),
            _ if name == "*" => (), // its page in the schema
            _ => entry.key_error(format!("`{name}` is neither a status nor one of 1xx, 2xx, 3xx, 4xx, 5xx"), None),
        }
    }
    levels
}

fn admin(node: &Node<'_>) -> Admin {
    let section = node.section(&[]);
    let default = SocketAddr::from((LOCAL, 9901));
    let listen = section.field("listen", "All endpoints, for this machine; for others with `token`.");
    let address = listen.socket(Some(default), LOCAL).unwrap_or(default);
    let public = section.field("public", "Health and metrics only, for probes and scrapers. Default: none.");
    let token = bearer_token(&section.field(
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

/// It gives orders and may be tried by whoever reaches the listener, so it is not short; and it is fit for a header.
fn bearer_token(node: &Node<'_>) -> Option<Secret> {
    let token = node.secret()?;
    service::refuse_well_known(node, &token);
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
            .field("start_timeout", "How long the first endpoints may take: calls wait for them so long, and later ones get 503 (`no_endpoints`) at once.")
            .duration(Duration::from_secs(30)),
        drain_delay: section
            .field("drain_delay", "How long to wait, still serving, until callers no longer see us; where balancers ask `/ready`, all of it.")
            .duration(Duration::from_secs(5)),
        drain_timeout: section
            .field("drain_timeout", "How long requests in flight may take to finish.")
            .duration(Duration::from_secs(30)),
        kill_after: section
            .field("kill_after", "From SIGTERM to SIGKILL of the child.")
            .duration(Duration::from_secs(10)),
        signal: {
            let node = section.field(
                "signal",
                "Who ends with the application: `group` is all that it has started, also daemons; `child` it alone.",
            );
            let parse = |text: &str| match text {
                "group" => Ok(SignalTo::Group),
                "child" => Ok(SignalTo::Child),
                other => Err(format!("`{other}` is neither group nor child")),
            };
            node.parsed(json!({ "enum": ["group", "child"] }), Some("group"), parse).unwrap_or_default()
        },
    };
    section.finish();
    lifecycle
}
