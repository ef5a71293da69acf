//! What is asked of requests and done to answers: keys of `gateway`, and of each route, whose own replace the gateway's.

use lictor_core::gateway::Rules;

use crate::tree::Section;

pub(super) fn rules(section: &Section<'_>, base: &Rules) -> Rules {
    let head_max = section.field("head_max", "The longest head of a request, its target and fields; above it is 431.");
    Rules { auth: base.auth.clone(), head_max: head_max.size(base.head_max) }
}
