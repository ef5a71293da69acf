//! How we are, upstreams and their endpoints, and what steers them.

use serde_json::Value as Json;

use super::words::{
    Named, breaker_state, endpoint_state, flag, int, list, map, millis, named, number, object, one_of, or_null, text,
    time,
};

pub(super) fn health() -> Named {
    let check = |states: &[&str], more: (&str, Json)| {
        let state =
            ("state?", text("Of an upstream, in the dashboard's word: `healthy`, `breaker open`, `1 of 2 unwell`, .."));
        object("", &[("status", one_of("", states)), state, ("message", text("")), more])
    };
    let required = ("required?", flag("Of an upstream: without it, this service is not ready."));
    let took = ("responseTime?", millis("Of the application's probe."));
    vec![
        (
            "Ready",
            object(
                "Whether this service may be called.",
                &[
                    ("status", one_of("", &["ready", "not_ready"])),
                    ("timestamp", time("")),
                    (
                        "checks",
                        map("By upstream; `app`, `startup` and `drain` where they say no.", named("ReadyCheck")),
                    ),
                ],
            ),
        ),
        ("ReadyCheck", check(&["ready", "not_ready"], required)),
        (
            "Health",
            object(
                "How this service is.",
                &[
                    ("status", one_of("", &["healthy", "unhealthy"])),
                    ("timestamp", time("")),
                    ("service", text("Its name.")),
                    ("version", or_null(text("Meta `version` of its registration."))),
                    (
                        "checks",
                        map(
                            "`app`, `consul`, `snapshot`, `maintenance`, `memory`, `upstream.NAME`.",
                            named("HealthCheck"),
                        ),
                    ),
                    ("uptime?", number("Seconds; of a gateway.")),
                    ("routes?", int("Of a gateway.")),
                ],
            ),
        ),
        ("HealthCheck", check(&["healthy", "warning", "unhealthy"], took)),
    ]
}

pub(super) fn upstreams() -> Named {
    vec![
        ("EndpointsByUpstream", map("By the upstream's name.", named("EndpointsOfUpstream"))),
        (
            "EndpointsOfUpstream",
            object(
                "",
                &[
                    ("service", text("Its name in Consul.")),
                    ("census", named("Census")),
                    (
                        "failover",
                        list("The further tiers.", object("", &[("name", text("")), ("census", named("Seen"))])),
                    ),
                    ("endpoints", list("Those that may be picked.", named("Endpoint"))),
                ],
            ),
        ),
        ("Seen", object("What was found, and what of it was left out.", &seen())),
        (
            "Census",
            object(
                "What was found, and what of it was left out.",
                &[&seen()[..], &[("age_ms", or_null(millis("Since Consul's last good answer.")))]].concat(),
            ),
        ),
        (
            "Endpoint",
            object(
                "An instance.",
                &[
                    ("id", text("Consul's service id.")),
                    ("node", text("The node of its agent.")),
                    ("address", text("What is dialled: `10.0.3.7:8001`, `unix:/run/app.sock`.")),
                    ("state", endpoint_state()),
                    (
                        "order",
                        or_null(object(
                            "An operator's, if one is in force.",
                            &[("order", one_of("", &["eject", "pin"])), ("for_ms", millis("Left."))],
                        )),
                    ),
                    ("status", text("Consul's word.")),
                    ("tier", int("0 is the best.")),
                    ("service", text("Whose instance it is.")),
                    ("weight", int("For weighted draws.")),
                    ("tags", list("", text(""))),
                    ("meta", map("", text(""))),
                    ("warming_for_ms", or_null(millis("It has had less than its share for so long."))),
                    ("recent", named("EndpointRecent")),
                    ("live", or_null(named("EndpointLive"))),
                ],
            ),
        ),
        ("EndpointRecent", recent()),
        (
            "EndpointLive",
            object(
                "What the workers know of it.",
                &[
                    ("id", text("")),
                    ("address", text("")),
                    ("in_flight", int("Requests now.")),
                    (
                        "ewma_ms",
                        or_null(number("Average of the time to the answer's head; the largest of the workers'.")),
                    ),
                    ("connections", int("Now open.")),
                    ("idle_connections", int("Of those, how many wait for a request (HTTP/1.1).")),
                    ("ejected_for_ms", or_null(millis("Left of its ejection."))),
                    ("ejections", int("So far that still count.")),
                    ("consecutive_failures", int("In a row.")),
                    ("is_draining", flag("It said that it is stopping.")),
                ],
            ),
        ),
        ("Upstreams", map("By name.", named("Upstream"))),
        ("Upstream", object("", &upstream())),
        ("Breakers", map("By upstream.", named("Breaker"))),
        (
            "Breaker",
            object(
                "A circuit breaker.",
                &[
                    ("state", breaker_state()),
                    ("failures", int("In a row.")),
                    ("since_ms", millis("Since the last change.")),
                    ("next_probe_ms", or_null(millis("Until a probe may go, while open."))),
                    (
                        "next_connect_ms",
                        or_null(millis("Until a connection is tried again, while open because none was to be had.")),
                    ),
                    ("connects_tried", int("Since it opened.")),
                    ("cause", text("Of the last change.")),
                    ("opened_total", int("How often it has opened.")),
                    ("last_opened", or_null(opening())),
                    ("forced", or_null(one_of("An operator's order.", &["open", "closed"]))),
                    ("forced_for_ms", or_null(millis("Left of that."))),
                ],
            ),
        ),
        (
            "Routes",
            map(
                "By upstream.",
                list(
                    "In their order.",
                    object(
                        "",
                        &[
                            ("gateway", flag("It is of the gateway.")),
                            ("method", or_null(text("Any, if there is none."))),
                            ("path", text("The pattern.")),
                            ("idempotent", or_null(flag("What the configuration says."))),
                            ("timeout_ms", or_null(millis(""))),
                            ("retry_attempts", int("In all.")),
                        ],
                    ),
                ),
            ),
        ),
    ]
}

