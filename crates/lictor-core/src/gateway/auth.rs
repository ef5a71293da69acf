//! Who the requests of a gateway are from: how a client may show it, which is the gateway's, and what a route asks of it.

use std::sync::Arc;

use http::HeaderName;
use lictor_jose::forward::Spelling;
use lictor_jose::rules::{Claim, Rules};
use lictor_jose::source::Sources;
use lictor_jose::{Keyring, Verified};

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
}

/// Two are equal when nobody could tell them apart: they are of one gateway.
impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        let Self { methods, mode, by, rules, fields } = self;
        Arc::ptr_eq(methods, &other.methods)
            && *mode == other.mode
            && *by == other.by
            && *rules == other.rules
            && *fields == other.fields
    }
}

impl Auth {
    /// Whether somebody may show in this way who he is.
    pub fn takes(&self, how: How) -> bool {
        self.methods.has(how) && (self.by.is_empty() || self.by.contains(&how))
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
