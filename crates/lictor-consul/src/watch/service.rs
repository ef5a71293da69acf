//! The watch of one query for a service: asks, believes or confirms, and tells the control loop. It ends when it is aborted.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use lictor_config::{Consistency, Query};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::guard::{Guard, Hidden, Id, Observed};
use crate::agent::{Answer, Ask, Client, Connection, ConsulError, Cursor, Instance, Random, Throttle, Worth, health};
use crate::status::Status;

/// A prepared query is asked anew after this long, give or take a quarter: Consul does not tell when its answer changes.
const POLL: Duration = Duration::from_secs(10);

/// When all watches ask anew at once, they do so within this.
const SPREAD: Duration = Duration::from_millis(500);

/// A server that has not heard of its leader for this long may have been left behind: leaders are replaced sooner.
const OUT_OF_TOUCH: Duration = Duration::from_secs(10);

/// News for the control loop.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) query: Query,
    pub(crate) observed: Observed,
}

/// What the control loop learns elsewhere, and a watch should know.
#[derive(Debug)]
pub(crate) enum Hint {
    /// Connections to several endpoints fail: what is known may be old.
    Stale,
    /// Connections to these fail.
    Gone(Vec<Id>),
}

/// How often a watch is asked anew because connections fail: a consistent read is work for Consul's leader.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// When that brings nothing new each further one is twice as late, up to this.
const REFRESH_SELDOM: Duration = Duration::from_secs(160);

/// One watch.
#[derive(Debug)]
pub(crate) struct ServiceWatch {
    /// What the configuration asks for: the name of the news.
    pub(crate) key: Query,
    /// The same with the default datacenter filled in.
    pub(crate) query: Query,
    pub(crate) client: Arc<Client>,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    pub(crate) max_stale: Duration,
    pub(crate) guard: Guard,
    pub(crate) cursor: Cursor,
    pub(crate) status: Arc<Status>,
    pub(crate) news: mpsc::UnboundedSender<News>,
    pub(crate) hints: mpsc::UnboundedReceiver<Hint>,
    pub(crate) refreshes: Refreshes,
    pub(crate) random: Random,
    /// Many watches do not start at the same instant.
    pub(crate) delay: Duration,
}

impl ServiceWatch {
    /// Watches until aborted.
    pub(crate) async fn run(mut self) {
        tokio::time::sleep(self.delay).await;
        let mut connection = Connection::new(&self.client, &self.connections);
        let mut throttle = Throttle::of_watch(Instant::now());
        let mut age = Age { fresh: Instant::now(), is_told: false };
        let mut fresh = self.client.fresh();
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let token = self.client.token();
            let turn = tokio::select! {
                turn = self.turn(&mut connection, &mut throttle, &mut age) => turn,
                changed = fresh.changed() => {
                    changed.expect("the client is ours");
                    connection = Connection::new(&self.client, &self.connections);
                    self.cursor.asks_anew();
                    tokio::time::sleep(SPREAD.mul_f64(self.random.share())).await;
                    continue;
                }
            };
            let error = match turn {
                Ok(Turn::Done) => continue,
                Ok(Turn::Stale) => match self.refresh(&mut connection, &mut age).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if matches!(error, ConsulError::Unreachable(_)) {
                throttle.give_back();
            }
            self.status.failed(&self.key, &error);
            self.warn_of(&mut age);
            let pause = self.cursor.failed(&error, self.random.share());
            self.client.pause_after(&error, token.as_ref(), pause).await;
        }
    }

    /// One query and what follows from its answer.
    async fn turn(
        &mut self,
        connection: &mut Connection,
        throttle: &mut Throttle,
        age: &mut Age,
    ) -> Result<Turn, ConsulError> {
        let ask = match self.cursor.ask(self.wait) {
            ask if self.query.is_prepared => Ask { index: None, ..ask },
            ask => ask,
        };
        let asked = Instant::now();
        let Some(answered) = self.ask(connection, ask).await else { return Ok(Turn::Stale) };
        let (answer, mut instances) = answered?;
        let index = answer.index().filter(|_| !self.query.is_prepared); // it has none of its own
        let worth = self.cursor.answered(ask, index, asked.elapsed());
        let behind = behind(&answer);
        age.answered(behind);
        self.warn_of(age);
        if worth == Worth::AskAgain {
            self.status.answered(&self.key, self.cursor.index(), instances.len(), behind);
            return Ok(Turn::Done);
        }
        self.guard.carry_over(&mut instances);
        let is_doubtful = worth == Worth::Doubt || is_leaderless(&answer);
        self.unhide(&mut instances, &answer, is_doubtful);
        if self.guard.doubts(&instances, is_doubtful, Instant::now()) {
            throttle.take(Instant::now()); // confirming is a query too, but it does not wait
            instances = match self.confirm(connection, is_doubtful).await {
                Ok((_, instances)) => instances,
                // Rather what Consul says in doubt than what it said to an earlier process.
                Err(_) if self.guard.is_remembered() && instances.iter().any(Instance::is_usable) => instances,
                Err(error) => {
                    self.cursor.unconfirmed();
                    return Err(error);
                }
            };
        }
        // Not before it is believed: an answer that nobody confirms does not make good the error of asking.
        self.status.answered(&self.key, self.cursor.index(), instances.len(), behind);
        if !self.guard.is_known() && instances.is_empty() {
            self.hint(&answer);
        }
        if self.take(instances) {
            throttle.was_news();
        }
        Ok(Turn::Done)
    }

