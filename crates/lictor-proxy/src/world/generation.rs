//! What a listener's connections were admitted by, and whether they still would be. A change of it begins a new
//! generation; the connections of the one before end in order, and are cut after a grace. Opening and closing listeners
//! is `plane`'s.
//!
//! [`Terms`] and [`Service`] are the process's: a connection may be handed from one worker to another. A
//! [`Generation`] is one worker's share of the connections, so that a request reads a cell.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lictor_core::Mesh;
use lictor_core::cidr::Cidrs;
use lictor_core::mesh::{Forward, Listener, ListenerKind, Protocol};
use lictor_core::policy::Limits;
use lictor_core::{Failure, Reason, Secret};
use lictor_tls::Servers;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long tunnels that are cut may take to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What connections are admitted by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) listener: Listener,
    rules: Rules,
}

/// What besides the listener itself decides who may come, and how far.
#[derive(Clone, Debug, PartialEq)]
enum Rules {
    Upstream(Option<Protocol>),
    Forward {
        allow: Option<Forward>,
        /// Upstreams that need no entry in `allow`.
        declared: BTreeSet<Arc<str>>,
    },
    Inbound(Option<Inbound>),
    /// Each request is judged by the routes that are in force then.
    Gateway,
}

#[derive(Clone, Debug, PartialEq)]
struct Inbound {
    protocol: Protocol,
    tokens: Vec<Secret>,
    limits: Limits,
    /// Whether it has limits on rates; each request is judged by those that are in force then.
    is_rated: bool,
}

/// Whether what admitted a connection is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    InForce,
    /// Its listener has other rules now: what it still asks is judged by those, and it ends.
    Ending,
    /// It would not be admitted any more: its listener is closed, leads elsewhere, or asks for other TLS.
    Over,
}

impl Terms {
    pub(crate) fn of(listener: &Listener, mesh: &Mesh) -> Self {
        let rules = match &listener.kind {
            ListenerKind::Upstream(name) => Rules::Upstream(mesh.upstreams.get(name).map(|upstream| upstream.protocol)),
            ListenerKind::Forward => {
                let allow = mesh.forward.clone();
                let is_declared = |name: &&Arc<str>| allow.as_ref().is_none_or(|allow| !allow.allows(name));
                let declared = mesh.upstreams.keys().filter(is_declared).cloned().collect();
                Rules::Forward { allow, declared }
            }
            ListenerKind::Inbound => Rules::Inbound(mesh.inbound.as_ref().map(|inbound| Inbound {
                protocol: inbound.app.protocol,
                tokens: inbound.tokens.clone(),
                limits: inbound.app.policy.limits.clone(),
                is_rated: !inbound.limits.is_empty(),
            })),
            ListenerKind::Gateway | ListenerKind::Redirect => Rules::Gateway,
        };
        Self { listener: listener.clone(), rules }
    }

    /// What becomes of connections that these have admitted, at the same socket, when `next` are in force.
    pub(crate) fn under(&self, next: &Self) -> Standing {
        let (old, new) = (&self.listener, &next.listener);
        let satisfies_tls = match (&old.tls, &new.tls) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(old), Some(new)) => new.asks_no_more_than(old),
        };
        let was_brought_rightly = match (&old.proxies, &new.proxies) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(old), Some(new)) => new.covers(old),
        };
        match () {
            () if old.kind != new.kind || !satisfies_tls || !was_brought_rightly => Standing::Over,
            () if old == new && !self.rules.takes_away(&next.rules) => Standing::InForce,
            () => Standing::Ending,
        }
    }
}

impl Rules {
    /// Whether something that these allow is not as it was under `next`.
    fn takes_away(&self, next: &Self) -> bool {
        match (self, next) {
            // One upstream more is nothing that anybody loses.
            (Self::Forward { allow, declared }, Self::Forward { allow: now, declared: then }) => {
                allow != now || !declared.is_subset(then)
            }
            (Self::Upstream(_) | Self::Forward { .. } | Self::Inbound(_) | Self::Gateway, _) => self != next,
        }
    }
}

