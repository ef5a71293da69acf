//! What is answered in place of a failure, after an earlier answer that is kept (`admission::cache`): another upstream's
//! answer, or one that the configuration gives.
//!
//! A failure is an answer with 5xx, or lictor's own with such a status; never 4xx, and never a request that goes in
//! circles. Another upstream is asked once, by its own policy, and what stands in for it is not asked: so two may stand in
//! for each other. Whoever asked for gRPC or an upgrade gets no answer of the configuration's, which would be none to it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Response, StatusCode};
use lictor_core::outcome::Retryable;
use lictor_core::policy::{Fallback, FixedAnswer, Policy};
use lictor_core::{Failure, Reason};

use super::call::Call;
use super::ending::ResponseBody;
use super::respond;
use super::sent::Sent;
use crate::admission::cache::Asking;
use crate::admission::leave::{self, Leave};
use crate::admission::target::Target;
use crate::books::record::Record;
use crate::world::client::Connection;
use crate::world::view::{UpstreamState, View};

/// What the attempts have led to. The flag says that it was the retry budget that ended them.
pub(super) type Ran = Result<Sent, (Failure, bool)>;

/// Whatever stands in for the upstream of one request.
#[derive(Debug)]
pub(super) struct Standby<'a> {
    connection: &'a Rc<Connection>,
    view: &'a View,
    fallback: Option<Arc<Fallback>>,
    /// gRPC, or an upgrade.
    is_special: bool,
}

impl<'a> Standby<'a> {
    pub(super) fn new(connection: &'a Rc<Connection>, view: &'a View, policy: &Policy, is_special: bool) -> Self {
        Self { connection, view, fallback: policy.fallback.clone(), is_special }
    }

    /// Whether there is anything for an answer with this status.
    pub(super) fn is_for(&self, status: StatusCode) -> bool {
        self.fallback.is_some() && status.is_server_error()
    }

    /// The configuration's answer to this failure, if it has one for such requests.
    pub(super) fn fixed(&self, failure: &Failure) -> Option<&FixedAnswer> {
        self.answer().filter(|_| is_bad(failure.reason))
    }

    /// Whether a request that may not be sent to its own upstream may be sent to another one.
    pub(super) fn may_admit(&self, failure: &Failure, asking: Option<&Asking>) -> bool {
        let is_kept = || asking.is_some_and(|asking| asking.instead(failure.reason.status()).is_some());
        let has_other = self.fallback.as_ref().is_some_and(|fallback| fallback.upstream.is_some());
        has_other && !self.is_special && is_bad(failure.reason) && !is_kept()
    }

    /// Leave to send it there.
    pub(super) async fn admit(
        &self,
        target: &Target,
        record: &mut Record,
        failure: Failure,
    ) -> Result<(Option<Target>, Leave), Failure> {
        let Some(other) = self.other(&target.upstream) else { return Err(failure) };
        record.falls_to(&other, failure.reason.status(), Some(failure.reason));
        let leave = leave::admit(&self.connection.worker, &other, record, record.end()).await?;
        Ok((Some(Target { upstream: other, only: None, is_peer: target.is_peer }), leave))
    }

    /// Answers a request that its own upstream has failed, and for which nothing is kept.
    pub(super) async fn answer_instead(
        &self,
        mut call: Box<Call>,
        ran: Ran,
        mut record: Box<Record>,
        mut asking: Option<Box<Asking>>,
    ) -> Response<ResponseBody> {
        let other = self.other(&call.upstream).filter(|_| may_move(&call, &ran, &record));
        let ran = match other {
            None => ran,
            Some(other) => {
                if let Some(asking) = asking.take() {
                    // What stands in may have changed what is kept.
                    asking.stands_back(&mut call.head.headers, reason(&ran), true);
                }
                self.run(&mut call, ran, other, &mut record).await
            }
        };
        let why = reason(&ran);
        let fixed = self.answer().filter(|_| is_bad(why));
        let is_passed_on = ran.as_ref().is_ok_and(|sent| fixed.is_none() || !sent.response.status().is_server_error());
        if let Some(asking) = asking.take_if(|_| !is_passed_on) {
            asking.fail(why, ran.is_err() && !record.attempts.borrow().is_empty());
        }
        match (ran, fixed) {
            (Ok(sent), Some(fixed)) if sent.response.status().is_server_error() => {
                call.judge_status(sent.response.status(), &record, sent.at);
                sent.discard();
                respond::fixed(record, fixed)
            }
            (Err(_), Some(fixed)) => respond::fixed(record, fixed),
            (Ok(sent), _) => call.answer(sent, record, asking),
            (Err((failure, is_budget_spent)), None) => respond::failure(record, &failure, is_budget_spent),
        }
    }

    async fn run(&self, call: &mut Call, ran: Ran, other: Rc<UpstreamState>, record: &mut Record) -> Ran {
        let (status, reason) = match ran {
            Ok(sent) => {
                let status = sent.response.status();
                call.judge_status(status, record, sent.at);
                sent.discard();
                (status, None)
            }
            Err((failure, _)) => (failure.reason.status(), Some(failure.reason)),
        };
        record.falls_to(&other, status, reason);
        call.move_to(self.connection, other, record).await.map_err(|failure| (failure, false))?;
        call.run(record).await
    }

    /// Not to gRPC, nor to an upgrade: it would be no answer to them.
    fn answer(&self) -> Option<&FixedAnswer> {
        self.fallback.as_ref()?.answer.as_ref().filter(|_| !self.is_special)
    }

    fn other(&self, own: &UpstreamState) -> Option<Rc<UpstreamState>> {
        let name = self.fallback.as_ref()?.upstream.as_ref()?;
        self.view.upstreams.get(name).filter(|other| other.upstream.name != own.upstream.name).cloned()
    }
}

fn reason(ran: &Ran) -> Reason {
    ran.as_ref().err().map_or(Reason::Status, |(failure, _)| failure.reason)
}

fn is_bad(reason: Reason) -> bool {
    reason.status().is_server_error() && reason != Reason::LoopDetected
}

/// Whether somebody else may be asked the same: nobody was before, or a second processing is harmless.
fn may_move(call: &Call, ran: &Ran, record: &Record) -> bool {
    let is_unseen = |failure: &Failure| {
        let is_unsent = matches!(
            failure.reason,
            Reason::NoEndpoints | Reason::AllEjected | Reason::BreakerOpen | Reason::Overloaded
        );
        is_unsent || failure.retryable() == Retryable::Always
    };
    let is_failure = ran.as_ref().err().is_none_or(|(failure, _)| is_bad(failure.reason));
    let is_harmless = call.is_idempotent || ran.as_ref().is_err_and(|(failure, _)| is_unseen(failure));
    is_failure
        && is_harmless
        && record.instead_of.is_none()
        && call.body.is_replayable()
        && call.upgrade.is_none()
        && call.end().is_none_or(|end| !end.is_over(Instant::now()))
}
