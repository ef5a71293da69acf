//! How a CA is asked: by a connection of its own for each question, as all that is outside.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use lictor_core::acme::{Acme, TOLD_AT_MOST};
use lictor_tls::{Client, ClientSpec, Trust};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::outside;

/// All of one question: names, connection, TLS, answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Of an answer: a chain is some KiB.
const ANSWER_MAX: usize = 256 << 10;

/// Asks the CA of one order.
#[derive(Clone, Debug)]
pub(super) struct Transport(Arc<Asking>);

#[derive(Debug)]
struct Asking {
    spec: ClientSpec,
    tls: OnceCell<Arc<Client>>,
    /// How long the last answer that was a refusal says to wait.
    told: Mutex<Option<Duration>>,
}

impl Transport {
    pub(super) fn new(acme: &Acme) -> Self {
        let spec = ClientSpec { trust: acme.ca.clone().map_or(Trust::System, Trust::File), ..ClientSpec::default() };
        Self(Arc::new(Asking { spec, tls: OnceCell::new(), told: Mutex::default() }))
    }

    /// What is there, and in what time to ask again.
    pub(super) async fn json(&self, url: &str) -> Result<(serde_json::Value, Option<Duration>), String> {
        let request = Request::get(url).body(BodyWrapper::default()).map_err(|why| why.to_string())?;
        let answer = timeout(WITHIN, self.0.ask(request)).await;
        let (head, body) = answer.map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))??.into_parts();
        if !head.status.is_success() {
            return Err(format!("the CA answers {}", head.status));
        }
        let body = body.collect().await.map_err(|why| why.to_string())?.to_bytes();
        Ok((serde_json::from_slice(&body).map_err(|why| why.to_string())?, retry_after(&head.headers)))
    }

    /// How long the CA says to wait (RFC 8555, section 6.6).
    pub(super) fn told(&self) -> Option<Duration> {
        *self.0.told.lock()
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asking = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = timeout(WITHIN, asking.ask(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
            answer.map(BytesResponse::from).map_err(|why| Error::Other(why.into()))
        })
    }
}

impl Asking {
    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, String> {
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let body = body.collect().await.map_err(|why| why.to_string())?.to_bytes();
        let client = async { self.tls.get_or_try_init(|| outside::client(self.spec.clone())).await.cloned() };
        let answer = outside::ask(Request::from_parts(head, Full::new(body)), client).await?;
        let (mut head, body) = answer.into_parts();
        // The library adds it to the time that it is, which has an end.
        if retry_after(&head.headers).is_some_and(|told| told > TOLD_AT_MOST) {
            head.headers.insert(RETRY_AFTER, TOLD_AT_MOST.as_secs().into());
        }
        let is_refusal = head.status.is_client_error() || head.status.is_server_error();
        *self.told.lock() = retry_after(&head.headers).filter(|_| is_refusal);
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|why| format!("within its answer: {why}"))?;
        let mut body = body.to_bytes();
        if is_refusal && serde_json::from_slice::<Problem>(&body).is_err() {
            if head.status.is_server_error() || method != Method::POST {
                return Err(format!("the CA answers {}", head.status));
            }
            // It has judged what it was asked, in words that are none of ACME's.
            let status = head.status.to_string();
            let is_limited = head.status == StatusCode::TOO_MANY_REQUESTS;
            let problem =
                if is_limited { json!({ "type": "rateLimited", "detail": status }) } else { json!({ "type": status }) };
            body = problem.to_string().into();
        }
        Ok(Response::from_parts(head, Full::new(body)))
    }
}

/// Seconds, or a time (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).ok()
}
