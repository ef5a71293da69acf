//! The host that a request is for, read once, and what routes say of hosts.
//!
//! Case, a port and one dot at the end do not make another host (RFC 3986, section 3.2.2; RFC 9110, section 4.2.3).

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

/// Longest host (RFC 1035, section 2.3.4).
const LENGTH_MAX: usize = 253;

/// Why a host is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HostError {
    /// Nothing there.
    #[error("the request names no host")]
    Empty,
    /// Not a host's name or address: a user before it, escapes, signs that names do not have, or letters that are not ASCII.
    #[error("the request's host is not a name of letters, digits, `-`, `_` and `.`, nor an address")]
    NotHost,
}

/// What a route says of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// This one.
    Exact(Box<str>),
    /// Whatever ends in this, which begins with a dot: `*.a.b` is `.a.b`, and not `a.b`.
    Under(Box<str>),
    /// Any.
    Any,
}

/// Reads the host of a request's target or `Host`, without its port.
pub fn read(authority: &str) -> Result<Cow<'_, str>, HostError> {
    if authority.is_empty() {
        return Err(HostError::Empty);
    }
    if let Some(literal) = authority.strip_prefix('[') {
        let (address, port) = literal.split_once(']').ok_or(HostError::NotHost)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::NotHost)?;
        return if is_port(port) { Ok(Cow::Owned(format!("[{address}]"))) } else { Err(HostError::NotHost) };
    }
    // Labels of letters, digits, `-` and `_`, with single dots between them.
    let (mut before, mut has_capitals) = (b'.', false);
    let mut end = authority.len();
    for (at, byte) in authority.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => (),
            b'A'..=b'Z' => has_capitals = true,
            b'.' if before != b'.' => (),
            b':' => {
                end = at;
                break;
            }
            _ => return Err(HostError::NotHost),
        }
        before = byte;
    }
    let (host, port) = authority.split_at(end);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > LENGTH_MAX || !is_port(port) {
        return Err(HostError::NotHost);
    }
    Ok(if has_capitals { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

impl HostPattern {
    /// Parses `shop.example`, `*.shop.example` or `*`; in words why not.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (is_wildcard, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        if !text.is_ascii() {
            return Err(format!("`{text}` is not ASCII: write the host in its A-label form, `xn--..` (RFC 5890)"));
        }
        if rest.contains('*') {
            return Err(format!("`{text}`: a `*` may only be the whole first label, as in `*.shop.example`"));
        }
        match read(rest) {
            _ if rest.rsplit_once(':').is_some_and(|_| !rest.ends_with(']')) => {
                Err(format!("`{text}` has a port: routes are told apart by the host alone"))
            }
            Ok(host) if is_wildcard && host.starts_with('[') => {
                Err(format!("`{text}`: an address has no names under it"))
            }
            Ok(host) if is_wildcard => Ok(Self::Under(format!(".{host}").into())),
            Ok(host) => Ok(Self::Exact(host.into())),
            Err(_) => Err(format!("`{text}` is not a host, nor `*.` and a host")),
        }
    }

    /// Whether it has each host that the other has.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Under(_), Self::Exact(other)) => self.has(other),
            (Self::Under(own), Self::Under(other)) => other.ends_with(&**own),
            (Self::Exact(_) | Self::Under(_), _) => false,
        }
    }

    /// Whether some host is had by both.
    pub fn may_meet(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether it has this host, as it was read.
    pub fn has(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => **own == *host,
            Self::Under(end) => host.len() > end.len() && host.ends_with(&**end),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Under(end) => write!(f, "*{end}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Nothing, or a colon and the digits of a port, perhaps none (RFC 3986, section 3.2.3).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_host_are_one_host() {
        for (authority, host) in [
            ("shop.example", "shop.example"),
            ("shop.example:8080", "shop.example"),
            ("shop.example:", "shop.example"),
            ("shop.example.", "shop.example"),
            ("SHOP.Example.:443", "shop.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(read(authority).as_deref(), Ok(host), "{authority}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = format!("{}.a", "a".repeat(252));
        for authority in [
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            "u@a",
            "a%2eb",
            "a b",
            "a/b",
            "b\u{fc}cher.example",
            "a:b",
            "a:1:2",
            "a:99999",
            "a:+1",
            "a\\b",
            "[::1",
            "[a]",
            "[::1]x",
            "[::1]:x",
            "a,b",
            "*",
            "*.a",
            "a?b",
            "a#b",
            ":80",
            &long,
        ] {
            assert!(read(authority).is_err(), "{authority}");
        }
    }

    #[test]
    fn a_wildcard_has_the_names_under_it() {
        let under = HostPattern::parse("*.Shop.example").unwrap();
        for (host, expected) in
            [("a.shop.example", true), ("b.a.shop.example", true), ("shop.example", false), ("ashop.example", false)]
        {
            assert_eq!(under.has(host), expected, "{host}");
        }
        assert_eq!(under.to_string(), "*.shop.example");
        assert_eq!(HostPattern::parse("SHOP.example."), HostPattern::parse("shop.example"));
        for wrong in ["", "a.*", "*a", "*.*", "a:80", "[::1]:80", "*.[::1]", "b\u{fc}cher.example", "u@a", "*.", "a/b"]
        {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
