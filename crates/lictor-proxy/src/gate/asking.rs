//! Asking a service whether a request may go on. The question is built of what the configuration names, not copied from
//! what the client has sent; what is known of an answer is found by all of the question.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, COOKIE, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use lictor_core::gateway::asking::{Asking, KEEP_NO, Said};
use lictor_core::gateway::auth::How;
use lictor_core::gateway::path;
use lictor_core::gateway::remembered::Digest;
use lictor_core::trace::TraceContext;
use lictor_core::{Failure, Reason};
use lictor_http::fields::tokens;
use lictor_jose::Verified;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::{Visit, headers};
use crate::calls::ask::{Question, Told, ask};
use crate::names::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_REQUEST_ID};
use crate::stores::answers::{Answer, No, Yes};
use crate::world::client::Connection;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Of a service's no, what its client hears.
const OF_NO: [HeaderName; 3] = [LOCATION, SET_COOKIE, WWW_AUTHENTICATE];
/// Who asks is told to the service, and does not change what it says.
const ABOUT_THE_CALL: [HeaderName; 3] = [TRACEPARENT, TRACESTATE, X_REQUEST_ID];

/// Whether there is anything to ask about.
pub(super) fn has_credential(asking: &Asking, headers: &HeaderMap) -> bool {
    asking.headers_out.iter().any(|name| headers.contains_key(name))
}

/// Whether a credential is there twice: the service may look at the one, and those behind us at the other. HTTP/2 splits
/// cookies (RFC 9113, section 8.2.3), which are one field.
pub(super) fn has_several(asking: &Asking, headers: &HeaderMap) -> bool {
    let is_twice = |name: &&HeaderName| **name != COOKIE && headers.get_all(*name).into_iter().nth(1).is_some();
    asking.headers_out.iter().any(|name| is_twice(&name))
}

/// What the service says of this request, by memory or by asking; who asks the same at the same time waits for one answer.
pub(super) async fn answer<B>(
    visit: &mut Visit,
    connection: &Rc<Connection>,
    asking: &Arc<Asking>,
    request: &mut Request<B>,
    label: &Arc<str>,
) -> Answer {
    let mut question = question(asking, request);
    let digest = digest(connection, &question);
    let worker = &connection.worker;
    let known = worker.answers.borrow_mut().get(asking, &digest, Instant::now());
    if let Some(known) = known {
        return known;
    }
    visit.is_changed |= relate(connection, request, &mut question);
    let running = worker.answers.borrow().asked.get(&digest).cloned();
    let mut told = match running {
        Some(mut told) => match wait(&mut told).await {
            Some(Answer::No(no)) if no.is_personal => begin(connection, asking, question, label, None),
            Some(answer) => return answer,
            None => {
                worker.answers.borrow_mut().asked.remove(&digest);
                begin(connection, asking, question, label, Some(digest))
            }
        },
        None => begin(connection, asking, question, label, Some(digest)),
    };
    wait(&mut told)
        .await
        .unwrap_or_else(|| Answer::Nothing(Failure::new(Reason::Draining, "the question to the service was given up")))
}

async fn wait(told: &mut watch::Receiver<Option<Answer>>) -> Option<Answer> {
    told.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
}

/// Asks on a task of its own: others may wait for the answer when whoever began has gone.
fn begin(
    connection: &Rc<Connection>,
    asking: &Arc<Asking>,
    request: Request<()>,
    label: &Arc<str>,
    digest: Option<Digest>,
) -> watch::Receiver<Option<Answer>> {
    let (tell, told) = watch::channel(None);
    let worker = Rc::clone(&connection.worker);
    if let Some(digest) = digest {
        worker.answers.borrow_mut().asked.insert(digest, told.clone());
    }
    let (connection, asking) = (Rc::clone(connection), Arc::clone(asking));
    let question = Question {
        to: Arc::clone(&asking.to),
        request,
        label: Arc::clone(label),
        timeout: asking.timeout,
        answer_max: asking.answer_max,
    };
    let ends = ends(question.request.headers().get(AUTHORIZATION));
    spawn_local(async move {
        let (answer, keep) = read(&asking, ask(connection, question).await, ends);
        let mut answers = worker.answers.borrow_mut();
        if let Some(digest) = digest {
            answers.asked.remove(&digest);
            if let Some(keep) = keep {
                answers.keep(&asking, digest, &answer, Instant::now() + keep);
            }
        }
        drop(answers);
        tell.send_replace(Some(answer));
    });
    told
}

