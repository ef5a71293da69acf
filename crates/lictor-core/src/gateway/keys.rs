//! API keys: whose they are, and where a request carries one.
//!
//! The configuration has no key, only its SHA-256: that is enough for keys that were drawn at random, and a slow hash would be work for whoever
//! sends wrong ones. A key is found by its hash, so that the time of a look tells nothing of the keys that there are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use lictor_jose::Verified;

use super::path::escaped;

/// Who vouches for a client with a key, where rules ask for that.
const BY: &str = "keys";
/// How a key's hash is written in the configuration.
const PREFIX: &str = "sha256:";
/// A client's keys: one, and while it is being replaced two; what is more has been forgotten there.
pub const KEYS_MAX: usize = 4;
/// A longer text is nobody's key, and is not hashed.
pub const KEY_MAX: usize = 1024;

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// Not shown: who guesses a key could tell by it that he is right.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

/// As the configuration has it.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyHash {
    /// `sha256:` and 64 hexadecimal digits. The error never tells what was written: it may be a key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err("a key is not written down, its hash is: `sha256:..`, as `lictor hash-key` prints it");
        };
        let mut hash = [0; 32];
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err("SHA-256 has 64 hexadecimal digits");
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            *byte = escaped(pair).ok_or("SHA-256 has 64 hexadecimal digits")?;
        }
        Ok(Self(hash))
    }
}

/// Whose a key is.
#[derive(Debug)]
pub struct KeyClient {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The same as the claim `sub`; what it may do as `scope`, and what it is as `role`.
    pub known: Verified,
}

impl KeyClient {
    /// A client, as a token would tell it.
    pub fn new(name: &str, scopes: Vec<String>, roles: Vec<String>) -> Self {
        Self { name: name.into(), known: Verified::named(BY, name, scopes, roles) }
    }
}

/// The keys, and where they are looked for.
#[derive(Debug)]
pub struct ApiKeys {
    /// The field.
    pub header: Option<HeaderName>,
    /// The parameter of the query, as it is written there. It is in logs, histories and `Referer` of everybody on the way.
    pub query: Option<Box<str>>,
    clients: HashMap<KeyHash, Arc<KeyClient>>,
}

/// The one key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<'r> {
    /// None.
    Missing,
    /// More than one, in whatever places.
    Several,
    /// This text; one in the query with its escapes read.
    One(Cow<'r, [u8]>),
}

impl ApiKeys {
    /// Nobody has a key yet.
    pub fn new(header: Option<HeaderName>, query: Option<Box<str>>) -> Self {
        Self { header, query, clients: HashMap::new() }
    }

    /// Gives a client a key. The name of whoever has the same one already, else.
    pub fn give(&mut self, key: KeyHash, client: &Arc<KeyClient>) -> Result<(), Arc<str>> {
        if let Some(other) = self.clients.get(&key) {
            return Err(Arc::clone(&other.name));
        }
        self.clients.insert(key, Arc::clone(client));
        Ok(())
    }

    /// Whose it is.
    pub fn client(&self, key: &KeyHash) -> Option<&Arc<KeyClient>> {
        self.clients.get(key)
    }

    /// The key that a request carries: two are refused, whatever they say, because who picks one is fooled by whoever picks the other.
    pub fn find<'r>(&self, headers: &'r HeaderMap, query: Option<&'r str>) -> Key<'r> {
        let fields = self.header.iter().flat_map(|name| headers.get_all(name));
        let fields = fields.map(|value| Cow::Borrowed(value.as_bytes()));
        let parameters = query.into_iter().flat_map(|query| query.split('&'));
        let parameters = parameters.filter_map(|pair| self.parameter(pair)).map(unescaped);
        let mut found = fields.chain(parameters);
        match (found.next(), found.next()) {
            (None, _) => Key::Missing,
            (Some(key), None) => Key::One(key),
            (Some(_), Some(_)) => Key::Several,
        }
    }

    /// The query without the key, for everybody behind us; `None` when there was none in it.
    pub fn without(&self, query: &str) -> Option<String> {
        let is_kept = |pair: &&str| self.parameter(pair).is_none();
        if query.split('&').all(|pair| is_kept(&pair)) {
            return None;
        }
        Some(query.split('&').filter(is_kept).collect::<Vec<_>>().join("&"))
    }

    /// The value of a parameter that is ours, whichever of its letters are escaped (RFC 3986, section 2.4): what behind us reads `%6bey` as `key` would
    /// see it.
    fn parameter<'q>(&self, pair: &'q str) -> Option<&'q str> {
        let own = self.query.as_deref()?;
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*unescaped(name) == *own.as_bytes()).then_some(value)
    }
}

