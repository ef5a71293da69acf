//! Certificates that the gateway's listener shows and a CA gives (ACME; RFC 8555): ordered when there is none, and again before
//! one ends. When is lictor-core's to say (`acme`), what is shown lictor-tls' (it reads the file as any other); here is who orders.
//!
//! Only hosts of the configuration have orders. Of all gateways with one folder, one orders: who has its lock. The others answer
//! the CA too, wherever it looks, and show what comes. No host waits for another, and nothing else for any of them.

mod issue;
mod kept;
mod transport;
mod window;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use lictor_core::acme::{Order, again, renewal, rest, until};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::issue::{Trouble, issue, show};
use self::kept::{Progress, Proof};
use self::transport::Transport;
use crate::admin::Admin;

/// Why there is nothing after a panic; the log has more.
const FAULT: &str = "a fault in lictor or its library, which the log has";
/// How often it is looked whether something is due, and what the leader's orders are.
const EVERY: Duration = Duration::from_secs(1);
/// Of one order, from the account to the certificate.
const ORDER_MAX: Duration = Duration::from_secs(600);
/// So many orders at a time.
const AT_ONCE: usize = 4;
/// What is known of a certificate is read again so often, in seconds: somebody may have put another one there.
const LOOK_AGAIN: u64 = 60;

/// Orders for as long as the process runs.
pub(crate) async fn run(admin: Arc<Admin>) {
    let mut desk = Desk { admin, known: HashMap::new(), locks: HashMap::new(), flights: JoinSet::new() };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let orders = desk.orders();
        desk.take();
        desk.drop_gone(&orders);
        if !orders.is_empty() {
            if desk.admin.is_stopping() {
                desk.leave().await;
            } else {
                desk.lead(&orders).await;
            }
            desk.look(&orders).await;
            desk.begin(&orders);
        }
    }
}

/// Who orders.
struct Desk {
    admin: Arc<Admin>,
    known: HashMap<Order, Host>,
    /// By folder.
    locks: HashMap<PathBuf, Folder>,
    flights: JoinSet<Landed>,
}

/// What has come of what was asked of a CA, and how far that is where it could not be written down.
struct Landed {
    order: Order,
    came: Came,
    unwritten: Option<Progress>,
}

/// What has come of it.
enum Came {
    /// Until when the certificate is good, or why there is none; and how long nothing is asked.
    Order(Result<u64, Trouble>, Duration),
    /// It was asked when it wants the certificate renewed.
    Window,
}

/// A folder of what is kept.
#[derive(Default)]
struct Folder {
    /// While we are the one who orders.
    lock: Option<File>,
    /// Why it is of no use, as it was told.
    complaint: Option<String>,
    /// Taken by who makes an account.
    registering: Arc<Mutex<()>>,
}

/// What is known of a host's certificate.
struct Host {
    /// Where within the time for a renewal it is renewed: 0 to 1.
    chance: f64,
    /// When it is ordered, in seconds since the epoch; `None`: it is to be looked.
    due: Option<u64>,
    /// When the CA is asked when it wants that; `None`: there is no certificate.
    asks: Option<u64>,
    looked: u64,
    flight: Option<AbortHandle>,
    /// How far it is where the disk has not taken that: it stands in for what is there, so that the CA is asked no sooner.
    unwritten: Option<Progress>,
    /// What the CA is shown on behalf of whoever orders.
    shown: Option<Proof>,
}

/// What the disk says of a host.
enum Seen {
    /// Where we order: when, and when the CA is asked about that.
    Due(u64, Option<u64>),
    /// Where another one does: what the CA is to see.
    Proof(Option<Proof>),
}

impl Desk {
    fn orders(&self) -> Vec<Order> {
        let loaded = self.admin.loaded.read();
        loaded.config.gateway.iter().flat_map(|gateway| gateway.orders.iter().cloned()).collect()
    }

