//! A policy's keys mean the same wherever they may stand, in `defaults`, for an upstream and on a route, or are refused there.

use lictor_config::json_schema;
use lictor_core::policy::Policy;
use serde_json::Value as Json;

use super::{bad, good};

/// Each key with a value that is not its default, and what else it needs.
const KEYS: [&str; 53] = [
    "balance: random",
    "breaker: {error_rate: {min_requests: 7}}",
    "breaker: {error_rate: {threshold: 7%}}",
    "breaker: {error_rate: {window: 7s}}",
    "breaker: {failure: [503]}",
    "breaker: {failure_threshold: 7}",
    "breaker: {half_open_max: 7}",
    "breaker: {recovery_timeout: 7s}",
    "breaker: {slow_call: {min_requests: 7}}",
    "breaker: {slow_call: {over: 7s}}",
    "breaker: {slow_call: {ratio: 7%}}",
    "breaker: {slow_call: {window: 7s}}",
    "breaker: {success_threshold: 7}",
    "cache: {coalesce: false}",
    "cache: {ttl: 7s}",
    "connect_timeout: 7s",
    "deadline: ignore",
    "ejection: {base: 7s}",
    "ejection: {consecutive: 7}",
    "ejection: {max: 7m}",
    "ejection: {max_percent: 7%}",
    "fallback: {body: last}",
    "fallback: {content_type: text/plain, body: last}",
    "fallback: {stale: 7s}",
    "fallback: {status: 503, body: last}",
    "fallback: {upstream: other}",
    "hedge: {after: 7s}",
    "hedge: {max: 7}",
    "idle_timeout: 7s",
    "limits: {max_connections: 7}",
    "limits: {max_in_flight: 7}",
    "limits: {max_pending: 7}",
    "limits: {pending_timeout: 7s}",
    "panic: 7%",
    "per_try_timeout: 7s",
    "pool: {idle: 7s}",
    "pool: {max_age: 7s}",
    "pool: {max_streams: 7}",
    "retry: {attempts: 7}",
    "retry: {backoff: {factor: 7}}",
    "retry: {backoff: {initial: 7ms}}",
    "retry: {backoff: {jitter: full}}",
    "retry: {backoff: {max: 7s}}",
    "retry: {budget: {min_per_second: 7}}",
    "retry: {budget: {ratio: 7%}}",
    "retry: {budget: {window: 7s}}",
    "retry: {delays: [7ms]}",
    "retry: {jitter: 7%}",
    "retry: {max_body: 7KiB}",
    "retry: {methods: any}",
    "retry: {on: [503]}",
    "slow_start: 7s",
    "timeout: 7s",
];
/// What all routes of an upstream have together.
const SHARED: [&str; 3] = ["limits: {max_connections", "pool: ", "retry: {budget"];

fn yaml(defaults: &str, upstream: &str, route: &str) -> String {
    format!(
        "registration: off\ndefaults: {{{defaults}}}\nupstreams:\n  other: {{static: ['a:1'], fallback: none}}\n  \
         users: {{static: ['b:1']{upstream}, routes: [{{match: 'GET /a'{route}}}]}}\n"
    )
}

/// An upstream's policy, and its route's.
fn policies(defaults: &str, upstream: &str, route: &str) -> (Policy, Policy) {
    let config = good(&yaml(defaults, upstream, route));
    let users = config.upstreams.iter().find(|upstream| upstream.name == "users").expect("it is there");
    (users.policy.clone(), Policy::clone(&users.routes.get(0).expect("it has one").policy))
}

#[test]
fn a_key_is_the_same_in_defaults_for_an_upstream_and_on_a_route_or_is_refused() {
    let none = policies("", "", "").0;
    for key in KEYS {
        let more = format!(", {key}");
        let (of_upstream, inherited) = policies("", &more, "");
        assert!(of_upstream != none, "{key} changes nothing");
        assert_eq!(inherited, of_upstream, "{key}: a route has what its upstream has");
        assert_eq!(policies(key, "", ""), (of_upstream.clone(), inherited), "{key} in defaults");
        if SHARED.iter().any(|shared| key.starts_with(shared)) {
            let report = bad(&yaml("", "", &more)).to_string();
            assert!(report.contains("shared by all routes"), "{key}: {report}");
        } else {
            assert_eq!(policies("", "", &more), (none.clone(), of_upstream), "{key} on a route");
        }
    }
}

#[test]
fn every_key_of_a_policy_is_in_the_table() {
    fn leaves(node: &Json, path: &str, found: &mut Vec<String>) {
        let Some(properties) = node["properties"].as_object() else { return found.push(path.to_owned()) };
        for (name, child) in properties {
            leaves(child, format!("{path}.{name}").trim_start_matches('.'), found);
        }
    }
    let mut found = Vec::new();
    leaves(&json_schema()["properties"]["defaults"], "", &mut found);
    let missing = |path: &&String| {
        let (outer, last) = path.rsplit_once('.').unwrap_or(("", path));
        let words: Vec<String> =
            outer.split('.').filter(|word| !word.is_empty()).map(|word| format!("{word}: {{")).collect();
        let (outer, last) = (words.concat(), format!("{last}: "));
        !KEYS.iter().any(|key| key.strip_prefix(&outer).is_some_and(|rest| rest.starts_with(&last)))
    };
    let missing: Vec<&String> = found.iter().filter(missing).collect();
    assert!(missing.is_empty() && found.len() > 40, "{missing:?} of {}", found.len());
}
