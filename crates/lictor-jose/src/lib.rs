//! Which bearer tokens are believed, and what they say: JWT (RFC 7519) in the compact form of JWS (RFC 7515), by RFC 8725's rules.
//!
//! No I/O, no clock and no runtime: a token, the issuers' keys and the time go in, facts or a [`Refusal`] come out. Signatures are computed by
//! ring, asked through the crate jsonwebtoken; every byte that decides something is read strictly here, because libraries are lenient where
//! they differ: a member twice, a claim of the wrong type, an audience that is not there.
//!
//! | who | asks |
//! |---|---|
//! | where is the token of this request? | [`source::find`] |
//! | is it believed, and what does it say? | [`cache::Cache::verify`], which remembers, or [`verify()`] |
//! | is that enough for this route? | [`rules::Rules::judge`], on every request |
//! | what of it do those behind us see? | [`forward::field`] |
//! | and if somebody else has found out who asks? | [`Verified::vouched`], for the same rules |
//! | whose keys are they, and which? | [`Issuers`], [`KeySet::secret`], [`jwks::parse`] |
//! | when are keys fetched? | [`refresh::Refresh`] |
//! | which keys are there now? | [`Keyring`] |
//! | what is the client told? | [`Kind`], by one fixed sentence; [`Refusal::detail`] is for the log |
//!
//! # What a token must be
//!
//! | what | rule | source |
//! |---|---|---|
//! | length | at most [`MAX_TOKEN`], before anything is read | RFC 8725, 3.10 |
//! | form | three parts of base64url, one spelling each; no padding; not encrypted, compressed or nested | RFC 7515, 2 and 7.1; RFC 7516 |
//! | JSON | objects; no member twice at any depth; at most [`MAX_DEPTH`] deep, [`MAX_MEMBERS`] members | RFC 7515, 4; RFC 7519, 4 |
//! | `alg` | known, the issuer's, and the key's; never `none` | RFC 8725, 3.1 and 3.2; RFC 7518, 3.6 |
//! | `crit`, `b64: false` | refused, since no extension is built | RFC 7515, 4.1.11; RFC 7797 |
//! | `jku x5u jwk x5c` | not looked at: a token does not bring its key | RFC 8725, 3.10 |
//! | `typ` | what the issuer's entry asks for, if it does | RFC 8725, 3.11; RFC 9068 |
//! | `iss` | chooses the one entry, byte for byte; another is not tried | RFC 8725, 3.8 |
//! | `kid` | one key's name, at most [`MAX_KEY_ID`]; without, exactly one key must fit | RFC 7515, 4.1.4 |
//! | `exp` | must be there; over from that moment on, with the leeway | RFC 7519, 4.1.4 |
//! | `nbf`, `iat` | finite numbers where they are there; `nbf` must have come; of `iat` nothing else is asked | RFC 7519, 4.1.5 and 4.1.6 |
//! | `aud` | text or texts, one of ours where we have any | RFC 7519, 4.1.3; RFC 8725, 3.9 |
//!
//! # Keys
//!
//! HMAC secrets are at least as long as their hash, and never PEM. RSA has from 2048 to 8192 bits. ES256 is P-256, ES384 is P-384; ES512 is not
//! built, because ring lacks P-521. `EdDSA` and `Ed25519` are one (RFC 9864). [`jwks`] reads a set key by key.
//!
//! Nothing here compares secrets by `==`: ring compares a MAC in constant time.

pub mod algorithm;
mod base64url;
pub mod cache;
pub mod claims;
mod crypto;
mod fingerprint;
pub mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod header;
pub mod issuer;
mod json;
pub mod jwks;
pub mod key;
pub mod keyring;
pub mod refresh;
pub mod refusal;
pub mod rules;
pub mod source;
#[cfg(test)]
mod vectors;
pub mod verify;

pub use algorithm::{Algorithm, Family};
pub use claims::Moment;
pub use fingerprint::Fingerprint;
pub use issuer::{Issuer, Issuers, Keys, MAX_LEEWAY, Mistake, Trusted};
pub use json::{MAX_DEPTH, MAX_MEMBERS};
pub use key::{KeySet, MAX_KEY_ID, SecretError};
pub use keyring::{Keyring, Remote, Source};
pub use refusal::{Kind, Refusal, Why};
pub use verify::{MAX_TOKEN, Verified, verify};

/// The members of an object, as strictly as a token's: no member twice, no deeper and no wider.
pub fn members(text: &[u8]) -> Option<serde_json::Map<String, serde_json::Value>> {
    json::object(text).ok()
}

/// Any value, read as strictly, and no deeper than that; it is as wide as its text is long.
pub fn value(text: &[u8], max_depth: usize) -> Result<serde_json::Value, Why> {
    json::read(text, max_depth, usize::MAX)
}
