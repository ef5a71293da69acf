//! `/requests`: what the flight recorder has kept.

use std::sync::Arc;

use lictor_core::story::Story;
use serde_json::{Value as Json, json};

use crate::admin::query::Query;

/// Stories in a list, if nobody says.
const SHOWN: usize = 100;

/// A line for each story that the query asks for, the newest first.
pub(super) fn list(stories: &[Arc<Story>], query: &Query) -> Result<Json, String> {
    let filter = query.filter()?;
    let parse = |text: &str| text.parse().map_err(|_| format!("`limit` takes a number, not `{text}`"));
    let limit = query.get("limit").map_or(Ok(SHOWN), parse)?;
    let chosen: Vec<&Arc<Story>> = stories.iter().filter(|story| filter.takes(story)).collect();
    let failures = stories.iter().filter(|story| story.is_failure()).count();
    Ok(json!({
        "kept": { "failures": failures, "successes": stories.len() - failures },
        "matching": chosen.len(),
        "requests": chosen.into_iter().take(limit).map(|story| line(story)).collect::<Vec<_>>(),
    }))
}

/// The whole of the stories of one request.
pub(super) fn whole(stories: &[Arc<Story>]) -> Json {
    json!({ "requests": stories })
}

fn line(story: &Story) -> Json {
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
