//! Orders: what an operator can have done.

use std::time::Duration;

use super::{
    Answer, Command, Kind, Name, Operation, Parameter, Path, RequestBody, Who, json, parameter, post, refusal,
};

/// What is meant to last belongs into the configuration.
pub(in crate::admin) const STEERED_AT_MOST: Duration = Duration::from_secs(24 * 3600);
const MAINTAINED_AT_MOST: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of a level that comes as the body.
pub(in crate::admin) const LEVEL_MAX: usize = 1024;

const STOPPING: Answer = refusal(503, "The sidecar is stopping.");
const UNTOLD: Answer = refusal(502, "It is so here, but Consul does not know yet.");
const WRONG: Answer = refusal(400, "A parameter is no good; the message says how.");

const LASTS: Parameter = Parameter {
    default: Some("5m"),
    ..parameter(
        "for",
        Kind::Duration { least: Duration::from_millis(1), most: STEERED_AT_MOST },
        "How long it is in force.",
    )
};

const STEERED: &[Parameter] =
    &[LASTS, parameter("upstream", Kind::Text, "Only there; two upstreams may be the same service.")];

const ENDPOINT_ANSWERS: &[Answer] =
    &[json(200, "EndpointOrdered", "In force."), WRONG, refusal(404, "No endpoint has this id."), STOPPING];

pub(super) const PATHS: &[Path] = &[
    order(
        "/drain",
        &[Operation {
            id: "drain",
            summary: "Leave circulation: not ready, and in maintenance in Consul. Requests that come are served.",
            answers: &[json(200, "State", "`draining`"), UNTOLD, STOPPING],
            ..post(Command::Drain)
        }],
    ),
    order(
        "/undrain",
        &[Operation {
            id: "undrain",
            summary: "Come back.",
            answers: &[json(200, "State", "`serving`"), UNTOLD, STOPPING],
            ..post(Command::Undrain)
        }],
    ),
    endpoint(
        "/endpoints/{id}/eject",
        &[Operation {
            id: "ejectEndpoint",
            summary: "Nothing is sent to an endpoint.",
            query: STEERED,
            answers: ENDPOINT_ANSWERS,
            ..post(Command::Eject)
        }],
    ),
    endpoint(
        "/endpoints/{id}/pin",
        &[Operation {
            id: "pinEndpoint",
            summary: "All is sent to an endpoint.",
            query: STEERED,
            answers: ENDPOINT_ANSWERS,
            ..post(Command::Pin)
        }],
    ),
    endpoint(
        "/endpoints/{id}/undo",
        &[Operation {
            id: "undoEndpoint",
            summary: "An endpoint is as any other again; its ejection ends, too.",
            query: STEERED,
            answers: ENDPOINT_ANSWERS,
            ..post(Command::Undo)
        }],
    ),
    Path {
        template: "/breakers/{upstream}",
        who: Who::Operator,
        name: Some(Name { told: "The upstream's name.", is_deep: true, part: None }),
        operations: &[Operation {
            id: "orderBreaker",
            summary: "Open or close a circuit breaker, or let it judge by itself again.",
            query: &[
                Parameter {
                    is_required: true,
                    ..parameter(
                        "state",
                        Kind::Words(&["open", "close", "closed", "auto"]),
                        "`closed` is as `close`; `auto` ends an order.",
                    )
                },
                LASTS,
            ],
            answers: &[
                json(200, "Breaker", "As it is now."),
                WRONG,
                refusal(404, "No upstream is named so."),
                STOPPING,
            ],
            ..post(Command::Breaker)
        }],
    },
    order(
        "/maintenance",
        &[Operation {
            id: "maintenance",
            summary: "The gateway of this process, or a route of it, is in maintenance, or is not.",
            query: &[
                Parameter {
                    is_required: true,
                    ..parameter("state", Kind::Words(&["on", "off"]), "`off` takes an order back, and has no `for`.")
                },
                parameter(
                    "for",
                    Kind::Duration { least: Duration::from_millis(1), most: MAINTAINED_AT_MOST },
                    "How long; else until it is taken back.",
                ),
                parameter("route", Kind::Text, "Its label; else all of them."),
            ],
            answers: &[
                json(200, "Maintenance", "What is ordered now."),
                WRONG,
                refusal(404, "There is no gateway in this configuration."),
                refusal(409, "A key of KV says it to all gateways: `lictor maintenance` writes that."),
                STOPPING,
            ],
            ..post(Command::Maintenance)
        }],
    ),
    order(
        "/reload",
        &[Operation {
            id: "reload",
            summary: "Read the configuration again: all of it, or nothing.",
            answers: &[
                json(200, "State", "`reloaded`"),
                refusal(422, "It is no good, or a port is taken; nothing has changed."),
                STOPPING,
            ],
            ..post(Command::Reload)
        }],
    ),
    order(
        "/log-level",
        &[Operation {
            id: "logLevel",
            summary: "Change what is logged, until a restart or reload.",
            told: "The level is in the query, or is the body.",
            query: &[parameter("level", Kind::Level, "A level, or levels by where lines come from.")],
            body: Some(RequestBody {
                kind: "text/plain",
                schema: Some("Level"),
                most: LEVEL_MAX,
                is_required: false,
                told: "The level, where the query says none.",
            }),
            answers: &[
                json(200, "LevelSet", "In force."),
                WRONG,
                refusal(408, "The body did not come within 10 s."),
                refusal(413, "The body is longer than a level."),
            ],
            ..post(Command::LogLevel)
        }],
    ),
    order(
        "/quit",
        &[Operation {
            id: "quit",
            summary: "Stop in order, as by SIGTERM.",
            answers: &[json(202, "State", "`stopping`"), STOPPING],
            ..post(Command::Quit)
        }],
    ),
];

const fn order(template: &'static str, operations: &'static [Operation]) -> Path {
    Path { template, who: Who::Operator, name: None, operations }
}

const fn endpoint(template: &'static str, operations: &'static [Operation]) -> Path {
    let name = Some(Name { told: "Consul's service id, or the address of a static one.", is_deep: true, part: None });
    Path { template, who: Who::Operator, name, operations }
}