    /// Notes what has come of orders.
    fn take(&mut self) {
        while let Some(joined) = self.flights.try_join_next() {
            let Ok(Landed { order, came, unwritten }) = joined else { continue }; // it was dropped
            if let Some(known) = self.known.get_mut(&order) {
                (known.flight, known.due, known.unwritten) = (None, None, unwritten);
            }
            let (Came::Order(result, wait), host) = (came, &*order.host) else { continue };
            self.admin.scrape.ordered(host, result.is_ok());
            match result {
                Ok(ends) => {
                    let ends = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(ends));
                    info!(target: "lictor::event", kind = "certificate_issued", host, %ends, "a certificate was ordered and has come");
                }
                Err(Trouble { why, .. }) => {
                    let again = humantime::format_duration(Duration::from_secs(wait.as_secs()));
                    warn!(target: "lictor::event", kind = "certificate_not_issued", host, %why, %again, "a certificate was ordered and has not come; it is tried again");
                }
            }
        }
    }

    /// Ends what the configuration does not name any more, and lets others have folders that we do not use.
    fn drop_gone(&mut self, orders: &[Order]) {
        let Self { admin, known, locks, .. } = self;
        let wanted: HashSet<&Order> = orders.iter().collect();
        known.retain(|order, host| {
            let is_wanted = wanted.contains(order);
            if !is_wanted {
                host.flight.iter().for_each(AbortHandle::abort);
                admin.plane.forget_challenge(&order.host);
            }
            is_wanted
        });
        let folders: HashSet<&Path> = orders.iter().map(Order::storage).collect();
        locks.retain(|folder, _| folders.contains(&**folder));
    }

    /// Becomes the one who orders, where nobody else is.
    async fn lead(&mut self, orders: &[Order]) {
        let folders: HashSet<PathBuf> = orders.iter().map(|order| order.storage().to_owned()).collect();
        for folder in folders {
            let known = self.locks.entry(folder.clone()).or_default();
            if known.lock.is_some() {
                continue;
            }
            let path = folder.clone();
            match spawn_blocking(move || kept::lead(&path)).await.unwrap_or(Ok(None)) {
                Ok(lock) => {
                    if lock.is_some() {
                        info!(folder = %folder.display(), "certificates are ordered by this gateway");
                    }
                    (known.lock, known.complaint) = (lock, None);
                }
                Err(why) => {
                    let why = why.to_string();
                    if known.complaint.as_ref() != Some(&why) {
                        warn!(target: "lictor::event", kind = "certificate_not_issued", folder = %folder.display(), %why, "no certificate is ordered: the folder is of no use");
                        known.complaint = Some(why);
                    }
                }
            }
        }
    }

    /// Ends what is under way, and lets another gateway go on with it: this one is about to end. It answers the CA still.
    async fn leave(&mut self) {
        self.flights.shutdown().await;
        self.known.values_mut().for_each(|host| (host.flight, host.unwritten) = (None, None));
        self.locks.clear();
    }

    /// Looks when what is due, and what others order.
    async fn look(&mut self, orders: &[Order]) {
        let now = now();
        let mut wanted = Vec::new();
        for order in orders {
            let fresh = || Host {
                chance: random(),
                due: None,
                asks: None,
                looked: 0,
                flight: None,
                unwritten: None,
                shown: None,
            };
            let host = self.known.entry(order.clone()).or_insert_with(fresh);
            let leads = self.locks.get(order.storage()).is_some_and(|folder| folder.lock.is_some());
            let is_known = host.due.is_some() && now.saturating_sub(host.looked) < LOOK_AGAIN;
            if host.flight.is_none() && !(leads && is_known) {
                wanted.push((order.clone(), leads, host.chance, host.unwritten.clone()));
            }
        }
        let look = move |(order, leads, chance, unwritten): (Order, bool, f64, Option<Progress>)| {
            let progress = unwritten.unwrap_or_else(|| Progress::read(&order));
            let seen = if leads { due(&order, &progress, chance, now) } else { Seen::Proof(progress.proof) };
            (order, seen)
        };
        let seen = spawn_blocking(move || wanted.into_iter().map(look).collect::<Vec<_>>()).await.unwrap_or_default();
        for (order, seen) in seen {
            let Some(host) = self.known.get_mut(&order) else { continue };
            match seen {
                Seen::Due(due, asks) => {
                    (host.due, host.asks, host.looked) = (Some(due), asks, now);
                    if host.shown.take().is_some() {
                        self.admin.plane.forget_challenge(&order.host); // whoever ordered is gone
                    }
                }
                Seen::Proof(proof) if proof == host.shown => (),
                Seen::Proof(proof) => {
                    match &proof {
                        Some(proof) => {
                            if let Err(why) = show(&self.admin.plane, &order, proof) {
                                warn!(host = &*order.host, %why, "the CA cannot be answered");
                            }
                        }
                        None => self.admin.plane.forget_challenge(&order.host),
                    }
                    host.shown = proof;
                }
            }
        }
    }

    /// Begins what is due.
    fn begin(&mut self, orders: &[Order]) {
        let now = now();
        for order in orders {
            let Some(host) = self.known.get_mut(order) else { continue };
            let Some(folder) = self.locks.get(order.storage()).filter(|folder| folder.lock.is_some()) else { continue };
            if host.flight.is_some() || self.flights.len() >= AT_ONCE {
                continue;
            }
            let begun = (order.clone(), host.unwritten.clone());
            if host.due.is_some_and(|due| due <= now) {
                let (admin, registering) = (Arc::clone(&self.admin), Arc::clone(&folder.registering));
                host.flight = Some(self.flights.spawn(order_one(admin, begun, registering)));
            } else if host.asks.is_some_and(|asks| asks <= now) {
                host.flight = Some(self.flights.spawn(ask_one(begun)));
            }
        }
    }
}

