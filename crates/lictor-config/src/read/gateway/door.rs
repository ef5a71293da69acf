//! Whom a gateway believes about its clients.

use lictor_core::cidr::{Cidr, Cidrs};
use lictor_core::gateway::Proxies;
use serde_json::json;

use crate::tree::{Node, Section};

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
