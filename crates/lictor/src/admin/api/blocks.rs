//! Building blocks: what an application asks of Consul through us (docs/building-blocks.md).

use std::time::Duration;

use lictor_consul::LockWanted;
use lictor_core::saga::BODY_MAX as SAGA_MAX;

use super::{
    Answer, Block, Content, Kind, Name, Operation, Parameter, Path, RequestBody, Who, block, events, json, parameter,
    refusal,
};

const SECOND: Duration = Duration::from_secs(1);
/// Consul's bounds of a session's time.
pub(in crate::admin) const TTL: [Duration; 2] = [SECOND.saturating_mul(10), SECOND.saturating_mul(24 * 3600)];
pub(in crate::admin) const WAIT: [Duration; 2] = [Duration::ZERO, SECOND.saturating_mul(600)];
/// The least is that of a lock's renewals, the most Consul's.
pub(in crate::admin) const DELAY: [Duration; 2] = [LockWanted::LEAST_DELAY, SECOND.saturating_mul(60)];
/// Bytes of a value that is written. Consul takes 512 KiB, of which a transaction needs a third for itself.
pub(in crate::admin) const VALUE_MAX: usize = 256 << 10;
/// Consul's Meta has 64 pairs of at most 640 bytes.
pub(in crate::admin) const PATCH_MAX: usize = 64 << 10;

const UNANSWERED: Answer = refusal(502, "Consul refuses what it was asked.");
const NO_NAME: Answer = refusal(400, "The name or a parameter is no good; the message says how.");
const LATE: Answer = refusal(408, "The body did not come within 10 s.");
const WATCH: Parameter = parameter("watch", Kind::Flag, "Tell it at once, and whenever it changes.");
const RECURSE: Parameter = parameter("recurse", Kind::Flag, "All keys below this one, 1,000 at most.");
const RAW: Parameter = parameter("raw", Kind::Flag, "The bytes alone.");

/// A name in a key of Consul's KV, as `kv_key` has it: neither empty nor `.` nor `..`, without control characters.
const KEY: &str = concat!(
    r"([^/.\u0000-\u001F\u007F-\u009F][^/\u0000-\u001F\u007F-\u009F]*",
    r"|\.[^/.\u0000-\u001F\u007F-\u009F][^/\u0000-\u001F\u007F-\u009F]*",
    r"|\.\.[^/\u0000-\u001F\u007F-\u009F]+)",
);

const QUERY: &[Parameter] = &[
    parameter("all", Kind::Flag, "Those that should not be called, too."),
    parameter("tag", Kind::Texts, "Only those that have all of these tags."),
    parameter("filter", Kind::Text, "Consul's language of filters: `Service.Meta.version==v2`."),
    parameter("dc", Kind::Text, "Another datacenter."),
];

