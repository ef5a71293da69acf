//! Whom a gateway's routes lead to: upstreams that are declared, and those that are made of what routes say of them: a
//! service's name alone, its instances of one version, a URL, and copies of requests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use lictor_core::gateway::host;
use lictor_core::mesh::Protocol;
use lictor_core::policy::Policy;
use lictor_core::redact;
use lictor_core::route::Route;
use lictor_core::tls::ClientTls;
use serde_json::json;
use strsim::damerau_levenshtein;

use crate::bounds::{CALLED_MAX, too_many_called};
use crate::config::{Query, Source, Upstream};
use crate::read::service::is_service_name;
use crate::tree::Node;
use crate::values;

/// What tells a copy of a request.
const MIRROR: HeaderName = HeaderName::from_static("x-lictor-mirror");

/// What is written where a route goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// `orders`
    Service(String),
    /// `orders@v2`: those of its instances.
    Version(String, String),
    /// `orders`, beside some of its versions: the other instances. Written `orders@!v2`.
    Rest(String, Vec<String>),
    /// `http://127.0.0.1:8080`: where it is, what its server calls itself, and whether TLS is spoken there.
    Url { address: String, host: String, is_https: bool },
}

impl To {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return url(text);
        }
        let (service, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        if !is_service_name(service) {
            return Err(format!("`{service}` is not a service name: letters, digits, `-`, `_` and `.`"));
        }
        match version {
            None => Ok(Self::Service(text.to_owned())),
            Some(version) if is_version(version) => Ok(Self::Version(service.to_owned(), version.to_owned())),
            Some(version) => Err(format!("`{version}` is not a version: letters, digits, `-`, `_`, `.` and `+`")),
        }
    }

    fn service(&self) -> Option<&str> {
        match self {
            Self::Service(service) | Self::Version(service, _) | Self::Rest(service, _) => Some(service),
            Self::Url { .. } => None,
        }
    }
}

impl fmt::Display for To {
    /// The upstream's name. Only a service's alone is one that somebody may have declared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => f.write_str(service),
            Self::Version(service, version) => write!(f, "{service}@{version}"),
            Self::Rest(service, versions) => write!(f, "{service}@!{}", versions.join("!")),
            Self::Url { address, .. } => f.write_str(address),
        }
    }
}

/// All upstreams, and the gateway's routes that lead to each.
pub(super) struct Leads<'u> {
    upstreams: &'u mut Vec<Upstream>,
    /// How many of them are declared; behind those are the ones that are made.
    declared: usize,
    /// Where each is, by its name.
    places: HashMap<String, usize>,
    implied: &'u dyn Fn(&str) -> Upstream,
    routes: Vec<Vec<Route>>,
    /// Services that are named.
    called: BTreeSet<String>,
    /// How many more upstreams and routes there may be.
    pub(super) room: usize,
}

/// A route, as the upstream that it leads to has it.
pub(super) struct Lead {
    pub(super) upstream: Arc<str>,
    pub(super) index: usize,
}

impl<'u> Leads<'u> {
    pub(super) fn new(upstreams: &'u mut Vec<Upstream>, implied: &'u dyn Fn(&str) -> Upstream) -> Self {
        let places = upstreams.iter().enumerate().map(|(place, upstream)| (upstream.name.clone(), place)).collect();
        let routes = vec![Vec::new(); upstreams.len()];
        let taken = upstreams.iter().map(|upstream| 1 + upstream.routes.iter().count()).sum::<usize>();
        let (called, room) = (BTreeSet::new(), CALLED_MAX.saturating_sub(taken));
        Self { declared: upstreams.len(), upstreams, places, implied, routes, called, room }
    }

    /// Puts the routes behind those of their upstreams. What comes of it are the services that are named.
    pub(super) fn finish(self) -> BTreeSet<String> {
        let all = self.upstreams.iter_mut().zip(self.routes);
        for (upstream, routes) in all.filter(|(_, routes)| !routes.is_empty()) {
            upstream.routes = upstream.routes.with_gateways(routes);
        }
        self.called
    }

    pub(super) fn policy(&self, upstream: usize) -> &Policy {
        &self.upstreams[upstream].policy
    }

    /// Refuses an upstream of which it is said that it speaks something else than gRPC.
    pub(super) fn speaks_grpc(&self, node: &Node<'_>, upstream: usize) {
        let Upstream { name, protocol, source, .. } = &self.upstreams[upstream];
        // What Consul finds may say for itself what it speaks.
        let spoken = protocol.or_else(|| matches!(source, Source::Static(_)).then(Protocol::default));
        if let Some(other) = spoken.filter(|protocol| !matches!(protocol, Protocol::Grpc | Protocol::H2c)) {
            let message = format!("`transcode` calls gRPC, and `{name}` speaks `{}`", other.words()[0]);
            node.error(message, Some(format!("write `upstreams: {{{name}: {{protocol: grpc}}}}`, and its name here")));
        }
    }