/// What a part of a query says, once its escapes are read; what begins none stays.
fn unescaped(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut read = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, escaped(after)) {
            (b'%', Some(byte)) => {
                read.push(byte);
                rest = &after[2..];
            }
            _ => {
                read.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(read)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys(header: Option<&'static str>, query: Option<&str>) -> ApiKeys {
        ApiKeys::new(header.map(HeaderName::from_static), query.map(Into::into))
    }

    #[test]
    fn a_hash_is_written_in_one_way_and_a_key_in_none() {
        let digits = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let hash = KeyHash::parse(&format!("sha256:{digits}")).unwrap();
        assert_eq!(hash.to_string(), format!("sha256:{digits}"));
        assert_eq!(KeyHash::parse(&format!("sha256:{}", digits.to_uppercase())), Ok(hash));
        assert!(!format!("{hash:?}").contains("0011"));
        for wrong in [
            String::new(),
            "s3cr3t-key".to_owned(),
            digits.to_owned(),
            format!("sha256:{}", &digits[..62]),
            format!("sha256:{digits}00"),
            format!("sha256:{}g", &digits[..63]),
            format!("sha256: {}", &digits[..63]),
            format!("SHA256:{digits}"),
            format!("md5:{digits}"),
            format!("sha256:\u{fc}{}", &digits[..62]),
        ] {
            let error = KeyHash::parse(&wrong).unwrap_err();
            assert!(wrong.is_empty() || !error.contains(&wrong), "{error}");
        }
    }

    #[test]
    fn exactly_one_key_is_one() {
        let of = |keys: &ApiKeys, fields: &[&'static str], query: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-api-key", HeaderValue::from_static(field));
            }
            match keys.find(&headers, query) {
                Key::Missing => "missing".to_owned(),
                Key::Several => "several".to_owned(),
                Key::One(key) => String::from_utf8_lossy(&key).into_owned(),
            }
        };
        let (both, header, query) =
            (keys(Some("x-api-key"), Some("key")), keys(Some("x-api-key"), None), keys(None, Some("key")));
        let table: [(&ApiKeys, &[&'static str], Option<&'static str>, &str); 18] = [
            (&both, &[], None, "missing"),
            (&both, &[], Some(""), "missing"),
            (&both, &[], Some("a=b&keys=1"), "missing"),
            (&both, &["one"], None, "one"),
            (&both, &["one"], Some("a=b"), "one"),
            (&both, &[], Some("a=b&key=one"), "one"),
            (&both, &[], Some("key=one"), "one"),
            (&both, &[], Some("%6bey=one"), "one"),
            (&both, &[], Some("k%65y=one"), "one"),
            (&both, &[], Some("key=%6F%6ee%3d"), "one="),
            (&both, &[], Some("key=a+b%"), "a+b%"),
            (&both, &[], Some("key"), ""),
            (&both, &["one", "one"], None, "several"),
            (&both, &["one"], Some("key=one"), "several"),
            (&both, &[], Some("key=one&%6Bey=one"), "several"),
            (&header, &["one"], Some("key=two"), "one"),
            (&query, &["one"], Some("key=two"), "two"),
            (&query, &[], Some("k%ey=1&%=2&key%=3"), "missing"),
        ];
        for (keys, fields, text, expected) in table {
            assert_eq!(of(keys, fields, text), expected, "{fields:?} {text:?}");
        }
    }

    #[test]
    fn behind_us_nobody_sees_a_key_in_the_query() {
        let keys = keys(None, Some("key"));
        for (query, left) in [
            ("key=1", Some("")),
            ("a=1&key=2", Some("a=1")),
            ("key=2&a=1", Some("a=1")),
            ("a&key=2&b=3&%6Bey=4", Some("a&b=3")),
            ("key", Some("")),
            ("a=key", None),
            ("", None),
            ("keys=1", None),
        ] {
            assert_eq!(keys.without(query).as_deref(), left, "{query}");
        }
        assert_eq!(ApiKeys::new(None, None).without("key=1"), None);
    }

    #[test]
    fn a_client_has_several_keys_and_a_key_has_one_client() {
        let client = |name: &str| Arc::new(KeyClient::new(name, vec!["read".to_owned()], Vec::new()));
        let (one, two) = (client("one"), client("two"));
        let mut keys = keys(Some("x-api-key"), None);
        keys.give(KeyHash([1; 32]), &one).unwrap();
        keys.give(KeyHash([2; 32]), &one).unwrap();
        keys.give(KeyHash([3; 32]), &two).unwrap();
        assert_eq!(keys.give(KeyHash([1; 32]), &two), Err("one".into()));
        let name = |byte| keys.client(&KeyHash([byte; 32])).map(|client| &*client.name);
        assert_eq!([1, 2, 3, 4].map(name), [Some("one"), Some("one"), Some("two"), None]);
        let claims = &one.known.claims;
        assert_eq!((claims["sub"].as_str(), &claims["scope"][0]), (Some("one"), &"read".into()));
        assert!(!claims.contains_key("role") && &*one.known.issuer.name == "keys");
    }
}
