//! An nginx configuration as a source: `server`, `location`, `proxy_pass`, `return` and `upstream` in their plain forms.
//! What else there is, is told with its line.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::bail;

use super::edge::{Edge, Planned, name, with_port};
use super::{quoted, scalar};

/// The deepest block and the most directives that are read.
const DEPTH_MAX: usize = 16;
const DIRECTIVES_MAX: usize = 20_000;

/// What lictor does by itself, or what says nothing of routes.
const OWN: [&str; 33] = [
    "access_log",
    "default_type",
    "error_log",
    "events",
    "gzip",
    "include",
    "index",
    "keepalive",
    "keepalive_requests",
    "keepalive_timeout",
    "least_conn",
    "log_format",
    "pid",
    "proxy_buffering",
    "proxy_http_version",
    "proxy_set_header",
    "resolver",
    "sendfile",
    "server_names_hash_bucket_size",
    "server_tokens",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_protocols",
    "ssl_session_cache",
    "ssl_session_timeout",
    "tcp_nodelay",
    "tcp_nopush",
    "types",
    "user",
    "worker_processes",
    "zone",
];
/// Of those, what has an effect that is to be set here again.
const AGAIN: [&str; 5] = ["gzip", "include", "proxy_set_header", "ssl_certificate", "default_type"];

/// A directive, and what stands in its block.
#[derive(Debug)]
struct Directive {
    line: usize,
    words: Vec<String>,
    block: Vec<Self>,
}

impl Directive {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }
}

pub(super) fn plan(file: &str, text: &str) -> anyhow::Result<Edge> {
    let mut reading = Reading { signs: text.chars().peekable(), line: 1, count: 0 };
    let directives = reading.block(0)?;
    let mut edge = Edge { source: file.to_owned(), ..Edge::default() };
    let top: Vec<&Directive> = directives.iter().filter(|it| it.name() != "http").collect();
    let http = directives.iter().filter(|it| it.name() == "http").flat_map(|it| &it.block);
    let all: Vec<&Directive> = top.into_iter().chain(http).collect();
    let upstreams: BTreeMap<&str, Vec<String>> =
        all.iter().filter(|it| it.name() == "upstream").map(|it| (it.word(1), instances(it, &mut edge))).collect();
    let servers: Vec<&&Directive> = all.iter().filter(|it| it.name() == "server").collect();
    if servers.is_empty() {
        bail!("{file} has no `server` block: is it an nginx configuration?");
    }
    for it in all.iter().filter(|it| !["server", "upstream"].contains(&it.name())) {
        left(it, &mut edge);
    }
    for server in servers {
        self::server(server, &upstreams, &mut edge);
    }
    Ok(edge)
}

/// Where an upstream's instances are.
fn instances(upstream: &Directive, edge: &mut Edge) -> Vec<String> {
    let mut all = Vec::new();
    for it in &upstream.block {
        match it.name() {
            "server" if it.word(1).starts_with("unix:") => left(it, edge),
            "server" => {
                if it.words.len() > 2 {
                    edge.left.push(format!("line {}: `{}` of a server", it.line, it.words[2..].join(" ")));
                }
                all.push(with_port(it.word(1)));
            }
            _ => left(it, edge),
        }
    }
    all
}

fn server(server: &Directive, upstreams: &BTreeMap<&str, Vec<String>>, edge: &mut Edge) {
    let mut hosts: Vec<String> = Vec::new();
    for it in server.block.iter().filter(|it| it.name() == "server_name") {
        for host in &it.words[1..] {
            let is_plain =
                host.strip_prefix("*.").unwrap_or(host).chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
            match host.as_str() {
                "_" | "" => {}
                host if is_plain && !host.starts_with('.') => hosts.push(host.to_owned()),
                _ => edge.left.push(format!("line {}: the name `{host}`", it.line)),
            }
        }
    }
    let ports = server.block.iter().filter(|it| it.name() == "listen");
    for it in ports {
        let port = it.word(1).rsplit(':').next().and_then(|port| port.parse().ok());
        match (edge.port, port) {
            (None, Some(port)) => edge.port = Some(port),
            (Some(known), Some(port)) if known == port => {}
            (_, None) => left(it, edge),
            (Some(known), Some(port)) => {
                edge.left.push(format!("line {}: `listen {port}`; there is one listener, {known}", it.line));
            }
        }
    }
    let hosts = if hosts.is_empty() { vec![None] } else { hosts.into_iter().map(Some).collect() };
    // What `server` says without a location is for every path.
    if server.block.iter().any(|it| it.name() == "return") {
        location(server, "/*", &hosts, upstreams, edge);
    }
    for it in &server.block {
        match (it.name(), it.words.len()) {
            ("location", 2) if it.word(1).starts_with('/') => {
                location(it, &prefix(it.word(1)), &hosts, upstreams, edge);
            }
            ("location", 3) if it.word(1) == "^~" => location(it, &prefix(it.word(2)), &hosts, upstreams, edge),
            ("location", 3) if it.word(1) == "=" => location(it, it.word(2), &hosts, upstreams, edge),
            ("server_name" | "listen" | "return", _) => {}
            _ => left(it, edge),
        }
    }
}

