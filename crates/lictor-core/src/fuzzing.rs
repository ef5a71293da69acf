//! The laws that fuzzing tries to break: each function takes any bytes, and panics when one does not hold. `fuzz/` runs
//! them on new inputs, and the tests here on those that are kept in `fuzz/corpus`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::caching::{Keeper, laws};
use crate::gateway;
use crate::route::{Route, Routes};
use crate::trace::{B3, TraceContext, TraceSettings};

/// Fields that say where a request stands in its trace.
const FIELDS: [&str; 11] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-trace-id",
    "x-span-id",
    "x-parent-id",
];

/// A `traceparent` is understood when it is one by W3C's grammar and not otherwise; whatever came, what goes on is one,
/// stands in place of what the caller sent, and is understood as the same trace. The first byte chooses the settings,
/// each line is a field: its first byte the name, the others the value.
pub fn traceparent(bytes: &[u8]) {
    let Some((choice, lines)) = bytes.split_first() else { return };
    let settings = settings(*choice);
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        let name = FIELDS[usize::from(*name) % FIELDS.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let mut numbers = 1_u64..;
    let mut random = || numbers.next().unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let context = TraceContext::extract(&headers, true, &settings, &mut random);
    assert!(context.trace_id != 0 && context.span_id != 0, "an id of zeros: {context:?}");

    let mut told = headers.get_all("traceparent").into_iter();
    let (first, second) = (told.next(), told.next());
    let expected = first.filter(|_| second.is_none()).and_then(|value| by_grammar(value.to_str().ok()?));
    if let Some((trace_id, span_id, flags)) = expected {
        assert_eq!(context.trace_id, trace_id);
        assert_eq!(if settings.export { context.parent } else { Some(context.span_id) }, Some(span_id));
        assert!(!settings.parent_based || context.is_sampled == (flags & 1 == 1), "the caller's decision is kept");
    } else if settings.b3 == B3::Off && !settings.legacy {
        assert_eq!(context.parent, None, "a traceparent that is none was understood");
    }

    for context in [context, context.attempt(1), context.attempt(2)] {
        let mut sent = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| !context.replaces(name.as_str(), &settings)) {
            sent.append(name, value.clone());
        }
        context.fields(&settings, |name, value| {
            assert!(context.replaces(name.as_str(), &settings), "{name} would go on twice");
            sent.append(name, HeaderValue::from_bytes(value).expect("made of digits"));
        });
        if !settings.w3c {
            continue;
        }
        assert_eq!(sent.get_all("traceparent").iter().count(), 1);
        let text = sent["traceparent"].to_str().unwrap_or_default();
        let flags = u8::from(context.is_sampled);
        let (trace_id, span_id, sent_flags) = by_grammar(text).expect("what goes on is a traceparent");
        assert_eq!((trace_id, span_id, sent_flags & 1), (context.trace_id, context.span_id, flags));
        let further = TraceContext::extract(
            &sent,
            true,
            &TraceSettings { export: true, parent_based: true, ..settings.clone() },
            &mut random,
        );
        let understood = (further.trace_id, further.parent, further.is_sampled);
        assert_eq!(understood, (context.trace_id, Some(context.span_id), context.is_sampled));
    }
}

/// Whatever an answer, the requests before and after it and a 304 say: what is given again may be
/// ([`laws`](crate::caching::laws)). The first five bytes choose the status and times; each line after them is a field: its
/// first byte the head and the name, the others the value.
pub fn caching(bytes: &[u8]) {
    const STATUSES: [u16; 8] = [200, 204, 206, 301, 304, 404, 503, 599];
    let Some(([status, ttl, stale, delay, later], lines)) = bytes.split_first_chunk() else { return };
    let mut heads: [HeaderMap; 4] = Default::default();
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some((name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            let name = HeaderName::from_static(laws::NAMES[usize::from(name & 15)]);
            heads[usize::from(line[0] >> 4 & 3)].append(name, value);
        }
    }
    let [first, answer, second, told] = heads;
    let seconds = |byte: &u8| Duration::from_secs(u64::from(*byte));
    laws::hold(&laws::Case {
        first,
        answer,
        second,
        told,
        status: StatusCode::from_u16(STATUSES[usize::from(status & 7)]).unwrap_or_default(),
        keeper: Keeper { ttl: seconds(ttl), stale: (*stale > 0).then(|| seconds(stale)) },
        seconds: (u64::from(delay & 3), u64::from(*later)),
        date: SystemTime::UNIX_EPOCH + Duration::from_secs(1_604_232_000),
    });
}

