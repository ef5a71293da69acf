//! `gateway.from_consul`: routes that services in Consul claim by tags, within what this key allows each of them. A tag that is
//! no good is no route, and hurts no other one.

use std::collections::HashMap;
use std::sync::Arc;

use lictor_core::gateway::auth::Mode;
use lictor_core::gateway::claim::{Claim, Space, Standing};
use lictor_core::gateway::{self, Action, Matcher, Odd, label};
use lictor_core::route::Route;
use serde_json::json;

use super::routes::{Read, Reading};
use crate::bounds::too_many_called;
use crate::config::{Claims, FromConsul, Refused, Tagged};
use crate::read::service::is_service_name;
use crate::tree::{Node, Section};

const TAG: &str = "lictor.route";
/// Of one service.
const CLAIMS_MAX: usize = 16;

pub(super) fn from_consul(section: &Section<'_>) -> Option<FromConsul> {
    let node = section.field(
        "from_consul",
        "Routes that services claim by tags, `lictor.route=/api/orders/*`, within what is allowed here; `off`: none.",
    );
    let is_wanted = node.is_set() && !node.is_off();
    let own = if node.is_off() { node.unset() } else { node.clone() }.section(&[json!({ "type": "boolean" })]);
    let tag =
        own.field("tag", "What such a tag begins with, before its `=`. Gateways with others have routes of their own.");
    let tag = tag.parsed(json!({ "type": "string" }), is_wanted.then_some(TAG), |text| {
        let is_plain =
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        if is_plain { Ok(text.to_owned()) } else { Err(format!("`{text}` is not letters, digits and any of `._-/`")) }
    });
    let max = own.field(
        "max",
        "Routes that are taken at most; the service of each is watched by a connection to Consul's agent.",
    );
    let max = if is_wanted || node.is_describing() { max.integer_within(100, 1, 1000) } else { 0 };
    let allow = own.field("allow", "What a service may claim, by its name; `pay-*` is a prefix.");
    let spaces = allow.entries().iter().filter_map(space).collect::<Vec<_>>();
    own.finish();
    if node.is_map() && !allow.is_set() {
        let help = "write `allow: {order-service: /api/orders/*}`".to_owned();
        node.error("nobody may claim anything without `allow`", Some(help));
    }
    is_wanted.then(|| FromConsul {
        tag: tag.unwrap_or_else(|| TAG.to_owned()),
        max: max as usize,
        allow: spaces,
        refused: Vec::new(),
    })
}

/// `order-service: [/api/orders/*, shop.example/orders/*]`
fn space(entry: &Node<'_>) -> Option<(String, Vec<Space>)> {
    let name = entry.name();
    let plain = name.strip_suffix('*').unwrap_or(&name);
    if !plain.is_empty() && !is_service_name(plain) {
        entry.key_error(format!("`{name}` is not a service name or prefix"), None);
        return None;
    }
    let places = entry.elements();
    if entry.is_set() && places.is_empty() {
        entry.error(
            "needs at least one place",
            Some("write `/api/orders/*`, or `shop.example/api/orders/*`".to_owned()),
        );
    }
    let parsed = |place: &Node<'_>| place.parsed(json!({ "type": "string" }), None, Space::parse);
    Some((name, places.iter().filter_map(parsed).collect()))
}

impl FromConsul {
    fn spaces(&self, service: &str) -> impl Iterator<Item = &Space> {
        let is_its = move |name: &str| match name.strip_suffix('*') {
            Some(prefix) => service.starts_with(prefix),
            None => service == name,
        };
        self.allow.iter().filter(move |(name, _)| is_its(name)).flat_map(|(_, spaces)| spaces)
    }
}

