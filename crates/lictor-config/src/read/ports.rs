//! No two of our own listeners, nor the application, may be on one port of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use lictor_core::Address;

use crate::config::Config;
use crate::tree::{Node, Section};

pub(super) fn check(top: &Section<'_>, config: &Config) {
    let mut taken = Taken::default();
    // Somebody else's PORT takes nothing from our own listeners: it comes last, and is told.
    let port = top.field("port", "");
    let is_first = !port.is_others();
    if let Some(app) = config.app.address.as_ref().filter(|_| is_first) {
        taken.take(app, "the application".to_owned());
    }
    let mut claim = |address: Address, owner: String, node: &Node<'_>| {
        if let Some(first) = taken.take(&address, owner) {
            node.error(
                match &address {
                    Address::Tcp(address) => format!("port {} is taken already by {first}", address.port()),
                    Address::Unix(_) => format!("{address} is taken already by {first}"),
                },
                Some("each listener needs its own".to_owned()),
            );
        }
    };
    let node = |section: &'static str, key: &'static str| {
        let field = top.field(section, "");
        if field.is_map() { field.section(&[]).field(key, "") } else { field }
    };
    claim(config.admin.listen.into(), "the admin listener".to_owned(), &node("admin", "listen"));
    if let Some(address) = config.admin.public {
        claim(address.into(), "the public admin listener".to_owned(), &node("admin", "public"));
    }
    if let Some(inbound) = &config.inbound {
        claim(inbound.listen.address.clone(), "inbound".to_owned(), &node("inbound", "listen"));
    }
    if let Some(proxy) = &config.outbound.proxy {
        claim(proxy.address.clone(), "the forward proxy".to_owned(), &node("outbound", "proxy"));
    }
    if let Some(gateway) = &config.gateway {
        let listen = top.field("gateway", "").below("listen");
        let node = if listen.is_map() { listen.below("address") } else { listen };
        claim(gateway.listen.address.clone(), "the gateway".to_owned(), &node);
        if let Some(redirect) = &gateway.redirect_http {
            let listen = top.field("gateway", "").below("redirect_http");
            let node = if listen.is_map() { listen.below("address") } else { listen };
            claim(redirect.address.clone(), "the gateway's redirects".to_owned(), &node);
        }
    }
    let entries = top.field("upstreams", "").entries();
    for (upstream, entry) in config.upstreams.iter().zip(&entries) {
        let Some(listen) = &upstream.listen else { continue };
        let node = if entry.is_map() { entry.section(&[]).field("listen", "") } else { entry.clone() };
        claim(listen.address.clone(), format!("upstream {}", upstream.name), &node);
    }
    if let Some(app) = config.app.address.as_ref().filter(|_| !is_first) {
        claim(app.clone(), "the application".to_owned(), &port);
    }
}

/// Who has which address, as found by it: there may be ten thousand.
#[derive(Debug, Default)]
struct Taken {
    owners: Vec<String>,
    /// The first of a port, whatever its address.
    ports: HashMap<u16, usize>,
    addresses: HashMap<(u16, IpAddr), usize>,
    /// The first of a port that is on every address.
    everywhere: HashMap<u16, usize>,
    paths: HashMap<Arc<Path>, usize>,
}

impl Taken {
    /// Takes an address. Who had it, or one that overlaps, before all others.
    fn take(&mut self, address: &Address, owner: String) -> Option<&str> {
        let number = self.owners.len();
        self.owners.push(owner);
        let first = match address {
            Address::Unix(path) => first_of(&mut self.paths, Arc::clone(path), number),
            Address::Tcp(address) if address.port() == 0 => None,
            Address::Tcp(address) => {
                let (port, ip) = (address.port(), address.ip());
                let of_port = first_of(&mut self.ports, port, number);
                let of_address = first_of(&mut self.addresses, (port, ip), number);
                if ip.is_unspecified() {
                    first_of(&mut self.everywhere, port, number);
                    of_port
                } else {
                    of_address.into_iter().chain(self.everywhere.get(&port).copied()).min()
                }
            }
        };
        first.map(|first| self.owners[first].as_str())
    }
}

/// Who has it; if nobody, this one from now on.
fn first_of<K: std::hash::Hash + Eq>(taken: &mut HashMap<K, usize>, key: K, number: usize) -> Option<usize> {
    let first = *taken.entry(key).or_insert(number);
    (first != number).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_overlap_are_taken_by_the_first() {
        let mut taken = Taken::default();
        for (owner, address, first) in [
            ("a", "127.0.0.1:3001", None),
            ("b", "127.0.0.2:3001", None),
            ("c", "127.0.0.2:3001", Some("b")),
            ("d", "0.0.0.0:3001", Some("a")),
            ("e", "127.0.0.3:3001", Some("d")),
            ("f", "[::]:3001", Some("a")),
            ("g", "127.0.0.1:0", None),
            ("h", "127.0.0.1:0", None),
            ("i", "unix:/a", None),
            ("j", "unix:/b", None),
            ("k", "unix:/a", Some("i")),
            ("l", "0.0.0.0:3002", None),
            ("m", "[::1]:3002", Some("l")),
        ] {
            assert_eq!(
                taken.take(&crate::values::address(address, IpAddr::from([127, 0, 0, 1])).unwrap(), owner.to_owned()),
                first,
                "{owner}"
            );
        }
    }
}
