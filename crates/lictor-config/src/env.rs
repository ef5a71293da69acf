//! The environment: standard variables over the texts, older services' variables under them.
//!
//! Most of these names are not lictor's alone: a framework, a base image or Kubernetes sets them too, and means something
//! else. One rule holds for all of them: what cannot be meant for lictor is told and not heeded, and never stops it
//! ([`heeded`] for what is seen at once, [`Unheeded`] for what only reading the whole shows). A name that begins with
//! `LICTOR_` is ours, and a mistake in it is a mistake.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnose::{Diagnostic, Place, Report, Severity, suggest};
use crate::environment::{Environment, is_others, is_unicode};
use crate::read;
use crate::tree::{Origin, Tree};
use crate::value::Value;
use crate::values;

/// How the variable is written.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// As its key's value.
    Plain,
    /// A number is one of seconds.
    Seconds,
    /// As Consul's own clients read it.
    Boolean,
    /// As any program has it.
    Level,
}

use Written::{Boolean, Level, Plain, Seconds};

/// Names, the key, and how the value is written there.
type Compat = (&'static [&'static str], &'static [&'static str], Written);

/// Variables of older services, first found wins, and the key that each stands for. They do not override the file.
const COMPAT: [Compat; 9] = [
    (&["SERVICE_NAME", "APP_NAME"], &["service"], Plain),
    (&["SERVICE_PORT", "PORT"], &["port"], Plain),
    (&["SERVICE_HOST"], &["registration", "address"], Plain),
    (&["SERVICE_VERSION"], &["registration", "meta", "version"], Plain),
    (&["SERVICE_TOKEN"], &["auth", "outbound", "bearer"], Plain),
    (&["LOG_LEVEL"], &["log", "level"], Level),
    (&["CIRCUIT_BREAKER_FAILURE_THRESHOLD"], &["defaults", "breaker", "failure_threshold"], Plain),
    (&["CIRCUIT_BREAKER_RECOVERY_TIMEOUT"], &["defaults", "breaker", "recovery_timeout"], Seconds),
    (&["RETRY_MAX_ATTEMPTS"], &["defaults", "retry", "attempts"], Plain),
];

/// Likewise, of which one word is not enough to say how.
const COMPAT_OTHER: [&str; 8] = [
    "CONSUL_HOST",
    "CONSUL_PORT",
    "INTERNAL_SERVICE_TOKEN",
    "SERVICE_DISCOVERY_CACHE_TTL",
    "RATE_LIMIT_DEFAULT_REQUESTS",
    "RATE_LIMIT_DEFAULT_WINDOW",
    "RATE_LIMIT_AUTH_REQUESTS",
    "RATE_LIMIT_AUTH_WINDOW",
];

/// Standard variables and the key that each stands for. They override the file.
const STANDARD: [(&str, &[&str], Written); 17] = [
    ("CONSUL_HTTP_ADDR", &["consul", "address"], Plain),
    ("CONSUL_HTTP_TOKEN", &["consul", "token"], Plain),
    ("CONSUL_HTTP_TOKEN_FILE", &["consul", "token_file"], Plain),
    ("CONSUL_HTTP_AUTH", &["consul", "http_auth"], Plain),
    ("CONSUL_HTTP_SSL", &["consul", "ssl"], Boolean),
    ("CONSUL_HTTP_SSL_VERIFY", &["consul", "ssl_verify"], Boolean),
    ("CONSUL_CACERT", &["consul", "ca_file"], Plain),
    ("CONSUL_CAPATH", &["consul", "ca_path"], Plain),
    ("CONSUL_CLIENT_CERT", &["consul", "client_cert"], Plain),
    ("CONSUL_CLIENT_KEY", &["consul", "client_key"], Plain),
    ("CONSUL_TLS_SERVER_NAME", &["consul", "server_name"], Plain),
    ("CONSUL_NAMESPACE", &["consul", "namespace"], Plain),
    ("CONSUL_PARTITION", &["consul", "partition"], Plain),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", &["trace", "protocol"], Plain),
    ("OTEL_SERVICE_NAME", &["trace", "service_name"], Plain),
    ("LICTOR_LOG", &["log", "level"], Plain),
    ("LICTOR_ADMIN", &["admin", "listen"], Plain),
];

