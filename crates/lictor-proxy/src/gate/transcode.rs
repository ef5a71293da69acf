//! gRPC-JSON at a gateway: a request of REST becomes a call of gRPC before it goes on, and what comes back JSON.
//!
//! A body is read whole before anything is sent, so that a service hears of nothing that its message cannot say. An answer of
//! one message is read whole too, because its status comes behind it; of a stream the first message is awaited, and after
//! it a failure can only break the answer off. What is held of either has a place in the process's [`MESSAGES_HELD`].
//!
//! [`MESSAGES_HELD`]: crate::world::shared::MESSAGES_HELD

mod held;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, RETRY_AFTER, TE, UPGRADE, VARY,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use lictor_core::deadline::{End, callers_deadline, sooner};
use lictor_core::gateway::grpc::{self, FRAME, Messages, NO_STATUS, Status};
use lictor_core::gateway::transcode::{self, Binding, Transcode, Unmade, wants_lines};
use lictor_core::{Failure, Reason};
use lictor_http::{BodyError, RequestBody};

use self::held::Held;
use crate::admission::routed::Routed;
use crate::calls::ending::ResponseBody;
use crate::calls::recoded::{Ahead, Failed, Recode};
use crate::calls::respond::Said;
use crate::clock;
use crate::names::{GRPC_MESSAGE, GRPC_STATUS};
use crate::world::shared::Shared;
use crate::world::view::View;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// What is about the body that was, or the form of an answer that is none of the service's.
const OF_REST: [HeaderName; 14] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPTED,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    ENCODING,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    UPGRADE,
];
/// What is about the body of gRPC.
const OF_GRPC: [HeaderName; 7] =
    [ACCEPTED, CONTENT_ENCODING, CONTENT_LENGTH, DETAILS, ENCODING, GRPC_MESSAGE, GRPC_STATUS];
/// What is read of an answer that is thrown away, so that its connection can be used again.
const DISCARD: usize = 64 << 10;

/// A call, and how its client is answered.
#[derive(Debug)]
pub(super) struct Call {
    rpc: Arc<Binding>,
    most: usize,
    wants_lines: bool,
}

/// Makes a request of REST one of gRPC.
pub(super) async fn enter(
    transcode: &Transcode,
    shared: &Shared,
    view: &View,
    request: &mut Request<RequestBody>,
    routed: &mut Routed,
) -> Result<Box<Call>, Failure> {
    let arrived = Instant::now();
    let (rpc, said) = method(transcode, request.method(), &routed.target)?;
    let most = transcode.message_max();
    let mut held = Held::new(&shared.messages);
    check_kind(request.headers())?;
    let until = callers_deadline(request.headers());
    let until = until.map(|given| End { at: arrived + given, reason: Reason::DeadlineExceeded });
    let patience = End { at: arrived + patience(view, routed, request.method()), reason: Reason::RequestTimeout };
    let body = read(request.body_mut(), most, sooner(until, Some(patience)), &mut held).await?;
    if !body.is_empty() && !request.headers().contains_key(CONTENT_TYPE) {
        return Err(not_json());
    }
    let message = rpc.message(said, &body).map_err(bad)?;
    drop(body);
    if message.len() > most + FRAME {
        return Err(Failure::new(Reason::BodyTooLarge, format!("the request's message is longer than {most} bytes")));
    }
    let message = held.own(message).ok_or_else(full)?;
    let call = Box::new(Call { wants_lines: wants_lines(request.headers()), most, rpc: Arc::clone(&rpc) });
    *request.body_mut() = RequestBody::Whole(message);
    let headers = request.headers_mut();
    for name in &OF_REST {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    lead(routed, rpc, arrived)?;
    Ok(call)
}

/// The method that a request is for, and what its path and query say.
pub(super) fn method(
    transcode: &Transcode,
    method: &http::Method,
    target: &PathAndQuery,
) -> Result<(Arc<Binding>, transcode::Call), Failure> {
    let path = target.path();
    let none = || Failure::new(Reason::NoRoute, format!("no method of the service is for {method} {path}"));
    let (rpc, segments) = transcode.find(method, path).ok_or_else(none)?;
    Ok((Arc::clone(rpc), rpc.call(&segments, target.query()).map_err(bad)?))
}

/// From here on it is this call.
pub(super) fn lead(routed: &mut Routed, rpc: Arc<Binding>, arrived: Instant) -> Result<(), Failure> {
    routed.target = PathAndQuery::try_from(&*rpc.path).map_err(|why| bad(why.to_string()))?;
    routed.call = Some((rpc, arrived));
    Ok(())
}

fn bad(why: String) -> Failure {
    Failure::new(Reason::BadRequest, why)
}

const FULL: &str = "too many bytes of messages are held to be translated";

fn full() -> Failure {
    let mut failure = Failure::new(Reason::Overloaded, FULL);
    failure.retry_after = Some(Duration::from_secs(1));
    failure
}

/// A page of somebody else can send what is not JSON, and a body of no type, without being asked (CORS: simple requests).
fn not_json() -> Failure {
    bad("the body is to be `application/json`".to_owned())
}

fn check_kind(headers: &HeaderMap) -> Result<(), Failure> {
    let is_json = |kind: &HeaderValue| {
        let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    };
    if headers.get_all(CONTENT_TYPE).iter().any(|kind| !is_json(kind)) {
        return Err(not_json());
    }
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !is_plain(coding)) {
        return Err(bad("the body is to have no `Content-Encoding`".to_owned()));
    }
    Ok(())
}

