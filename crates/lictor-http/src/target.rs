//! A request's target (RFC 9112, section 3.2; RFC 9113, section 8.3.1): which of its four forms it has, whether its
//! authority is one, and what passes although it should have been percent-encoded. All of it is pure.

use std::net::Ipv6Addr;

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{InvalidUri, PathAndQuery};
use http::{Method, Request, Uri, Version};

/// The path and query as they came, where they have characters that RFC 3986 wants percent-encoded (`"`, `<`, `>` and
/// `` ` ``). Every server takes them and every proxy passes them on as they are. It is among the extensions of such a
/// request, whose URI has them encoded.
#[derive(Clone, Debug)]
pub struct Raw(Bytes);

impl Raw {
    /// As it came, with the slash that a bare query lacks.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or("/") // ASCII, by `lenient`
    }
}

/// What a request's target is on its way on: its path and query, as they came.
pub fn passed<'a>(uri: &'a Uri, raw: Option<&'a Raw>) -> &'a str {
    raw.map_or_else(|| uri.path_and_query().map_or("/", PathAndQuery::as_str), Raw::as_str)
}

/// The target of an HTTP/1.1 request line.
pub(crate) fn parse(method: &Method, target: Bytes) -> Result<(Uri, Option<Raw>), InvalidUri> {
    let length = target.len();
    let (uri, raw) = match Uri::from_maybe_shared(target.clone()) {
        Ok(uri) => (uri, None),
        Err(invalid) => lenient(&target).map(|(uri, raw)| (uri, Some(raw))).ok_or(invalid)?,
    };
    let is_bare = |uri: &Uri| uri.authority().is_some_and(|it| target.ends_with(it.as_str().as_bytes()));
    if *method == Method::OPTIONS && uri.scheme().is_some() && length > 1 && is_bare(&uri) {
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*")); // RFC 9112, section 3.2.4
        return Ok((Uri::from_parts(parts).expect("a scheme, an authority and a path"), raw));
    }
    Ok((uri, raw))
}

/// The `:path` of an HTTP/2 request.
pub(crate) fn path(path: Bytes) -> Option<(PathAndQuery, Option<Raw>)> {
    match PathAndQuery::from_maybe_shared(path.clone()) {
        Ok(path) => Some((path, None)),
        Err(_) => {
            let (uri, raw) = lenient(&path)?;
            Some((uri.into_parts().path_and_query?, Some(raw)))
        }
    }
}

/// A target that is a URI once what should have been encoded in its path and query is.
fn lenient(target: &[u8]) -> Option<(Uri, Raw)> {
    let begins = match target.first()? {
        b'/' => 0,
        _ => {
            let authority = target.windows(3).position(|part| part == b"://")? + 3;
            authority + target[authority..].iter().position(|byte| matches!(byte, b'/' | b'?'))?
        }
    };
    let (before, passed) = target.split_at(begins);
    if !passed.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return None;
    }
    let (mut encoded, mut raw) = (BytesMut::from(before), BytesMut::with_capacity(passed.len() + 1));
    if passed.starts_with(b"?") {
        raw.put_u8(b'/');
    }
    raw.extend_from_slice(passed);
    for byte in passed {
        match byte {
            b'"' => encoded.extend_from_slice(b"%22"),
            b'<' => encoded.extend_from_slice(b"%3C"),
            b'>' => encoded.extend_from_slice(b"%3E"),
            b'`' => encoded.extend_from_slice(b"%60"),
            other => encoded.put_u8(*other),
        }
    }
    Some((Uri::from_maybe_shared(encoded.freeze()).ok()?, Raw(raw.freeze())))
}

/// Refuses a target that its method cannot have, or whose authority is none.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let (uri, method) = (request.uri(), request.method());
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if !path.is_ascii() {
        return Err("the request's target has bytes that must be percent-encoded (RFC 3986, section 2.1)");
    }
    if path == "*" && *method != Method::OPTIONS {
        return Err("only OPTIONS may be about `*`"); // RFC 9112, section 3.2.4
    }
    let Some(authority) = uri.authority() else {
        return if *method == Method::CONNECT { Err("CONNECT needs a host and port") } else { Ok(()) };
    };
    if !is_host(authority.as_str().as_bytes()) {
        return Err("the request's target has no valid host and port");
    }
    match (*method == Method::CONNECT, uri.scheme()) {
        // RFC 9110, section 9.3.6.
        (true, None) if authority.port_u16().is_none_or(|port| port == 0) => Err("CONNECT needs a host and port"),
        // With a scheme it is an extended one (RFC 8441).
        (true, Some(_)) if request.version() != Version::HTTP_2 => Err("CONNECT is about a host and port, and no URL"),
        (false, None) => Err("the request's target is neither absolute nor a path"), // RFC 9112, section 3.2
        _ => Ok(()),
    }
}

/// A registered name or IP literal, and perhaps a port (RFC 9110, section 7.2; RFC 3986, section 3.2.2).
pub(crate) fn is_host(value: &[u8]) -> bool {
    let length = match value.strip_prefix(b"[") {
        Some(literal) => {
            let length = literal.iter().position(|byte| *byte == b']').unwrap_or(literal.len());
            let is_literal = str::from_utf8(&literal[..length]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
            if is_literal { length + 2 } else { 0 }
        }
        None => reg_name(value),
    };
    match value.get(length..) {
        _ if length == 0 => false,
        Some([]) => true,
        Some([b':', port @ ..]) => is_port(port),
        _ => false,
    }
}

/// How long the registered name is that these bytes begin with: unreserved, sub-delims and escapes.
fn reg_name(value: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        at += match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => 1,
            b'%' if value.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) => 3,
            _ => break,
        };
    }
    at
}

