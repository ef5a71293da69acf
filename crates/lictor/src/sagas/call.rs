//! A call of a saga's step: through our own upstream, as the application would call it, so that it has its balancing, its retries, its
//! breaker and its trace. It is made again, with the same key, until it is known what became of it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use lictor_consul::Random;
use lictor_core::Address;
use lictor_core::saga::{Call, Heard, Verdict, judge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::admin::Admin;
use crate::child::reachable;

/// Before a second try; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// Of an answer's body.
const REST_WITHIN: Duration = Duration::from_secs(1);
const REST_MAX: usize = 64 << 10;
/// What of it is told, in characters.
const SAID_MAX: usize = 200;

/// What was answered.
struct Answer {
    status: u16,
    /// Why lictor has answered itself.
    reason: Option<String>,
    /// Somebody else, or the configuration, has answered in the service's place.
    is_instead: bool,
    /// What it says, where it is text.
    said: String,
}

/// Calls until it is known what became of it, or for long enough. `None`: we leave, or the saga is not ours any more; then the call is
/// for whoever goes on.
pub(super) async fn until_heard(
    admin: &Admin,
    call: &Call,
    mut is_repeat: bool,
    leaving: &mut watch::Receiver<bool>,
    is_ours: impl Fn() -> bool,
) -> Option<Heard> {
    let until = Instant::now() + call.within;
    let (mut pause, mut before, mut random) = (PAUSE, String::new(), Random::new());
    loop {
        let why = match timeout_at(until, send(admin, call)).await {
            Ok(Ok(answer)) => {
                let words = answer.words(&call.service);
                match judge(answer.status, is_repeat) {
                    Verdict::Done if !answer.is_instead => return Some(Heard::Done),
                    Verdict::Refused => return Some(Heard::Refused(words)),
                    Verdict::Done | Verdict::Again => words,
                }
            }
            Ok(Err(why)) => why,
            Err(_) => {
                let within = humantime::format_duration(call.within);
                return Some(Heard::Unknown(format!("{} has not answered within {within}{before}", call.service)));
            }
        };
        (is_repeat, before) = (true, format!("; before that {why}"));
        let rest = pause.mul_f64(0.5 + random.share() / 2.0);
        if Instant::now() + rest >= until {
            return Some(Heard::Unknown(why));
        }
        tokio::select! {
            _ = leaving.wait_for(|is_leaving| *is_leaving) => return None,
            () = sleep(rest) => (),
        }
        if !is_ours() {
            return None;
        }
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

impl Answer {
    fn words(&self, service: &str) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let instead = if self.is_instead { ", in place of the service" } else { "" };
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        format!("{service} answered {}{reason}{instead}{said}", self.status)
    }
}

async fn send(admin: &Admin, call: &Call) -> Result<Answer, String> {
    let way = admin.plane.way_to(&call.service);
    let way = way.ok_or_else(|| format!("{} is no upstream of this sidecar any more", call.service))?;
    let mut request = Request::new(Full::new(Bytes::from(call.body.clone())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = call.path.parse().map_err(|_| format!("`{}` is no path", call.path))?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| format!("`{text}` is no value of a header"));
    let headers = request.headers_mut();
    headers.insert(HOST, value(&call.service)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("idempotency-key", value(&call.key)?);
    headers.insert("x-request-id", value(&call.saga)?);
    let unreachable = |error: std::io::Error| format!("our own listener at {way} cannot be reached: {error}");
    match &way {
        Address::Tcp(address) => {
            exchange(TcpStream::connect(reachable(*address)).await.map_err(unreachable)?, request).await
        }
        Address::Unix(path) => exchange(UnixStream::connect(path).await.map_err(unreachable)?, request).await,
    }
}

/// The head says all; of the rest so much is read that whoever has sent it need not notice. The connection is not kept.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection); // its error reaches the request
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = timeout(REST_WITHIN, Limited::new(body, REST_MAX).collect()).await; // what breaks off changes nothing
    let said = body.ok().and_then(Result::ok).map(|body| said(&body.to_bytes())).unwrap_or_default();
    let reason = head.headers.get("x-lictor-reason").and_then(|reason| reason.to_str().ok());
    Ok(Answer {
        status: head.status.as_u16(),
        reason: reason.map(str::to_owned),
        is_instead: head.headers.contains_key("x-lictor-fallback"),
        said,
    })
}

/// The beginning of a text, on one line; nothing of what is none.
fn said(body: &[u8]) -> String {
    let text = str::from_utf8(body).unwrap_or_default();
    text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_told_on_a_line_and_in_part() {
        for (body, told) in [
            (&b"{\"error\":\"out of stock\"}\n"[..], "{\"error\":\"out of stock\"}"),
            (b"a\r\n\x1b[31mb", "a   [31mb"),
            ("nicht vorr\u{e4}tig".as_bytes(), "nicht vorr\u{e4}tig"),
            (b"\xff\xfe", ""),
            (b"", ""),
        ] {
            assert_eq!(said(body), told);
        }
        assert_eq!(said(&[b'x'; 1000]).len(), SAID_MAX);
    }
}
