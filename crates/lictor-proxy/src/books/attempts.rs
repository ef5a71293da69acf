//! The attempts of a request, as its books have them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use lictor_core::Failure;
use lictor_core::breaker::Blame;
use lictor_core::retry::Next;
use lictor_core::story::{self, AttemptStory, Then};

use crate::stores::outcome::Outcome;
use crate::world::view::EndpointState;

/// One try at one endpoint.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) endpoint: Rc<EndpointState>,
    /// Counts from 1, in the order in which they were sent.
    pub(crate) number: usize,
    pub(crate) outcome: Outcome,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) is_http2: bool,
    /// Boxed: most attempts have none.
    pub(crate) failure: Option<Box<(Failure, Next)>>,
}

/// The last of them, for whoever wants to know what opened a breaker; `word` is lictor's, where it has one.
pub(crate) fn blame(id: Option<&str>, attempts: &[Attempt], word: Option<&str>) -> Blame {
    let last = attempts.last();
    let outcome = word.map(str::to_owned).or_else(|| Some(last?.outcome.to_string()));
    Blame {
        request_id: id.map(|id| story::cut(id, story::ID_MAX)),
        endpoint: last.map(|last| Arc::clone(&last.endpoint.endpoint.key.id)),
        address: last.map(|last| last.endpoint.endpoint.address.clone()),
        outcome: outcome.unwrap_or_default().into(),
        timestamp: SystemTime::now(),
    }
}

/// The first of them, as a story has them.
pub(super) fn attempt_stories(attempts: &[Attempt], arrival: Instant, method: &Method) -> Vec<AttemptStory> {
    let story_of = |attempt: &Attempt| {
        let failure = attempt.failure.as_deref();
        AttemptStory {
            endpoint: Arc::clone(&attempt.endpoint.endpoint.key.id),
            address: attempt.endpoint.endpoint.address.clone(),
            outcome: attempt.outcome.to_string(),
            detail: failure.map(|(failure, _)| story::cut_sentence(&failure.detail)),
            began_ms: story::millis(attempt.began.saturating_duration_since(arrival)),
            took_ms: story::millis(attempt.took),
            then: failure.map(|(failure, next)| Then::of(*next, failure, method)),
        }
    };
    attempts.iter().take(story::ATTEMPTS_MAX).map(story_of).collect()
}
