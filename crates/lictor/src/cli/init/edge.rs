//! A gateway as it is written: what an OpenAPI document or an nginx configuration says of routes, and what it says that is
//! not carried over.

use std::collections::BTreeMap;

use lictor_core::gateway::{HostPattern, PathPattern};
use lictor_core::plain;

use super::{line, scalar};

/// What goes into the file.
#[derive(Debug, Default)]
pub(super) struct Edge {
    pub(super) source: String,
    /// The port that clients connect to; 8080 where nobody says.
    pub(super) port: Option<u16>,
    pub(super) routes: Vec<Planned>,
    /// By name, where its instances are; none: Consul knows.
    pub(super) upstreams: BTreeMap<String, Vec<String>>,
    /// What there is and is not carried over, with where it is.
    pub(super) left: Vec<String>,
}

/// A route.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) host: Option<String>,
    pub(super) path: String,
    pub(super) methods: Vec<String>,
    /// Keys and values as YAML has them, behind these three.
    pub(super) does: Vec<(&'static str, String)>,
    /// What it is called there.
    pub(super) found: String,
}

impl Edge {
    /// Takes a route whose path is one here; the others are told of.
    pub(super) fn route(&mut self, planned: Planned) {
        if let Some(Err(why)) = planned.host.as_deref().map(HostPattern::parse) {
            return self.left.push(format!("{}: {why}", planned.found));
        }
        match PathPattern::parse(&planned.path, false) {
            Ok(_) if self.is_known(&planned) => {
                self.left.push(format!("{}: `{}` is there twice", planned.found, planned.path));
            }
            Ok(_) => self.routes.push(planned),
            Err(why) => self.left.push(format!("{}: {why}", planned.found)),
        }
    }

    fn is_known(&self, planned: &Planned) -> bool {
        let is_one = |known: &Planned| (&known.host, &known.path) == (&planned.host, &planned.path);
        self.routes.iter().any(is_one)
    }

    pub(super) fn render(&self) -> String {
        let port = self.port.unwrap_or(8080);
        let mut lines = vec![
            format!(
                "# Written by `lictor init` from {}. `lictor check` validates it, `lictor routes` prints the table.",
                plain::line(&self.source)
            ),
            "service: api-gateway".to_owned(),
            line("registration: off", "or `port` and `check`: then Consul knows the gateway too"),
            "gateway:".to_owned(),
            line(&format!("  listen: {port}"), "of every address; TLS: {address: .., tls: {cert: .., key: ..}}"),
            "  routes:".to_owned(),
        ];
        lines.extend(self.routes.iter().map(|planned| line(&planned.render(), &plain::line(&planned.found))));
        if !self.upstreams.is_empty() {
            lines.push("upstreams:".to_owned());
        }
        for (name, instances) in &self.upstreams {
            let instances: Vec<String> = instances.iter().map(|instance| scalar(instance)).collect();
            let (value, about) = match &instances[..] {
                [] => ("{}".to_owned(), "the service of this name in Consul"),
                _ => (
                    format!("{{static: [{}]}}", instances.join(", ")),
                    "without `static`: the service of this name in Consul",
                ),
            };
            lines.push(line(&format!("  {}: {value}", scalar(name)), about));
        }
        if !self.left.is_empty() {
            lines.push("# Not carried over:".to_owned());
            lines.extend(self.left.iter().map(|left| format!("# - {}", plain::line(left))));
        }
        lines.join("\n") + "\n"
    }
}

impl Planned {
    fn render(&self) -> String {
        let mut keys = Vec::new();
        keys.extend(self.host.iter().map(|host| format!("host: {}", scalar(host))));
        keys.push(format!("path: {}", scalar(&self.path)));
        if !self.methods.is_empty() {
            keys.push(format!("methods: [{}]", self.methods.join(", ")));
        }
        keys.extend(self.does.iter().map(|(key, value)| format!("{key}: {value}")));
        format!("    - {{{}}}", keys.join(", "))
    }
}

/// A service's name, of any text: `Pet Store (v2)` is `pet-store-v2`.
pub(super) fn name(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let words: Vec<String> =
        letters.collect::<String>().split('-').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() { "service".to_owned() } else { words.join("-") }
}

/// Host and port: 80 where it says none.
pub(super) fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port && !host.ends_with(']') { host.to_owned() } else { format!("{host}:80") }
}
