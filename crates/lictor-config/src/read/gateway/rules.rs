//! What is asked of requests and done to answers: keys of `gateway`, and of each route, whose own replace the gateway's.

use lictor_core::gateway::Rules;

use super::super::limit;
use crate::tree::Section;

pub(super) fn rules(section: &Section<'_>, base: &Rules) -> Rules {
    let head_max = section.field("head_max", "The longest head of a request, its target and fields; above it is 431.");
    let limit = section.field(
        "limit",
        "How often somebody may ask: `100/60s`, a map, or a list of them; `off`: as often as he likes.",
    );
    Rules {
        auth: base.auth.clone(),
        limits: limit::limits(&limit, &base.limits, limit::GATEWAY),
        head_max: head_max.size(base.head_max),
    }
}