    /// The route is the next of its upstream's.
    pub(super) fn lead(&mut self, upstream: usize, route: Route) -> Lead {
        let (own, routes) = (&self.upstreams[upstream], &mut self.routes[upstream]);
        let index = own.routes.own() + routes.len();
        routes.push(route);
        self.room = self.room.saturating_sub(1);
        Lead { upstream: own.name.as_str().into(), index }
    }

    /// Where the upstream is that this node names; one that nobody declared is made.
    pub(super) fn named(&mut self, node: &Node<'_>) -> Option<usize> {
        let to = node.parsed(json!({ "type": "string" }), None, To::parse)?;
        self.find(node, &to)
    }

    /// The name of the upstream that this node names, which is a whole service.
    pub(super) fn service(&mut self, node: &Node<'_>) -> Option<Arc<str>> {
        let to = node.parsed(json!({ "type": "string" }), None, |text| match To::parse(text)? {
            service @ To::Service(_) => Ok(service),
            To::Url { address, .. } => Err(format!("`{text}` is a URL: name an upstream, with `static: [{address}]`")),
            To::Version(..) | To::Rest(..) => Err(format!("`{text}` is not a service name: it has a version")),
        })?;
        let upstream = self.find(node, &to)?;
        Some(self.upstreams[upstream].name.as_str().into())
    }

    /// Where the upstream is; a mistake is the node's.
    pub(super) fn find(&mut self, node: &Node<'_>, to: &To) -> Option<usize> {
        self.called.extend(to.service().map(str::to_owned));
        self.doubt(node, to);
        self.place(to).map_err(|why| node.error(why, None)).ok()
    }

    /// Where the upstream of this name is that leads to the service of this name, and to nobody else.
    pub(super) fn of_service(&mut self, service: &str) -> Result<usize, String> {
        if !is_service_name(service) {
            return Err(format!("`{service}` is not a service name: letters, digits, `-`, `_` and `.`"));
        }
        let place = self.place(&To::Service(service.to_owned()))?;
        match &self.upstreams[place].source {
            Source::Consul(query) if !query.is_prepared && query.service == service => Ok(place),
            Source::Consul(_) | Source::Static(_) => Err(format!(
                "the configuration's upstream `{service}` leads elsewhere than to the service of that name"
            )),
        }
    }

    fn place(&mut self, to: &To) -> Result<usize, String> {
        let name = to.to_string();
        if let Some(known) = self.places.get(&name).copied() {
            let (known_tls, is_https) =
                (self.upstreams[known].tls.is_some(), matches!(to, To::Url { is_https: true, .. }));
            if matches!(to, To::Url { .. }) && known_tls != is_https {
                return Err(format!("`{name}` is called with TLS by one route, and without by another"));
            }
            return self.answers(known);
        }
        let made = match to {
            To::Service(service) => (self.implied)(service),
            To::Version(service, version) => {
                let of = self.place(&To::Service(service.clone()))?;
                subset(&self.upstreams[of], &name, &format!("Service.Meta.version == \"{version}\""))?
            }
            To::Rest(service, versions) => {
                let of = self.place(&To::Service(service.clone()))?;
                let others = versions.iter().map(|version| format!("Service.Meta.version != \"{version}\""));
                subset(&self.upstreams[of], &name, &others.collect::<Vec<_>>().join(" and "))?
            }
            To::Url { address, host, is_https } => fixed((self.implied)(&name), address, host, *is_https),
        };
        self.add(name, made)
    }

    /// Where copies of requests to this upstream go: one like it, with counts, breaker and connections of its own. What shows
    /// who somebody is goes along only if it is wanted.
    pub(super) fn mirror(&mut self, node: &Node<'_>, of: usize, shows_credentials: bool) -> Option<usize> {
        let own = &self.upstreams[of];
        let kind = if shows_credentials { "mirror+credentials" } else { "mirror" };
        let name = format!("{kind}:{}", own.name);
        if let Some(known) = self.places.get(&name).copied() {
            return Some(known);
        }
        let is_shown = |name: &HeaderName| shows_credentials || redact::field(name.as_str(), "") != redact::STARS;
        let mut set_headers: Vec<(HeaderName, HeaderValue)> =
            own.set_headers.iter().filter(|(name, _)| is_shown(name)).cloned().collect();
        set_headers.push((MIRROR, HeaderValue::from_static("1")));
        // A fixed server is called by its upstream's name, which is not this one's.
        let is_fixed = matches!(own.source, Source::Static(_)) && !set_headers.iter().any(|(name, _)| *name == HOST);
        set_headers.extend(HeaderValue::try_from(&own.name).ok().filter(|_| is_fixed).map(|host| (HOST, host)));
        let made = Upstream {
            name: name.clone(),
            policy: own.policy.for_copies(),
            routes: lictor_core::route::Routes::default(),
            set_headers,
            bearer: own.bearer.clone().filter(|_| shows_credentials),
            is_required: false,
            listen: None,
            ..own.clone()
        };
        self.add(name, made).map_err(|why| node.error(why, None)).ok()
    }

