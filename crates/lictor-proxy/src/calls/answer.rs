//! Passing an answer on: what its head becomes, and who judges it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::header::DATE;
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode, Version};
use lictor_core::Reason;
use lictor_core::breaker::Verdict;
use lictor_http::buffers;
use lictor_http::fields::{self, Fields};

use super::call::Call;
use super::ending::{Ids, Patience, ResponseBody, StreamEnd};
use super::sent::Sent;
use super::upgrade::Switched;
use super::{respond, tunnel};
use crate::admission::cache::{Asking, Came};
use crate::admission::permit::Probe;
use crate::books::record::Record;
use crate::choose::verdict::{Judged, judge};
use crate::names::{self, X_LICTOR_DRAINING, X_LICTOR_NO_RETRY, grpc_status};
use crate::stores::outcome::Outcome;

impl Call {
    /// Passes the answer on; the books close with its body. It is kept where it may be.
    pub(super) fn answer(
        mut self: Box<Self>,
        sent: Sent,
        mut record: Box<Record>,
        asking: Option<Box<Asking>>,
    ) -> Response<ResponseBody> {
        let Sent { response, fields, at, exchange } = sent;
        if let Some(probe) = &mut self.probe {
            probe.answered(at);
        }
        let status = response.status();
        let upgrade = self.upgrade.take().filter(|upgrade| upgrade.is_granted(status, self.is_http2) == Ok(true));
        if let Some(upgrade) = upgrade {
            let (mut head, upstream) = Switched::upstream(response);
            self.dress(&mut head, fields, true, &record);
            respond::via(&record, head.version, &mut head.headers);
            head.version = Version::HTTP_11;
            head.status = upgrade.grant(&mut head.headers, self.is_http2);
            record.answered(head.status, at);
            respond::debug(&record, &mut head.headers);
            record.shows(&head.headers);
            let (idle, ids) = (self.policy().timeouts.idle, self.ids(&record, fields, None));
            if let Some(probe) = self.probe.take() {
                record.breaker.set(probe.finish(Verdict::Success, at, &|word| record.blame(word)));
            }
            let is_socket = upgrade.is_socket();
            tunnel::join(upgrade.client, upstream, idle, record, is_socket, (exchange, self.running));
            return Response::from_parts(head, ResponseBody::empty().telling(ids));
        }
        let (mut head, body) = response.into_parts();
        let version = std::mem::replace(&mut head.version, Version::HTTP_11);
        self.dress(&mut head, fields, false, &record);
        let mut date = if fields.has(Fields::DATE) { None } else { Some(self.worker.date.now(at)) };
        if asking.is_some()
            && let Some(date) = date.take()
        {
            head.headers.insert(DATE, date); // it is kept with the rest
        }
        respond::stands_in(&mut record, &mut head.headers);
        record.answered(status, at);
        let is_stream = fields.has(Fields::CONTENT_TYPE) && names::is_stream(&head.headers) && !self.is_unary;
        if self.is_grpc {
            record.grpc_status = grpc_status(&head.headers);
        } else if self.is_judged_by_its_head(status, is_stream) {
            self.judge_status(status, &record, at);
        }
        let timeouts = &self.policy().timeouts;
        let silence = if is_stream { Some(timeouts.idle) } else { timeouts.total.or(Some(timeouts.idle)) };
        let expires = record.expires.filter(|_| is_stream);
        let expires = expires.map(|expires| (expires, StreamEnd::of(&head.headers, self.is_grpc)));
        let patience = Patience::new(silence, self.deadline.callers(), at).expiring(expires);
        let keeping = asking.and_then(|asking| {
            let when = record.exchanged(at);
            let came = Came { request: &self.head.headers, status, trace: &record.trace, when };
            asking.passes(&came, &mut head.headers)
        });
        respond::via(&record, version, &mut head.headers); // after that: what is one asker's is not kept for others
        record.shows(&head.headers);
        respond::debug(&record, &mut head.headers);
        let ids = self.ids(&record, fields, date);
        buffers::give_fields(self.head.headers);
        let body = ResponseBody::stream(body, exchange, self.running, record, self.probe, patience, keeping);
        Response::from_parts(head, body.asked(self.body.unsent()).telling(ids))
    }

    /// A good head is a success once its body is whole. Not where that would keep others waiting: a stream may last for
    /// hours, and a probe is alone.
    fn is_judged_by_its_head(&self, status: StatusCode, is_stream: bool) -> bool {
        let is_failure = judge(self.policy(), Outcome::Status(status.as_u16()), None) == Judged::Failed;
        is_failure || is_stream || self.probe.as_ref().is_some_and(Probe::is_of_half_open)
    }

    /// The breaker's verdict on an answer with this status.
    pub(super) fn judge_status(&mut self, status: StatusCode, record: &Record, now: Instant) {
        if let Some(probe) = self.probe.take() {
            let is_failure = judge(self.policy(), Outcome::Status(status.as_u16()), None) == Judged::Failed;
            let verdict = if is_failure { Verdict::Failure(Reason::Status) } else { Verdict::Success };
            record.breaker.set(probe.finish(verdict, now, &|word| record.blame(word)));
        }
    }

    /// The answer's head, as the client gets it but for its [`Ids`].
    fn dress(&self, head: &mut Parts, fields: Fields, is_upgraded: bool, record: &Record) {
        let headers = &mut head.headers;
        fields::strip_hop_by_hop(headers, fields, is_upgraded);
        let is_failure = head.status.is_server_error() && !is_upgraded;
        let is_retried = is_failure && self.is_inbound && self.worker.shared.spent.has(&record.request_id);
        if let Some(why) = self.spent.or(is_retried.then_some("request-id")) {
            headers.insert(X_LICTOR_NO_RETRY, HeaderValue::from_static(why));
        }
        if self.is_inbound && self.worker.shared.is_draining.load(Relaxed) {
            headers.insert(X_LICTOR_DRAINING, HeaderValue::from_static("1"));
        }
    }

    fn ids(&self, record: &Record, fields: Fields, date: Option<HeaderValue>) -> Ids {
        let is_legacy = self.worker.view().mesh.trace.legacy;
        Ids {
            request: record.request_id.clone(),
            may_be_set: fields.has(names::IDS),
            trace: is_legacy.then_some(record.trace),
            date,
        }
    }
}
