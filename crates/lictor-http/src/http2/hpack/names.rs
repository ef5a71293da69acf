//! What a field is, and why one may not be; lists of them are [`message`](super::super::message)'s.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

/// A field, or a pseudo-field (RFC 9113, section 8.3).
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http2) enum Field {
    Method(Method),
    Scheme(Bytes),
    Authority(Bytes),
    Path(Bytes),
    /// RFC 8441, section 4.
    Protocol(Bytes),
    Status(StatusCode),
    Regular(HeaderName, HeaderValue),
}

/// Why a field may not be (RFC 9113, section 8.2.1). It does not disturb the decoding of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Malformed(pub(in crate::http2) &'static str);

/// The block cannot be decoded, and no later one can (RFC 7541, section 2.3.3 and others): COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Undecodable(pub(in crate::http2) &'static str);

/// A name, as far as it is one.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Regular(HeaderName),
    Invalid(Malformed),
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":status" => Self::Status,
            [b':', ..] => Self::Invalid(Malformed("a pseudo-field that is not known")),
            name => HeaderName::from_lowercase(name)
                .map_or(Self::Invalid(Malformed("a field's name is not a token in lower case")), Self::Regular),
        }
    }

    pub(super) fn with(&self, value: Bytes, is_sensitive: bool) -> Result<Field, Malformed> {
        Ok(match self {
            Self::Method => {
                Field::Method(Method::from_bytes(&value).map_err(|_| Malformed("the method is not a token"))?)
            }
            Self::Scheme => Field::Scheme(value),
            Self::Authority => Field::Authority(value),
            Self::Path => Field::Path(value),
            Self::Protocol => Field::Protocol(value),
            Self::Status => {
                Field::Status(StatusCode::from_bytes(&value).map_err(|_| Malformed("the status is not one"))?)
            }
            Self::Regular(name) => {
                let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
                if is_space(value.first()) || is_space(value.last()) {
                    return Err(Malformed("there is space around a field's value"));
                }
                let mut value = HeaderValue::from_maybe_shared(value)
                    .map_err(|_| Malformed("a field's value has a control character"))?;
                value.set_sensitive(is_sensitive);
                Field::Regular(name.clone(), value)
            }
            Self::Invalid(malformed) => return Err(*malformed),
        })
    }
}
