//! `Max-Forwards`: how often a TRACE or an OPTIONS may still be passed on (RFC 9110, section 7.6.2). In other methods it
//! means nothing.

use bytes::Bytes;
use http::header::{HOST, MAX_FORWARDS};
use http::{HeaderMap, HeaderValue, Method, Request};
use lictor_core::redact;

/// Whether a request may not be passed on: who gets it is the last. Otherwise one time less is left.
pub(crate) fn is_last<B>(request: &mut Request<B>) -> bool {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return false;
    }
    match left(request.headers()) {
        None => false,
        Some(0) => true,
        Some(left) => {
            request.headers_mut().insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            false
        }
    }
}

/// The least of all lines; none where one is no number. More than can be counted is the most that can.
fn left(headers: &HeaderMap) -> Option<u64> {
    let number = |value: &HeaderValue| {
        let digits = value.to_str().ok()?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let numbers: Option<Vec<u64>> = headers.get_all(MAX_FORWARDS).into_iter().map(number).collect();
    numbers?.into_iter().min()
}

/// What the last one answers to a TRACE: the request's head as it came, without what may be secret (RFC 9110, section 9.3.8).
pub(crate) fn reflected<B>(request: &Request<B>) -> Bytes {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("*", |path| path.as_str());
    let mut text = format!("{} {path} {:?}\r\n", request.method(), request.version()).into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        text.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    };
    if let Some(authority) = uri.authority().filter(|_| !request.headers().contains_key(HOST)) {
        line("host", authority.as_str().as_bytes());
    }
    for (name, value) in request.headers() {
        if value.to_str().is_ok_and(|text| redact::field(name.as_str(), text) == text) {
            line(name.as_str(), value.as_bytes());
        }
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_and_options_are_counted_down_and_others_are_not() {
        let after = |method: &str, lines: &[&str]| {
            let request = Request::builder().method(method).uri("/");
            let mut request = lines.iter().fold(request, |it, line| it.header(MAX_FORWARDS, *line)).body(()).unwrap();
            let is_last = is_last(&mut request);
            let lines =
                request.headers().get_all(MAX_FORWARDS).into_iter().map(|line| line.to_str().unwrap().to_owned());
            (is_last, lines.collect::<Vec<_>>().join("|"))
        };
        let last = |line: &str| (true, line.to_owned());
        let goes_on = |line: &str| (false, line.to_owned());
        for method in ["OPTIONS", "TRACE"] {
            assert_eq!(after(method, &["0"]), last("0"));
            assert_eq!(after(method, &["000"]), last("000"));
            assert_eq!(after(method, &["1"]), goes_on("0"));
            assert_eq!(after(method, &["10"]), goes_on("9"));
            assert_eq!(after(method, &["99999999999999999999999"]), goes_on("18446744073709551614"));
            assert_eq!(after(method, &["3", "2"]), goes_on("1"), "the smaller counts");
            assert_eq!(after(method, &["3", "0"]), last("3|0"));
            for none in ["-1", "+1", "1.5", "1, 0", "", "soon"] {
                assert_eq!(after(method, &[none]), goes_on(none));
            }
            assert_eq!(after(method, &[]), goes_on(""));
        }
        for method in ["GET", "POST", "HEAD", "PURGE", "options"] {
            assert_eq!(after(method, &["0"]), goes_on("0"));
        }
    }

    #[test]
    fn what_may_be_secret_is_not_reflected() {
        let request = Request::builder().method("TRACE").uri("http://users/a?b=c").header("X-A", "b");
        let request =
            request.header("Authorization", "Bearer abc").header("Cookie", "a=b").header("X-Service-Auth", "t");
        let text = reflected(&request.body(()).unwrap());
        assert_eq!(text, "TRACE /a?b=c HTTP/1.1\r\nhost: users\r\nx-a: b\r\n\r\n");
    }
}
