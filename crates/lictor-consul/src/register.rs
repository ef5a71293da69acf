//! Our own registration: put there, watched, put there again when the agent forgets it, taken away at the end.
//!
//! States: registering -> registered -> (maintenance) -> deregistered. The watch is the agent's hash-blocking endpoint
//! for one service (Consul: "Hash-based Blocking Queries"), which tells of a loss at once; a slower comparison every
//! minute catches what it misses. Re-registering is idempotent and keeps check states.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_config::{App, Check, Registration};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::client::{Client, Connection, ConsulError, encode};
use crate::probe::probe;
use crate::random::Random;
use crate::status::{RegistrationState, Status};

/// Long enough for an agent without leader, which registers locally after 7 s.
const CALL: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(60);
/// An application that does not answer for this long is registered all the same: its checks tell.
const PROBE_FOR: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where the registration wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Not yet.
    Wait,
    /// There.
    Present,
    /// Nobody touches it any more: somebody is taking it away.
    Leaving,
}

/// Who is registered, and where.
#[derive(Debug)]
pub(crate) struct Registrar {
    pub(crate) service: String,
    pub(crate) registration: Registration,
    pub(crate) app: App,
    pub(crate) client: Arc<Client>,
    pub(crate) status: Arc<Status>,
}

impl Registrar {
    /// Keeps the registration for as long as it is wished for.
    pub(crate) async fn run(self: Arc<Self>, mut wish: watch::Receiver<Wish>) {
        if wish.wait_for(|wish| *wish != Wish::Wait).await.is_err() {
            return;
        }
        let beats = tokio::spawn(Arc::clone(&self).beat());
        tokio::select! {
            biased;
            _ = wish.wait_for(|wish| *wish == Wish::Leaving) => (),
            () = self.keep() => (),
        }
        beats.abort();
    }

