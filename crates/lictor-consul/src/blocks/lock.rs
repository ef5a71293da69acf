//! A lock: a key of KV that belongs to a session, which lives for as long as it is renewed (Consul: "Sessions").
//!
//! What holds: whatever ends a session, nobody else gets the lock for its delay then. Consul ends one at the earliest when its
//! time has passed since it took the last renewal; an agent that leaves its cluster, and a node that is deregistered, take their
//! sessions with them at once. So the lock is ours until the shorter of the two after we asked for a renewal that Consul took, by a
//! clock that goes on while the machine is suspended, and no longer. Whoever was stopped beyond it is told of the loss before
//! anything else. Who comes next has a larger fencing token: the index of Consul's log that made the key his, which never goes back.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lictor_config::Consistency;
use lictor_os::boot::{Alarm, Moment};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch as channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::held::{Done, Entry, Holdings};
use crate::agent::kv::{self, Owned};
use crate::agent::transaction::{self, Operation, Refused};
use crate::agent::{Answer, Ask, Client, Connection, ConsulError, PATIENCE, Random, session};
use crate::status::Status;
use crate::watch::{Asked, KnownWatch};

/// Between two tries to have it, or to renew it after an error.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a watch, as for others.
const WAIT: Duration = Duration::from_secs(60);
/// To tell Consul of an end; what it does not hear ends with its time.
const END_WITHIN: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWanted {
    /// For people.
    pub name: String,
    /// The key in KV.
    pub key: String,
    /// How long it lives without a renewal; at least 10 s, by Consul's rule.
    pub ttl: Duration,
    /// How long to wait for it.
    pub wait: Duration,
    /// How long nobody has it after a holder that was lost; at least [`Self::LEAST_DELAY`].
    pub delay: Duration,
}

impl LockWanted {
    /// The least for `delay`, of which three renewals have a third each.
    pub const LEAST_DELAY: Duration = Duration::from_secs(5);

    /// How long it is ours after a renewal.
    fn life(&self) -> Duration {
        self.ttl.min(self.delay)
    }
}

/// A lock that is ours; dropped, it is given up as by one who was lost.
#[derive(Debug)]
pub struct Held {
    /// Whoever knows this may give it back.
    pub owner: String,
    /// Larger than that of each holder before, also of a key that was deleted meanwhile.
    pub fencing_token: u64,
    ended: oneshot::Receiver<Ended>,
}

impl Held {
    /// Waits for its end.
    pub async fn ended(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or_else(|_| Ended::Lost("the sidecar has ended".to_owned()))
    }
}

/// Why it is not ours any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was given back.
    Released,
    /// It may be somebody else's; the words say why.
    Lost(String),
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLock {
    /// Somebody has it, who says so of himself.
    Taken(Option<String>),
    /// Its last holder was lost a moment ago.
    Delayed,
    /// This process has enough of them.
    TooMany,
    /// This process ends.
    Stopping,
    /// Consul's word.
    Consul(ConsulError),
}

/// Takes it in a task of its own, which ends what was begun when nobody waits for it any more.
pub(super) async fn take(
    holdings: &Arc<Holdings>,
    client: &Arc<Client>,
    status: &Arc<Status>,
    wanted: LockWanted,
) -> Result<Held, NoLock> {
    if holdings.is_closing() {
        return Err(NoLock::Stopping);
    }
    let place = holdings.place().ok_or(NoLock::TooMany)?;
    let (tell, told) = oneshot::channel();
    let (holdings, client, status) = (Arc::clone(holdings), Arc::clone(client), Arc::clone(status));
    tokio::spawn(Lock { wanted, holdings, client, status, _place: place }.run(tell));
    told.await.unwrap_or(Err(NoLock::Stopping))
}

struct Lock {
    wanted: LockWanted,
    holdings: Arc<Holdings>,
    client: Arc<Client>,
    status: Arc<Status>,
    _place: OwnedSemaphorePermit,
}

