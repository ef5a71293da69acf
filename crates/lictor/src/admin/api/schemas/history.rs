//! What was.

use serde_json::Value as Json;

use super::words::{Named, int, list, map, millis, named, number, object, or_null, text, time};

pub(super) fn history() -> Named {
    vec![("History", whole()), ("PastOfUpstream", past_of_upstream())]
}

fn whole() -> Json {
    object(
        "What was, the oldest first: each list ends with the second that ended last, and begins with the first request.",
        &[
            ("at", time("When this was written.")),
            ("step_ms", millis("From one number to the next.")),
            ("upstreams", map("By name.", named("PastOfUpstream"))),
        ],
    )
}

fn past_of_upstream() -> Json {
    let counts = |told: &str| list(told, int(""));
    let times = |told: &str| list(told, or_null(number("Null without a request.")));
    let endpoint = object(
        "",
        &[
            ("id", text("")),
            ("address", text("")),
            ("step_ms", millis("From one number to the next.")),
            ("requests", counts("Attempts; the last step is not over yet.")),
            ("failures", counts("Of those, how many failed.")),
        ],
    );
    object(
        "",
        &[
            ("rate", counts("Requests that ended in a second, or connections.")),
            ("errors", counts("Of those, with a 5xx or without an answer.")),
            (
                "failed_by",
                map(
                    "The same by what went wrong, where it did: `answer` (the upstream's), `connect`, `timeout`, `broken`, `refused` (here).",
                    counts(""),
                ),
            ),
            ("retries", counts("Attempts after the first.")),
            ("p50_ms", times("To the last byte; half were faster.")),
            ("p99_ms", times("99 of 100 were faster.")),
            ("endpoints?", list("Where one upstream is asked for.", endpoint)),
        ],
    )
}
