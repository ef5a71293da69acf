//! Upgrades: HTTP/1.1's (RFC 9110, section 7.8) and HTTP/2's extended CONNECT (RFC 8441), each to either.
//!
//! Within lictor an upgrade has HTTP/1.1's form; it is turned into the other where the client or the endpoint speaks
//! HTTP/2. Upgrades to what HTTP comes in again, as `h2c` is (RFC 9113, section 3.1), are not passed on
//! ([`is_protocol`]).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::response;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use lictor_core::{Failure, Reason};
use lictor_http::RequestBody;
use lictor_http::fields::{Fields, is_protocol, tokens};
use lictor_http::http2::Protocol;
use lictor_http::stream::Stream;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::sync::oneshot;

use super::replay::AnswerBody;

/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's wish to speak something else.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The client's bytes, once it has been told that the wish is granted.
    pub(super) client: Switched,
    protocol: HeaderValue,
    key: Option<HeaderValue>,
    is_by_connect: bool,
}

/// Bytes to come, when a connection or stream is not HTTP's any more.
#[derive(Debug)]
pub(super) enum Switched {
    Later(Option<oneshot::Receiver<Stream>>),
    /// They are here.
    Now(Box<Stream>),
}

impl Switched {
    /// Of a request's connection. Must be asked for before the request is answered.
    pub(super) fn client(request: &mut Request<RequestBody>) -> Self {
        Self::Later(request.body_mut().handover())
    }

    /// Of an answer's connection.
    pub(super) fn upstream(response: Response<AnswerBody>) -> (response::Parts, Self) {
        let (head, body) = response.into_parts();
        (head, Self::Now(Box::new(body.into_stream())))
    }

    /// The bytes; `None` when the other side has gone instead.
    pub(super) async fn stream(self) -> Option<Stream> {
        match self {
            Self::Later(handover) => handover?.await.ok(),
            Self::Now(stream) => Some(*stream),
        }
    }
}

impl Upgrade {
    /// The request's wish, if it has one; its head has HTTP/1.1's form then.
    pub(super) fn of(
        request: &mut Request<RequestBody>,
        fields: Fields,
        mut random: impl FnMut() -> u64,
    ) -> Option<Self> {
        if *request.method() != Method::CONNECT && !fields.has(Fields::UPGRADE) {
            return None;
        }
        let connect = request.extensions_mut().remove::<Protocol>().filter(|_| *request.method() == Method::CONNECT);
        if let Some(protocol) = &connect {
            *request.method_mut() = Method::GET;
            let headers = request.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.0.clone());
            if protocol.0.as_bytes().eq_ignore_ascii_case(b"websocket") {
                let nonce = [random().to_ne_bytes(), random().to_ne_bytes()].concat();
                headers.insert(SEC_WEBSOCKET_KEY, base64(&nonce));
            }
        } else if !is_upgrade(request.headers()) {
            return None;
        }
        Some(Self {
            protocol: request.headers().get(UPGRADE)?.clone(),
            key: request.headers().get(SEC_WEBSOCKET_KEY).cloned(),
            is_by_connect: connect.is_some(),
            client: Switched::client(request),
        })
    }

    /// What an extended CONNECT to an HTTP/2 endpoint asks for.
    pub(super) fn protocol(&self) -> &[u8] {
        self.protocol.as_bytes()
    }

    /// Whether WebSocket's frames follow.
    pub(super) fn is_socket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Whether the endpoint grants the wish; an answer that means neither is a failure.
    pub(super) fn is_granted(&self, status: StatusCode, is_http2: bool) -> Result<bool, Failure> {
        let is_granted = if is_http2 { status.is_success() } else { status == StatusCode::SWITCHING_PROTOCOLS };
        // To a client that asked by CONNECT any 2xx means yes.
        if !is_granted && self.is_by_connect && status.is_success() {
            let sentence = format!("answered {} instead of upgrading", status.as_u16());
            return Err(Failure::new(Reason::ProtocolError, sentence));
        }
        Ok(is_granted)
    }

    /// The status and head that tell the client so.
    pub(super) fn grant(&self, headers: &mut HeaderMap, is_http2: bool) -> StatusCode {
        if self.is_by_connect {
            for field in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
                headers.remove(field);
            }
            return StatusCode::OK;
        }
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if is_http2 {
            headers.insert(UPGRADE, self.protocol.clone());
            if let Some(key) = &self.key {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key));
            }
        }
        StatusCode::SWITCHING_PROTOCOLS
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(UPGRADE).into_iter().map(HeaderValue::as_bytes);
    let protocols = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut protocols = protocols.filter(|protocol| !protocol.is_empty()).peekable();
    let is_named = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    is_named && protocols.peek().is_some() && protocols.all(is_protocol)
}

/// RFC 6455, section 4.2.2: proof that the key was read.
fn accept(key: &HeaderValue) -> HeaderValue {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), WEBSOCKET_GUID].concat()).as_ref())
}

fn base64(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).expect("letters, digits, +, / and =")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_accepted_as_in_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn both_fields_ask_for_an_upgrade_and_never_for_h2c() {
        let headers = |upgrade: &'static str, connection: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers
        };
        assert!(is_upgrade(&headers("websocket", "keep-alive, Upgrade")));
        assert!(!is_upgrade(&headers("websocket", "keep-alive")));
        assert!(!is_upgrade(&headers("h2c", "Upgrade, HTTP2-Settings")));
        assert!(!is_upgrade(&headers("H2C, websocket", "upgrade")));
        assert!(is_upgrade(&headers("websocket,, chat", "upgrade")) && !is_upgrade(&headers(", ", "upgrade")));
        // A line that is not ASCII is a line too.
        let mut odd = headers("websocket", "upgrade");
        odd.append(UPGRADE, HeaderValue::from_bytes(b"h2c, \xfc").unwrap());
        assert!(!is_upgrade(&odd));
    }
}
