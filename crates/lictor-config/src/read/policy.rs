//! How an upstream is called: `defaults:`, and the same keys in an upstream and in a route.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use lictor_core::policy::{
    Algorithm, Backoff, Balance, BreakerFailures, BreakerPolicy, BudgetPolicy, CachePolicy, DeadlineMode,
    EjectionPolicy, ErrorRate, HashOn, Hedge, HedgeDelay, Limits, Policy, PoolPolicy, Priority, RetryClasses,
    RetryMethods, RetryPolicy, SlowCall, Timeouts,
};
use lictor_core::route::{Route, Routes};
use serde_json::json;

use super::fallback;
use crate::bounds::too_many_called;
use crate::tree::{Node, Section};

/// Reads the policy's keys of a section; what is not said is `base`'s.
pub(super) fn policy(section: &Section<'_>, base: &Policy) -> Policy {
    let timeouts = timeouts(section, &base.timeouts);
    let balance = Balance {
        algorithm: algorithm(&section.field("balance", "How an endpoint is chosen."), &base.balance.algorithm),
        slow_start: section
            .field("slow_start", "New endpoints get a growing share for this long.")
            .duration(base.balance.slow_start),
        panic: section
            .field("panic", "Ejection is ignored when fewer than this share of endpoints is left; instances whose checks warn are asked when fewer than this share pass.")
            .share(base.balance.panic),
    };
    let (stale, fallback) = fallback::fallback(
        &section.field("fallback", "What is answered when there is no good answer, in this order; `none`."),
        base,
    );
    let modes = [("propagate", DeadlineMode::Propagate), ("ignore", DeadlineMode::Ignore)];
    let mode = if base.deadline == DeadlineMode::Propagate { "propagate" } else { "ignore" };
    Policy {
        balance,
        retry: retry(&section.field("retry", "When and how a request is sent again; `off`: never."), &base.retry),
        breaker: breaker(&section.field("breaker", "When the service is given a rest; `off`: never."), &base.breaker),
        ejection: ejection(
            &section.field("ejection", "When one endpoint is given a rest; `off`: never."),
            &base.ejection,
        ),
        cache: cache(
            &section.field("cache", "Answers are kept and given again (RFC 9111; docs/caching.md); `off`: never."),
            base.cache,
        ),
        hedge: hedge(&section.field("hedge", "A slow GET is sent to another endpoint too; `off`: never."), base.hedge),
        stale,
        fallback,
        limits: limits(&section.field("limits", "How much may be in flight, for the whole process."), &base.limits),
        priority: base.priority,
        pool: pool(&section.field("pool", "How connections are kept."), &base.pool),
        deadline: section
            .field("deadline", "propagate or ignore callers' deadlines.")
            .choice(&modes, Some(mode))
            .unwrap_or(base.deadline),
        timeouts,
    }
}

pub(super) fn cache(node: &Node<'_>, base: Option<CachePolicy>) -> Option<CachePolicy> {
    if node.is_off() {
        return None;
    }
    let (node, from) = (&node.off_unless(base.is_some()), base.unwrap_or_default());
    if node.scalar().is_some() {
        return Some(CachePolicy { ttl: node.duration(from.ttl), ..from });
    }
    let section = node.section(&[json!({ "type": "string" })]);
    let policy = CachePolicy {
        ttl: section
            .field("ttl", "The life of an answer that tells none itself; `0s`: only what answers say.")
            .duration(from.ttl),
        coalesce: section
            .field("coalesce", "Of equal requests at the same time one is sent; the others wait for its answer.")
            .boolean(from.coalesce),
    };
    section.finish();
    (base.is_some() || node.is_set()).then_some(policy)
}