/// Decides the name of the request and its place in its trace, which the question is told by too; whether the name is new.
fn relate<B>(connection: &Connection, request: &mut Request<B>, question: &mut Request<()>) -> bool {
    let (view, random) = (connection.worker.view(), &mut || connection.worker.random());
    let trace = TraceContext::extract(request.headers(), true, &view.mesh.trace, random);
    request.extensions_mut().insert(trace);
    question.extensions_mut().insert(trace.asks(&view.mesh.trace, random));
    let is_new = headers::name(connection, request);
    if let Some(id) = request.headers().get(X_REQUEST_ID) {
        question.headers_mut().insert(X_REQUEST_ID, id.clone());
    }
    is_new
}

/// The request of ours.
fn question<B>(asking: &Asking, request: &Request<B>) -> Request<()> {
    let (mut built, ()) = Request::new(()).into_parts();
    let (theirs, headers) = (request.headers(), &mut built.headers);
    for name in asking.headers_out.iter().chain(&ABOUT_THE_CALL).chain([&X_FORWARDED_FOR]) {
        for value in theirs.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    if asking.tells_request {
        let uri = request.uri();
        // An extended CONNECT is HTTP/2's form of a GET (RFC 8441, section 4).
        let method = if *request.method() == Method::CONNECT { &Method::GET } else { request.method() };
        let told = theirs.get(&X_FORWARDED_HOST).cloned(); // by a proxy that is trusted, or nobody
        let host = uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
        let read = path::read_again(uri.path()).map(|read| read.as_str().to_owned()).unwrap_or_default();
        let target = uri.query().map_or_else(|| read.clone(), |query| format!("{read}?{query}"));
        for (name, value) in [
            (X_FORWARDED_METHOD, HeaderValue::try_from(method.as_str()).ok()),
            (X_FORWARDED_URI, HeaderValue::try_from(target).ok()),
            (X_FORWARDED_HOST, told.or(host).or_else(|| theirs.get(HOST).cloned())),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
    built.method = asking.method.clone();
    built.uri = asking.path.clone().into();
    Request::from_parts(built, ())
}

/// Of everything that the service sees of the client: two questions that differ in any of it have two answers.
fn digest(connection: &Connection, question: &Request<()>) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut part = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    part(connection.ip().as_bytes());
    part(connection.peer.map_or_else(String::new, |peer| peer.ip().to_string()).as_bytes());
    part(if connection.is_encrypted { b"https" } else { b"http" });
    for (name, value) in question.headers().iter().filter(|(name, _)| !ABOUT_THE_CALL.contains(name)) {
        part(name.as_str().as_bytes());
        part(value.as_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// What an answer means, and for how long.
fn read(asking: &Asking, told: Result<Told, Failure>, ends: Option<Duration>) -> (Answer, Option<Duration>) {
    let response = match told {
        Ok(response) => response,
        Err(failure) => return (Answer::Nothing(failure), None),
    };
    let (head, body) = response.into_parts();
    let status = head.status;
    let nonsense = |sentence: String| (Answer::Nonsense(Failure::new(Reason::ProtocolError, sentence)), None);
    let Some(body) = body else {
        return nonsense(format!("{} answered with more than {} bytes", asking.to, asking.answer_max));
    };
    match Said::of(status) {
        Said::Yes => {
            let claims = claims(&head.headers, &body);
            let exp = claims.as_ref().and_then(|claims| claims.get("exp")).map(until);
            let expires = [exp, ends].into_iter().flatten().min();
            let keep = asking.keep.and_then(|keep| keep_for(&head.headers, keep, expires));
            let fields = fields(&head.headers, &asking.headers_in);
            let is_readable = claims.is_some();
            let expires = exp.and_then(|exp| SystemTime::now().checked_add(exp));
            let known = Verified::vouched(How::Service.as_str(), claims.unwrap_or_default(), expires);
            (Answer::Yes(Rc::new(Yes { fields, known, is_readable })), keep)
        }
        Said::No => {
            let is_personal = head.headers.contains_key(SET_COOKIE);
            let keep = asking.keep.map(|keep| keep.min(KEEP_NO)).filter(|_| !is_personal);
            let keep = keep.and_then(|keep| keep_for(&head.headers, keep, None));
            (Answer::No(Rc::new(No { status, fields: fields(&head.headers, &OF_NO), is_personal })), keep)
        }
        Said::Nothing => {
            let sentence = format!("{} answered {}", asking.to, status.as_u16());
            (Answer::Nothing(Failure::new(Reason::Status, sentence)), None)
        }
        Said::Nonsense => nonsense(format!("{} answered {}, which is neither yes nor no", asking.to, status.as_u16())),
    }
}

fn fields(headers: &HeaderMap, wanted: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let of = |name: &HeaderName| {
        let name = name.clone();
        headers
            .get_all(&name)
            .into_iter()
            .filter(|value| !value.is_empty())
            .cloned()
            .map(|value| (name.clone(), value))
            .collect::<Vec<_>>()
    };
    wanted.iter().flat_map(of).collect()
}

/// What a body says: nothing when it is empty; `None` when nobody can tell.
fn claims(headers: &HeaderMap, body: &Bytes) -> Option<Map<String, Value>> {
    if body.is_empty() {
        return Some(Map::new());
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    lictor_jose::members(body)
}

/// How long it may be kept: as the configuration says, until what it is about ends, and no longer than the service allows (RFC
/// 9111, section 5.2.2).
fn keep_for(headers: &HeaderMap, keep: Duration, expires: Option<Duration>) -> Option<Duration> {
    let mut keep = expires.map_or(keep, |expires| keep.min(expires));
    for directive in tokens(headers, &CACHE_CONTROL) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return None;
        }
        if name.eq_ignore_ascii_case("max-age") {
            keep = keep.min(Duration::from_secs(value.trim_matches('"').parse().unwrap_or(0)));
        }
    }
    (!keep.is_zero()).then_some(keep)
}

/// How long until a NumericDate (RFC 7519, section 2); what is none is over.
fn until(exp: &Value) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let left = exp.as_f64().map_or(0.0, |exp| (exp - now).clamp(0.0, 1e9));
    Duration::from_secs_f64(left)
}

/// When a bearer token ends by what it says itself. Nobody believes that here: it can only make what is known hold shorter.
fn ends(authorization: Option<&HeaderValue>) -> Option<Duration> {
    let (scheme, token) = authorization?.to_str().ok()?.split_once(' ')?;
    let payload = token.split('.').nth(1).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    lictor_jose::members(&payload)?.get("exp").map(until)
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use serde_json::json;

    use super::*;

    fn asking() -> Asking {
        Asking {
            to: "users".into(),
            path: "/check".parse().unwrap(),
            method: Method::POST,
            headers_out: vec![AUTHORIZATION],
            tells_request: true,
            headers_in: vec![HeaderName::from_static("x-user-id")],
            timeout: Duration::from_secs(1),
            keep: Some(Duration::from_secs(60)),
            fail_open: false,
            answer_max: 1024,
        }
    }

    fn told(status: u16, fields: &[(&str, &str)], body: &str) -> Told {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(Some(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
    }

    #[test]
    fn the_question_has_what_is_named_and_nothing_else() {
        let request = Request::post("http://shop.example/a/../b?c=d")
            .header("authorization", "Bearer one")
            .header("cookie", "session=1")
            .header("content-length", "5")
            .header("x-user-id", "forged")
            .header("traceparent", "00-1")
            .header("x-forwarded-for", "127.0.0.1")
            .body(())
            .unwrap();
        let question = question(&asking(), &request);
        assert_eq!((question.method(), question.uri().path()), (&Method::POST, "/check"));
        let mut seen: Vec<_> =
            question.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "authorization: Bearer one",
                "traceparent: 00-1",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: shop.example",
                "x-forwarded-method: POST",
                "x-forwarded-uri: /b?c=d",
            ]
        );
        let plain = Asking { tells_request: false, ..asking() };
        assert_eq!(super::question(&plain, &request).headers().len(), 3, "the credential, the client, the trace");
    }

    #[test]
    fn an_answer_means_one_thing_and_holds_no_longer_than_it_may() {
        let soon = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(20)).as_secs();
        let table = [
            (told(200, &[], ""), None, "yes", 60),
            (told(204, &[("x-user-id", "7")], ""), None, "yes", 60),
            (told(200, &[], "{}"), Some(Duration::from_secs(5)), "yes", 5),
            (told(200, &[], &json!({ "exp": soon }).to_string()), None, "yes", 20),
            (told(200, &[], "{\"exp\": \"never\"}"), None, "yes", 0),
            (told(200, &[], "{\"exp\": 1}"), None, "yes", 0),
            (told(200, &[("cache-control", "no-store")], ""), None, "yes", 0),
            (told(200, &[("cache-control", "private, max-age=3")], ""), None, "yes", 3),
            (told(200, &[("cache-control", "max-age=x")], ""), None, "yes", 0),
            (told(401, &[], ""), None, "no", 1),
            (told(302, &[("location", "/login")], ""), None, "no", 1),
            (told(302, &[("set-cookie", "a=b")], ""), None, "no", 0),
            (told(403, &[("cache-control", "no-store")], ""), None, "no", 0),
            (told(429, &[], ""), None, "nothing", 0),
            (told(500, &[], ""), None, "nothing", 0),
            (told(304, &[], ""), None, "nonsense", 0),
            (Response::new(None), None, "nonsense", 0),
        ];
        for (told, ends, expected, seconds) in table {
            let shown = format!("{told:?}");
            let (answer, keep) = read(&asking(), Ok(told), ends);
            let word = match answer {
                Answer::Yes(_) => "yes",
                Answer::No(_) => "no",
                Answer::Nothing(_) => "nothing",
                Answer::Nonsense(_) => "nonsense",
            };
            assert_eq!(word, expected, "{shown}");
            let kept = keep.map_or(0, |keep| keep.as_secs_f64().ceil() as u64);
            assert_eq!(kept, seconds, "{shown}");
            let never = read(&Asking { keep: None, ..asking() }, Ok(Response::new(Some(Bytes::new()))), None);
            assert!(never.1.is_none());
        }
        assert_eq!(Response::<()>::default().status(), StatusCode::OK);
    }

    #[test]
    fn only_what_is_named_of_an_answer_goes_anywhere() {
        let fields =
            [("x-user-id", "7"), ("x-role", "admin"), ("set-cookie", "a=b"), ("location", "/x"), ("server", "s")];
        let (Answer::Yes(yes), _) = read(&asking(), Ok(told(200, &fields, "")), None) else { panic!("a yes") };
        assert_eq!(yes.fields, [(HeaderName::from_static("x-user-id"), HeaderValue::from_static("7"))]);
        let (Answer::No(no), _) = read(&asking(), Ok(told(403, &fields, "secret")), None) else { panic!("a no") };
        let names: Vec<_> = no.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["location", "set-cookie"]);
        let (Answer::Yes(yes), _) = read(&asking(), Ok(told(200, &[("x-user-id", "")], "")), None) else {
            panic!("a yes")
        };
        assert!(yes.fields.is_empty(), "what says nothing is not there");
    }

    #[test]
    fn a_body_says_one_thing_or_nothing() {
        let of = |body: &'static str| claims(&HeaderMap::new(), &Bytes::from_static(body.as_bytes()));
        assert_eq!(of(""), Some(Map::new()));
        assert_eq!(of("{\"id\": 7}").unwrap()["id"], 7);
        for wrong in ["null", "true", "[]", "\"{}\"", "{", "{\"id\":1,\"id\":2}", "<html>"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let coded = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(claims(&coded, &Bytes::from_static(b"{}")), None);
    }
}