    /// Asks, and waits for the answer, for hints, and for what changes with time meanwhile; a poll waits for its turn first.
    /// `None`: what is known may be old.
    async fn ask(
        &mut self,
        connection: &mut Connection,
        ask: Ask,
    ) -> Option<Result<(Answer, Vec<Instance>), ConsulError>> {
        let is_away = self.cursor.is_failing();
        let is_again = self.query.is_prepared && self.guard.is_known() && !self.guard.is_remembered() && !is_away;
        let pause = if is_again { POLL.mul_f64(0.75 + self.random.share() / 2.0) } else { Duration::ZERO };
        let Self { query, consistency, guard, news, key, hints, refreshes, .. } = self;
        let asking = async {
            tokio::time::sleep(pause).await;
            health::get(connection, query, ask, *consistency).await
        };
        let mut asking = std::pin::pin!(asking);
        loop {
            let changes_at = guard.changes_at(is_away);
            let changed = tokio::select! {
                biased;
                answer = &mut asking => return Some(answer),
                hint = hints.recv() => match hint {
                    Some(Hint::Stale) if refreshes.may(Instant::now()) => return None,
                    Some(Hint::Stale) => None,
                    Some(Hint::Gone(ids)) => guard.drop_suspects(&ids),
                    None => std::future::pending().await, // the loop has ended, and this with it
                },
                () = at(changes_at) => guard.pass(is_away, Instant::now()),
            };
            // The news goes out while the query goes on.
            if let Some(observed) = changed {
                let _ = news.send(News { query: key.clone(), observed });
            }
        }
    }

    /// Reads anew what is known, consistently: a server that lags, or a query that hangs, does not matter then.
    async fn refresh(&mut self, connection: &mut Connection, age: &mut Age) -> Result<(), ConsulError> {
        connection.abandon();
        let (answer, instances) = self.confirm(connection, false).await?;
        let index = answer.index().filter(|_| !self.query.is_prepared);
        self.cursor.answered(Ask { index: None, wait: self.wait }, index, Duration::ZERO);
        age.answered(behind(&answer));
        self.status.answered(&self.key, self.cursor.index(), instances.len(), behind(&answer));
        self.status.refreshed();
        let is_news = self.take(instances);
        info!(target: "lictor::event", kind = "refreshed", service = %self.query.service, is_news, "connections to several endpoints fail; Consul was asked anew");
        self.refreshes.done(is_news, Instant::now());
        Ok(())
    }

    /// A read that the leader confirms, and that does not wait for a change.
    async fn confirm(
        &mut self,
        connection: &mut Connection,
        is_doubtful: bool,
    ) -> Result<(Answer, Vec<Instance>), ConsulError> {
        let now = Ask { index: None, wait: self.wait };
        let (answer, mut instances) = health::get(connection, &self.query, now, Consistency::Consistent).await?;
        self.guard.carry_over(&mut instances);
        self.unhide(&mut instances, &answer, is_doubtful);
        Ok((answer, instances))
    }

    /// What ACLs hide is not gone: it stays as it was known, and that is told.
    fn unhide(&mut self, instances: &mut Vec<Instance>, answer: &Answer, is_doubtful: bool) {
        let hidden = if says(answer, FILTERED, "true") {
            self.guard.unhide(instances, is_doubtful, Instant::now())
        } else {
            self.guard.sees_all()
        };
        let service = &self.query.service;
        match hidden {
            Hidden::Since(count) => {
                warn!(target: "lictor::event", kind = "acl_filtered", %service, kept = count, "Consul's ACLs hide instances that were seen before: the last of them stay in use; the token needs service:read and node:read");
            }
            Hidden::NoMore => {
                info!(target: "lictor::event", kind = "acl_unfiltered", %service, "Consul's ACLs hide no instance any more");
            }
            Hidden::AsBefore => (),
        }
    }

