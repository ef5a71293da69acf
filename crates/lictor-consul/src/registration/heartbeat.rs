//! The application's pulse: the checks that we run are told to the agent, and its own verdict is read back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lictor_core::{Address, Mesh};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

use super::checks::{Report, Reported};
use super::definition::Definition;
use super::probe::{Verdict, probe};
use super::shedding::{self, Shedding};
use crate::agent::{Client, Connection, ConsulError, encode};
use crate::status::{RegistrationState, Status};

const CALL: Duration = Duration::from_secs(10);
/// An application that is not well is probed more often than it is beaten, so that it is back soon.
const EAGER: Duration = Duration::from_millis(250);
const UNTOLD: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The pulse of one application.
#[derive(Debug)]
pub(super) struct Heartbeat {
    definition: Arc<Definition>,
    status: Arc<Status>,
    /// It has what `inbound` refuses.
    mesh: watch::Receiver<Arc<Mesh>>,
    /// One for all: an agent has 200 for a machine.
    connection: Arc<Mutex<Connection>>,
}

/// One check that we run.
#[derive(Debug)]
struct Beat {
    path: String,
    report: Report,
    app: Address,
    connection: Arc<Mutex<Connection>>,
    mesh: watch::Receiver<Arc<Mesh>>,
    shedding: Shedding,
    /// When to look whether load is shed.
    looks: Interval,
    /// What the agent was last told, and when.
    told: Option<(Verdict, Instant)>,
}

impl Heartbeat {
    pub(super) fn new(
        definition: &Arc<Definition>,
        client: &Arc<Client>,
        status: &Arc<Status>,
        mesh: watch::Receiver<Arc<Mesh>>,
    ) -> Self {
        Self {
            definition: Arc::clone(definition),
            status: Arc::clone(status),
            mesh,
            connection: Arc::new(Mutex::new(Connection::home(client, status.connections()))),
        }
    }

    /// Beats until aborted, anew whenever the registration was made again.
    pub(super) async fn run(self, mut registered: watch::Receiver<Vec<Reported>>) {
        let mut is_registered = registered.changed().await.is_ok();
        while is_registered {
            let reported = registered.borrow_and_update().clone();
            // Each runs for itself: one whose answer is waited for keeps no other from being told in time.
            let _beats: JoinSet<()> = reported.into_iter().filter_map(|check| Some(self.beat(check)?.run())).collect();
            is_registered = tokio::select! {
                never = self.keep_looking() => match never {},
                again = registered.changed() => again.is_ok(),
            };
        }
    }

    fn beat(&self, check: Reported) -> Option<Beat> {
        let mut looks = interval(shedding::LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Beat {
            path: format!("/v1/agent/check/update/{}", encode(&check.id)),
            report: check.report,
            app: self.definition.app.address.clone()?,
            connection: Arc::clone(&self.connection),
            mesh: self.mesh.clone(),
            shedding: Shedding::new(refused(&self.mesh)),
            looks,
            told: None,
        })
    }

    async fn keep_looking(&self) -> Infallible {
        loop {
            self.look().await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reads the verdict of all checks together.
    async fn look(&self) {
        let path = format!("/v1/agent/health/service/id/{}", encode(&self.definition.registration.id));
        let mut connection = self.connection.lock().await;
        let answer = connection.ask(Method::GET, &path, &[("format", "json")], Bytes::new(), CALL).await;
        let Ok(answer) = answer else { return };
        let Ok(health) = serde_json::from_slice::<Health>(&answer.body) else { return };
        match health.aggregated_status.as_str() {
            "maintenance" => self.status.checked(RegistrationState::Maintenance),
            "critical" => self.status.checked(RegistrationState::Critical),
            "passing" | "warning" => self.status.checked(RegistrationState::Registered),
            _ => (),
        }
    }
}

impl Beat {
    async fn run(mut self) {
        loop {
            let pause = match self.beat().await {
                Ok(pause) => pause,
                Err(error) => {
                    debug!(%error, check = %self.path, "the beat was not taken"); // the registration's watch repairs it
                    UNTOLD
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = self.sheds_or_not() => (),
            }
        }
    }

    /// Returns when load begins to be shed, and when it ends. What was counted stays when this is dropped.
    async fn sheds_or_not(&mut self) {
        loop {
            self.looks.tick().await;
            if self.shedding.look(refused(&self.mesh)) {
                return;
            }
        }
    }

    /// Asks, and tells what is due or news; returns when to do so again.
    async fn beat(&mut self) -> Result<Duration, ConsulError> {
        let Report { question, every, at_most, .. } = &self.report;
        let mut said = probe(&self.app, question, *at_most).await;
        if self.shedding.is_on() && said.verdict == Verdict::Passing {
            said.verdict = Verdict::Warning;
            said.words = format!("inbound refuses requests (inbound.max_in_flight). {}", said.words);
        }
        let verdict = said.verdict;
        let is_due = self.told.is_none_or(|(was, at)| was != verdict || at.elapsed() + EAGER / 2 >= *every);
        if is_due {
            self.told = None;
            let body = json!({ "Status": verdict.as_str(), "Output": said.shown() }).to_string();
            self.connection.lock().await.put(&self.path, &[], Bytes::from(body), CALL).await?;
            self.told = Some((verdict, Instant::now()));
        }
        Ok(match verdict {
            Verdict::Passing | Verdict::Warning => *every,
            Verdict::Critical => EAGER.min(*every),
        })
    }
}

/// Requests that found no place in our application, so far.
fn refused(mesh: &watch::Receiver<Arc<Mesh>>) -> u64 {
    mesh.borrow().inbound.as_ref().map_or(0, |inbound| inbound.app.in_flight.refused())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    aggregated_status: String,
}
