//! Taking credentials out of a query: what is behind, the log and the story see what is left.

use http::{Request, Uri};
use lictor_http::target::Raw;
use lictor_jose::source;

/// Takes the parameter with a token out of the query, before anything else sees it; what the query was.
pub(super) fn take_query<B>(name: &str, request: &mut Request<B>) -> Option<Box<str>> {
    let query: Box<str> = request.uri().query()?.into();
    let rest = source::without(&query, name);
    if rest.as_deref() == Some(&query) {
        return None;
    }
    put_query(request, rest.as_deref());
    Some(query)
}

/// Gives a request another query.
pub(super) fn put_query<B>(request: &mut Request<B>, query: Option<&str>) {
    let path = request.uri().path();
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    request.extensions_mut().remove::<Raw>();
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = target.parse().ok();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_no_part_of_the_query_afterwards() {
        for (target, left, was) in [
            ("/a?token=x", "/a", Some("token=x")),
            ("/a?b=1&token=x&c=2", "/a?b=1&c=2", Some("b=1&token=x&c=2")),
            ("/a?t%6fken=x&token=y", "/a", Some("t%6fken=x&token=y")),
            ("/a?tokens=x", "/a?tokens=x", None),
            ("/a", "/a", None),
        ] {
            let mut request = Request::get(format!("http://shop.example{target}")).body(()).unwrap();
            assert_eq!(take_query("token", &mut request).as_deref(), was, "{target}");
            assert_eq!(request.uri().to_string(), format!("http://shop.example{left}"));
        }
    }
}
