//! `gateway:`, routes for clients from outside.

mod acme;
mod asking;
mod auth;
mod basic;
mod compress;
mod cors;
mod door;
mod errors;
mod from_consul;
mod headers;
mod keys;
mod leads;
mod maintenance;
mod mirror;
mod places;
mod routes;
mod rules;
mod security;
mod split;
mod tls;
mod transcode;
mod unseen;
mod when;

use std::sync::Arc;

use http::HeaderName;
use lictor_core::gateway::headers::is_alike;
use lictor_core::gateway::{self, Odd, Rules, Table, label};
use lictor_core::tls::ListenerTls;

use self::leads::Leads;
use self::routes::{Read, Reading};
use self::unseen::Unseen;
use crate::config::{Claims, Gateway, Upstream};
use crate::tree::Node;

/// The gateway. Whom it leads to is among `upstreams` afterwards, each with the routes that lead there.
pub(super) fn gateway(
    node: &Node<'_>,
    upstreams: &mut Vec<Upstream>,
    implied: impl Fn(&str) -> Upstream,
    claims: &Claims,
) -> Option<Gateway> {
    let section = node.section(&[]);
    let listen_node =
        section.field("listen", "Where clients connect: port (of every address), address, or a map with more.");
    if node.is_map() && !listen_node.is_set() {
        node.error("a gateway needs `listen`", Some("write `listen: 8080`".to_owned()));
    }
    let mut leads = Leads::new(upstreams, &implied);
    let proxies = door::proxies(&section);
    let (redirect_http, https_port) = door::redirect(&section, &proxies);
    let (listen, orders) = door::listen(&section, &listen_node, &proxies, redirect_http.is_some());
    let mut policies = listen.iter().filter_map(|listen| listen.tls.as_ref()).flat_map(ListenerTls::policies);
    let asks_for_certificates = policies.any(|policy| policy.client_ca.is_some());
    let auth_node = section.field("auth", "Who may ask, and how he shows it.");
    let auth = auth::of_gateway(&auth_node, asks_for_certificates, |node| leads.service(node));
    maintenance::check(&section, auth.as_deref());
    let rules = Arc::new(Rules { auth, ..rules::rules(&section, None, &Rules::default()) });
    let routes = section.field("routes", "A map of paths to upstreams, or a list of routes. Their order means nothing: the most specific route is the one.");
    let from_consul = from_consul::from_consul(&section);
    let mut reading = Reading::new(leads, &rules);
    reading.routes(&routes);
    let from_consul = from_consul.map(|asked| reading.claims(node, asked, claims));
    if node.is_map() && !routes.is_set() && from_consul.is_none() {
        node.error("a gateway needs `routes`", Some("write `routes: {/api/users/*: user-service}`".to_owned()));
    }
    let Reading { read, leads, .. } = reading;
    let called = leads.finish();
    section.finish();
    let (matchers, routes): (Vec<_>, Vec<_>) =
        read.iter().map(|read| (read.matcher.clone(), read.route.clone())).unzip();
    let odd = routes.iter().fold(Odd::default(), |all, route| all.and(route.odd));
    let table = Table::new(matchers).map_err(|clash| tell(&read[clash.first], &read[clash.second])).ok()?;
    places::check(&table, &read);
    let managed = managed(&rules, &routes);
    let key = rules.auth.as_ref().and_then(|auth| auth.methods.keys.as_ref()?.header.as_ref());
    let unseen = Unseen { key, managed: &managed, proxies: &proxies };
    unseen.check_limits(node, &rules);
    for read in &read {
        unseen.check_route(read);
        if !Arc::ptr_eq(&read.route.rules.limits, &rules.limits) {
            unseen.check_limits(&read.node, &read.route.rules);
        }
    }
    let own = read.iter().map(|read| (&read.node, &read.route.rules)).filter(|(_, own)| !Arc::ptr_eq(own, &rules));
    for (place, rules) in own.chain([(node, &rules)]) {
        let changed = rules.request_headers.iter().flat_map(|operations| operations.names());
        for name in changed.filter(|name| managed.iter().any(|own| is_alike(own, name))) {
            let sentence =
                format!("`{name}` tells who somebody is, as `auth` says: nothing else may say it, or change it");
            place.error(sentence, None);
        }
    }
    let routes = Arc::new(gateway::Gateway { table, routes, rules, managed, proxies, https_port, odd });
    Some(Gateway { listen: listen?, redirect_http, orders, routes, from_consul, called })
}

/// Fields that some route sets for those behind us, each once.
fn managed(rules: &Rules, routes: &[gateway::Route]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in rules.managed().chain(routes.iter().flat_map(|route| route.rules.managed())) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn tell(first: &Read<'_>, second: &Read<'_>) {
    let (own, other) = (&second.matcher, &first.matcher);
    let conditions = match own.only() {
        only if only.is_empty() => String::new(),
        only => format!(" ({only})"),
    };
    let message = format!(
        "`{}`{conditions} and `{}` at {} may match one request, and nothing says which is meant",
        label(&own.host, &own.path),
        label(&other.host, &other.path),
        first.node.place(),
    );
    let help = "tell them apart by host, path, method, header, query or `when`, or take one away".to_owned();
    second.error(message, help);
}
