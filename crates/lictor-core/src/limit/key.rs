//! Whose limit it is: a digest of a key's parts. Each part goes in with its length, and one that is not there as something
//! that no length is: `a:b` and `c` are not `a` and `b:c`, and nothing is not the empty text.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

use super::{Limit, Part};

/// What a request has for keys.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "it is made, read and gone")]
pub struct Facts<'a> {
    /// The route's label.
    pub route: Option<&'a str>,
    /// The client's.
    pub ip: Option<IpAddr>,
    /// Who it is: the issuer that says so, and the subject. Two issuers may each have somebody of one name.
    pub user: Option<[&'a str; 2]>,
    /// The API key's name.
    pub key: Option<&'a str>,
    /// The request's.
    pub headers: &'a HeaderMap,
    /// What a verified token says.
    pub claim: &'a dyn Fn(&str) -> Option<String>,
}

/// Whom an address stands for: an IPv4 address itself, of IPv6 its /64, because a client may have all of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Four bytes.
    V4([u8; 4]),
    /// The first eight.
    V6([u8; 8]),
}

impl Network {
    /// IPv4 in IPv6's clothes is IPv4 (RFC 4291, section 2.5.5.2).
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(first_half(ip)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

fn first_half(ip: Ipv6Addr) -> [u8; 8] {
    ((u128::from(ip) >> 64) as u64).to_be_bytes()
}

impl Limit {
    /// A digest that only this process knows how to make: nobody can look for two keys that have the same.
    pub fn digest(&self, facts: &Facts<'_>, secret: &impl BuildHasher) -> u64 {
        self.digest_of(secret, |write| self.write_key(facts, write))
    }

    /// The same of failed tries to show who one is: by the network alone, whatever the limit is by.
    pub fn digest_of_failures(&self, ip: Option<IpAddr>, secret: &impl BuildHasher) -> u64 {
        self.digest_of(secret, |write| {
            write(b"failed");
            write_part(ip.map(Network::of).as_ref().map(Network::bytes), write);
        })
    }

    /// All parts at once: a hasher is slow at the small ones.
    fn digest_of(&self, secret: &impl BuildHasher, write: impl FnOnce(&mut dyn FnMut(&[u8]))) -> u64 {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.id.number.to_ne_bytes());
        write(&mut |part| bytes.extend_from_slice(part));
        let mut hasher = secret.build_hasher();
        hasher.write(&bytes);
        hasher.finish()
    }

    /// Writes a key's parts: different keys, different bytes.
    pub fn write_key(&self, facts: &Facts<'_>, write: &mut dyn FnMut(&[u8])) {
        for part in &self.by {
            match part {
                Part::Route => write_part(facts.route.map(str::as_bytes), write),
                Part::User => match facts.user {
                    Some(user) => user.into_iter().for_each(|part| write_part(Some(part.as_bytes()), write)),
                    None => write_part(None, write),
                },
                Part::Key => write_part(facts.key.map(str::as_bytes), write),
                Part::Ip => write_part(facts.ip.map(Network::of).as_ref().map(Network::bytes), write),
                Part::Claim(name) => write_part((facts.claim)(name).as_deref().map(str::as_bytes), write),
                Part::Header(name) => {
                    for line in facts.headers.get_all(name) {
                        write_part(Some(line.as_bytes()), write);
                    }
                    write_part(None, write);
                }
            }
        }
    }
}

fn write_part(part: Option<&[u8]>, write: &mut dyn FnMut(&[u8])) {
    write(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
    if let Some(part) = part {
        write(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::limit;
    use super::*;
    use http::{HeaderName, HeaderValue};
    use std::collections::HashSet;

    fn bytes(by: &[Part], facts: &Facts<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        limit(by).write_key(facts, &mut |part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn keys_that_differ_in_any_part_differ() {
        let id = HeaderName::from_static("x-id");
        let by = [Part::User, Part::Key, Part::Header(id.clone()), Part::Claim("org".into())];
        let mut seen = HashSet::new();
        for user in [None, Some(["", ""]), Some(["", "a"]), Some(["a", ""]), Some(["a", "b c"]), Some(["a b", "c"])] {
            for key in [None, Some(""), Some("c"), Some("b:c")] {
                for lines in [&[][..], &[""], &["", ""], &["c"], &["b", "c"], &["bc"], &["b,c"]] {
                    for claim in [None, Some(""), Some("x")] {
                        let mut headers = HeaderMap::new();
                        for line in lines {
                            headers.append(id.clone(), HeaderValue::from_static(line));
                        }
                        let claim = |_: &str| claim.map(str::to_owned);
                        let facts = Facts { route: None, ip: None, user, key, headers: &headers, claim: &claim };
                        assert!(seen.insert(bytes(&by, &facts)), "{user:?} {key:?} {lines:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_address_stands_for_whom_may_have_it() {
        let same = |one: &str, other: &str| Network::of(one.parse().unwrap()) == Network::of(other.parse().unwrap());
        assert!(same("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        for (one, other) in [
            ("127.0.0.1", "127.0.0.2"),
            ("2001:db8:1:2::1", "2001:db8:1:3::1"),
            ("::", "0.0.0.0"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.2"),
            ("::1", "::ffff:0.0.0.1"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
