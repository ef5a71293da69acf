//! A JWK Set (RFC 7517, section 5), key by key: one that cannot be used is left out and told, and the others work. (Sets were lost to one key of
//! a new kind in several gateways, last to `kty: AKP`.)

use std::fmt;

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, Family};
use crate::key::{Key, KeySet, MAX_KEY_ID};
use crate::{base64url, json};

/// The longest set that is read, in bytes.
pub const MAX_SET: usize = 1 << 20;
/// How many keys of a set are looked at.
pub const MAX_KEYS: usize = 128;

/// What became of a set.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The keys that can be used; never none.
    pub keys: KeySet,
    /// The others.
    pub skipped: Vec<Skipped>,
}

/// A key that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in the set.
    pub position: usize,
    /// Its `kid`, or as much of it as is sensible.
    pub id: Option<String>,
    /// Why.
    pub why: String,
}

/// A set that is none, or has nothing that can be used. Whoever has an earlier one keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksError {
    /// Longer than [`MAX_SET`].
    TooLong,
    /// Not `{"keys": [..]}`.
    Json(String),
    /// No key can be used.
    Unusable(Vec<Skipped>),
}

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the key set is longer than {MAX_SET} bytes"),
            Self::Json(detail) => write!(f, "no JWK Set: {detail}"),
            Self::Unusable(skipped) => {
                f.write_str("the key set has no key that can be used")?;
                skipped.iter().take(3).try_for_each(|one| write!(f, "; {one}"))
            }
        }
    }
}

impl std::error::Error for JwksError {}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "key {} ({id:?}): {}", self.position, self.why),
            None => write!(f, "key {}: {}", self.position, self.why),
        }
    }
}

/// Reads a set.
pub fn parse(text: &[u8]) -> Result<Parsed, JwksError> {
    #[derive(Deserialize)]
    struct Set<'t> {
        #[serde(borrow)]
        keys: Vec<&'t RawValue>,
    }
    if text.len() > MAX_SET {
        return Err(JwksError::TooLong);
    }
    let set: Set<'_> = serde_json::from_slice(text).map_err(|error| JwksError::Json(error.to_string()))?;
    let mut keys: Vec<Key> = Vec::new();
    let mut skipped = Vec::new();
    for (position, raw) in set.keys.iter().enumerate() {
        if position == MAX_KEYS {
            skipped.push(Skipped { position, id: None, why: format!("only {MAX_KEYS} keys are looked at") });
            break;
        }
        let members = json::object(raw.get().as_bytes());
        let id =
            members.as_ref().ok().and_then(|members| Some(members.get("kid")?.as_str()?.chars().take(64).collect()));
        let key = members.map_err(|why| format!("no JWK: {}", why.word())).and_then(|members| key(&members));
        match key.and_then(|key| apart(&keys, key)) {
            Ok(key) => keys.push(key),
            Err(why) => skipped.push(Skipped { position, id, why }),
        }
    }
    if keys.is_empty() { Err(JwksError::Unusable(skipped)) } else { Ok(Parsed { keys: KeySet { keys }, skipped }) }
}

/// No two keys of a name are for the same algorithm: the first one has it.
fn apart(keys: &[Key], key: Key) -> Result<Key, String> {
    let is_like = |other: &Key| other.id == key.id && other.algorithms.iter().any(|one| key.algorithms.contains(one));
    if key.id.is_some() && keys.iter().any(is_like) {
        return Err("an earlier key has its kid and is for the same algorithm".to_owned());
    }
    Ok(key)
}

/// One JWK (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2), for signatures that others made.
fn key(jwk: &Map<String, Value>) -> Result<Key, String> {
    is_for_signatures(jwk)?;
    if jwk.contains_key("d") {
        return Err("its private part is published with it: whoever has read it can sign".to_owned());
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID => Some(id.as_str()),
        Some(Value::String(_)) => return Err(format!("kid is longer than {MAX_KEY_ID} bytes")),
        Some(_) => return Err("kid is not text".to_owned()),
    };
    match text(jwk, "kty")? {
        "RSA" => rsa(jwk, id),
        "EC" => ec(jwk, id),
        "OKP" => okp(jwk, id),
        "oct" => Err("a shared secret in a set that anybody may read".to_owned()),
        other => Err(format!("kty {:?} is not known", short(other))),
    }
}