/// A session of ours.
struct Session {
    id: String,
    /// When it was asked for, or for its last renewal that Consul took.
    asked: Moment,
}

/// How holding it ends.
enum End {
    Lost(String),
    /// Nobody holds it any more.
    Left,
    Released(Done),
}

impl Lock {
    async fn run(self, mut tell: oneshot::Sender<Result<Held, NoLock>>) {
        let mut connection = Connection::new(&self.client, self.status.connections());
        let mut session = None;
        let taken = self.take(&mut connection, &mut session, &mut tell).await;
        let is_wanted = !tell.is_closed() && !self.holdings.is_closing();
        let refusal = match (taken, session) {
            (Ok((fencing_token, alarm)), Some(session)) if is_wanted => {
                let (tell_end, ended) = oneshot::channel();
                let entry = self.holdings.add(&self.wanted.name, &session.id);
                // Where nobody is told, `ended` is gone.
                let _ = tell.send(Ok(Held { owner: session.id.clone(), fencing_token, ended }));
                return self.hold(connection, session, alarm, entry, tell_end).await;
            }
            (taken, session) => {
                connection.abandon();
                if let Some(session) = session {
                    // Nobody has had it: where it is the session's, nobody has to wait for the delay.
                    if matches!(taken, Ok(_) | Err(NoLock::Consul(_))) {
                        let _ = self.release(&mut connection, &session).await; // then it ends with its session
                    }
                    self.destroy(&mut connection, &session).await;
                }
                taken.err().unwrap_or(NoLock::Stopping)
            }
        };
        let _ = tell.send(Err(refusal)); // perhaps nobody waits
    }

    /// Tries until it is ours, there is an error, this has taken long enough, or nobody waits for it; what its fencing token is,
    /// and the alarm for the end of its life. A session that is being made is waited for: else nobody would end it.
    async fn take(
        &self,
        connection: &mut Connection,
        session: &mut Option<Session>,
        tell: &mut oneshot::Sender<Result<Held, NoLock>>,
    ) -> Result<(u64, Alarm), NoLock> {
        let until = Instant::now() + self.wanted.wait;
        let no_alarm = |error: io::Error| NoLock::Consul(ConsulError::Unreachable(error.to_string()));
        let mut alarm = Alarm::at(Moment::now()).map_err(no_alarm)?;
        let mut random = Random::new();
        let mut watch = None;
        let mut gone = pin!(async {
            tokio::select! {
                () = tell.closed() => (),
                () = self.holdings.closing() => (),
            }
        });
        loop {
            let seen = tokio::select! {
                biased;
                () = &mut gone => return Err(NoLock::Stopping),
                seen = self.free(connection, session.as_ref()) => seen,
            };
            let attempted = match seen {
                Ok(index) => self.attempt(connection, session, index).await,
                Err(refusal) => Err(refusal),
            };
            let refusal = match attempted {
                Ok((fencing_token, good_until)) => {
                    alarm.set(good_until).map_err(no_alarm)?;
                    return Ok((fencing_token, alarm));
                }
                Err(refusal) => refusal,
            };
            let may_change = match &refusal {
                NoLock::Taken(_) | NoLock::Delayed => true,
                NoLock::Consul(error) => error.is_outage(),
                NoLock::TooMany | NoLock::Stopping => false,
            };
            let pause = PAUSE.mul_f64(0.5 + random.share());
            if !may_change || Instant::now() + pause >= until {
                return Err(refusal);
            }
            let again = async {
                sleep(pause).await;
                if matches!(refusal, NoLock::Taken(_)) {
                    let watch = watch.get_or_insert_with(|| self.watch());
                    let free = watch.known.wait_for(|known| *known == Some(Owner(None)));
                    return timeout_at(until, free).await.is_ok();
                }
                true
            };
            tokio::select! {
                biased;
                () = &mut gone => return Err(NoLock::Stopping),
                is_free = again => if !is_free { return Err(refusal) },
            }
        }
    }

