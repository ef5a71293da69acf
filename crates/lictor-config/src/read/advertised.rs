//! `registration.address`, what callers dial.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use serde_json::json;

use crate::environment::Environment;
use crate::tree::Node;
use crate::values;

/// An address of this machine, with its interface; `None` where an interface has none, or one of another kind.
type Known = (String, Option<IpAddr>);

/// `None`: the agent knows.
pub(super) fn registered(node: &Node<'_>, env: &Environment) -> Option<String> {
    let parse = |text: &str| {
        if let Some(name) = text.strip_prefix("env:") {
            let value = env.var(name).ok_or_else(|| format!("the environment has no {name}"))?;
            return dialled(value.trim()).map(Some).map_err(|why| format!("{name} in the environment: {why}"));
        }
        if let Some(wanted) = text.strip_prefix("interface:") {
            return of_interface(wanted, &interfaces()?).map(|address| Some(address.to_string()));
        }
        match text {
            "auto" => Ok(None),
            text => dialled(text).map(Some),
        }
    };
    node.parsed(json!({ "type": "string" }), Some("auto"), parse).flatten()
}

/// What callers can dial, without brackets.
fn dialled(text: &str) -> Result<String, String> {
    let host = values::host(text);
    match host.map(|host| (host, host.parse::<IpAddr>())) {
        Some((_, Ok(ip))) if ip.is_unspecified() => Err("callers cannot dial an unspecified address".to_owned()),
        Some((host, Ok(_))) => Ok(host.to_owned()),
        Some((host, Err(_))) if host.chars().all(is_of_name) => Ok(host.to_owned()),
        Some(_) | None => Err(format!("`{text}` is not an address: a name, or an IP address without a port")),
    }
}

/// Underscores are in many a compose file's names.
fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

fn interfaces() -> Result<Vec<Known>, String> {
    let all = getifaddrs().map_err(|error| format!("this machine's interfaces cannot be read: {error}"))?;
    let known = all.map(|entry| {
        let address = entry.address.as_ref();
        let v4 = address.and_then(|it| it.as_sockaddr_in()).map(|it| IpAddr::V4(it.ip()));
        let v6 = || address.and_then(|it| it.as_sockaddr_in6()).map(|it| IpAddr::V6(it.ip()));
        (entry.interface_name, v4.or_else(v6))
    });
    Ok(known.collect())
}

/// The first address that callers can dial of `eth0`, `eth0:ipv4` or `eth0:ipv6`: IPv4 before IPv6, and what is good on one
/// link alone last (IPv4: RFC 3927; of IPv6 it cannot be dialled without a scope, RFC 4007).
fn of_interface(wanted: &str, known: &[Known]) -> Result<IpAddr, String> {
    let (name, family) = match wanted.rsplit_once(':') {
        Some((name, family @ ("ipv4" | "ipv6"))) => (name, Some(family)),
        _ => (wanted, None),
    };
    if !known.iter().any(|(interface, _)| interface == name) {
        let names: BTreeSet<&str> = known.iter().map(|(interface, _)| interface.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        return Err(format!("there is no interface `{name}`; this machine has {}", names.join(", ")));
    }
    let own = || known.iter().filter(|(interface, _)| interface == name).filter_map(|(_, address)| *address);
    let is_wanted = |address: &IpAddr| family.is_none_or(|family| (family == "ipv6") == address.is_ipv6());
    own()
        .filter(is_wanted)
        .filter_map(|address| Some((rank(address)?, address)))
        .min_by_key(|(rank, _)| *rank)
        .map_or_else(
            || {
                let others: Vec<String> = own().map(|address| address.to_string()).collect();
                let others = if others.is_empty() { String::new() } else { format!(", only {}", others.join(", ")) };
                let kind =
                    family.map(|family| if family == "ipv6" { " of IPv6" } else { " of IPv4" }).unwrap_or_default();
                Err(format!("`{name}` has no address{kind} that callers can dial{others}"))
            },
            |(_, address)| Ok(address),
        )
}

/// The lower the better; `None`: nobody can dial it.
fn rank(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
        IpAddr::V4(address) if address.is_link_local() => Some(2),
        IpAddr::V4(_) => Some(0),
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        IpAddr::V6(_) => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_the_address_that_callers_can_dial() {
        let known: Vec<Known> = [
            ("lo", Some("127.0.0.1")),
            ("eth0", None),
            ("eth0", Some("fe80::1")),
            ("eth0", Some("2001:db8::7")),
            ("eth0", Some("169.254.9.9")),
            ("eth0", Some("192.0.2.7")),
            ("eth0", Some("192.0.2.8")),
            ("eth0:1", Some("192.0.2.9")),
            ("six", Some("fe80::2")),
            ("six", Some("2001:db8::8")),
            ("link", Some("169.254.1.1")),
            ("bare", None),
            ("half", Some("fe80::3")),
        ]
        .map(|(name, address)| (name.to_owned(), address.map(|address| address.parse().unwrap())))
        .into();
        for (wanted, expected) in [
            ("lo", Ok("127.0.0.1")),
            ("eth0", Ok("192.0.2.7")),
            ("eth0:ipv4", Ok("192.0.2.7")),
            ("eth0:ipv6", Ok("2001:db8::7")),
            ("eth0:1", Ok("192.0.2.9")),
            ("eth0:1:ipv4", Ok("192.0.2.9")),
            ("six", Ok("2001:db8::8")),
            ("link", Ok("169.254.1.1")),
            ("bare", Err("`bare` has no address that callers can dial")),
            ("half", Err("`half` has no address that callers can dial, only fe80::3")),
            ("lo:ipv6", Err("`lo` has no address of IPv6 that callers can dial, only 127.0.0.1")),
            ("six:ipv4", Err("`six` has no address of IPv4 that callers can dial, only fe80::2, 2001:db8::8")),
            ("eth9", Err("there is no interface `eth9`; this machine has bare, eth0, eth0:1, half, link, lo, six")),
            ("", Err("there is no interface ``; this machine has bare, eth0, eth0:1, half, link, lo, six")),
        ] {
            let expected = expected.map(|address| address.parse().unwrap()).map_err(str::to_owned);
            assert_eq!(of_interface(wanted, &known), expected, "{wanted}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        assert_eq!(of_interface("lo:ipv4", &interfaces().unwrap()), Ok(Ipv4Addr::LOCALHOST.into()));
    }
}