/// Decimal digits, or none at all (RFC 3986, section 3.2.3), of a number that ports have.
fn is_port(port: &[u8]) -> bool {
    let add = |number: u16, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    port.iter().try_fold(0, add).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &Method, target: &str) -> Result<(String, String), String> {
        let (uri, raw) = parse(method, Bytes::copy_from_slice(target.as_bytes())).map_err(|why| why.to_string())?;
        let shown = (uri.to_string(), passed(&uri, raw.as_ref()).to_owned());
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(raw) = raw {
            request = request.extension(raw);
        }
        check(&request.body(()).unwrap()).map(|()| shown).map_err(str::to_owned)
    }

    /// RFC 9112, section 3.2.
    #[test]
    fn a_target_has_one_of_four_forms() {
        let taken: &[(Method, &str, &str)] = &[
            (Method::GET, "/a?b", "/a?b"),
            (Method::GET, "/a@b:c", "/a@b:c"),
            (Method::GET, "//evil/a", "//evil/a"),
            (Method::GET, "http://users", "/"),
            (Method::GET, "http://users:80/a", "/a"),
            (Method::GET, "http://users:/a", "/a"),
            (Method::GET, "http://[::1]:80/a", "/a"),
            (Method::GET, "http://a+b/", "/"),
            (Method::GET, "HTTP://Users/", "/"),
            (Method::OPTIONS, "*", "*"),
            (Method::OPTIONS, "http://users", "*"), // section 3.2.4
            (Method::OPTIONS, "http://users:80", "*"),
            (Method::OPTIONS, "http://users/", "/"),
            (Method::OPTIONS, "/users", "/users"),
            (Method::CONNECT, "users:443", "/"),
            (Method::CONNECT, "[::1]:443", "/"),
        ];
        for (method, target, goes_on) in taken {
            let (_, passed) = parsed(method, target).unwrap_or_else(|why| panic!("{method} {target}: {why}"));
            if *method != Method::CONNECT {
                assert_eq!(passed, *goes_on, "{method} {target}");
            }
        }
        let refused: &[(Method, &str)] = &[
            (Method::GET, "items"),
            (Method::DELETE, "items"),
            (Method::POST, "user-service"),
            (Method::GET, "users:80"),
            (Method::OPTIONS, "users"),
            (Method::GET, "*"),
            (Method::GET, "?a"),
            (Method::GET, "./a"),
            (Method::GET, "http://users:http/"),
            (Method::GET, "http://users:99999/"),
            (Method::GET, "http://:80/"),
            (Method::GET, "http:///a"),
            (Method::GET, "http://u@users/"),
            (Method::GET, "http://us\"ers/"),
            (Method::GET, "http://users:80:80/"),
            (Method::CONNECT, "/"),
            (Method::CONNECT, "/users:443"),
            (Method::CONNECT, "users"),
            (Method::CONNECT, "users:"),
            (Method::CONNECT, "users:0"),
            (Method::CONNECT, "users:http"),
            (Method::CONNECT, "*"),
            (Method::CONNECT, "http://users:80/"),
        ];
        for (method, target) in refused {
            assert!(parsed(method, target).is_err(), "{method} {target}: {:?}", parsed(method, target));
        }
    }

    #[test]
    fn what_should_have_been_encoded_passes_as_it_came() {
        let rows = [
            ("/a?q=\"b\"", "/a?q=%22b%22", "/a?q=\"b\""),
            ("/<a>?<b>", "/%3Ca%3E?%3Cb%3E", "/<a>?<b>"),
            ("/`a`?\"", "/%60a%60?%22", "/`a`?\""),
            ("http://users/a?\"", "http://users/a?%22", "/a?\""),
            ("http://users?\"", "http://users/?%22", "/?\""),
            ("/a?%22\"%zz", "/a?%22%22%zz", "/a?%22\"%zz"),
        ];
        for (target, uri, goes_on) in rows {
            let (shown, passed) = parsed(&Method::GET, target).unwrap_or_else(|why| panic!("{target}: {why}"));
            assert_eq!((&*shown, &*passed), (uri, goes_on), "{target}");
            if target.starts_with('/') {
                let (encoded, raw) = path(Bytes::copy_from_slice(target.as_bytes())).unwrap();
                assert_eq!((encoded.as_str(), raw.unwrap().as_str()), (uri, goes_on), "{target}");
            }
        }
        for target in ["/a?\" b", "/a?\"\u{e4}", "/a?\"#b", "/a\"\x7f?\""] {
            assert!(parsed(&Method::GET, target).is_err(), "{target}");
            assert!(path(Bytes::copy_from_slice(target.as_bytes())).is_none(), "{target}");
        }
    }

    #[test]
    fn hosts_are_those_of_rfc_3986() {
        let hosts = ["a", "a:80", "a:", "[::1]", "[::1]:80", "a+b", "0.0.0.0=5000", "a,b", "a%20b", "a_b", "!$&'()*;~"];
        for host in hosts {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        let others = [
            "", ":80", "a b", "u@a", "a/b", "a:http", "a:99999", "a, b", "[::1", "a:1:2", "[a]", "a%2", "a%zz", "a?b",
            "a#b", "a\\b", "a\"b", "<a>", "\u{e4}", "a:-1", "a:+1",
        ];
        for other in others {
            assert!(!is_host(other.as_bytes()), "{other}");
        }
    }
}
