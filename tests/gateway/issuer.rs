//! Who gives out the tests' tokens, and a server that has his keys or does not.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lictor_testkit::{RawServer, read_head};
use parking_lot::Mutex;
use ring::hmac::{self, HMAC_SHA256};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value as Json, json};

use crate::field;

/// Nobody believes it elsewhere.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds from now, as tokens have it.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

/// What a usual token says, with these instead or besides.
pub(crate) fn claims(more: Json) -> Json {
    let mut claims = json!({"sub": "alice", "exp": in_seconds(3600)});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// By the shared secret.
pub(crate) fn shared(claims: &Json) -> String {
    sealed(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

/// By any secret, with any header.
pub(crate) fn sealed(secret: &str, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let mac = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", encode(mac))
}

/// A key of an issuer's.
pub(crate) struct Key {
    pub(crate) id: &'static str,
    pair: Ed25519KeyPair,
}

impl Key {
    pub(crate) fn new(id: &'static str, seed: u8) -> Self {
        Self { id, pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    /// RFC 8037, section 2.
    pub(crate) fn jwk(&self) -> Json {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "alg": "EdDSA", "x": encode(self.pair.public_key())})
    }

    pub(crate) fn token(&self, claims: &Json) -> String {
        self.named(self.id, claims)
    }

    /// The same with another name of the key.
    pub(crate) fn named(&self, id: &str, claims: &Json) -> String {
        let header = json!({"alg": "EdDSA", "kid": id});
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{message}.{}", encode(self.pair.sign(message.as_bytes())))
    }
}

pub(crate) fn set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// What a server says.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// With these fields, and an `ETag` of its own.
    Set(String, &'static str),
    Status(u16),
    Raw(Vec<u8>),
    /// It takes the question and says nothing.
    Nothing,
}

/// A server with keys.
pub(crate) struct Idp {
    server: RawServer,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    unchanged: Arc<AtomicUsize>,
}

impl Idp {
    pub(crate) fn start(says: Says) -> Self {
        let says = Arc::new(Mutex::new(says));
        let (asked, unchanged) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (saying, counted, same) = (Arc::clone(&says), Arc::clone(&asked), Arc::clone(&unchanged));
        let server = RawServer::start(move |mut stream| {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            counted.fetch_add(1, Relaxed);
            let says = saying.lock().clone();
            let answer = match says {
                Says::Set(text, fields) => {
                    let tag = format!("\"{}\"", hash(&text));
                    if field(&head, "if-none-match") == Some(tag.as_str()) {
                        same.fetch_add(1, Relaxed);
                        format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n{fields}\r\n").into_bytes()
                    } else {
                        let length = text.len();
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: {tag}\r\n{fields}\r\n{text}")
                            .into_bytes()
                    }
                }
                Says::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").into_bytes(),
                Says::Raw(bytes) => bytes,
                Says::Nothing => {
                    read_head(&mut stream); // until it is given up
                    return;
                }
            };
            let _ = stream.write_all(&answer);
        });
        Self { server, says, asked, unchanged }
    }

    pub(crate) fn says(&self, says: Says) {
        *self.says.lock() = says;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    /// How often it could say that nothing was new.
    pub(crate) fn unchanged(&self) -> usize {
        self.unchanged.load(Relaxed)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.server.port())
    }
}

fn hash(text: &str) -> usize {
    text.bytes().fold(7, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)))
}
