//! The server side's own checks: is this request for us, and may its sender call us?

use http::HeaderMap;
use lictor_core::mesh::{Inbound, ListenerKind, Local};
use lictor_core::{Failure, Reason, Secret};

use super::Asked;
use crate::names::{X_LICTOR_TO, X_SERVICE_AUTH};

/// Refuses what was meant for another service (its address is ours now) or comes without the service token.
pub(super) fn check(asked: &Asked<'_>) -> Result<(), Failure> {
    match (asked.client.kind(), &asked.view.inbound) {
        (ListenerKind::Inbound, Some(inbound)) => {
            of_ours(&inbound.inbound, &asked.view.mesh.local, asked.request.headers())
        }
        // Without `inbound` there is no target, and nothing comes here.
        (ListenerKind::Inbound, None)
        | (ListenerKind::Upstream(_) | ListenerKind::Forward | ListenerKind::Gateway | ListenerKind::Redirect, _) => {
            Ok(())
        }
    }
}

fn of_ours(inbound: &Inbound, local: &Local, headers: &HeaderMap) -> Result<(), Failure> {
    is_for_us(local, headers)?;
    if inbound.tokens.is_empty() {
        return Ok(());
    }
    let Some(given) = headers.get(X_SERVICE_AUTH) else {
        return Err(Failure::new(Reason::Unauthenticated, "the X-Service-Auth header is missing"));
    };
    if is_known(&inbound.tokens, given.as_bytes()) {
        Ok(())
    } else {
        Err(Failure::new(Reason::Unauthenticated, "the X-Service-Auth token is not one of this service's"))
    }
}

/// Refuses what was meant for another service: its address is ours now.
pub(crate) fn is_for_us(local: &Local, headers: &HeaderMap) -> Result<(), Failure> {
    if let Some(wanted) = headers.get(X_LICTOR_TO).and_then(|to| to.to_str().ok()) {
        let service = wanted.split('/').next().unwrap_or_default();
        if !service.eq_ignore_ascii_case(&local.service) {
            // Consul finds a service by its name in any case.
            let sentence = format!("this is {}, not {service}", local.service);
            return Err(Failure::new(Reason::Misdirected, sentence));
        }
    }
    Ok(())
}

/// Compares with every token, each in a time that depends only on lengths.
fn is_known(tokens: &[Secret], given: &[u8]) -> bool {
    tokens.iter().fold(false, |known, token| known | token.is(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_a_rotation_is_known_and_no_other() {
        let tokens = [Secret::new("old-token"), Secret::new("new-token")];
        assert!(is_known(&tokens, b"old-token"));
        assert!(is_known(&tokens, b"new-token"));
        assert!(!is_known(&tokens, b"new-toke"));
        assert!(!is_known(&tokens, b"new-token2"));
        assert!(!is_known(&tokens, b""));
    }
}
