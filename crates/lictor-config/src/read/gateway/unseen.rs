//! Fields that are taken off a request before anything looks at it: what goes by one of them would go by nothing.

use http::HeaderName;
use lictor_core::gateway::client::Proxies;
use lictor_core::gateway::headers::{is_alike, is_outsiders};
use lictor_core::gateway::{Action, Rules};
use lictor_core::limit::Part;

use super::routes::Read;
use crate::tree::Node;

/// What is taken off each request.
pub(super) struct Unseen<'r> {
    /// Where clients show their API keys.
    pub(super) key: Option<&'r HeaderName>,
    /// Fields that say who somebody is, once that is known.
    pub(super) managed: &'r [HeaderName],
    /// Of whom it is believed whose request it is: what they say of it is there.
    pub(super) proxies: &'r Proxies,
}

impl Unseen<'_> {
    /// Refuses limits that tell clients apart by such a field: all of them would share one.
    pub(super) fn check_limits(&self, node: &Node<'_>, rules: &Rules) {
        for limit in &*rules.limits {
            let is_early = !limit.needs_identity();
            for part in &limit.by {
                let Part::Header(name) = part else { continue };
                if let Some(why) = self.why(name, is_early) {
                    let message = format!("a limit goes by `{name}`, which {why}: all clients would share one");
                    let help = "say `by: [key]`, `[user]`, `[ip]` or `[claim: NAME]`: what the gateway itself knows";
                    node.error(message, Some(help.to_owned()));
                }
            }
        }
    }

    /// Refuses a route that is chosen by such a field, and a variant that is: nobody would ever choose it.
    pub(super) fn check_route(&self, read: &Read<'_>) {
        let asked = read.matcher.conditions.headers.iter().filter_map(|(name, _)| Some((name, self.why(name, true)?)));
        for (name, why) in asked {
            let message = format!("this route asks for `{name}`, which {why}: no request would have it");
            read.error(message, "tell routes apart by `when`, which goes by who asks".to_owned());
        }
        let Action::Send(sent) = &read.route.action else { return };
        let Some(name) = sent.split.as_ref().and_then(|split| split.header.as_ref()) else { return };
        if let Some(why) = self.why(name, false) {
            let message = format!("`split_by` goes by `{name}`, which {why}: no request would have it");
            read.error(message, "choose by `claim`, which goes by who asks".to_owned());
        }
    }

    /// Why nothing sees it; `is_early`: also what is there once it is known who asks.
    fn why(&self, name: &HeaderName, is_early: bool) -> Option<&'static str> {
        if self.key.is_some_and(|key| is_alike(key, name)) {
            return Some("is taken off each request, for it is where API keys are");
        }
        if self.managed.iter().any(|own| is_alike(own, name)) {
            return is_early.then_some("is taken off each request, and is there again once it is known who asks");
        }
        let is_told = match name.as_str() {
            "forwarded" => self.proxies.tells_forwarded,
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-port" => !self.proxies.trusted.is_empty(),
            _ => false,
        };
        (is_outsiders(name) && !is_told).then_some("is taken off each request, for anybody could say it")
    }
}