/// How a generation's connections are served.
#[derive(Debug)]
pub(crate) struct Service {
    /// Grows: of two for the same socket the one with more is in force.
    pub(crate) number: u64,
    /// The listening socket, which outlives generations.
    pub(crate) socket: u64,
    pub(crate) kind: ListenerKind,
    pub(crate) tls: Option<Arc<Servers>>,
    /// See [`Listener::proxies`].
    pub(crate) proxies: Option<Cidrs>,
    /// [`Servers::generation`] as it began.
    pub(crate) trust: u64,
    pub(crate) max_age: Option<Duration>,
    /// The socket is closed; what was accepted on it and is on its way to another worker comes too late.
    pub(crate) is_closed: AtomicBool,
}

impl Service {
    /// Whether a CA of clients that was believed when it began is not any more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.trust_now() != self.trust
    }

    /// [`Servers::generation`] now; whoever is admitted from now on is judged by that.
    pub(crate) fn trust_now(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.generation())
    }
}

/// One worker's connections of a generation. They end together: `drain` tells them, `open` counts them, `tasks` ends
/// them.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) service: Arc<Service>,
    /// [`Servers::generation`] as it began.
    trust: u64,
    standing: Cell<Standing>,
    cut_at: Cell<Option<Instant>>,
    drain: watch::Sender<bool>,
    open: watch::Sender<usize>,
    /// By number; one that is over is not here any more.
    tasks: RefCell<HashMap<u64, AbortHandle>>,
    accepted: Cell<u64>,
    /// Tunnels are tasks of their own, which this ends; they are among `open` too.
    cut: watch::Sender<bool>,
    /// How many tunnels are open.
    held: Cell<usize>,
}

impl Generation {
    pub(crate) fn new(service: Arc<Service>, trust: u64, is_draining: bool) -> Self {
        Self {
            service,
            trust,
            standing: Cell::new(Standing::InForce),
            cut_at: Cell::default(),
            drain: watch::Sender::new(is_draining),
            open: watch::Sender::new(0),
            tasks: RefCell::default(),
            accepted: Cell::default(),
            cut: watch::Sender::new(false),
            held: Cell::default(),
        }
    }

    /// What there is one of: those who are admitted after a CA of clients is gone are others than those before.
    pub(crate) fn key(&self) -> (u64, u64) {
        (self.service.number, self.trust)
    }

    /// Refuses what comes by a connection that would not be admitted any more. When a CA is gone, each is judged by the
    /// one that vouched for it; they all end in order, as whoever is still believed comes again.
    pub(super) fn check(&self, is_believed: impl FnOnce() -> bool) -> Result<(), Failure> {
        if self.trust != self.service.trust_now() {
            self.drain();
            if !is_believed() {
                return Err(gone());
            }
        }
        match self.standing.get() {
            Standing::InForce | Standing::Ending => Ok(()),
            Standing::Over => Err(gone()),
        }
    }

    /// Something else is in force from now on.
    pub(crate) fn end(&self, standing: Standing) {
        self.standing.set(self.standing.get().max(standing));
        self.drain();
    }

    /// Whether it is to be cut by then already; if not, it is now.
    pub(crate) fn ends_by(&self, then: Instant) -> bool {
        let does = self.cut_at.get().is_some_and(|at| at <= then);
        if !does {
            self.cut_at.set(Some(then));
        }
        does
    }

    /// Lets requests end, and no more begin.
    pub(crate) fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Set once its connections shall end.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// Ends what is still open, whatever it does. Tunnels are told first, and have a moment for their last words, which over
    /// HTTP/2 go out by their connection's task.
    pub(crate) async fn cut(&self) {
        self.cut.send_replace(true);
        let mut open = self.open.subscribe();
        let _ = timeout(LAST_WORDS, open.wait_for(|_| self.held.get() == 0)).await; // we hold the sender
        tokio::task::yield_now().await; // what they have said goes out
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        tasks.values().for_each(AbortHandle::abort);
    }

