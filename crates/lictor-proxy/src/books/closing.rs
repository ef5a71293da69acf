//! The end of a request's books: the metrics, the log line, the spans and the story; nothing else writes them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use lictor_core::Reason;
use lictor_core::mesh::AccessLog;
use lictor_core::redact;
use lictor_core::story::{self, Kept, Story};
use serde::Serialize;

use super::attempts::attempt_stories;
use super::record::Record;
use super::{access, spans};
use crate::choose::verdict::is_grpc_failure;
use crate::names;
use crate::stores::metrics::{Call, method_label};
use crate::stores::recorder::Course;

impl Record {
    /// The last byte is out.
    pub(crate) fn close(mut self: Box<Self>, now: Instant) {
        self.finish(now);
    }

    fn finish(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        if self.is_inbound && self.fields.has(names::TRACE) {
            self.worker.shared.traced_inbound.fetch_sub(1, Relaxed);
        }
        let took = now.saturating_duration_since(self.arrival());
        let status = self.status.unwrap_or_else(|| Reason::ClientGone.status()).as_u16();
        self.count(status, took);
        if self.access_log != AccessLog::Off && self.worker.shared.access_log.is_some() {
            let is_edge = self.connection.is_edge();
            let level = self.worker.view().mesh.access_levels.of(status, self.reason.is_some(), is_edge);
            access::log(&self.connection, self.access_log, level, "request", || self.line(status, took));
        }
        if self.trace.is_sampled
            && let Some(spans) = &self.worker.shared.spans
        {
            let sent = spans::of(self, status, took).into_iter().map(|span| spans.try_send(span));
            self.worker.shared.metrics.spans_dropped.inc_by(sent.filter(Result::is_err).count() as u64);
        }
        let kept = self.kept(status);
        if let Some(heads) = self.tapped.take() {
            let story = self.story(kept.unwrap_or(Kept::Sampled), status, took);
            self.worker.shared.tap.tell(story, *heads);
        }
        if let Some(kept) = kept {
            self.worker.shared.recorder.keep(Arc::new(self.story(kept, status, took)));
        }
    }

    fn kept(&self, status: u16) -> Option<Kept> {
        if self.reason.is_some() || status >= 500 || self.grpc_status.is_some_and(is_grpc_failure) {
            return Some(Kept::Failed);
        }
        let attempts = self.attempts.borrow().len();
        let number = self.worker.number();
        Course { is_asked: self.is_debug, attempts, head: self.head.unwrap_or_default(), number }.kept()
    }

    fn story(&self, kept: Kept, status: u16, took: Duration) -> Story {
        let attempts = self.attempts.borrow();
        let upstream = self.upstream.as_ref();
        let route = self.route.and_then(|index| upstream?.upstream.routes.get(index));
        let now = Instant::now();
        Story {
            id: story::cut(self.request_id.as_str(), story::ID_MAX),
            trace_id: format!("{:032x}", self.trace.trace_id),
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kept,
            direction: self.connection.direction(),
            worker: self.worker.index,
            client: self.connection.ip(),
            method: story::cut(self.method.as_str(), 32),
            path: story::cut_path(self.uri.path()),
            upstream: upstream.map(|upstream| Arc::clone(&upstream.upstream.name)),
            route: self.route_name().map(Arc::from),
            policy: upstream.map(|upstream| Arc::clone(route.map_or(&upstream.upstream.policy, |route| &route.policy))),
            status,
            grpc_status: self.grpc_status,
            reason: self.reason,
            detail: self.detail.as_deref().map(story::cut_sentence),
            cache: self.cache,
            fallback: self.fallback,
            took_ms: story::millis(took),
            head_ms: self.head.map(story::millis),
            bytes: self.bytes,
            deadline_ms: self.deadline.given().map(|given| given.as_millis() as u64),
            breaker: upstream.map(|upstream| upstream.upstream.breaker.view(now)),
            retry_budget_remaining: upstream.map(|upstream| upstream.budget.remaining_ratio(now)),
            attempts: attempt_stories(&attempts, self.arrival(), &self.method),
            attempts_left_out: attempts.len().saturating_sub(story::ATTEMPTS_MAX),
        }
    }

    fn count(&self, status: u16, took: Duration) {
        let metrics = &self.worker.shared.metrics;
        let Some(upstream) = &self.upstream else {
            return metrics.led_nowhere(self.told_by.as_deref().unwrap_or_default(), status, self.reason);
        };
        let over = self.over(status, self.reason);
        upstream.meters.request(metrics, &over, took);
        if self.trace.is_sampled {
            upstream.meters.example(self.trace.trace_id, self.trace.span_id, took);
        }
        if self.is_orphan {
            upstream.meters.orphan(metrics, self.route_label());
        }
        if self.is_grpc {
            let is_success = self.reason.is_none() && self.grpc_status == Some(0);
            let (path, is_inbound, status) = (self.path(), self.is_inbound, self.grpc_status);
            // A stranger's word is no label, unless its service has taken it for a method (what is translated is the configuration's).
            let is_named = is_success || self.rpc.is_some() || !self.connection.is_edge();
            let call = Call { path, is_named, is_inbound, is_success, status };
            metrics.grpc(&upstream.upstream.name, &call, took, &mut upstream.meters.methods.borrow_mut());
        }
        if self.is_inbound {
            metrics.served(&upstream.upstream.name, method_label(&self.method), status, took);
        }
    }

    fn line(&self, status: u16, took: Duration) -> Line<'_> {
        Line {
            service: self.worker.from.as_ref().and_then(|from| from.to_str().ok()?.split('/').next()).unwrap_or(""),
            method: self.method.as_str(),
            path: redact::path(self.uri.path()),
            status,
            duration: took.as_secs_f64(),
            bytes: self.bytes,
            upstream: self.upstream.as_ref().map(|upstream| upstream.upstream.name.as_ref()),
            route: self.route_name(),
            attempts: self.attempts_summary(),
            reason: self.reason.map(Reason::as_str),
            flag: self.reason.map(Reason::envoy_flag).filter(|flag| !flag.is_empty()),
            grpc_status: self.grpc_status,
            request_id: self.request_id.as_str(),
            trace_id: format!("{:032x}", self.trace.trace_id),
            span_id: format!("{:016x}", self.trace.span_id),
            ip: self.connection.ip(),
            cache: self.cache,
            fallback: self.fallback,
            instead_of: self.instead_of.as_deref(),
            user_agent: self.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
        }
    }
}

impl Drop for Record {
    /// Not closed: whoever held the books was dropped, because the client went away or we do.
    fn drop(&mut self) {
        if !self.is_closed {
            self.status = self.status.filter(|_| !self.is_untold());
            if self.connection.is_cut() {
                self.reason.get_or_insert(Reason::Draining);
                self.status.get_or_insert(Reason::Draining.status());
            }
            self.reason.get_or_insert(Reason::ClientGone);
            self.finish(Instant::now());
        }
    }
}

/// In the access log.
#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    method: &'a str,
    path: Cow<'a, str>,
    status: u16,
    /// Seconds.
    duration: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    attempts: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    request_id: &'a str,
    trace_id: String,
    span_id: String,
    /// `unix` for a client on a Unix socket.
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    /// The upstream that it was for, where another one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}