/// How long its client may take to say it all.
fn patience(view: &View, routed: &Routed, method: &http::Method) -> Duration {
    let upstream = view.upstreams.get(&routed.upstream);
    let timeouts = upstream.map(|upstream| &upstream.policy(routed.route(upstream, method)).timeouts);
    timeouts.map_or(Duration::from_secs(30), |timeouts| timeouts.total.unwrap_or(timeouts.idle))
}

/// The whole of a request's body.
async fn read(body: &mut RequestBody, most: usize, end: Option<End>, held: &mut Held) -> Result<Vec<u8>, Failure> {
    let too_long = || Failure::new(Reason::BodyTooLarge, format!("the request's body is longer than {most} bytes"));
    if body.size_hint().lower() > most as u64 {
        return Err(too_long());
    }
    let mut read = Vec::new();
    while !body.is_end_stream() {
        let frame = clock::within(end, poll_fn(|context| Pin::new(&mut *body).poll_frame(context))).await;
        let frame = match frame
            .map_err(|end| Failure::new(end.reason, "the client did not send the request's body in time"))?
        {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(BodyError::TooLong)) => return Err(too_long()),
            Some(Err(BodyError::Malformed(why))) => {
                return Err(bad(format!("the request's body is not valid HTTP: {why}")));
            }
            Some(Err(BodyError::Cut | BodyError::Superseded)) => {
                return Err(Failure::new(Reason::ClientGone, "the client broke its request body off"));
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > most {
            return Err(too_long());
        }
        if !held.grow(read.len() + data.len()) {
            return Err(full());
        }
        read.extend_from_slice(data);
    }
    Ok(read)
}

/// Makes an answer of gRPC one of REST.
pub(super) async fn leave(call: &Call, shared: &Shared, response: &mut Response<ResponseBody>) {
    if response.extensions().get::<Said>().is_some() {
        return; // the gateway's own, which speaks no gRPC here
    }
    let told = if !grpc::is_answer(response.status(), response.headers()) {
        let (http, status) = (response.status(), Status::of_http(response.status()));
        discard(response.body_mut()).await;
        if http.is_client_error() || http.is_server_error() {
            Told::Failed { status, http, reason: None }
        } else {
            Told::Failed { status, http: StatusCode::BAD_GATEWAY, reason: Some(Reason::ProtocolError) }
        }
    } else if let Some(status) = Status::of(response.headers()) {
        discard(response.body_mut()).await;
        Told::of(call, status, None, Held::new(&shared.messages))
    } else if call.rpc.is_stream {
        begin(call, shared, response).await
    } else {
        let mut held = Held::new(&shared.messages);
        match one(call, response.body_mut(), &mut held).await {
            Ok((message, status)) => Told::of(call, status, message, held),
            Err(told) => told,
        }
    };
    dress(call, told, response);
}

/// What an answer is.
#[derive(Debug)]
enum Told {
    /// This, and all of it.
    Whole(Bytes),
    /// What of the body was read already, and all that follows.
    Stream(Ahead, Held),
    /// A failure, in both protocols' terms, and the gateway's reason where it is not the service's own.
    Failed { status: Status, http: StatusCode, reason: Option<Reason> },
}

impl Told {
    /// Of a call that is over. Without a failure it has its message, but for a stream without any.
    fn of(call: &Call, status: Status, message: Option<Bytes>, mut held: Held) -> Self {
        if status.code != 0 {
            return Self::Failed { http: grpc::http_status(status.code), status, reason: None };
        }
        match message {
            Some(message) => match call.rpc.answers.json(&message, &mut |made| held.grow(message.len() + made)) {
                Ok(json) => held.own(json).map_or_else(crowded, Self::Whole),
                Err(why) => unmade(why),
            },
            None if call.rpc.is_stream => Self::Whole(Bytes::from_static(if call.wants_lines { b"" } else { b"[]" })),
            None => failed("the service ended without a message"),
        }
    }
}

/// An answer that is not as gRPC has it.
fn failed(why: impl Into<String>) -> Told {
    let reason = Some(Reason::ProtocolError);
    Told::Failed { status: Status::new(13, why), http: StatusCode::BAD_GATEWAY, reason }
}

/// What the gateway fails for.
fn by(reason: Reason, why: &str) -> Told {
    let status = Status::new(reason.grpc_status().into(), why);
    Told::Failed { status, http: reason.status(), reason: Some(reason) }
}

fn unmade(why: Unmade) -> Told {
    match why {
        Unmade::Wrong(why) => failed(why),
        Unmade::Crowded => crowded(),
    }
}

/// There is no room for it, which is nobody's fault.
fn crowded() -> Told {
    by(Reason::Overloaded, FULL)
}

/// Writes the head, and changes the body.
fn dress(call: &Call, told: Told, response: &mut Response<ResponseBody>) {
    for name in &OF_GRPC {
        response.headers_mut().remove(name);
    }
    let is_lines = call.wants_lines && call.rpc.is_stream && !matches!(told, Told::Failed { .. });
    let kind = if is_lines { LINES } else { JSON };
    let (status, why) = match &told {
        Told::Failed { status, http, reason } => (*http, reason.map(|reason| (reason, status.message.clone()))),
        _ => (call.rpc.status, None),
    };
    *response.status_mut() = status;
    if matches!(why, Some((Reason::Overloaded, _))) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response.body_mut().told(status, why);
    match told {
        Told::Whole(json) => response.body_mut().turn_into(json),
        Told::Stream(ahead, held) => {
            let messages = Messages::new(call.most);
            let stream = Stream { rpc: Arc::clone(&call.rpc), is_lines, messages, held, count: 0 };
            response.body_mut().recode(ahead, Box::new(stream));
        }
        Told::Failed { status, .. } => response.body_mut().turn_into(call.rpc.answers.status(&status).into()),
    }
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if call.rpc.is_stream {
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    }
}

async fn frame(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, Failed>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Reads what nobody wants.
async fn discard(body: &mut ResponseBody) {
    let mut read = 0;
    while let Some(Ok(came)) = frame(body).await {
        read += came.data_ref().map_or(0, Bytes::len);
        if read > DISCARD {
            return;
        }
    }
}

/// The one message, and what the call came to.
async fn one(call: &Call, body: &mut ResponseBody, held: &mut Held) -> Result<(Option<Bytes>, Status), Told> {
    let (mut messages, mut message) = (Messages::new(call.most), None);
    loop {
        match frame(body).await {
            None => return Err(failed(NO_STATUS)),
            Some(Err(_)) => return Err(broken(body)),
            Some(Ok(came)) => match came.into_data() {
                Ok(data) => {
                    messages.push(&data);
                    if !held.grow(messages.held() + message.as_ref().map_or(0, Bytes::len)) {
                        return Err(crowded());
                    }
                    while let Some(next) = messages.take().map_err(failed)? {
                        if message.replace(next).is_some() {
                            return Err(failed("the service answered with more than one message"));
                        }
                    }
                }
                Err(came) => {
                    let status = came.trailers_ref().and_then(Status::of).ok_or_else(|| failed(NO_STATUS))?;
                    return if messages.is_between() { Ok((message, status)) } else { Err(failed(WITHIN)) };
                }
            },
        }
    }
}

const WITHIN: &str = "the answer ended within a message";

/// The log says more.
fn broken(body: &ResponseBody) -> Told {
    match body.broke() {
        Some(reason @ (Reason::Timeout | Reason::DeadlineExceeded)) => by(reason, "the service took too long"),
        _ => by(Reason::ResetMidResponse, "the service broke off"),
    }
}

/// Waits for a stream's first message, or its end.
async fn begin(call: &Call, shared: &Shared, response: &mut Response<ResponseBody>) -> Told {
    let (mut messages, mut ahead, mut read) = (Messages::new(call.most), Ahead::new(), 0);
    let mut held = Held::new(&shared.messages);
    loop {
        let came = frame(response.body_mut()).await;
        match &came {
            None => return failed(NO_STATUS),
            Some(Err(_)) => return broken(response.body()),
            Some(Ok(came)) => match came.data_ref() {
                Some(data) => {
                    messages.push(data);
                    read += data.len();
                    // It is there twice, until its form is found.
                    if !held.grow(2 * read) {
                        return crowded();
                    }
                }
                None if messages.is_between() => {
                    let status = came.trailers_ref().and_then(Status::of);
                    return status.map_or_else(|| failed(NO_STATUS), |status| Told::of(call, status, None, held));
                }
                None => return failed(WITHIN),
            },
        }
        ahead.push_back(came);
        match messages.take() {
            Ok(None) => (),
            Ok(Some(first)) => {
                return match call.rpc.answers.json(&first, &mut |made| held.grow(2 * read + made)) {
                    Ok(_) => Told::Stream(ahead, held),
                    Err(why) => unmade(why),
                };
            }
            Err(why) => return failed(why),
        }
    }
}

/// Messages as they come, as an array's elements or as lines.
#[derive(Debug)]
struct Stream {
    rpc: Arc<Binding>,
    is_lines: bool,
    messages: Messages,
    held: Held,
    count: u64,
}

impl Recode for Stream {
    fn data(&mut self, piece: &[u8]) -> Result<Bytes, Failed> {
        // What is made is held for as long as its client has not taken it.
        let (mut out, mut share) = (Vec::new(), self.held.another());
        self.messages.push(piece);
        if !self.held.grow(self.messages.held()) {
            return Err(FULL.into());
        }
        while let Some(message) = self.messages.take()? {
            if !self.is_lines {
                out.extend_from_slice(if self.count == 0 { b"[" } else { b",\n" });
            }
            self.count += 1;
            let before = out.len();
            let json = self.rpc.answers.json(&message, &mut |made| share.grow(before + 2 * made));
            out.extend_from_slice(&json.map_err(|why| match why {
                Unmade::Wrong(why) => why,
                Unmade::Crowded => FULL.to_owned(),
            })?);
            if self.is_lines {
                out.push(b'\n');
            }
        }
        self.held.shrink(self.messages.held());
        out.shrink_to_fit(); // what is counted is what is held
        if out.is_empty() { Ok(Bytes::new()) } else { share.own(out.into()).ok_or_else(|| FULL.into()) }
    }

    fn pause(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// A failure is told by an end that is none: neither an array nor lines have another way.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed> {
        let status = trailers.as_ref().and_then(Status::of).ok_or(NO_STATUS)?;
        if status.code != 0 {
            return Err(format!("the service ended with status {}: {}", status.code, status.message).into());
        }
        if !self.messages.is_between() {
            return Err(WITHIN.into());
        }
        let end = match (self.is_lines, self.count) {
            (true, _) => &b""[..],
            (false, 0) => b"[]",
            (false, _) => b"]",
        };
        Ok((end.to_vec(), None))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use lictor_core::gateway::transcode::Terms;
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn what_is_made_of_a_stream_is_held_until_its_client_has_it() {
        let descriptor = include_bytes!("../../../../examples/library.pb");
        let terms = Terms { services: vec!["library.v1.Library".to_owned()], ..Terms::default() };
        let transcode = Transcode::new(descriptor, terms).unwrap();
        let (rpc, _) = transcode.find(&Method::GET, "/v1/shelves:watch").unwrap();
        let all = Arc::new(Semaphore::new(100));
        let mut stream = Stream {
            rpc: Arc::clone(rpc),
            is_lines: false,
            messages: Messages::new(10_000),
            held: Held::new(&all),
            count: 0,
        };
        // A name of 3000 bytes, each of which is six in JSON.
        let name = [&[0, 0, 0, 0x0b, 0xbb, 0x0a, 0xb8, 0x17][..], &[1; 3000]].concat();
        assert!(stream.data(&name[..1000]).unwrap().is_empty() && all.available_permits() == 99);
        let first = stream.data(&name[1000..]).unwrap();
        let left = all.available_permits();
        assert!(first.len() > 18_000 && left == 100 - first.len().div_ceil(held::UNIT), "{left}");
        let rest: Vec<_> = std::iter::from_fn(|| stream.data(&name).ok()).collect();
        assert!((1..5).contains(&rest.len()), "there is an end: {}", rest.len());
        drop((first, rest));
        stream.messages = Messages::new(10_000);
        assert!(stream.data(&name).is_ok(), "there is room again");
    }
}
