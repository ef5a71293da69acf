//! Why a request is not let in: a closed list of words. The client is told one fixed sentence a kind; what exactly was wrong is for the log.
//!
//! RFC 6750, section 3.1 has the codes `invalid_request`, `invalid_token` and `insufficient_scope`; an answer that told which check
//! failed, or what it had looked at, would help whoever tries (CVE-2022-29266 told the secret).

use std::fmt;

/// What the client is told, and by which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no token: 401 and a challenge without an error code (RFC 6750, section 3.1).
    Missing,
    /// More than one credential, or none that can be read: 400 `invalid_request`.
    InvalidRequest,
    /// A token that is not believed: 401 `invalid_token`.
    InvalidToken,
    /// A token that is believed, and may not do this: 403 `insufficient_scope`.
    InsufficientScope,
    /// It cannot be found out, because there are no keys to find it out by: 503 `auth_unavailable`.
    Unavailable,
}

impl Kind {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Missing | Self::InvalidToken => 401,
            Self::InsufficientScope => 403,
            Self::Unavailable => 503,
        }
    }

    /// The code of the answer: RFC 6750's, where it has one.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "unauthorized",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::Unavailable => "auth_unavailable",
        }
    }

    /// The sentence of the answer; it never depends on the token.
    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "Authentication required",
            Self::InvalidRequest => "The request must carry exactly one well-formed credential",
            Self::InvalidToken => "Invalid authentication token",
            Self::InsufficientScope => "The token does not grant access to this resource",
            Self::Unavailable => "Authentication is temporarily unavailable",
        }
    }

    /// What `WWW-Authenticate` says (RFC 6750, section 3): none with 503. `realm` is ours; what a quoted string may not hold is left out of it.
    pub fn challenge(self, realm: &str) -> Option<String> {
        let realm: String = realm.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
        match self {
            Self::Unavailable => None,
            Self::Missing => Some(format!("Bearer realm=\"{realm}\"")),
            Self::InvalidRequest | Self::InvalidToken | Self::InsufficientScope => {
                Some(format!("Bearer realm=\"{realm}\", error=\"{}\"", self.code()))
            }
        }
    }
}

