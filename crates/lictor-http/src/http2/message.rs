//! Heads and trailers, put together from their fields (RFC 9113, section 8.3).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::hpack::{Field, Malformed};
use crate::buffers;
use crate::digits::length;
use crate::fields::{FIELDS_MAX, Fields, KEEP_ALIVE, PROXY_CONNECTION, is_protocol};
use crate::framing::{Length, told};
use crate::target;

/// SETTINGS_MAX_HEADER_LIST_SIZE: a list that counts for more is refused (RFC 9113, section 6.5.2).
pub(super) const LIST_MAX: usize = 64 << 10;
/// Fields of HTTP/1.1's connections (section 8.2.2).
const CONNECTIONS: [HeaderName; 5] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// What an extended CONNECT asks for (RFC 8441, section 4). It is among the extensions of such a request.
#[derive(Clone, Debug)]
pub struct Protocol(pub HeaderValue);

impl Protocol {
    fn new(protocol: Bytes) -> Result<Self, Malformed> {
        let protocol = Some(protocol).filter(|protocol| is_protocol(protocol));
        let protocol = protocol.and_then(|protocol| HeaderValue::from_maybe_shared(protocol).ok());
        protocol.map(Self).ok_or(Malformed("the :protocol is not one"))
    }
}

/// A field list, so far.
#[derive(Debug)]
pub(super) struct Message {
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    /// Crumbs of a cookie are one field (section 8.2.3).
    fields: usize,
    size: usize,
    malformed: Option<Malformed>,
}

impl Message {
    pub(super) fn new() -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: None,
            headers: buffers::take_fields(),
            fields: 0,
            size: 0,
            malformed: None,
        }
    }

    /// Takes the next field. What is beyond the limit is only counted.
    pub(super) fn take(&mut self, field: Result<Field, Malformed>, size: usize) {
        self.size = self.size.saturating_add(size);
        if self.too_large().is_some() || self.malformed.is_some() {
            return;
        }
        self.malformed = field.and_then(|field| self.add(field)).err();
    }

    /// As its fields are counted.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Why it is refused for its size, if it is.
    pub(super) fn too_large(&self) -> Option<&'static str> {
        if self.size > LIST_MAX {
            Some("the head is longer than 64 KiB")
        } else {
            (self.fields > FIELDS_MAX).then_some("there are more than 100 fields")
        }
    }

    fn add(&mut self, field: Field) -> Result<(), Malformed> {
        let (name, value) = match field {
            Field::Regular(name, value) => (name, value),
            _ if !self.headers.is_empty() => return Err(Malformed("a pseudo-field after a field")),
            Field::Method(method) => return once(&mut self.method, method),
            Field::Scheme(scheme) => return once(&mut self.scheme, scheme),
            Field::Authority(authority) => return once(&mut self.authority, authority),
            Field::Path(path) => return once(&mut self.path, path),
            Field::Protocol(protocol) => return once(&mut self.protocol, protocol),
            Field::Status(status) => return once(&mut self.status, status),
        };
        if CONNECTIONS.contains(&name) || (name == TE && value != "trailers") {
            return Err(Malformed("a field that belongs to HTTP/1.1's connections"));
        }
        let is_crumb = name == COOKIE;
        let is_further = self.headers.append(name, value);
        self.fields += usize::from(!(is_crumb && is_further));
        Ok(())
    }

    pub(super) fn into_request(self) -> Result<Request<()>, Malformed> {
        self.malformed.map_or(Ok(()), Err)?;
        if self.status.is_some() {
            return Err(Malformed("a request with :status"));
        }
        let method = self.method.ok_or(Malformed("a request without :method"))?;
        let (uri, raw) = if method == Method::CONNECT && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() {
                return Err(Malformed("CONNECT with :scheme or :path"));
            }
            (Uri::from(authority(self.authority.ok_or(Malformed("CONNECT without :authority"))?)?), None)
        } else {
            if self.protocol.is_some() && method != Method::CONNECT {
                return Err(Malformed(":protocol without CONNECT"));
            }
            let scheme = self.scheme.ok_or(Malformed("a request without :scheme"))?;
            uri(&scheme, self.authority, self.path.ok_or(Malformed("a request without :path"))?)?
        };
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol::new(protocol)?);
        }
        if let Some(raw) = raw {
            request.extensions_mut().insert(raw);
        }
        Ok(request)
    }

    /// With what its fields say of how long it is.
    pub(super) fn into_response(mut self) -> Result<(Response<()>, Length), Malformed> {
        self.malformed.map_or(Ok(()), Err)?;
        if self.has_request() {
            return Err(Malformed("a request's pseudo-field in an answer"));
        }
        let fields = Fields::of::<()>(&self.headers);
        let told = told(&mut self.headers, fields, Version::HTTP_2).map_err(Malformed)?;
        let mut response = Response::new(());
        *response.status_mut() = self.status.ok_or(Malformed("an answer without :status"))?;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.headers;
        Ok((response, told))
    }

    pub(super) fn into_trailers(self) -> Result<HeaderMap, Malformed> {
        self.malformed.map_or(Ok(()), Err)?;
        if self.has_request() || self.status.is_some() {
            return Err(Malformed("a pseudo-field in trailers"));
        }
        Ok(self.headers)
    }

    fn has_request(&self) -> bool {
        let texts = [&self.scheme, &self.authority, &self.path, &self.protocol];
        self.method.is_some() || texts.iter().any(|text| text.is_some())
    }
}

