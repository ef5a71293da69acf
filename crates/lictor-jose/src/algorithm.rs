//! The algorithms of a signature (RFC 7518, section 3.1; RFC 8037; RFC 9864), and which of them may stand beside one another.
//!
//! ES512 is left out: it needs P-521, which ring does not have. ES256K, Ed448 and the post-quantum ones neither.

use std::fmt;

use jsonwebtoken::Algorithm as Library;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are called as RFC 7518 calls them")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    /// RFC 8037 calls it `EdDSA`, RFC 9864 `Ed25519`: both are read, and are one.
    Ed25519,
}

/// One kind of key. An issuer's algorithms are of one, so that no key can be taken for one of another kind (RFC 8725, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A shared secret.
    Hmac,
    /// RSA, with either padding.
    Rsa,
    /// A point on a NIST curve.
    Ec,
    /// Ed25519.
    Ed,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::Ed25519,
    ];

    /// As `alg` has it, to the letter (RFC 7515, section 4.1.1: it is case-sensitive).
    pub fn parse(name: &str) -> Option<Self> {
        if name == "EdDSA" {
            return Some(Self::Ed25519);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Whose keys it is for.
    pub fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Family::Rsa,
            Self::ES256 | Self::ES384 => Family::Ec,
            Self::Ed25519 => Family::Ed,
        }
    }

    /// The least length of a shared secret, in bytes: that of its hash (RFC 7518, section 3.2).
    pub(crate) fn secret_len(self) -> usize {
        match self {
            Self::HS256 => 32,
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 0,
        }
    }

    pub(crate) fn library(self) -> Library {
        match self {
            Self::HS256 => Library::HS256,
            Self::HS384 => Library::HS384,
            Self::HS512 => Library::HS512,
            Self::RS256 => Library::RS256,
            Self::RS384 => Library::RS384,
            Self::RS512 => Library::RS512,
            Self::PS256 => Library::PS256,
            Self::PS384 => Library::PS384,
            Self::PS512 => Library::PS512,
            Self::ES256 => Library::ES256,
            Self::ES384 => Library::ES384,
            Self::Ed25519 => Library::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Family {
    /// All algorithms of its keys.
    pub fn algorithms(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |algorithm| algorithm.family() == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_to_the_letter() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
            assert_eq!(Algorithm::parse(&algorithm.name().to_lowercase()), None);
            assert_eq!(Algorithm::parse(&format!(" {algorithm}")), None);
        }
        assert_eq!(Algorithm::parse("EdDSA"), Some(Algorithm::Ed25519));
        for other in
            ["", "none", "None", "ES512", "ES256K", "Ed448", "ML-DSA-44", "RSA-OAEP", "dir", "HS1", "RS1", "eddsa"]
        {
            assert_eq!(Algorithm::parse(other), None, "{other}");
        }
    }
}
