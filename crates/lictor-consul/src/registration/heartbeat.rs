//! The application's pulse: TTL checks are beaten from a local probe, and the agent's own verdict is read back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lictor_config::Check;
use lictor_core::Address;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tracing::debug;

use super::definition::Definition;
use super::probe::probe;
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
    client: Arc<Client>,
    status: Arc<Status>,
    beats: Vec<Beat>,
    connection: Connection,
}

/// One TTL check.
#[derive(Debug)]
struct Beat {
    path: String,
    ttl: Duration,
    probe: Option<String>,
    /// What the agent was last told, and when.
    told: Option<(bool, Instant)>,
}

impl Heartbeat {
    pub(super) fn new(definition: &Arc<Definition>, client: &Arc<Client>, status: &Arc<Status>) -> Self {
        let checks = definition.registration.checks.iter().enumerate();
        let beats = checks.filter_map(|(index, check)| match check {
            Check::Ttl { ttl, probe } => Some(Beat {
                path: format!("/v1/agent/check/update/{}", encode(&definition.check_id(index))),
                ttl: *ttl,
                probe: probe.clone(),
                told: None,
            }),
            Check::Http { .. } | Check::Tcp { .. } | Check::Grpc { .. } => None,
        });
        Self {
            beats: beats.collect(),
            definition: Arc::clone(definition),
            client: Arc::clone(client),
            status: Arc::clone(status),
            connection: Connection::new(client, status.connections()),
        }
    }

    /// Beats until aborted, anew whenever the registration was made again.
    pub(super) async fn run(mut self, registered: Arc<Notify>) {
        registered.notified().await;
        let (mut beat_at, mut look_at) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(beat_at.into()), if !self.beats.is_empty() => {
                    beat_at = Instant::now() + self.beat().await;
                }
                () = tokio::time::sleep_until(look_at.into()) => {
                    self.look().await;
                    look_at = Instant::now() + LOOK_EVERY;
                }
                () = registered.notified() => {
                    self.beats.iter_mut().for_each(|beat| beat.told = None);
                    (beat_at, look_at) = (Instant::now(), Instant::now());
                }
            }
        }
    }

    /// Probes for, and where it is due or news beats, every TTL check; returns when to do so again.
    async fn beat(&mut self) -> Duration {
        let Some(app) = self.definition.app.address.clone() else { return LOOK_EVERY };
        let mut pause = Duration::MAX;
        for beat in &mut self.beats {
            let next = match beat.beat(&app, &mut self.connection).await {
                Ok(next) => next,
                Err(error) => {
                    if error.is_denied() {
                        self.client.reload_token();
                    }
                    debug!(%error, check = %beat.path, "the beat was not taken"); // the registration's watch repairs it
                    UNTOLD
                }
            };
            pause = pause.min(next);
        }
        pause
    }

    /// Reads the verdict of all checks together.
    async fn look(&mut self) {
        let path = format!("/v1/agent/health/service/id/{}", encode(&self.definition.registration.id));
        let answer = self.connection.ask(Method::GET, &path, &[("format", "json")], Bytes::new(), CALL).await;
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
    async fn beat(&mut self, app: &Address, connection: &mut Connection) -> Result<Duration, ConsulError> {
        let every = self.ttl / 3;
        let (is_well, output) = match probe(app, self.probe.as_deref(), every).await {
            Ok(output) => (true, output),
            Err(output) => (false, output),
        };
        let is_due = self.told.is_none_or(|(was_well, at)| was_well != is_well || at.elapsed() + EAGER / 2 >= every);
        if is_due {
            self.told = None;
            let body = json!({ "Status": if is_well { "passing" } else { "critical" }, "Output": output });
            connection.put(&self.path, &[], Bytes::from(body.to_string()), CALL).await?;
            self.told = Some((is_well, Instant::now()));
        }
        Ok(if is_well { every } else { EAGER.min(every) })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    aggregated_status: String,
}
