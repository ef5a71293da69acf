//! Which fields of a request an answer is for (RFC 9110, section 12.5.5).

use http::header::VARY;
use http::{HeaderMap, HeaderValue};

/// Adds a field's name to `Vary`, unless that has it, or `*` (RFC 9110, section 12.5.5): one line.
pub(super) fn vary(headers: &mut HeaderMap, name: &'static str) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, HeaderValue::from_static(name));
        return;
    }
    let mut named = Vec::new();
    for value in headers.get_all(VARY) {
        for one in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if one == b"*" || one.eq_ignore_ascii_case(name.as_bytes()) {
                return;
            }
            if !one.is_empty() {
                named.push(one);
            }
        }
    }
    named.push(name.as_bytes());
    let joined = HeaderValue::from_bytes(&named.join(&b", "[..]));
    headers.insert(VARY, joined.unwrap_or_else(|_| HeaderValue::from_static("*")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_added_to() {
        for (own, all) in [
            (&[][..], "Origin"),
            (&["Accept-Encoding"], "Accept-Encoding, Origin"),
            (&["A", "B,, C"], "A, B, C, Origin"),
            (&["origin"], "origin"),
            (&["A, ORIGIN "], "A, ORIGIN "),
            (&["*"], "*"),
            (&["originate"], "originate, Origin"),
        ] {
            let mut headers = HeaderMap::new();
            for line in own {
                headers.append(VARY, HeaderValue::from_static(line));
            }
            vary(&mut headers, "Origin");
            let lines: Vec<&str> = headers.get_all(VARY).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(lines, [all], "{own:?}");
        }
    }
}
