//! The resolved configuration: what the rest of the program sees. Every value is valid and typed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use lictor_core::acme::Order;
use lictor_core::bearer::Bearer;
use lictor_core::gateway;
use lictor_core::gateway::claim::Space;
use lictor_core::limit::{Limit, Mode, Redis};
use lictor_core::mesh::{AccessLevels, AccessLog, Protocol};
use lictor_core::policy::Policy;
use lictor_core::route::Routes;
use lictor_core::tls::{ClientTls, ListenerTls, ServerTls};
use lictor_core::trace::TraceSettings;
use lictor_core::{Address, Secret};
use serde::{Deserialize, Serialize};

use crate::names::Names;

/// Everything, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our service's name in Consul; `None` for a caller that has none.
    pub service: Option<String>,
    /// How we are registered; `None`: not at all.
    pub registration: Option<Registration>,
    /// Where we are; `None`: nowhere in particular. Default the registration's Meta `zone`.
    pub zone: Option<String>,
    /// The application beside us.
    pub app: App,
    /// The server side; `None`: the application is reached directly.
    pub inbound: Option<Inbound>,
    /// How Consul is reached.
    pub consul: Consul,
    /// The forward proxy and the child's environment.
    pub outbound: Outbound,
    /// The policy of upstreams that say nothing, and of services called through the forward proxy only.
    pub defaults: Policy,
    /// In the file's order, and behind them those that only the gateway names; names are unique.
    pub upstreams: Vec<Upstream>,
    /// Routes for clients that are not ours; `None`: there is no gateway.
    pub gateway: Option<Gateway>,
    /// Where limits may be counted for several processes.
    pub redis: Option<Arc<Redis>>,
    /// Trace headers, sampling, export.
    pub trace: Trace,
    /// The Prometheus endpoint.
    pub metrics: Metrics,
    /// Logs.
    pub log: Log,
    /// The admin listeners.
    pub admin: Admin,
    /// What the application may ask of Consul through us.
    pub building_blocks: BuildingBlocks,
    /// Data-plane threads, at least 1.
    pub workers: usize,
    /// Starting and stopping.
    pub lifecycle: Lifecycle,
}

/// How we are registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Stable across restarts. Default `<service>-<hostname>-<port>`.
    pub id: String,
    /// What callers dial; `None`: the agent's node address is used.
    pub address: Option<String>,
    /// What callers dial: the inbound listener's port where there is one, else the application's.
    pub port: u16,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta, `version` and `protocol` included.
    pub meta: BTreeMap<String, String>,
    /// Weight while passing, at least 1.
    pub weight_passing: u32,
    /// Weight while warning.
    pub weight_warning: u32,
    /// Checks, at least one unless the file says `checks: []`.
    pub checks: Vec<Check>,
    /// Consul removes an instance that has been critical for this long. At least 1 min.
    pub deregister_after: Duration,
}

/// One Consul check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Consul asks the application for this path, or elsewhere for a URL. Where it would meet `inbound` instead, lictor asks, and
    /// reports; so for TCP and gRPC.
    Http {
        /// `/health`, or a whole URL.
        target: String,
        /// Between runs.
        interval: Duration,
        /// For one run.
        timeout: Duration,
    },
    /// Consul connects.
    Tcp {
        /// Between runs.
        interval: Duration,
        /// For one run.
        timeout: Duration,
    },
    /// Consul calls grpc.health.v1.
    Grpc {
        /// The service asked for; empty: the server as a whole.
        service: String,
        /// Between runs.
        interval: Duration,
        /// For one run.
        timeout: Duration,
    },
    /// lictor probes the application and reports to Consul every third of `ttl`.
    Ttl {
        /// After this much silence the instance is critical.
        ttl: Duration,
        /// The path to probe on the application; `None`: a TCP connect.
        probe: Option<String>,
    },
}

/// The application beside us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Where it listens; `None` for a caller that serves nothing.
    pub address: Option<Address>,
    /// What it speaks.
    pub protocol: Protocol,
    /// How lictor asks it whether it is well; `None`: by the path of the first check that has one, else by connecting.
    pub probe: Option<AppProbe>,
    /// What `lictor run` starts when its command line names nothing.
    pub command: Vec<String>,
    /// Whether `lictor run` starts it again.
    pub restart: Restart,
    /// Variables with secrets of lictor's own that it gets too.
    pub inherit: Vec<String>,
}

/// Whether an application that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// lictor ends with it.
    Never,
    /// When it ended with another code than 0, or by a signal.
    OnFailure {
        /// Before the first restart; twice as long before each further one in a row. Default 5 s.
        delay: Duration,
        /// Restarts in a row. Default 3.
        max: u32,
    },
}

