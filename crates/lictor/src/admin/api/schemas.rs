//! What answers look like: a JSON Schema for each, by the name that the table knows it by. A member whose name ends with
//! `?` may be missing. `make openapi` holds the real answers against them, and lets nothing pass that is not described.

mod blocks;
mod frame;
mod gateway;
mod history;
mod requests;
mod upstreams;
mod words;

use lictor_consul::RegistrationState;
use lictor_core::Reason;
use serde_json::{Map, Value as Json, json};

use self::blocks::{locks, meta, sagas, services, settings};
use self::frame::frame;
use self::gateway::gateway;
use self::history::history;
use self::requests::requests;
use self::upstreams::{health, steering, upstreams};
use self::words::{Members, Named, constant, flag, int, list, map, millis, object, one_of, or_null, text, time};
use super::LEVELS;

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
        history(),
        services(),
        settings(),
        locks(),
        sagas(),
        meta(),
    ];
    parts.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

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