    fn add(&mut self, name: String, made: Upstream) -> Result<usize, String> {
        if self.room == 0 {
            return Err(too_many_called());
        }
        self.room -= 1;
        self.upstreams.push(made);
        self.routes.push(Vec::new());
        self.places.insert(name, self.upstreams.len() - 1);
        self.answers(self.upstreams.len() - 1)
    }

    fn answers(&self, upstream: usize) -> Result<usize, String> {
        let own = &self.upstreams[upstream];
        if own.protocol == Some(Protocol::Tcp) {
            return Err(format!("`{}` carries bytes, and answers no requests", own.name));
        }
        Ok(upstream)
    }

    /// Asks about a service that nobody declared, where it is one letter away from one that somebody did. Names of services
    /// are like one another (`order-service`, `user-service`): more than that is no slip, and nobody has to declare them.
    fn doubt(&self, node: &Node<'_>, to: &To) {
        let Some(service) = to.service() else { return };
        if self.places.contains_key(service) {
            return;
        }
        let is_slip = |name: &&str| damerau_levenshtein(&service.to_lowercase(), &name.to_lowercase()) <= 1;
        let mut declared = self.upstreams[..self.declared].iter().map(|upstream| upstream.name.as_str());
        if let Some(meant) = declared.find(is_slip) {
            let help = format!("did you mean `{meant}`? If not, declare it in `upstreams`");
            node.warn(
                format!("there is no upstream `{service}`: the service of that name is called, by `defaults`"),
                Some(help),
            );
        }
    }
}

fn is_version(version: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    (1..=64).contains(&version.len()) && version.chars().all(is_inner)
}

/// `http://127.0.0.1:8080`: a scheme, a host and perhaps a port.
fn url(text: &str) -> Result<To, String> {
    let (scheme, authority) = text.split_once("://").unwrap_or_default();
    let (is_https, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return Err(format!("`{text}`: a route goes to `http://` or `https://`, or to an upstream")),
    };
    if authority.contains(['/', '?', '#']) {
        return Err(format!("`{text}`: `strip` and `rewrite` say what the path becomes; leave it out here"));
    }
    if authority.contains('@') {
        return Err(format!(
            "`{scheme}://..@..` names a user: what is shown to it is for `headers.set` of an upstream"
        ));
    }
    host::read(authority).map_err(|_| format!("`{text}` names no host"))?;
    let (host, given) = values::host_and_port(authority)?;
    let address = values::host_port(&format!("{}:{}", host.to_ascii_lowercase(), given.unwrap_or(port)))?;
    // The server is called as the URL has it: without its scheme's own port (RFC 9110, section 7.2).
    let host = if given.is_none_or(|given| given == port) {
        address.strip_suffix(&format!(":{port}")).unwrap_or(&address).to_owned()
    } else {
        address.clone()
    };
    Ok(To::Url { address, host, is_https })
}

/// What is fixed is nobody of the mesh: it is shown no token.
fn fixed(made: Upstream, address: &str, host: &str, is_https: bool) -> Upstream {
    Upstream {
        source: Source::Static(vec![address.to_owned()]),
        tls: is_https.then(ClientTls::default),
        set_headers: HeaderValue::try_from(host).map(|host| (HOST, host)).into_iter().collect(),
        bearer: None,
        ..made
    }
}

/// Those of an upstream's instances for which this holds too.
fn subset(of: &Upstream, name: &str, holds: &str) -> Result<Upstream, String> {
    let within = |query: &Query| Query {
        filter: Some(match &query.filter {
            Some(filter) => format!("({filter}) and {holds}"),
            None => holds.to_owned(),
        }),
        ..query.clone()
    };
    let query = match &of.source {
        Source::Consul(query) if !query.is_prepared => query,
        Source::Consul(_) => {
            return Err(format!("`{name}`: which instances there are is for the prepared query to say"));
        }
        Source::Static(_) => {
            return Err(format!("`{name}`: the endpoints of `{}` are static, and have no version", of.name));
        }
    };
    Ok(Upstream {
        name: name.to_owned(),
        listen: None,
        source: Source::Consul(within(query)),
        bootstrap: Vec::new(),
        failover: of.failover.iter().filter(|other| other.service == query.service).map(within).collect(),
        is_required: false,
        ..of.clone()
    })
}
