//! What the dashboard is sent, frame by frame.

use serde_json::Value as Json;

use super::requests::line;
use super::upstreams::upstream;
use super::words::{Named, int, list, map, named, number, object, one_of, or_null, text, time, with_optional};

/// What the dashboard shows: the other pages in one, with rates.
pub(super) fn frame() -> Named {
    let live = [
        ("name", text("")),
        ("verdict", object("In a word.", &[("level", one_of("", &["good", "warn", "bad"])), ("word", text(""))])),
        ("breaker", named("Breaker")),
        ("max_in_flight", int("Requests at a time.")),
        ("census", named("Census")),
        ("endpoints", list("", named("Endpoint"))),
        ("traffic", named("Traffic")),
    ];
    let members: Vec<_> =
        upstream().into_iter().filter(|(name, _)| !matches!(*name, "breaker" | "endpoints")).chain(live).collect();
    let failure = [&line()[..], &[("times", int("So many are alike."))]].concat();
    vec![
        (
            "Frame",
            object(
                "One moment.",
                &[
                    ("at", time("")),
                    ("interval_ms", or_null(number("Since the moment before, over which rates are."))),
                    (
                        "lictor",
                        object(
                            "The process.",
                            &[
                                ("version", text("")),
                                ("resident_bytes", int("")),
                                ("cpu", or_null(number("Seconds in a second."))),
                            ],
                        ),
                    ),
                    (
                        "service",
                        object(
                            "",
                            &[
                                ("name", text("")),
                                ("instance", text("")),
                                ("state", one_of("", &["ready", "draining", "starting", "not_ready"])),
                                ("checks", map("As `/ready` has them.", named("ReadyCheck"))),
                            ],
                        ),
                    ),
                    (
                        "inbound",
                        or_null(object(
                            "",
                            &[("in_flight", int("")), ("connections", int("")), ("traffic", named("Traffic"))],
                        )),
                    ),
                    ("upstreams", list("", object("", &members))),
                    ("consul", named("Consul")),
                    (
                        "failures",
                        object(
                            "",
                            &[("kept", int("")), ("latest", list("The newest of each kind.", object("", &failure)))],
                        ),
                    ),
                    (
                        "gateway?",
                        object(
                            "The 50 busiest routes.",
                            &[
                                ("routes", int("In all.")),
                                ("rows", list("", named("RouteTraffic"))),
                                ("limits", list("Of all routes.", named("LimitTaken"))),
                            ],
                        ),
                    ),
                ],
            ),
        ),
        ("Traffic", traffic()),
        ("RouteTraffic", route_traffic()),
        ("LimitTaken", limit_taken()),
    ]
}

fn limit_taken() -> Json {
    object(
        "",
        &[
            ("limit", text("")),
            ("requests", int("So many")),
            ("seconds", number("in so long.")),
            ("by", text("Whose requests are counted together.")),
            ("taken", or_null(number("0 to 1."))),
            ("refused", int("So far.")),
            (
                "rates",
                or_null(object(
                    "",
                    &["admitted", "refused", "would_refuse", "unavailable"].map(|name| (name, number(""))),
                )),
            ),
        ],
    )
}

fn traffic() -> Json {
    let rates = ["rate", "errors", "retries", "retries_denied"].map(|name| (name, number("In a second.")));
    let shares = ["error_ratio", "p50_ms", "p90_ms", "p99_ms"];
    let shares = shares.map(|name| (name, or_null(number("Of the time since; null without a request."))));
    let total = ["total", "failed", "retries", "retries_denied"].map(|name| (name, int("")));
    let all = object("No rates without a moment before.", &[("total", object("Since the start.", &total))]);
    with_optional(all, &[&rates[..], &shares].concat())
}

fn route_traffic() -> Json {
    let reason = object("", &[("reason", text("")), ("total", int("")), ("rate", or_null(number("In a second.")))]);
    let all = object(
        "No rates without a moment before.",
        &[
            ("route", text("Its label.")),
            ("maintenance", or_null(text(""))),
            ("to", or_null(text("Where it leads."))),
            ("total", int("Since the start.")),
            ("failed", int("Since the start.")),
            ("limits", list("", named("LimitTaken"))),
            ("reasons", list("What lictor has answered itself.", reason)),
        ],
    );
    let shares = ["error_ratio", "p50_ms", "p99_ms"].map(|name| (name, or_null(number("Null without a request."))));
    with_optional(all, &[&[("rate", number("In a second.")), ("errors", number("In a second."))][..], &shares].concat())
}