    /// The key's index if nobody else has it, `None` if there is no such key. A session for nothing is two writes of Consul's log.
    async fn free(&self, connection: &mut Connection, ours: Option<&Session>) -> Result<Option<u64>, NoLock> {
        let now = Ask { index: None, wait: Duration::ZERO };
        let known = kv::owned(connection, &self.wanted.key, now, Consistency::Default).await;
        let (_, Some(Owned { session, entry, .. })) = known.map_err(NoLock::Consul)? else { return Ok(None) };
        let is_free = session.is_none_or(|session| ours.is_some_and(|ours| ours.id == session));
        if is_free { Ok(Some(entry.modify_index)) } else { Err(NoLock::Taken(who(&entry.value))) }
    }

    /// The fencing token, and until when it is ours without a renewal.
    async fn attempt(
        &self,
        connection: &mut Connection,
        session: &mut Option<Session>,
        index: Option<u64>,
    ) -> Result<(u64, Moment), NoLock> {
        let LockWanted { name, key, ttl, delay, .. } = &self.wanted;
        let life = self.wanted.life();
        if let Some(known) = session
            && known.asked.elapsed() > life / 3
        {
            let asked = Moment::now();
            if session::renew(connection, &known.id, PATIENCE).await.map_err(NoLock::Consul)? {
                known.asked = asked;
            } else {
                *session = None;
            }
        }
        let ours = match session {
            Some(session) => session,
            None => {
                let asked = Moment::now();
                let label = format!("lictor: {name}");
                let id = session::create(connection, &label, *ttl, *delay).await.map_err(NoLock::Consul)?;
                session.insert(Session { id, asked })
            }
        };
        let value = json!({ "holder": self.holdings.holder }).to_string();
        let operation = index.map_or(Operation::LockNew(&ours.id), |index| Operation::LockAt(&ours.id, index));
        match transaction::run(connection, operation, key, value.as_bytes(), None).await.map_err(NoLock::Consul)? {
            // It took too long, or we were stopped: the next attempt renews, and finds it ours.
            Ok(_) if (ours.asked + life).is_over() => Err(NoLock::Consul(ConsulError::Timeout(life))),
            Ok(indexes) => Ok((indexes.modify_index, ours.asked + life)),
            Err(Refused::Held | Refused::Changed) => Err(NoLock::Taken(None)),
            Err(Refused::Delayed) => Err(NoLock::Delayed),
            Err(Refused::NoSession) => {
                *session = None;
                Err(NoLock::Delayed)
            }
        }
    }

    async fn hold(
        &self,
        mut connection: Connection,
        session: Session,
        alarm: Alarm,
        mut entry: Entry,
        mut ended: oneshot::Sender<Ended>,
    ) {
        let mut watch = self.watch();
        let end = tokio::select! {
            biased;
            why = self.renew(&mut connection, &session, alarm) => End::Lost(why),
            why = watch.lost(&session.id) => End::Lost(why),
            () = self.holdings.closing() => End::Lost("the sidecar is stopping".to_owned()),
            Some(done) = entry.releases.recv() => End::Released(done),
            () = ended.closed() => End::Left,
        };
        drop(watch);
        connection.abandon();
        let name = &self.wanted.name;
        match end {
            End::Lost(why) => {
                warn!(target: "lictor::event", kind = "lock_lost", %name, why, "a lock is not ours any more");
                let _ = ended.send(Ended::Lost(why));
                self.destroy(&mut connection, &session).await;
            }
            End::Left => {
                let delay_ms = self.wanted.delay.as_millis() as u64;
                info!(target: "lictor::event", kind = "lock_left", %name, delay_ms, "whoever held a lock is gone; it is free after the delay");
                self.destroy(&mut connection, &session).await;
            }
            End::Released(done) => {
                let released = self.release(&mut connection, &session).await;
                self.destroy(&mut connection, &session).await;
                let _ = ended.send(Ended::Released);
                drop(entry);
                let _ = done.send(released); // whoever asked may have gone
            }
        }
    }