/// Those for traces alone; they override their general ones.
const TRACES: [(&str, &[&str]); 3] = [
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", &["trace", "ca"]),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &["trace", "otlp"]),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["trace", "protocol"]),
];

/// OpenTelemetry's that need more than a copy.
const TELEMETRY: [&str; 8] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_PROPAGATORS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// `LICTOR_*` variables that are not keys.
const OURS: [&str; 7] =
    ["LICTOR_CONFIG", "LICTOR_UPSTREAMS", "LICTOR_LOG", "LICTOR_ADMIN", "LICTOR_ADDR", "LICTOR_DEV", "LICTOR_TOKEN"];

/// Each variable that stands for a key, and the key: standard ones, then those of older services.
pub fn variables() -> Vec<(&'static str, String)> {
    let standard = STANDARD.iter().map(|(name, path, _)| (*name, path.join(".")));
    let compat = COMPAT.iter().flat_map(|(names, path, _)| names.iter().map(|name| (*name, path.join("."))));
    standard.chain(compat).collect()
}

/// Variables that reading the whole has shown not to be meant for lictor, and why.
#[derive(Debug, Default)]
pub(crate) struct Unheeded(BTreeMap<String, Diagnostic>);

impl Unheeded {
    /// Takes what the mistakes say of others' variables; whether there was anything new.
    pub(crate) fn learn(&mut self, mistakes: &Report) -> bool {
        let known = self.0.len();
        for mistake in mistakes.errors() {
            if let Place::Env(name) = &mistake.place
                && is_others(name)
            {
                let entry = self.0.entry(name.clone());
                entry.or_insert_with(|| unheeded(name, &mistake.path, &mistake.message, mistake.help.clone()));
            }
        }
        self.0.len() > known
    }
}

/// Lays the variables under and over what the texts said. Those of older services that had an effect; the texts have `named`
/// some themselves.
pub(crate) fn lay(tree: &mut Tree, env: &Environment, named: &BTreeSet<String>, without: &Unheeded) -> Vec<String> {
    let env = &heeded(tree, env, without);
    let used = compat(tree, env, named);
    standard(tree, env);
    telemetry(tree, env);
    upstreams(tree, env);
    own(tree, env);
    used
}

/// The variables without those that cannot be meant for lictor, which are told.
fn heeded(tree: &Tree, env: &Environment, without: &Unheeded) -> Environment {
    for told in without.0.values() {
        tree.note(told.clone());
    }
    let compat = COMPAT.iter().flat_map(|(names, ..)| names.iter().copied()).chain(COMPAT_OTHER);
    let standard = STANDARD.iter().map(|(name, ..)| *name).chain(TRACES.iter().map(|(name, _)| *name));
    let known: BTreeSet<&str> = compat.chain(standard).chain(TELEMETRY).collect();
    let heeded = env.vars.iter().filter_map(|(name, value)| {
        let is_ours = name.starts_with("LICTOR_");
        let value = if is_ours { value } else { value.trim() };
        let is_known = is_ours || (known.contains(name.as_str()) && !value.is_empty());
        if !is_known || without.0.contains_key(name) || is_beside_link(name, env) {
            return None;
        }
        if is_service_link(value) && !is_token(name) {
            tree.note(unheeded(name, "", "Kubernetes sets it, for a Service of that name", Some(LINKS.to_owned())));
            return None;
        }
        if !is_unicode(value) {
            let mut told = unheeded(name, "", "it is not UTF-8", None);
            if !is_others(name) {
                (told.severity, told.message) = (Severity::Error, format!("{name} is not UTF-8"));
            }
            tree.note(told);
            return None;
        }
        Some((name.clone(), value.to_owned()))
    });
    Environment { vars: heeded.collect(), hostname: env.hostname.clone() }
}

const LINKS: &str = "`enableServiceLinks: false` in the pod's spec leaves such variables out";

/// `tcp://10.96.12.3:9902`, as Kubernetes and Docker's links have it. No key takes one.
fn is_service_link(value: &str) -> bool {
    let scheme = value.trim().split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| matches!(scheme.as_str(), "tcp" | "udp" | "sctp"))
}

