//! Orders about the gateway's maintenance: which there may be, and what is told of them.

use std::time::{Duration, SystemTime};

use lictor_config::Gateway;
use lictor_core::gateway::maintenance::{Orders, State};

/// What is meant to last belongs into the configuration.
const AT_MOST: Duration = Duration::from_secs(30 * 86_400);

/// Of routes in maintenance so many are told.
const TOLD: usize = 10;

/// What somebody orders.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) is_on: bool,
    /// For how long; `None`: until it is taken back.
    pub(crate) lasts: Option<Duration>,
    /// The label; `None`: all.
    pub(crate) route: Option<String>,
}

impl Wanted {
    /// What is ordered afterwards; in words why it cannot be.
    pub(crate) fn over(&self, before: &Orders, gateway: &Gateway, now: SystemTime) -> Result<Orders, String> {
        let route = self.route.as_deref();
        if !self.is_on {
            return match self.lasts {
                Some(_) => Err("`off` takes an order back, and has no `for`".to_owned()),
                None => Ok(before.off(route, now)),
            };
        }
        if self.lasts.is_some_and(|lasts| lasts.is_zero() || lasts > AT_MOST) {
            return Err("maintenance is ordered for more than nothing and at most 30d, or without an end".to_owned());
        }
        // Routes that services claim bear the name of the place that is allowed, which somebody may claim later.
        let places = || gateway.from_consul.iter().flat_map(|asked| &asked.allow).flat_map(|(_, places)| places);
        let is_named = |label: &str| {
            let is_route = gateway.routes.routes.iter().any(|route| *route.label == *label);
            is_route || places().any(|place| *place.label() == *label)
        };
        if let Some(label) = route.filter(|label| !is_named(label)) {
            return Err(format!(
                "no route is named {label}; `lictor routes` lists them: the host, if it has one, and the path; or a place of `gateway.from_consul.allow`"
            ));
        }
        before.on(route, self.lasts.map(|lasts| now + lasts), now)
    }

    /// What has become of the routes by that. Where KV has the orders, nobody here knows what services claim.
    pub(crate) fn told(&self, orders: &Orders, gateway: &Gateway, now: SystemTime) -> String {
        let mut routes: Vec<(&str, State)> = orders.routes(&gateway.routes, now).collect();
        routes.sort_unstable();
        routes.dedup();
        let shown = routes.iter().take(TOLD).map(|(label, state)| format!("{label} {state}"));
        let more = routes.len().saturating_sub(TOLD);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let shown = format!("{}{more}", shown.collect::<Vec<_>>().join(", "));
        match (self.is_on, routes.is_empty()) {
            (_, true) if gateway.from_consul.is_some() && !orders.is_empty() => {
                "no route of the configuration is in maintenance; those that services claim are as it was ordered"
                    .to_owned()
            }
            (true, true) => "no route is in maintenance: each says `maintenance: off`".to_owned(),
            (true, false) => format!("in maintenance: {shown}"),
            (false, true) => "nothing is in maintenance".to_owned(),
            (false, false) => format!("still in maintenance, by the configuration or other orders: {shown}"),
        }
    }
}
