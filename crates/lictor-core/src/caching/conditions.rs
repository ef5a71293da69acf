//! Validators and conditions (RFC 9111, section 4.3; RFC 9110, sections 8.8 and 13).

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::dates::Date;

/// What asks whether the answer with this head is still good. A validator that is there twice is none.
pub(super) fn of(headers: &HeaderMap) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let validators = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
    validators.into_iter().filter_map(|(validator, condition)| Some((condition, single(headers, &validator)?.clone())))
}

/// Whether a 304 is about the answer with this head (section 4.3.4): its strong entity tag is the same, or else what it
/// has of weak ones. One without any can only be about what was asked for, by the conditions of this one answer.
pub(super) fn confirms(kept: &HeaderMap, told: &HeaderMap) -> bool {
    if told.contains_key(ETAG) {
        return match (single(told, &ETAG), single(kept, &ETAG)) {
            (Some(told), Some(kept)) if is_weak(told) => opaque(told) == opaque(kept),
            (Some(told), Some(kept)) => told == kept,
            _ => false,
        };
    }
    let modified = |headers| Date::of(headers, &LAST_MODIFIED);
    modified(told) == Date::Absent || (modified(told).known().is_some() && modified(told) == modified(kept))
}

/// Whether a request's conditions, where it has any, mean that the client has the answer with this head (RFC 9110,
/// sections 13.1.2 and 13.1.3). An answer that does not say when it was modified was so by its date.
pub(super) fn are_met(kept: &HeaderMap, request: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = single(kept, &ETAG);
        return request.get_all(IF_NONE_MATCH).iter().any(|line| {
            let line = line.as_bytes().trim_ascii();
            line == b"*" || tag.is_some_and(|tag| tags(line).any(|asked| asked == opaque(tag)))
        });
    }
    let Some(since) = Date::of(request, &IF_MODIFIED_SINCE).known() else { return false };
    let modified = match Date::of(kept, &LAST_MODIFIED) {
        Date::Absent => Date::of(kept, &DATE),
        modified => modified,
    };
    modified.known().is_some_and(|modified| modified <= since)
}

/// What a 304 tells of the answer (RFC 9110, section 15.4.5).
pub(super) fn not_modified(headers: &HeaderMap) -> HeaderMap {
    const TOLD: [HeaderName; 7] = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY];
    headers.iter().filter(|(name, _)| TOLD.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether two heads of the same resource are of different answers.
pub(super) fn differ(kept: &HeaderMap, told: &HeaderMap) -> bool {
    [ETAG, LAST_MODIFIED, CONTENT_LENGTH].iter().any(|name| {
        let both = told.get(name).zip(kept.get(name));
        both.is_some_and(|(told, kept)| told != kept)
    })
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next().filter(|value| !value.is_empty())?;
    lines.next().is_none().then_some(first)
}

fn is_weak(tag: &HeaderValue) -> bool {
    tag.as_bytes().starts_with(b"W/")
}

/// A tag without the mark of weakness: what the weak comparison compares (RFC 9110, section 8.8.3.2).
fn opaque(tag: &HeaderValue) -> &[u8] {
    let tag = tag.as_bytes().trim_ascii();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The members of `If-None-Match`, without their marks of weakness. A comma within quotes is the tag's own.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    line.split(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    })
    .map(|tag| tag.trim_ascii().strip_prefix(b"W/").unwrap_or(tag.trim_ascii()))
}