fn hedge(node: &Node<'_>, base: Option<Hedge>) -> Option<Hedge> {
    if node.is_off() {
        return None;
    }
    let (node, from) = (&node.off_unless(base.is_some()), base.unwrap_or_default());
    if node.scalar().is_some() {
        return Some(Hedge { after: hedge_delay(node, from.after), ..from });
    }
    let section = node.section(&[json!({ "type": "string" })]);
    let policy = Hedge {
        after: hedge_delay(
            &section.field("after", "When an answer is slow: a percentile of recent ones, or a time."),
            from.after,
        ),
        max: section.field("max", "Further copies.").integer(from.max, 1),
    };
    section.finish();
    (base.is_some() || node.is_set()).then_some(policy)
}

fn hedge_delay(node: &Node<'_>, base: HedgeDelay) -> HedgeDelay {
    let shown = match base {
        HedgeDelay::Quantile(share) => format!("p{}", share * 100.0),
        HedgeDelay::Fixed(delay) => crate::values::show_duration(delay),
    };
    let parse = |text: &str| match text.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok()) {
        Some(percent) if percent > 0.0 && percent < 100.0 => Ok(HedgeDelay::Quantile(percent / 100.0)),
        Some(_) => Err(format!("`{text}` is not a percentile: write `p95`")),
        None => crate::values::duration(text).map(HedgeDelay::Fixed),
    };
    node.parsed(json!({ "type": "string", "examples": ["p95", "200ms"] }), Some(&shown), parse).unwrap_or(base)
}

/// Tells where answers are to be kept that never are.
pub(super) fn nothing_kept(section: &Section<'_>, why: &str) {
    let (cache, fallback) = (section.field("cache", ""), section.field("fallback", ""));
    let stale = fallback.is_map().then(|| fallback.section(&[]).field("stale", ""));
    for node in [Some(cache), stale].into_iter().flatten().filter(|node| node.is_set() && !node.is_off()) {
        node.key_error(format!("`{}` keeps answers to GET, {why}", node.name()), None);
    }
}

/// A list of patterns, each with its own policy over the upstream's.
pub(super) fn routes(node: &Node<'_>, most: usize, base: &Policy) -> Routes {
    let entries = node.elements();
    if let Some(entry) = entries.get(most) {
        entry.error(too_many_called(), None);
        return Routes::default();
    }
    Routes::new(entries.iter().filter_map(|entry| route(entry, base)).collect())
}

fn route(node: &Node<'_>, base: &Policy) -> Option<Route> {
    let section = node.section(&[]);
    let pattern = section.field("match", "Method and path, as `GET /users/{id}` or `/users/*`.");
    let idempotent = section.field("idempotent", "Whether a second processing is harmless.");
    let is_idempotent = idempotent.is_set().then(|| idempotent.boolean(false));
    if !idempotent.is_set() {
        idempotent.parsed(json!({ "type": "boolean" }), None, |_| Ok(()));
    }
    let priority = priority(&section);
    let policy = Arc::new(Policy { priority, ..policy(&section, base) });
    nothing_shared(&section, &policy, base);
    let is_bounded = policy.limits != base.limits;
    let text = pattern.text(None);
    let method = text.as_deref().and_then(|text| Some(text.trim().split_once(' ')?.0.to_owned()));
    if let Some(method) = method.filter(|method| !matches!(method.as_str(), "GET" | "HEAD")) {
        nothing_kept(&section, &format!("and this route is for {method}"));
    }
    section.finish();
    let Some(text) = text else {
        if node.is_set() && !pattern.is_set() {
            node.error("a route needs `match`", Some("write `match: GET /users/{id}`".to_owned()));
        }
        return None;
    };
    let route =
        Route::parse(&text, policy, is_idempotent).map_err(|error| pattern.error(error.to_string(), None)).ok()?;
    Some(if is_bounded { route.bounded() } else { route })
}

