//! Where we listen and how it is spoken there: addresses, TLS of both sides, protocols.

use std::net::{IpAddr, Ipv4Addr};

use lictor_core::Address;
use lictor_core::mesh::Protocol;
use lictor_core::tls::{ClientTls, KeyPair, ServerTls};
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
    let plain = |address| Listen { address, tls: None, max_connection_age: None };
    if node.scalar().is_some() {
        return node.address(default, host).map(plain);
    }
    let section = node.section(&[json!({ "type": ["integer", "string"] })]);
    let address = section.field("address", "Port, address, or unix:/path.").address(default, host);
    let tls = server_tls(&section.field("tls", "TLS is spoken there: certificate and key."));
    let max_connection_age =
        section.field("max_connection_age", "A connection is ended gracefully when it is this old.").limit(None);
    section.finish();
    if node.is_map() && address.is_none() {
        node.error("a listener needs an `address`", Some("write `{address: 3001}`".to_owned()));
    }
    address.map(|address| Listen { address, tls, max_connection_age })
}

fn server_tls(node: &Node<'_>) -> Option<ServerTls> {
    let section = node.section(&[]);
    let identity = key_pair(node, &section, "What we show, PEM; intermediate certificates follow it.");
    let client_ca =
        section.field("client_ca", "Clients must show a certificate of one of these CAs (PEM); default: none.").file();
    section.finish();
    if node.is_map() && identity.is_none() {
        node.error("TLS on a listener needs `cert` and `key`", None);
    }
    identity.map(|identity| ServerTls { identity, client_ca })
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