/// `/api` and `/api/` are `/api/*`. Of the first nginx would take `/apix` too.
fn prefix(path: &str) -> String {
    format!("{}/*", path.trim_end_matches('/'))
}

fn location(
    it: &Directive,
    path: &str,
    hosts: &[Option<String>],
    upstreams: &BTreeMap<&str, Vec<String>>,
    edge: &mut Edge,
) {
    let mut does = Vec::new();
    for inner in &it.block {
        match inner.name() {
            "proxy_pass" => match proxied(inner.word(1), path, upstreams, edge) {
                Some(keys) => does.extend(keys),
                None => left(inner, edge),
            },
            "return" => match returned(&inner.words[1..], path) {
                Some(key) => does.push(key),
                None => left(inner, edge),
            },
            name @ ("proxy_read_timeout" | "proxy_connect_timeout") => match seconds(inner.word(1)) {
                Some(time) => {
                    does.push((if name == "proxy_read_timeout" { "idle_timeout" } else { "connect_timeout" }, time));
                }
                None => left(inner, edge),
            },
            _ if it.name() == "location" => left(inner, edge),
            _ => {}
        }
    }
    if !does.iter().any(|(key, _)| *key == "to") {
        does.retain(|(key, _)| !key.ends_with("_timeout")); // nobody is waited for
    }
    if !does.iter().any(|(key, _)| ["to", "redirect", "respond"].contains(key)) {
        edge.left.push(format!("line {}: `{}` sends nothing on", it.line, it.words.join(" ")));
        return;
    }
    for host in hosts {
        edge.route(Planned {
            host: host.clone(),
            path: path.to_owned(),
            does: does.clone(),
            found: format!("line {}", it.line),
            ..Planned::default()
        });
    }
}

/// `http://users:8080/`: to whom, and what the path becomes (a path behind the host takes the place of the location's).
fn proxied(
    url: &str,
    path: &str,
    upstreams: &BTreeMap<&str, Vec<String>>,
    edge: &mut Edge,
) -> Option<Vec<(&'static str, String)>> {
    let rest = url.strip_prefix("http://").filter(|rest| !rest.contains('$') && !rest.starts_with("unix:"))?;
    let (host, put) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
    let (to, instances) = match upstreams.get(host) {
        Some(instances) => (name(host), instances.clone()),
        None => (name(host.split(':').next().unwrap_or(host)), vec![with_port(host)]),
    };
    // Two ports of one host are two upstreams.
    let is_others = |to: &String| edge.upstreams.get(to).is_some_and(|known| *known != instances);
    let other = (2..).map(|number| format!("{}-{number}", name(host)));
    let to = [to, name(host)].into_iter().chain(other).find(|to| !is_others(to))?;
    edge.upstreams.insert(to.clone(), instances);
    let mut keys = vec![("to", scalar(&to))];
    match (put, path.strip_suffix("/*")) {
        (None, _) => {}
        (Some(put), Some(_)) => keys.push(("rewrite", scalar(&format!("{}/*", put.trim_end_matches('/'))))),
        (Some(put), None) => keys.push(("rewrite", scalar(put))),
    }
    Some(keys)
}