    /// Renews the session in time, for as long as that works; why it does not.
    async fn renew(&self, connection: &mut Connection, session: &Session, mut alarm: Alarm) -> String {
        let life = self.wanted.life();
        let at_most = (life / 6).clamp(Duration::from_secs(1), PATIENCE);
        let mut good_until = session.asked + life;
        let mut pause = (session.asked + life / 3).left();
        let mut last = "nothing came back".to_owned();
        loop {
            let turn = async {
                sleep(pause).await;
                (Moment::now(), session::renew(connection, &session.id, at_most).await)
            };
            let turn = tokio::select! {
                biased;
                () = alarm.rings() => None,
                turn = turn => Some(turn),
            };
            // An answer from before we were stopped may be seen before the alarm.
            let (asked, renewed) = match turn {
                Some(turn) if !good_until.is_over() => turn,
                _ => return format!("it was not renewed in time: {last}"),
            };
            match renewed {
                Ok(true) => {
                    (good_until, pause) = (asked + life, (asked + life / 3).left());
                    if let Err(error) = alarm.set(good_until) {
                        return format!("its time cannot be told: {error}");
                    }
                }
                Ok(false) => return "Consul has ended its session".to_owned(),
                Err(error) => (pause, last) = (PAUSE, error.to_string()),
            }
        }
    }

    /// Gives the key up, without a delay for whoever comes next; the words are why Consul does not know of it.
    async fn release(&self, connection: &mut Connection, session: &Session) -> Result<(), String> {
        match timeout(END_WITHIN, kv::release(connection, &self.wanted.key, &session.id)).await {
            Ok(Ok(_)) => Ok(()), // one that was not ours any more is free of us, too
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                connection.abandon();
                Err(ConsulError::Timeout(END_WITHIN).to_string())
            }
        }
    }

    async fn destroy(&self, connection: &mut Connection, session: &Session) {
        let _ = timeout(END_WITHIN, session::destroy(connection, &session.id)).await; // it ends by itself
    }

    /// What is said from now on is what there was after now.
    fn watch(&self) -> Watch {
        let sender = channel::Sender::new(None);
        let known = sender.subscribe();
        let watch = KnownWatch {
            asked: LockKey { key: self.wanted.key.clone() },
            client: Arc::clone(&self.client),
            status: Arc::clone(&self.status),
            consistency: Consistency::Consistent,
            wait: WAIT,
            known: sender,
        };
        Watch { known, task: tokio::spawn(watch.run()).abort_handle() }
    }
}

/// The watch of a lock's key, until it is dropped.
struct Watch {
    known: channel::Receiver<Option<Owner>>,
    task: AbortHandle,
}

impl Watch {
    /// Until it is not this session's; in words.
    async fn lost(&mut self, session: &str) -> String {
        let is_lost =
            |known: &Option<Owner>| known.as_ref().is_some_and(|Owner(known)| known.as_deref() != Some(session));
        if self.known.wait_for(is_lost).await.is_err() {
            std::future::pending::<()>().await; // the renewal tells
        }
        "in Consul it does not belong to its session any more".to_owned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The session that a key belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Owner(Option<String>);

/// The key.
#[derive(Debug)]
struct LockKey {
    key: String,
}

impl Asked for LockKey {
    type Known = Owner;

    async fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> Result<(Answer, Owner), ConsulError> {
        let (answer, known) = kv::owned(connection, &self.key, ask, consistency).await?;
        Ok((answer, Owner(known.and_then(|known| known.session))))
    }

    fn is_loss(before: &Owner, now: &Owner) -> bool {
        before.0.is_some() && before != now
    }

    fn answered(&self, _index: u64, _known: &Owner, _is_news: bool) {}

    /// The renewal tells.
    fn failed(&self, _error: &ConsulError) {}
}

/// What the holder says of himself.
fn who(value: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    value["holder"].as_str().map(|holder| holder.chars().take(200).collect())
}