/// No link has such a name; a token that is not heeded would open what it keeps shut.
fn is_token(name: &str) -> bool {
    name.ends_with("_TOKEN")
}

/// Whether it is beside a link of Kubernetes', as `LICTOR_SERVICE_HOST` and `LICTOR_PORT_9902_TCP_ADDR` are beside `LICTOR_PORT`.
fn is_beside_link(name: &str, env: &Environment) -> bool {
    let is_link = |service: &str| env.var(&format!("{service}_PORT")).is_some_and(is_service_link);
    name.starts_with("LICTOR")
        && ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"]
            .iter()
            .filter_map(|mark| name.find(mark))
            .any(|at| is_link(&name[..at]))
}

pub(crate) fn unheeded(name: &str, path: &str, why: &str, help: Option<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        message: format!("{name} is ignored: {why}"),
        path: path.to_owned(),
        place: Place::Env(name.to_owned()),
        help,
    }
}

impl Written {
    /// The same as its key has it, or why there is no such thing.
    fn meant(self, text: &str) -> Result<String, String> {
        let plain = match (self, text.to_ascii_lowercase().as_str()) {
            (Self::Level, _) => return level(text),
            (Self::Seconds, _) if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("{text}s"),
            // Go's strconv.ParseBool, and in any case.
            (Self::Boolean, "t") => "true".to_owned(),
            (Self::Boolean, "f") => "false".to_owned(),
            (Self::Boolean, other) => other.to_owned(),
            (Self::Plain | Self::Seconds, _) => text.to_owned(),
        };
        Ok(plain)
    }
}

/// What other programs call their levels. Numbers are left: 30 is a warning to Python and information to Node.
fn level(text: &str) -> Result<String, String> {
    let level = match text.to_lowercase().as_str() {
        "trace" | "verbose" | "silly" | "all" | "fine" | "finer" | "finest" => "trace",
        "debug" | "dbg" => "debug",
        "info" | "information" | "informational" | "notice" | "normal" | "default" | "log" => "info",
        "warn" | "warning" => "warn",
        "error" | "err" | "severe" | "critical" | "crit" | "fatal" | "panic" | "dpanic" | "alert" | "emerg"
        | "emergency" => "error",
        "off" | "none" | "silent" | "quiet" | "disabled" => "off",
        _ => return Err(format!("`{text}` is not a level that lictor knows; LICTOR_LOG says its own, filters too")),
    };
    Ok(level.to_owned())
}

/// `consul`, and what else is found there: with a port, with a scheme, an address of IPv6.
fn agent(host: &str, port: &str) -> String {
    let Ok(port) = port.parse() else { return host.to_owned() };
    match values::host_and_port(host) {
        Ok((host, given)) if !host.contains("://") => {
            format!("http://{}", values::authority(host, given.unwrap_or(port)))
        }
        Ok(_) | Err(_) => host.to_owned(), // its key says what is wrong with it
    }
}

fn set(tree: &mut Tree, path: &[&str], value: impl Into<String>, variable: &str) {
    let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
    tree.set(&path, Value::text(value), Origin::Env(variable.to_owned()));
}

/// Sets what the variable says, or tells why not.
fn convert(tree: &mut Tree, path: &[&str], converted: Result<String, String>, variable: &str) -> bool {
    match converted {
        Ok(value) => {
            set(tree, path, value, variable);
            true
        }
        Err(why) => {
            tree.note(unheeded(variable, &path.join("."), &why, None));
            false
        }
    }
}