/// `301 https://..`, `404`, `200 "text"`.
fn returned(words: &[String], path: &str) -> Option<(&'static str, String)> {
    let (status, rest) = words.split_first()?;
    let text = rest.join(" ");
    let target = text
        .replace("$scheme://$host$request_uri", "")
        .replace("$request_uri", if path.ends_with("/*") { "/*" } else { path });
    match (status.as_str(), rest) {
        ("301" | "302" | "303" | "307" | "308", [_, ..]) if !target.is_empty() && !target.contains('$') => {
            Some(("redirect", format!("{{to: {}, status: {status}}}", scalar(&target))))
        }
        (status, _)
            if status.starts_with(['2', '4', '5'])
                && status.len() == 3
                && status.parse::<u16>().is_ok()
                && !text.contains('$') =>
        {
            Some(("respond", format!("{{status: {status}, body: {}, content_type: text/plain}}", quoted(&text))))
        }
        _ => None,
    }
}

/// nginx's times are seconds where they have no unit; `None`: it is written in another way.
fn seconds(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match &text[digits.len()..] {
        "" if is_number => Some(format!("{text}s")),
        "ms" | "s" | "m" | "h" if is_number => Some(text.to_owned()),
        _ => None,
    }
}

fn left(it: &Directive, edge: &mut Edge) {
    if !OWN.contains(&it.name()) || AGAIN.contains(&it.name()) {
        edge.left.push(format!("line {}: `{}`", it.line, it.words.join(" ")));
    }
}

struct Reading<'t> {
    signs: Peekable<Chars<'t>>,
    line: usize,
    count: usize,
}

impl Reading<'_> {
    fn next(&mut self) -> Option<char> {
        let sign = self.signs.next();
        self.line += usize::from(sign == Some('\n'));
        sign
    }

    /// Directives up to the block's end.
    fn block(&mut self, depth: usize) -> anyhow::Result<Vec<Directive>> {
        if depth > DEPTH_MAX {
            bail!("line {}: more than {DEPTH_MAX} blocks within one another", self.line);
        }
        let (mut all, mut words, mut line) = (Vec::new(), Vec::new(), 0);
        while let Some(sign) = self.next() {
            match sign {
                '#' => while self.next().is_some_and(|sign| sign != '\n') {},
                ';' | '{' => {
                    self.count += 1;
                    if self.count > DIRECTIVES_MAX {
                        bail!("line {}: more than {DIRECTIVES_MAX} directives", self.line);
                    }
                    let block = if sign == '{' { self.block(depth + 1)? } else { Vec::new() };
                    all.push(Directive { line, words: std::mem::take(&mut words), block });
                }
                '}' if depth > 0 && words.is_empty() => return Ok(all),
                '}' => bail!("line {}: `}}` where none is expected", self.line),
                sign if sign.is_whitespace() => {}
                sign => {
                    if words.is_empty() {
                        line = self.line;
                    }
                    words.push(self.word(sign)?);
                }
            }
        }
        if depth > 0 || !words.is_empty() {
            bail!("line {}: it ends within a directive or block", self.line);
        }
        Ok(all)
    }

    fn word(&mut self, first: char) -> anyhow::Result<String> {
        let begin = self.line;
        if first == '"' || first == '\'' {
            let mut text = String::new();
            loop {
                match self.next() {
                    Some('\\') => match self.next() {
                        Some('n') => text.push('\n'),
                        Some('r') => text.push('\r'),
                        Some('t') => text.push('\t'),
                        Some(sign @ ('"' | '\'' | '\\')) => text.push(sign),
                        Some(sign) => text.extend(['\\', sign]),
                        None => (),
                    },
                    Some(sign) if sign == first => return Ok(text),
                    Some(sign) => text.push(sign),
                    None => bail!("line {begin}: a quote that does not end"),
                }
            }
        }
        let mut text = String::from(first);
        let ends = |sign: char| sign.is_whitespace() || matches!(sign, ';' | '{' | '}');
        // `${name}` is no block.
        while let Some(sign) =
            self.signs.peek().copied().filter(|sign| !ends(*sign) || (*sign == '{' && text.ends_with('$')))
        {
            self.next();
            text.push(sign);
            if sign == '{' {
                while let Some(sign) = self.next() {
                    text.push(sign);
                    if sign == '}' {
                        break;
                    }
                }
            }
        }
        Ok(text)
    }
}