fn recent() -> Json {
    let cause = "A status, `grpc` and gRPC's status, or a word of docs/failure-reasons.md.";
    object(
        "What became of the attempts at it, retries and hedges too, that ended in the last minute.",
        &[
            ("requests", int("Attempts.")),
            ("failures", int("Of those, how many failed.")),
            ("share", or_null(number("Of all attempts at the upstream's endpoints, 0 to 1; null without any."))),
            ("p50_ms", or_null(number("To the heads of good answers: half were faster."))),
            ("p99_ms", or_null(number("99 of 100 were faster."))),
            (
                "last_failure",
                or_null(object("Also longer ago.", &[("ago_ms", millis("So long ago.")), ("cause", text(cause))])),
            ),
            ("total", object("Since it is known.", &[("requests", int("Attempts.")), ("failures", int("Of those."))])),
        ],
    )
}

fn opening() -> Json {
    let blame = object(
        "A request that counted against it.",
        &[
            (
                "request_id",
                or_null(text("For `/requests/ID`; of a connection that is carried as bytes there is none.")),
            ),
            ("endpoint", or_null(text("Its id; null: it was sent to nobody."))),
            ("address", or_null(text("What was dialled."))),
            ("outcome", text("A status, gRPC's as `grpc 14`, a reason, or `slow_call`.")),
            ("timestamp", time("When it ended.")),
        ],
    );
    object(
        "The last time that it opened by itself; it stays when it has closed.",
        &[
            ("ago_ms", millis("Since it opened.")),
            ("lasted_ms", or_null(millis("Until it closed; null: it has not."))),
            ("cause", text("Why it opened.")),
            ("failures", list("What led to it, the oldest first: the last 8.", blame.clone())),
            ("probes_failed", int("Since.")),
            ("last_probe", or_null(blame)),
        ],
    )
}

pub(super) fn upstream() -> Vec<(&'static str, Json)> {
    vec![
        ("service", text("Its name in Consul.")),
        ("protocol", text("What its endpoints speak.")),
        ("required", flag("Without it, this service is not ready.")),
        ("endpoints", int("Those that may be picked.")),
        ("in_flight", int("Requests now.")),
        ("pending", int("Requests that wait for a place.")),
        ("connections", int("Now open.")),
        ("breaker", breaker_state()),
        ("retry_budget_remaining", or_null(number("Mean of the workers', 0 to 1."))),
        (
            "policy",
            object(
                "",
                &[
                    ("timeout_ms", or_null(millis("For everything."))),
                    ("connect_timeout_ms", millis("For one connect.")),
                    ("balance", text("How an endpoint is chosen.")),
                    ("retry_attempts", int("In all.")),
                    ("retry_statuses", list("", int(""))),
                ],
            ),
        ),
    ]
}

fn seen() -> Vec<(&'static str, Json)> {
    vec![
        ("source", text("Whose word it is: `Consul`, `snapshot`, `bootstrap` or `static`; empty before the first.")),
        ("known", flag("There was an answer.")),
        ("total", int("")),
        ("critical", int("")),
        ("maintenance", int("")),
        ("unusable", int("Without an address or a port.")),
        ("flapping", int("")),
        ("suspect", int("")),
    ]
}

pub(super) fn steering() -> Named {
    vec![
        (
            "EndpointOrdered",
            object(
                "",
                &[
                    ("endpoint", text("Its id.")),
                    ("order", one_of("", &["eject", "pin", "undo"])),
                    ("upstreams", list("Where it is in force.", text(""))),
                    ("for_ms", or_null(millis("How long."))),
                ],
            ),
        ),
        ("Maintenance", object("", &[("message", text("What has become of the routes.")), ("orders", orders())])),
    ]
}

pub(super) fn orders() -> Json {
    list(
        "What is ordered.",
        object(
            "",
            &[
                ("route", or_null(text("Its label; null: all."))),
                ("until_ms", or_null(int("Milliseconds since 1970; null: until it is taken back."))),
            ],
        ),
    )
}