/// How long a request says that its content is (section 8.1.1).
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = length(first.as_bytes());
    if lengths.next().is_some() || length.is_none() {
        return Err(Malformed("a content-length that is not one"));
    }
    Ok(length)
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("a pseudo-field twice")),
    }
}

fn authority(authority: Bytes) -> Result<Authority, Malformed> {
    if authority.contains(&b'@') {
        return Err(Malformed("the :authority names a user")); // section 8.3.1
    }
    Authority::from_maybe_shared(authority).map_err(|_| Malformed("the :authority is not one"))
}

fn uri(scheme: &[u8], authority: Option<Bytes>, path: Bytes) -> Result<(Uri, Option<target::Raw>), Malformed> {
    let scheme = match scheme {
        b"http" => Scheme::HTTP,
        b"https" => Scheme::HTTPS,
        other => Scheme::try_from(other).map_err(|_| Malformed("the :scheme is not one"))?,
    };
    if path.first() != Some(&b'/') && path != "*" {
        return Err(Malformed("a :path that does not start with /"));
    }
    let (path, raw) = target::path(path).ok_or(Malformed("the :path is not one"))?;
    let mut parts = Parts::default();
    if let Some(text) = authority.filter(|text| !text.is_empty()) {
        (parts.scheme, parts.authority) = (Some(scheme), Some(self::authority(text)?));
    }
    parts.path_and_query = Some(path);
    Ok((Uri::from_parts(parts).map_err(|_| Malformed("the target is not a URI"))?, raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: usize, crumbs: usize) -> Message {
        let mut message = Message::new();
        let regular = |name: &str| Field::Regular(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
        for number in 0..fields {
            message.take(Ok(regular(&format!("x-{number}"))), 36);
        }
        (0..crumbs).for_each(|_| message.take(Ok(regular("cookie")), 40));
        message
    }

    #[test]
    fn a_hundred_fields_are_taken_as_in_http1_and_crumbs_are_one() {
        assert_eq!(message(100, 0).too_large(), None);
        assert_eq!(message(101, 0).too_large(), Some("there are more than 100 fields"));
        assert_eq!(message(99, 200).too_large(), None);
        assert_eq!(message(100, 2).too_large(), Some("there are more than 100 fields"));
        assert_eq!(message(0, 2_000).too_large(), Some("the head is longer than 64 KiB"));
    }
}
