//! Clients that take nothing of their answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A client must take something of its answer within this, unless the upstream itself may be silent for longer or less.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer holds an upstream's connection and a place among its requests.
#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    /// What was written when nothing more could be, and when that was.
    stopped: Option<(u64, Instant)>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// With the upstream's own limit, if it has one.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit: limit.unwrap_or(SEND_TIMEOUT), stopped: None, sleep: None }
    }

    /// Asked when nothing can be written; ready when that has lasted too long.
    pub(crate) fn poll(&mut self, written: u64, context: &mut Context<'_>) -> Poll<()> {
        let since = match self.stopped {
            Some((same, since)) if same == written => since,
            _ => self.stopped.insert((written, Instant::now())).1,
        };
        poll_until(&mut self.sleep, since + self.limit, context)
    }
}

/// Ready when it is so late. The timer is made when it is first needed, and set again only when it fires.
pub(crate) fn poll_until(sleep: &mut Option<Pin<Box<Sleep>>>, at: Instant, context: &mut Context<'_>) -> Poll<()> {
    let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
    loop {
        ready!(sleep.as_mut().poll(context));
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(at);
    }
}
