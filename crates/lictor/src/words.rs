//! Stories of requests, and what would become of one, in words: what `/requests/ID` and `/explain` say, for a person who
//! was just woken up.

use serde_json::Value as Json;

use crate::term::{Paint, millis, shown, table};

/// What `/requests/ID` says, as text.
pub(crate) fn in_words(page: &Json) -> String {
    stories(page, Paint::none())
}

/// Of all requests with that id, in the order in which they came.
pub(crate) fn stories(page: &Json, paint: Paint) -> String {
    let page = shown(page);
    let stories = page["requests"].as_array().map_or(&[][..], Vec::as_slice);
    stories.iter().rev().map(|told| story(told, paint)).collect::<Vec<_>>().join("\n")
}

fn story(story: &Json, paint: Paint) -> String {
    let text = |key: &str| story[key].as_str().unwrap_or_default();
    let is_good = !matches!(text("kept"), "failed" | "refused");
    let mut lines = vec![headline(story, paint, is_good)];
    lines.push(paint.dim(&format!(
        "{} {} from {}, request {}, trace {}",
        text("timestamp"),
        text("direction"),
        text("client"),
        text("id"),
        text("trace_id")
    )));
    if !is_good {
        lines.push(blame(story, paint));
    }
    if let Some(advice) = story["advice"].as_str() {
        lines.push(format!("What now: {advice}."));
    }
    if let Some(cache) = story["cache"].as_str() {
        lines.push(format!("The answer is a kept one ({cache})."));
    }
    match story["fallback"].as_str() {
        Some("upstream") => lines.push("The answer is that of the upstream that stands in (fallback).".to_owned()),
        Some("static") => lines.push("The answer is the configuration's (fallback).".to_owned()),
        _ => (), // a kept one, which is told
    }
    lines.push(String::new());
    lines.push(attempts(story, paint));
    if !story["policy"].is_null() {
        lines.push(format!("Policy: {}.", policy(&story["policy"], story["route"].as_str())));
        lines.push(format!("When it ended: {}.", state(story)));
        if story["breaker"]["state"] != "closed" {
            lines.extend(opened(&story["breaker"], "before"));
        }
    }
    lines.join("\n") + "\n"
}

