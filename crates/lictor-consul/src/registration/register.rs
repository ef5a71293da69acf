//! Our own registration: put there, watched, put there again when the agent forgets it, taken away at the end.
//!
//! States: registering -> registered (or critical, as its checks say) -> maintenance -> deregistered. The watch is the
//! agent's hash-blocking endpoint for one service (Consul: "Hash-based Blocking Queries"), which tells of a loss at
//! once; a slower comparison every minute catches what it misses. Registering again is idempotent and keeps the states
//! of checks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_config::{Config, Registration};
use lictor_core::{Mesh, Secret};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::app::{AppHealth, Away};
use super::checks::{Reported, reported};
use super::contest::{Contest, Strangers};
use super::definition::{Comparison, Definition, Drift, HeldCheck, MetaPatch, OWN_MAINTENANCE, Place};
use super::heartbeat::Heartbeat;
use crate::agent::{Answer, Backoff, Client, Connection, ConsulError, Instance, Random, Throttle, encode, health};
use crate::status::{RegistrationState, Status};

/// Long enough for an agent without leader, which registers locally after 7 s.
const CALL: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(60);
/// An application that does not answer for this long is registered all the same: its checks tell.
const APP_WITHIN: Duration = Duration::from_secs(5);
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Once nobody is told about us, callers get this long to finish what they were about to send.
const LAST_CALLS: Duration = Duration::from_millis(300);
/// A registration that is on its way as we leave is waited for this long, then dropped.
const REGISTERING: Duration = Duration::from_millis(500);
const DEREGISTER: Duration = Duration::from_secs(5);
/// The same at an agent that had our registration before, which is probably away.
const FORMER: Duration = Duration::from_secs(2);

/// How much longer than asked for leaving may take.
const LEAVE_SLACK: Duration = Duration::from_secs(2);

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
    definition: Arc<Definition>,
    client: Arc<Client>,
    status: Arc<Status>,
    /// The application, where it is asked.
    app: Option<watch::Receiver<AppHealth>>,
    maintenance: Mutex<Maintenance>,
    contest: Mutex<Contest>,
    /// What we beat since the registration was made, or made again.
    registered: watch::Sender<Vec<Reported>>,
    /// The definition is another one.
    changed: Notify,
    /// Of how many changes of Meta the agent has taken.
    patches_told: watch::Sender<u64>,
    /// Held while a registration is on its way, and by who leaves: an agent handles what comes on two connections in any
    /// order, and what was begun before we leave must not come after the end. Who waits first has it first.
    registering: tokio::sync::Mutex<()>,
}

/// Whether we want to be out of circulation.
#[derive(Debug, Default)]
struct Maintenance {
    /// Why, while somebody orders it, or we leave.
    ordered: Option<String>,
    /// Why, while the application is away.
    away: Option<String>,
    /// The agent has not taken it yet.
    is_untold: bool,
}

impl Maintenance {
    /// Why we want to, if we do.
    fn reason(&self) -> Option<&str> {
        self.ordered.as_deref().or(self.away.as_deref())
    }
}

impl Registrar {
    pub(crate) fn new(
        definition: Definition,
        client: Arc<Client>,
        status: Arc<Status>,
        app: Option<watch::Receiver<AppHealth>>,
    ) -> Self {
        let (maintenance, registered) = (Mutex::default(), watch::Sender::default());
        let (changed, registering, contest) = Default::default();
        let (definition, patches_told) = (Arc::new(definition), watch::Sender::default());
        Self { definition, client, status, app, maintenance, contest, registered, changed, patches_told, registering }
    }

    /// Changes our Meta; what it is then, and how many changes that are.
    pub(crate) fn patch(&self, patch: &MetaPatch) -> Result<(BTreeMap<String, String>, u64), String> {
        let patched = self.definition.patch(patch)?;
        self.changed.notify_one();
        Ok(patched)
    }

    /// Until the agent has taken so many changes of Meta.
    pub(crate) async fn has_told(&self, patches: u64) {
        let _ = self.patches_told.subscribe().wait_for(|told| *told >= patches).await;
    }

    /// What we call is in our Meta, and checks depend on `inbound`: another of either is another registration.
    pub(crate) fn follow(&self, config: &Config) {
        if self.definition.follow(config) {
            self.changed.notify_one();
        }
    }

