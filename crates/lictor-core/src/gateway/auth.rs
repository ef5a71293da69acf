//! Who the requests of a gateway are from: how a client may show it, which is the gateway's, and what a route asks of it.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use lictor_jose::forward::Spelling;
use lictor_jose::rules::{Claim, Rules};
use lictor_jose::source::Sources;
use lictor_jose::{Keyring, Kind, Verified};

use crate::outcome::Reason;

use super::asking::Asking;
use super::basic::Users;
use super::keys::ApiKeys;

/// The ways of showing who one is, the same for all routes of a gateway.
#[derive(Debug, Default)]
pub struct Methods {
    /// Tokens that others have signed.
    pub tokens: Option<Tokens>,
    /// Keys that we have given out.
    pub keys: Option<ApiKeys>,
    /// Names and passwords.
    pub users: Option<Users>,
    /// Certificates that a CA of the listener's vouches for.
    pub certificates: bool,
    /// A service that judges what it is shown.
    pub asking: Option<Arc<Asking>>,
}

impl Methods {
    /// Fields that go on as a service has said them.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.asking.iter().flat_map(|asking| &asking.headers_in)
    }

    /// Whether there is this way.
    pub fn has(&self, how: How) -> bool {
        match how {
            How::Token => self.tokens.is_some(),
            How::Key => self.keys.is_some(),
            How::Password => self.users.is_some(),
            How::Certificate => self.certificates,
            How::Service => self.asking.is_some(),
        }
    }
}

/// Signed tokens.
#[derive(Debug)]
pub struct Tokens {
    /// Who is believed, and by which keys.
    pub keyring: Arc<Keyring>,
    /// Where a request may have one.
    pub sources: Sources,
}

/// Whether a request must show who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody looks.
    None,
    /// It may; what is shown must be good.
    Optional,
    /// It must.
    Required,
}

/// What a route asks.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The gateway's.
    pub methods: Arc<Methods>,
    /// Whether anything is asked.
    pub mode: Mode,
    /// Which of the ways are taken here; none: all that there are.
    pub by: Vec<How>,
    /// What somebody who has shown who he is must be.
    pub rules: Rules,
    /// What those behind us are told of him.
    pub fields: Vec<ClaimField>,
    /// A stream ends when what it was opened by does.
    pub ends_streams: bool,
}

/// Two are equal when nobody could tell them apart: they are of one gateway.
impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        let Self { methods, mode, by, rules, fields, ends_streams } = self;
        Arc::ptr_eq(methods, &other.methods)
            && *mode == other.mode
            && *by == other.by
            && *rules == other.rules
            && *fields == other.fields
            && *ends_streams == other.ends_streams
    }
}

impl Auth {
    /// Whether somebody may show in this way who he is.
    pub fn takes(&self, how: How) -> bool {
        self.methods.has(how) && (self.by.is_empty() || self.by.contains(&how))
    }
}

/// `required, roles admin root`: whether anything is asked, and what else of who has shown who he is.
impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::None => return f.write_str("none"),
            Mode::Optional => "optional",
            Mode::Required => "required",
        };
        let Rules { issuers, audiences, scopes, roles, claims, .. } = &self.rules;
        f.write_str(mode)?;
        let claims: Vec<String> = claims.iter().map(|(claim, _)| claim.text().to_owned()).collect();
        let asked =
            [("issuers", issuers), ("audiences", audiences), ("scopes", scopes), ("roles", roles), ("claims", &claims)];
        asked
            .iter()
            .filter(|(_, words)| !words.is_empty())
            .try_for_each(|(name, words)| write!(f, ", {name} {}", words.join(" ")))
    }
}

/// A claim that those behind us see.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimField {
    /// In this field, which nobody else sets.
    pub name: HeaderName,
    /// This one.
    pub claim: Claim,
    /// Written so.
    pub spelling: Spelling,
}

/// The word for a refusal of this kind.
pub fn reason(kind: Kind) -> Reason {
    match kind {
        Kind::Missing | Kind::InvalidToken => Reason::Unauthenticated,
        Kind::InvalidRequest => Reason::BadRequest,
        Kind::InsufficientScope => Reason::Forbidden,
        Kind::Unavailable => Reason::AuthUnavailable,
    }
}

/// How somebody has shown who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a signed token.
    Token,
    /// By a key that we have given out.
    Key,
    /// By a name and a password.
    Password,
    /// By the certificate of his connection.
    Certificate,
    /// A service says so.
    Service,
}

impl How {
    /// All of them, with their words in the configuration.
    pub const ALL: [(&str, Self); 5] = [
        ("jwt", Self::Token),
        ("keys", Self::Key),
        ("basic", Self::Password),
        ("certificates", Self::Certificate),
        ("forward", Self::Service),
    ];

    /// As the log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "jwt",
            Self::Key => "keys",
            Self::Password => "basic",
            Self::Certificate => "certificates",
            Self::Service => "forward",
        }
    }
}

/// Who a request is from: facts, on which each route's rules are judged anew.
#[derive(Clone, Debug)]
pub struct Identity {
    /// How that was shown.
    pub how: How,
    /// What is known of him.
    pub known: Verified,
}

impl Identity {
    /// The claim `sub`, if it is text: whom a limit for each user counts.
    pub fn subject(&self) -> Option<&str> {
        self.known.claims.get("sub")?.as_str()
    }
}