fn compat(tree: &mut Tree, env: &Environment, named: &BTreeSet<String>) -> Vec<String> {
    let mut used = Vec::new();
    for (names, path, written) in COMPAT {
        let is_said = tree.decides(path)
            || (path == ["port"] && (tree.decides(&["app", "port"]) || tree.decides(&["app", "address"])));
        if let Some((name, value)) = names.iter().find_map(|name| Some((*name, env.var(name)?)))
            && !is_said
            && convert(tree, path, written.meant(value), name)
        {
            used.push(name.to_owned());
        }
    }
    used.extend(rates(tree, env, named));
    let [host, port, token, ttl, ..] = COMPAT_OTHER;
    if let Some(value) = env.var(host)
        && !tree.decides(&["consul", "address"])
        && env.var("CONSUL_HTTP_ADDR").is_none()
    {
        let given = env.var(port).unwrap_or("8500");
        let is_port = given.parse::<u16>().is_ok_and(|port| port != 0);
        if !is_port {
            tree.note(unheeded(port, "consul.address", &format!("`{given}` is not a port"), None));
        }
        set(tree, &["consul", "address"], agent(value, if is_port { given } else { "8500" }), host);
        used.push(host.to_owned());
    }
    if let Some(value) = env.var(token)
        && !tree.decides(&["service_token"])
    {
        set(tree, &["service_token"], value, token);
        used.push(token.to_owned());
    }
    if let Some(value) = env.var(ttl)
        && !tree.decides(&["consul", "max_stale"])
        && convert(tree, &["consul", "max_stale"], Seconds.meant(value), ttl)
    {
        used.push(ttl.to_owned());
    }
    used
}

/// The gateway's limit: older services' default is 100 requests in 60 seconds. Those for logins name no route; a text that names
/// them has one for them.
fn rates(tree: &mut Tree, env: &Environment, named: &BTreeSet<String>) -> Vec<String> {
    let [.., requests, window, auth_requests, auth_window] = COMPAT_OTHER;
    if !tree.decides(&["gateway", "listen"]) {
        return Vec::new();
    }
    let is_left = |name: &&str| env.var(name).is_some() && !named.contains(*name);
    for name in [auth_requests, auth_window].into_iter().filter(is_left) {
        let help = "write `limit: ${RATE_LIMIT_AUTH_REQUESTS}/${RATE_LIMIT_AUTH_WINDOW}s` at the route of logins";
        tree.note(unheeded(name, "gateway.routes", "no route says that it is for it", Some(help.to_owned())));
    }
    if tree.decides(&["gateway", "limit"]) {
        return Vec::new();
    }
    let mut rate = ["100".to_owned(), "60s".to_owned()];
    let mut used = Vec::new();
    for ((name, written), part) in [(requests, Plain), (window, Seconds)].into_iter().zip(&mut rate) {
        let Some(value) = env.var(name) else { continue };
        match written.meant(value) {
            Ok(meant) if meant.starts_with(|sign: char| matches!(sign, '1'..='9')) => {
                *part = meant;
                used.push(name.to_owned());
            }
            Ok(_) | Err(_) => tree.note(unheeded(name, "gateway.limit", &format!("`{value}` is not a number"), None)),
        }
    }
    if let Some(name) = used.last() {
        set(tree, &["gateway", "limit"], rate.join("/"), name);
    }
    used
}

fn standard(tree: &mut Tree, env: &Environment) {
    for (name, path, written) in STANDARD {
        if let Some(value) = env.var(name) {
            convert(tree, path, written.meant(value), name);
        }
    }
}

/// OpenTelemetry's variables that need more than a copy.
fn telemetry(tree: &mut Tree, env: &Environment) {
    if let Some(value) = env.var("OTEL_EXPORTER_OTLP_ENDPOINT") {
        // A base: the signal's path is appended to its own (OpenTelemetry, "OTLP Exporter", Endpoint URLs for OTLP/HTTP).
        let base = value.trim_end_matches('/');
        let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let url = if has_path { format!("{base}/v1/traces") } else { value.to_owned() };
        set(tree, &["trace", "otlp"], url, "OTEL_EXPORTER_OTLP_ENDPOINT");
    }
    for (name, path) in TRACES {
        if let Some(value) = env.var(name) {
            set(tree, path, value, name);
        }
    }
    if env.is_true("OTEL_SDK_DISABLED") {
        set(tree, &["trace", "otlp"], "off", "OTEL_SDK_DISABLED");
    }
    let (headers, resource) = ("headers", "resource");
    for (name, key) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", headers),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", headers),
        ("OTEL_RESOURCE_ATTRIBUTES", resource),
    ] {
        let pairs = env.var(name).into_iter().flat_map(|value| value.split(','));
        for (pair, value) in pairs.filter_map(|pair| pair.split_once('=')) {
            let value = values::percent_decoded(value.trim());
            match pair.trim() {
                "service.name" if key == resource && env.var("OTEL_SERVICE_NAME").is_none() => {
                    set(tree, &["trace", "service_name"], value, name);
                }
                pair => set(tree, &["trace", key, pair], value, name),
            }
        }
    }
    sampler(tree, env);
    if let Some(names) = env.var("OTEL_PROPAGATORS") {
        let name = "OTEL_PROPAGATORS";
        let known = names.split(',').filter_map(|kind| match kind.trim() {
            "tracecontext" => Some("w3c"),
            kind @ ("b3" | "b3multi") => Some(kind),
            "baggage" | "none" | "" => None, // baggage passes like any header
            other => {
                ignored(tree, name, "trace.propagate", other, "tracecontext, baggage, b3, b3multi and none are known");
                None
            }
        });
        let list = Value::List(known.map(Value::text).collect());
        let path = ["trace", "propagate"].map(str::to_owned);
        tree.set(&path, list, Origin::Env(name.to_owned()));
    }
}