/// `use` and `key_ops` (RFC 7517, sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Map<String, Value>) -> Result<(), String> {
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return Err("use is not sig".to_owned());
    }
    let Some(operations) = jwk.get("key_ops") else { return Ok(()) };
    let operations = operations.as_array().ok_or("key_ops is no list")?;
    let is_twice = |(at, one): (usize, &Value)| operations[..at].contains(one);
    if operations.iter().any(|one| !one.is_string()) || operations.iter().enumerate().any(is_twice) {
        return Err("key_ops has something twice, or that is not text".to_owned());
    }
    if operations.iter().any(|one| one == "verify") { Ok(()) } else { Err("key_ops has no verify".to_owned()) }
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, String> {
    jwk.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name} is not there, or not text"))
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    base64url::decode(text(jwk, name)?).ok_or_else(|| format!("{name} is not base64url without padding"))
}

/// Something of theirs, for a message.
fn short(text: &str) -> String {
    text.chars().take(32).collect()
}

/// `alg`, if the key has one, or else all of these.
fn algorithms(jwk: &Map<String, Value>, able: Vec<Algorithm>) -> Result<Vec<Algorithm>, String> {
    match jwk.get("alg") {
        None => Ok(able),
        Some(Value::String(name)) => match Algorithm::parse(name).filter(|one| able.contains(one)) {
            Some(one) => Ok(vec![one]),
            None => Err(format!("alg {:?} is not known, or not for such a key", short(name))),
        },
        Some(_) => Err("alg is not text".to_owned()),
    }
}

/// 2048 to 8192 bits, with an odd exponent from 3 to 2^32 (RFC 7518, section 3.3; RFC 8017, section 3.1).
fn rsa(jwk: &Map<String, Value>, id: Option<&str>) -> Result<Key, String> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // RFC 7518, section 6.3.1.1 forbids a zero in front, and says that there are libraries that put one there.
    let (n, e) = (without_zeros(&n), without_zeros(&e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("RSA of {bits} bits: from 2048 to 8192 are believed"));
    }
    if n.last().is_none_or(|last| last % 2 == 0) {
        return Err("the modulus is even".to_owned());
    }
    let exponent = e.iter().take(9).fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    if e.len() > 8 || !(3..=1 << 32).contains(&exponent) || exponent % 2 == 0 {
        return Err("the exponent is even, below 3 or above 2^32".to_owned());
    }
    let algorithms = algorithms(jwk, Family::Rsa.algorithms().collect())?;
    Ok(Key::new(id, algorithms, &[b"RSA", n, e], DecodingKey::from_rsa_raw_components(n, e)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// The curve is the algorithm's (RFC 7518, section 3.4), and both numbers are as long as it says (section 6.2.1.2). ring refuses every
/// signature of a point that is not on it.
fn ec(jwk: &Map<String, Value>, id: Option<&str>) -> Result<Key, String> {
    let (algorithm, len) = match text(jwk, "crv")? {
        "P-256" => (Algorithm::ES256, 32),
        "P-384" => (Algorithm::ES384, 48),
        "P-521" => return Err("P-521 (ES512) is not built: ring has no such curve".to_owned()),
        other => return Err(format!("crv {:?} is not known", short(other))),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != len || y.len() != len {
        return Err(format!("x and y must have {len} bytes each"));
    }
    let point = [&[4], x.as_slice(), &y].concat(); // SEC 1, section 2.3.3: uncompressed
    let algorithms = algorithms(jwk, vec![algorithm])?;
    Ok(Key::new(id, algorithms, &[b"EC", &point], DecodingKey::from_ec_der(&point)))
}

/// Ed25519, of 32 bytes (RFC 8037, section 2).
fn okp(jwk: &Map<String, Value>, id: Option<&str>) -> Result<Key, String> {
    let curve = text(jwk, "crv")?;
    if curve != "Ed25519" {
        return Err(format!("crv {:?} is not known", short(curve)));
    }
    let x = bytes(jwk, "x")?;
    if x.len() != 32 {
        return Err("x must have 32 bytes".to_owned());
    }
    let algorithms = algorithms(jwk, vec![Algorithm::Ed25519])?;
    Ok(Key::new(id, algorithms, &[b"OKP", &x], DecodingKey::from_ed_der(&x)))
}
