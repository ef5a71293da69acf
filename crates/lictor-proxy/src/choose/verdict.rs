//! How an outcome is judged: whether it counts against its endpoint and its service, and what the endpoint's health makes of
//! it.

use std::time::Instant;

use lictor_core::Reason;
use lictor_core::ejection::may_eject;
use lictor_core::policy::Policy;
use tracing::warn;

use crate::stores::outcome::Outcome;
use crate::world::view::{EndpointState, UpstreamState};

/// Tells the endpoint's health, and ejects it when it has failed too often.
pub(crate) fn report(upstream: &UpstreamState, policy: &Policy, state: &EndpointState, outcome: Outcome) {
    let health = &state.endpoint.health;
    if !counts_against(policy, outcome) {
        if matches!(outcome, Outcome::Status(_) | Outcome::Connected) {
            health.succeeded();
        }
        return;
    }
    let now = Instant::now();
    if health.failed(&policy.ejection, now) && may_eject(&upstream.upstream.endpoints, &policy.ejection, now) {
        let rest = health.eject(&policy.ejection, now);
        upstream.meters.ejected();
        warn!(
            target: "lictor::event",
            kind = "endpoint_ejected",
            upstream = %upstream.upstream.name,
            endpoint = %state.endpoint.address,
            for_ms = rest.as_millis() as u64,
            "an endpoint failed too often and is given a rest"
        );
    }
}

/// Whether an outcome is the endpoint's failure.
pub(crate) fn counts_against(policy: &Policy, outcome: Outcome) -> bool {
    let failure = &policy.breaker.failure;
    match outcome {
        Outcome::Status(status) => {
            (status >= 500 && failure.server_errors) || failure.statuses.iter().any(|named| named.as_u16() == status)
        }
        Outcome::Connected | Outcome::Abandoned => false,
        Outcome::Failed(reason) => match reason {
            Reason::ConnectRefused | Reason::ConnectTimeout | Reason::TlsFailed => failure.connect_failure,
            Reason::ProtocolError | Reason::ResetBeforeResponse | Reason::ResetMidResponse => failure.reset,
            Reason::PerTryTimeout | Reason::Timeout => failure.timeout,
            _ => false,
        },
    }
}

/// The server's failures among gRPC's statuses: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
pub(crate) fn is_grpc_failure(status: u16) -> bool {
    matches!(status, 2 | 4 | 13 | 14 | 15)
}