pub(super) const PATHS: &[Path] = &[
    Path {
        template: "/v1/services",
        who: Who::Application,
        name: None,
        operations: &[Operation {
            id: "services",
            summary: "The names and tags of all services.",
            answers: &[json(200, "Services", "By name."), UNANSWERED],
            ..block("GET", Block::Services)
        }],
    },
    Path {
        template: "/v1/services/{service}",
        who: Who::Application,
        name: Some(SERVICE),
        operations: &[Operation {
            id: "service",
            summary: "The instances of a service that may be called.",
            told: "A service that nobody offers has none.",
            query: QUERY,
            answers: &[json(200, "Instances", "As of now."), NO_NAME, UNANSWERED],
            ..block("GET", Block::Service)
        }],
    },
    Path {
        template: "/v1/watch/services/{service}",
        who: Who::Application,
        name: Some(SERVICE),
        operations: &[Operation {
            id: "watchService",
            summary: "The same, told at once and whenever they are others.",
            query: QUERY,
            answers: &[
                events(
                    &[("instances", "Instances"), ("error", "Error")],
                    "A comment comes every 15 s; `error` is the end.",
                ),
                NO_NAME,
                UNANSWERED,
            ],
            ..block("GET", Block::WatchService)
        }],
    },
    Path {
        template: "/v1/config/",
        who: Who::Application,
        name: None,
        operations: &[Operation {
            id: "settings",
            summary: "All keys below `building_blocks.config_prefix`.",
            query: &[Parameter { is_required: true, ..RECURSE }, WATCH, RAW],
            answers: &[
                json(200, "Settings", "1,000 keys at most, or their values now and at each change."),
                events(&[("config", "Settings"), ("error", "Error")], ""),
                NO_NAME,
                UNANSWERED,
            ],
            ..block("GET", Block::ReadSettings)
        }],
    },
    Path {
        template: "/v1/config/{key}",
        who: Who::Application,
        name: Some(Name {
            told: "A key below `building_blocks.config_prefix`; `/` may be in it.",
            is_deep: true,
            part: Some(KEY),
        }),
        operations: &[READ_SETTING, WRITE_SETTING],
    },
    Path {
        template: "/v1/locks/{name}",
        who: Who::Application,
        name: Some(Name {
            told: "A key below `building_blocks.lock_prefix`; `/` may be in it.",
            is_deep: true,
            part: Some(KEY),
        }),
        operations: &[TAKE_LOCK, RELEASE_LOCK],
    },
    Path { template: "/v1/saga", who: Who::Application, name: None, operations: &[SAGAS, BEGIN_SAGA] },
    Path { template: "/v1/saga/{saga}/again", who: Who::Application, name: Some(SAGA_ID), operations: &[SAGA_AGAIN] },
    Path { template: "/v1/saga/{saga}", who: Who::Application, name: Some(SAGA_ID), operations: &[SAGA] },
    Path {
        template: "/v1/self/meta",
        who: Who::Application,
        name: None,
        operations: &[Operation {
            id: "patchMeta",
            summary: "Change Meta of the own registration (RFC 7396).",
            body: Some(RequestBody {
                kind: "application/json",
                schema: Some("MetaPatch"),
                most: PATCH_MAX,
                is_required: true,
                told: "Text replaces, `null` takes away.",
            }),
            answers: &[
                json(200, "Meta", "The agent has it."),
                json(202, "Meta", "The agent is told as soon as it answers."),
                refusal(400, "That is no such map."),
                LATE,
                refusal(409, "This process is not registered."),
                refusal(413, "It is longer than Meta can be."),
                refusal(422, "Consul would refuse it: 64 pairs, keys of 128 bytes, values of 512."),
            ],
            ..block("PATCH", Block::PatchMeta)
        }],
    },
];

const SERVICE: Name = Name { told: "The service's name in Consul.", is_deep: false, part: Some(KEY) };

const SAGA_ID: Name =
    Name { told: "The id of a saga of this service.", is_deep: false, part: Some(r"(?!\.+$)[A-Za-z0-9._\-]{1,64}") };
const NO_SAGA: Answer = refusal(404, "No building block is on, or there is no such saga of this service.");
/// Wherever the end is waited for.
const WAIT_FOR_END: Parameter = Parameter {
    default: Some("60s"),
    ..parameter("wait", Kind::Duration { least: WAIT[0], most: WAIT[1] }, "How long to wait for its end.")
};
const SAGA_COMPLETED: Answer = json(200, "Saga", "It is `completed`.");
const SAGA_GOES_ON: Answer = json(202, "Saga", "It goes on; `Location` says where to ask.");

const SAGAS: Operation = Operation {
    id: "sagas",
    summary: "The sagas of this service, those that changed last first; 1,000 at most.",
    answers: &[json(200, "Sagas", "As of now."), UNANSWERED],
    ..block("GET", Block::Sagas)
};

const BEGIN_SAGA: Operation = Operation {
    id: "beginSaga",
    summary: "Do steps of services one after the other, or undo them; wait for the end.",
    told: "The same id with the same steps is the same saga, however often it is sent.",
    query: &[WAIT_FOR_END],
    body: Some(RequestBody {
        kind: "application/json",
        schema: Some("SagaPlan"),
        most: SAGA_MAX,
        is_required: true,
        told: "Go's spelling (`ID`, `Steps`, `Name`) is read, too.",
    }),
    answers: &[
        SAGA_COMPLETED,
        SAGA_GOES_ON,
        refusal(400, "The body or a parameter is no good; the message says how."),
        LATE,
        json(409, "Saga", "It is `failed` (all is undone) or `manual` (people have to look)."),
        refusal(413, "It is longer than a saga may be."),
        refusal(422, "There is a saga of this id with other steps."),
        UNANSWERED,
    ],
    ..block("POST", Block::BeginSaga)
};

