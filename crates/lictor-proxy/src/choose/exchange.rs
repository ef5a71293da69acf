//! What one exchange holds of its endpoint, from the pick to the last byte of the answer.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use lictor_core::policy::Policy;
use lictor_core::{Reason, retry};
use lictor_http::AnswerBody;

use super::verdict::{Judged, judge, report};
use crate::stores::outcome::Outcome;
use crate::world::pool::Term;
use crate::world::view::{EndpointState, UpstreamState};

/// What one exchange holds of an endpoint.
#[derive(Debug)]
pub(crate) struct Exchange {
    hold: Hold,
    endpoint: Busy,
}

/// What a connection is given back with.
#[derive(Debug)]
pub(crate) enum Hold {
    Http1(Term),
    Http2,
}

impl Exchange {
    pub(crate) fn new(hold: Hold, endpoint: Busy) -> Self {
        Self { hold, endpoint }
    }

    /// The answer is whole, and this is gRPC's status.
    pub(crate) fn judge(&mut self, upstream: &UpstreamState, policy: &Policy, grpc: Option<u16>) {
        if matches!(self.endpoint.ended, Ended::Well(..)) {
            let judged = judge(policy, Outcome::Status(200), grpc); // its own was a good one
            if judged != Judged::Well {
                report(upstream, policy, &self.endpoint.state, judged);
                self.endpoint.failed();
            }
        }
    }

    /// Trailers may ask for a rest, as heads do.
    pub(crate) fn obey(&self, grpc: Option<u16>, trailers: &HeaderMap) {
        if let Some(rest) = retry::rest(200, grpc, trailers, SystemTime::now) {
            self.endpoint.state.endpoint.health.rest(rest, Instant::now());
        }
    }

    /// The answer was read to its end.
    pub(crate) fn complete<B>(self, body: AnswerBody<B>, now: Instant) {
        if matches!(self.endpoint.ended, Ended::Well(..)) {
            self.endpoint.state.endpoint.health.succeeded();
        }
        if let (Hold::Http1(term), AnswerBody::Http1(body)) = (self.hold, body)
            && let Some(connection) = body.into_connection()
        {
            self.endpoint.state.pool.give_back(connection, term, now);
        }
    }

    /// The answer broke off, or stalled, within its body: as bad as none.
    pub(crate) fn broke_off(mut self, upstream: &UpstreamState, policy: &Policy, reason: Reason) {
        let judged = judge(policy, Outcome::Failed(reason), None);
        report(upstream, policy, &self.endpoint.state, judged);
        if judged != Judged::Nothing {
            self.endpoint.failed();
        }
    }
}

/// An endpoint with one request more in flight, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy {
    state: Rc<EndpointState>,
    began: Instant,
    ended: Ended,
}

#[derive(Debug)]
enum Ended {
    /// Nobody waited: it took at least this long.
    Not,
    /// To its response head, and when that came.
    Well(Duration, Instant),
    /// Failing or refusing fast must not attract.
    Badly,
}

impl Busy {
    pub(crate) fn new(state: &Rc<EndpointState>, now: Instant) -> Self {
        state.load.started();
        Self { state: Rc::clone(state), began: now, ended: Ended::Not }
    }

    pub(crate) fn took(&mut self, latency: Duration, now: Instant) {
        self.ended = Ended::Well(latency, now);
    }

    pub(crate) fn failed(&mut self) {
        self.ended = Ended::Badly;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let load = &self.state.load;
        match self.ended {
            Ended::Not => {
                let now = Instant::now();
                load.abandoned(now, now.saturating_duration_since(self.began));
            }
            Ended::Well(latency, at) => load.finished(at, Some(latency)),
            Ended::Badly => load.finished(Instant::now(), None),
        }
        self.state.pool.ended();
    }
}