/// How the application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppProbe {
    /// Not at all.
    Off,
    /// A connection is enough.
    Connect,
    /// A 2xx for this path.
    Path(String),
}

/// The server side.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Where other sidecars connect.
    pub listen: Listen,
    /// Requests at a time.
    pub max_in_flight: u32,
    /// Any of these must be in `X-Service-Auth`; empty: not checked.
    pub tokens: Vec<Secret>,
    /// How often somebody may ask.
    pub limits: Arc<[Limit]>,
}

/// Routes for clients that are not ours.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where they connect.
    pub listen: Listen,
    /// Where clients without TLS are sent to it; `None`: nowhere.
    pub redirect_http: Option<Listen>,
    /// Certificates of `listen` that are ordered.
    pub orders: Vec<Order>,
    /// Which requests go where.
    pub routes: Arc<gateway::Gateway>,
    /// Routes among them are claimed by services; `None`: none are.
    pub from_consul: Option<FromConsul>,
    /// Services that it names: where its routes go, what is copied, and who is asked.
    pub called: BTreeSet<String>,
}

impl Gateway {
    /// Services that it calls, by their names; `pay-*` is how those begin that may claim a route.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &str> {
        let may_claim = self.from_consul.iter().flat_map(|asked| &asked.allow);
        self.called.iter().chain(may_claim.map(|(name, _)| name)).map(String::as_str)
    }
}

/// What services may claim by tags in Consul.
#[derive(Clone, Debug)]
pub struct FromConsul {
    /// What such a tag begins with, before its `=`.
    pub tag: String,
    /// Routes at most.
    pub max: usize,
    /// By a service's name, or how names begin (`pay-*`).
    pub allow: Vec<(String, Vec<Space>)>,
    /// What is no route.
    pub refused: Vec<Refused>,
}

impl FromConsul {
    /// Services that may claim something.
    pub fn claimants(&self) -> Names {
        self.allow.iter().map(|(name, _)| name).collect()
    }
}

/// A tag that is no route, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The tag.
    pub tag: Tagged,
    /// In words.
    pub reason: String,
}

/// What services claim, as Consul has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What the tags begin with.
    pub tag: String,
    /// In the order in which they were seen first.
    pub list: Vec<Tagged>,
}

/// A tag of a service that claims a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tagged {
    /// Whose it is.
    pub service: String,
    /// What stands behind the `=`.
    pub text: String,
}

/// How Consul is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Consul {
    /// The agent; `None` when nothing needs Consul (static upstreams and no registration).
    pub address: Option<ConsulAddress>,
    /// ACL token given as text.
    pub token: Option<Secret>,
    /// File that holds the ACL token; read again when Consul refuses it.
    pub token_file: Option<PathBuf>,
    /// HTTP basic authentication, `user:password`.
    pub http_auth: Option<Secret>,
    /// For https.
    pub tls: ConsulTls,
    /// Default datacenter of queries; `None`: the agent's.
    pub datacenter: Option<String>,
    /// Consul Enterprise namespace.
    pub namespace: Option<String>,
    /// Consul Enterprise partition.
    pub partition: Option<String>,
    /// Reads.
    pub consistency: Consistency,
    /// Data older than this is warned about; it is never thrown away. Default 10 min.
    pub max_stale: Duration,
    /// Longest blocking query. Default 60 s.
    pub wait: Duration,
    /// When a smaller answer is believed.
    pub guard: Guard,
    /// The last good answers on disk; `None`: nothing is written.
    pub snapshot: Option<SnapshotFile>,
    /// Configuration from KV; `None`: none is read.
    pub kv: Option<Kv>,
}

/// Keys of Consul's KV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// Where configuration is read, over the file's. Default `lictor/<service>/config`.
    pub config: String,
    /// What became of it is written below this, by instance. Default `lictor/<service>/status`.
    pub status: String,
    /// What is ordered of the gateway's maintenance, for all of the service. Default `lictor/<service>/maintenance`.
    pub maintenance: String,
}

/// The last good answers on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The file; its folder is made if it is not there.
    pub path: PathBuf,
    /// An older one is not used. Default 24 h.
    pub max_age: Duration,
}

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulAddress {
    /// `http://host:port`
    Http(String, u16),
    /// `https://host:port`
    Https(String, u16),
    /// `unix:///path`
    Unix(PathBuf),
}

/// TLS towards the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsulTls {
    /// PEM file with the CA; with `ca_path` both empty, the system's roots are not used and https fails.
    pub ca_file: Option<PathBuf>,
    /// Folder of PEM files.
    pub ca_path: Option<PathBuf>,
    /// PEM client certificate.
    pub client_cert: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// Instead of the address's host.
    pub server_name: Option<String>,
    /// `CONSUL_HTTP_SSL_VERIFY=false`.
    pub skip_verify: bool,
}

