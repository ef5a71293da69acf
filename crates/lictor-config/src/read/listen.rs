//! Where we listen and how it is spoken there: addresses, TLS of both sides, protocols.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use lictor_core::Address;
use lictor_core::mesh::Protocol;
use lictor_core::tls::{ClientTls, KeyPair, ListenerTls, ServerTls};
use serde_json::json;

use crate::config::Listen;
use crate::tree::{Node, Section};

pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A listener for applications of this machine.
pub(super) fn listener(node: &Node<'_>) -> Option<Listen> {
    let listen = listen(node, None, LOCAL)?;
    if !listen.address.is_local() {
        node.warn(
            format!(
                "{} can be reached from other machines: anyone there may call through this sidecar",
                listen.address
            ),
            Some("a port alone listens on 127.0.0.1".to_owned()),
        );
    }
    Some(listen)
}

/// `3001`, `127.0.0.1:3001`, `unix:/run/users.sock`, or a map with that as its `address`.
pub(super) fn listen(node: &Node<'_>, default: Option<Address>, host: IpAddr) -> Option<Listen> {
    listen_with(node, default, host, |section, listen| {
        listen.tls = tls(section);
        let proxied = section.field("proxy_protocol", "");
        if proxied.is_set() {
            proxied.key_error("only the gateway's listeners take the PROXY protocol", None);
        }
    })
}

/// The same, and more keys of the map.
pub(super) fn listen_with(
    node: &Node<'_>,
    default: Option<Address>,
    host: IpAddr,
    more: impl FnOnce(&Section<'_>, &mut Listen),
) -> Option<Listen> {
    let plain = |address| Listen { address, tls: None, proxy_protocol: false, max_connection_age: None };
    if node.scalar().is_some() {
        return node.address(default, host).map(plain);
    }
    let section = node.off_unless(default.is_some()).section(&[json!({ "type": ["integer", "string"] })]);
    let address = section.field("address", "Port, address, or unix:/path.").address(default, host);
    let max_connection_age =
        section.field("max_connection_age", "A connection is ended gracefully when it is this old.").limit(None);
    let is_without = node.is_map() && address.is_none();
    let any = Address::from(SocketAddr::new(host, 0));
    let mut listen = Listen { max_connection_age, ..plain(address.clone().unwrap_or(any)) };
    more(&section, &mut listen);
    section.finish();
    if is_without {
        node.error("a listener needs an `address`", Some("write `{address: 3001}`".to_owned()));
    }
    address.map(|_| listen)
}

/// One policy for all clients of a listener.
pub(super) fn tls(section: &Section<'_>) -> Option<ListenerTls> {
    let node = section.field("tls", "TLS is spoken there: certificate and key.");
    let section = node.section(&[]);
    let (identity, client_ca) = policy(&section);
    section.finish();
    if node.is_map() && identity.is_none() {
        node.error("TLS on a listener needs `cert` and `key`", None);
    }
    identity.map(|identity| ServerTls { identity, client_ca, requires: true, is_awaited: false }.into())
}

/// What we show, and whose certificates clients have to show.
pub(super) fn policy(section: &Section<'_>) -> (Option<KeyPair>, Option<PathBuf>) {
    let identity = key_pair(section.node(), section, "What we show, PEM; intermediate certificates follow it.");
    let ca = section.field("client_ca", "Clients must show a certificate of one of these CAs (PEM); default: none.");
    (identity, ca.file())
}

pub(super) fn client_tls(node: &Node<'_>) -> Option<ClientTls> {
    if node.is_off() {
        return None;
    }
    if matches!(node.scalar(), Some("true" | "on" | "yes")) {
        return Some(ClientTls::default());
    }
    let section = node.section(&[json!({ "type": "boolean" })]);
    let tls = ClientTls {
        ca: section.field("ca", "CAs that are believed (PEM); default: the system's.").file(),
        identity: key_pair(node, &section, "What we show when asked, PEM."),
        server_name: section
            .field("server_name", "For SNI, and what the certificate must name; default: the instance's address.")
            .text(None),
    };
    section.finish();
    node.is_set().then_some(tls)
}

fn key_pair(node: &Node<'_>, section: &Section<'_>, help: &'static str) -> Option<KeyPair> {
    let (cert, key) = (section.field("cert", help).file(), section.field("key", "Its private key, PEM.").file());
    if cert.is_some() != key.is_some() {
        node.error("`cert` and `key` belong together", None);
    }
    Some(KeyPair { cert: cert?, key: key? })
}

pub(super) fn protocol_of(node: &Node<'_>, default: Option<&str>) -> Option<Protocol> {
    let with_words = |protocol: Protocol| protocol.words().iter().map(move |word| (*word, protocol));
    let choices: Vec<(&str, Protocol)> = Protocol::ALL.into_iter().flat_map(with_words).collect();
    node.choice(&choices, default)
}
