//! What holds of any request and any routes. Each function panics where it does not.

use std::io::Write;

use http::{HeaderMap, Method};

use super::headers::{Side, Value};
use super::host::{self, HostPattern};
use super::path::{self, PathError, segments};
use super::pattern::PathPattern;
use super::rewrite::Rewrite;
use super::table::{Asked, Conditions, Matcher, Table};
use super::when::When;

/// A path that was read is read as itself, has no segment that somebody removes, and is for a server that decodes what the
/// path that came is for it.
pub fn read_path(text: &str) {
    let Ok(read) = path::read(text) else { return };
    let sent = read.as_str();
    assert!(sent.starts_with('/') && sent.is_ascii(), "{text:?} became {sent:?}");
    assert_eq!(
        path::read(sent).map(|again| again.as_str().to_owned()),
        Ok::<_, PathError>(sent.to_owned()),
        "{text:?}"
    );
    assert_eq!(segments(sent).count(), segments(read.folded()).count(), "{text:?}");
    for view in [sent.as_bytes().to_vec(), decoded(sent.as_bytes()), decoded(&decoded(sent.as_bytes()))] {
        let parts: Vec<&[u8]> = view[1..].split(|byte| *byte == b'/').collect();
        let (last, inner) = parts.split_last().expect("a split has a part");
        let removes = |part: &[u8]| matches!(part, b"." | b"..");
        assert!(inner.iter().all(|part| !part.is_empty() && !removes(part)) && !removes(last), "{text:?}: {view:?}");
        assert!(!view.iter().any(|byte| b"\\;?#\0".contains(byte)), "{text:?}: {view:?}");
    }
    assert_eq!(naive(&decoded(text.as_bytes())), decoded(sent.as_bytes()), "{text:?}");
}

/// A host that was read is read as itself.
pub fn read_host(text: &str) {
    let Ok(read) = host::read(text) else { return };
    assert_eq!(host::read(&read).as_deref(), Ok(&*read), "{text:?}");
    assert!(HostPattern::parse(&read).is_ok_and(|pattern| pattern.has(&read)), "{text:?}");
}