/// Refuses for a route what all routes of an upstream have together: connections, and the budget of retries.
fn nothing_shared(section: &Section<'_>, route: &Policy, base: &Policy) {
    let within = |outer: &'static str, name: &'static str| {
        let outer = section.field(outer, "");
        if outer.is_map() { outer.section(&[]).field(name, "") } else { outer }
    };
    let shared = [
        (within("limits", "max_connections"), route.limits.max_connections == base.limits.max_connections),
        (section.field("pool", ""), route.pool == base.pool),
        (within("retry", "budget"), route.retry.budget == base.retry.budget),
    ];
    for (node, _) in shared.into_iter().filter(|(_, is_same)| !is_same) {
        let what = if node.name() == "budget" { "the budget of retries is" } else { "connections are" };
        node.error(format!("{what} shared by all routes"), Some("say it for the upstream".to_owned()));
    }
}

/// Of a route, the upstream's or the gateway's.
pub(super) fn priority(section: &Section<'_>) -> Priority {
    let priorities = [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];
    section
        .field("priority", "Who goes first, and who has to go, when requests wait for a place.")
        .choice(&priorities, Some("normal"))
        .unwrap_or_default()
}

pub(super) fn timeouts(section: &Section<'_>, base: &Timeouts) -> Timeouts {
    let total =
        section.field("timeout", "From arrival to the response head, and the longest silence after it; `none`.");
    let per_try = section.field("per_try_timeout", "From an attempt's start to its response head; `none`.");
    let timeouts = Timeouts {
        connect: section.field("connect_timeout", "For one connection.").duration(base.connect),
        total: total.limit(base.total),
        per_try: per_try.limit(base.per_try),
        idle: section.field("idle_timeout", "Silence allowed on a stream (SSE, gRPC, upgrades).").duration(base.idle),
    };
    let is_pointless = timeouts.per_try.zip(timeouts.total).is_some_and(|(per_try, total)| per_try > total);
    if is_pointless && per_try.is_set() {
        per_try.warn("longer than `timeout`, which ends the request first", None);
    }
    timeouts
}

fn algorithm(node: &Node<'_>, base: &Algorithm) -> Algorithm {
    if node.is_map() {
        return ring_hash(node).unwrap_or_else(|| base.clone());
    }
    if matches!(node.scalar(), Some("ring_hash" | "ring-hash" | "RingHash")) {
        node.error(
            "ring_hash needs something to hash on",
            Some("write `balance: {ring_hash: {header: X-User-ID}}`".to_owned()),
        );
        return base.clone();
    }
    let is_of_one_word = |algorithm: &Algorithm| !matches!(algorithm, Algorithm::RingHash(_));
    if !node.is_set() && !is_of_one_word(base) {
        return base.clone();
    }
    let of_one_word = Algorithm::ALL.into_iter().filter(is_of_one_word);
    let with_words = |algorithm: Algorithm| algorithm.words().iter().map(move |word| (*word, algorithm.clone()));
    let choices: Vec<(&str, Algorithm)> = of_one_word.flat_map(with_words).collect();
    node.choice(&choices, Some(base.words()[0])).unwrap_or_else(|| base.clone())
}

fn ring_hash(node: &Node<'_>) -> Option<Algorithm> {
    let section = node.section(&[]);
    let on =
        section.field("ring_hash", "Consistent hashing of a header, a cookie or the client's address.").section(&[]);
    let header = on.field("header", "The header's name.");
    let cookie = on.field("cookie", "The cookie's name.");
    let source_ip = on.field("source_ip", "The client's address.");
    let hash_on = if let Some(name) = header.text(None) {
        HeaderName::try_from(name.as_str())
            .map(HashOn::Header)
            .map_err(|_| header.error(format!("`{name}` is not a header name"), None))
            .ok()
    } else if let Some(name) = cookie.text(None) {
        Some(HashOn::Cookie(name))
    } else if source_ip.boolean(false) {
        Some(HashOn::SourceIp)
    } else {
        node.error("ring_hash needs `header`, `cookie` or `source_ip: true`", None);
        None
    };
    on.finish();
    section.finish();
    hash_on.map(Algorithm::RingHash)
}

