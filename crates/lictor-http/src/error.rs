//! What is wrong with what came.

use std::error::Error;
use std::fmt;

use http::StatusCode;

/// Why a head is refused: the status for a client, and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// 400, 408, 414, 431 or 505.
    pub status: StatusCode,
    /// What is wrong, as a part of a sentence.
    pub why: &'static str,
}

impl Refused {
    pub(crate) const fn bad(why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why }
    }
}

/// Why a body has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The connection ended within it.
    Cut,
    /// It is not what its head says.
    Malformed(&'static str),
    /// It is longer than whoever reads it takes.
    TooLong,
    /// Another attempt sends it now, or nobody does any more.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the connection ended within the body"),
            Self::Malformed(why) => write!(f, "the body is malformed: {why}"),
            Self::TooLong => f.write_str("the body is longer than is taken"),
            Self::Superseded => f.write_str("the body is not sent any more"),
        }
    }
}

impl Error for BodyError {}
