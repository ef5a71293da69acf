//! Limits that are counted in Redis: one connection for each worker, one script for each decision.
//!
//! A decision waits as long as the configuration says, and never for a connection. What fails at once, or three times in a
//! row by its time, opens the breaker: nobody is asked until somebody has answered again.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lictor_core::limit::{Decision, Facts, Limit, Redis as Settings};
use lictor_os::{dial, names};
use lictor_tls::{Alpn, Client, Credentials, HandshakeError};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, Script, ServerErrorKind};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::stores::reached::Reached;

const SCRIPT: &str = include_str!("../stores/limit.lua");
/// How `EVALSHA` names it.
static DIGEST: LazyLock<String> = LazyLock::new(|| Script::new(SCRIPT).get_hash().to_owned());

/// Decisions that took too long, in a row.
const STRIKES: u32 = 3;
/// For a connection and its first words.
const CONNECTING: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A worker's connection.
#[derive(Debug)]
pub(crate) struct Redis {
    state: Rc<RefCell<State>>,
    reached: Arc<Reached>,
}

#[derive(Default)]
struct State {
    settings: Option<Arc<Settings>>,
    /// Whom it believes, where it speaks TLS.
    tls: Option<Arc<Client>>,
    connection: Option<Open>,
    /// Of the connection, which is whose these are.
    deeds: Rc<Deeds>,
    /// Before the next one. One that answers and cannot count (an old primary, which only reads) is left for longer each time.
    pause: Duration,
}

#[derive(Debug, Default)]
struct Deeds {
    /// Decisions that failed since the last that did not.
    strikes: Cell<u32>,
    has_counted: Cell<bool>,
}

#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    /// Of `tls`, when it was made: whoever was believed then may not be any more.
    generation: u64,
    /// The outage that it was made after.
    since: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("is_up", &self.connection.is_some()).finish_non_exhaustive()
    }
}

/// Why there is no decision: `down`, `timeout` or `error`.
pub(crate) type Cause = &'static str;

/// A key of a limit, as Redis has it.
#[derive(Clone, Debug)]
pub(crate) struct Key(String);

impl Key {
    /// A digest of the limit's own words and of each part with its length; in braces, for a cluster to place it by.
    pub(crate) fn of(limit: &Limit, facts: &Facts<'_>) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(&(limit.id.text.len() as u64).to_be_bytes());
        digest.update(limit.id.text.as_bytes());
        limit.write_key(facts, &mut |bytes| digest.update(bytes));
        let half = digest.finish().as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        Self(format!("lictor:limit:{{{half:032x}}}"))
    }
}

impl Redis {
    /// What it tells is told once for all who share `reached`.
    pub(crate) fn new(reached: Arc<Reached>) -> Self {
        Self { state: Rc::default(), reached }
    }

    /// Has a connection to there, from now on.
    pub(crate) fn follow(&self, settings: Option<&Arc<Settings>>, credentials: &Credentials) {
        let mut state = self.state.borrow_mut();
        if state.settings.as_ref() == settings {
            return;
        }
        let tls = settings.and_then(|settings| Some(credentials.client(settings.tls.as_ref()?)));
        *state = State { settings: settings.cloned(), tls, ..State::default() };
        if let Some(settings) = settings {
            let (state, reached) = (Rc::clone(&self.state), Arc::clone(&self.reached));
            tokio::task::spawn_local(connect(state, Arc::clone(settings), reached));
        }
    }

