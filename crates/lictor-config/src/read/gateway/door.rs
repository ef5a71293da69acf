//! Where a gateway's clients come in: its listeners, and whom it believes about them.

use lictor_core::acme::Order;
use lictor_core::cidr::{Cidr, Cidrs};
use lictor_core::gateway::Proxies;
use serde_json::json;

use super::tls;
use crate::config::Listen;
use crate::read::listen::{self, ANY, listen_with};
use crate::tree::{Node, Section};

/// Where `https` is when a URL does not say (RFC 9110, section 4.2.2).
const HTTPS: u16 = 443;

pub(super) fn proxies(section: &Section<'_>) -> Proxies {
    let trusted = section.field(
        "trusted_proxies",
        "Addresses or ranges whose `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `Forwarded` are believed. Default: nobody's.",
    );
    let forwarded = section
        .field("forwarded", "Services are told the client by `Forwarded` (RFC 7239) too, beside `X-Forwarded-*`.");
    Proxies { trusted: cidrs(&trusted), tells_forwarded: forwarded.boolean(false) }
}

/// A list of addresses and ranges of them.
pub(super) fn cidrs(node: &Node<'_>) -> Cidrs {
    let read = |entry: &Node<'_>| entry.parsed(json!({ "type": "string" }), None, str::parse::<Cidr>);
    node.elements().iter().filter_map(read).collect()
}

/// The listener, with `tls` of `gateway`, and the certificates that are ordered for it.
pub(super) fn listen(
    section: &Section<'_>,
    node: &Node<'_>,
    proxies: &Proxies,
    redirects: bool,
) -> (Option<Listen>, Vec<Order>) {
    let mut listen = listen_with(node, None, ANY, |section, listen| {
        listen.tls = listen::tls(section);
        proxied(section, listen, proxies);
    });
    let tls = section.field("tls", "TLS is spoken there: a certificate and its key, or a list of them by host.");
    let (policies, orders) = tls::by_host(&tls, redirects);
    match (policies, &mut listen) {
        (Some(_), Some(listen)) if listen.tls.is_some() => {
            tls.key_error("TLS is in `listen` already", Some("keep one of them".to_owned()));
        }
        (Some(policies), Some(listen)) => listen.tls = Some(policies),
        (_, _) => (),
    }
    (listen, orders)
}

/// The listener of those who are sent to it, and the port that they are sent to.
pub(super) fn redirect(section: &Section<'_>, proxies: &Proxies) -> (Option<Listen>, u16) {
    let node = section.field(
        "redirect_http",
        "Where clients without TLS are sent to the same URL with `https`: port, address, or a map with more. Default: nowhere.",
    );
    if node.is_off() {
        return (None, HTTPS);
    }
    let mut port = u32::from(HTTPS);
    let listen = listen_with(&node, None, ANY, |section, listen| {
        proxied(section, listen, proxies);
        port = section.field("port", "The port of these URLs.").integer_within(HTTPS.into(), 1, u16::MAX.into());
    });
    (listen, u16::try_from(port).unwrap_or(HTTPS))
}

fn proxied(section: &Section<'_>, listen: &mut Listen, proxies: &Proxies) {
    let node = section.field(
        "proxy_protocol",
        "Each connection begins with a header of the PROXY protocol (version 1 or 2), and comes from one of `trusted_proxies`.",
    );
    listen.proxy_protocol = node.boolean(false);
    if listen.proxy_protocol && proxies.trusted.is_empty() {
        let help = "write `trusted_proxies: [10.0.0.0/8]` in `gateway`".to_owned();
        node.error("the PROXY protocol needs `trusted_proxies`: it is believed nobody else", Some(help));
    }
    if listen.proxy_protocol && listen.address.path().is_some() {
        node.error("the PROXY protocol is for TCP: who connects to a Unix socket has no address", None);
    }
}
