//! A request of our own to an upstream, on behalf of a client's: the upstream's way to pick, its connections, limits, retries
//! and breaker, and nothing that could answer in its place. It has no body, and its answer is read whole.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt;
use lictor_core::deadline::End;
use lictor_core::{Failure, Reason};
use lictor_http::Spelling;

use super::call::{Call, Come};
use super::replay::Replay;
use super::sent::Sent;
use crate::admission::leave::admit;
use crate::admission::target::{self, Target};
use crate::books::record::Record;
use crate::clock::{self, Stage};
use crate::names;
use crate::world::client::Connection;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    /// The upstream's name.
    pub(crate) to: Arc<str>,
    pub(crate) request: Request<()>,
    /// The route of the gateway that asks.
    pub(crate) label: Arc<str>,
    /// How long it may take, to the last byte of its answer.
    pub(crate) timeout: Duration,
    /// A longer body is not read.
    pub(crate) answer_max: usize,
}

/// The answer, with its body; without one if that is too long.
pub(crate) type Told = Response<Option<Bytes>>;

/// Asks. It is in the upstream's books, as any request to it.
pub(crate) async fn ask(connection: Rc<Connection>, question: Question) -> Result<Told, Failure> {
    let Question { to, mut request, label, timeout, answer_max } = question;
    let (view, now) = (connection.worker.view(), Instant::now());
    let end = End { at: now + timeout, reason: Reason::Timeout };
    let fields = names::fields_of(request.headers_mut());
    let mut record = Record::open(&connection, &view.mesh, &request, fields, now);
    record.told_by = Some(label);
    let asked: Result<Told, Failure> = async {
        let target = target::whole(&connection.worker, &view, &to, &|_| Some(end)).await?;
        record.route = target.upstream.route(request.method(), request.uri().path());
        record.upstream = Some(Rc::clone(&target.upstream));
        let (mut call, sent) = send(&connection, target, request, &record, timeout, end).await?;
        let at = sent.at;
        let response = whole(&mut call, sent, &mut record, answer_max, end).await?;
        call.judge_status(response.status(), &record, at);
        Ok(response)
    }
    .await;
    match &asked {
        Ok(response) => record.answered(response.status(), Instant::now()),
        Err(failure) => {
            record.answered(failure.reason.status(), Instant::now());
            record.reason = Some(failure.reason);
            record.detail = Some(failure.detail.clone());
        }
    }
    record.close(Instant::now());
    asked
}

async fn send(
    connection: &Rc<Connection>,
    target: Target,
    request: Request<()>,
    record: &Record,
    timeout: Duration,
    end: End,
) -> Result<(Box<Call>, Sent), Failure> {
    let target = Target { is_peer: false, ..target };
    let leave = admit(&connection.worker, &target.upstream, record, Some(end)).await?;
    let (head, ()) = request.into_parts();
    let come = Come { head, spelling: Spelling::default(), interim: None, body: Replay::none() };
    let mut call = Call::of(connection, &target, come, None, record, leave)?;
    call.limit = Some(timeout);
    // It changes nothing, by whatever method it asks, unless a route of the upstream says otherwise.
    call.is_idempotent = target.upstream.says_idempotent(record.route) != Some(false);
    match call.run(record).await {
        Ok(sent) => Ok((call, sent)),
        Err((failure, _)) => Err(failure),
    }
}

/// Reads the body.
async fn whole(call: &mut Call, sent: Sent, record: &mut Record, most: usize, end: End) -> Result<Told, Failure> {
    let Sent { response, exchange, .. } = sent;
    let (head, mut body) = response.into_parts();
    let mut content = BytesMut::new();
    let failure = loop {
        match clock::within(Some(end), body.frame()).await {
            Ok(None) => {
                exchange.complete(body, Instant::now());
                return Ok(Response::from_parts(head, Some(content.freeze())));
            }
            Ok(Some(Ok(frame))) => {
                let Some(data) = frame.data_ref() else { continue };
                record.bytes += data.len() as u64;
                if content.len() + data.len() > most {
                    return Ok(Response::from_parts(head, None)); // its connection is closed
                }
                content.extend_from_slice(data);
            }
            Ok(Some(Err(error))) => {
                break Failure::new(Reason::ResetMidResponse, format!("the answer broke off: {error}"));
            }
            Err(end) => {
                let sentence = "the answer's body did not come to an end in time";
                break clock::ran_out(&call.worker.shared.metrics, end, Stage::Upstream, sentence);
            }
        }
    };
    exchange.broke_off(&call.upstream, call.policy(), failure.reason);
    call.judge(&failure, None, record);
    Err(failure)
}
