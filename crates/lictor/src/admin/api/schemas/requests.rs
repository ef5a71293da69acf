//! Requests that are over, and what would become of one.

use serde_json::{Value as Json, json};

use super::words::{
    Named, constant, direction, endpoint_state, flag, headers, int, kept, list, map, millis, named, number, object,
    one_of, or_null, text, time,
};

pub(super) fn requests() -> Named {
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
        ("Requests", listed()),
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
        ("Events", changes()),
        ("Event", change()),
    ]
}

fn listed() -> Json {
    let unsent = [
        ("upstream", or_null(text("Once it was found."))),
        ("reason", or_null(named("Reason"))),
        ("times", int("So far.")),
        ("first", named("RequestLine")),
        ("last", named("RequestLine")),
    ];
    let told = "Failures before anything was sent (the breaker was open, there was no endpoint, ..), the latest first.";
    object(
        "",
        &[
            ("kept", object("", &[("failures", int("")), ("successes", int(""))])),
            ("matching", int("Those that are asked for.")),
            ("unsent", list(told, object("", &unsent))),
            ("requests", list("The newest first.", named("RequestLine"))),
        ],
    )
}

fn changes() -> Json {
    object(
        "What has changed.",
        &[
            ("service", text("Whose sidecar says so.")),
            ("instance", text("Its id in Consul; empty where it has none.")),
            ("newest", int("The id of the newest event: what to ask for `since` next time.")),
            ("whole", flag("None of what was asked for is kept no more.")),
            ("events", list("The oldest first.", named("Event"))),
        ],
    )
}

fn change() -> Json {
    json!({
        "description": "A change of state. Each kind has members of its own.",
        "type": "object",
        "required": ["id", "kind", "level", "timestamp", "message"],
        "properties": { "id": int("Grows by one; from 1 in each process."), "kind": text(""), "level": one_of("", &["ERROR", "WARN", "INFO"]), "timestamp": time(""), "message": text("") },
        "additionalProperties": { "type": ["string", "integer", "boolean"] },
    })
}

pub(super) fn line() -> Vec<(&'static str, Json)> {
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