/// `OTEL_TRACES_SAMPLER` and its argument, a share of 1 unless it says another.
fn sampler(tree: &mut Tree, env: &Environment) {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let Some(sampler) = env.var(NAME) else { return };
    let kind = sampler.strip_prefix("parentbased_");
    let share = match kind.unwrap_or(sampler) {
        "always_on" => "100%".to_owned(),
        "always_off" => "0%".to_owned(),
        "traceidratio" => {
            let argument = env.var("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
            match argument.trim().parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => argument.to_owned(),
                _ => {
                    let name = "OTEL_TRACES_SAMPLER_ARG";
                    ignored(tree, name, "trace.sample", argument, "a share from 0 to 1 is needed; it is taken for 1");
                    "100%".to_owned()
                }
            }
        }
        _ => {
            return ignored(
                tree,
                NAME,
                "trace.sample",
                sampler,
                "always_on, always_off and traceidratio are known, each also with parentbased_ before it",
            );
        }
    };
    set(tree, &["trace", "sample"], share, NAME);
    set(tree, &["trace", "parent_based"], if kind.is_some() { "true" } else { "false" }, NAME);
}

/// OpenTelemetry wants a value that is not understood to be told and ignored, not to stop the process.
fn ignored(tree: &mut Tree, name: &str, path: &str, value: &str, help: &str) {
    tree.note(Diagnostic {
        severity: Severity::Warning,
        message: format!("`{value}` in {name} is ignored"),
        path: path.to_owned(),
        place: Place::Env(name.to_owned()),
        help: Some(help.to_owned()),
    });
}

/// `user-service:3001,product-service:3002`; `legacy:9001=10.0.0.7:80|10.0.0.8:80` has fixed endpoints.
fn upstreams(tree: &mut Tree, env: &Environment) {
    const NAME: &str = "LICTOR_UPSTREAMS";
    for entry in env.var(NAME).into_iter().flat_map(|list| list.split(',')).map(str::trim) {
        let (listener, endpoints) = entry.split_once('=').map_or((entry, None), |(left, right)| (left, Some(right)));
        let Some((name, port)) = listener.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            tree.note(Diagnostic {
                severity: Severity::Error,
                message: format!("`{entry}` is not `name:port`"),
                path: "upstreams".to_owned(),
                place: Place::Env(NAME.to_owned()),
                help: Some("write `user-service:3001,product-service:3002`".to_owned()),
            });
            continue;
        };
        set(tree, &["upstreams", name, "listen"], port, NAME);
        if let Some(endpoints) = endpoints {
            let list = Value::List(endpoints.split('|').map(Value::text).collect());
            let path = ["upstreams", name, "static"].map(str::to_owned);
            tree.set(&path, list, Origin::Env(NAME.to_owned()));
        }
    }
}

