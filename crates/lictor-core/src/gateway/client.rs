//! Whose request it is: the client's address, and what of a head says so.
//!
//! Whoever connects is the client, unless he is a proxy that the configuration trusts. A trusted proxy's word is believed
//! about the hop before it, and so on from hop to hop (`X-Forwarded-For` from the right; RFC 7239, section 5.2), until one
//! that is not trusted, or that is no address: what stands before that is the client's own text.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::host;
use crate::cidr::Cidrs;

/// More hops than this are not followed: the last of them is the client.
const HOPS_MAX: usize = 32;
/// More parameters than this no hop of `Forwarded` has; RFC 7239, section 5 has four.
const PARAMETERS_MAX: usize = 16;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whom a gateway believes who a client is, and how it tells those behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Those whose word counts.
    pub trusted: Cidrs,
    /// `Forwarded` (RFC 7239) is told too.
    pub tells_forwarded: bool,
}

/// What a trusted proxy says of the request that it brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The client, and the trusted ones between it and the one who brings it. Empty: that one is the client.
    pub chain: Vec<IpAddr>,
    /// The client spoke TLS, or did not.
    pub is_encrypted: Option<bool>,
    /// The host that it asked for.
    pub host: Option<HeaderValue>,
    /// The port that it asked at.
    pub port: Option<HeaderValue>,
}

impl Proxies {
    /// What of the head is to be believed of who the client is; `None`: nothing, as who brings it is not trusted.
    pub fn told(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<Told> {
        peer.filter(|peer| self.trusted.has(*peer))?;
        let (usual, standard) = (self.usual(headers), self.standard(headers));
        Some(match (usual, standard) {
            (Some(usual), None) => usual,
            (None, Some(standard)) => standard,
            (Some(usual), Some(standard)) => usual.agreed(standard).unwrap_or_default(),
            (None, None) => Told::default(),
        })
    }

    /// `X-Forwarded-*`, if there is any. Of fields that say one thing, what was said last counts: nobody can tell who said
    /// what stands before it.
    fn usual(&self, headers: &HeaderMap) -> Option<Told> {
        if [FOR, HOST, PORT, PROTO].iter().all(|name| !headers.contains_key(name)) {
            return None;
        }
        let mut hops: Vec<&str> = list(headers, &FOR).collect();
        hops.reverse();
        let (chain, _) = self.walk(hops.into_iter().map(address));
        let port = last(headers, &PORT)
            .filter(|port| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok());
        Some(Told {
            chain,
            is_encrypted: last(headers, &PROTO).and_then(is_encrypted),
            host: last(headers, &HOST).and_then(valid_host),
            port: port.and_then(|port| HeaderValue::try_from(port).ok()),
        })
    }

    /// `Forwarded`, if there is any; nothing of one that breaks its grammar.
    fn standard(&self, headers: &HeaderMap) -> Option<Told> {
        if !headers.contains_key(FORWARDED) {
            return None;
        }
        let Some(mut elements) = elements(headers) else { return Some(Told::default()) };
        elements.reverse();
        let (chain, believed) = self.walk(elements.iter().map(|element| element.node));
        let of_client = believed.and_then(|at| elements.get(at));
        Some(Told {
            chain,
            is_encrypted: of_client.and_then(|element| is_encrypted(element.proto.as_deref()?)),
            host: of_client.and_then(|element| valid_host(element.host.as_deref()?)),
            port: None,
        })
    }

    /// From the last hop to the first that is not trusted: those who are believed to be there, the first of them first,
    /// and which entry was the last that was believed.
    fn walk(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> (Vec<IpAddr>, Option<usize>) {
        let (mut chain, mut believed) = (Vec::new(), None);
        for (at, hop) in hops.take(HOPS_MAX).enumerate() {
            believed = Some(at);
            let Some(hop) = hop else { break };
            chain.push(hop);
            if !self.trusted.has(hop) {
                break;
            }
        }
        chain.reverse();
        (chain, believed)
    }

    /// `Forwarded` (RFC 7239, section 4) as it goes on: all hops, and of the first what it asked.
    pub fn forwarded(chain: &[IpAddr], peer: Option<IpAddr>, host: Option<&str>, proto: &str) -> String {
        let mut told = String::new();
        for (at, hop) in chain.iter().copied().map(Some).chain([peer]).enumerate() {
            told += match at {
                0 => "for=",
                _ => ", for=",
            };
            told += &match hop {
                Some(IpAddr::V4(address)) => address.to_string(),
                Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
                None => "unknown".to_owned(),
            };
            if at == 0 {
                if let Some(host) = host.filter(|host| host::read(host).is_ok()) {
                    told +=
                        &if host.bytes().all(is_token) { format!(";host={host}") } else { format!(";host=\"{host}\"") };
                }
                told += &format!(";proto={proto}");
            }
        }
        told
    }
}

impl Told {
    /// What both say; `None` where one contradicts the other.
    fn agreed(self, other: Self) -> Option<Self> {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        let do_agree = self.chain == other.chain
            && !differ(self.is_encrypted.as_ref(), other.is_encrypted.as_ref())
            && !differ(self.host.as_ref(), other.host.as_ref());
        do_agree.then(|| Self {
            is_encrypted: self.is_encrypted.or(other.is_encrypted),
            host: self.host.or(other.host),
            ..self
        })
    }
}

/// The entries of all lines, in their order (RFC 9110, section 5.6.1: empty ones are none). What is not ASCII is an entry
/// that says nothing.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"));
    lines.flat_map(|line| line.split(',')).map(str::trim_ascii).filter(|entry| !entry.is_empty())
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    list(headers, name).last()
}

/// An address, with or without a port; one of IPv6 in brackets if it has one.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

fn is_encrypted(proto: &str) -> Option<bool> {
    match () {
        () if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => Some(true),
        () if proto.eq_ignore_ascii_case("http") || proto.eq_ignore_ascii_case("ws") => Some(false),
        () => None,
    }
}

fn valid_host(text: &str) -> Option<HeaderValue> {
    host::read(text).ok().and_then(|_| HeaderValue::try_from(text).ok())
}

/// Who somebody says to be.
#[derive(Debug)]
enum Node {
    Address(IpAddr),
    /// `unknown`, or a name that says nothing.
    Nobody,
}

impl Node {
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Nobody => None,
        }
    }
}