pub(super) fn retry(node: &Node<'_>, base: &RetryPolicy) -> RetryPolicy {
    if node.is_off() {
        return RetryPolicy { attempts: 1, ..base.clone() };
    }
    let section = node.section(&[json!({ "const": "off" })]);
    let [attempts_node, max_retries] = Node::of_the_last_source([
        section.field("attempts", "Attempts in all, the first included; 1: never again."),
        section.field("max_retries", "The same without the first."),
    ]);
    let mut attempts = attempts_node.integer(base.attempts, 1);
    if max_retries.is_set() {
        attempts = max_retries.integer(2, 0) + 1;
        if attempts_node.is_set() {
            max_retries.error("`attempts` and `max_retries` are both given", Some("keep one".to_owned()));
        }
    }
    let (statuses, classes) = retry_on(&section.field("on", "Statuses and failure classes that are retried."), base);
    let policy = RetryPolicy {
        attempts,
        backoff: backoff(&section, &base.backoff),
        statuses,
        classes,
        methods: methods(&section.field("methods", "idempotent, any, or a list of methods."), &base.methods),
        budget: budget(&section.field("budget", "Retries as a share of requests; always on."), base.budget),
        max_body: section.field("max_body", "The largest request body kept for sending again.").size(base.max_body),
    };
    section.finish();
    policy
}

/// One of the two is in force: what is written, and where nothing is, what `base` has.
fn backoff(section: &Section<'_>, base: &Backoff) -> Backoff {
    let [delays, exponential] = Node::of_the_last_source([
        section.field("delays", "The waits before further attempts."),
        section.field("backoff", "Exponential waits with full jitter instead."),
    ]);
    let is_exponential = exponential.is_set() || !delays.is_set() && matches!(base, Backoff::Exponential { .. });
    let (usual, base_jitter, from) = match base {
        Backoff::Delays { delays, jitter } => {
            (&delays[..], *jitter, (Duration::from_millis(100), 2.0, Duration::from_secs(5)))
        }
        Backoff::Exponential { initial, factor, max } => (&[][..], 0.2, (*initial, *factor, *max)),
    };
    let jitter_node = section.field("jitter", "The random share of a delay.").off_unless(!is_exponential);
    let jitter = if jitter_node.scalar() == Some("full") { 1.0 } else { jitter_node.share(base_jitter) };
    let exponential_section = exponential.off_unless(is_exponential).section(&[]);
    let (initial, factor, max) = (
        exponential_section.field("initial", "The first bound.").duration(from.0),
        exponential_section.field("factor", "What it is multiplied with each time.").number(from.1, 1.0),
        exponential_section.field("max", "The last bound.").duration(from.2),
    );
    exponential_section.field("jitter", "Always full.").text(None);
    exponential_section.finish();
    let usual = if is_exponential || delays.is_describing() { &[][..] } else { usual };
    let entries = delays.elements_or(usual.len());
    let usually = usual.iter().copied().chain(std::iter::repeat(Duration::ZERO));
    let listed: Vec<Duration> = entries.iter().zip(usually).map(|(delay, usual)| delay.duration(usual)).collect();
    if delays.is_set() && exponential.is_set() {
        exponential.error("`delays` and `backoff` are both given", Some("keep one".to_owned()));
    }
    if delays.is_set() && listed.is_empty() {
        delays.error("needs at least one delay", None);
    }
    if is_exponential {
        Backoff::Exponential { initial, factor, max }
    } else if listed.is_empty() {
        base.clone()
    } else {
        Backoff::Delays { delays: listed, jitter }
    }
}

fn retry_on(node: &Node<'_>, base: &RetryPolicy) -> (Vec<StatusCode>, RetryClasses) {
    let entries = node.elements();
    if !node.is_set() {
        return (base.statuses.clone(), base.classes);
    }
    let mut statuses = Vec::new();
    let none = RetryClasses { connect_failure: false, reset: false, timeout: false, refused_stream: false };
    let mut classes = none;
    for entry in &entries {
        match entry.scalar().unwrap_or_default() {
            "connect_failure" | "connect" | "dns" => classes.connect_failure = true,
            "reset" | "goaway" => classes.reset = true,
            "timeout" => classes.timeout = true,
            "refused_stream" => classes.refused_stream = true,
            "5xx" => statuses.extend((500..=599).filter_map(|code| StatusCode::from_u16(code).ok())),
            _ => statuses.extend(status(entry, &["connect_failure", "reset", "timeout", "refused_stream", "5xx"])),
        }
    }
    (statuses, classes)
}

