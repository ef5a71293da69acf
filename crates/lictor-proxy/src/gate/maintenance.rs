//! Is the route in maintenance, and is whoever asks one of those who look after it?

use std::net::IpAddr;
use std::time::SystemTime;

use http::HeaderMap;
use lictor_core::gateway::Rules;
use lictor_core::gateway::auth::{Identity, Mode};
use lictor_core::gateway::maintenance::{Orders, State};
use lictor_core::{Failure, Reason};

use super::Stop;

/// It is, and whoever asks has nothing yet that lets him pass.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) state: State,
    /// Whether he may show who he is, and pass then.
    pub(super) may_show: bool,
}

/// `None`: it goes on, to where it always does.
pub(super) fn check(
    rules: &Rules,
    orders: Option<&Orders>,
    label: &str,
    client: Option<IpAddr>,
    headers: &HeaderMap,
) -> Option<Held> {
    let own = rules.maintenance.as_deref();
    let nothing = Orders::default();
    let orders = orders.unwrap_or(&nothing);
    if own.is_none() && orders.is_empty() {
        return None;
    }
    let state = State::at(own, orders, label, SystemTime::now());
    if state == State::Off || own.is_some_and(|own| own.allow.passes(client, headers)) {
        return None;
    }
    let asks = rules.auth.as_ref().is_some_and(|auth| auth.mode != Mode::None);
    Some(Held { state, may_show: asks && own.is_some_and(|own| !own.allow.claims.is_empty()) })
}

/// Whether he may pass of whom this is known by now.
pub(super) fn passes(rules: &Rules, identity: Option<&Identity>) -> bool {
    let claims = identity.map(|identity| &*identity.known.claims);
    rules.maintenance.as_ref().is_some_and(|own| own.allow.passes_as(claims))
}

impl Held {
    /// He may not.
    pub(super) fn stop(&self, rules: &Rules) -> Stop {
        let failure = Failure::new(Reason::Maintenance, format!("the route is in maintenance ({})", self.state));
        let wait = self.state.retry_after(rules.maintenance.as_deref(), SystemTime::now());
        Stop::Refused(failure.retry_after(wait), "this service is in maintenance: come back later")
    }
}