macro_rules! whys {
    ($($(#[$doc:meta])* $name:ident, $word:literal, $kind:ident;)*) => {
        /// What was wrong, one word each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Why { $($(#[$doc])* $name,)* }

        impl Why {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the log and metrics have it.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What the client is told.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

whys! {
    /// No source has a token.
    Missing, "missing", Missing;
    /// Two fields, a list in one, or two sources (RFC 6750, section 2).
    SeveralCredentials, "several_credentials", InvalidRequest;
    /// Not `scheme SP token68` (RFC 9110, section 11.4), or characters that no token has.
    MalformedCredential, "malformed_credential", InvalidRequest;
    /// Longer than [`crate::MAX_TOKEN`].
    TooLong, "too_long", InvalidToken;
    /// Not three parts (RFC 7515, section 7.1).
    NotCompact, "not_compact", InvalidToken;
    /// Five parts or `enc`: encrypted (RFC 7516), which is not built.
    Encrypted, "encrypted", InvalidToken;
    /// Not base64url without padding, or bits that say nothing (RFC 7515, section 2; RFC 4648, section 3.5).
    Base64, "base64", InvalidToken;
    /// The header or the payload is no JSON object.
    Json, "json", InvalidToken;
    /// A member twice, at any depth (RFC 7515, section 4; RFC 7519, section 4).
    Duplicate, "duplicate_member", InvalidToken;
    /// Deeper than [`crate::MAX_DEPTH`].
    TooDeep, "too_deep", InvalidToken;
    /// More than [`crate::MAX_MEMBERS`] members in all.
    TooManyMembers, "too_many_members", InvalidToken;
    /// A parameter of the header that must be text is not, or `alg` is not there.
    Header, "header", InvalidToken;
    /// `crit` (RFC 7515, section 4.1.11): no extension is built, so that every one of them is unknown.
    Critical, "crit", InvalidToken;
    /// `b64` (RFC 7797).
    Unencoded, "b64", InvalidToken;
    /// `zip`: compressed.
    Compressed, "zip", InvalidToken;
    /// `cty: JWT`: a token in a token (RFC 7519, section 5.2).
    Nested, "nested", InvalidToken;
    /// `alg: none`, in any case (RFC 7518, section 3.6).
    Unsigned, "alg_none", InvalidToken;
    /// An algorithm that is unknown, not this issuer's, or not the key's (RFC 8725, sections 3.1 and 3.2).
    Algorithm, "alg", InvalidToken;
    /// Not the `typ` that was asked for (RFC 8725, section 3.11).
    Type, "typ", InvalidToken;
    /// `iss` is not text, or nobody's.
    Issuer, "issuer", InvalidToken;
    /// `kid` is too long to be anybody's.
    KeyId, "kid", InvalidToken;
    /// No key has this `kid`: one may have come since the keys were fetched.
    UnknownKey, "unknown_key", InvalidToken;
    /// No `kid`, and more than one key fits.
    AmbiguousKey, "ambiguous_key", InvalidToken;
    /// The signature is not the key's.
    Signature, "signature", InvalidToken;
    /// There are no keys, or they are too old.
    NoKeys, "no_keys", Unavailable;
    /// A claim that must be there is not.
    MissingClaim, "missing_claim", InvalidToken;
    /// A claim of another JSON type than RFC 7519, section 4.1 gives it.
    ClaimType, "claim_type", InvalidToken;
    /// `exp` is over.
    Expired, "expired", InvalidToken;
    /// `nbf` is yet to come.
    NotYetValid, "not_yet_valid", InvalidToken;
    /// `aud` names none of ours.
    Audience, "audience", InvalidToken;
    /// An issuer or an audience that this route does not take.
    NotForRoute, "not_for_route", InvalidToken;
    /// A scope is missing.
    Scope, "scope", InsufficientScope;
    /// None of the roles.
    Role, "role", InsufficientScope;
    /// Another rule about a claim.
    ClaimRule, "claim", InsufficientScope;
}

/// A request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was wrong.
    pub why: Why,
    /// More of it, for the log alone: names of ours and of claims, never a value that the token has.
    pub detail: Box<str>,
    /// Which of the issuers it was judged by, by its place: whose keys to fetch for [`Why::UnknownKey`].
    pub issuer: Option<usize>,
}

impl Refusal {
    pub(crate) fn new(why: Why, detail: impl Into<Box<str>>) -> Self {
        Self { why, detail: detail.into(), issuer: None }
    }

    pub(crate) fn of(self, issuer: usize) -> Self {
        Self { issuer: Some(issuer), ..self }
    }

    /// What the client is told.
    pub fn kind(&self) -> Kind {
        self.why.kind()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why.word(), self.detail)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_client_is_told_the_kind_and_nothing_else() {
        let table = [
            (Kind::Missing, 401, Some("Bearer realm=\"a b\"")),
            (Kind::InvalidRequest, 400, Some("Bearer realm=\"a b\", error=\"invalid_request\"")),
            (Kind::InvalidToken, 401, Some("Bearer realm=\"a b\", error=\"invalid_token\"")),
            (Kind::InsufficientScope, 403, Some("Bearer realm=\"a b\", error=\"insufficient_scope\"")),
            (Kind::Unavailable, 503, None),
        ];
        for (kind, status, challenge) in table {
            assert_eq!(kind.status(), status, "{kind:?}");
            assert_eq!(kind.challenge("a\" \\b\r\n").as_deref(), challenge, "{kind:?}");
        }
    }

    #[test]
    fn each_word_is_one_reasons() {
        let words: HashSet<_> = Why::ALL.iter().map(|why| why.word()).collect();
        assert_eq!(words.len(), Why::ALL.len());
        let unavailable: Vec<_> = Why::ALL.iter().filter(|why| why.kind() == Kind::Unavailable).collect();
        assert_eq!(unavailable, [&Why::NoKeys], "no other broken part looks like a broken token");
    }
}