fn status(node: &Node<'_>, words: &[&str]) -> Option<StatusCode> {
    let parse = |text: &str| match text.parse::<u16>().ok().filter(|code| (100..=599).contains(code)) {
        Some(code) => StatusCode::from_u16(code).map_err(|error| error.to_string()),
        None => {
            let meant = crate::diagnose::suggest(text, words.iter().copied());
            let meant = meant.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
            Err(format!("`{text}` is neither a status nor one of {}{meant}", words.join(", ")))
        }
    };
    node.parsed(json!({ "type": ["integer", "string"] }), None, parse)
}

fn methods(node: &Node<'_>, base: &RetryMethods) -> RetryMethods {
    match node.scalar() {
        Some("idempotent") => return RetryMethods::Idempotent,
        Some("any" | "all") => return RetryMethods::Any,
        _ => (),
    }
    let entries = node.elements();
    if !node.is_set() {
        return base.clone();
    }
    let parse = |text: &str| {
        let is_usual = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_usual);
        method.ok_or_else(|| format!("`{text}` is not a method; write `idempotent`, `any`, or [GET, PUT]"))
    };
    let list = entries.iter().filter_map(|entry| entry.parsed(json!({ "type": "string" }), None, parse)).collect();
    RetryMethods::List(list)
}

fn budget(node: &Node<'_>, base: BudgetPolicy) -> BudgetPolicy {
    let section = node.section(&[]);
    let budget = BudgetPolicy {
        ratio: section.field("ratio", "Retries allowed per request.").share(base.ratio),
        window: section.field("window", "How far back requests count.").duration(base.window),
        min_per_second: section
            .field("min_per_second", "Retries a second that are always allowed.")
            .number(base.min_per_second, 0.0),
    };
    section.finish();
    budget
}

fn breaker(node: &Node<'_>, base: &BreakerPolicy) -> BreakerPolicy {
    if node.is_off() {
        return BreakerPolicy { enabled: false, ..base.clone() };
    }
    let section = node.section(&[json!({ "const": "off" })]);
    let policy = BreakerPolicy {
        enabled: base.enabled || node.is_set(),
        failure_threshold: section
            .field("failure_threshold", "Consecutive failures that open it.")
            .integer(base.failure_threshold, 1),
        success_threshold: section
            .field("success_threshold", "Consecutive successful probes that close it.")
            .integer(base.success_threshold, 1),
        recovery_timeout: section
            .field("recovery_timeout", "The longest that it stays open before a probe: 5 s at first, then twice as long each time. Where nobody could be connected to, that is tried meanwhile after 1, 2, 4 s and so on, and ends it.")
            .duration(base.recovery_timeout),
        half_open_max: section.field("half_open_max", "Probes at a time.").integer(base.half_open_max, 1),
        error_rate: error_rate(&section.field("error_rate", "Opens by the share of failures; `off`."), base.error_rate),
        slow_call: slow_call(&section.field("slow_call", "Opens by the share of slow answers; `off`."), base.slow_call),
        failure: failures(
            &section.field("failure", "What counts: 5xx, statuses, connect_failure, reset, timeout."),
            &base.failure,
        ),
    };
    section.finish();
    policy
}

fn slow_call(node: &Node<'_>, base: Option<SlowCall>) -> Option<SlowCall> {
    if node.is_off() {
        return None;
    }
    let (node, from) = (&node.off_unless(base.is_some()), base.unwrap_or_default());
    let section = node.section(&[json!({ "const": "off" })]);
    let policy = SlowCall {
        over: section.field("over", "From admission to the response head: longer is slow.").duration(from.over),
        rate: ErrorRate {
            threshold: section.field("ratio", "Slow ones as a share of good answers.").share(from.rate.threshold),
            window: section.field("window", "How far back.").duration(from.rate.window),
            min_requests: section
                .field("min_requests", "Answers needed before it is believed.")
                .integer(from.rate.min_requests, 1),
        },
    };
    section.finish();
    (base.is_some() || node.is_set()).then_some(policy)
}

