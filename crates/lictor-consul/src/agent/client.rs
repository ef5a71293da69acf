//! How the agent is reached: its address, TLS, and our token, shared by all connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use lictor_config::{Consul, ConsulAddress, authority};
use lictor_core::Secret;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::error::ConsulError;
use super::home::{Home, Seen};
use super::token::Token;
use crate::tls;

/// While a token is refused, one of those who were refused asks again this often, for all.
const SCOUT: Duration = Duration::from_secs(1);
/// One who waits to be the scout looks this often whether he is.
const SCOUT_LOOK: Duration = Duration::from_millis(500);

/// For the agent's name, for who wants all of its addresses.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(3);

/// How the agent is reached, shared by all connections.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) address: ConsulAddress,
    pub(super) tls: Option<Arc<lictor_tls::Client>>,
    token: Arc<Token>,
    pub(super) home: Home,
    /// Where its name led the last time that it led somewhere.
    known: Mutex<Vec<IpAddr>>,
    /// Counts what we say anew who we are, or who is believed: what was asked before is asked again.
    fresh: watch::Sender<u64>,
    /// When one of those who were refused asked again last.
    scouted: Mutex<Instant>,
    /// One who was refused is not any more.
    pub(super) allowed: Notify,
    pub(super) settings: Consul,
}

impl Client {
    pub(crate) fn new(settings: &Consul, address: &ConsulAddress) -> Result<Self, tls::TlsError> {
        let tls = match address {
            ConsulAddress::Https(host, _) => Some(tls::client(&settings.tls, host)?),
            ConsulAddress::Http(..) | ConsulAddress::Unix(_) => None,
        };
        Ok(Self {
            address: address.clone(),
            tls,
            token: Arc::new(Token::new(settings)),
            home: Home::default(),
            known: Mutex::default(),
            fresh: watch::Sender::default(),
            scouted: Mutex::new(Instant::now()),
            allowed: Notify::new(),
            settings: settings.clone(),
        })
    }

    /// Leaves the agent alone for this long after an error, or until the token that it refused may be accepted.
    pub(crate) async fn pause_after(&self, error: &ConsulError, token: Option<&Secret>, pause: Duration) {
        if error.is_denied() {
            self.renewed_token(token, pause).await;
        } else {
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until it may be worth asking again: there is another token than the one that was refused, somebody else is
    /// refused no more, it is our turn to find that out, or `at_most` is over.
    async fn renewed_token(&self, refused: Option<&Secret>, at_most: Duration) {
        let (until, mut fresh) = (Instant::now() + at_most, self.fresh.subscribe());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.token().as_ref() != refused {
                return;
            }
            tokio::select! {
                () = self.allowed.notified() => return,
                changed = fresh.changed() => changed.expect("the sender is ours"),
                () = tokio::time::sleep(left.min(SCOUT_LOOK)) => if self.may_scout(Instant::now()) {
                    return;
                },
            }
        }
    }

    fn may_scout(&self, now: Instant) -> bool {
        let mut scouted = self.scouted.lock();
        let may = now.saturating_duration_since(*scouted) >= SCOUT;
        if may {
            *scouted = now;
        }
        may
    }

    pub(crate) fn token(&self) -> Option<Secret> {
        self.token.now()
    }

    /// Once its file has been read for the first time, or has taken too long.
    pub(crate) async fn first_token(&self) {
        self.token.first().await;
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.now().is_some()
    }

    /// Changes when we have another token, another certificate, or believe others: then all that is watched is asked for
    /// anew, on another connection, because what an answer holds depends on who asks.
    pub(crate) fn fresh(&self) -> watch::Receiver<u64> {
        self.fresh.subscribe()
    }

    /// The same, to compare.
    pub(super) fn generation(&self) -> u64 {
        *self.fresh.borrow()
    }

    /// Another agent is to have our registration.
    pub(crate) fn leave_home(&self) {
        self.home.leave();
    }

    /// Agents that had our registration, and may have it still.
    pub(crate) fn former_homes(&self) -> Vec<Seen> {
        self.home.former()
    }

    /// This one does not have it any more.
    pub(crate) fn is_rid_of(&self, former: &Seen) {
        self.home.is_rid_of(former);
    }

    /// Reads the files of the token and of TLS again when they change, for as long as there is this client.
    pub(crate) fn follow_files(self: &Arc<Self>) {
        let client = Arc::downgrade(self);
        let is_fresh = move || client.upgrade().map(|client| client.fresh.send_modify(|count| *count += 1)).is_some();
        if let Some(tls) = &self.tls {
            tokio::spawn(lictor_tls::follow(Arc::downgrade(tls)));
            let (mut made, is_fresh) = (tls.made_anew(), is_fresh.clone());
            tokio::spawn(async move { while made.changed().await.is_ok() && is_fresh() {} });
        }
        tokio::spawn(Arc::clone(&self.token).follow(is_fresh));
    }

    /// For pages.
    pub(crate) fn shown_address(&self) -> String {
        match &self.address {
            ConsulAddress::Http(host, port) => format!("http://{}", authority(host, *port)),
            ConsulAddress::Https(host, port) => format!("https://{}", authority(host, *port)),
            ConsulAddress::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Where the address leads; nowhere that has a name of its own for a Unix socket.
    pub(crate) async fn all_addresses(&self) -> Vec<SocketAddr> {
        match &self.address {
            ConsulAddress::Http(host, port) | ConsulAddress::Https(host, port) => {
                self.addresses(host, *port, LOOK_UP_WITHIN).await.unwrap_or_default()
            }
            ConsulAddress::Unix(_) => Vec::new(),
        }
    }

    /// Where the address leads now; while its name cannot be looked up, where it led before.
    pub(super) async fn addresses(&self, host: &str, port: u16, at_most: Duration) -> std::io::Result<Vec<SocketAddr>> {
        let found = tokio::time::timeout(at_most, lictor_os::names::look_up(host)).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let mut known = self.known.lock();
        match found {
            Ok(found) => *known = found,
            Err(error) if known.is_empty() => {
                return Err(std::io::Error::new(error.kind(), format!("`{host}` cannot be looked up: {error}")));
            }
            Err(_) => (),
        }
        Ok(known.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    /// Whether the agent is on this machine, so that it can reach the application on loopback.
    pub(crate) fn is_local(&self) -> bool {
        match &self.address {
            ConsulAddress::Unix(_) => true,
            ConsulAddress::Http(host, _) | ConsulAddress::Https(host, _) => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }

    pub(super) fn host(&self) -> HeaderValue {
        let host = match &self.address {
            ConsulAddress::Http(host, port) | ConsulAddress::Https(host, port) => authority(host, *port),
            ConsulAddress::Unix(_) => "localhost".to_owned(),
        };
        HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("consul"))
    }

    /// The query parameters that every call has.
    pub(super) fn scope(&self) -> impl Iterator<Item = (&str, &str)> {
        let namespace = self.settings.namespace.as_deref().map(|name| ("ns", name));
        let partition = self.settings.partition.as_deref().map(|name| ("partition", name));
        namespace.into_iter().chain(partition)
    }
}
