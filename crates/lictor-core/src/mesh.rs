//! The mesh: one immutable snapshot of everything the data plane may know.
//!
//! The control plane builds it with one pure function and hands it to the workers; nobody changes it. What lives on
//! from one snapshot to the next (breakers, limits, endpoint health) is shared by `Arc`, keyed by name and
//! [`EndpointKey`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};

use crate::address::Address;
use crate::bearer::Bearer;
use crate::breaker::Breaker;
use crate::cidr::Cidrs;
use crate::gateway::Gateway;
use crate::gateway::maintenance::Orders;
use crate::health::EndpointHealth;
use crate::limit::{Limit, Redis};
use crate::limits::{InFlight, Places};
use crate::policy::Policy;
use crate::route::Routes;
use crate::secret::Secret;
use crate::standout::Finding;
use crate::steering::Steering;
use crate::tls::{ClientTls, ListenerTls};
use crate::trace::TraceSettings;

/// The whole snapshot.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Grows by one with each published snapshot.
    pub generation: u64,
    /// Who we are.
    pub local: Arc<Local>,
    /// What the workers listen on, in the configuration's order.
    pub listeners: Vec<Listener>,
    /// By name: declared upstreams, and services called through the forward proxy.
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// The forward proxy's allow-list; `None` when there is no forward proxy.
    pub forward: Option<Forward>,
    /// The server side; `None` when the application is reached directly.
    pub inbound: Option<Arc<Inbound>>,
    /// Routes for clients that are not ours; `None` when there is no gateway.
    pub gateway: Option<Arc<Gateway>>,
    /// What operators order of its maintenance; `None` while nobody knows it yet.
    pub maintenance: Option<Arc<Orders>>,
    /// Instances of our own service that are well, ourselves too; 0 while nobody has said. Watched when a limit is shared.
    pub gateways: u32,
    /// Where limits are counted that several processes have together.
    pub redis: Option<Arc<Redis>>,
    /// Trace headers and sampling.
    pub trace: TraceSettings,
    /// How long a request waits for endpoints that are unknown yet.
    pub start_timeout: Duration,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// And at which level.
    pub access_levels: Arc<AccessLevels>,
}

impl Mesh {
    /// What operators order of the gateway's maintenance; nothing while nobody knows it yet.
    pub fn orders(&self) -> Arc<Orders> {
        self.maintenance.clone().unwrap_or_default()
    }
}

/// Who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Our service's name; empty for a caller without one.
    pub service: String,
    /// Our instance's id, as registered.
    pub instance: String,
}

/// A local address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// What it leads to.
    pub kind: ListenerKind,
    /// Where. Port 0 lets the kernel choose.
    pub address: Address,
    /// TLS, if it is spoken there.
    pub tls: Option<ListenerTls>,
    /// Those who bring connections of others, and say so by the PROXY protocol before anything else; nobody else may connect.
    /// `None`: that is not spoken there.
    pub proxies: Option<Cidrs>,
    /// A connection is ended gracefully when it is this old, give or take a tenth; `None`: never.
    pub max_connection_age: Option<Duration>,
}

/// What a listener leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerKind {
    /// The upstream of this name.
    Upstream(Arc<str>),
    /// Whatever the request's URI or Host names, if the allow-list has it.
    Forward,
    /// Our own application.
    Inbound,
    /// Whatever the gateway's routes say.
    Gateway,
    /// The same URL with `https`; the gateway's routes for whoever comes by that already.
    Redirect,
}

/// Services that the forward proxy may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// Exact names, or prefixes ending in `*`. Declared upstreams are always allowed.
    pub allow: Vec<String>,
}

impl Forward {
    /// Whether the list has this service. Names of hosts do not differ by case (RFC 3986, section 3.2.2).
    pub fn allows(&self, service: &str) -> bool {
        self.allow.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => service.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)),
            None => service.eq_ignore_ascii_case(entry),
        })
    }
}