fn error_rate(node: &Node<'_>, base: Option<ErrorRate>) -> Option<ErrorRate> {
    if node.is_off() {
        return None;
    }
    let (node, from) = (&node.off_unless(base.is_some()), base.unwrap_or_default());
    let section = node.section(&[json!({ "const": "off" })]);
    let rate = ErrorRate {
        threshold: section.field("threshold", "Failures as a share of requests.").share(from.threshold),
        window: section.field("window", "How far back.").duration(from.window),
        min_requests: section
            .field("min_requests", "Requests needed before it is believed.")
            .integer(from.min_requests, 1),
    };
    section.finish();
    (base.is_some() || node.is_set()).then_some(rate)
}

fn failures(node: &Node<'_>, base: &BreakerFailures) -> BreakerFailures {
    let entries = node.elements();
    if !node.is_set() {
        return base.clone();
    }
    let mut failures = BreakerFailures {
        server_errors: false,
        statuses: Vec::new(),
        connect_failure: false,
        reset: false,
        timeout: false,
    };
    for entry in &entries {
        match entry.scalar().unwrap_or_default() {
            "5xx" => failures.server_errors = true,
            "connect_failure" | "connect" => failures.connect_failure = true,
            "reset" => failures.reset = true,
            "timeout" => failures.timeout = true,
            _ => failures.statuses.extend(status(entry, &["5xx", "connect_failure", "reset", "timeout"])),
        }
    }
    failures
}

fn ejection(node: &Node<'_>, base: &EjectionPolicy) -> EjectionPolicy {
    if node.is_off() {
        return EjectionPolicy { consecutive: 0, ..base.clone() };
    }
    let section = node.section(&[json!({ "const": "off" })]);
    let policy = EjectionPolicy {
        consecutive: section.field("consecutive", "Failures in a row that eject.").integer(base.consecutive, 1),
        base: section.field("base", "The first rest; each further one is twice as long.").duration(base.base),
        max: section.field("max", "The longest rest.").duration(base.max),
        max_share: section
            .field("max_percent", "The largest share of endpoints ejected at a time.")
            .parsed(json!({ "type": ["string", "number"] }), Some(&crate::values::show_share(base.max_share)), |text| {
                // `50` is 50 % here: the key says so.
                let is_plain = text.parse::<f64>().is_ok_and(|number| number > 1.0);
                crate::values::share(&if is_plain { format!("{text}%") } else { text.to_owned() })
            })
            .unwrap_or(base.max_share),
    };
    section.finish();
    policy
}

fn limits(node: &Node<'_>, base: &Limits) -> Limits {
    let section = node.section(&[]);
    let limits = Limits {
        max_in_flight: section.field("max_in_flight", "Requests at a time.").integer(base.max_in_flight, 1),
        max_pending: section.field("max_pending", "Requests that may wait for a place.").integer(base.max_pending, 0),
        pending_timeout: section.field("pending_timeout", "How long they may wait.").duration(base.pending_timeout),
        max_connections: section
            .field("max_connections", "Connections to one endpoint.")
            .integer(base.max_connections, 1),
    };
    section.finish();
    limits
}

fn pool(node: &Node<'_>, base: &PoolPolicy) -> PoolPolicy {
    let section = node.section(&[]);
    let pool = PoolPolicy {
        idle: section.field("idle", "An idle connection is closed after this.").duration(base.idle),
        max_age: section.field("max_age", "A connection is replaced after this.").duration(base.max_age),
        max_streams: section
            .field("max_streams", "Streams on one HTTP/2 connection before another is opened.")
            .integer(base.max_streams, 1),
    };
    section.finish();
    pool
}
