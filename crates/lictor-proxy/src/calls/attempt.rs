//! One try: pick an endpoint, take a connection, send, wait for the head, and tell the endpoint's health how it went.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use lictor_core::retry;
use lictor_core::{Failure, Reason};

use super::call::Call;
use super::send::{Exchanged, exchange};
use super::sent::Sent;
use crate::books::attempts::Attempt;
use crate::books::record::Record;
use crate::choose::exchange::{Busy, Exchange};
use crate::choose::pick::pick;
use crate::choose::verdict::{Judged, cause, judge, report};
use crate::clock::{self, Stage};
use crate::names::{self, X_LICTOR_DRAINING, X_LICTOR_REASON, grpc_status};
use crate::stores::outcome::Outcome;
use crate::world::view::EndpointState;

/// A callee that said it is stopping is left alone for this long; by then Consul has told us too.
const DRAIN_REST: Duration = Duration::from_secs(30);

/// Tries once.
pub(super) async fn attempt(call: &Call, record: &Record) -> Result<Sent, Failure> {
    let started = call.starts();
    clock::check(call.end(), started).map_err(|end| {
        let sentence = "the time was over before it could be sent";
        clock::ran_out(&call.worker.shared.metrics, end, Stage::Queue, sentence)
    })?;
    let index = pick(&call.upstream, call.route, &call.tried.borrow(), call.hash, call.only.as_ref(), started)?;
    let number = {
        let mut tried = call.tried.borrow_mut();
        tried.push(index);
        call.earlier + tried.len()
    };
    let state = Rc::clone(&call.upstream.endpoints[index]);
    let mut trial = Trial { record, state: &state, number, is_http2: call.is_http2, began: started, ended: None };
    let mut busy = Busy::new(&state, started);
    let result = exchange(call, &state, number, started).await;
    let outcome = match &result {
        Ok(Exchanged { response, .. }) => Outcome::Status(response.status().as_u16()),
        Err(failure) => Outcome::Failed(failure.reason),
    };
    let now = Instant::now();
    let took = now.saturating_duration_since(started);
    trial.ended = Some((outcome, took));
    drop(trial);
    let grpc = result.as_ref().ok().filter(|_| call.is_grpc).and_then(|got| grpc_status(got.response.headers()));
    let judged = judge(call.policy(), outcome, grpc);
    // A good head is a success once its body is whole: `Exchange::complete`.
    if judged != Judged::Well || call.upgrade.is_some() {
        report(&call.upstream, call.policy(), &state, judged, cause(outcome, grpc));
    }
    match (judged, &result) {
        (Judged::Well, Ok(got)) => {
            busy.took(now.saturating_duration_since(got.since), now);
            call.took(took, now);
        }
        (Judged::Refused | Judged::Failed, _) => busy.ended_badly(judged),
        _ => (),
    }
    let Exchanged { response, fields, hold, .. } = result?;
    let sent = Sent { response, fields, at: now, exchange: Exchange::new(hold, busy) };
    obey(call, &state, &sent, grpc)?;
    Ok(sent)
}

/// What a callee's sidecar tells about itself.
fn obey(call: &Call, state: &EndpointState, sent: &Sent, grpc: Option<u16>) -> Result<(), Failure> {
    let headers = sent.response.headers();
    if sent.fields.has(names::LICTOR) && headers.contains_key(X_LICTOR_DRAINING) {
        state.endpoint.health.drain(Instant::now() + DRAIN_REST);
    }
    let status = sent.response.status();
    if let Some(rest) = retry::rest(status.as_u16(), grpc, headers, SystemTime::now) {
        state.endpoint.health.rest(rest, sent.at);
    }
    match &call.upgrade {
        Some(upgrade) => {
            upgrade.is_granted(status, call.is_http2)?;
        }
        None if status == StatusCode::SWITCHING_PROTOCOLS => {
            let sentence = format!("{} switched protocols without being asked", state.endpoint.address);
            return Err(Failure::new(Reason::ProtocolError, sentence));
        }
        None => (),
    }
    let is_misdirected = status == StatusCode::MISDIRECTED_REQUEST
        && headers.get(X_LICTOR_REASON).is_some_and(|reason| reason == Reason::Misdirected.as_str());
    if is_misdirected && !call.is_inbound {
        state.endpoint.health.drain(Instant::now() + DRAIN_REST);
        let sentence = format!("{} is not {} any more", state.endpoint.address, state.endpoint.service);
        return Err(Failure::new(Reason::Misdirected, sentence).unprocessed());
    }
    Ok(())
}

/// An attempt in the books, also when it is abandoned.
struct Trial<'a> {
    record: &'a Record,
    state: &'a Rc<EndpointState>,
    number: usize,
    is_http2: bool,
    began: Instant,
    ended: Option<(Outcome, Duration)>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let (outcome, took) = self.ended.unwrap_or_else(|| (Outcome::Abandoned, self.began.elapsed()));
        let endpoint = Rc::clone(self.state);
        let (number, began, is_http2) = (self.number, self.began, self.is_http2);
        self.record.attempted(Attempt { endpoint, number, outcome, began, took, is_http2, failure: None });
    }
}
