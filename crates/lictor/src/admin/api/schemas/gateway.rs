//! The gateway's routes, limits and figures.

use serde_json::Value as Json;

use super::upstreams::orders;
use super::words::{Named, flag, int, list, map, number, object, text, with_optional};

pub(super) fn gateway() -> Named {
    vec![
        (
            "GatewayRoutes",
            object(
                "",
                &[
                    (
                        "routes",
                        list(
                            "In the order in which they are asked.",
                            object(
                                "",
                                &[
                                    ("host", text("")),
                                    ("path", text("The pattern.")),
                                    ("only", text("What it asks for besides: methods, fields, claims.")),
                                    ("auth", text("Who may ask.")),
                                    ("maintenance", text("`off`, `on`, or until when.")),
                                    ("becomes", text("Where it leads.")),
                                    ("from", text("`configuration`, or the service that claims it.")),
                                ],
                            ),
                        ),
                    ),
                    ("orders", orders()),
                    (
                        "refused?",
                        list(
                            "Tags that are no routes: the first 1,000.",
                            object("", &[("service", text("")), ("tag", text("")), ("reason", text(""))]),
                        ),
                    ),
                    ("refused_in_all?", int("")),
                ],
            ),
        ),
        ("GatewayStats", object("", &gateway_stats())),
        (
            "Stats",
            with_optional(
                object(
                    "",
                    &[
                        ("totalServices", int("Instances in all.")),
                        ("serviceTypes", int("Services.")),
                        (
                            "services",
                            list(
                                "",
                                object(
                                    "",
                                    &[
                                        ("name", text("")),
                                        ("totalInstances", int("")),
                                        ("healthyInstances", int("")),
                                        ("unhealthyInstances", int("")),
                                        ("requests", counted()),
                                    ],
                                ),
                            ),
                        ),
                        ("requests", counted()),
                    ],
                ),
                &gateway_stats(),
            ),
        ),
    ]
}

fn gateway_stats() -> Vec<(&'static str, Json)> {
    vec![
        (
            "routes",
            list(
                "For each method and path one.",
                object(
                    "",
                    &[
                        ("route", text("`GET /api/users`")),
                        ("target?", text("Of what is at a URL.")),
                        ("serviceName?", text("Of what Consul has.")),
                        ("auth", flag("One must show who he is.")),
                        (
                            "requests",
                            object(
                                "",
                                &[
                                    ("total", int("")),
                                    ("failed", int("")),
                                    ("reasons", map("What lictor has answered itself.", int(""))),
                                ],
                            ),
                        ),
                    ],
                ),
            ),
        ),
        ("uptime", number("Seconds.")),
        ("memoryUsage", object("", &[("rss", int("Bytes."))])),
    ]
}

fn counted() -> Json {
    object("", &[("total", int("")), ("failed", int("With a 5xx, or without an answer.")), ("retries", int(""))])
}