/// One hop of `Forwarded`.
#[derive(Debug, Default)]
struct Element<'a> {
    /// `None`: `unknown`, a name that says nothing, or none at all.
    node: Option<IpAddr>,
    host: Option<Cow<'a, str>>,
    proto: Option<Cow<'a, str>>,
}

/// Of all lines, in their order; `None` if one of them breaks the grammar (RFC 7239, section 4).
fn elements(headers: &HeaderMap) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let mut rest = line.to_str().ok()?.trim_ascii();
        while !rest.is_empty() {
            let (element, after) = element(rest)?;
            elements.extend(element);
            rest = after;
        }
    }
    Some(elements)
}

/// The first element, `None` for one that is empty, and what comes after it.
fn element(mut rest: &str) -> Option<(Option<Element<'_>>, &str)> {
    let (mut element, mut named) = (Element::default(), Vec::new());
    loop {
        rest = rest.trim_ascii_start();
        match rest.bytes().next() {
            Some(b';') => rest = &rest[1..],
            Some(b',') => return Some(((!named.is_empty()).then_some(element), &rest[1..])),
            None => return Some(((!named.is_empty()).then_some(element), rest)),
            Some(_) => {
                let (name, after) = rest.split_once('=')?;
                if name.is_empty() || !name.bytes().all(is_token) {
                    return None;
                }
                let name = name.to_ascii_lowercase();
                let (value, after) = value(after)?;
                match name.as_str() {
                    "for" => element.node = node(&value)?.address(),
                    "host" => element.host = Some(value),
                    "proto" => element.proto = Some(value),
                    _ => (),
                }
                if named.len() == PARAMETERS_MAX || named.contains(&name) {
                    return None; // "MUST NOT occur more than once"
                }
                named.push(name);
                rest = after.trim_ascii_start();
                if !rest.is_empty() && !rest.starts_with([';', ',']) {
                    return None;
                }
            }
        }
    }
}

/// A token, or a quoted string without its quotes (RFC 9110, section 5.6.4), and what comes after it.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (Cow::Borrowed(&text[..end]), &text[end..]));
    };
    let mut said = String::new();
    let mut signs = quoted.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((Cow::Owned(said), &quoted[at + 1..])),
            '\\' => said.push(signs.next()?.1),
            sign => said.push(sign),
        }
    }
    None
}

