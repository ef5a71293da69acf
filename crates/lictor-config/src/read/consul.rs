//! `consul:`

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::config::{Consistency, Consul, ConsulAddress, ConsulTls, Damping, Guard, Kv, SnapshotFile};
use crate::tree::{Node, Section};
use crate::values;

pub(super) fn consul(node: &Node<'_>, is_needed: bool, service: Option<&str>) -> Consul {
    let section = node.section(&[]);
    let kv =
        kv(&section.field("kv", "Configuration from KV, over this file's: true, or a map with the keys."), service);
    let uses_tls = section.field("ssl", "https where the address names no scheme.").boolean(false);
    let address = section.field("address", "http://, https:// or unix:// address of the local agent.");
    let parsed = address
        .parsed(json!({ "type": "string" }), Some("http://127.0.0.1:8500"), |text| parse_address(text, uses_tls));
    let default = if uses_tls {
        ConsulAddress::Https("127.0.0.1".to_owned(), 8501)
    } else {
        ConsulAddress::Http("127.0.0.1".to_owned(), 8500)
    };
    let token = section.field("token", "ACL token; better in a file.");
    let token_file = section.field("token_file", "File that holds the ACL token; read again when it changes.");
    let [token, token_file] = Node::of_the_last_source([token, token_file]);
    if token.is_set() && token_file.is_set() {
        // Of two variables the token goes, as with Consul's own clients.
        let blamed = if token.is_others() { &token } else { &token_file };
        blamed.error("`token` and `token_file` are both given", Some("keep one".to_owned()));
    }
    let consistencies =
        [("stale", Consistency::Stale), ("default", Consistency::Default), ("consistent", Consistency::Consistent)];
    let wait = section.field("wait", "Longest blocking query; more than 1m keeps agent connections of the dead busy.");
    let wait_for = wait.duration(Duration::from_secs(60));
    if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&wait_for) {
        wait.error("must be between 1s and 10m", None);
    }
    let consul = Consul {
        address: (is_needed || kv.is_some()).then(|| parsed.unwrap_or(default)),
        token: token.secret(),
        token_file: path(&token_file),
        http_auth: section.field("http_auth", "HTTP basic authentication, user:password.").secret(),
        tls: tls(&section),
        datacenter: section.field("datacenter", "Datacenter of queries; default: the agent's.").text(None),
        namespace: section.field("namespace", "Consul Enterprise namespace.").text(None),
        partition: section.field("partition", "Consul Enterprise admin partition.").text(None),
        consistency: section
            .field("consistency", "stale, default or consistent reads.")
            .choice(&consistencies, Some("stale"))
            .unwrap_or_default(),
        max_stale: section
            .field("max_stale", "Older data is warned about; it is never thrown away.")
            .duration(Duration::from_secs(600)),
        wait: wait_for,
        guard: guard(&section.field("guard", "When a smaller answer is believed.")),
        snapshot: snapshot(&section.field("snapshot", "The last good answers on disk, for a start without Consul.")),
        kv,
    };
    section.finish();
    consul
}

fn tls(section: &Section<'_>) -> ConsulTls {
    let client_cert = section.field("client_cert", "PEM client certificate.");
    let client_key = section.field("client_key", "Its key.");
    let tls = ConsulTls {
        ca_file: path(&section.field("ca_file", "PEM file with the CA of an https agent.")),
        ca_path: path(&section.field("ca_path", "Folder of PEM files with CAs.")),
        client_cert: path(&client_cert),
        client_key: path(&client_key),
        server_name: section.field("server_name", "Name in the agent's certificate.").text(None),
        skip_verify: !section.field("ssl_verify", "Check the agent's certificate.").boolean(true),
    };
    if tls.client_cert.is_some() != tls.client_key.is_some() {
        let others = [&client_cert, &client_key].into_iter().find(|node| node.is_others());
        others.unwrap_or(section.node()).error("`client_cert` and `client_key` go together", None);
    }
    tls
}

fn path(node: &Node<'_>) -> Option<PathBuf> {
    node.text(None).map(PathBuf::from)
}

fn guard(node: &Node<'_>) -> Guard {
    let section = node.section(&[]);
    let empty = [("keep", true), ("drop", false)];
    let guard = Guard {
        max_removal: section
            .field("max_removal", "A list that shrinks by more is confirmed with a consistent read first.")
            .share(0.5),
        within: section.field("within", "Over this time.").duration(Duration::from_secs(10)),
        keep_on_empty: section
            .field(
                "on_empty",
                "keep or drop the old endpoints when the list becomes empty or shrinks by more: the kept come last.",
            )
            .choice(&empty, Some("keep"))
            .unwrap_or(true),
        keep_for: section
            .field("keep_for", "How long they are kept, unless a connection fails.")
            .duration(Duration::from_secs(30)),
        damping: damping(
            &section.field("damping", "Instances that come and go come last until they stay; `off`: as they come."),
        ),
    };
    section.finish();
    guard
}

fn damping(node: &Node<'_>) -> Option<Damping> {
    if node.is_off() {
        return None;
    }
    let section = node.section(&[json!({ "type": "boolean" })]);
    let damping = Damping {
        losses: section.field("losses", "Lost so often, an instance comes last.").integer(3, 1),
        within: section.field("within", "Over this time.").duration(Duration::from_secs(60)),
    };
    section.finish();
    Some(damping)
}

