//! Is the route in maintenance, and is whoever asks one of those who look after it?

use std::time::SystemTime;

use http::Request;
use lictor_core::gateway::Rules;
use lictor_core::gateway::auth::{Identity, Mode};
use lictor_core::gateway::maintenance::{Orders, State};
use lictor_core::{Failure, Reason};

use super::Stop;
use crate::world::client::Connection;

/// It is, and nobody but somebody who shows who he is may pass.
#[derive(Debug)]
pub(super) struct Held(State);

/// `None`: it goes on, to where it always does.
pub(super) fn check<B>(
    rules: &Rules,
    orders: Option<&Orders>,
    label: &str,
    connection: &Connection,
    request: &Request<B>,
) -> Result<Option<Held>, Stop> {
    let own = rules.maintenance.as_deref();
    let nothing = Orders::default();
    let orders = orders.unwrap_or(&nothing);
    if own.is_none() && orders.is_empty() {
        return Ok(None);
    }
    let state = State::at(own, orders, label, SystemTime::now());
    if state == State::Off || own.is_some_and(|own| own.allow.passes(connection.client, request.headers())) {
        return Ok(None);
    }
    let asks = rules.auth.as_ref().is_some_and(|auth| auth.mode != Mode::None);
    let held = Held(state);
    if asks && own.is_some_and(|own| !own.allow.claims.is_empty()) { Ok(Some(held)) } else { Err(held.stop(rules)) }
}

impl Held {
    /// Whether he may pass whose identity is known by now.
    pub(super) fn judge(self, rules: &Rules, identity: Option<&Identity>) -> Result<(), Stop> {
        let claims = identity.map(|identity| &*identity.known.claims);
        let passes = rules.maintenance.as_ref().is_some_and(|own| own.allow.passes_as(claims));
        if passes { Ok(()) } else { Err(self.stop(rules)) }
    }

    /// He may not.
    pub(super) fn stop(self, rules: &Rules) -> Stop {
        let Self(state) = self;
        let failure = Failure::new(Reason::Maintenance, format!("the route is in maintenance ({state})"));
        let wait = state.retry_after(rules.maintenance.as_deref(), SystemTime::now());
        Stop::Refused(failure.retry_after(wait), "this service is in maintenance: come back later")
    }
}
