//! `redis`: where limits may be counted for several processes.

use std::sync::Arc;
use std::time::Duration;

use lictor_core::Secret;
use lictor_core::limit::Redis;
use lictor_core::tls::ClientTls;
use serde_json::json;

use super::listen::client_tls;
use crate::tree::{Node, Section};
use crate::values;

const PORT: u16 = 6379;
const DATABASES: u32 = 15;

/// What an address says.
#[derive(Debug, PartialEq, Eq)]
struct At {
    host: String,
    port: u16,
    /// By its scheme; `None`: it has none.
    is_tls: Option<bool>,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<u32>,
}

impl At {
    /// `host:port`, or a URL as Redis' tools have it: `rediss://user:password@host:6380/0`. The error never tells what was
    /// written where that may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let is_tls = match scheme {
            None => None,
            Some("redis") => Some(false),
            Some("rediss") => Some(true),
            Some(_) => {
                return Err("write `host:port`, `redis://host:port` or, with TLS, `rediss://host:port`".to_owned());
            }
        };
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| scheme.is_none() || user.contains(['/', '?', '#', '@'])) {
            return Err("a user and a password are part of a URL, `redis://user:password@host:port`, with `%2F` for `/`; or they have keys of their own, `username` and `password`".to_owned());
        }
        let (place, path) = match place.split_once('/') {
            Some((place, path)) if scheme.is_some() => (place, path),
            _ => (place, ""),
        };
        let database = match path {
            "" => None,
            number => match number.parse() {
                Ok(number) if number <= DATABASES && path.bytes().all(|byte| byte.is_ascii_digit()) => Some(number),
                _ => return Err(format!("after the host of a URL stands the database's number, 0 to {DATABASES}")),
            },
        };
        let (host, port) = values::host_and_port(place).map_err(|why| {
            if user.is_some() { "after the user of a URL stands `host:port`".to_owned() } else { why }
        })?;
        let (username, password) = user.map_or(("", ""), |user| user.split_once(':').unwrap_or((user, "")));
        let some = |text: &str| (!text.is_empty()).then(|| values::percent_decoded(text));
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(PORT),
            is_tls,
            username: some(username),
            password: some(password).map(Secret::new),
            database,
        })
    }

    /// What pages show of it: no password.
    fn shown(text: &str) -> Option<String> {
        let (scheme, rest) = text.split_once("://")?;
        let (_, place) = rest.rsplit_once('@')?;
        Some(format!("{scheme}://***@{place}"))
    }
}

/// Where limits may be counted for several processes.
pub(super) fn redis(top: &Section<'_>) -> Option<Arc<Redis>> {
    let node = top.field("redis", "Where limits with `mode: redis` are counted: an address, or a map. Default: none.");
    if node.is_off() {
        return None;
    }
    let section = node.off_unless(false).section_or_short("address", &[json!({ "type": "string" })]);
    let address = section.field("address", "`host:port`, or `redis://user:password@host:port/database`, `rediss` with TLS; the port is 6379 if there is none.");
    let schema = json!({ "type": "string", "examples": ["127.0.0.1:6379", "rediss://redis.example:6380"] });
    let at = address.parsed_as(schema, None, |text| At::parse(text).map(|at| (at, At::shown(text))));
    let username_node = section.field("username", "Of Redis' ACL; default: the user `default`.");
    let username = username_node.text(None);
    let password_node = section.field("password", "A secret: `${REDIS_PASSWORD}` or `file:/path`.");
    let password = password_node.secret();
    let database_node = section.field("database", "Its number.");
    let database = database_node.integer_within(0, 0, DATABASES);
    let tls_node = section.field("tls", "TLS to it: `on`, or a map; `rediss://` is `on`.");
    let tls = client_tls(&tls_node);
    let timeout_node = section.field("timeout", "How long a decision may take, to one second.");
    let timeout = timeout_node.duration(Duration::from_millis(50));
    if timeout.is_zero() || timeout > Duration::from_secs(1) {
        timeout_node.error("between 1ms and 1s", None);
    }
    section.finish();
    if node.is_map() && !address.is_set() {
        node.error("`redis` needs an `address`", Some("write `address: 127.0.0.1:6379`".to_owned()));
    }
    let at = at?;
    for (node, is_said) in [
        (&username_node, at.username.is_some()),
        (&password_node, at.password.is_some()),
        (&database_node, at.database.is_some()),
    ] {
        if node.is_set() && is_said {
            node.key_error("`address` says that already", None);
        }
    }
    Some(Arc::new(Redis {
        host: at.host,
        port: at.port,
        username: at.username.or(username),
        password: at.password.or(password),
        database: at.database.unwrap_or(database),
        timeout,
        tls: encrypted(&tls_node, at.is_tls, tls),
    }))
}

/// The scheme and `tls` say the same, or one of them says nothing.
fn encrypted(node: &Node<'_>, by_scheme: Option<bool>, tls: Option<ClientTls>) -> Option<ClientTls> {
    match (by_scheme, &tls) {
        (Some(true), None) if node.is_set() => {
            node.key_error("`rediss://` is TLS, and this says that there is none", None);
        }
        (Some(false), Some(_)) => node.key_error("`redis://` is without TLS: write `rediss://`", None),
        _ => (),
    }
    if by_scheme == Some(true) { tls.or_else(|| Some(ClientTls::default())) } else { tls }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_or_a_url_as_redis_tools_have_it() {
        let at = |host: &str, port, is_tls, username: &str, password: &str, database| At {
            host: host.to_owned(),
            port,
            is_tls,
            username: Some(username.to_owned()).filter(|text| !text.is_empty()),
            password: Some(password).filter(|text| !text.is_empty()).map(Secret::new),
            database,
        };
        for (text, expected, shown) in [
            ("redis", at("redis", 6379, None, "", "", None), None),
            ("127.0.0.1:6380", at("127.0.0.1", 6380, None, "", "", None), None),
            ("[::1]:6380", at("::1", 6380, None, "", "", None), None),
            ("redis://redis.example", at("redis.example", 6379, Some(false), "", "", None), None),
            ("rediss://redis.example:6380/3", at("redis.example", 6380, Some(true), "", "", Some(3)), None),
            ("rediss://redis.example/", at("redis.example", 6379, Some(true), "", "", None), None),
            (
                "rediss://ada:s3cret@redis.example:6380/15",
                at("redis.example", 6380, Some(true), "ada", "s3cret", Some(15)),
                Some("rediss://***@redis.example:6380/15"),
            ),
            ("redis://:s3cret@h", at("h", 6379, Some(false), "", "s3cret", None), Some("redis://***@h")),
            ("redis://ada@h", at("h", 6379, Some(false), "ada", "", None), Some("redis://***@h")),
            ("redis://a:p%40%2f%3A:x@h", at("h", 6379, Some(false), "a", "p@/::x", None), Some("redis://***@h")),
        ] {
            assert_eq!(At::parse(text), Ok(expected), "{text}");
            assert_eq!(At::shown(text).as_deref(), shown, "{text}");
        }
        for wrong in [
            "",
            "http://s3cret",
            "ada:s3cret@h",
            "redis://ada:s3/cret@h",
            "redis://ada:s3@cret@h",
            "redis://ada:s3cret@h:port",
            "redis://ada:s3cret@",
            "redis://h/s3cret",
            "redis://h/16",
            "redis://h/+1",
            "redis://h?s3cret",
            "REDISS://h",
        ] {
            let why = At::parse(wrong).unwrap_err();
            assert!(!why.contains("s3cret") || wrong.contains('?'), "{wrong}: {why}");
        }
    }
}