impl<'t> Reading<'_, 't> {
    /// Puts what is claimed behind the routes that are there, and tells what of it is no route.
    pub(super) fn claims(&mut self, node: &Node<'t>, asked: FromConsul, claims: &Claims) -> FromConsul {
        let (own, mut of_service, mut refused) = (self.read.len(), HashMap::new(), Vec::new());
        for tag in claims.list.iter().filter(|_| claims.tag == asked.tag) {
            let taken = of_service.entry(tag.service.as_str()).or_insert(0);
            let claimed = if *taken == CLAIMS_MAX {
                Err(format!("it is more than {CLAIMS_MAX} routes of one service"))
            } else if self.read.len() - own == asked.max {
                Err(format!("it is more than {} routes from Consul (`gateway.from_consul.max`)", asked.max))
            } else {
                self.claimed(node, &asked, tag, own)
            };
            match claimed {
                Ok(read) => {
                    *taken += 1;
                    self.read.push(read);
                }
                Err(reason) => refused.push(Refused { tag: tag.clone(), reason }),
            }
        }
        FromConsul { refused, ..asked }
    }

    /// A route, or why not. The first `own` routes are the configuration's.
    fn claimed(&mut self, node: &Node<'t>, asked: &FromConsul, tag: &Tagged, own: usize) -> Result<Read<'t>, String> {
        let Claim { matcher, rewrite } = Claim::parse(&tag.text)?;
        let (routes, claimed) = self.read.split_at(own);
        let space = self.allows(asked.spaces(&tag.service), &matcher, routes)?;
        if let Some(older) = claimed.iter().find(|read| read.matcher.clashes(&matcher)) {
            let whose = older.route.claimed_by.as_deref().unwrap_or_default();
            let older = label(&older.matcher.host, &older.matcher.path);
            return Err(format!("`{whose}` has claimed this place before, by `{older}`"));
        }
        let upstream = self.leads.of_service(&tag.service)?;
        if self.leads.room == 0 {
            return Err(too_many_called());
        }
        // What tags say comes and goes without end, and what counts by routes is bounded: so it is called as what is allowed.
        let label = space.label();
        let send = self.plain(upstream, &label, rewrite);
        let (rules, claimed_by) = (Arc::clone(self.rules), Some(tag.service.as_str().into()));
        let route = gateway::Route { label, rules, odd: Odd::default(), action: Action::Send(send), claimed_by };
        Ok(Read { node: node.clone(), matcher, route })
    }

    /// Which of these spaces is enough for a claim; if none is, what the first that has it lacks.
    fn allows<'s>(
        &self,
        spaces: impl Iterator<Item = &'s Space>,
        claim: &Matcher,
        routes: &[Read<'t>],
    ) -> Result<&'s Space, String> {
        let judge = |space: &'s Space| self.leaves(space, claim, routes).map(|()| space);
        let mut judged = spaces.filter(|space| space.has(claim)).map(judge);
        match judged.next() {
            None => Err("it is outside of what `gateway.from_consul.allow` has for this service".to_owned()),
            Some(first) => first.or_else(|why| judged.find(Result::is_ok).unwrap_or(Err(why))),
        }
    }

    /// Whether the configuration's routes leave a claim in a space to its service. Who may ask is no tag's business: a route that
    /// asks for something else than the gateway does, or is for some clients alone, keeps its requests.
    fn leaves(&self, space: &Space, claim: &Matcher, routes: &[Read<'t>]) -> Result<(), String> {
        for Read { matcher, route, .. } in routes {
            let asks = route.rules.auth.as_ref().is_some_and(|auth| auth.mode != Mode::None);
            let is_stricter = asks && route.rules.auth != self.rules.auth;
            match space.standing(claim, matcher) {
                Standing::Against => {
                    return Err(format!("it would take requests from the configuration's `{}`", route.label));
                }
                Standing::Within if is_stricter => {
                    return Err(format!(
                        "it would take requests from `{}`, whose `auth` is another than the gateway's",
                        route.label
                    ));
                }
                Standing::Within if !matcher.when.is_empty() => {
                    return Err(format!(
                        "it would take requests from `{}`, which is for `{}` alone",
                        route.label, matcher.when
                    ));
                }
                Standing::Beside | Standing::Within => (),
            }
        }
        Ok(())
    }
}

impl Reading<'_, '_> {
    /// Requests go on to this upstream, as it says itself.
    pub(super) fn plain(
        &mut self,
        upstream: usize,
        label: &Arc<str>,
        rewrite: Option<gateway::Rewrite>,
    ) -> gateway::Send {
        let policy = Arc::new(self.leads.policy(upstream).clone());
        let lead = self.leads.lead(upstream, Route::of_gateway(Arc::clone(label), policy, None));
        gateway::Send {
            upstream: lead.upstream,
            index: lead.index,
            has_policy: false,
            rewrite,
            split: None,
            mirror: None,
        }
    }
}
