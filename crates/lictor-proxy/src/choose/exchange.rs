//! What one exchange holds of its endpoint, from the pick to the last byte of the answer.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use lictor_core::policy::Policy;
use lictor_core::{Reason, retry};
use lictor_http::AnswerBody;

use super::verdict::{Judged, cause, judge, report};
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
            let outcome = Outcome::Status(200); // its own was a good one
            let judged = judge(policy, outcome, grpc);
            if judged != Judged::Well {
                report(upstream, policy, &self.endpoint.state, judged, cause(outcome, grpc));
                self.endpoint.ended_badly(judged);
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
        let outcome = Outcome::Failed(reason);
        let judged = judge(policy, outcome, None);
        report(upstream, policy, &self.endpoint.state, judged, cause(outcome, None));
        if judged != Judged::Nothing {
            self.endpoint.ended_badly(judged);
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
    Refused,
    Failed,
}

impl Busy {
    pub(crate) fn new(state: &Rc<EndpointState>, now: Instant) -> Self {
        state.load.started();
        Self { state: Rc::clone(state), began: now, ended: Ended::Not }
    }

    pub(crate) fn took(&mut self, latency: Duration, now: Instant) {
        self.ended = Ended::Well(latency, now);
    }

    /// It did not go well; what has failed once is no mere refusal afterwards.
    pub(crate) fn ended_badly(&mut self, judged: Judged) {
        if judged == Judged::Failed {
            self.ended = Ended::Failed;
        } else if !matches!(self.ended, Ended::Failed) {
            self.ended = Ended::Refused;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let (load, track) = (&self.state.load, &self.state.endpoint.health.track);
        match self.ended {
            Ended::Not => {
                let now = Instant::now();
                load.abandoned(now, now.saturating_duration_since(self.began));
                track.ended();
            }
            Ended::Well(latency, at) => {
                load.finished(at, Some(latency));
                track.went_well(latency);
            }
            Ended::Refused => {
                load.finished(Instant::now(), None);
                track.ended();
            }
            Ended::Failed => {
                load.finished(Instant::now(), None);
                track.failed();
            }
        }
        self.state.pool.ended();
    }
}