/// When a certificate is ordered, and when the CA is asked about that.
fn due(order: &Order, progress: &Progress, chance: f64, now: u64) -> Seen {
    let not_before = until(progress.not_before, now);
    match lictor_tls::issued(&order.file(), &order.host) {
        Ok((begins, ends)) => {
            let due = renewal(begins, ends, progress.window, chance).max(not_before);
            Seen::Due(due, Some(until(progress.asked_again, now)))
        }
        // One that has come and is gone is ordered at once.
        Err(_) => Seen::Due(if progress.failures == 0 { 0 } else { not_before }, None),
    }
}

/// How far an order is: what the disk has not taken, or what it has.
async fn begun((order, unwritten): (Order, Option<Progress>)) -> (Order, Progress) {
    if let Some(progress) = unwritten {
        return (order, progress);
    }
    let of = order.clone();
    (order, spawn_blocking(move || Progress::read(&of)).await.unwrap_or_default())
}

/// Writes down how far it is, and what has come of it.
async fn land(order: Order, came: Came, progress: Progress) -> Landed {
    let unwritten = match issue::write(&order, &progress).await {
        Ok(()) => None,
        Err(Trouble { why, .. }) => {
            warn!(host = &*order.host, %why, "it is kept in mind until this process ends");
            Some(progress)
        }
    };
    Landed { order, came, unwritten }
}

/// Asks the CA when it wants a certificate renewed, and notes that.
async fn ask_one(begins: (Order, Option<Progress>)) -> Landed {
    let (order, mut progress) = begun(begins).await;
    let transport = Transport::new(&order.acme);
    let asked = caught(window::ask(&order, &transport)).await;
    let (window, again) = asked.unwrap_or_else(|| (Err(FAULT.to_owned()), window::AGAIN_AFTER_FAILURE));
    progress.asked_again = now() + again.as_secs();
    match window {
        Ok(window) => progress.window = window,
        Err(why) => info!(host = &*order.host, %why, "the CA does not say when it wants the certificate renewed"),
    }
    land(order, Came::Window, progress).await
}

/// One order, and what is known of it afterwards: until when its certificate is good, or how long nothing is asked.
async fn order_one(admin: Arc<Admin>, begins: (Order, Option<Progress>), registering: Arc<Mutex<()>>) -> Landed {
    let (order, mut progress) = begun(begins).await;
    let transport = Transport::new(&order.acme);
    let issued = issue(&order, &mut progress, &admin.plane, &transport, &registering);
    let late = || Trouble::of(format!("it is not there after {} s", ORDER_MAX.as_secs()));
    let issued = timeout(ORDER_MAX, caught(issued)).await.unwrap_or_else(|_| Some(Err(late())));
    let issued = issued.unwrap_or_else(|| Err(Trouble::of(FAULT)));
    admin.plane.forget_challenge(&order.host);
    let wait = match &issued {
        // A clock that is wrong, or a CA's that is, is no reason to order without end.
        Ok((begins, ends)) => {
            progress = Progress::default();
            rest(*begins, *ends)
        }
        Err(trouble) => {
            if trouble.is_over {
                (progress.order, progress.key) = (None, None);
            }
            let failures = progress.failures.saturating_add(1);
            progress = Progress { failures, proof: None, why: Some(trouble.why.clone()), ..progress };
            again(failures, trouble.cause, transport.told(), random())
        }
    };
    progress.not_before = now() + wait.as_secs();
    land(order, Came::Order(issued.map(|(_, ends)| ends), wait), progress).await
}

/// What comes of it; `None`: it has panicked. A fault in reading what a CA says is one host's failure, and tried again as any is.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let poll = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    });
    poll.await
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness orders are less spread out, and nothing else.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_whenever_it_comes() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        for turns in [0, 1, 3] {
            let held = Arc::new(());
            let mine = Arc::clone(&held);
            let panics = async move {
                for _ in 0..turns {
                    yield_now().await;
                }
                assert!(Arc::strong_count(&mine) > 5, "on purpose");
            };
            assert_eq!(caught(panics).await, None, "{turns}");
            assert_eq!(Arc::strong_count(&held), 1, "{turns}: nothing of it stays");
        }
    }
}
