//! `lictor init`: a minimal configuration from what there is.
//!
//! [`Plan`] is what was found of a sidecar, with where; [`compose`] and [`consul`] find it, and this process's environment is
//! read as a compose file's would be. [`edge`] is the same for a gateway; [`openapi`] and [`nginx`] find that. What is written is checked as `lictor check` would check it.

mod compose;
mod consul;
mod edge;
mod nginx;
mod openapi;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use lictor_config::{Environment, Text, load, yaml};
use lictor_core::plain;

use crate::cli::print;
use crate::configured::Configured;
use compose::Surroundings;

/// Upstreams whose port nobody says start here.
const FIRST_PORT: u16 = 3001;
/// lictor's own admin listeners.
const RESERVED: [u16; 2] = [9901, 9902];

/// What to look at; default: this process's environment.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Look {
    /// A compose file for a sidecar; an OpenAPI document or an nginx configuration (NAME.conf) for a gateway.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// A service that is registered in Consul.
    #[arg(long, value_name = "SERVICE", conflicts_with = "from")]
    from_consul: Option<String>,
    /// Which of the compose file's services; default: the variable SERVICE, or the only one.
    #[arg(long)]
    service: Option<String>,
}

/// What goes into the file. The second of a pair says where it was found.
#[derive(Debug, Default)]
struct Plan {
    source: String,
    service: Option<(String, String)>,
    port: Option<(u16, String)>,
    check: Option<(String, String)>,
    consul: Option<(String, String)>,
    version: Option<(String, String)>,
    upstreams: Vec<Wanted>,
    /// Services that are not called through lictor.
    others: Vec<String>,
}

/// A service to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// Where the application expects it.
    port: Option<u16>,
    protocol: Option<String>,
    found: String,
}

pub(super) fn init(look: &Look, output: Option<&Path>, force: bool) -> anyhow::Result<u8> {
    let env = Environment::process();
    let yaml = match (&look.from, &look.from_consul) {
        (Some(file), _) => from_file(file, look.service.as_deref().or(env.var("SERVICE")))?,
        (_, Some(service)) => consul::plan(&Configured::default().consul()?, service)?.render(),
        _ => from_environment(&env).render(),
    };
    accepted(&yaml)?;
    match output {
        Some(path) => {
            write(path, &yaml, force)?;
            print(&format!("{} is written; `lictor doctor` asks Consul whether it works\n", path.display()));
        }
        None => print(&yaml),
    }
    Ok(0)
}

/// By what the file is: nginx's by its name, the others by their keys.
fn from_file(file: &Path, service: Option<&str>) -> anyhow::Result<String> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    if file.extension().is_some_and(|extension| extension == "conf") {
        return Ok(nginx::plan(&name, &text)?.render());
    }
    let document = yaml(&Text { name: name.clone(), text })?;
    if openapi::is_one(&document) {
        return Ok(openapi::plan(&name, &document).render());
    }
    Ok(compose::plan(&name, &document, service)?.render())
}

/// Not with this environment: the file has to say it all.
fn accepted(yaml: &str) -> anyhow::Result<()> {
    let text = Text { name: "lictor.yaml".to_owned(), text: yaml.to_owned() };
    let env = Environment { hostname: "localhost".to_owned(), ..Environment::default() };
    load(Some(&text), &env, &[]).with_context(|| format!("what was found makes no good configuration:\n{yaml}"))?;
    Ok(())
}

