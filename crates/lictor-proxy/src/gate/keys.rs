//! API keys: whose a request's key is. It is taken off each request before anything else looks at it, whatever its route asks:
//! nobody behind us, no log and no story has it.

use std::sync::Arc;

use http::Request;
use lictor_core::gateway::keys::{ApiKeys, KEY_MAX, Key, KeyClient, KeyHash};
use ring::digest::{SHA256, digest};

use super::query::put_query;

/// What a request had.
#[derive(Debug, Default)]
pub(super) enum Taken {
    #[default]
    Nothing,
    /// More than one key.
    Several,
    One(Box<[u8]>),
}

/// Takes the key off the head.
pub(super) fn take<B>(keys: &ApiKeys, request: &mut Request<B>) -> Taken {
    let taken = match keys.find(request.headers(), request.uri().query()) {
        Key::Missing => return Taken::Nothing,
        Key::Several => Taken::Several,
        Key::One(key) => Taken::One(key.into_owned().into()),
    };
    if let Some(header) = &keys.header {
        request.headers_mut().remove(header);
    }
    if let Some(rest) = request.uri().query().and_then(|query| keys.without(query)) {
        put_query(request, (!rest.is_empty()).then_some(&rest));
    }
    taken
}

/// Whose it is.
pub(super) fn client<'k>(keys: &'k ApiKeys, key: &[u8]) -> Option<&'k Arc<KeyClient>> {
    if key.len() > KEY_MAX {
        return None;
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    keys.client(&KeyHash(hash))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_is_taken_is_nowhere_any_more() {
        let keys = ApiKeys::new(Some(HeaderName::from_static("x-api-key")), Some("key".into()));
        for (target, field, left, was) in [
            ("/a?key=one", None, "/a", Some(&b"one"[..])),
            ("/a?b=c&key=one", None, "/a?b=c", Some(b"one")),
            ("/a?b=c", Some("two"), "/a?b=c", Some(b"two")),
            ("/a?key=one&b=c", Some("two"), "/a?b=c", None),
            ("/a?key=one&k%65y=two", None, "/a", None),
        ] {
            let mut request = Request::get(format!("http://shop.example{target}")).body(()).unwrap();
            request
                .headers_mut()
                .extend(field.map(|value| (HeaderName::from_static("x-api-key"), HeaderValue::from_static(value))));
            match (take(&keys, &mut request), was) {
                (Taken::One(key), Some(was)) => assert_eq!(&*key, was, "{target}"),
                (Taken::Several, None) => (),
                (taken, _) => panic!("{target}: {taken:?}"),
            }
            assert_eq!(request.uri().to_string(), format!("http://shop.example{left}"));
            assert!(!request.headers().contains_key("x-api-key"));
        }
        let mut request = Request::get("/a?keys=1").body(()).unwrap();
        assert!(matches!(take(&keys, &mut request), Taken::Nothing));
    }
}
