//! Keys, and which of them a token is checked by. A key says what it is for; the token's `alg` only chooses among that
//! (RFC 8725, section 3.1; nearform/fast-jwt's and libjwt's confusions had a token choose).

use std::fmt;

use jsonwebtoken::DecodingKey;

use crate::algorithm::{Algorithm, Family};
use crate::crypto;
use crate::fingerprint::Fingerprint;
use crate::refusal::{Refusal, Why};

/// The longest `kid` of a token that is looked up, in bytes.
pub const MAX_KEY_ID: usize = 256;

/// One key.
#[derive(Clone)]
pub(crate) struct Key {
    /// `kid`: bytes that are compared, and nothing else is done with them.
    pub(crate) id: Option<Box<str>>,
    /// What it may be used with, of one family.
    pub(crate) algorithms: Vec<Algorithm>,
    check: DecodingKey,
    /// What it is: kind, algorithms, name and bytes.
    fingerprint: Fingerprint,
}

impl Key {
    pub(crate) fn new(id: Option<&str>, algorithms: Vec<Algorithm>, parts: &[&[u8]], key: DecodingKey) -> Self {
        let kind = [u8::from(id.is_some())];
        let names = algorithms.iter().map(|algorithm| algorithm.name().as_bytes());
        let all = [&kind[..], id.unwrap_or_default().as_bytes()].into_iter().chain(names).chain(parts.iter().copied());
        let fingerprint = Fingerprint::of(all);
        Self { id: id.map(Into::into), algorithms, check: key, fingerprint }
    }

    pub(crate) fn is_signed(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && crypto::is_signed(message, signature, &self.check, algorithm.library())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithms)
    }
}

/// The keys of an issuer. Two are equal when they would answer alike.
#[derive(Clone, Debug)]
pub struct KeySet {
    pub(crate) keys: Vec<Key>,
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

/// A secret that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// Shorter than the hash of an algorithm that it is for: so many bytes are needed (RFC 7518, section 3.2).
    TooShort(usize),
    /// PEM: a key or certificate that others have too. As a secret it would let anybody sign (RFC 8725, section 2.1).
    Pem,
    /// The algorithms are not HMAC's.
    Algorithm,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(least) => {
                write!(f, "the secret is too short: {least} bytes are the least (RFC 7518, section 3.2)")
            }
            Self::Pem => f.write_str("the secret is a PEM text, which is a key or certificate and no secret"),
            Self::Algorithm => f.write_str("a secret is for HS256, HS384 and HS512 alone"),
        }
    }
}

impl std::error::Error for SecretError {}

impl KeySet {
    /// A shared secret. It has no `kid`, and a token's is not looked at.
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, SecretError> {
        if algorithms.is_empty() || algorithms.iter().any(|algorithm| algorithm.family() != Family::Hmac) {
            return Err(SecretError::Algorithm);
        }
        if secret.windows(10).any(|window| window == b"-----BEGIN") {
            return Err(SecretError::Pem);
        }
        let least = algorithms.iter().map(|algorithm| algorithm.secret_len()).max().unwrap_or_default();
        if secret.len() < least {
            return Err(SecretError::TooShort(least));
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| SecretError::TooShort(least))?;
        Ok(Self { keys: vec![Key::new(None, algorithms.to_vec(), &[b"oct", secret], key)] })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.keys.iter().map(|key| key.fingerprint.bytes()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Their names, in their order.
    pub fn ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.id.as_deref())
    }

    /// The one key that a token is checked by. With a `kid`: the key of that name, which must be for the algorithm. Without: the one key
    /// that is for the algorithm, if it is the only one (RFC 7515, section 4.1.4 calls `kid` a hint; trying all keys is guessing).
    pub(crate) fn pick(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Refusal> {
        if id.is_some_and(|id| id.len() > MAX_KEY_ID) {
            return Err(Refusal::new(Why::KeyId, format!("kid is longer than {MAX_KEY_ID} bytes")));
        }
        let is_for = |key: &&Key| key.algorithms.contains(&algorithm);
        if let Some(id) = id.filter(|_| algorithm.family() != Family::Hmac) {
            let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
            if named.peek().is_none() {
                return Err(Refusal::new(Why::UnknownKey, "no key has this kid"));
            }
            return named
                .find(is_for)
                .ok_or_else(|| Refusal::new(Why::Algorithm, format!("the key is not for {algorithm}")));
        }
        let mut fitting = self.keys.iter().filter(is_for);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Refusal::new(Why::UnknownKey, format!("no key is for {algorithm}"))),
            (Some(_), Some(_)) => {
                Err(Refusal::new(Why::AmbiguousKey, format!("no kid, and several keys are for {algorithm}")))
            }
        }
    }
}
