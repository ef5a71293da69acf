//! What a route asks of a token that is believed. Rules are judged on every request, also when the token was known: a verdict is never kept.

use serde_json::{Map, Value};

use crate::claims;
use crate::refusal::{Refusal, Why};
use crate::verify::Verified;

/// Where a claim is: `role` is the member of that name, whatever characters it has; `/realm_access/roles` is a JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim(Box<str>);

impl Claim {
    /// `None` for an empty text, and for a pointer with an escape that is none (RFC 6901, section 3).
    pub fn parse(text: &str) -> Option<Self> {
        let escapes = text.split('~').skip(1);
        let is_pointer = text.starts_with('/');
        let is_sound = !is_pointer || escapes.clone().all(|rest| rest.starts_with(['0', '1']));
        (!text.is_empty() && is_sound).then(|| Self(text.into()))
    }

    /// What the token says there.
    pub fn of<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let Some(pointer) = self.0.strip_prefix('/') else { return claims.get(&*self.0) };
        let mut names = pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
        let first = claims.get(&names.next()?)?;
        names.try_fold(first, |value, name| match value {
            Value::Object(members) => members.get(&name),
            Value::Array(list) if name == "0" || !name.starts_with(['0', '+']) => list.get(name.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// There, and not null.
    Exists,
    /// One of these, or a list that has one of these; `"1"` is not `1`, and `"true"` not `true`.
    OneOf(Vec<Value>),
}

/// The rules of a route. Empty lists ask for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// By name; a token of another is not for this route.
    pub issuers: Vec<String>,
    /// `aud` must have one.
    pub audiences: Vec<String>,
    /// All of them, as whole words.
    pub scopes: Vec<String>,
    /// Where scopes are: a text of words with spaces (RFC 8693, section 4.2) or a list of words.
    pub scope_claim: Claim,
    /// One of them.
    pub roles: Vec<String>,
    /// Where roles are: a text, which is one role, or a list of them.
    pub role_claim: Claim,
    /// Each must hold.
    pub claims: Vec<(Claim, Test)>,
}

impl Default for Rules {
    /// Nothing is asked; `scope` and `role`.
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audiences: Vec::new(),
            scopes: Vec::new(),
            scope_claim: Claim("scope".into()),
            roles: Vec::new(),
            role_claim: Claim("role".into()),
            claims: Vec::new(),
        }
    }
}

impl Rules {
    /// Whether this token may. What is for another route is 401, what lacks something 403.
    pub fn judge(&self, token: &Verified) -> Result<(), Refusal> {
        if !self.issuers.is_empty() && !self.issuers.iter().any(|name| **name == *token.issuer.name) {
            return Err(Refusal::new(Why::NotForRoute, "the route does not take this issuer's tokens"));
        }
        if !self.audiences.is_empty() {
            let has = claims::audience(&token.claims)?;
            if !self.audiences.iter().any(|wanted| has.iter().any(|one| one == wanted)) {
                return Err(Refusal::new(Why::NotForRoute, "aud has none of the route's"));
            }
        }
        if !self.scopes.is_empty() {
            let value = self.scope_claim.of(&token.claims);
            if let Some(missing) = self.scopes.iter().find(|scope| !has_word(value, scope)) {
                return Err(Refusal::new(Why::Scope, format!("scope {missing:?} is not there")));
            }
        }
        if !self.roles.is_empty() {
            let value = self.role_claim.of(&token.claims);
            if !self.roles.iter().any(|role| has_text(value, role)) {
                return Err(Refusal::new(Why::Role, "none of the roles is there"));
            }
        }
        match self.claims.iter().find(|(claim, test)| !test.holds(claim.of(&token.claims))) {
            Some((claim, _)) => {
                Err(Refusal::new(Why::ClaimRule, format!("claim {:?} is not what is asked for", claim.0)))
            }
            None => Ok(()),
        }
    }
}

impl Test {
    /// Whether a claim of this value is what is asked for.
    pub fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (_, None | Some(Value::Null)) => false,
            (Self::Exists, Some(_)) => true,
            (Self::OneOf(wanted), Some(Value::Array(list))) => list.iter().any(|one| wanted.contains(one)),
            (Self::OneOf(wanted), Some(one)) => wanted.contains(one),
        }
    }
}

/// A text of words, or a list of them. An empty word is nobody's.
fn has_word(value: Option<&Value>, word: &str) -> bool {
    match value {
        Some(Value::String(text)) => !word.is_empty() && text.split(' ').any(|one| one == word),
        value => has_text(value, word),
    }
}

fn has_text(value: Option<&Value>, wanted: &str) -> bool {
    match value {
        Some(Value::String(text)) => !wanted.is_empty() && text == wanted,
        Some(Value::Array(list)) => !wanted.is_empty() && list.iter().any(|one| one == wanted),
        _ => false,
    }
}