/// RFC 7239, section 6: an address, whose port says nothing to us, or a name that is none; `None` for what is neither.
fn node(text: &str) -> Option<Node> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, port)| (Err(name), port))?,
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Ok(name), port)
        }
    };
    let is_obscure = |text: &str| {
        text.strip_prefix('_').is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        })
    };
    let is_port = |port: &str| {
        is_obscure(port) || (1..=5).contains(&port.len()) && port.bytes().all(|digit| digit.is_ascii_digit())
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    match name {
        Err(ipv6) => ipv6.parse().ok().map(|address| Node::Address(IpAddr::V6(address).to_canonical())),
        Ok(name) if name.eq_ignore_ascii_case("unknown") || is_obscure(name) => Some(Node::Nobody),
        Ok(ipv4) => ipv4.parse().ok().map(|address| Node::Address(IpAddr::V4(address))),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What holds of any head: of who is not trusted nothing is believed; who is believed to be between a trusted proxy and the
/// client is trusted, and nobody else; a client's own text before all lines changes nothing, unless all are trusted; and what
/// goes on as `Forwarded` is read as what it was made of.
#[cfg(any(fuzzing, test))]
pub fn law(headers: &HeaderMap) {
    let trusted = "10.0.0.0/8".parse::<crate::cidr::Cidr>().expect("a range");
    let proxies = Proxies { trusted: [trusted].into_iter().collect(), tells_forwarded: true };
    let (stranger, proxy) = (IpAddr::from([203, 0, 113, 1]), IpAddr::from([10, 0, 0, 1]));
    assert_eq!(proxies.told(Some(stranger), headers), None);
    let Some(Told { chain, .. }) = proxies.told(Some(proxy), headers) else { panic!("it is trusted") };
    assert!(chain.len() <= HOPS_MAX && chain.iter().skip(1).all(|hop| proxies.trusted.has(*hop)), "{chain:?}");
    if chain.first().is_some_and(|client| !proxies.trusted.has(*client)) {
        let mut lying = HeaderMap::new();
        for name in [FOR, FORWARDED].iter().filter(|name| headers.contains_key(*name)) {
            let lie = if *name == FOR { "10.9.9.9, 198.51.100.1" } else { "for=10.9.9.9;proto=https" };
            lying.append(name, HeaderValue::from_static(lie));
            for line in headers.get_all(name) {
                lying.append(name, line.clone());
            }
        }
        assert_eq!(proxies.told(Some(proxy), &lying).map(|told| told.chain), Some(chain.clone()));
    }
    let mut told = HeaderMap::new();
    let text = Proxies::forwarded(&chain, Some(proxy), Some("shop.example:1"), "https");
    told.insert(FORWARDED, HeaderValue::try_from(text).expect("it is ASCII"));
    let read = elements(&told).expect("it keeps the grammar");
    assert!(read.iter().map(|element| element.node).eq(chain.iter().copied().chain([proxy]).map(Some)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cidr::Cidr;

    /// Trusts 10.0.0.0/8 and 2001:db8::/32.
    fn proxies() -> Proxies {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].iter().map(|text| text.parse::<Cidr>().unwrap()).collect();
        Proxies { trusted, tells_forwarded: false }
    }

    fn told(peer: &str, lines: &[(&str, &str)]) -> Option<Told> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies().told(Some(peer.parse().unwrap()), &headers)
    }

    fn chain(lines: &[(&str, &str)]) -> String {
        told("10.0.0.1", lines).unwrap().chain.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let lines =
            [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https"), ("forwarded", "for=203.0.113.7")];
        for peer in ["203.0.113.1", "::1", "2001:db9::1", "::ffff:203.0.113.1"] {
            assert_eq!(told(peer, &lines), None, "{peer}");
        }
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            assert_eq!(told(peer, &lines[..1]).unwrap().chain, ["203.0.113.7".parse::<IpAddr>().unwrap()], "{peer}");
        }
        assert_eq!(proxies().told(None, &HeaderMap::new()), None, "a Unix socket");
        assert_eq!(told("10.0.0.1", &[]), Some(Told::default()));
    }

    #[test]
    fn the_client_is_the_first_from_the_right_who_is_not_trusted() {
        let xff = "x-forwarded-for";
        let rows: &[(&[&str], &str)] = &[
            (&["203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7", "198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7 10.0.0.2"),
            (&["1.1.1.1, 203.0.113.7", "10.0.0.2, 10.0.0.3"], "203.0.113.7 10.0.0.2 10.0.0.3"),
            (&["203.0.113.7, 2001:db8::5"], "203.0.113.7 2001:db8::5"),
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9 10.0.0.2"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["[2001:db9::1]:4711"], "2001:db9::1"),
            (&["[2001:db9::1]"], "2001:db9::1"),
            (&["2001:db9::1"], "2001:db9::1"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7,::ffff:10.0.0.2"], "203.0.113.7 10.0.0.2"),
            (&[" ,203.0.113.7,, ,"], "203.0.113.7"),
            (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.7, _hidden"], ""),
            (&["203.0.113.7, 10.0.0"], ""),
            (&["203.0.113.7, 010.0.0.2"], ""),
            (&["203.0.113.7, \"10.0.0.2\""], ""),
            (&["203.0.113.7, \u{e4}"], ""),
            (&["203.0.113.7; 10.0.0.2"], ""),
            (&["203.0.113.7 10.0.0.2"], ""),
            (&["fe80::1%eth0"], ""),
            (&["localhost"], ""),
            (&["0x7f.1"], ""),
        ];
        for (lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|line| (xff, *line)).collect();
            assert_eq!(chain(&lines), *expected, "{lines:?}");
        }
        let endless = vec!["10.0.0.2"; 5000].join(",");
        assert_eq!(told("10.0.0.1", &[(xff, &endless)]).unwrap().chain.len(), HOPS_MAX);
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let rows: &[(&[&str], &str)] = &[
            (&["for=203.0.113.7"], "203.0.113.7"),
            (&["For=\"203.0.113.7:4711\";Proto=https"], "203.0.113.7"),
            (&["for=\"[2001:db9::17]:4711\""], "2001:db9::17"),
            (&["for=\"[2001:db9::17]:_obf\""], "2001:db9::17"),
            (&["for=\"[::ffff:203.0.113.7]\""], "203.0.113.7"),
            (&["for=1.1.1.1, for=203.0.113.7, for=10.0.0.2;by=10.0.0.1"], "203.0.113.7 10.0.0.2"),
            (&["for=203.0.113.7", "for=10.0.0.2"], "203.0.113.7 10.0.0.2"),
            (&["host=\"a,b;c=\\\"d\";for=203.0.113.7 , for=10.0.0.2"], "203.0.113.7 10.0.0.2"),
            (&["for=\"203.0.113\\.7\""], "203.0.113.7"),
            (&[",for=203.0.113.7;, ;"], "203.0.113.7"),
            (&["for=203.0.113.7, for=unknown, for=10.0.0.2"], "10.0.0.2"),
            (&["for=203.0.113.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=203.0.113.7, for=\"_hidden:_p\", for=10.0.0.2"], "10.0.0.2"),
            (&["for=203.0.113.7, proto=https"], ""),
            (&["for=203.0.113.7:4711"], ""),
            (&["for=[2001:db9::17]"], ""),
            (&["for=\"2001:db9::17\""], ""),
            (&["for=\"[203.0.113.7]\""], ""),
            (&["for=203.0.113.7;for=198.51.100.1"], ""),
            (&["for=203.0.113.7;FOR=203.0.113.7"], ""),
            (&["for=\"203.0.113.7"], ""),
            (&["for=\"203.0.113.7\\"], ""),
            (&["for=\"203.0.113.7\"x"], ""),
            (&["for="], ""),
            (&["for=\"\""], ""),
            (&["for"], ""),
            (&["=203.0.113.7"], ""),
            (&["for =203.0.113.7"], ""),
            (&["for= 203.0.113.7"], ""),
            (&["203.0.113.7"], ""),
            (&["for=203.0.113.7, x"], ""),
            (&["for=203.0.113.7", "\u{e4}"], ""),
            (&["for=\"203.0.113.7:123456\""], ""),
            (&["for=_"], ""),
        ];
        for (lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(chain(&lines), *expected, "{lines:?}");
        }
        // Of one hop; those of others do not count.
        for (own, others, expected) in [
            (PARAMETERS_MAX, 1, "203.0.113.7"),
            (PARAMETERS_MAX, PARAMETERS_MAX, "203.0.113.7"),
            (PARAMETERS_MAX + 1, 1, ""),
            (1, PARAMETERS_MAX + 1, ""),
        ] {
            let named = |of: &str, count: usize| {
                let more: Vec<String> = (1..count).map(|number| format!(";p{number}=x")).collect();
                format!("{of}{}", more.concat())
            };
            let line = format!("{}, {}", named("for=203.0.113.7", own), named("for=10.0.0.2", others));
            let expected = if expected.is_empty() { String::new() } else { format!("{expected} 10.0.0.2") };
            assert_eq!(chain(&[("forwarded", &line)]), expected, "{own} and {others}");
        }
    }

    #[test]
    fn two_that_disagree_are_both_not_believed() {
        let rows: &[(&str, &str, &str)] = &[
            ("203.0.113.7", "for=203.0.113.7", "203.0.113.7"),
            ("1.1.1.1, 203.0.113.7, 10.0.0.2", "for=203.0.113.7, for=10.0.0.2", "203.0.113.7 10.0.0.2"),
            ("203.0.113.7", "for=198.51.100.1", ""),
            ("203.0.113.7, 10.0.0.2", "for=203.0.113.7", ""),
            ("203.0.113.7", "for=unknown", ""),
            ("203.0.113.7", "for=203.0.113.7;for=203.0.113.7", ""),
        ];
        for (usual, standard, expected) in rows {
            let lines = [("x-forwarded-for", *usual), ("forwarded", *standard)];
            assert_eq!(chain(&lines), *expected, "{lines:?}");
        }
        let proto = |usual: &str, standard: &str| {
            told("10.0.0.1", &[("x-forwarded-proto", usual), ("forwarded", standard)]).unwrap().is_encrypted
        };
        assert_eq!(proto("https", "proto=https"), Some(true));
        assert_eq!(proto("https", "proto=http"), None);
        assert_eq!(proto("https", "for=203.0.113.7"), None, "they disagree on who it is");
    }

    #[test]
    fn what_was_asked_is_believed_of_the_nearest_or_of_the_clients_own_hop() {
        let said = |lines: &[(&str, &str)]| {
            let Told { is_encrypted, host, port, .. } = told("10.0.0.1", lines).unwrap();
            let text =
                |value: Option<HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            (is_encrypted, text(host), text(port))
        };
        let proto = |text| said(&[("x-forwarded-proto", text)]).0;
        for (text, expected) in [
            ("https", Some(true)),
            ("HTTPS", Some(true)),
            ("wss", Some(true)),
            ("http", Some(false)),
            ("https, http", Some(false)),
            ("http,https", Some(true)),
            ("ftp", None),
            ("https;x", None),
            ("", None),
        ] {
            assert_eq!(proto(text), expected, "{text}");
        }
        let host = |text| said(&[("x-forwarded-host", text)]).1;
        for (text, expected) in [
            ("shop.example", "shop.example"),
            ("shop.example:8443", "shop.example:8443"),
            ("evil, shop.example", "shop.example"),
            ("u@shop.example", ""),
            ("shop.example/evil", ""),
            ("sh op", ""),
            ("\u{e4}", ""),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
        let port = |text| said(&[("x-forwarded-port", text)]).2;
        assert_eq!([port("443"), port("1, 8443"), port("+1"), port("65536"), port("x")], ["443", "8443", "", "", ""]);
        let hops = "for=203.0.113.9;proto=ftp, for=203.0.113.7;proto=https;host=\"shop.example:1\", for=10.0.0.2;proto=http;host=in";
        assert_eq!(said(&[("forwarded", hops)]), (Some(true), "shop.example:1".to_owned(), String::new()));
        let hidden = "for=203.0.113.9;proto=http, for=_hidden;proto=https";
        assert_eq!(said(&[("forwarded", hidden)]).0, Some(true), "the trusted one says so of whom it does not name");
    }

    #[test]
    fn forwarded_goes_on_as_its_grammar_has_it() {
        type Row<'a> = (&'a [IpAddr], Option<IpAddr>, Option<&'a str>, &'a str);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rows: [Row<'_>; 4] = [
            (&[], Some(ip("203.0.113.7")), Some("shop.example"), "for=203.0.113.7;host=shop.example;proto=https"),
            (
                &[ip("2001:db9::1"), ip("10.0.0.2")],
                Some(ip("10.0.0.1")),
                Some("shop.example:1"),
                "for=\"[2001:db9::1]\";host=\"shop.example:1\";proto=https, for=10.0.0.2, for=10.0.0.1",
            ),
            (&[], None, None, "for=unknown;proto=https"),
            (&[], None, Some("a\"b"), "for=unknown;proto=https"),
        ];
        for (chain, peer, host, expected) in rows {
            let text = Proxies::forwarded(chain, peer, host, "https");
            assert_eq!(text, expected);
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED, HeaderValue::try_from(text.as_str()).unwrap());
            assert!(elements(&headers).is_some_and(|elements| elements.len() == chain.len() + 1), "{text}");
        }
    }
}
