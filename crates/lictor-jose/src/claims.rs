//! What a token says, and whether that may be believed now (RFC 7519, section 4.1). A claim that is there and of another JSON type than it must
//! be is never taken for one that is not there (CVE-2026-25537 took an `exp` of text so).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::issuer::Issuer;
use crate::refusal::{Refusal, Why};

/// The moment of a NumericDate (RFC 7519, section 2): seconds since 1970, with fractions. Large and negative ones are moments like any.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Moment(f64);

impl Moment {
    /// After all others.
    pub(crate) const NEVER: Self = Self(f64::INFINITY);

    /// Of a clock.
    pub fn of(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(since.as_secs_f64()),
            Err(before) => Self(-before.duration().as_secs_f64()),
        }
    }

    /// How long until then; nothing when it is over, and at most a year, so that no sum overflows.
    pub fn after(self, now: Self) -> Duration {
        const YEAR: f64 = 365.0 * 86_400.0;
        Duration::from_secs_f64((self.0 - now.0).clamp(0.0, YEAR))
    }

    pub(crate) fn plus(self, leeway: Duration) -> Self {
        Self(self.0 + leeway.as_secs_f64())
    }
}

/// `iss`, which chooses the entry before anything else is looked at.
pub(crate) fn issuer(claims: &Map<String, Value>) -> Result<Option<&str>, Refusal> {
    match claims.get("iss") {
        None => Ok(None),
        Some(Value::String(iss)) => Ok(Some(iss)),
        Some(_) => Err(Refusal::new(Why::Issuer, "iss is not text")),
    }
}

/// All claims that are the same for every route. Gives back when the token ends, leeway not counted.
pub(crate) fn check(claims: &Map<String, Value>, issuer: &Issuer, now: Moment) -> Result<Moment, Refusal> {
    required(claims, issuer)?;
    let exp = time(claims, "exp")?.ok_or_else(|| Refusal::new(Why::MissingClaim, "exp is not there"))?;
    let nbf = time(claims, "nbf")?;
    time(claims, "iat")?;
    if now >= exp.plus(issuer.leeway) {
        return Err(Refusal::new(Why::Expired, "exp is over"));
    }
    if nbf.is_some_and(|nbf| now.plus(issuer.leeway) < nbf) {
        return Err(Refusal::new(Why::NotYetValid, "nbf is yet to come"));
    }
    let has = audience(claims)?;
    if !issuer.audiences.is_empty() && !issuer.audiences.iter().any(|wanted| has.iter().any(|one| one == wanted)) {
        return Err(Refusal::new(Why::Audience, "aud has none of ours"));
    }
    Ok(exp)
}

fn required(claims: &Map<String, Value>, issuer: &Issuer) -> Result<(), Refusal> {
    let of_ours = [("iss", issuer.iss.is_some()), ("aud", !issuer.audiences.is_empty())];
    let of_ours = of_ours.into_iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| name);
    let missing = of_ours
        .chain(issuer.required.iter().map(String::as_str))
        .find(|name| claims.get(*name).is_none_or(Value::is_null));
    missing.map_or(Ok(()), |name| Err(Refusal::new(Why::MissingClaim, format!("{name} is not there"))))
}

fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Moment>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(Moment(number))),
            None => Err(Refusal::new(Why::ClaimType, format!("{name} is no finite number"))),
        },
        Some(_) => Err(Refusal::new(Why::ClaimType, format!("{name} is no number"))),
    }
}

/// `aud`: a text or a list of texts (RFC 7519, section 4.1.3).
pub(crate) fn audience(claims: &Map<String, Value>) -> Result<Vec<&str>, Refusal> {
    let wrong = || Refusal::new(Why::ClaimType, "aud is neither text nor a list of texts");
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(list)) => list.iter().map(|one| one.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}
