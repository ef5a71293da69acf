//! Who is believed, about whom, and by which keys. A token names its issuer, and is judged by that entry alone: its keys, its
//! algorithms, its audiences (RFC 8725, section 3.8). Nothing is tried in turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::fingerprint::Fingerprint;
use crate::key::KeySet;

/// The most that clocks may differ: more leeway than this is refused.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// One issuer, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// What we call it, in logs and in rules.
    pub name: Arc<str>,
    /// What `iss` must say, byte for byte (RFC 7519, section 4.1.1 with RFC 3986, section 6.2.1: no kindness about a slash). An entry without
    /// takes the tokens of whom no other entry takes, with and without `iss`: for tokens of our own that have none.
    pub iss: Option<String>,
    /// Of which `aud` must have one. Without, `aud` is not looked at: state an audience wherever an issuer serves more than one.
    pub audiences: Vec<String>,
    /// How tokens may be signed; all of one family.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ, for `exp` and `nbf`.
    pub leeway: Duration,
    /// Claims that must be there besides `exp`, `iss` where we have one, and `aud` where there are audiences.
    pub required: Vec<String>,
    /// What `typ` must say, such as `at+jwt` (RFC 9068, section 2.1); without, any.
    pub typ: Option<String>,
}

impl Default for Issuer {
    /// Nothing is believed: no algorithm.
    fn default() -> Self {
        Self {
            name: "default".into(),
            iss: None,
            audiences: Vec::new(),
            algorithms: Vec::new(),
            leeway: Duration::from_secs(5),
            required: Vec::new(),
            typ: None,
        }
    }
}

impl Issuer {
    fn fingerprint(&self, keys: &Keys) -> Fingerprint {
        let Self { name, iss, audiences, algorithms, leeway, required, typ } = self; // all of them: the compiler asks for a new one
        let list = |texts: &[String]| Fingerprint::of(texts.iter().map(String::as_bytes));
        let option = |text: &Option<String>| Fingerprint::of(text.iter().map(String::as_bytes));
        let keys = match keys {
            Keys::Known(keys) => Some(keys.fingerprint()),
            Keys::Unavailable => None,
        };
        let leeway = leeway.as_nanos().to_be_bytes();
        let algorithms = Fingerprint::of(algorithms.iter().map(|algorithm| algorithm.name().as_bytes()));
        let parts = [option(iss), list(audiences), algorithms, list(required), option(typ)];
        let parts = parts.iter().chain(&keys).map(Fingerprint::bytes);
        Fingerprint::of([name.as_bytes(), &leeway].into_iter().chain(parts))
    }

    /// What is wrong with it by itself.
    fn check(&self) -> Result<(), Mistake> {
        let name = || self.name.to_string();
        let Some(first) = self.algorithms.first() else { return Err(Mistake::NoAlgorithm(name())) };
        if let Some(other) = self.algorithms.iter().find(|one| one.family() != first.family()) {
            return Err(Mistake::Families(name(), *first, *other));
        }
        if self.leeway > MAX_LEEWAY {
            return Err(Mistake::Leeway(name()));
        }
        let texts = [self.iss.as_deref(), self.typ.as_deref()].into_iter().flatten();
        let mut texts = texts.chain(self.audiences.iter().chain(&self.required).map(String::as_str));
        if self.name.is_empty() || texts.any(str::is_empty) { Err(Mistake::Empty(name())) } else { Ok(()) }
    }
}

/// The keys of an issuer as they are now.
#[derive(Clone, Debug)]
pub enum Keys {
    /// These.
    Known(Arc<KeySet>),
    /// None have come yet, or they are too old: nothing can be said of a token, and that is 503, not 401.
    Unavailable,
}

/// An issuer with its keys.
#[derive(Clone, Debug)]
pub struct Trusted {
    issuer: Arc<Issuer>,
    keys: Keys,
    entry: Fingerprint,
}

impl Trusted {
    /// An entry as it is now; other keys make another one.
    pub fn new(issuer: Arc<Issuer>, keys: Keys) -> Self {
        let entry = issuer.fingerprint(&keys);
        Self { issuer, keys, entry }
    }

    /// Who.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// All that decides about a token: each setting and each key. What was found out under one is no ground under another, and nobody can
    /// forget to say that something changed.
    pub fn entry(&self) -> Fingerprint {
        self.entry
    }
}

/// Issuers that cannot stand together, or by themselves. Each names the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// No algorithm.
    NoAlgorithm(String),
    /// Algorithms of two families: then a public key could be taken for a secret.
    Families(String, Algorithm, Algorithm),
    /// More leeway than [`MAX_LEEWAY`].
    Leeway(String),
    /// An empty text.
    Empty(String),
    /// Two entries of one name, of one `iss`, or both without.
    Twice(String, String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAlgorithm(name) => write!(f, "issuer {name:?} has no algorithm"),
            Self::Families(name, one, other) => {
                write!(f, "issuer {name:?} has {one} and {other}: algorithms of one issuer must be of one family")
            }
            Self::Leeway(name) => write!(f, "issuer {name:?} has a leeway over {} s", MAX_LEEWAY.as_secs()),
            Self::Empty(name) => write!(f, "issuer {name:?} has an empty text"),
            Self::Twice(one, other) => write!(f, "issuers {one:?} and {other:?} cannot be told from each other"),
        }
    }
}

impl std::error::Error for Mistake {}

/// All who are believed.
#[derive(Clone, Debug)]
pub struct Issuers(Vec<Trusted>);

impl Issuers {
    /// They must be told from each other by `iss` alone.
    pub fn new(entries: Vec<Trusted>) -> Result<Self, Mistake> {
        for (at, entry) in entries.iter().enumerate() {
            entry.issuer.check()?;
            let is_like =
                |other: &&Trusted| other.issuer.iss == entry.issuer.iss || other.issuer.name == entry.issuer.name;
            if let Some(other) = entries[..at].iter().find(is_like) {
                return Err(Mistake::Twice(other.issuer.name.to_string(), entry.issuer.name.to_string()));
            }
        }
        Ok(Self(entries))
    }

    /// The entries, in their order.
    pub fn entries(&self) -> &[Trusted] {
        &self.0
    }

    /// Whose a token with this `iss` is: its own entry's, or the one that has no `iss`.
    pub(crate) fn of(&self, iss: Option<&str>) -> Option<(usize, &Trusted)> {
        let entry = |wanted: Option<&str>| self.0.iter().position(|entry| entry.issuer.iss.as_deref() == wanted);
        let at = iss.and_then(|iss| entry(Some(iss))).or_else(|| entry(None))?;
        Some((at, &self.0[at]))
    }
}
