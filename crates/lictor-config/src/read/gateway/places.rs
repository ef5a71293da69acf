//! Routes that share a place and differ by `when`: what else they may differ by.

use lictor_core::gateway::auth::How;
use lictor_core::gateway::{Rules, Table, label};
use lictor_core::limit::{Id, Limit};

use super::routes::Read;

/// Whoever asks at a place must find the same there, whichever of its routes turns out to be his: a claim chooses where a request
/// goes, and never who is believed.
pub(super) fn check(table: &Table, read: &[Read<'_>]) {
    for place in table.all_shared() {
        let Some((first, others)) = place.split_first() else { continue };
        for other in others {
            let (one, two) = (&read[*first.min(other)], &read[*first.max(other)]);
            let Some(key) = differs(one, two) else { continue };
            let message = format!(
                "`{}` and the route at {} share a place and differ by `when`, so `{key}` must be the same for both: it acts before anybody is known",
                label(&two.matcher.host, &two.matcher.path),
                one.node.place(),
            );
            two.error(message, format!("say `{key}` of both, or tell them apart by something else than `when`"));
        }
    }
}

/// The first key that acts before the choice, or on answers that come without one.
fn differs(one: &Read<'_>, other: &Read<'_>) -> Option<&'static str> {
    let ways = |rules: &Rules| rules.auth.as_ref().map(|auth| (auth.mode, How::ALL.map(|(_, how)| auth.takes(how))));
    // Where a limit stands among others, and in which order its route's conditions, is no difference.
    let unnamed = |limit: &Limit| Limit { id: Id::default(), ..limit.clone() };
    let early =
        |rules: &Rules| rules.limits.iter().filter(|limit| !limit.needs_identity()).map(unnamed).collect::<Vec<_>>();
    // It does not beside `transcode`, which acts after the choice.
    let translates_web = |rules: &Rules| rules.grpc_web && rules.transcode.is_none();
    let (own, theirs) = (&*one.route.rules, &*other.route.rules);
    [
        ("auth", ways(own) != ways(theirs)),
        ("allow_encoded", one.route.odd != other.route.odd),
        ("head_max", own.head_max != theirs.head_max),
        ("cors", own.cors != theirs.cors),
        ("limit", early(own) != early(theirs)),
        ("grpc_web", translates_web(own) != translates_web(theirs)),
        ("maintenance", own.maintenance != theirs.maintenance),
        ("errors", own.errors != theirs.errors),
        ("response_headers", own.response_headers != theirs.response_headers),
        ("security_headers", own.security != theirs.security),
        ("compress", own.compress != theirs.compress),
    ]
    .into_iter()
    .find_map(|(key, is_other)| is_other.then_some(key))
}
