//! What the service manager is told: sd_notify(3), over the datagram socket that `NOTIFY_SOCKET` names. Where there is
//! none, nothing is told and nothing is missing.
//!
//! `READY=1` is `/startup`: egress is up, and the application, if it is ours, has been started. `WATCHDOG=1` says that
//! this runtime and every worker still answer. The application is never told of the socket: its state is not ours.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use lictor_config::Environment;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Variables that are for this process alone.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A service manager that does not read for so long misses a message, and does not hold us up.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// Whoever started this process and wants to know how it is.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
    /// How long it waits for a sign of life.
    patience: Option<Duration>,
    is_ready: bool,
}

/// The signs of life.
#[derive(Debug)]
pub(crate) struct Watchdog {
    socket: Arc<UnixDatagram>,
    every: Duration,
}

impl Supervisor {
    pub(crate) fn of(env: &Environment) -> Self {
        let socket = env.var("NOTIFY_SOCKET").and_then(|name| match connect(name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET is `{name}`, where nobody can be told anything");
                None
            }
        });
        Self { socket, patience: patience(env), is_ready: false }
    }

    /// Listeners are open, and not more.
    pub(crate) fn starting(&self) {
        self.tell("STATUS=Waiting for the first endpoints");
    }

    /// Egress is up.
    pub(crate) fn ready(&mut self) {
        self.is_ready = true;
        self.tell("READY=1\nSTATUS=Egress is up");
    }

    /// The configuration is put together again. While starting that is part of the start.
    pub(crate) fn reloading(&self) {
        if self.is_ready {
            // Type=notify-reload compares it with the time of its SIGHUP, on this clock.
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    /// One of both is in force.
    pub(crate) fn reloaded(&self, is_new: bool) {
        if self.is_ready {
            let status = if is_new { "" } else { "; the last reload was refused, the log has the reason" };
            self.tell(&format!("READY=1\nSTATUS=Egress is up{status}"));
        }
    }

    /// Leaving in order.
    pub(crate) fn stopping(&self, cause: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS=Draining: {cause}"));
    }

    /// Where signs of life are waited for.
    pub(crate) fn watchdog(&self) -> Option<Watchdog> {
        // Half the time, as sd_watchdog_enabled(3) has it.
        let every = self.patience.map(|patience| patience / 2)?;
        Some(Watchdog { socket: Arc::clone(self.socket.as_ref()?), every })
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            send(socket, message);
        }
    }
}

impl Watchdog {
    /// Gives signs of life, as long as there is life; the question may take as long as it likes.
    pub(crate) async fn beat(self, is_alive: impl AsyncFn() -> bool) {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if is_alive().await {
                send(&self.socket, "WATCHDOG=1");
            }
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SENT_WITHIN))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, message: &str) {
    if let Err(error) = socket.send(message.as_bytes()) {
        warn!(%error, message, "the service manager could not be told");
    }
}

/// Unless they are for another process.
fn patience(env: &Environment) -> Option<Duration> {
    if env.var("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let micros = env.var("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    fn env(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment { vars, hostname: "host".to_owned() }
    }

    /// A service manager's socket, in the abstract namespace.
    fn listening(name: &str) -> (UnixDatagram, String) {
        let name = format!("lictor-supervisor-{}-{name}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, format!("@{name}"))
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn no_sign_of_life_while_a_worker_does_not_answer() {
        let (manager, name) = listening("beat");
        let watchdog = || Supervisor::of(&env(&[("NOTIFY_SOCKET", &name), ("WATCHDOG_USEC", "3000000")])).watchdog();
        let minute = Duration::from_secs(60);
        let hangs = watchdog().unwrap().beat(async || pending().await);
        assert!(timeout(minute, hangs).await.is_err());
        assert_eq!(heard(&manager), None);
        let is_short_of_one = watchdog().unwrap().beat(async || false);
        assert!(timeout(minute, is_short_of_one).await.is_err());
        assert_eq!(heard(&manager), None);
        let lives = watchdog().unwrap().beat(async || true);
        assert!(timeout(Duration::from_secs(4), lives).await.is_err());
        let beats: Vec<String> = std::iter::from_fn(|| heard(&manager)).collect();
        assert_eq!(beats, ["WATCHDOG=1"; 3], "at 0, 1.5 and 3 s");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let patience_of = |pid: &str| patience(&env(&[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", pid)]));
        assert_eq!(patience_of(&own), Some(Duration::from_secs(2)));
        assert_eq!(patience_of("1"), None);
        assert_eq!(patience(&env(&[("WATCHDOG_USEC", "0")])), None);
    }

    #[test]
    fn nobody_to_tell_is_no_reason_to_fail() {
        let mut supervisor = Supervisor::of(&env(&[("NOTIFY_SOCKET", "/no/such/socket"), ("WATCHDOG_USEC", "1000")]));
        supervisor.ready();
        assert!(supervisor.watchdog().is_none());
        assert!(Supervisor::of(&env(&[])).socket.is_none());
    }
}