fn write(path: &Path, yaml: &str, force: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!force);
    match options.open(path) {
        Ok(mut file) => {
            Ok(file.write_all(yaml.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; --force replaces it, --stdout prints", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn from_environment(env: &Environment) -> Plan {
    let mut plan = Plan { source: "the environment".to_owned(), ..Plan::default() };
    Surroundings::of_variables(env.vars.clone()).fill(&mut plan);
    plan
}

impl Plan {
    fn render(&self) -> String {
        let mut lines = vec![format!(
            "# Written by `lictor init` from {}. `lictor check` validates it, `lictor doctor` asks Consul.",
            plain::line(&self.source)
        )];
        match (&self.service, &self.port) {
            (Some((name, found)), Some((port, place))) => {
                lines.push(line(&format!("service: {}", scalar(name)), found));
                lines.push(line(&format!("port: {port}"), &format!("where the application listens; {place}")));
            }
            (Some((name, found)), None) => {
                lines.push(line(&format!("service: {}", scalar(name)), found));
                lines.push(
                    "# Nobody says where it listens: set `port`, and remove the next line, to register it.".to_owned(),
                );
                lines.push("registration: off".to_owned());
            }
            (None, _) => {
                lines.push(
                    "# Nobody says what this service is called: set `service` and `port`, and remove the next line."
                        .to_owned(),
                );
                lines.push("registration: off".to_owned());
            }
        }
        match &self.check {
            Some((path, found)) => lines.push(line(&format!("check: {}", scalar(path)), found)),
            None => lines.push(line("# check: /health", "a path that answers 2xx; without one Consul only connects")),
        }
        if let Some((version, found)) = self.version.as_ref().filter(|_| self.service.is_some() && self.port.is_some())
        {
            lines.push(line(&format!("registration: {{meta: {{version: {}}}}}", scalar(version)), found));
        }
        lines.extend(self.upstreams());
        if let Some((address, found)) = &self.consul {
            lines.push(line(&format!("consul: {{address: {}}}", scalar(address)), found));
        }
        if !self.others.is_empty() {
            lines.push(format!("# Called as before, not through lictor: {}.", self.others.join(", ")));
        }
        lines.join("\n") + "\n"
    }

    fn upstreams(&self) -> Vec<String> {
        if self.upstreams.is_empty() {
            return vec![
                "# upstreams:".to_owned(),
                line("#   user-service: 3001", "http://127.0.0.1:3001 -> its instances"),
            ];
        }
        let mut lines = vec!["upstreams:".to_owned()];
        let mut taken: Vec<u16> = RESERVED.into_iter().chain(self.port.as_ref().map(|(port, _)| *port)).collect();
        for wanted in &self.upstreams {
            let port = free(wanted.port, &taken, &self.upstreams);
            taken.push(port);
            let value = match &wanted.protocol {
                Some(protocol) => format!("{{listen: {port}, protocol: {protocol}}}"),
                None => port.to_string(),
            };
            let moved = match wanted.port {
                Some(there) if there != port => format!("; {there} is not free here"),
                _ => String::new(),
            };
            let about = format!("call 127.0.0.1:{port}; {}{moved}", wanted.found);
            lines.push(line(&format!("  {}: {value}", scalar(&wanted.name)), &about));
        }
        lines
    }
}

/// The port that the application expects, if it can be had; else one that nobody wants.
fn free(wanted: Option<u16>, taken: &[u16], all: &[Wanted]) -> u16 {
    let is_free = |port: &u16| *port >= 1024 && !taken.contains(port);
    let is_unwanted = |port: &u16| all.iter().all(|other| other.port != Some(*port));
    wanted
        .filter(is_free)
        .or_else(|| (FIRST_PORT..=u16::MAX).find(|port| is_free(port) && is_unwanted(port)))
        .unwrap_or(0)
}

fn line(text: &str, comment: &str) -> String {
    format!("{text:<32} # {comment}")
}

/// In quotes, which fold ends of lines in YAML but for the double ones.
fn quoted(text: &str) -> String {
    if text.contains(char::is_control) {
        serde_json::Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Quoted where YAML would read something else.
fn scalar(text: &str) -> String {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c));
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && !text.ends_with(':');
    let is_reserved = ["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if is_plain && is_word && !is_reserved { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> String {
        let vars = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let yaml = from_environment(&Environment { vars, hostname: "host".to_owned() }).render();
        accepted(&yaml).unwrap_or_else(|error| panic!("{error:#}\n{yaml}"));
        yaml
    }

    #[test]
    fn the_environment_of_an_older_service_is_enough() {
        let yaml = from(&[
            ("APP_NAME", "order-service"),
            ("PORT", "8082"),
            ("CONSUL_HOST", "consul"),
            ("SERVICE_VERSION", "1.2"),
            ("USER_SERVICE_URL", "http://user-service:3001/api"),
            ("PAYMENT_SERVICE_URL", "grpc://payments:50051"),
            ("REDIS_URL", "redis://redis:6379"),
            ("HOMEPAGE_URL", "https://www.example.com/"),
            ("SELF_URL", "http://order-service:8082"),
        ]);
        for line in [
            "service: order-service ",
            "port: 8082 ",
            "  user-service: 3001 ",
            "  payments: {listen: 50051, protocol: grpc} ",
            "consul: {address: http://consul:8500} ",
            "registration: {meta: {version: '1.2'}} ",
            "# Called as before, not through lictor: redis.",
        ] {
            assert!(yaml.lines().any(|it| it.starts_with(line)), "no `{line}` in\n{yaml}");
        }
        assert!(!yaml.contains("example.com") && !yaml.contains("  order-service:"), "{yaml}");
    }

    #[test]
    fn nothing_known_is_a_good_file_too() {
        let yaml = from(&[]);
        assert!(yaml.contains("\nregistration: off\n") && yaml.contains("\n# upstreams:\n"), "{yaml}");
    }

    #[test]
    fn no_two_things_get_one_port() {
        let yaml = from(&[
            ("SERVICE_NAME", "web"),
            ("SERVICE_PORT", "3001"),
            ("A_URL", "http://a:80"),
            ("B_URL", "http://b:9901"),
            ("C_URL", "http://c:3002"),
            ("D_URL", "http://d:3001"),
        ]);
        let port = |name: &str| {
            let line = yaml.lines().find_map(|line| line.strip_prefix(&format!("  {name}: "))).unwrap();
            line.split(' ').next().unwrap().parse::<u16>().unwrap()
        };
        assert_eq!(["a", "b", "c", "d"].map(port), [3003, 3004, 3002, 3005]);
    }
}
