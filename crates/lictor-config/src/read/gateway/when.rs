//! `when:` of a route: for whom it is, once that is known.

use lictor_core::gateway::When;
use lictor_core::gateway::auth::{Auth, Mode};

use super::auth::tests;
use crate::tree::Node;

/// What a route asks of claims; `auth` is its own.
pub(super) fn when(node: &Node<'_>, auth: Option<&Auth>) -> When {
    let when = When(tests(node).into());
    if node.is_set() && auth.is_none_or(|auth| auth.mode == Mode::None) {
        node.key_error(
            "`when` is about who asks, and nobody is asked here",
            Some("give the gateway, or the route, an `auth`".to_owned()),
        );
    } else if node.is_set() && node.is_map() && when.is_empty() {
        node.error("needs a claim: `when: {plan: gold}`", None);
    }
    when
}
