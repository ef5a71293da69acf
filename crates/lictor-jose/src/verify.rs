//! A token, the issuers and the time in; what it says, or why it is not believed, out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::claims::{self, Moment};
use crate::fingerprint::Fingerprint;
use crate::header::{Header, is_type};
use crate::issuer::{Issuer, Issuers, Keys, Trusted};
use crate::refusal::{Refusal, Why};
use crate::{base64url, json};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;

/// A token that is believed: facts, which hold on every route until it ends or its issuer's keys or settings change. Whether they are enough for
/// a route is [`crate::rules::Rules::judge`]'s to say, each time.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who gave it out.
    pub issuer: Arc<Issuer>,
    /// Under which keys and settings it was believed ([`crate::Trusted::entry`]).
    pub entry: Fingerprint,
    /// What it says.
    pub claims: Arc<Map<String, Value>>,
    /// When it ends, leeway not counted.
    pub expires: Moment,
}

impl Verified {
    /// Facts that somebody else than an issuer of tokens vouches for: by this name, until then.
    pub fn vouched(by: &str, claims: Map<String, Value>, expires: Option<SystemTime>) -> Self {
        let issuer = Issuer { name: by.into(), leeway: Duration::ZERO, ..Issuer::default() };
        let expires = expires.map_or(Moment::NEVER, Moment::of);
        Self { issuer: Arc::new(issuer), entry: Fingerprint::of([by.as_bytes()]), claims: Arc::new(claims), expires }
    }

    /// Somebody whom the configuration names: the name as `sub`, what he may do as `scope`, and what he is as `role`.
    pub fn named(by: &str, name: &str, scopes: Vec<String>, roles: Vec<String>) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), name.into());
        for (claim, words) in [("scope", scopes), ("role", roles)] {
            if !words.is_empty() {
                claims.insert(claim.to_owned(), words.into());
            }
        }
        Self::vouched(by, claims, None)
    }

    /// How long a stream that it opened may last: until `exp` and the leeway are over; at most a year.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.expires.plus(self.issuer.leeway).after(Moment::of(now))
    }
}

/// Checks one token, in this order: how it is written, what its header asks for, whose it is, its signature, its claims.
pub fn verify(token: &[u8], issuers: &Issuers, now: SystemTime) -> Result<Verified, Refusal> {
    let parts = Parts::of(token)?;
    let header = object(parts.header, "header")?;
    let header = Header::read(&header)?;
    let claims = object(parts.payload, "payload")?;
    let iss = claims::issuer(&claims)?;
    let Some((at, trusted)) = issuers.of(iss) else {
        return Err(Refusal::new(Why::Issuer, if iss.is_some() { "iss is nobody's" } else { "iss is not there" }));
    };
    let expires = check(&parts, &header, &claims, trusted, now).map_err(|refusal| refusal.of(at))?;
    Ok(Verified { issuer: Arc::clone(trusted.issuer()), entry: trusted.entry(), claims: Arc::new(claims), expires })
}

/// What this issuer's entry says of it.
fn check(
    parts: &Parts<'_>,
    header: &Header<'_>,
    claims: &Map<String, Value>,
    trusted: &Trusted,
    now: SystemTime,
) -> Result<Moment, Refusal> {
    let issuer = trusted.issuer();
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(Refusal::new(Why::Algorithm, format!("{} is not this issuer's", header.algorithm)));
    }
    if let Some(wanted) = &issuer.typ
        && !header.typ.is_some_and(|typ| is_type(typ, wanted))
    {
        return Err(Refusal::new(Why::Type, "typ is not what was asked for"));
    }
    let Keys::Known(keys) = trusted.keys() else {
        return Err(Refusal::new(Why::NoKeys, "there are no keys, or they are too old"));
    };
    let key = keys.pick(header.key_id, header.algorithm)?;
    if !key.is_signed(parts.message, parts.signature, header.algorithm) {
        return Err(Refusal::new(Why::Signature, "the signature is not the key's"));
    }
    claims::check(claims, issuer, Moment::of(now))
}

/// The compact form (RFC 7515, section 7.1).
struct Parts<'t> {
    /// Header, dot and payload, which are signed as they stand.
    message: &'t [u8],
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(token: &'t [u8]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::new(Why::TooLong, format!("longer than {MAX_TOKEN} bytes")));
        }
        let wrong = |parts| Refusal::new(Why::NotCompact, format!("{parts} parts instead of 3"));
        let text = std::str::from_utf8(token).map_err(|_| Refusal::new(Why::Base64, "not even text"))?;
        let mut parts = text.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.count()) {
            (Some(header), Some(payload), Some(signature), 0) => {
                let message = &token[..token.len() - signature.len() - 1];
                Ok(Self { message, header, payload, signature })
            }
            (_, _, Some(_), 2) => Err(Refusal::new(Why::Encrypted, "5 parts: encrypted tokens are not read")),
            (_, _, Some(_), more) => Err(wrong(3 + more)),
            (_, second, None, _) => Err(wrong(1 + usize::from(second.is_some()))),
        }
    }
}

/// The members of a part.
fn object(part: &str, name: &str) -> Result<Map<String, Value>, Refusal> {
    let text =
        base64url::decode(part).ok_or_else(|| Refusal::new(Why::Base64, format!("the {name} is not base64url")))?;
    json::object(&text).map_err(|why| Refusal::new(why, format!("the {name}")))
}