/// A value with places is what stands between them and what fills them, which is not read again; it breaks no line, and where
/// there is nothing to fill one with there is none.
pub fn header_template(text: &str, fills: &[&[u8]]) {
    let Ok(value) = Value::parse(text, Side::Request, |name| (name == "id").then_some(0)) else { return };
    let mut left = fills.iter();
    let made = value.made(|_, out| left.next().is_some_and(|fill| out.write_all(fill).is_ok()));
    let (mut expected, mut rest, mut places) = (Vec::new(), text, 0);
    while let Some(sign) = rest.chars().next() {
        let inner = rest.strip_prefix('{').and_then(|after| Some(after.split_once('}')?.0));
        if let Some(inner) = inner.filter(|inner| is_place(inner)) {
            expected.extend_from_slice(fills.get(places).unwrap_or(&&b""[..]));
            places += 1;
            rest = &rest[inner.len() + 2..];
        } else {
            expected.extend_from_slice(&rest.as_bytes()[..sign.len_utf8()]);
            rest = &rest[sign.len_utf8()..];
        }
    }
    let has_all = fills.len() >= places && fills[..places].iter().all(|fill| !fill.is_empty());
    let Some(made) = made else {
        let is_whole = has_all && expected.len() <= 8 << 10 && http::HeaderValue::from_bytes(&expected).is_ok();
        return assert!(!is_whole, "{text:?} with {fills:?} is nothing");
    };
    assert!(has_all && made.as_bytes() == expected, "{text:?} with {fills:?}: {made:?}");
    assert!(!made.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{made:?}");
}

/// `name`, or `name:what`.
fn is_place(inner: &str) -> bool {
    let name = inner.split(':').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.chars().all(|sign| sign == '_' || sign.is_ascii_lowercase());
    is_name && inner != format!("{name}:") && inner.chars().all(|sign| sign.is_ascii_graphic() && sign != '{')
}

/// The table finds what one finds who asks each route in its order, in whatever order they were given.
pub fn find(routes: &str, method: &Method, host: &str, target: &str) {
    let matchers: Vec<Matcher> = routes.lines().take(32).filter_map(matcher).collect();
    let Ok(read) = path::read(target.split('?').next().unwrap_or_default()) else { return };
    let Ok(host) = host::read(host) else { return };
    let headers = HeaderMap::new();
    let query = target.split_once('?').map(|(_, query)| query);
    let asked = Asked { host: &host, path: read.folded(), query, method, headers: &headers };
    let backwards: Vec<Matcher> = matchers.iter().rev().cloned().collect();
    let (table, other) = match (Table::new(matchers.clone()), Table::new(backwards)) {
        (Ok(table), Ok(other)) => (table, other),
        (Err(clash), Err(_)) => return assert!(clash.first < clash.second && clash.second < matchers.len()),
        (one, other) => panic!("the order decides: {one:?} {other:?}"),
    };
    for Matcher { path: pattern, .. } in &matchers {
        let fits = naive_fit(pattern.as_str(), read.folded(), pattern.ignores_case());
        assert_eq!(pattern.matches(read.folded()), fits, "{} {:?}", pattern.as_str(), read.folded());
    }
    let found = table.find(&asked);
    let scanned = table.iter().find(|(_, matcher)| matcher.matches(&asked)).map(|(index, _)| index);
    assert_eq!(found, scanned, "{asked:?}");
    assert_eq!(found, other.find(&asked).map(|index| matchers.len() - 1 - index), "{asked:?}");
    if let Some(index) = found {
        rewrite(&matchers[index].path, &read);
    }
}

/// What routes allow of odd escapes goes on as it came, and is for a server that decodes it what it is for one that does not,
/// but for the segments that it makes; so it stays through a rewrite.
pub fn read_odd(text: &str, pattern: &str) {
    let Ok(read) = path::read_again(text) else { return };
    let sent = read.as_str();
    let again = path::read_again(sent).expect("it was read");
    assert!(again.as_str() == sent && read.odd().allows(again.odd()).is_ok(), "{text:?}");
    assert_eq!(path::read_allowing(text, read.odd()).as_ref(), Ok(&read), "{text:?}");
    assert_eq!(path::read(text).is_ok(), read.odd().is_none(), "{text:?}");
    for view in read.views() {
        let (last, inner) = view[1..].rsplit_once('/').map_or((&view[1..], None), |(inner, last)| (last, Some(inner)));
        let is_one = |part: &str| !matches!(part, "" | "." | "..");
        assert!(view.starts_with('/') && (last.is_empty() || is_one(last)), "{text:?}: {view:?}");
        assert!(inner.is_none_or(|inner| inner.split('/').all(is_one)), "{text:?}: {view:?}");
    }
    if let Ok(pattern) = PathPattern::parse(pattern, false)
        && pattern.matches(read.folded())
    {
        rewrite(&pattern, &read);
    }
}

/// A path that is rewritten is one that is read as itself, has nothing odd that it did not have, and is what a naive reading
/// makes of it.
fn rewrite(pattern: &PathPattern, read: &path::ReadPath<'_>) {
    let first = pattern.as_str().split('/').nth(1).unwrap_or_default();
    let own: Vec<&str> = segments(read.as_str()).collect();
    let end = if read.as_str().ends_with('/') { "/" } else { "" };
    let made = |parts: &[&str], end: &str| match parts {
        [] => "/".to_owned(),
        parts => format!("/{}{end}", parts.join("/")),
    };
    let rest = own.get(segments(pattern.as_str()).count() - usize::from(pattern.takes_rest())..).unwrap_or_default();
    let rewrites = [
        (Rewrite::strip(&format!("/{first}"), pattern), made(own.get(1..).unwrap_or_default(), end)),
        (Rewrite::template("/x/*", pattern), made(&[&["x"], rest].concat(), end)),
        (Rewrite::template("/x", pattern), "/x".to_owned()),
        (Rewrite::template("/", pattern), "/".to_owned()),
    ];
    for (rewrite, expected) in rewrites {
        let Ok(rewrite) = rewrite else { continue };
        let made = rewrite.apply(read).expect("segments of a path that was read make one");
        assert_eq!(made, expected, "{rewrite} of {read:?}");
        let again = path::read_allowing(&made, read.odd()).expect("it is read like one that came");
        assert!(again.as_str() == made && !made.starts_with("//"), "{made:?}");
    }
    let by_name = pattern.names().next().and_then(|name| Rewrite::template(&format!("/{{{name}}}/x"), pattern).ok());
    let Some(rewrite) = by_name else { return };
    let made = rewrite.apply(read).expect("a segment of a path that was read makes one");
    assert!(made.ends_with("/x") && segments(&made).count() == 2, "{made:?}");
    assert!(path::read_allowing(&made, read.odd()).is_ok_and(|again| again.as_str() == made), "{made:?}");
}

/// `~` ignores case, capitals are methods, a path has a slash, the rest is a host.
fn matcher(line: &str) -> Option<Matcher> {
    let (mut host, mut path, mut conditions) = (HostPattern::Any, None, Conditions::default());
    let ignores_case = line.contains('~');
    for word in line.split(' ').filter(|word| !matches!(*word, "" | "~")) {
        match word {
            word if word.starts_with('/') => path = PathPattern::parse(word, ignores_case).ok(),
            word if word.bytes().all(|byte| byte.is_ascii_uppercase()) => conditions.methods.push(word.parse().ok()?),
            word => host = HostPattern::parse(word).ok()?,
        }
    }
    Some(Matcher { host, path: path?, conditions, when: When::default() })
}

/// Segment by segment, all decoded; `*` is the rest, which may be nothing.
fn naive_fit(pattern: &str, path: &str, ignores_case: bool) -> bool {
    let (mut wanted, given): (Vec<&str>, Vec<&str>) = (segments(pattern).collect(), segments(path).collect());
    let takes_rest = wanted.last() == Some(&"*");
    wanted.truncate(wanted.len() - usize::from(takes_rest));
    let is_long_enough = if takes_rest { given.len() >= wanted.len() } else { given.len() == wanted.len() };
    is_long_enough
        && wanted.iter().zip(given).all(|(wanted, given)| {
            let [literal, given] = [*wanted, given].map(|part| decoded(part.as_bytes()));
            let is_same = if ignores_case { literal.eq_ignore_ascii_case(&given) } else { literal == given };
            wanted.starts_with('{') || is_same
        })
}

/// Each escape once, whatever it is of.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| str::from_utf8(digits).ok());
        let is_escape = bytes[at] == b'%' && digits.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| is_escape) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// Merges slashes and resolves dots by a loop over the whole text, as long as that changes something.
