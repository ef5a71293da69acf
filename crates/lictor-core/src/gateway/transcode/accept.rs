//! In which form a client takes a stream.

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether each message is to be a line of its own (NDJSON), and not one of a JSON array: where `Accept` names that, and does
/// not like JSON better or as much (RFC 9110, section 12.5.1).
pub fn wants_lines(headers: &HeaderMap) -> bool {
    let (mut lines, mut array) = (0.0, 0.0);
    let members = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    for member in members {
        let mut parts = member.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight: f32 = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        match kind.as_str() {
            "application/x-ndjson" | "application/ndjson" => lines = weight,
            "application/json" => array = weight,
            _ => (),
        }
    }
    lines > array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_those_who_ask_for_them() {
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            ("application/*", false),
            ("application/json", false),
            ("application/x-ndjson", true),
            ("Application/X-NDJSON", true),
            ("application/ndjson, */*", true),
            ("application/json, application/x-ndjson", false),
            ("application/x-ndjson, application/json;q=0.5", true),
            ("application/x-ndjson;q=0.4, application/json; q=0.5", false),
            ("application/x-ndjson;q=0", false),
            ("application/x-ndjson;q=x", false),
            ("text/html", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(wants_lines(&headers), expected, "{accept}");
        }
    }
}