    pub(super) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Ready when it is cut.
    pub(crate) async fn until_cut(&self) {
        let _ = self.cut.subscribe().wait_for(|is_cut| *is_cut).await; // we hold the sender
    }

    /// Ready when no connection is left, and no tunnel.
    pub(crate) async fn until_empty(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await; // we hold the sender
    }

    /// Connections that are open, and tunnels.
    pub(crate) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Bytes that are carried without their connection's task: they are open as long as this is held.
    pub(crate) fn hold(self: &Rc<Self>) -> Held {
        self.held.set(self.held.get() + 1);
        self.open.send_modify(|open| *open += 1);
        Held(Rc::clone(self))
    }

    /// A connection comes; its number.
    pub(crate) fn enter(&self) -> u64 {
        let number = self.accepted.get();
        self.accepted.set(number + 1);
        self.open.send_modify(|open| *open += 1);
        number
    }

    /// What ends it.
    pub(crate) fn keep(&self, number: u64, task: AbortHandle) {
        self.tasks.borrow_mut().insert(number, task);
    }

    /// A connection is over.
    pub(crate) fn leave(&self, number: u64) {
        self.tasks.borrow_mut().remove(&number);
        self.open.send_modify(|open| *open -= 1);
    }
}

/// See [`Generation::hold`].
#[derive(Debug)]
pub(crate) struct Held(Rc<Generation>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// The answer to a request that its listener does not take any more. 421 says that another connection may do (RFC 9110,
/// section 15.5.20), and that nothing was done.
pub(crate) fn gone() -> Failure {
    let sentence = "this connection is older than what its listener is now: that is closed, leads elsewhere or asks for other TLS; connect again";
    Failure::new(Reason::Misdirected, sentence)
}

#[cfg(test)]
mod tests {
    use lictor_core::tls::{KeyPair, ServerTls};

    use super::Standing::{Ending, InForce, Over};
    use super::*;

    fn with_tls(cert: &str, client_ca: Option<&str>) -> Terms {
        let mut terms = upstream();
        let identity = KeyPair { cert: cert.into(), key: cert.into() };
        let client_ca = client_ca.map(Into::into);
        terms.listener.tls = Some(ServerTls { identity, client_ca, requires: true, is_awaited: false }.into());
        terms
    }

    fn brought(by: &[&str]) -> Terms {
        let mut terms = upstream();
        terms.listener.proxies =
            Some(by.iter().map(|range| range.parse::<lictor_core::cidr::Cidr>().unwrap()).collect());
        terms
    }

    fn upstream() -> Terms {
        let kind = ListenerKind::Upstream("users".into());
        let address = "127.0.0.1:3001".parse().unwrap();
        let listener = Listener { kind, address, tls: None, proxies: None, max_connection_age: None };
        Terms { listener, rules: Rules::Upstream(Some(Protocol::Http1)) }
    }

    fn forward(allow: &[&str], declared: &[&str]) -> Terms {
        let mut terms = upstream();
        terms.listener.kind = ListenerKind::Forward;
        let allow = Some(Forward { allow: allow.iter().map(ToString::to_string).collect() });
        terms.rules = Rules::Forward { allow, declared: declared.iter().map(|name| Arc::from(*name)).collect() };
        terms
    }

    fn inbound(tokens: &[&str], most: u32) -> Terms {
        let mut terms = upstream();
        terms.listener.kind = ListenerKind::Inbound;
        let limits = Limits { max_in_flight: most, ..Limits::default() };
        let tokens = tokens.iter().map(|token| Secret::new(*token)).collect();
        terms.rules = Rules::Inbound(Some(Inbound { protocol: Protocol::Http1, tokens, limits, is_rated: false }));
        terms
    }

    #[test]
    fn whoever_came_by_other_terms_ends_and_is_refused_where_they_lead_elsewhere() {
        let with = |change: fn(&mut Terms)| {
            let mut terms = upstream();
            change(&mut terms);
            terms
        };
        let plain = upstream;
        let secure = || with_tls("a", None);
        let mutual = || with_tls("a", Some("ca"));
        let rows = [
            ("nothing changed", plain(), plain(), InForce),
            ("another upstream", plain(), with(|terms| terms.listener.kind = ListenerKind::Upstream("b".into())), Over),
            ("inbound there", plain(), inbound(&[], 1), Over),
            ("the forward proxy there", inbound(&[], 1), forward(&[], &[]), Over),
            ("an upstream there", forward(&[], &[]), plain(), Over),
            ("another protocol", plain(), with(|terms| terms.rules = Rules::Upstream(Some(Protocol::Tcp))), Ending),
            ("no upstream", plain(), with(|terms| terms.rules = Rules::Upstream(None)), Ending),
            ("an age", plain(), with(|terms| terms.listener.max_connection_age = Some(Duration::from_secs(1))), Ending),
            ("TLS", plain(), secure(), Over),
            ("no TLS", secure(), plain(), Ending),
            ("another certificate", secure(), with_tls("b", None), Ending),
            ("client certificates", secure(), mutual(), Over),
            ("another CA", mutual(), with_tls("a", Some("other")), Over),
            ("the same CA", mutual(), with_tls("b", Some("ca")), Ending),
            ("no client certificates", mutual(), secure(), Ending),
            ("the PROXY protocol", plain(), brought(&["10.0.0.0/8"]), Over),
            ("no PROXY protocol", brought(&["10.0.0.0/8"]), plain(), Ending),
            ("one proxy more", brought(&["10.0.0.0/8"]), brought(&["10.0.0.0/8", "192.0.2.1"]), Ending),
            ("one proxy less", brought(&["10.0.0.0/8", "192.0.2.1"]), brought(&["10.0.0.0/8"]), Over),
            ("a token", inbound(&[], 1), inbound(&["one"], 1), Ending),
            ("another token", inbound(&["one"], 1), inbound(&["two"], 1), Ending),
            ("the same token", inbound(&["one"], 1), inbound(&["one"], 1), InForce),
            ("other limits", inbound(&[], 1), inbound(&[], 2), Ending),
            ("a shorter list", forward(&["a", "b"], &[]), forward(&["a"], &[]), Ending),
            ("one upstream more", forward(&["a"], &["users"]), forward(&["a"], &["carts", "users"]), InForce),
            ("one upstream less", forward(&["a"], &["carts", "users"]), forward(&["a"], &["users"]), Ending),
        ];
        for (name, before, after, expected) in rows {
            assert_eq!(before.under(&after), expected, "{name}");
        }
    }

    #[test]
    fn an_end_is_not_taken_back() {
        let service = Service {
            number: 1,
            socket: 1,
            kind: ListenerKind::Inbound,
            tls: None,
            proxies: None,
            trust: 0,
            max_age: None,
            is_closed: AtomicBool::new(false),
        };
        let generation = Generation::new(Arc::new(service), 0, false);
        let check = |generation: &Generation| generation.check(|| false);
        assert!(check(&generation).is_ok() && !*generation.draining().borrow());
        generation.end(Ending);
        assert!(check(&generation).is_ok() && *generation.draining().borrow());
        generation.end(Over);
        generation.end(Ending);
        assert_eq!(check(&generation).unwrap_err().reason, Reason::Misdirected);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert!(!generation.ends_by(now + second));
        assert!(generation.ends_by(now + second) && generation.ends_by(now + 2 * second), "it ends once");
        assert!(!generation.ends_by(now) && generation.ends_by(now), "a shorter grace counts");
    }
}