fn kv(node: &Node<'_>, service: Option<&str>) -> Option<Kv> {
    let is_plain = node.scalar().is_some();
    let is_wanted = if is_plain { node.boolean(false) } else { node.is_map() };
    if is_wanted && service.is_none() {
        node.error("configuration from KV needs to know whose it is", Some("set `service`".to_owned()));
    }
    let service = service.unwrap_or_default();
    let default = |last: &str| format!("lictor/{service}/{last}");
    let mut kv = Kv { config: default("config"), status: default("status"), maintenance: default("maintenance") };
    if !is_plain {
        let section = node.section(&[json!({ "type": "boolean" })]);
        let (config, status) = (
            section.field("config", "Where it is read; default: lictor/${service}/config."),
            section.field("status", "What became of it is written below this; default: lictor/${service}/status."),
        );
        let maintenance = section.field(
            "maintenance",
            "Where `lictor maintenance` writes, for all gateways of the service; default: lictor/${service}/maintenance.",
        );
        let keys = [(config, &mut kv.config), (status, &mut kv.status), (maintenance, &mut kv.maintenance)];
        for (node, key) in keys {
            let parsed = node.parsed(json!({ "type": "string" }), None, |text| kv_key(text, service));
            if let Some(parsed) = parsed {
                *key = parsed;
            }
        }
        section.finish();
    }
    if is_wanted && kv.maintenance == kv.config {
        node.error(
            "`maintenance` and `config` are one key: `lictor maintenance` would write over the configuration",
            None,
        );
    }
    is_wanted.then_some(kv)
}

/// Later versions of Consul accept no other characters.
fn kv_key(text: &str, service: &str) -> Result<String, String> {
    let key = text.replace("${service}", service);
    let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "_/.-".contains(c));
    let is_key = is_plain && !key.is_empty() && !key.starts_with('/') && !key.ends_with('/');
    if is_key { Ok(key) } else { Err(format!("`{text}` is not a KV key: write `lictor/${{service}}/config`")) }
}

fn snapshot(node: &Node<'_>) -> Option<SnapshotFile> {
    let section = node.off_unless(false).section(&[]);
    let path = section.field("path", "The file; default: nothing is written.").file();
    let max_age = section.field("max_age", "An older one is not used.").duration(Duration::from_secs(86_400));
    section.finish();
    if node.is_map() && path.is_none() {
        node.error("a snapshot needs a `path`", Some("write `{path: /var/lib/lictor/snapshot}`".to_owned()));
    }
    path.map(|path| SnapshotFile { path, max_age })
}

/// `host`, `host:8500`, `http://host:8500`, `https://host`, `unix:///path`.
fn parse_address(text: &str, uses_tls: bool) -> Result<ConsulAddress, String> {
    if values::names_user(text) {
        return Err("a user and password belong in `consul.http_auth`: the address is shown".to_owned());
    }
    if let Some(path) = text.strip_prefix("unix://") {
        let is_absolute = path.starts_with('/');
        return if is_absolute {
            Ok(ConsulAddress::Unix(path.into()))
        } else {
            Err(format!("`{text}` needs an absolute path"))
        };
    }
    let (is_https, rest) = match text.split_once("://") {
        Some(("http", rest)) => (uses_tls, rest),
        Some(("https", rest)) => (true, rest),
        Some((scheme, _)) => return Err(format!("`{scheme}` is not a scheme for Consul: http, https or unix")),
        None => (uses_tls, text),
    };
    let rest = rest.trim_end_matches('/');
    let default = if is_https { 8501 } else { 8500 };
    if rest.contains('/') || rest.is_empty() {
        return Err(format!("`{text}` is not an address: write `http://127.0.0.1:8500`"));
    }
    let (host, port) = values::host_and_port(rest)?;
    let port = port.unwrap_or(default);
    Ok(if is_https { ConsulAddress::Https(host.to_owned(), port) } else { ConsulAddress::Http(host.to_owned(), port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_as_consuls_own_tools_do() {
        let http = |host: &str, port| Ok(ConsulAddress::Http(host.to_owned(), port));
        assert_eq!(parse_address("10.0.0.1", false), http("10.0.0.1", 8500));
        assert_eq!(parse_address("consul:8510", false), http("consul", 8510));
        assert_eq!(parse_address("http://[::1]:8500/", false), http("::1", 8500));
        // What `http://$(HOST_IP):8500` becomes on a machine with IPv6.
        assert_eq!(parse_address("http://fd00::5:8500", false), http("fd00::5", 8500));
        assert_eq!(parse_address("[fd00::5]", false), http("fd00::5", 8500));
        assert_eq!(parse_address("fd00::5", false), http("fd00::5", 8500));
        assert!(parse_address("http://fd00::5:9500", false).unwrap_err().contains("[fd00::5]:9500"));
        assert_eq!(parse_address("https://consul", false), Ok(ConsulAddress::Https("consul".to_owned(), 8501)));
        assert_eq!(parse_address("consul:1", true), Ok(ConsulAddress::Https("consul".to_owned(), 1)));
        assert_eq!(parse_address("unix:///run/consul.sock", false), Ok(ConsulAddress::Unix("/run/consul.sock".into())));
        for wrong in ["", "ftp://x", "unix://x", "host:port", "http://a/b", "http://[consul]", "http://a b"] {
            assert!(parse_address(wrong, false).is_err(), "{wrong}");
        }
    }
}