    /// Takes what is believed; whether it is news.
    fn take(&mut self, instances: Vec<Instance>) -> bool {
        let was_suspecting = self.guard.is_suspecting();
        let Some(observed) = self.guard.take(instances, Instant::now()) else { return false };
        if !observed.suspects.is_empty() && !was_suspecting {
            warn!(
                target: "lictor::event",
                kind = "empty_kept",
                service = %self.query.service,
                kept = observed.suspects.len(),
                for_ms = self.guard.grace().as_millis() as u64,
                "too few healthy instances are left; those that are gone are kept for a while, as the last to be used"
            );
        }
        let _ = self.news.send(News { query: self.key.clone(), observed });
        true
    }

    /// Old data is used, and said to be old, once.
    fn warn_of(&self, age: &mut Age) {
        let is_old = age.fresh.elapsed() > self.max_stale;
        if is_old && !age.is_told {
            warn!(
                target: "lictor::event",
                kind = "stale",
                service = %self.query.service,
                age_ms = age.fresh.elapsed().as_millis() as u64,
                "Consul's answers are older than consul.max_stale; the endpoints stay in use"
            );
        }
        age.is_told = is_old;
    }

    /// An empty first answer is what a token without rights gets too.
    fn hint(&self, answer: &Answer) {
        let is_filtered = says(answer, FILTERED, "true");
        let is_default_deny = says(answer, "x-consul-default-acl-policy", "deny");
        let service = &self.query.service;
        if is_filtered || (is_default_deny && !self.client.has_token()) {
            warn!(%service, "Consul's ACLs hide instances: the token needs service:read and node:read");
        } else if !self.client.has_token() {
            info!(%service, "no instance is registered (or ACLs hide them: there is no Consul token)");
        } else {
            info!(%service, "no instance is registered, or the token lacks service:read and node:read");
        }
    }
}

/// What became of a turn.
enum Turn {
    Done,
    /// What is known may be old: it is to be read anew.
    Stale,
}

/// When it may next be read anew.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    next: Option<Instant>,
    pause: Duration,
}

impl Refreshes {
    fn may(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    fn done(&mut self, is_news: bool, now: Instant) {
        let longer = (self.pause * 2).clamp(REFRESH_EVERY, REFRESH_SELDOM);
        self.pause = if is_news { REFRESH_EVERY } else { longer };
        self.next = Some(now + self.pause);
    }
}

async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}

/// How old the data is.
#[derive(Debug)]
struct Age {
    fresh: Instant,
    is_told: bool,
}

impl Age {
    fn answered(&mut self, behind: Option<Duration>) {
        let now = Instant::now();
        self.fresh = now.checked_sub(behind.unwrap_or_default()).unwrap_or(now);
    }
}

/// How long ago the server that answered heard from its leader. Not every version and way of reading says it.
fn behind(answer: &Answer) -> Option<Duration> {
    answer.headers.get("x-consul-lastcontact")?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// Since Consul 1.11: there is more than the token may see.
const FILTERED: &str = "x-consul-results-filtered-by-acls";

fn says(answer: &Answer, name: &str, what: &str) -> bool {
    answer.headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(what.as_bytes()))
}

/// Whether the server that answered has no leader, or has not heard of it for so long that what it says may be of
/// before a loss of its own. Answers from a stream say nothing of it, and the first versions with streams say `false` all the
/// same (hashicorp/consul #9776).
fn is_leaderless(answer: &Answer) -> bool {
    let is_streamed = says(answer, "x-consul-query-backend", "streaming");
    !is_streamed
        && (says(answer, "x-consul-knownleader", "false") || behind(answer).is_some_and(|it| it > OUT_OF_TOUCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_anew_is_seldom_and_seldomer_while_it_brings_nothing() {
        let (mut refreshes, mut now) = (Refreshes::default(), Instant::now());
        assert!(refreshes.may(now));
        for (is_news, seconds) in [
            (false, 10),
            (false, 20),
            (false, 40),
            (true, 10),
            (false, 20),
            (false, 40),
            (false, 80),
            (false, 160),
            (false, 160),
        ] {
            refreshes.done(is_news, now);
            let pause = Duration::from_secs(seconds);
            assert!(!refreshes.may(now + pause.mul_f64(0.99)) && refreshes.may(now + pause));
            now += pause;
        }
    }
}