/// `GET /users/1 to user-service: 503 after 612 ms, 3 attempts`
fn headline(story: &Json, paint: Paint, is_good: bool) -> String {
    let to = story["upstream"].as_str().map(|name| format!(" to {name}")).unwrap_or_default();
    let status = match (story["status"].as_u64(), story["grpc_status"].as_u64()) {
        (_, Some(grpc)) => format!("grpc-status {grpc}"),
        (Some(499), _) => "the client went away".to_owned(),
        (status, _) => status.unwrap_or_default().to_string(),
    };
    let count =
        story["attempts"].as_array().map_or(0, Vec::len) as u64 + story["attempts_left_out"].as_u64().unwrap_or(0);
    let what =
        format!("{} {}{to}", story["method"].as_str().unwrap_or_default(), story["path"].as_str().unwrap_or_default());
    let attempts = match count {
        0 => "no attempt".to_owned(),
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    format!("{}: {} after {}, {attempts}", paint.bold(&what), paint.verdict(&status, is_good), ms(&story["took_ms"]))
}

/// Who failed, and how.
fn blame(story: &Json, paint: Paint) -> String {
    let detail = story["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    match story["reason"].as_str() {
        Some(reason) => format!("lictor says {}{detail}.", paint.verdict(reason, false)),
        None => "The upstream answered so itself; lictor passed its answer on.".to_owned(),
    }
}

fn attempts(story: &Json, paint: Paint) -> String {
    let attempts = story["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    if attempts.is_empty() {
        return "Nothing was sent to any endpoint.\n".to_owned();
    }
    let mut rows = vec![["#", "at", "endpoint", "address", "ended with", "took"].map(|head| paint.dim(head)).to_vec()];
    let mut after = Vec::new();
    for (index, attempt) in attempts.iter().enumerate() {
        let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
        let outcome = text("outcome");
        let is_good = outcome.starts_with(['1', '2', '3']) || outcome == "connected";
        rows.push(vec![
            (index + 1).to_string(),
            format!("+{}", ms(&attempt["began_ms"])),
            text("endpoint"),
            text("address"),
            paint.verdict(&outcome, is_good),
            ms(&attempt["took_ms"]),
        ]);
        after.extend(what_followed(index + 1, attempt));
    }
    let left_out = story["attempts_left_out"].as_u64().filter(|count| *count > 0);
    after.extend(left_out.map(|count| format!("  and {count} more\n")));
    table(&rows) + &after.concat()
}

fn what_followed(number: usize, attempt: &Json) -> Option<String> {
    let then = attempt["then"].as_object()?;
    let detail = attempt["detail"].as_str().map(|detail| format!("{detail}; ")).unwrap_or_default();
    let why = then["why"].as_str().unwrap_or_default();
    Some(if then["is_retried"] == true {
        format!("  {number}: {detail}tried again {}: {why}\n", after(&then["wait_ms"]))
    } else {
        format!("  {number}: {detail}not tried again: {why}\n")
    })
}

/// The policy in one sentence.
fn policy(policy: &Json, route: Option<&str>) -> String {
    let limit = |key: &str| policy[key].as_u64().map_or("none".to_owned(), |ms| format!("{ms} ms"));
    let statuses =
        policy["retry_on"].as_array().into_iter().flatten().map(Json::to_string).collect::<Vec<_>>().join(" ");
    let route = route.map_or("no route of its own".to_owned(), |route| format!("route {route}"));
    let breaker = match policy["breaker_failures"].as_u64() {
        Some(failures) => format!("breaker after {failures} failures in a row"),
        None => "no breaker".to_owned(),
    };
    format!(
        "{route}; timeout {}, each attempt {}, connect {}; {} attempts on [{statuses}] for {} methods, budget {}; {}; {breaker}",
        limit("timeout_ms"),
        limit("per_try_timeout_ms"),
        limit("connect_timeout_ms"),
        policy["attempts"],
        policy["retry_methods"].as_str().unwrap_or_default(),
        percent(&policy["retry_budget"]),
        policy["balance"].as_str().unwrap_or_default(),
    )
}

/// Breaker, budget, deadline.
fn state(page: &Json) -> String {
    let breaker = &page["breaker"];
    let mut parts = vec![format!(
        "breaker {} (failures in a row: {}; since {}, because of {})",
        breaker["state"].as_str().unwrap_or_default(),
        breaker["failures"],
        ms(&breaker["since_ms"]),
        breaker["cause"].as_str().unwrap_or_default()
    )];
    parts.push(format!("{} of the retry budget left", percent(&page["retry_budget_remaining"])));
    parts.push(match page["deadline_ms"].as_u64() {
        Some(given) => format!("its caller gave it {given} ms"),
        None => "its caller set no deadline".to_owned(),
    });
    parts.join("; ")
}

/// The last time that a breaker opened, and the requests that led to it.
pub(crate) fn opened(breaker: &Json, when: &str) -> Option<String> {
    let last = breaker.get("last_opened").filter(|last| last.is_object())?;
    let lasted = match last["lasted_ms"].as_f64() {
        Some(lasted) => format!(", and closed after {}", millis(lasted)),
        None => String::new(),
    };
    let blame = |blame: &Json| {
        let text = |key: &str, before: &str| blame[key].as_str().map(|it| format!("{before}{it}")).unwrap_or_default();
        format!(
            "{}  {}{}{}",
            text("timestamp", ""),
            text("outcome", ""),
            text("endpoint", " of "),
            text("request_id", ", request ")
        )
    };
    let cause = last["cause"].as_str().unwrap_or_default();
    let mut lines = vec![format!("The breaker opened {} {when} because of {cause}{lasted}:", ms(&last["ago_ms"]))];
    lines.extend(last["failures"].as_array().into_iter().flatten().map(|it| format!("  {}", blame(it))));
    if last["last_probe"].is_object() {
        lines.push(format!(
            "  {} probes failed since; the last: {}",
            last["probes_failed"],
            blame(&last["last_probe"])
        ));
    }
    Some(lines.join("\n"))
}

/// What would become of a request.
pub(crate) fn prospect(page: &Json, paint: Paint) -> String {
    let page = &shown(page);
    let text = |key: &str| page[key].as_str().unwrap_or_default();
    let mut lines = Vec::new();
    match page["refused"]["reason"].as_str() {
        Some(reason) => lines.push(format!(
            "It would {}: {} {}: {}.",
            paint.verdict("not be sent", false),
            page["refused"]["status"],
            reason,
            page["refused"]["detail"].as_str().unwrap_or_default()
        )),
        None => lines.push(format!("It would go to {}.", paint.verdict(text("picked"), true))),
    }
    let picked = page["picked_by_worker"].as_array().map_or(&[][..], Vec::as_slice);
    if picked.iter().any(|other| other != &page["picked"]) {
        let shown = picked.iter().map(|id| id.as_str().unwrap_or("nobody")).collect::<Vec<_>>().join(", ");
        lines.push(format!("Each worker has loads of its own; they would pick: {shown}."));
    }
    lines.push(String::new());
    lines.push(candidates(page, paint));
    if let Some(route) = page["gateway"]["route"].as_str() {
        let target = page["gateway"]["target"].as_str().unwrap_or_default();
        let variants = page["gateway"]["variants"].as_str().map(|all| format!(" (of {all})")).unwrap_or_default();
        let mirror = page["gateway"]["mirror"].as_str().map(|to| format!("; copies go to {to}")).unwrap_or_default();
        let when = page["gateway"]["when"].as_str().map(|when| format!(" (when {when})")).unwrap_or_default();
        lines.push(format!("Gateway: the route {route}{when}, to {}{variants} as {target}{mirror}.", text("upstream")));
        let auth = |key: &str| page["gateway"]["auth"][key].as_str();
        if let Some(asks) = auth("asks") {
            let who = auth("by").map(|by| format!("; this is {}, by {by}", auth("subject").unwrap_or("somebody")));
            let open = auth("open").map(|open| format!("; {open}"));
            lines.push(format!("Auth: {asks}{}{}.", who.unwrap_or_default(), open.unwrap_or_default()));
        }
    }
    let route = page["route"]["path"].as_str().map(|path| match page["route"]["method"].as_str() {
        Some(method) => format!("{method} {path}"),
        None => path.to_owned(),
    });
    lines.push(format!("Policy: {}.", policy(&page["policy"], route.as_deref())));
    lines.extend(origins(&page["origins"], paint));
    lines.push(format!("Now: {}; {} in flight.", state(page), page["in_flight"]));
    lines.extend(opened(&page["breaker"], "ago"));
    lines.push(String::new());
    lines.push(failures(page, paint));
    lines.join("\n") + "\n"
}

fn candidates(page: &Json, paint: Paint) -> String {
    let endpoints = page["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    if endpoints.is_empty() {
        return "There is no endpoint.\n".to_owned();
    }
    let heads = ["endpoint", "address", "state", "tier", "weight", "in flight", "latency", "score", "share"];
    let mut rows = vec![heads.map(|head| paint.dim(head)).to_vec()];
    for endpoint in endpoints {
        let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
        let state = text("state");
        rows.push(vec![
            text("id"),
            text("address"),
            paint.verdict([state.as_str(), &text("order")].join(" ").trim_end(), state == "healthy"),
            endpoint["tier"].to_string(),
            match endpoint["warmth"].as_f64() {
                Some(warmth) if warmth < 1.0 => format!("{} x {warmth:.2}", endpoint["weight"]),
                _ => endpoint["weight"].to_string(),
            },
            endpoint["in_flight"].to_string(),
            if endpoint["ewma_ms"].is_null() { "-".to_owned() } else { ms(&endpoint["ewma_ms"]) },
            endpoint["score"].as_f64().map_or("-".to_owned(), |score| format!("{score:.4}")),
            match endpoint["why_not"].as_str() {
                Some(why) => format!("none: {why}"),
                None => percent(&endpoint["share"]),
            },
        ]);
    }
    let panic = if page["is_panic"] == true { "  So many are ejected that ejection is ignored.\n" } else { "" };
    let whose = match page["source"].as_str() {
        Some(source @ ("bootstrap" | "snapshot")) => {
            format!("  Consul has not answered yet: they are from the {source}.\n")
        }
        _ => String::new(),
    };
    table(&rows) + panic + &whose
}

/// Where what is not a default comes from.
fn origins(origins: &Json, paint: Paint) -> Option<String> {
    let said: Vec<Vec<String>> = origins
        .as_object()?
        .iter()
        .filter(|(_, value)| value["origin"] != "default")
        .map(|(key, value)| {
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            vec![key.clone(), text("value"), paint.dim(&text("origin"))]
        })
        .collect();
    (!said.is_empty()).then(|| format!("Not a default:\n{}", table(&said).trim_end()))
}

fn failures(page: &Json, paint: Paint) -> String {
    let mut rows = vec![["if an attempt ends with", "then"].map(|head| paint.dim(head)).to_vec()];
    for case in page["on_failure"].as_array().into_iter().flatten() {
        let why = case["why"].as_str().unwrap_or_default();
        let then = if case["is_retried"] == true {
            format!("again {}: {why}", after(&case["wait_ms"]))
        } else {
            format!("no more: {why}")
        };
        rows.push(vec![case["reason"].as_str().unwrap_or_default().to_owned(), then]);
    }
    table(&rows)
}

fn ms(value: &Json) -> String {
    millis(value.as_f64().unwrap_or_default())
}

fn after(wait: &Json) -> String {
    if wait.as_f64() == Some(0.0) { "at once".to_owned() } else { format!("after {}", ms(wait)) }
}

fn percent(value: &Json) -> String {
    format!("{:.0} %", value.as_f64().unwrap_or_default() * 100.0)
}