/// Consul's read consistency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Any server answers; the default.
    #[default]
    Stale,
    /// The leader answers.
    Default,
    /// The leader confirms with a quorum first.
    Consistent,
}

/// When a smaller answer is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// A list that shrinks by more than this share (0 to 1) is confirmed with a consistent read first. Default 0.5.
    pub max_removal: f64,
    /// Over this time. Default 10 s.
    pub within: Duration,
    /// Keep the old endpoints, as the last to be used, when the list becomes empty or shrinks by more. Default true.
    pub keep_on_empty: bool,
    /// For this long, or until a connection fails. Default 30 s.
    pub keep_for: Duration,
    /// Which instances come after the others because they come and go; `None`: none.
    pub damping: Option<Damping>,
}

/// An instance that was lost this often comes after the others until it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// At least 1. Default 3.
    pub losses: u32,
    /// Over this time. Default 1 min.
    pub within: Duration,
}

/// The forward proxy and the child's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Where the forward proxy listens.
    pub proxy: Option<Listen>,
    /// Services it may call besides the declared upstreams: names, or prefixes ending in `*`.
    pub allow: Vec<String>,
    /// `lictor run` exports `<UPSTREAM>_URL`, `_HOST` and `_PORT`. Default true.
    pub export_env: bool,
    /// `lictor run` exports `HTTP_PROXY` and `NO_PROXY` too. Default false.
    pub export_proxy_env: bool,
}

/// A local address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// TLS, if it is spoken there.
    pub tls: Option<ListenerTls>,
    /// Connections begin with a header of the PROXY protocol. Default false.
    pub proxy_protocol: bool,
    /// A connection is ended gracefully when it is this old; `None`: never.
    pub max_connection_age: Option<Duration>,
}

impl Config {
    /// What says how many instances of our own service there are; `None`: no limit is divided among them.
    pub fn own_query(&self) -> Option<Query> {
        let is_shared = self.limits().any(|(_, limit)| limit.mode == Mode::Shared);
        let service = self.service.clone().filter(|_| is_shared && self.registration.is_some())?;
        Some(Query { service, ..Query::default() })
    }

    /// All limits on rates, with the section that each is in.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, &Limit)> {
        let inbound = self.inbound.iter().flat_map(|inbound| &*inbound.limits).map(|limit| ("inbound", limit));
        let gateway = self.gateway.iter().flat_map(|gateway| {
            let routes = gateway.routes.routes.iter().flat_map(|route| &*route.rules.limits);
            gateway.routes.rules.limits.iter().chain(routes)
        });
        gateway.map(|limit| ("gateway", limit)).chain(inbound)
    }

    /// TLS on all listeners.
    pub fn server_tls(&self) -> impl Iterator<Item = &ServerTls> {
        let upstreams = self.upstreams.iter().filter_map(|upstream| upstream.listen.as_ref());
        let inbound = self.inbound.as_ref().map(|inbound| &inbound.listen);
        let gateway = self.gateway.as_ref().map(|gateway| &gateway.listen);
        let listens = upstreams.chain(&self.outbound.proxy).chain(inbound).chain(gateway);
        listens.filter_map(|listen| listen.tls.as_ref()).flat_map(ListenerTls::policies)
    }

    /// TLS towards all upstreams, and to Redis.
    pub fn client_tls(&self) -> impl Iterator<Item = &ClientTls> {
        let redis = self.redis.iter().filter_map(|redis| redis.tls.as_ref());
        self.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref()).chain(redis)
    }
}

/// A service that is called.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The name in the file.
    pub name: String,
    /// Its own loopback listener; `None`: through the forward proxy only.
    pub listen: Option<Listen>,
    /// Where endpoints come from.
    pub source: Source,
    /// Endpoints until Consul has answered for the first time, `host:port`.
    pub bootstrap: Vec<String>,
    /// Where else while nobody there is well, the best first.
    pub failover: Vec<Query>,
    /// Instances of our own zone come first. Default true.
    pub prefers_zone: bool,
    /// What endpoints speak; `None`: what their `Meta.protocol` says, else HTTP/1.1.
    pub protocol: Option<Protocol>,
    /// TLS towards its endpoints.
    pub tls: Option<ClientTls>,
    /// Counts in `/ready`.
    pub is_required: bool,
    /// How it is called.
    pub policy: Policy,
    /// Routes with a policy of their own.
    pub routes: Routes,
    /// Set on every request.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Shown to it where the application shows nothing of its own.
    pub bearer: Option<Arc<Bearer>>,
}

impl Upstream {
    /// What is asked of Consul for it, by tier.
    pub fn queries(&self) -> impl Iterator<Item = &Query> {
        let of_source = match &self.source {
            Source::Consul(query) => Some(query),
            Source::Static(_) => None,
        };
        of_source.into_iter().chain(&self.failover)
    }