    /// Whether it answers.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().connection.is_some()
    }

    /// Takes one, if there is one.
    pub(crate) async fn take(&self, limit: &Limit, key: &Key) -> Result<Decision, Cause> {
        let (admitted, remaining, micros): (u8, u32, u64) = self.ask(limit, key, 1).await?;
        let quota = &limit.quota;
        let is_admitted = admitted == 1;
        let limit = quota.limit();
        let remaining = if is_admitted { remaining.min(limit) } else { 0 };
        Ok(Decision { is_admitted, limit, remaining, reset: Duration::from_micros(micros) })
    }

    /// Gives back what was taken for a request that another limit refused.
    pub(crate) async fn give_back(&self, limit: &Limit, key: &Key) {
        let _: Result<(u8, u32, u64), Cause> = self.ask(limit, key, 0).await;
    }

    async fn ask(&self, limit: &Limit, key: &Key, taken: u8) -> Result<(u8, u32, u64), Cause> {
        let (open, deeds, settings, generation) = {
            let state = self.state.borrow();
            let (Some(open), Some(settings)) = (&state.connection, &state.settings) else { return Err("down") };
            (open.clone(), Rc::clone(&state.deeds), Arc::clone(settings), generation(state.tls.as_deref()))
        };
        if open.generation != generation {
            self.lose(&deeds, &settings, "whoever was believed is not any more");
            return Err("down");
        }
        let mut connection = open.connection;
        let asked = async {
            match command("EVALSHA", &DIGEST, limit, key, taken).query_async(&mut connection).await {
                // It was restarted, or its scripts were flushed: it is well.
                Err(error) if is_unknown(&error) => {
                    command("EVAL", SCRIPT, limit, key, taken).query_async(&mut connection).await
                }
                told => told,
            }
        };
        let (cause, is_gone, why) = match timeout(settings.timeout, asked).await {
            Ok(Ok(told)) => {
                deeds.strikes.set(0);
                deeds.has_counted.set(true);
                return Ok(told);
            }
            Ok(Err(error)) => ("error", error.is_io_error() || error.is_connection_dropped(), error.to_string()),
            Err(_) => ("timeout", false, "it did not answer in time".to_owned()),
        };
        deeds.strikes.set(deeds.strikes.get() + 1);
        if is_gone || deeds.strikes.get() >= STRIKES {
            self.lose(&deeds, &settings, &why);
        }
        Err(cause)
    }

    /// Gives the connection up, unless somebody else has.
    fn lose(&self, deeds: &Rc<Deeds>, settings: &Arc<Settings>, why: &str) {
        let mut state = self.state.borrow_mut();
        let is_same = Rc::ptr_eq(&state.deeds, deeds);
        let Some(lost) = is_same.then(|| state.connection.take()).flatten() else { return };
        let longer = if deeds.has_counted.get() { PAUSE_MIN } else { state.pause * 2 };
        state.pause = longer.clamp(PAUSE_MIN, PAUSE_MAX);
        let pause = state.pause;
        if self.reached.lost(settings, lost.since) {
            warn!(target: "lictor::event", kind = "limits_unreachable", redis = %place(settings), why, "Redis cannot be asked about limits");
        }
        let (state, settings, reached) = (Rc::clone(&self.state), Arc::clone(settings), Arc::clone(&self.reached));
        tokio::task::spawn_local(async move {
            sleep(pause).await;
            connect(state, settings, reached).await;
        });
    }
}

/// Connects, for as long as this is where it is to be.
async fn connect(state: Rc<RefCell<State>>, settings: Arc<Settings>, reached: Arc<Reached>) {
    let is_wanted = |state: &State| state.settings.as_ref().is_some_and(|wanted| Arc::ptr_eq(wanted, &settings));
    let tls = state.borrow().tls.clone();
    let mut pause = PAUSE_MIN;
    while is_wanted(&state.borrow()) {
        let generation = generation(tls.as_deref());
        match timeout(CONNECTING, open(&settings, tls.as_deref())).await {
            Ok(Ok(connection)) => {
                let mut state = state.borrow_mut();
                if !is_wanted(&state) {
                    return;
                }
                let (since, is_news) = reached.gained(&settings);
                (state.connection, state.deeds) = (Some(Open { connection, generation, since }), Rc::default());
                if is_news {
                    info!(target: "lictor::event", kind = "limits_reachable", redis = %place(&settings), "Redis is asked about limits");
                }
                return;
            }
            Ok(Err(error)) if is_wanted(&state.borrow()) && reached.missed(&settings) => {
                warn!(redis = %place(&settings), %error, "no connection to Redis; it is tried again");
            }
            Ok(Err(_)) | Err(_) => (),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn generation(tls: Option<&Client>) -> u64 {
    tls.map_or(0, Client::generation)
}

/// A connection on which somebody has answered.
async fn open(settings: &Settings, tls: Option<&Client>) -> Result<MultiplexedConnection, RedisError> {
    let mut named = RedisConnectionInfo::default().set_db(i64::from(settings.database));
    if let Some(username) = &settings.username {
        named = named.set_username(username);
    }
    if let Some(password) = &settings.password {
        named = named.set_password(password.reveal());
    }
    let addresses = names::look_up(&settings.host).await?;
    let addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| (ip, settings.port).into()).collect();
    let socket = dial::connect(&addresses).await?;
    socket.set_nodelay(true)?;
    let mut connection = match tls {
        None => begin(&named, socket).await?,
        Some(tls) => {
            let failed = |error: HandshakeError| io::Error::other(error.to_string());
            begin(&named, tls.connect(socket, &settings.host, Alpn::None).await.map_err(failed)?).await?
        }
    };
    let _: String = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(connection)
}

/// Shows who we are, and leaves the bytes to a task.
async fn begin<S>(named: &RedisConnectionInfo, stream: S) -> Result<MultiplexedConnection, RedisError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let waits = AsyncConnectionConfig::new().set_response_timeout(None); // each decision has a time of its own
    let (connection, driver) = MultiplexedConnection::new_with_config(named, stream, waits).await?;
    tokio::task::spawn_local(driver);
    Ok(connection)
}

fn command(name: &str, script: &str, limit: &Limit, key: &Key, taken: u8) -> Cmd {
    let quota = &limit.quota;
    let mut command = redis::cmd(name);
    command.arg(script).arg(1).arg(&key.0);
    command.arg(quota.algorithm.to_string()).arg(quota.requests).arg(quota.window.as_micros() as u64);
    command.arg(quota.burst).arg(taken);
    command
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn place(settings: &Settings) -> String {
    format!("{}:{}", settings.host, settings.port)
}