/// `LICTOR_<SECTION>_<KEY>`: any single value of the file.
fn own(tree: &mut Tree, env: &Environment) {
    if !env.vars.keys().any(|name| name.starts_with("LICTOR_")) {
        return; // the keys' names are not for nothing
    }
    let described = read::described();
    let name_of = |path: &Vec<String>| format!("LICTOR_{}", path.join("_").to_uppercase());
    let paths: BTreeMap<String, Vec<String>> =
        described.scalar_paths().into_iter().map(|path| (name_of(&path), path)).collect();
    for (name, value) in env.vars.iter().filter(|(name, _)| name.starts_with("LICTOR_")) {
        if let Some(path) = paths.get(name) {
            tree.set(path, Value::text(value), Origin::Env(name.clone()));
        } else if !OURS.contains(&name.as_str()) {
            let known = paths.keys().map(String::as_str).chain(OURS);
            tree.note(Diagnostic {
                severity: Severity::Warning,
                message: format!("{name} is not a variable that lictor knows"),
                path: String::new(),
                place: Place::Env(name.clone()),
                help: suggest(name, known).map(|known| format!("did you mean {known}?")),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn older_services_variables_are_known_where_sources_are_compared() {
        let names = COMPAT.iter().flat_map(|(names, ..)| names.iter().copied()).chain(COMPAT_OTHER);
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        assert_eq!(names, crate::environment::OLDER);
    }

    use lictor_core::trace::B3;

    use super::*;
    use crate::{Sources, Text, values};

    fn env(pairs: &[(&str, &str)]) -> Environment {
        let vars = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment { vars, hostname: "host".to_owned() }
    }

    #[test]
    fn opentelemetrys_variables_mean_what_its_specification_says() {
        let trace = |pairs: &[(&str, &str)]| {
            let text = "registration: off\nservice: orders\nupstreams: {a: 3001}\n".to_owned();
            let file = Text { name: "lictor.yaml".to_owned(), text };
            let sources = Sources { file: Some(file), kv: None, env: env(pairs), ..Sources::default() };
            let loaded = sources.load().unwrap();
            (loaded.config.trace, loaded.warnings.0.len())
        };
        for (sampler, argument, parent_based, sample) in [
            ("always_on", "0.5", false, 1.0),
            ("always_off", "0.5", false, 0.0),
            ("traceidratio", "0.25", false, 0.25),
            ("parentbased_always_on", "0.5", true, 1.0),
            ("parentbased_always_off", "0.5", true, 0.0),
            ("parentbased_traceidratio", "0.25", true, 0.25),
        ] {
            let (set, _) = trace(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
            assert_eq!((set.settings.parent_based, set.settings.sample), (parent_based, sample), "{sampler}");
        }
        let (plain, quiet) = trace(&[]);
        let (odd, warned) =
            trace(&[("OTEL_TRACES_SAMPLER", "jaeger_remote"), ("OTEL_PROPAGATORS", "tracecontext,xray")]);
        assert_eq!((odd.settings.sample, warned - quiet), (plain.settings.sample, 2), "told and ignored");
        let (none, _) = trace(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "lots")]);
        assert!(none.settings.sample > 0.999);
        for (names, w3c, b3) in [
            ("tracecontext,baggage", true, B3::Off),
            ("b3", false, B3::Single),
            ("b3multi,tracecontext", true, B3::Multiple),
            ("none", false, B3::Off),
        ] {
            let (set, _) = trace(&[("OTEL_PROPAGATORS", names)]);
            assert_eq!((set.settings.w3c, set.settings.b3), (w3c, b3), "{names}");
        }
        let (otlp, _) = trace(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318/tenant/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20eA==, x-team = mesh"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=named,deployment.environment.name=a%2Cb"),
        ]);
        let otlp = otlp.otlp.unwrap();
        assert_eq!(
            (otlp.endpoint.as_str(), otlp.service_name.as_str()),
            ("http://otel:4318/tenant/v1/traces", "named")
        );
        assert_eq!(otlp.headers.iter().map(|(_, value)| value.reveal()).collect::<Vec<_>>(), ["Basic eA==", "mesh"]);
        assert_eq!(otlp.resource["deployment.environment.name"], "a,b");
        let disabled = trace(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"), ("OTEL_SDK_DISABLED", "TRUE")]);
        assert!(disabled.0.otlp.is_none());
    }

    #[test]
    fn seconds_of_older_variables_become_durations() {
        assert_eq!(values::duration(&Seconds.meant("60").unwrap()).unwrap().as_secs(), 60);
        assert_eq!(Seconds.meant("1m").unwrap(), "1m");
    }
}
