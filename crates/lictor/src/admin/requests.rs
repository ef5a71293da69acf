//! `/requests` and `/explain`: what became of requests, and what would become of one.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use lictor_config::Effective;
use lictor_core::story::{Refusals, Story, advice};
use lictor_proxy::{Explanation, Question, Refusal};
use serde_json::{Map, Value as Json, json};

use crate::admin::query::Query;

/// Stories in a list, if nobody says.
const SHOWN: usize = 100;

/// A line for each story that the query asks for, the newest first.
pub(super) fn list(stories: &[Arc<Story>], refusals: &[Refusals], query: &Query) -> Result<Json, String> {
    let filter = query.filter()?;
    let parse = |text: &str| text.parse().map_err(|_| format!("`limit` takes a number, not `{text}`"));
    let limit = query.get("limit").map_or(Ok(SHOWN), parse)?;
    let chosen: Vec<&Arc<Story>> = stories.iter().filter(|story| filter.takes(story)).collect();
    let failures = stories.iter().filter(|story| story.is_failure()).count();
    Ok(json!({
        "kept": { "failures": failures, "successes": stories.len() - failures },
        "matching": chosen.len(),
        "unsent": refusals.iter().filter(|refusals| filter.takes(&refusals.last)).map(unsent).collect::<Vec<_>>(),
        "requests": chosen.into_iter().take(limit).map(|story| line(story)).collect::<Vec<_>>(),
    }))
}

/// Requests that failed before anything was sent: so many, and the first and the last of them.
fn unsent(refusals: &Refusals) -> Json {
    let Refusals { count, first, last } = refusals;
    json!({
        "upstream": last.upstream,
        "reason": last.reason,
        "times": count,
        "first": line(first),
        "last": line(last),
    })
}

/// The whole of the stories of one request.
pub(super) fn whole(stories: &[Arc<Story>]) -> Json {
    let with_advice = |story: &Arc<Story>| {
        let mut page = json!(story);
        page["advice"] = match story.reason {
            Some(reason) => json!(advice(reason)),
            None if story.status >= 500 => json!("the upstream answered so itself: see its log at that time"),
            None => Json::Null,
        };
        page
    };
    json!({ "requests": stories.iter().map(with_advice).collect::<Vec<_>>() })
}

/// `?method=GET&upstream=users&path=/users/1&header=Name:value`
pub(super) fn question(query: &Query) -> Result<Question, String> {
    let url = query.get("url").map(|url| {
        let url: Result<Uri, _> = url.parse();
        let is_web = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
        let absolute = url.ok().filter(|url| url.authority().is_some() && is_web(url));
        absolute.ok_or("the URL must be whole: https://shop.example/api/users/1")
    });
    let url = url.transpose()?;
    let upstream = match (query.get("upstream"), &url) {
        (None, Some(_)) => "",
        (upstream, _) => upstream.ok_or("say which: /explain?method=GET&upstream=NAME&path=/")?,
    };
    let method = query.get("method").unwrap_or("GET").to_ascii_uppercase();
    let path = query.get("path").unwrap_or("/");
    if !path.starts_with('/') {
        return Err(format!("the path `{path}` must start with `/`"));
    }
    let mut headers = HeaderMap::new();
    for header in query.all("header") {
        let wrong = || format!("`{header}` is not a header such as `Name: value`");
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::try_from(value.trim()).map_err(|_| wrong())?);
    }
    let method = method.parse().map_err(|_| format!("`{method}` is not a method"))?;
    Ok(Question { method, upstream: upstream.to_owned(), path: path.to_owned(), url, headers })
}

/// What the first worker would do, whom the others would pick, and where the policy comes from.
pub(super) fn explained(answers: &[Explanation], values: &[Effective]) -> Json {
    let Some(first) = answers.first() else { return Json::Null };
    let mut page = json!(first);
    page["picked_by_worker"] = answers.iter().map(|answer| json!(answer.picked)).collect();
    page["origins"] = origins(first, values);
    page
}

/// Whom no upstream could be found for.
pub(super) fn nowhere(refusal: &Refusal) -> Json {
    json!({ "status": "error", "message": refusal.detail, "refused": refusal })
}

/// The keys of the policy, with value and origin.
fn origins(explanation: &Explanation, values: &[Effective]) -> Json {
    let upstream = format!("upstreams.{}.", explanation.upstream);
    let prefix = match &explanation.route {
        Some(route) => format!("{upstream}routes[{}].", route.index),
        None => upstream,
    };
    let keys = values.iter().filter_map(|value| Some((value.path.strip_prefix(&prefix)?, value)));
    let shown = keys.filter(|(key, _)| !key.starts_with("routes[") && !key.starts_with("listen"));
    let page: Map<String, Json> = shown
        .map(|(key, value)| (key.to_owned(), json!({ "value": value.value, "origin": value.origin.to_string() })))
        .collect();
    Json::Object(page)
}

/// A story in a list.
pub(super) fn line(story: &Story) -> Json {
    json!({
        "id": story.id,
        "timestamp": story.timestamp,
        "kept": story.kept,
        "direction": story.direction,
        "method": story.method,
        "path": story.path,
        "upstream": story.upstream,
        "status": story.status,
        "grpc_status": story.grpc_status,
        "reason": story.reason,
        "attempts": story.attempts.len() + story.attempts_left_out,
        "took_ms": story.took_ms,
    })
}
