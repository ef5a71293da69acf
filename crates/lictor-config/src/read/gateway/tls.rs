//! `tls:`, what the gateway's listener shows, by the host that a client asks for.

use std::sync::Arc;

use lictor_core::acme::{Acme, Order};
use lictor_core::gateway::HostPattern;
use lictor_core::tls::{KeyPair, ListenerTls, ServerTls};
use serde_json::json;

use super::acme::{acme, order};
use crate::read::listen::policy;
use crate::tree::{Node, Section};

/// A list of policies, each for its hosts; one for all may stand alone. And which of their certificates are ordered.
pub(super) fn by_host(node: &Node<'_>, redirects: bool) -> (Option<ListenerTls>, Vec<Order>) {
    let mut tls = ListenerTls::default();
    let mut orders = Vec::new();
    let mut owners: Vec<(HostPattern, Node<'_>)> = Vec::new();
    for entry in node.maps() {
        let section = entry.section(&[]);
        let named = hosts(&section);
        let (identity, client_ca) = policy(&section);
        let acme_node =
            section.field("acme", "The certificates are ordered from a CA, one for each of `hosts` (ACME).");
        let acme = acme(&acme_node, redirects);
        let require =
            section.field("require", "Clients without a certificate are refused; with `false` it is asked for, and only what is shown must be believed.");
        let requires = require.boolean(true);
        section.finish();
        if require.is_set() && client_ca.is_none() {
            require.key_error("`require` is about clients' certificates: it needs `client_ca`", None);
        }
        let Some(shown) = shown(&entry, &acme_node, identity, acme) else { continue };
        for (host, node) in named {
            let (identity, is_awaited) = match &shown {
                Shown::File(identity) => (identity.clone(), false),
                Shown::Ordered(acme) => {
                    let Some(order) = order(&node, &host, acme) else { continue };
                    let identity = acme.identity(&order.host);
                    orders.push(order);
                    (identity, true)
                }
            };
            let policy = ServerTls { identity, client_ca: client_ca.clone(), requires, is_awaited };
            if !tls.add(&host, &policy) {
                let owner = owners.iter().find(|(known, _)| *known == host);
                let at = owner.map_or_else(String::new, |(_, owner)| format!(" at {}", owner.place()));
                node.error(format!("`{host}` has a policy already{at}"), None);
            }
            owners.push((host, node));
        }
    }
    ((!tls.policies().is_empty()).then_some(tls), orders)
}

/// Whom a policy is for; all that no other has, if it does not say.
fn hosts<'t>(section: &Section<'t>) -> Vec<(HostPattern, Node<'t>)> {
    let hosts = section.field(
        "hosts",
        "Names that clients ask for: `shop.example`, `*.shop.example`. Default: all that no other has, and clients that name none.",
    );
    let mut named = Vec::new();
    for node in hosts.elements() {
        let host = node.parsed(json!({ "type": "string" }), None, HostPattern::parse);
        named.extend(host.map(|host| (host, node)));
    }
    if !hosts.is_set() {
        named.push((HostPattern::Any, section.node().clone()));
    }
    named
}

/// What a policy shows.
enum Shown {
    File(KeyPair),
    Ordered(Arc<Acme>),
}

fn shown(entry: &Node<'_>, node: &Node<'_>, identity: Option<KeyPair>, acme: Option<Arc<Acme>>) -> Option<Shown> {
    let is_ordered = node.is_set() && !node.is_off();
    match (identity, acme) {
        (Some(_), _) if is_ordered => {
            node.key_error("the certificate is ordered, or it is in `cert` and `key`", Some("keep one".to_owned()));
            None
        }
        (Some(identity), _) => Some(Shown::File(identity)),
        (None, Some(acme)) => Some(Shown::Ordered(acme)),
        (None, None) if is_ordered => None,
        (None, None) => {
            if entry.is_map() {
                entry.error("TLS on a listener needs `cert` and `key`, or `acme`", None);
            }
            None
        }
    }
}
