//! What an answer, or the lack of one, says of who gave it: one verdict for its endpoint's ejection, for the balancer and for
//! the breaker. An answer is judged by its status, by gRPC's, which may come in its trailers, and by whether its body is
//! whole.

use std::time::Instant;

use lictor_core::Reason;
use lictor_core::ejection::may_eject;
use lictor_core::mesh::Upstream;
use lictor_core::policy::Policy;
use lictor_core::track::Cause;
use tracing::warn;

use crate::stores::outcome::Outcome;
use crate::world::view::{EndpointState, UpstreamState};

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u16 = 8;

/// What an attempt says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Well,
    /// It has too much to do, or may not answer this one: no failure, and no reason to send it more.
    Refused,
    Failed,
    /// Nothing: the client went away, or was wrong.
    Nothing,
}

/// Judges an attempt; `grpc` is gRPC's status, as far as it has come.
pub(crate) fn judge(policy: &Policy, outcome: Outcome, grpc: Option<u16>) -> Judged {
    let failure = &policy.breaker.failure;
    let reason = match outcome {
        Outcome::Status(status) => {
            let is_named = failure.statuses.iter().any(|named| named.as_u16() == status);
            let is_servers = status >= 500 || grpc.is_some_and(is_grpc_failure);
            return if is_named || is_servers && failure.server_errors {
                Judged::Failed
            } else if is_servers || status == 429 || grpc == Some(RESOURCE_EXHAUSTED) {
                Judged::Refused
            } else {
                Judged::Well
            };
        }
        Outcome::Connected => return Judged::Well,
        Outcome::Abandoned => return Judged::Nothing,
        Outcome::Failed(reason) => reason,
    };
    let is_failure = match reason {
        Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => failure.connect_failure,
        Reason::ProtocolError | Reason::ResetBeforeResponse | Reason::ResetMidResponse => failure.reset,
        Reason::PerTryTimeout | Reason::Timeout => failure.timeout,
        Reason::BadRequest
        | Reason::BodyTooLarge
        | Reason::ClientGone
        | Reason::RequestTimeout
        | Reason::DeadlineExceeded => return Judged::Nothing,
        _ => false,
    };
    if is_failure { Judged::Failed } else { Judged::Refused }
}

/// How such an attempt has failed, if it has.
pub(crate) fn cause(outcome: Outcome, grpc: Option<u16>) -> Option<Cause> {
    match outcome {
        Outcome::Status(status) => {
            Some(grpc.filter(|code| is_grpc_failure(*code)).map_or(Cause::Status(status), Cause::Grpc))
        }
        Outcome::Failed(reason) => Some(Cause::Reason(reason)),
        Outcome::Connected | Outcome::Abandoned => None,
    }
}

/// Tells the endpoint's health, and ejects it when it has failed too often.
pub(crate) fn report(
    upstream: &UpstreamState,
    policy: &Policy,
    state: &EndpointState,
    judged: Judged,
    cause: Option<Cause>,
) {
    let health = &state.endpoint.health;
    match judged {
        Judged::Failed => (),
        Judged::Well => return health.succeeded(),
        Judged::Refused | Judged::Nothing => return,
    }
    if let Some(cause) = cause {
        health.track.blame(cause);
    }
    let now = Instant::now();
    let Upstream { endpoints, steering, .. } = &*upstream.upstream;
    if health.failed(&policy.ejection, now) && may_eject(endpoints, &steering.in_force(now), &policy.ejection, now) {
        let rest = health.eject(&policy.ejection, now);
        upstream.meters.ejected();
        warn!(
            target: "lictor::event",
            kind = "endpoint_ejected",
            upstream = %upstream.upstream.name,
            endpoint = %state.endpoint.address,
            instance = %state.endpoint.key.id,
            for_ms = rest.as_millis() as u64,
            "an endpoint failed too often and is given a rest"
        );
    }
}

/// The server's failures among gRPC's statuses: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
pub(crate) fn is_grpc_failure(status: u16) -> bool {
    matches!(status, 2 | 4 | 13 | 14 | 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_verdict_for_everything_that_can_happen() {
        let policy = Policy::default();
        let status = |status, grpc| judge(&policy, Outcome::Status(status), grpc);
        let cases = [
            ((200, None), Judged::Well),
            ((404, None), Judged::Well),
            ((429, None), Judged::Refused),
            ((500, None), Judged::Failed),
            ((503, None), Judged::Failed),
            ((200, Some(0)), Judged::Well),
            ((200, Some(3)), Judged::Well),
            ((200, Some(5)), Judged::Well),
            ((200, Some(8)), Judged::Refused),
            ((200, Some(2)), Judged::Failed),
            ((200, Some(4)), Judged::Failed),
            ((200, Some(13)), Judged::Failed),
            ((200, Some(14)), Judged::Failed),
            ((200, Some(15)), Judged::Failed),
        ];
        for ((http, grpc), judged) in cases {
            assert_eq!(status(http, grpc), judged, "{http} {grpc:?}");
        }
        let mut lenient = Policy::default();
        lenient.breaker.failure.server_errors = false;
        for (http, grpc) in [(500, None), (200, Some(14))] {
            assert_eq!(judge(&lenient, Outcome::Status(http), grpc), Judged::Refused, "no failure, and no attraction");
        }
        for (reason, judged) in [
            (Reason::ConnectRefused, Judged::Failed),
            (Reason::ResetMidResponse, Judged::Failed),
            (Reason::PerTryTimeout, Judged::Failed),
            (Reason::Overloaded, Judged::Refused),
            (Reason::ClientGone, Judged::Nothing),
            (Reason::DeadlineExceeded, Judged::Nothing),
        ] {
            assert_eq!(judge(&policy, Outcome::Failed(reason), None), judged, "{reason}");
        }
    }
}
