//! The attempts of a request, one after the other, or side by side: until there is an answer to pass on, or there will be none.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use http::{Method, StatusCode};
use lictor_core::Failure;
use lictor_core::policy::Hedge;
use lictor_core::retry::{self, Asked, Denied, Next, Tried};

use super::attempt::attempt;
use super::call::Call;
use super::hedge::hedged;
use super::sent::Sent;
use crate::books::record::Record;
use crate::clock::{self, Stage};
use crate::names::X_LICTOR_NO_RETRY;

impl Call {
    /// Sends until there is an answer to pass on, a final failure, or no budget, attempts or time remain. The flag
    /// says that it was the retry budget that ended it.
    pub(super) async fn run(&mut self, record: &Record) -> Result<Sent, (Failure, bool)> {
        let upstream = Rc::clone(&self.upstream);
        upstream.budget.deposit(self.deadline.arrival());
        loop {
            let tried = match self.hedge() {
                None => attempt(self, record).await,
                Some(hedge) => Box::pin(hedged(self, hedge, record)).await,
            };
            let (failure, held) = match tried {
                Ok(sent) if is_refused(&sent) && Box::pin(self.has_newer_token(record)).await => {
                    sent.discard();
                    continue;
                }
                Ok(sent) => match self.objection(&sent) {
                    None => return Ok(sent),
                    Some(failure) => (failure, Some(sent)),
                },
                Err(failure) => (failure, None),
            };
            let next = self.next(&failure, held.as_ref());
            record.followed(&failure, next);
            let wait = match next {
                Next::Retry(wait) => wait,
                Next::Stop(denied) => {
                    if self.max_attempts > 1 && denied != Denied::Attempts {
                        upstream.meters.retry_denied(&self.worker.shared.metrics, denied.as_str());
                        record.retry_denied.set(Some(denied.as_str()));
                    }
                    self.judge(&failure, held.as_ref(), record);
                    self.spend(denied, held.as_ref(), record);
                    return held.ok_or((failure, denied == Denied::Budget));
                }
            };
            upstream.meters.retried();
            if let Some(sent) = held {
                sent.discard();
            }
            if let Err(end) = clock::pause(self.end(), wait).await {
                let sentence = format!("the time was over before another attempt; the last: {}", failure.detail);
                let failure = clock::ran_out(&self.worker.shared.metrics, end, Stage::Upstream, sentence);
                self.judge(&failure, None, record);
                return Err((failure, false));
            }
        }
    }

    /// How its slow attempts are hedged, if they may be: only what is safe to send twice, and small.
    fn hedge(&self) -> Option<Hedge> {
        let hedge = self.policy().hedge?;
        let is_safe = matches!(self.head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        (is_safe && self.body.is_empty() && self.upgrade.is_none()).then_some(hedge)
    }

    fn next(&self, failure: &Failure, held: Option<&Sent>) -> Next {
        let now = Instant::now();
        let headers = held.map(|sent| sent.response.headers());
        if headers.is_some_and(|headers| headers.contains_key(X_LICTOR_NO_RETRY)) {
            return Next::Stop(Denied::Class);
        }
        let attempts = self.tried.borrow().len() as u32;
        if attempts >= self.max_attempts {
            return Next::Stop(Denied::Attempts);
        }
        let tried = Tried {
            failure,
            attempts,
            is_idempotent: self.is_idempotent,
            is_replayable: self.body.is_replayable() && self.upgrade.is_none(),
            asked: headers.map_or(Asked::Nothing, |headers| Asked::of(headers, self.is_grpc, SystemTime::now())),
            remaining: self.end().map(|end| end.left(now)),
            has_other: self.has_other(now),
        };
        retry::next(&self.policy().retry, &tried, &self.upstream.budget, now, self.worker.chance())
    }

    /// The breaker's verdict on a request that ended without an answer; with one, [`Call::answer`] gives it.
    pub(super) fn judge(&mut self, failure: &Failure, held: Option<&Sent>, record: &Record) {
        if held.is_some() {
            return;
        }
        if let Some(probe) = self.probe.take() {
            record.breaker.set(probe.failed(failure.reason, &|word| record.blame(word)));
        }
    }

    /// Tells the tiers above, which would multiply them, that this request's retries are used up, ours or our callee's.
    fn spend(&mut self, denied: Denied, held: Option<&Sent>, record: &Record) {
        if self.is_inbound || self.max_attempts < 2 {
            return;
        }
        self.spent = match denied {
            Denied::Attempts => Some("attempts"),
            Denied::Budget => Some("retry-budget"),
            Denied::Body | Denied::Class | Denied::Deadline | Denied::Method => None,
        };
        let is_told = held.is_some_and(|sent| sent.response.headers().contains_key(X_LICTOR_NO_RETRY));
        if self.spent.is_some() || is_told {
            self.worker.shared.spent.note(&record.request_id);
        }
    }
}

/// Whoever we are, or say that we are.
fn is_refused(sent: &Sent) -> bool {
    sent.response.status() == StatusCode::UNAUTHORIZED
}
