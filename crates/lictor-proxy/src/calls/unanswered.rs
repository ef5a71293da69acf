//! Why an endpoint has not answered, in words.

use std::time::Duration;

use lictor_core::deadline::End;
use lictor_core::{Failure, Reason};
use lictor_http::{BodyError, http1, http2};

use super::call::Call;
use super::replay::Replay;
use crate::clock::{self, Stage};
use crate::stores::millis::Millis;
use crate::world::view::EndpointState;

/// Of an HTTP/1.1 endpoint.
pub(super) fn http1_failed(call: &Call, state: &EndpointState, error: http1::client::SendError) -> Failure {
    use http1::client::SendError;
    let address = &state.endpoint.address;
    match error {
        SendError::Unsent => {
            let sentence = format!("{address} closed the connection before the request was sent");
            Failure::new(Reason::ResetBeforeResponse, sentence).unprocessed()
        }
        SendError::Body => body_fault(&call.body)
            .unwrap_or_else(|| Failure::new(Reason::BadRequest, "the request's body is not as long as its head says")),
        SendError::Malformed(why) => {
            Failure::new(Reason::ProtocolError, format!("{address} answered with invalid HTTP: {why}"))
        }
        SendError::Closed => body_fault(&call.body).unwrap_or_else(|| {
            let sentence = format!("{address} closed the connection before it answered");
            Failure::new(Reason::ResetBeforeResponse, sentence)
        }),
    }
}

/// Of an HTTP/2 endpoint.
pub(super) fn http2_failed(call: &Call, state: &EndpointState, error: http2::client::SendError) -> Failure {
    use http2::client::SendError;
    let address = &state.endpoint.address;
    let reset = |sentence: String| Failure::new(Reason::ResetBeforeResponse, sentence);
    let malformed = |why| Failure::new(Reason::ProtocolError, format!("{address} answered with invalid HTTP: {why}"));
    match error {
        SendError::Unsent => {
            reset(format!("{address} closed the connection before the request was sent")).unprocessed()
        }
        SendError::Refused(code) => reset(format!("{address} refused the stream: {code}")).unprocessed(),
        SendError::Body => body_fault(&call.body)
            .unwrap_or_else(|| Failure::new(Reason::BadRequest, "the request's body is not as long as its head says")),
        SendError::Malformed(why) => malformed(why),
        SendError::Unfit(why) => malformed(why).unprocessed(),
        SendError::Reset(code) => {
            body_fault(&call.body).unwrap_or_else(|| reset(format!("{address} reset the stream: {code}")))
        }
        SendError::Closed => body_fault(&call.body)
            .unwrap_or_else(|| reset(format!("{address} closed the connection before it answered"))),
    }
}

/// Of one that took too long.
pub(super) fn late(call: &Call, state: &EndpointState, end: End, waited: Duration) -> Failure {
    if end.reason == Reason::Timeout && call.body.is_awaited() {
        return Failure::new(Reason::RequestTimeout, "the client stopped sending the request's body");
    }
    let address = &state.endpoint.address;
    let waited = Duration::from_millis(waited.as_millis() as u64);
    let sentence = format!("no answer from {address} within {}", Millis(waited));
    clock::ran_out(&call.worker.shared.metrics, end, Stage::Upstream, sentence)
}

/// Why the client's body has no end, if it is that.
pub(super) fn body_fault(body: &Replay) -> Option<Failure> {
    Some(match body.fault()? {
        BodyError::Malformed(why) => {
            Failure::new(Reason::BadRequest, format!("the request's body is not valid HTTP: {why}"))
        }
        BodyError::TooLong => Failure::new(Reason::BodyTooLarge, "the request's body is longer than the route takes"),
        BodyError::Cut | BodyError::Superseded => {
            Failure::new(Reason::ClientGone, "the client broke its request body off")
        }
    })
}