    /// Keeps the registration for as long as it is wished for.
    pub(crate) async fn run(self: Arc<Self>, mut wish: watch::Receiver<Wish>, mesh: watch::Receiver<Arc<Mesh>>) {
        if wish.wait_for(|wish| *wish != Wish::Wait).await.is_err() {
            return;
        }
        let heartbeat = Heartbeat::new(&self.definition, &self.client, &self.status, mesh);
        let beats = heartbeat.run(self.registered.subscribe());
        tokio::select! {
            biased;
            () = async {
                let _ = wish.wait_for(|wish| *wish == Wish::Leaving).await; // nobody wishes any more otherwise
                let _ = tokio::time::timeout(REGISTERING, self.registering.lock()).await;
            } => (),
            () = self.keep() => (),
            () = beats => (),
        }
    }

    async fn keep(&self) {
        let mut connection = self.connection();
        let mut random = Random::new();
        let mut cause: Option<&'static str> = None;
        let mut strangers = Strangers::default();
        // Somebody who undoes it again and again is not fought at full speed: it is three queries each time. An agent that
        // restarts a few times is no such somebody.
        let mut throttle = Throttle::new(10.0, 0.3, Instant::now());
        self.client.first_token().await;
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let mut token = self.client.token();
            let mut is_up = self.is_app_up(cause.is_none()).await;
            let mut backoff = Backoff::new(self.client.is_local());
            while let Err(error) = self.register(&mut connection, is_up).await {
                if strangers.moves(&error) {
                    self.client.leave_home();
                    cause = Some("moved");
                }
                self.status.registration_failed(&error);
                debug!(%error, "not registered yet");
                self.pause(&error, token.as_ref(), &mut backoff, &mut random).await;
                token = self.client.token();
                is_up = self.is_app_up(false).await;
            }
            strangers = Strangers::default();
            self.announce(cause);
            self.clean_former().await;
            self.registered.send_replace(reported(self.definition.checks(self.place(&connection))));
            cause = Some(self.watch(&mut connection, token.as_ref(), &mut random).await);
            self.status.registration(RegistrationState::Registering);
        }
    }

    fn announce(&self, cause: Option<&'static str>) {
        let id = &self.definition.registration.id;
        let is_out = self.maintenance.lock().reason().is_some();
        self.status.registration(if is_out { RegistrationState::Maintenance } else { RegistrationState::Registered });
        self.status.registration_well();
        match cause {
            None => info!(target: "lictor::event", kind = "registered", %id, "registered in Consul"),
            Some(cause) => {
                self.status.reregistered(cause);
                warn!(target: "lictor::event", kind = "reregistered", cause, %id, "registered in Consul again");
            }
        }
    }

    /// Registers, so that checks and maintenance are what we want too.
    async fn register(&self, connection: &mut Connection, is_up: bool) -> Result<(), ConsulError> {
        let _registering = self.registering.lock().await;
        let held = self.held_checks(connection).await?.unwrap_or_default();
        let ours = self.maintenance.lock().reason().map(str::to_owned);
        // Honest from the first moment: an application that has just answered is not critical until the first run.
        let status = if is_up && ours.is_none() { "passing" } else { "critical" };
        let patches = self.definition.patches();
        let body = Bytes::from(self.definition.body(self.place(connection), status).to_string());
        // Checks that an earlier version of us left would fail for ever. Replacing drops maintenance too.
        let replace: &[(&str, &str)] = if held.has_foreign { &[("replace-existing-checks", "true")] } else { &[] };
        // Before it says yes: one that goes meanwhile may have it all the same.
        connection.settle();
        connection.put("/v1/agent/service/register", replace, body, CALL).await?;
        self.patches_told.send_replace(patches);
        // What a person began stays; what lictor began and does not want any more (a predecessor that was killed
        // while it drained) ends.
        let wanted = ours.clone().or_else(|| held.maintenance.clone().filter(|_| !held.is_own_maintenance()));
        if wanted.is_some() || held.maintenance.is_some() {
            self.set_maintenance(connection, wanted.as_deref()).await?;
        }
        self.told(ours.as_deref());
        Ok(())
    }

    /// The agent's checks for our id; `None` where it does not say.
    async fn held_checks(&self, connection: &mut Connection) -> Result<Option<Comparison>, ConsulError> {
        let id = self.definition.registration.id.replace('\\', "\\\\").replace('"', "\\\"");
        let filter = format!("ServiceID == \"{id}\"");
        match connection.get("/v1/agent/checks", &[("filter", &filter)], CALL).await {
            Ok(answer) => {
                let held = serde_json::from_slice::<Option<HashMap<String, HeldCheck>>>(&answer.body);
                let held = held.map_err(|error| ConsulError::Decode(error.to_string()))?.unwrap_or_default();
                let held: Vec<HeldCheck> = held.into_values().collect();
                Ok(Some(self.definition.compare(&held, self.place(connection))))
            }
            Err(error) if error.is_outage() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns why the registration has to be made again.
    async fn watch(&self, connection: &mut Connection, token: Option<&Secret>, random: &mut Random) -> &'static str {
        let path = format!("/v1/agent/service/{}", encode(&self.definition.registration.id));
        let wait = format!("{}s", WATCH.as_secs());
        let mut hash = String::new();
        let mut backoff = Backoff::new(self.client.is_local());
        let mut is_back = false;
        let mut looked = Instant::now();
        let mut strangers = Strangers::default();
        let mut fresh = self.client.fresh();
        if self.client.token().as_ref() != token {
            return "token"; // while we registered
        }
        loop {
            // After a loss of the connection the first look does not block: the agent may have forgotten us.
            let blocking = [("hash", hash.as_str()), ("wait", wait.as_str())];
            let blocks = !hash.is_empty() && !is_back;
            let query = if blocks { &blocking[..] } else { &[] };
            let asked = Instant::now();
            let at_most = if blocks { WATCH + WATCH / 16 + CALL } else { CALL };
            let looking = connection.get(&path, query, at_most);
            let answer = tokio::select! {
                answer = looking => answer,
                () = self.changed.notified() => {
                    let is_patched = self.definition.patches() > *self.patches_told.borrow();
                    return if is_patched { "meta" } else { "reload" };
                }
                changed = fresh.changed() => {
                    changed.expect("the client is ours");
                    // The agent syncs a service with the token that it was registered with.
                    if self.client.token().as_ref() != token {
                        return "token";
                    }
                    *connection = self.connection();
                    is_back = true;
                    continue;
                }
            };
            let held = match answer {
                Ok(answer) => self.has_drifted(&answer, connection).map(|has_drifted| (answer, has_drifted)),
                Err(error) => Err(error),
            };
            let answer = match held {
                Ok((answer, false)) => answer,
                Ok((_, true)) => return "drift",
                Err(ConsulError::Status { code: 404, .. }) if connection.is_still_home().await => return "forgotten",
                Err(error) => {
                    if strangers.moves(&error) {
                        self.client.leave_home();
                        return "moved";
                    }
                    self.status.registration_failed(&error);
                    is_back = true;
                    self.pause(&error, token, &mut backoff, random).await;
                    continue;
                }
            };
            backoff.succeeded();
            (is_back, strangers) = (false, Strangers::default());
            self.status.registration_well();
            self.tell_maintenance(connection).await;
            if looked.elapsed() >= WATCH {
                looked = Instant::now();
                self.clean_former().await;
                if matches!(self.held_checks(connection).await, Ok(Some(held)) if held.lacks_ours) {
                    return "drift";
                }
            }
            let next = answer.headers.get("x-consul-contenthash").and_then(|hash| hash.to_str().ok());
            hash = next.unwrap_or_default().to_owned();
            // An agent that does not block here is asked now and then instead.
            if hash.is_empty() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            } else if blocks && asked.elapsed() < Duration::from_millis(50) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    fn has_drifted(&self, answer: &Answer, connection: &Connection) -> Result<bool, ConsulError> {
        let drift = self.definition.drift(&answer.body, self.place(connection));
        let drift = drift.map_err(|error| ConsulError::Decode(error.to_string()))?;
        if let Drift::Elsewhere(other) = &drift
            && self.contest.lock().is_one(Instant::now())
        {
            let id = &self.definition.registration.id;
            warn!(
                target: "lictor::event",
                kind = "id_contested",
                %id,
                %other,
                "somebody else registers our instance id for another address again and again: give each instance a `registration.id` of its own (LIC-C111)"
            );
        }
        Ok(drift != Drift::None)
    }

    async fn pause(&self, error: &ConsulError, token: Option<&Secret>, backoff: &mut Backoff, random: &mut Random) {
        // What is wrong in itself will not be liked better soon.
        let is_wrong = matches!(error, ConsulError::Status { code: 400, .. });
        let refused = REFUSED_PAUSE.mul_f64(0.75 + random.share() / 2.0);
        let pause = if is_wrong || error.is_denied() { refused } else { backoff.failed(error, random.share()) };
        self.client.pause_after(error, token, pause).await;
    }

    /// Whether the application answers; at the start it is waited for, for a while.
    async fn is_app_up(&self, waits: bool) -> bool {
        // One that nobody asks is Consul's to judge.
        let Some(mut app) = self.app.clone() else { return self.definition.app.address.is_none() };
        if !waits {
            return app.borrow().is_up;
        }
        let is_up = tokio::time::timeout(APP_WITHIN, app.wait_for(|app| app.is_up)).await.is_ok_and(|up| up.is_ok());
        if !is_up {
            let why = app.borrow().message.clone();
            warn!(why, "the application does not answer yet; it is registered as critical");
        }
        is_up
    }

    /// Takes the instance out of, or back into, circulation, and remembers it for when the agent forgets or is away.
    pub(crate) async fn maintain(&self, reason: Option<&str>) -> Result<(), ConsulError> {
        self.maintained(|maintenance| maintenance.ordered = own(reason)).await
    }

    /// Keeps the instance out of circulation while the application is away, and until it answers again.
    pub(crate) async fn follow_app(self: Arc<Self>, mut away: watch::Receiver<Away>) {
        let mut is_out = false;
        loop {
            let why = away.borrow_and_update().clone();
            if why.is_some() {
                is_out = true;
                self.maintain_away(why.as_deref()).await;
            }
            let is_back = async {
                match self.app.clone() {
                    _ if why.is_some() || !is_out => std::future::pending().await,
                    Some(mut app) => drop(app.wait_for(|app| app.is_up).await), // an error: we end
                    None => (),
                }
            };
            tokio::select! {
                biased;
                again = away.changed() => if again.is_err() { return },
                () = is_back => {
                    is_out = false;
                    self.maintain_away(None).await;
                }
            }
        }
    }

    async fn maintain_away(&self, why: Option<&str>) {
        if let Err(error) = self.maintained(|maintenance| maintenance.away = own(why)).await {
            debug!(%error, "the agent was not told yet that the application is away"); // the watch tells it
        }
    }

    async fn maintained(&self, change: impl FnOnce(&mut Maintenance)) -> Result<(), ConsulError> {
        let reason = {
            let mut maintenance = self.maintenance.lock();
            change(&mut maintenance);
            maintenance.is_untold = true;
            maintenance.reason().map(str::to_owned)
        };
        self.set_maintenance(&mut self.connection(), reason.as_deref()).await?;
        self.told(reason.as_deref());
        Ok(())
    }

    /// The agent has taken this; meanwhile we may want something else.
    fn told(&self, reason: Option<&str>) {
        let mut maintenance = self.maintenance.lock();
        maintenance.is_untold &= maintenance.reason() != reason;
    }

    /// Says what could not be said before.
    async fn tell_maintenance(&self, connection: &mut Connection) {
        let untold = {
            let maintenance = self.maintenance.lock();
            maintenance.is_untold.then(|| maintenance.reason().map(str::to_owned))
        };
        let Some(reason) = untold else { return };
        match self.set_maintenance(connection, reason.as_deref()).await {
            Ok(()) => self.told(reason.as_deref()),
            Err(error) => debug!(%error, "the agent was not told of the maintenance"),
        }
    }

    async fn set_maintenance(&self, connection: &mut Connection, reason: Option<&str>) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/maintenance/{}", encode(&self.definition.registration.id));
        let query =
            [("enable", if reason.is_some() { "true" } else { "false" }), ("reason", reason.unwrap_or_default())];
        connection.put(&path, &query, Bytes::new(), Duration::from_secs(2)).await?;
        let is_out = reason.is_some();
        self.status.checked(if is_out { RegistrationState::Maintenance } else { RegistrationState::Registered });
        Ok(())
    }

    /// Leaves: out of circulation, then, once nobody is told about us or `at_most` has passed, out of Consul.
    pub(crate) async fn leave(&self, at_most: Duration) {
        let started = Instant::now();
        let _registering = tokio::time::timeout(REGISTERING, self.registering.lock()).await;
        if !at_most.is_zero() {
            match tokio::time::timeout(at_most.saturating_sub(started.elapsed()), self.drain()).await {
                Ok(Ok(())) => tokio::time::sleep(LAST_CALLS.min(at_most.saturating_sub(started.elapsed()))).await,
                Ok(Err(error)) => {
                    warn!(%error, "Consul could not be told that this instance is leaving; its answers tell callers");
                    tokio::time::sleep(at_most.saturating_sub(started.elapsed())).await;
                }
                Err(_) => warn!(?at_most, "this instance is still listed after the drain delay"),
            }
        }
        let Registration { id, deregister_after: after, .. } = &self.definition.registration;
        let left = (at_most + LEAVE_SLACK).saturating_sub(started.elapsed()).min(DEREGISTER);
        let deregistered = self.deregister(&mut self.connection(), left).await;
        let _ = tokio::time::timeout(FORMER, self.clean_former()).await;
        match deregistered {
            Ok(()) => {
                self.status.registration(RegistrationState::Deregistered);
                info!(target: "lictor::event", kind = "deregistered", %id, "deregistered from Consul");
            }
            Err(error) => {
                warn!(%error, ?after, "not deregistered; Consul removes the instance when its checks have failed for long enough");
            }
        }
    }

    /// Begins maintenance and waits until nobody is told about us any more.
    async fn drain(&self) -> Result<(), ConsulError> {
        match self.maintain(Some("draining")).await {
            Ok(()) => (),
            Err(ConsulError::Status { code: 404, .. }) => return Ok(()), // it was not there
            Err(error) => return Err(error),
        }
        let mut connection = self.connection();
        let path = format!("/v1/health/service/{}", encode(&self.definition.service));
        let mut index = None::<u64>;
        loop {
            let shown = index.unwrap_or_default().to_string();
            let blocking = [("passing", ""), ("stale", ""), ("index", shown.as_str()), ("wait", "1s")];
            let query = if index.is_some() { &blocking[..] } else { &blocking[..2] };
            match connection.get(&path, query, Duration::from_secs(9)).await {
                Ok(answer) => {
                    let instances = health::parse(&answer.body);
                    let ours = &self.definition.registration;
                    let is_ours = |instance: &Instance| instance.id == ours.id && instance.port == ours.port;
                    if instances.is_ok_and(|instances| !instances.iter().any(is_ours)) {
                        return Ok(());
                    }
                    index = answer.index();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error @ ConsulError::Unreachable(_)) => return Err(error),
                Err(_) => {
                    index = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Deregisters where we were registered before the address led elsewhere: the agent may be back.
    async fn clean_former(&self) {
        for agent in self.client.former_homes() {
            let mut connection = Connection::former(&agent, &self.client, self.status.connections());
            if self.deregister(&mut connection, FORMER).await.is_ok() {
                self.client.is_rid_of(&agent);
                info!(target: "lictor::event", kind = "deregistered_elsewhere", agent = %agent.name(), "deregistered from the agent that had our registration before");
            }
        }
    }

    async fn deregister(&self, connection: &mut Connection, at_most: Duration) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/deregister/{}", encode(&self.definition.registration.id));
        match connection.put(&path, &[], Bytes::new(), at_most).await {
            // An unknown id is an error with ACLs, and in newer versions: then it is gone already.
            Err(ConsulError::Status { code: 404, .. }) => Ok(()),
            Err(ConsulError::Status { text, .. }) if text.contains("Unknown service") => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn connection(&self) -> Connection {
        Connection::home(&self.client, self.status.connections())
    }

    fn place(&self, connection: &Connection) -> Place {
        Place { is_agent_local: self.client.is_local(), seen_as: connection.local() }
    }
}

fn own(reason: Option<&str>) -> Option<String> {
    reason.map(|reason| format!("{OWN_MAINTENANCE}{reason}"))
}