    async fn keep(&self) {
        let mut connection = self.connection();
        let mut random = Random::new();
        let mut cause = None;
        loop {
            let body = self.body(&connection, self.is_app_up().await);
            let mut pause = FIRST_PAUSE;
            while let Err(error) = self.register(&mut connection, &body).await {
                self.status.registration_failed(&error);
                if error.is_denied() {
                    self.client.reload_token();
                    pause = Duration::from_secs(10);
                }
                debug!(%error, "not registered yet");
                tokio::time::sleep(pause.mul_f64(0.75 + random.share() / 2.0)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.status.registration(RegistrationState::Registered);
            match cause {
                None => {
                    info!(target: "lictor::event", kind = "registered", id = %self.registration.id, "registered in Consul");
                }
                Some(cause) => {
                    self.status.reregistered(cause);
                    warn!(target: "lictor::event", kind = "reregistered", cause, id = %self.registration.id, "registered in Consul again");
                }
            }
            cause = Some(self.watch(&mut connection, &mut random).await);
            self.status.registration(RegistrationState::Registering);
        }
    }

    async fn register(&self, connection: &mut Connection, body: &Json) -> Result<(), ConsulError> {
        let body = Bytes::from(body.to_string());
        connection.put("/v1/agent/service/register", &[], body, CALL).await.map(drop)
    }

    /// Returns why the registration has to be made again.
    async fn watch(&self, connection: &mut Connection, random: &mut Random) -> &'static str {
        let path = format!("/v1/agent/service/{}", encode(&self.registration.id));
        let mut hash = String::new();
        let mut pause = FIRST_PAUSE;
        let mut is_back = false;
        loop {
            // After a loss of the connection the first look does not block: the agent may have forgotten us.
            let wait = format!("{}s", WATCH.as_secs());
            let blocking = [("hash", hash.as_str()), ("wait", wait.as_str())];
            let blocks = !hash.is_empty() && !is_back;
            let query = if blocks { &blocking[..] } else { &[] };
            let asked = Instant::now();
            let answer = connection.get(&path, query, WATCH + WATCH / 16 + Duration::from_secs(8)).await;
            match answer {
                Ok(answer) => {
                    if self.has_drifted(&answer.body) {
                        return "drift";
                    }
                    (pause, is_back) = (FIRST_PAUSE, false);
                    self.status.registration(RegistrationState::Registered);
                    let next = answer.headers.get("x-consul-contenthash").and_then(|hash| hash.to_str().ok());
                    hash = next.unwrap_or_default().to_owned();
                    // An agent that does not block here is asked now and then instead.
                    if hash.is_empty() {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    } else if blocks && asked.elapsed() < Duration::from_millis(50) {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
                Err(ConsulError::Status { code: 404, .. }) => return "forgotten",
                Err(error) => {
                    if error.is_denied() {
                        self.client.reload_token();
                        pause = Duration::from_secs(10);
                    }
                    self.status.registration_failed(&error);
                    is_back = true;
                    tokio::time::sleep(pause.mul_f64(0.75 + random.share() / 2.0)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Whether what the agent holds is not what we said. Addresses that Consul adds by itself do not count.
    fn has_drifted(&self, body: &[u8]) -> bool {
        let Ok(held) = serde_json::from_slice::<Held>(body) else { return false };
        let ours = &self.registration;
        let weights = held.weights.unwrap_or(HeldWeights { passing: 1, warning: 1 });
        held.service != self.service
            || held.port != ours.port
            || held.tags.unwrap_or_default() != ours.tags
            || held.meta.unwrap_or_default() != ours.meta
            || (weights.passing, weights.warning) != (ours.weight_passing, ours.weight_warning)
            || ours.address.as_ref().is_some_and(|address| *address != held.address)
    }

    /// The registration, with the fields that Consul 1.8 knows: an unknown field is refused.
    fn body(&self, connection: &Connection, is_up: bool) -> Json {
        let ours = &self.registration;
        let mut body = json!({
            "ID": ours.id,
            "Name": self.service,
            "Port": ours.port,
            "Tags": ours.tags,
            "Meta": ours.meta,
            "Weights": { "Passing": ours.weight_passing, "Warning": ours.weight_warning },
            "EnableTagOverride": false,
        });
        let outside = connection.local().filter(|ip| !self.client.is_local() && !ip.is_loopback());
        let address = ours.address.clone().or_else(|| outside.map(|ip| ip.to_string()));
        if let Some(address) = &address {
            body["Address"] = json!(address);
        }
        let host = if self.client.is_local() {
            "127.0.0.1".to_owned()
        } else {
            address.unwrap_or_else(|| "127.0.0.1".to_owned())
        };
        let target = match self.app.address {
            Some(app) if self.client.is_local() => SocketAddr::new(reachable(app.ip()), app.port()).to_string(),
            _ => format!("{host}:{}", ours.port),
        };
        let checks = ours.checks.iter().enumerate().map(|(index, check)| self.check(index, check, &target, is_up));
        body["Checks"] = Json::Array(checks.collect());
        body
    }

    fn check(&self, index: usize, check: &Check, target: &str, is_up: bool) -> Json {
        let after = format!("{}s", self.registration.deregister_after.as_secs());
        // Honest from the first moment: an application that has just answered is not critical until the first run.
        let status = if is_up { "passing" } else { "critical" };
        let (mut body, kind) = match check {
            Check::Http { target: path, interval, timeout } => {
                let url = if path.starts_with('/') { format!("http://{target}{path}") } else { path.clone() };
                (json!({ "HTTP": url, "Method": "GET", "Interval": go(*interval), "Timeout": go(*timeout) }), "http")
            }
            Check::Tcp { interval, timeout } => {
                (json!({ "TCP": target, "Interval": go(*interval), "Timeout": go(*timeout) }), "tcp")
            }
            Check::Grpc { service, interval, timeout } => {
                let target = if service.is_empty() { target.to_owned() } else { format!("{target}/{service}") };
                (json!({ "GRPC": target, "Interval": go(*interval), "Timeout": go(*timeout) }), "grpc")
            }
            Check::Ttl { ttl, .. } => (json!({ "TTL": go(*ttl) }), "ttl"),
        };
        body["CheckID"] = json!(self.check_id(index));
        body["Name"] = json!(format!("{} {kind}", self.service));
        body["Status"] = json!(status);
        body["DeregisterCriticalServiceAfter"] = json!(after);
        body
    }

    fn check_id(&self, index: usize) -> String {
        format!("{}:{}", self.registration.id, index + 1)
    }

    /// Waits until the application answers, for a while.
    async fn is_app_up(&self) -> bool {
        let Some(app) = self.app.address else { return true };
        let path = self.registration.checks.iter().find_map(|check| match check {
            Check::Http { target, .. } if target.starts_with('/') => Some(target.as_str()),
            Check::Ttl { probe, .. } => probe.as_deref(),
            _ => None,
        });
        let until = Instant::now() + PROBE_FOR;
        loop {
            if probe(app, path, Duration::from_secs(1)).await.is_ok() {
                return true;
            }
            if Instant::now() >= until {
                warn!(address = %app, "the application does not answer yet; it is registered as critical");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Beats TTL checks from a local probe of the application, every third of the shortest.
    async fn beat(self: Arc<Self>) {
        let beats: Vec<(String, Duration, Option<String>)> = self
            .registration
            .checks
            .iter()
            .enumerate()
            .filter_map(|(index, check)| match check {
                Check::Ttl { ttl, probe } => Some((self.check_id(index), *ttl, probe.clone())),
                _ => None,
            })
            .collect();
        let (Some(app), Some(shortest)) = (self.app.address, beats.iter().map(|(_, ttl, _)| *ttl).min()) else {
            return;
        };
        let mut connection = self.connection();
        let mut tick = tokio::time::interval(shortest / 3);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for (id, _, path) in &beats {
                let (status, output) = match probe(app, path.as_deref(), shortest / 3).await {
                    Ok(output) => ("passing", output),
                    Err(output) => ("critical", output),
                };
                let body = Bytes::from(json!({ "Status": status, "Output": output }).to_string());
                let path = format!("/v1/agent/check/update/{}", encode(id));
                if let Err(error) = connection.put(&path, &[], body, CALL).await {
                    debug!(%error, check = %id, "the beat was not taken"); // the watch repairs the registration
                }
            }
        }
    }

    /// Takes the instance out of, or back into, circulation.
    pub(crate) async fn maintain(&self, is_on: bool, reason: &str) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/maintenance/{}", encode(&self.registration.id));
        let query = [("enable", if is_on { "true" } else { "false" }), ("reason", reason)];
        self.connection().put(&path, &query, Bytes::new(), Duration::from_secs(2)).await?;
        let state = if is_on { RegistrationState::Maintenance } else { RegistrationState::Registered };
        self.status.registration(state);
        Ok(())
    }

    /// Waits until nobody is told about us any more.
    pub(crate) async fn gone(&self) -> Result<(), ConsulError> {
        let mut connection = self.connection();
        let path = format!("/v1/health/service/{}", encode(&self.service));
        let mut index = None::<u64>;
        loop {
            let shown = index.unwrap_or_default().to_string();
            let blocking = [("passing", ""), ("index", shown.as_str()), ("wait", "5s")];
            let query = if index.is_some() { &blocking[..] } else { &blocking[..1] };
            let answer = connection.get(&path, query, Duration::from_secs(10)).await?;
            let instances =
                crate::health::parse(&answer.body).map_err(|error| ConsulError::Decode(error.to_string()))?;
            if !instances.iter().any(|instance| instance.id == self.registration.id) {
                return Ok(());
            }
            index = answer.index();
        }
    }

    pub(crate) async fn deregister(&self) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/deregister/{}", encode(&self.registration.id));
        match self.connection().put(&path, &[], Bytes::new(), Duration::from_secs(5)).await {
            Ok(_) => Ok(()),
            // With ACLs an unknown id is an error: then it is gone already.
            Err(ConsulError::Status { text, .. }) if text.contains("Unknown service") => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn connection(&self) -> Connection {
        Connection::new(&self.client, self.status.connections())
    }
}

fn reachable(ip: std::net::IpAddr) -> std::net::IpAddr {
    if ip.is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { ip }
}

/// A duration as Go writes it.
fn go(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Held {
    service: String,
    #[serde(default)]
    address: String,
    port: u16,
    tags: Option<Vec<String>>,
    meta: Option<std::collections::BTreeMap<String, String>>,
    weights: Option<HeldWeights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HeldWeights {
    passing: u32,
    warning: u32,
}
