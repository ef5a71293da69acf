//! `gateway:`, routes for clients from outside.

mod routes;
mod rules;

use std::sync::Arc;

use lictor_core::gateway::{self, Rules, Table};

use self::routes::{Read, Reading, label};
use super::listen::{ANY, listen};
use crate::config::{Gateway, Upstream};
use crate::tree::Node;

/// Keys that the gateway will have.
const PLANNED: [&str; 9] =
    ["tls", "trusted_proxies", "errors", "cors", "auth", "limit", "body_max", "from_consul", "maintenance"];

/// The gateway. Whom it leads to is among `upstreams` afterwards, each with the routes that lead there.
pub(super) fn gateway(
    node: &Node<'_>,
    upstreams: &mut Vec<Upstream>,
    implied: impl Fn(&str) -> Upstream,
) -> Option<Gateway> {
    let section = node.section(&[]);
    let listen_node =
        section.field("listen", "Where clients connect: port (of every address), address, or a map with more.");
    let listen = listen(&listen_node, None, ANY);
    if node.is_map() && !listen_node.is_set() {
        node.error("a gateway needs `listen`", Some("write `listen: 8080`".to_owned()));
    }
    let rules = Arc::new(rules::rules(&section, &Rules::default()));
    let routes = section.field("routes", "A map of paths to upstreams, or a list of routes. Their order means nothing: the most specific route is the one.");
    let mut reading = Reading::new(upstreams, &implied, &rules);
    reading.routes(&routes);
    if node.is_map() && !routes.is_set() {
        node.error("a gateway needs `routes`", Some("write `routes: {/api/users/*: user-service}`".to_owned()));
    }
    let Reading { read, to, .. } = reading;
    for (upstream, routes) in upstreams.iter_mut().zip(to).filter(|(_, routes)| !routes.is_empty()) {
        upstream.routes = upstream.routes.with_gateways(routes);
    }
    section.finish_before(&PLANNED);
    let (matchers, routes): (Vec<_>, Vec<_>) =
        read.iter().map(|read| (read.matcher.clone(), read.route.clone())).unzip();
    let table = Table::new(matchers).map_err(|clash| tell(&read[clash.first], &read[clash.second])).ok()?;
    Some(Gateway { listen: listen?, routes: Arc::new(gateway::Gateway { table, routes, rules }) })
}

fn tell(first: &Read<'_>, second: &Read<'_>) {
    let (own, other) = (&second.matcher, &first.matcher);
    let conditions = match own.conditions.to_string() {
        conditions if conditions.is_empty() => String::new(),
        conditions => format!(" ({conditions})"),
    };
    let message = format!(
        "`{}`{conditions} and `{}` at {} may match one request, and nothing says which is meant",
        label(&own.host, &own.path),
        label(&other.host, &other.path),
        first.node.place(),
    );
    let help = "tell them apart by host, path, method, header or query, or take one away".to_owned();
    if second.node.is_map() {
        second.node.error(message, Some(help));
    } else {
        second.node.key_error(message, Some(help));
    }
}
