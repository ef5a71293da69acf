//! The attempts of a request, and then: the upstream's answer, or a kept one that it confirms or that stands in for it.

use http::Response;
use lictor_core::{Failure, Reason};

use super::call::Call;
use super::ending::ResponseBody;
use super::fallback::Standby;
use super::respond;
use super::sent::Sent;
use crate::admission::cache::{self, Asking, Verdict};
use crate::books::record::Record;

/// Sends, until there is an answer for the client.
pub(super) async fn answer(
    mut call: Box<Call>,
    record: Box<Record>,
    mut asking: Option<Box<Asking>>,
    standby: &Standby<'_>,
) -> Response<ResponseBody> {
    loop {
        let mut sent = match call.run(&record).await {
            Ok(sent) => sent,
            Err(end) if standby.is_for(end.0.reason.status()) && !has_kept(asking.as_deref(), &end.0) => {
                return Box::pin(standby.answer_instead(call, Err(end), record, asking)).await;
            }
            Err((failure, is_budget_spent)) => {
                drop(call);
                return failed(record, &failure, is_budget_spent, asking, standby);
            }
        };
        match asking.as_deref_mut().map_or(Verdict::PassOn, |asking| judge(asking, &call, &record, &mut sent)) {
            Verdict::PassOn if standby.is_for(sent.response.status()) => {
                return Box::pin(standby.answer_instead(call, Ok(sent), record, asking)).await;
            }
            Verdict::PassOn => return call.answer(sent, record, asking),
            Verdict::Give(given) => {
                call.judge_status(sent.response.status(), &record, sent.at);
                sent.discard();
                drop(call);
                if let Some(asking) = asking {
                    asking.fail(Reason::Status, false); // no answer of its own, where it is not one that was confirmed
                }
                return respond::kept(record, given);
            }
            Verdict::AskAgain => {
                sent.discard();
                cache::forget_conditions(&mut call.head.headers);
            }
        }
    }
}

/// There is no answer: what is kept stands in for it, or the client is told why.
pub(super) fn failed(
    record: Box<Record>,
    failure: &Failure,
    is_budget_spent: bool,
    asking: Option<Box<Asking>>,
    standby: &Standby<'_>,
) -> Response<ResponseBody> {
    if let Some(asking) = asking {
        let given = asking.instead(failure.reason.status());
        asking.fail(failure.reason, !record.attempts.borrow().is_empty());
        if let Some(given) = given {
            return respond::kept(record, given);
        }
    }
    match standby.fixed(failure) {
        Some(fixed) => respond::fixed(record, fixed),
        None => respond::failure(record, failure, is_budget_spent),
    }
}

fn has_kept(asking: Option<&Asking>, failure: &Failure) -> bool {
    asking.is_some_and(|asking| asking.instead(failure.reason.status()).is_some())
}

fn judge(asking: &mut Asking, call: &Call, record: &Record, sent: &mut Sent) -> Verdict {
    let when = record.exchanged(sent.at);
    let status = sent.response.status();
    asking.judge(&call.head.headers, status, sent.response.headers_mut(), sent.fields, &when)
}
