//! The watch of one answer that is more than a list of instances: what is known of it is the last good one, for as long as
//! Consul is away.
//!
//! What vanishes is asked for again with a consistent read before that counts: a server that replays its log has not got to
//! it yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_config::Consistency;
use tokio::sync::watch as channel;

use crate::agent::{Answer, Ask, Client, Connection, ConsulError, Cursor, Random, Throttle, Worth};
use crate::status::Status;

/// What is asked for.
pub(crate) trait Asked {
    /// What an answer holds; the default is that there is nothing.
    type Known: Clone + Default + PartialEq;

    /// What it is now, or once that is something else.
    fn get(
        &self,
        connection: &mut Connection,
        ask: Ask,
        consistency: Consistency,
    ) -> impl Future<Output = Result<(Answer, Self::Known), ConsulError>> + Send;

    /// What is known after an answer, with what was known before.
    fn after(&self, _before: &Self::Known, now: Self::Known) -> Self::Known {
        now
    }

    /// Whether something is not there any more.
    fn is_loss(before: &Self::Known, now: &Self::Known) -> bool;

    /// This is what Consul says.
    fn answered(&self, index: u64, known: &Self::Known, is_news: bool);

    /// It says nothing.
    fn failed(&self, error: &ConsulError);
}

/// The watch.
#[derive(Debug)]
pub(crate) struct KnownWatch<A: Asked> {
    pub(crate) asked: A,
    pub(crate) client: Arc<Client>,
    pub(crate) status: Arc<Status>,
    pub(crate) consistency: Consistency,
    pub(crate) wait: Duration,
    /// `None` until something is known.
    pub(crate) known: channel::Sender<Option<A::Known>>,
}

impl<A: Asked> KnownWatch<A> {
    /// Watches until it is dropped.
    pub(crate) async fn run(self) {
        let mut connection = Connection::new(&self.client, self.status.connections());
        let mut cursor = Cursor::new(self.client.is_local());
        let mut throttle = Throttle::of_watch(Instant::now());
        let mut random = Random::new();
        let mut fresh = self.client.fresh();
        loop {
            tokio::time::sleep(throttle.take(Instant::now())).await;
            let token = self.client.token();
            let turn = tokio::select! {
                turn = self.turn(&mut connection, &mut cursor, &mut throttle) => turn,
                changed = fresh.changed() => {
                    changed.expect("the client is ours");
                    connection = Connection::new(&self.client, self.status.connections());
                    cursor.asks_anew();
                    continue;
                }
            };
            let Err(error) = turn else { continue };
            if matches!(error, ConsulError::Unreachable(_)) {
                throttle.give_back();
            }
            self.asked.failed(&error);
            let pause = cursor.failed(&error, random.share());
            if error.is_denied() {
                self.known.send_if_modified(|known| known.is_none() && known.replace(A::Known::default()).is_none());
            }
            self.client.pause_after(&error, token.as_ref(), pause).await;
        }
    }

    async fn turn(
        &self,
        connection: &mut Connection,
        cursor: &mut Cursor,
        throttle: &mut Throttle,
    ) -> Result<(), ConsulError> {
        let ask = cursor.ask(self.wait);
        let asked = Instant::now();
        let (answer, now) = self.asked.get(connection, ask, self.consistency).await?;
        let worth = cursor.answered(ask, answer.index(), asked.elapsed());
        if worth == Worth::AskAgain {
            return Ok(());
        }
        let before = self.known.borrow().clone();
        let mut now = self.after(before.as_ref(), now);
        let is_loss = before.as_ref().is_some_and(|before| A::is_loss(before, &now));
        let is_doubtful = worth == Worth::Doubt && before.as_ref().is_some_and(|before| *before != now);
        if is_loss || is_doubtful {
            throttle.take(Instant::now());
            let at_once = Ask { index: None, wait: self.wait };
            match self.asked.get(connection, at_once, Consistency::Consistent).await {
                Ok((_, confirmed)) => now = self.after(before.as_ref(), confirmed),
                Err(error) => {
                    cursor.unconfirmed();
                    return Err(error);
                }
            }
        }
        let is_news = before.as_ref() != Some(&now);
        self.asked.answered(cursor.index(), &now, is_news);
        if is_news {
            throttle.was_news();
            self.known.send_replace(Some(now));
        }
        Ok(())
    }

    fn after(&self, before: Option<&A::Known>, now: A::Known) -> A::Known {
        match before {
            Some(before) => self.asked.after(before, now),
            None => self.asked.after(&A::Known::default(), now),
        }
    }
}