/// The server side: other sidecars' requests to our application.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The application as an upstream with one endpoint, no retries and no breaker.
    pub app: Arc<Upstream>,
    /// Any of these must be in `X-Service-Auth`; empty: not checked.
    pub tokens: Vec<Secret>,
    /// How often somebody may ask.
    pub limits: Arc<[Limit]>,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AccessLog {
    /// All.
    #[default]
    All,
    /// Those whose level is a warning or an error ([`AccessLevels`]).
    Errors,
    /// Errors, and this share (0 to 1) of the others.
    Sampled(f64),
    /// None.
    Off,
}

/// How a request's line in the log is marked, by its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLevels {
    /// 1xx, 2xx, 3xx, 4xx and 5xx. Default ERROR from 4xx on, else INFO.
    pub classes: [Level; 5],
    /// What a gateway refuses itself with 4xx: nothing is wrong here. Default WARN, or what is said of 4xx.
    pub strangers: Level,
    /// These are not as their class is.
    pub statuses: Vec<(u16, Level)>,
}

/// A mark in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Of no interest but to whoever looks for it.
    Debug,
    /// As it should be.
    Info,
    /// Perhaps not.
    Warn,
    /// Not.
    Error,
}

impl Default for AccessLevels {
    fn default() -> Self {
        let classes = [Level::Info, Level::Info, Level::Info, Level::Error, Level::Error];
        Self { classes, strangers: Level::Warn, statuses: Vec::new() }
    }
}

impl AccessLevels {
    /// Of a request with this status. One that broke off after a good status counts as 5xx; `is_edge`: it came to a gateway.
    pub fn of(&self, status: u16, is_failed: bool, is_edge: bool) -> Level {
        let is_good = status < 400;
        let exact = self.statuses.iter().find(|(known, _)| *known == status && !(is_failed && is_good));
        let class = if is_failed && is_good { 5 } else { usize::from(status / 100).clamp(1, 5) };
        let usual = if is_edge && is_failed && class == 4 { self.strangers } else { self.classes[class - 1] };
        exact.map_or(usual, |(_, level)| *level)
    }
}

impl Level {
    /// As logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }

    /// Whether it says that something was not as it should be.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Warn | Self::Error)
    }
}

/// What is spoken to an upstream's endpoints, and on its listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Whatever the client speaks: HTTP/1.1, HTTP/2 or else bytes, as its first bytes tell within 100 ms.
    Auto,
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge, cleartext.
    H2c,
    /// The same, for gRPC: its timeouts, statuses and metrics.
    Grpc,
    /// Bytes: a connection is carried, not requests.
    Tcp,
}

impl Protocol {
    /// All of them, in the order in which the configuration tells them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Tcp, Self::Http1, Self::H2c, Self::Grpc];

    /// Its words, in the configuration and in Consul's Meta; the first is its name.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["auto"],
            Self::Tcp => &["tcp"],
            Self::Http1 => &["http1", "http"],
            Self::H2c => &["h2c", "http2"],
            Self::Grpc => &["grpc"],
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.words()[0]
    }

    /// The one that has this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.words().contains(&word))
    }

    /// Whether endpoints are spoken to in HTTP/2, when the client speaks it or does not.
    pub fn is_http2(self, client_does: bool) -> bool {
        match self {
            Self::Auto => client_does,
            Self::H2c | Self::Grpc => true,
            Self::Http1 | Self::Tcp => false,
        }
    }
}

/// A service that we call, with our policy for it.
#[derive(Debug)]
pub struct Upstream {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The service's name in Consul; the same as `name` unless the configuration says otherwise.
    pub service: Arc<str>,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// TLS towards its endpoints.
    pub tls: Option<ClientTls>,
    /// How it is called where no route says otherwise.
    pub policy: Arc<Policy>,
    /// Routes with a policy of their own, first match wins.
    pub routes: Routes,
    /// Set on every request to it, replacing what the application sent.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Shown to it where the application shows nothing of its own.
    pub bearer: Option<Arc<Bearer>>,
    /// Counts in `/ready`.
    pub is_required: bool,
    /// Sorted by key; these may be picked.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// What discovery saw, for messages and pages.
    pub census: Census,
    /// The further tiers, from 1.
    pub standby: Box<[Standby]>,
    /// Ours: its endpoints with the same Meta `zone` come first; `None`: all are alike.
    pub zone: Option<Arc<str>>,
    /// Carried over by name.
    pub breaker: Arc<Breaker>,
    /// Carried over by name.
    pub in_flight: Arc<InFlight>,
    /// Carried over by name.
    pub steering: Arc<Steering>,
}

