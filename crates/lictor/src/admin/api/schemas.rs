//! What answers look like: a JSON Schema for each, by the name that the table knows it by. A member whose name ends with
//! `?` may be missing. `make openapi` holds the real answers against them, and lets nothing pass that is not described.

use lictor_consul::RegistrationState;
use lictor_core::Reason;
use serde_json::{Map, Value as Json, json};

use super::LEVELS;

/// Members of an object.
type Members<'a> = &'a [(&'a str, Json)];

/// All of them.
pub(super) fn schemas() -> Map<String, Json> {
    let parts = [
        common(),
        health(),
        upstreams(),
        steering(),
        requests(),
        gateway(),
        config(),
        consul(),
        frame(),
        services(),
        settings(),
        locks(),
        sagas(),
        meta(),
    ];
    parts.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

type Named = Vec<(&'static str, Json)>;

fn common() -> Named {
    let members = json!({ "type": "object" });
    vec![
        (
            "Error",
            object("Why not.", &[("status", constant("error")), ("message", text("A sentence that says what to do."))]),
        ),
        ("State", object("", &[("status", text("The word that the answer tells."))])),
        (
            "Document",
            json!({ "description": "OpenAPI 3.1.", "type": "object", "required": ["openapi", "info", "paths"],
            "properties": { "openapi": text("3.1.0"), "info": members, "paths": members, "components": members, "servers": { "type": "array" }, "tags": { "type": "array" } } }),
        ),
        ("Reason", one_of("lictor's word for a failure: docs/failure-reasons.md.", &Reason::ALL.map(Reason::as_str))),
        ("Level", level()),
        ("LevelSet", object("", &[("level", text("In force."))])),
    ]
}

/// A level, or levels by where lines come from.
pub(super) fn level() -> Json {
    let words = LEVELS.join("|");
    json!({ "type": "string", "pattern": format!("^([A-Za-z0-9_:]+=)?({words})(,([A-Za-z0-9_:]+=)?({words}))*$") })
}

fn health() -> Named {
    let check = |states: &[&str], more: (&str, Json)| {
        object("", &[("status", one_of("", states)), ("message", text("")), more])
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

fn upstreams() -> Named {
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
                    ("live", or_null(named("EndpointLive"))),
                ],
            ),
        ),
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

fn upstream() -> Vec<(&'static str, Json)> {
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

fn steering() -> Named {
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

fn orders() -> Json {
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

fn requests() -> Named {
    let tapped = [
        &story()[..],
        &[
            ("request_headers", headers("As the client sent it; secrets as `***`.")),
            ("response_headers", headers("As the client got it.")),
        ],
    ]
    .concat();
    let told = [&story()[..], &[("advice", or_null(text("What to look at.")))]].concat();
    vec![
        (
            "Requests",
            object(
                "",
                &[
                    ("kept", object("", &[("failures", int("")), ("successes", int(""))])),
                    ("matching", int("Those that are asked for.")),
                    ("requests", list("The newest first.", named("RequestLine"))),
                ],
            ),
        ),
        ("RequestLine", object("", &line())),
        ("Stories", object("", &[("requests", list("Of this id.", named("Story")))])),
        ("Story", object("What became of a request.", &told)),
        ("Tapped", object("A request that is over.", &tapped)),
        ("Dropped", object("", &[("dropped", int("So many were missed."))])),
        ("Policy", policy()),
        (
            "Attempt",
            object(
                "",
                &[
                    ("endpoint", text("Its id.")),
                    ("address", text("What was dialled.")),
                    ("outcome", text("A status, `connected`, `abandoned`, or a reason.")),
                    ("detail", or_null(text("What went wrong."))),
                    ("began_ms", number("Since the request's arrival.")),
                    ("took_ms", number("To the answer's head.")),
                    ("then", or_null(object("After a failure.", &then()))),
                ],
            ),
        ),
        (
            "Refusal",
            object(
                "An answer of lictor's own.",
                &[("status", int("")), ("reason", or_null(named("Reason"))), ("detail", text(""))],
            ),
        ),
        ("Nowhere", object("", &[("status", constant("error")), ("message", text("")), ("refused", named("Refusal"))])),
        ("Explanation", object("What would become of a request.", &explanation())),
        ("Candidate", object("An endpoint, as the picker sees it.", &candidate())),
        (
            "Event",
            json!({
                "description": "A change of state. Each kind has members of its own.",
                "type": "object",
                "required": ["id", "kind", "level", "timestamp", "message"],
                "properties": { "id": int("Grows by one."), "kind": text(""), "level": one_of("", &["ERROR", "WARN", "INFO"]), "timestamp": time(""), "message": text("") },
                "additionalProperties": { "type": ["string", "integer", "boolean"] },
            }),
        ),
    ]
}

fn line() -> Vec<(&'static str, Json)> {
    vec![
        ("id", text("`X-Request-ID`.")),
        ("timestamp", text("When it was over.")),
        ("kept", kept()),
        ("direction", direction()),
        ("method", text("")),
        ("path", text("Without the query.")),
        ("upstream", or_null(text("Once it was found."))),
        ("status", int("What the client got; 499 when it did not wait.")),
        ("grpc_status", or_null(int("Of a gRPC answer."))),
        ("reason", or_null(named("Reason"))),
        ("attempts", int("")),
        ("took_ms", number("To the last byte.")),
    ]
}

fn story() -> Vec<(&'static str, Json)> {
    vec![
        ("id", text("`X-Request-ID`.")),
        ("trace_id", text("The trace that it belongs to.")),
        ("timestamp", text("When it was over.")),
        ("kept", kept()),
        ("direction", direction()),
        ("worker", int("Which one served it.")),
        ("client", text("Its address, or `unix`.")),
        ("method", text("")),
        ("path", text("Without the query.")),
        ("upstream", or_null(text("Once it was found."))),
        ("route", or_null(text("The pattern of the route that matched."))),
        ("policy", or_null(named("Policy"))),
        ("status", int("What the client got; 499 when it did not wait.")),
        ("grpc_status", or_null(int("Of a gRPC answer."))),
        ("reason", or_null(named("Reason"))),
        ("detail", or_null(text("The sentence that goes with it."))),
        ("cache", or_null(one_of("When it was not the upstream that answered.", &["hit", "coalesced", "stale"]))),
        ("fallback", or_null(one_of("What stood in for a failure.", &["stale", "static", "upstream"]))),
        ("took_ms", number("To the last byte.")),
        ("head_ms", or_null(number("To the answer's head."))),
        ("bytes", int("Of the answer's body.")),
        ("deadline_ms", or_null(millis("The time that its caller gave it."))),
        ("breaker", or_null(named("Breaker"))),
        ("retry_budget_remaining", or_null(number("Of the worker's."))),
        ("attempts", list("In the order in which they ended.", named("Attempt"))),
        ("attempts_left_out", int("Further ones.")),
    ]
}

fn then() -> Vec<(&'static str, Json)> {
    vec![
        ("is_retried", flag("Another attempt follows.")),
        ("wait_ms", or_null(number("Before it."))),
        ("why", text("Why, or why not.")),
    ]
}

fn policy() -> Json {
    object(
        "How it was called.",
        &[
            ("timeout_ms", or_null(millis("For everything."))),
            ("per_try_timeout_ms", or_null(millis("For one attempt."))),
            ("connect_timeout_ms", millis("For one connect.")),
            ("attempts", int("In all.")),
            ("retry_on", list("Statuses.", int(""))),
            ("retry_methods", text("Which methods are sent again.")),
            ("retry_budget", number("Retries to requests.")),
            ("balance", text("How an endpoint is chosen.")),
            ("breaker_failures", or_null(int("In a row open the breaker; null: there is none."))),
            ("ejection_failures", int("In a row eject an endpoint; 0: never.")),
            ("max_in_flight", int("Requests at a time.")),
            ("is_hedged", flag("Slow requests are sent twice.")),
            ("is_cached", flag("Answers are kept.")),
            ("fallback", list("What is answered in place of a failure, in this order.", text(""))),
        ],
    )
}

fn explanation() -> Vec<(&'static str, Json)> {
    let value = object("", &[("value", text("")), ("origin", text(""))]);
    let failure = [&[("reason", named("Reason"))][..], &then()].concat();
    vec![
        ("worker", int("Whose answer this is.")),
        ("upstream", text("")),
        ("service", text("Its name in Consul.")),
        ("source", text("Whose word its endpoints are; empty before the first.")),
        ("protocol", text("What its endpoints speak.")),
        (
            "gateway",
            or_null(object(
                "What the gateway does with it.",
                &[
                    ("route", text("")),
                    ("when", or_null(text("What it asks of claims."))),
                    ("variants", or_null(text("With their weights."))),
                    ("target", text("What goes on.")),
                    ("mirror", or_null(text("Where copies go."))),
                    (
                        "auth",
                        or_null(object(
                            "",
                            &[
                                ("asks", text("")),
                                ("subject", or_null(text("The claim `sub`."))),
                                ("by", or_null(text("`jwt`, `keys`, `basic`."))),
                                ("open", or_null(text("What was not found out."))),
                            ],
                        )),
                    ),
                ],
            )),
        ),
        (
            "route",
            or_null(object(
                "The first that matches.",
                &[("index", int("From 0.")), ("method", or_null(text(""))), ("path", text("The pattern."))],
            )),
        ),
        ("policy", named("Policy")),
        ("is_idempotent", flag("A second processing is harmless.")),
        ("attempts_allowed", int("In all.")),
        ("deadline_ms", or_null(millis("The time that its caller gives."))),
        ("breaker", named("Breaker")),
        ("in_flight", int("Requests to the upstream now.")),
        ("retry_budget_remaining", number("The share that is left.")),
        ("is_panic", flag("So many endpoints are ejected that ejection is ignored.")),
        ("zone_share", or_null(number("What stays in our zone."))),
        ("endpoints", list("Where it could go.", named("Candidate"))),
        ("picked", or_null(text("The id of the one that the next request gets."))),
        ("refused", or_null(named("Refusal"))),
        ("on_failure", list("What would follow the first attempt's failure.", object("", &failure))),
        ("picked_by_worker", list("", or_null(text("")))),
        ("origins", map("Keys of the policy.", value)),
    ]
}

fn candidate() -> Vec<(&'static str, Json)> {
    vec![
        ("id", text("Consul's service id.")),
        ("address", text("What is dialled.")),
        ("state", endpoint_state()),
        ("ejected_for_ms", or_null(millis(""))),
        ("order", or_null(one_of("An operator's.", &["eject", "pin"]))),
        ("tier", int("0 is the best.")),
        ("why_not", or_null(text("Why it does not take the next request."))),
        ("weight", int("")),
        ("warmth", number("The share of its weight that it has, 0 to 1.")),
        ("in_flight", int("This worker's requests to it now.")),
        ("ewma_ms", or_null(number("The average of its latency."))),
        ("score", or_null(number("What the algorithm compares; the lower the better."))),
        ("share", number("Of requests like this one, if nothing changed.")),
    ]
}

fn gateway() -> Named {
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

fn config() -> Named {
    let value = || json!({ "type": ["string", "null"] });
    vec![
        (
            "Config",
            map(
                "The effective value of each key.",
                json!({ "anyOf": [text(""), object("", &[("value", text("")), ("origin", text("What has said so."))])] }),
            ),
        ),
        (
            "Changes",
            list(
                "The newest first.",
                object(
                    "A reload.",
                    &[
                        ("at", time("")),
                        ("origin", text("Why it was read again.")),
                        (
                            "changes",
                            list(
                                "",
                                object(
                                    "",
                                    &[
                                        ("type", one_of("", &["added", "modified", "deleted"])),
                                        ("key", text("")),
                                        ("origin", text("What says so now.")),
                                        ("oldValue?", value()),
                                        ("newValue?", value()),
                                        ("value?", value()),
                                    ],
                                ),
                            ),
                        ),
                        ("refused?", text("Why nothing has changed.")),
                    ],
                ),
            ),
        ),
    ]
}

fn consul() -> Named {
    let source = || one_of("Whose word it is; `none` before the first.", &["consul", "snapshot", "none"]);
    let watched = |members: Members<'_>| {
        let all = [
            members,
            &[
                ("source", source()),
                ("index", int("Consul's.")),
                ("age_ms", or_null(millis("Since Consul's last good answer."))),
                ("errors", int("So far.")),
                ("last_error", or_null(text("While it lasts."))),
            ],
        ];
        object("", &all.concat())
    };
    vec![(
        "Consul",
        object(
            "How the control plane stands.",
            &[
                ("address", or_null(text("The agent's; null: Consul is not in use."))),
                ("version", or_null(text("Where the token may read it."))),
                ("up", or_null(flag("Null before the first answer."))),
                ("connections", int("To the agent.")),
                ("registration", one_of("Ours.", &RegistrationState::ALL.map(RegistrationState::as_str))),
                ("registration_error", or_null(text("Why it is not registered."))),
                ("reregistrations", map("By cause.", int(""))),
                ("errors", map("By kind.", int(""))),
                ("refreshes", int("Queries asked anew because connections to endpoints fail.")),
                (
                    "watches",
                    list(
                        "One for each distinct query.",
                        watched(&[
                            ("service", text("")),
                            ("query", text("Tags, filter and datacenter.")),
                            ("behind_ms", or_null(millis("How far its server was behind the leader."))),
                            ("instances", int("")),
                        ]),
                    ),
                ),
                (
                    "snapshot",
                    or_null(object(
                        "The last good answers on disk.",
                        &[
                            ("path", text("")),
                            ("in_use", int("Watches whose endpoints are from it.")),
                            ("age_ms", or_null(millis("The oldest of those."))),
                            ("saved_ms", or_null(millis("Since it was written."))),
                            ("refused", or_null(text("Why the one at the start was not used."))),
                            ("last_error", or_null(text("Why it is not written."))),
                        ],
                    )),
                ),
                ("kv", or_null(watched(&[("key", text("")), ("modify_index", or_null(int("Of the value.")))]))),
                (
                    "catalog",
                    or_null(watched(&[
                        ("tag", text("What tags begin with.")),
                        ("claims", int("Tags that claim a route.")),
                    ])),
                ),
            ],
        ),
    )]
}

/// What the dashboard shows: the other pages in one, with rates.
fn frame() -> Named {
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

fn services() -> Named {
    vec![
        (
            "Services",
            object(
                "",
                &[(
                    "services",
                    list("", object("", &[("name", text("")), ("tags", list("Of all its instances.", text("")))])),
                )],
            ),
        ),
        (
            "Instances",
            object(
                "",
                &[
                    ("name", text("The service's.")),
                    (
                        "instances",
                        list(
                            "",
                            object(
                                "",
                                &[
                                    ("id", text("")),
                                    ("node", text("")),
                                    ("address", text("An address, or a host's name.")),
                                    ("port", int("0: it has none.")),
                                    (
                                        "status",
                                        one_of(
                                            "The worst of its checks.",
                                            &["passing", "warning", "unchecked", "critical", "maintenance"],
                                        ),
                                    ),
                                    ("weight", int("0: it should get no requests.")),
                                    ("tags", list("", text(""))),
                                    ("meta", map("", text(""))),
                                ],
                            ),
                        ),
                    ),
                ],
            ),
        ),
    ]
}

fn settings() -> Named {
    let setting = |value: (&str, Json)| {
        object(
            "",
            &[("key", text("Below the prefix.")), ("modify_index", int("Consul's; 0: there is no such key.")), value],
        )
    };
    vec![
        (
            "Setting",
            json!({ "anyOf": [
            setting(("value", json!({ "description": "JSON, or else text; null: there is no such key." }))),
            setting(("value_base64", json!({ "type": "string", "contentEncoding": "base64" }))),
        ] }),
        ),
        ("Settings", object("", &[("entries", list("", named("Setting")))])),
        ("SettingOrSettings", json!({ "anyOf": [named("Setting"), named("Settings")] })),
        ("NoSetting", error(&[("modify_index?", constant(0))])),
        ("Written", object("", &[("key", text("Below the prefix.")), ("modify_index", int("The new one."))])),
        (
            "Meanwhile",
            error(&[
                ("modify_index", int("The one that there is now; 0: the key is gone.")),
                ("same_value", flag("It holds what was to be written: perhaps it was, and the answer was lost.")),
            ]),
        ),
    ]
}

fn locks() -> Named {
    vec![
        (
            "Held",
            object(
                "The lock is yours.",
                &[
                    ("name", text("")),
                    ("owner", text("What gives it back.")),
                    ("fencing_token", int("Grows with each holder: send it with what you write.")),
                    ("ttl_ms", millis("Without a renewal.")),
                ],
            ),
        ),
        ("Released", object("It was given back.", &[("name", text(""))])),
        ("Lost", object("It is yours no more.", &[("name", text("")), ("reason", text(""))])),
        ("Taken", error(&[("holder?", or_null(text("What it says of itself.")))])),
        ("LockReleased", object("", &[("status", constant("released")), ("name", text(""))])),
    ]
}

fn sagas() -> Named {
    const NAME: &str = r"^(?!\.+$)[A-Za-z0-9._\-]{1,64}$";
    // Segments of a path, none of them `.` or `..` (RFC 3986, section 3.3).
    const PATH: &str = r"^(?!(.*/)?\.\.?(/|$))[A-Za-z0-9\-._~!$&'()*+,;=:@]+(/[A-Za-z0-9\-._~!$&'()*+,;=:@]+)*$";
    let status = || one_of("", &["running", "compensating", "completed", "failed", "manual"]);
    let changed = || text("RFC 3339.");
    let shaped = |told: &str, pattern: &str| described(json!({ "type": "string", "pattern": pattern }), told);
    let path = |told: &str| described(json!({ "type": "string", "pattern": PATH, "maxLength": 256 }), told);
    let step = || {
        [
            ("name", shaped("No two have the same.", NAME)),
            ("service", described(json!({ "type": "string", "minLength": 1 }), "An upstream of this sidecar.")),
            ("action", path("It is POST /api/ACTION.")),
        ]
    };
    let compensation = || or_null(path("It is POST /api/COMPENSATION; without one, there is nothing to undo."));
    let wanted = with_optional(
        object("", &step()),
        &[
            ("compensation", compensation()),
            ("payload", json!({ "description": "The body of both, byte for byte." })),
            ("timeout", or_null(text("For all tries together, 100ms to 5m; 30s without."))),
        ],
    );
    let mut steps = list("Done in this order, undone in the other.", wanted);
    (steps["minItems"], steps["maxItems"]) = (json!(1), json!(32));
    let names = |told: &str| list(told, text(""));
    vec![
        (
            "SagaPlan",
            with_optional(
                object("", &[("steps", steps)]),
                &[(
                    "id",
                    or_null(text("1 to 64 of A-Z a-z 0-9 . _ -; without one, the header `Idempotency-Key` says it.")),
                )],
            ),
        ),
        (
            "Saga",
            object(
                "",
                &[
                    ("id", text("")),
                    ("status", status()),
                    ("current", int("How many steps are done.")),
                    ("completed", names("Steps that were done.")),
                    ("failed", names("Steps that failed.")),
                    ("compensated", names("Steps that are undone.")),
                    ("remaining", names("Steps that are still to be undone.")),
                    ("reason", or_null(text("Why it did not end well."))),
                    ("steps", list("", object("", &[&step()[..], &[("compensation", compensation())]].concat()))),
                    ("started", changed()),
                    ("changed", changed()),
                ],
            ),
        ),
        ("SagaOrError", json!({ "anyOf": [named("Saga"), named("Error")] })),
        (
            "Sagas",
            object(
                "",
                &[("sagas", list("", object("", &[("id", text("")), ("status", status()), ("changed", changed())])))],
            ),
        ),
    ]
}

fn meta() -> Named {
    vec![
        ("MetaPatch", json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } })),
        ("Meta", object("", &[("meta", map("What it is now.", text(""))), ("registered", flag("The agent has it."))])),
    ]
}

/// An error that says more.
fn error(more: Members<'_>) -> Json {
    object("", &[&[("status", constant("error")), ("message", text(""))][..], more].concat())
}

fn object(told: &str, members: Members<'_>) -> Json {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in members {
        let key = name.trim_end_matches('?');
        properties.insert(key.to_owned(), schema.clone());
        if key.len() == name.len() {
            required.push(key);
        }
    }
    described(json!({ "type": "object", "properties": properties, "required": required }), told)
}

/// The same object with further members, each of which may be missing.
fn with_optional(mut schema: Json, members: Members<'_>) -> Json {
    for (name, member) in members {
        schema["properties"][*name] = member.clone();
    }
    schema
}

fn map(told: &str, of: Json) -> Json {
    described(json!({ "type": "object", "additionalProperties": of }), told)
}

fn list(told: &str, of: Json) -> Json {
    described(json!({ "type": "array", "items": of }), told)
}

fn text(told: &str) -> Json {
    described(json!({ "type": "string" }), told)
}

fn time(told: &str) -> Json {
    described(json!({ "type": "string", "format": "date-time" }), told)
}

fn one_of(told: &str, words: &[&str]) -> Json {
    described(json!({ "type": "string", "enum": words }), told)
}

fn constant(value: impl Into<Json>) -> Json {
    json!({ "const": value.into() })
}

/// A whole number that is not negative.
fn int(told: &str) -> Json {
    described(json!({ "type": "integer", "format": "int64", "minimum": 0 }), told)
}

fn millis(told: &str) -> Json {
    int(&format!("Milliseconds. {told}"))
}

fn number(told: &str) -> Json {
    described(json!({ "type": "number", "format": "double" }), told)
}

fn flag(told: &str) -> Json {
    described(json!({ "type": "boolean" }), told)
}

fn named(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn or_null(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn breaker_state() -> Json {
    one_of("", &["closed", "open", "half-open"])
}

fn endpoint_state() -> Json {
    one_of("", &["healthy", "warning", "flapping", "suspect", "ejected", "draining", "resting"])
}

fn direction() -> Json {
    one_of("Where it came in.", &["inbound", "outbound", "gateway"])
}

fn kept() -> Json {
    one_of("Why it was kept.", &["failed", "refused", "asked", "retried", "slow", "sampled"])
}

/// Pairs of name and value.
fn headers(told: &str) -> Json {
    list(told, json!({ "type": "array", "items": text(""), "minItems": 2, "maxItems": 2 }))
}

fn described(mut schema: Json, told: &str) -> Json {
    if !told.is_empty() {
        schema["description"] = json!(told.trim_end());
    }
    schema
}