fn settings(choice: u8) -> TraceSettings {
    let is = |bit: u8| choice >> bit & 1 == 1;
    TraceSettings {
        w3c: !is(0),
        b3: [B3::Off, B3::Echoed, B3::Single, B3::Multiple][usize::from(choice >> 1 & 3)],
        legacy: is(3),
        sample: [0.0, 0.5, 1.0][usize::from(choice >> 4 & 3) % 3],
        parent_based: is(6),
        export: is(7),
        infer_parent: false, // heeded by those who know what is served
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, and more after it in later versions (W3C Trace Context, 3.2).
fn by_grammar(text: &str) -> Option<(u128, u64, u8)> {
    let text = text.trim_matches([' ', '\t']);
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace_id, parent_id, flags, more @ ..] = &parts[..] else { return None };
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !is_hex(version, 2) || !is_hex(trace_id, 32) || !is_hex(parent_id, 16) || !is_hex(flags, 2) {
        return None;
    }
    if *version == "ff" || (*version == "00" && !more.is_empty()) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
    let parent_id = u64::from_str_radix(parent_id, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, parent_id, u8::from_str_radix(flags, 16).ok()?))
}

/// A pattern matches what a naive reading of it says, and a pattern that was read is read again from its label. Lines:
/// the route, the request's method, its path.
pub fn route(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let (Some(text), Some(method), Some(path)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Ok(route) = Route::parse(text, Arc::default(), None) else { return };
    let label = Arc::clone(&route.label);
    assert!(label.starts_with('/') && !label.contains(['?', '#', ' ']), "{label}");
    let again = Route::parse(&label, Arc::default(), None).expect("a label is a pattern");
    assert_eq!(again.label, label);

    let expected =
        |wanted: Option<&Method>| wanted.is_none_or(|wanted| *wanted == method) && fits(&label[1..], inner(path));
    let (with_method, without) = (expected(route.method()), expected(None));
    assert_eq!(Routes::new(vec![route]).position(&method, path).is_some(), with_method, "{text:?} {method} {path:?}");
    assert_eq!(Routes::new(vec![again]).position(&method, path).is_some(), without, "{text:?} {method} {path:?}");
}

/// A path and a host have one reading, and the table finds what a scan finds ([`laws`](crate::gateway::laws)). The first line is the
/// request's method, host and target; each after it is a route.
pub fn gateway(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (request, routes) = text.split_once('\n').unwrap_or((&text, ""));
    let mut words = request.splitn(3, ' ');
    let (Some(method), Some(host), Some(target)) = (words.next(), words.next(), words.next()) else { return };
    gateway::laws::read_path(target);
    gateway::laws::read_host(host);
    let pattern = routes.split([' ', '\n']).find(|word| word.starts_with('/')).unwrap_or("/*");
    gateway::laws::read_odd(target.split('?').next().unwrap_or_default(), pattern);
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    gateway::laws::find(routes, &method, host, target);
}

/// A header template is filled once ([`laws`](crate::gateway::laws)). The first line is the template; each after it fills a place.
pub fn header_template(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(Ok(text)) = lines.next().map(str::from_utf8) else { return };
    gateway::laws::header_template(text, &lines.take(128).collect::<Vec<_>>());
}

fn inner(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// Segment by segment; `*` is the rest, which may be nothing.
fn fits(pattern: &str, path: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let cut = |text: &'_ str| {
        text.split_once('/').map_or((text.to_owned(), None), |(one, rest)| (one.to_owned(), Some(rest.to_owned())))
    };
    let ((wanted, patterns), (segment, segments)) = (cut(pattern), cut(path));
    let is_fit = if wanted.starts_with('{') { !segment.is_empty() } else { wanted == segment };
    is_fit
        && match (patterns.as_deref(), segments.as_deref()) {
            (None, None) | (Some("*"), _) => true,
            (Some(patterns), Some(segments)) => fits(patterns, segments),
            _ => false,
        }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

/// Whose request it is: each line is a field, `f` of `Forwarded` and anything else of `X-Forwarded-For`.
pub fn client(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        let name = if *name == b'f' { "forwarded" } else { "x-forwarded-for" };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    gateway::client::law(&headers);
}

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn every_kept_input_keeps_the_laws() {
        replay("caching", caching);
        replay("traceparent", traceparent);
        replay("route", route);
        replay("gateway", gateway);
        replay("client", client);
        replay("header_template", header_template);
    }
}
