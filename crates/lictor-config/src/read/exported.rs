//! What `lictor run` exports has names of its own: two upstreams may have the same.

use std::collections::HashMap;

use crate::config::Config;
use crate::tree::Section;

/// A place costs as much as the text is long, and there may be ten thousand.
const TOLD_MAX: usize = 20;

/// Not a mistake: who does not read the variables, or calls `lictor serve`, misses nothing.
pub(super) fn check(top: &Section<'_>, config: &Config) {
    if !config.outbound.export_env {
        return;
    }
    let entries = top.field("upstreams", "").entries();
    let (mut first_of, mut told) = (HashMap::new(), 0);
    for (upstream, entry) in config.upstreams.iter().zip(&entries).filter(|(upstream, _)| upstream.listen.is_some()) {
        let variable = upstream.variable();
        let Some((first, first_entry)) = first_of.get(&variable) else {
            first_of.insert(variable, (&upstream.name, entry));
            continue;
        };
        let place = first_entry.place();
        let message =
            format!("`{}` is {variable}_URL for the application, and so is `{first}` ({place})", upstream.name);
        let help = "the application hears of the first alone: give one another name, with `service: NAME` in it";
        entry.key_warn(message, Some(help.to_owned()));
        told += 1;
        if told == TOLD_MAX {
            return;
        }
    }
}