    /// How its variables begin for the application: `user-service` is `USER_SERVICE`.
    pub fn variable(&self) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        self.name.chars().map(letter).collect()
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Consul's health endpoint.
    Consul(Query),
    /// Fixed `host:port`s.
    Static(Vec<String>),
}

/// What is asked of Consul. Equal queries share one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The service, or the prepared query that says which.
    pub service: String,
    /// `service` is the name of a prepared query.
    #[serde(default)]
    pub is_prepared: bool,
    /// All of these tags.
    pub tags: Vec<String>,
    /// A filter expression; `version: v2` becomes `Service.Meta.version == "v2"`.
    pub filter: Option<String>,
    /// Another datacenter.
    pub datacenter: Option<String>,
}

impl fmt::Display for Query {
    /// `users in dc2`, `users (tag v1)`, `the query people`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_prepared { "the query " } else { "" };
        write!(f, "{kind}{}", self.service)?;
        let tags = self.tags.iter().map(|tag| format!("tag {tag}"));
        let subset: Vec<String> = tags.chain(self.filter.clone()).collect();
        if !subset.is_empty() {
            write!(f, " ({})", subset.join(", "))?;
        }
        match &self.datacenter {
            Some(datacenter) => write!(f, " in {datacenter}"),
            None => Ok(()),
        }
    }
}

/// Trace headers, sampling, export.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// For the data plane.
    pub settings: TraceSettings,
    /// Where spans go; `None`: nowhere.
    pub otlp: Option<Otlp>,
}

/// The OTLP exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Base or full URL, as the protocol wants it.
    pub endpoint: String,
    /// gRPC, or HTTP with protobuf.
    pub protocol: OtlpProtocol,
    /// Sent with every export.
    pub headers: Vec<(String, Secret)>,
    /// CA certificates for https; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// `service.name`.
    pub service_name: String,
    /// Further resource attributes.
    pub resource: BTreeMap<String, String>,
}

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Port 4317.
    Grpc,
    /// Port 4318, `/v1/traces`.
    HttpProtobuf,
}

/// The Prometheus endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Also the metric names that older services use. Default true.
    pub compat: bool,
    /// Also OpenTelemetry's histograms. Default false.
    pub otel: bool,
    /// Also of each endpoint. Default false.
    pub endpoints: bool,
    /// The application's own metrics, which are put behind ours: a URL on this machine.
    pub merge_app: Option<String>,
    /// Distinct values of one label before further ones become `other`. Default 200.
    pub max_label_values: usize,
}

/// Logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a `tracing` filter.
    pub level: String,
    /// JSON, or text for people. Default: by who reads it.
    pub format: LogFormat,
    /// Which requests.
    pub access: AccessLog,
    /// At which level, by status.
    pub levels: Arc<AccessLevels>,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where standard output is a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people, wherever it goes.
    Text,
}

/// The admin listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// All endpoints. Default 127.0.0.1:9901.
    pub listen: SocketAddr,
    /// The read-only few.
    pub public: Option<SocketAddr>,
    /// What opens `listen` to other machines.
    pub token: Option<Secret>,
}

/// What the application may ask of Consul through us, on the admin listener, from this machine and with the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildingBlocks {
    /// Which services there are, and their instances.
    pub services: bool,
    /// Keys of KV.
    pub config: ConfigAccess,
    /// What these keys begin with.
    pub config_prefix: String,
    /// Locks on sessions.
    pub locks: bool,
    /// What their keys begin with.
    pub lock_prefix: String,
    /// Steps of services that are done or undone.
    pub saga: bool,
    /// What the keys begin with that they are kept in.
    pub saga_prefix: String,
    /// Meta of our own registration.
    pub meta: bool,
    /// What is shown for any of it; there when any is on.
    pub token: Option<Secret>,
}

/// What the application may do with keys of KV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigAccess {
    /// Nothing.
    #[default]
    Off,
    /// Read them.
    Read,
    /// Write them too.
    Write,
}

impl BuildingBlocks {
    /// Whether any of it is on.
    pub fn is_on(&self) -> bool {
        self.services || self.config > ConfigAccess::Off || self.locks || self.saga || self.meta
    }
}

/// Starting and stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// How long the first endpoints may take. Default 30 s.
    pub start_timeout: Duration,
    /// How long to wait, still serving, until callers no longer see us. Default 5 s.
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish. Default 30 s.
    pub drain_timeout: Duration,
    /// From SIGTERM to SIGKILL of the child. Default 10 s.
    pub kill_after: Duration,
    /// Whom these are for.
    pub signal: SignalTo,
}

/// Whose end is lictor's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignalTo {
    /// The application's, and that of all that it has started.
    #[default]
    Group,
    /// Its own alone.
    Child,
}
