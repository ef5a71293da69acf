//! Pages: what there is to look at.

use super::{HISTORY, Kind, Name, Operation, Page, Parameter, Path, Who, events, get, json, parameter, refusal, text};

const TEXT: &str = "text/plain; charset=utf-8";

const UPSTREAM: Parameter = parameter("upstream", Kind::Text, "Only those of this upstream.");
const STATUS: Parameter = parameter("status", Kind::Status, "Only those that were answered so: a status or a class.");
const REASON: Parameter = parameter("reason", Kind::Text, "Only those with this word of docs/failure-reasons.md.");
const PATH: Parameter = parameter("path", Kind::Text, "Only those whose path begins so.");

const SINCE: Kind = Kind::Duration { least: HISTORY[0], most: HISTORY[1] };
const NO_GATEWAY: &str = "There is no gateway in this configuration.";
const TOO_MANY: &str = "Too many listen already: the message says to what.";

pub(super) const PATHS: &[Path] = &[
    page(
        Who::Operator,
        "/",
        &[Operation {
            id: "index",
            summary: "Every page and order in a line.",
            answers: &[text(TEXT, "For people.")],
            ..get(Page::Index)
        }],
    ),
    page(
        Who::Operator,
        "/openapi.json",
        &[Operation {
            id: "openapi",
            summary: "This document.",
            answers: &[json(200, "Document", "OpenAPI 3.1.")],
            ..get(Page::OpenApi)
        }],
    ),
    page(
        Who::Prober,
        "/live",
        &[Operation {
            id: "live",
            summary: "The process runs.",
            answers: &[json(200, "State", "`live`")],
            ..get(Page::Live)
        }],
    ),
    page(
        Who::Prober,
        "/startup",
        &[Operation {
            id: "startup",
            summary: "Egress works.",
            answers: &[json(200, "State", "`started`"), json(503, "State", "`starting`")],
            ..get(Page::Startup)
        }],
    ),
    page(
        Who::Prober,
        "/ready",
        &[Operation {
            id: "ready",
            summary: "Whether this service may be called.",
            told: "Its application, required upstreams and draining can say no.",
            answers: &[json(200, "Ready", "`ready`"), json(503, "Ready", "`not_ready`; `checks` says why.")],
            ..get(Page::Ready)
        }],
    ),
    page(
        Who::Prober,
        "/health",
        &[Operation {
            id: "health",
            summary: "This service, its application, its upstreams, Consul.",
            told: "A warning makes nobody unhealthy: lictor serves from the last endpoints that it knew.",
            answers: &[json(200, "Health", "`healthy`"), json(503, "Health", "`unhealthy`: the application is down.")],
            ..get(Page::Health)
        }],
    ),
    page(
        Who::Anyone,
        "/metrics",
        &[Operation {
            id: "metrics",
            summary: "Metrics for Prometheus.",
            told: "OpenMetrics, with exemplars, for whoever accepts it. docs/metrics.md has all of them.",
            answers: &[
                text("text/plain; version=0.0.4; charset=utf-8", "Prometheus' text format, or OpenMetrics."),
                text("application/openmetrics-text; version=1.0.0; charset=utf-8", ""),
            ],
            ..get(Page::Metrics)
        }],
    ),
    page(
        Who::Operator,
        "/endpoints",
        &[Operation {
            id: "endpoints",
            summary: "Instances of upstreams, and how they are doing.",
            answers: &[json(200, "EndpointsByUpstream", "By upstream.")],
            ..get(Page::Endpoints)
        }],
    ),
    Path {
        template: "/endpoints/{upstream}",
        who: Who::Operator,
        name: Some(Name { told: "The upstream's name.", is_deep: true, part: None }),
        operations: &[Operation {
            id: "endpointsOfUpstream",
            summary: "Instances of one upstream.",
            answers: &[json(200, "EndpointsByUpstream", "Of this one."), refusal(404, "No upstream is named so.")],
            ..get(Page::EndpointsOf)
        }],
    },
    page(
        Who::Operator,
        "/upstreams",
        &[Operation {
            id: "upstreams",
            summary: "Upstreams, what is in flight, and their policy.",
            answers: &[json(200, "Upstreams", "By name.")],
            ..get(Page::Upstreams)
        }],
    ),
    page(
        Who::Operator,
        "/breakers",
        &[Operation {
            id: "breakers",
            summary: "Circuit breakers.",
            answers: &[json(200, "Breakers", "By upstream.")],
            ..get(Page::Breakers)
        }],
    ),
    page(
        Who::Operator,
        "/routes",
        &[Operation {
            id: "routes",
            summary: "Routes with a policy of their own.",
            answers: &[json(200, "Routes", "By upstream, in their order.")],
            ..get(Page::Routes)
        }],
    ),
    page(
        Who::Operator,
        "/gateway/routes",
        &[Operation {
            id: "gatewayRoutes",
            summary: "The gateway's routes in the order in which they are asked, and tags of services that are none.",
            answers: &[json(200, "GatewayRoutes", "All of them."), refusal(404, NO_GATEWAY)],
            ..get(Page::GatewayRoutes)
        }],
    ),
    page(
        Who::Operator,
        "/gateway/stats",
        &[Operation {
            id: "gatewayStats",
            summary: "The gateway's routes, and what became of their requests.",
            answers: &[json(200, "GatewayStats", "Since the start."), refusal(404, NO_GATEWAY)],
            ..get(Page::GatewayStats)
        }],
    ),
    page(
        Who::Operator,
        "/config",
        &[Operation {
            id: "config",
            summary: "The effective configuration, by key. Secrets are masked.",
            query: &[parameter("origin", Kind::Flag, "With what has said so: file, variable, KV, default.")],
            answers: &[json(200, "Config", "Keys such as `upstreams.users.timeout`.")],
            ..get(Page::Config)
        }],
    ),
    page(
        Who::Operator,
        "/config/changes",
        &[Operation {
            id: "configChanges",
            summary: "What the last 50 reloads have changed, or could not, the newest first.",
            answers: &[json(200, "Changes", "Secrets are masked.")],
            ..get(Page::Changes)
        }],
    ),
    page(
        Who::Operator,
        "/stats",
        &[Operation {
            id: "stats",
            summary: "Instances and requests by service; where there is a gateway, with its routes.",
            answers: &[json(200, "Stats", "Since the start.")],
            ..get(Page::Stats)
        }],
    ),
    page(
        Who::Operator,
        "/consul",
        &[Operation {
            id: "consul",
            summary: "Watches, registration, snapshot.",
            answers: &[json(200, "Consul", "How the control plane stands.")],
            ..get(Page::Consul)
        }],
    ),
    page(
        Who::Operator,
        "/history",
        &[Operation {
            id: "history",
            summary: "The last ten minutes of each upstream, second by second; of one also its endpoints'.",
            told: "Kept whether anybody looks or not. Each list ends with the second that ended last.",
            query: &[
                parameter("upstream", Kind::Text, "Only this one, and its endpoints by ten seconds."),
                Parameter { default: Some("10m"), ..parameter("since", SINCE, "So far back.") },
            ],
            answers: &[
                json(200, "History", "By upstream."),
                refusal(400, "A parameter is no good."),
                refusal(404, "No upstream is named so."),
            ],
            ..get(Page::History)
        }],
    ),
    page(
        Who::Operator,
        "/events",
        &[Operation {
            id: "events",
            summary: "What has changed, and what changes.",
            told: "The last 500 first, 256 KiB of them at most. The event's name is its `kind`. Who comes again with `Last-Event-ID` \
is told what came after that, and how many of those are kept no more.",
            query: &[
                parameter("since", Kind::Since, "Only those after the event with this id, or of this last time."),
                Parameter {
                    default: Some("events"),
                    ..parameter("as", Kind::Words(&["events", "json"]), "`json`: those that are kept, once.")
                },
            ],
            answers: &[
                events(&[("", "Event")], "For as long as somebody listens."),
                json(200, "Events", "The oldest first."),
                refusal(400, "A parameter is no good."),
                refusal(503, TOO_MANY),
            ],
            ..get(Page::Events)
        }],
    ),
    page(
        Who::Operator,
        "/requests",
        &[Operation {
            id: "requests",
            summary: "Requests that failed, and some others, the newest first.",
            query: &[
                UPSTREAM,
                STATUS,
                REASON,
                PATH,
                Parameter { default: Some("100"), ..parameter("limit", Kind::Whole(1_000_000), "So many at most.") },
            ],
            answers: &[json(200, "Requests", "A line for each."), refusal(400, "A parameter is no good.")],
            ..get(Page::Requests)
        }],
    ),
    Path {
        template: "/requests/{id}",
        who: Who::Operator,
        name: Some(Name { told: "`X-Request-ID`.", is_deep: true, part: None }),
        operations: &[Operation {
            id: "request",
            summary: "What became of a request: each attempt, and why another one followed or not.",
            query: &[Parameter {
                default: Some("json"),
                ..parameter("as", Kind::Words(&["json", "text"]), "`text`: in the words of `lictor explain`.")
            }],
            answers: &[
                json(200, "Stories", "All requests with this id that are kept."),
                text(TEXT, ""),
                refusal(404, "None is kept."),
            ],
            ..get(Page::Request)
        }],
    },
    page(Who::Operator, "/explain", &[EXPLAIN]),
    page(
        Who::Operator,
        "/tap",
        &[Operation {
            id: "tap",
            summary: "Requests as they end, with their heads. Secrets are masked.",
            told: "Nothing is kept for who listens too slowly: it is told how many it has missed.",
            query: &[UPSTREAM, STATUS, REASON, PATH],
            answers: &[
                events(&[("request", "Tapped"), ("dropped", "Dropped")], "For as long as somebody listens."),
                refusal(400, "A parameter is no good."),
                refusal(503, TOO_MANY),
            ],
            ..get(Page::Tap)
        }],
    ),
    page(
        Who::Operator,
        "/ui",
        &[Operation {
            id: "ui",
            summary: "The dashboard.",
            answers: &[text("text/html; charset=utf-8", "One page without anything from elsewhere.")],
            ..get(Page::Ui)
        }],
    ),
    page(
        Who::Operator,
        "/ui/live",
        &[Operation {
            id: "uiLive",
            summary: "The dashboard's numbers each second.",
            answers: &[events(&[("frame", "Frame")], "For as long as somebody looks."), refusal(503, TOO_MANY)],
            ..get(Page::UiLive)
        }],
    ),
    page(
        Who::Operator,
        "/ui/data",
        &[Operation {
            id: "uiData",
            summary: "The dashboard's numbers once, with rates: within 2 s.",
            answers: &[
                json(200, "Frame", "Of one moment."),
                refusal(503, "Too many look already, or the sidecar stops."),
            ],
            ..get(Page::UiData)
        }],
    ),
];

const EXPLAIN: Operation = Operation {
    id: "explain",
    summary: "What would become of a request, which is not sent.",
    told: "Say which upstream, or by `url` what a client of the gateway asks for.",
    query: &[
        Parameter { default: Some("GET"), ..parameter("method", Kind::Method, "Its method.") },
        parameter("upstream", Kind::Text, "Whom it is for; not needed with `url`."),
        Parameter { default: Some("/"), ..parameter("path", Kind::Path, "With its query, if it has one.") },
        parameter("url", Kind::Url, "A whole URL, at the gateway."),
        parameter("header", Kind::Fields, "Those that matter for it."),
    ],
    answers: &[
        json(200, "Explanation", "As of now."),
        refusal(400, "The question is no good; the message says how."),
        json(404, "Nowhere", "No upstream, or no route, is for it."),
    ],
    ..get(Page::Explain)
};

const fn page(who: Who, template: &'static str, operations: &'static [Operation]) -> Path {
    Path { template, who, name: None, operations }
}
