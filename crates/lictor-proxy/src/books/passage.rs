//! The books of a connection that is carried as bytes: opened when it comes, closed when it is dropped. Closing writes
//! the metrics, the log line and, of one that failed, the story; nothing else does.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use lictor_core::mesh::Level;
use lictor_core::story::{self, Kept, Story};
use lictor_core::{Failure, Reason};
use serde::Serialize;

use super::access;
use super::attempts::{Attempt, attempt_stories};
use crate::stores::request_id::RequestId;
use crate::world::client::Connection;
use crate::world::view::{EndpointState, UpstreamState};

/// The books.
#[derive(Debug)]
pub(crate) struct Passage<'a> {
    connection: &'a Connection,
    pub(crate) upstream: Option<Rc<UpstreamState>>,
    pub(crate) endpoint: Option<Rc<EndpointState>>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) reason: Option<Reason>,
    /// Bytes from the client to the upstream.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    detail: Option<String>,
    arrival: Instant,
}

impl<'a> Passage<'a> {
    pub(crate) fn open(connection: &'a Connection) -> Self {
        Self {
            connection,
            upstream: None,
            endpoint: None,
            attempts: Vec::new(),
            reason: None,
            sent: 0,
            received: 0,
            detail: None,
            arrival: Instant::now(),
        }
    }

    /// No endpoint could be had.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.reason = Some(failure.reason);
        self.detail = Some(failure.detail);
    }

    /// Of one that did not end as a side wanted.
    fn story(&self, id: &RequestId, reason: Reason, took: Duration) -> Story {
        let (upstream, now) = (self.upstream.as_ref(), Instant::now());
        Story {
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            direction: self.connection.direction(),
            worker: self.connection.worker.index,
            client: self.connection.ip(),
            method: "TCP".into(),
            path: "connection".into(),
            upstream: upstream.map(|upstream| Arc::clone(&upstream.upstream.name)),
            policy: upstream.map(|upstream| Arc::clone(&upstream.upstream.policy)),
            status: reason.status().as_u16(),
            reason: Some(reason),
            detail: self.detail.as_deref().map(story::cut_sentence),
            took_ms: story::millis(took),
            bytes: self.received,
            breaker: upstream.map(|upstream| upstream.upstream.breaker.view(now)),
            retry_budget_remaining: upstream.map(|upstream| upstream.budget.remaining_ratio(now)),
            // Nothing was sent, so a connection is as harmless to repeat as any idempotent method.
            attempts: attempt_stories(&self.attempts, self.arrival, &Method::CONNECT),
            attempts_left_out: self.attempts.len().saturating_sub(story::ATTEMPTS_MAX),
            ..Story::empty(id.as_str(), Kept::Failed)
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let took = self.arrival.elapsed();
        let worker = &self.connection.worker;
        if self.connection.is_cut() {
            self.reason.get_or_insert(Reason::Draining);
        }
        let failed = self.reason.map(|reason| (RequestId::new(|| worker.random()), reason));
        if let Some((id, reason)) = &failed {
            worker.shared.recorder.keep(Arc::new(self.story(id, *reason, took)));
        }
        if let Some(upstream) = &self.upstream {
            let name = &upstream.upstream.name;
            worker.shared.metrics.carried(name, self.reason, took, self.sent, self.received);
        }
        let wanted = worker.view().mesh.access_log;
        let level = if self.reason.is_some() { Level::Error } else { Level::Info };
        access::log(self.connection, wanted, level, "connection", || Line {
            upstream: self.upstream.as_ref().map(|upstream| upstream.upstream.name.as_ref()),
            endpoint: self.endpoint.as_ref().map(|state| state.endpoint.address.to_string()),
            duration: took.as_secs_f64(),
            sent: self.sent,
            received: self.received,
            reason: self.reason.map(Reason::as_str),
            detail: self.detail.as_deref(),
            request_id: failed.as_ref().map(|(id, _)| id.as_str()),
            ip: self.connection.ip(),
        });
    }
}

/// In the access log.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Seconds.
    duration: f64,
    sent: u64,
    received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Ours: it has none by itself, and `lictor explain` wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    ip: String,
}