fn naive(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    let find = |path: &[u8], part: &[u8]| path.windows(part.len()).position(|window| window == part);
    loop {
        if let Some(at) = find(&path, b"//") {
            path.remove(at);
        } else if let Some(at) = find(&path, b"/./") {
            path.drain(at..at + 2);
        } else if path.ends_with(b"/.") {
            path.pop();
        } else if let Some(at) = find(&path, b"/../").or_else(|| path.ends_with(b"/..").then(|| path.len() - 3)) {
            let parent = path[..at].iter().rposition(|byte| *byte == b'/').unwrap_or(at);
            let end = (at + 3).min(path.len());
            path.drain(parent..end);
            if path.len() == parent {
                path.push(b'/'); // it was the path's end, which is a folder
            }
        } else {
            return path;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of all combinations of what has been misread somewhere.
    #[test]
    fn any_path_of_odd_parts_keeps_the_laws() {
        const PARTS: [&str; 24] = [
            "/", "//", "a", "B", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "\\", ";x", "%3b", "%00", "%25", "%252e",
            "%61", "%40", "@", "%c3%a9", "%c0%ae", "%", "#", "~",
        ];
        for number in 0..PARTS.len().pow(4) {
            let mut rest = number;
            let mut text = String::from("/");
            for _ in 0..4 {
                text.push_str(PARTS[rest % PARTS.len()]);
                rest /= PARTS.len();
            }
            read_path(&text);
            for pattern in ["/*", "/{a}/*", "/a/*", "/{a}/{b}"] {
                read_odd(&text, pattern);
            }
        }
    }

    /// Templates of all combinations of what could be taken for a place, with hostile fills.
    #[test]
    fn any_header_template_is_filled_once() {
        const PARTS: [&str; 14] = [
            "{",
            "}",
            "{client_ip}",
            "{param:id}",
            "{header:x-a}",
            "{claim:a}",
            "{no}",
            "a",
            ":",
            "{}",
            "{a b}",
            "\u{e9}",
            " ",
            "_",
        ];
        const FILLS: [&[u8]; 6] = [b"{client_ip}", b"v", b"", b"a\r\nb", b"\0", b"\xff}"];
        for number in 0..PARTS.len().pow(4) {
            let mut rest = number;
            let mut text = String::new();
            for _ in 0..4 {
                text.push_str(PARTS[rest % PARTS.len()]);
                rest /= PARTS.len();
            }
            for first in FILLS {
                header_template(&text, &[first, FILLS[number % FILLS.len()], b"z"]);
            }
        }
    }

    /// Small tables of all kinds of routes, and what a linear congruence makes of requests to them.
    #[test]
    fn any_table_finds_what_a_scan_finds() {
        const PATHS: [&str; 12] =
            ["/*", "/", "/a", "/a/*", "/a/b", "/a/{a}", "/{a}/b", "/{a}/*", "/{a}/{b}", "/a/b/*", "/A/B", "/a/{a}/*"];
        const ASKED: [&str; 12] =
            ["/", "/a", "/A", "/a/b", "/A/B", "/a/B", "/a/b/", "/x/b", "/a/x", "/a/b/c", "/x/y/z", "/%61/%62"];
        const HOSTS: [&str; 4] = ["", "a.example", "*.example", "*.a.example"];
        const METHODS: [&str; 3] = ["", "GET", "POST PUT"];
        const CASES: [&str; 2] = ["", "~"];
        let mut seed = 1_u64;
        let mut next = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % bound
        };
        for _ in 0..20_000 {
            let mut routes = String::new();
            for _ in 0..=next(8) {
                let (host, path, method) = (HOSTS[next(4)], PATHS[next(12)], METHODS[next(3)]);
                let case = CASES[next(2)];
                routes.push_str(&format!("{case} {host} {path} {method}\n"));
            }
            let method = [Method::GET, Method::POST, Method::DELETE][next(3)].clone();
            let host = ["a.example", "b.a.example", "b.example", "other"][next(4)];
            find(&routes, &method, host, ASKED[next(12)]);
        }
    }
}