const SAGA: Operation = Operation {
    id: "saga",
    summary: "How a saga is.",
    answers: &[json(200, "Saga", "As of now."), NO_NAME, NO_SAGA, UNANSWERED],
    ..block("GET", Block::Saga)
};

const SAGA_AGAIN: Operation = Operation {
    id: "sagaAgain",
    summary: "Try the rest of a saga that is `manual` again, and wait for its end.",
    query: &[WAIT_FOR_END],
    answers: &[
        SAGA_COMPLETED,
        SAGA_GOES_ON,
        NO_NAME,
        NO_SAGA,
        json(409, "SagaOrError", "It is `failed` now, or `manual` as before; or it was not `manual`."),
        UNANSWERED,
    ],
    ..block("POST", Block::SagaAgain)
};

const READ_SETTING: Operation = Operation {
    id: "setting",
    summary: "What a key of Consul's KV holds.",
    told: "A value that is JSON is shown as JSON, other text as a string, anything else as `value_base64`.",
    query: &[WATCH, RECURSE, RAW],
    answers: &[
        json(
            200,
            "SettingOrSettings",
            "The value; with `recurse` all below; with `raw` the bytes, and its index as `ETag`; with `watch` told at once and at each change.",
        ),
        Answer { status: 200, told: "", content: Content::Bytes },
        events(&[("config", "SettingOrSettings"), ("error", "Error")], ""),
        NO_NAME,
        json(404, "NoSetting", "No building block is on, or there is no such key."),
        UNANSWERED,
    ],
    ..block("GET", Block::ReadSetting)
};

const WRITE_SETTING: Operation = Operation {
    id: "writeSetting",
    summary: "Write a key if it is still as it was read.",
    query: &[Parameter {
        is_required: true,
        ..parameter("cas", Kind::Whole(i64::MAX as u64), "The `modify_index` that was read; 0: there is no such key.")
    }],
    body: Some(RequestBody {
        kind: "application/octet-stream",
        schema: None,
        most: VALUE_MAX,
        is_required: false,
        told: "The value, byte by byte.",
    }),
    answers: &[
        json(200, "Written", "With the new index."),
        NO_NAME,
        LATE,
        json(409, "Meanwhile", "It is another one by now."),
        refusal(413, "It is longer than may be written."),
        refusal(428, "It does not say what it replaces."),
        UNANSWERED,
    ],
    ..block("PUT", Block::WriteSetting)
};

const TAKE_LOCK: Operation = Operation {
    id: "takeLock",
    summary: "Take a lock, and hold it for as long as this request is open.",
    query: &[
        Parameter {
            default: Some("30s"),
            ..parameter(
                "ttl",
                Kind::Duration { least: TTL[0], most: TTL[1] },
                "How long it lives without a renewal, for which lictor sees.",
            )
        },
        Parameter {
            default: Some("0s"),
            ..parameter(
                "wait",
                Kind::Duration { least: WAIT[0], most: WAIT[1] },
                "How long to wait for one that somebody has.",
            )
        },
        Parameter {
            default: Some("15s"),
            ..parameter(
                "delay",
                Kind::Duration { least: DELAY[0], most: DELAY[1] },
                "How long nobody gets it after a holder that was lost.",
            )
        },
    ],
    answers: &[
        events(
            &[("held", "Held"), ("released", "Released"), ("lost", "Lost")],
            "It is held, until another event or the end of the connection.",
        ),
        NO_NAME,
        json(409, "Taken", "Somebody has it, or its last holder was lost a moment ago."),
        UNANSWERED,
    ],
    ..block("PUT", Block::TakeLock)
};

const RELEASE_LOCK: Operation = Operation {
    id: "releaseLock",
    summary: "Give a lock back: the next one may have it at once.",
    query: &[Parameter {
        is_required: true,
        ..parameter("owner", Kind::Text, "Whose it is: what the lock's request was told.")
    }],
    answers: &[
        json(200, "LockReleased", "It is free."),
        NO_NAME,
        refusal(409, "It was not taken here by this owner, or is lost."),
        refusal(502, "It is given up here; in Consul when its session ends."),
    ],
    ..block("DELETE", Block::ReleaseLock)
};