impl Upstream {
    /// Whether it is known who there is: somebody, or nobody of any tier.
    pub fn is_known(&self) -> bool {
        let is_known = |standby: &Standby| standby.census.is_known;
        self.census.is_known && (!self.endpoints.is_empty() || self.standby.iter().all(is_known))
    }

    /// Requests that wait for a place, those of its routes' own limits too.
    pub fn pending(&self) -> u32 {
        let routes = self.routes.iter().filter_map(|route| route.in_flight.as_ref());
        self.in_flight.pending() + routes.map(|in_flight| in_flight.pending()).sum::<u32>()
    }
}

/// Who else takes requests, while nobody of the tiers before is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// In words: `users in dc2`.
    pub name: Arc<str>,
    /// What discovery saw.
    pub census: Census,
}

/// What discovery saw of a service's instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Where endpoints come from, for messages: Consul, a snapshot of its answers, the configuration's bootstrap, or static.
    pub source: &'static str,
    /// False until the first answer (or always true for static endpoints).
    pub is_known: bool,
    /// Instances in all.
    pub total: usize,
    /// Left out as critical.
    pub critical: usize,
    /// Left out as in maintenance.
    pub maintenance: usize,
    /// Left out for weight 0, or no usable address or port.
    pub unusable: usize,
    /// Lost too often lately to be relied on.
    pub flapping: usize,
    /// Kept although the last answer no longer has them (a list that shrank at once, and is still in its grace).
    pub suspect: usize,
}

/// One instance of a service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Who it is, across snapshots.
    pub key: EndpointKey,
    /// What to dial.
    pub address: Address,
    /// Whose instance it is: its service's name in Consul, for `Host` and `X-Lictor-To`.
    pub service: Arc<str>,
    /// The address as registered, for TLS names when it is a host name.
    pub host: Arc<str>,
    /// Never 0.
    pub weight: u32,
    /// 0 is the best: one of a higher tier is picked only while nobody of a lower one is well.
    pub tier: u8,
    /// Passing or warning.
    pub status: Status,
    /// As registered.
    pub tags: Vec<String>,
    /// As registered.
    pub meta: BTreeMap<String, String>,
    /// When it was first seen, if that was after the upstream's first answer: slow start counts from here.
    pub warms_from: Option<Instant>,
    /// Carried over by key.
    pub health: Arc<EndpointHealth>,
    /// One for each open connection to it. Carried over by key.
    pub connections: Arc<Places>,
}

impl Endpoint {
    /// One word for its state: what keeps requests from it, else Consul's; where that is well, what its track record says.
    pub fn state(&self, now: Instant) -> &'static str {
        if self.health.is_ejected(now) {
            "ejected"
        } else if self.health.is_draining(now) {
            "draining"
        } else if self.health.is_resting(now) {
            "resting"
        } else {
            match self.status {
                Status::Passing => self.health.track.finding().map_or("healthy", Finding::as_str),
                Status::Warning => "warning",
                Status::Flapping => "flapping",
                Status::Suspect => "suspect",
            }
        }
    }
}

/// The health of an instance that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All checks pass.
    Passing,
    /// Some check warns; none is critical.
    Warning,
    /// It passes, and was lost too often lately to be relied on.
    Flapping,
    /// No longer in the last answer, kept for a grace (see [`Census::suspect`]).
    Suspect,
}

impl Status {
    /// The word for pages and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Flapping => "flapping",
            Self::Suspect => "suspect",
        }
    }
}

/// Who an endpoint is, across snapshots: the same id at another address is another endpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Consul's node; empty for static endpoints.
    pub node: Arc<str>,
    /// Consul's service id; the address for static endpoints.
    pub id: Arc<str>,
    /// What is dialled.
    pub address: Address,
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.node, self.id, self.address)
    }
}
