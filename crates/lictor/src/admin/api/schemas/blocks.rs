//! Building blocks (docs/building-blocks.md).

use serde_json::{Value as Json, json};

use super::words::{
    Named, constant, described, error, flag, int, list, map, millis, named, object, one_of, or_null, text,
    with_optional,
};

pub(super) fn services() -> Named {
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

pub(super) fn settings() -> Named {
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

pub(super) fn locks() -> Named {
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

pub(super) fn sagas() -> Named {
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
    let undo = "It is POST /api/COMPENSATION; without one, there is nothing to undo.";
    let or_empty = described(json!({ "type": "string", "pattern": format!("^$|{PATH}"), "maxLength": 256 }), undo);
    let wanted = with_optional(
        object("", &step()),
        &[
            ("compensation", or_null(or_empty)), // as Go has one that is not set
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
                    ("steps", list("", object("", &[&step()[..], &[("compensation", or_null(path(undo)))]].concat()))),
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

pub(super) fn meta() -> Named {
    vec![
        ("MetaPatch", json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } })),
        ("Meta", object("", &[("meta", map("What it is now.", text(""))), ("registered", flag("The agent has it."))])),
    ]
}
