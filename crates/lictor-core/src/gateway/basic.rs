//! Names and passwords (RFC 7617): what a client shows, and what there is to compare it with. Nothing here is slow: a password's hash is
//! computed where nobody waits for it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use lictor_jose::Verified;

use super::password::{PASSWORD_MAX, PasswordHash};

/// Who vouches for somebody with a password, where rules ask for that.
const BY: &str = "basic";

/// Somebody with a password.
#[derive(Debug)]
pub struct User {
    /// Compared with what is shown.
    pub password: PasswordHash,
    /// The name as the claim `sub`; what he may do as `scope`, and what he is as `role`.
    pub known: Verified,
}

/// All of them.
#[derive(Debug)]
pub struct Users {
    all: Vec<User>,
    places: HashMap<Box<str>, usize>,
    /// What nobody outside knows: all of the hashes.
    secret: DefaultHasher,
}

impl Users {
    /// By name; `None` when there is nobody.
    pub fn new(users: Vec<(String, PasswordHash, Vec<String>, Vec<String>)>) -> Option<Self> {
        if users.is_empty() {
            return None;
        }
        let mut secret = DefaultHasher::new();
        for (_, password, ..) in &users {
            password.text().hash(&mut secret);
        }
        let places = users.iter().enumerate().map(|(place, user)| (user.0.as_str().into(), place)).collect();
        let user = |(name, password, scopes, roles): (String, PasswordHash, Vec<String>, Vec<String>)| User {
            password,
            known: Verified::named(BY, &name, scopes, roles),
        };
        Some(Self { all: users.into_iter().map(user).collect(), places, secret })
    }

    /// Whose password to compare with, and whether it is his: one whom nobody knows is compared with somebody's, always the
    /// same one's, so that he takes as long as those who are known, at another gateway and after a reload too.
    pub fn find(&self, name: &str) -> (&User, bool) {
        match self.places.get(name) {
            Some(place) => (&self.all[*place], true),
            None => {
                let mut secret = self.secret.clone();
                name.hash(&mut secret);
                (&self.all[secret.finish() as usize % self.all.len()], false)
            }
        }
    }
}

/// A name and a password, out of what Base64 has brought: UTF-8 with a colon, and no control characters (RFC 7617, section 2).
pub fn split(bytes: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))?;
    text.split_once(':').filter(|(_, password)| password.len() <= PASSWORD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    #[test]
    fn what_is_shown_is_a_name_a_colon_and_a_password() {
        for (bytes, expected) in [
            (&b"ada:secret"[..], Some(("ada", "secret"))),
            (b"ada:a:b", Some(("ada", "a:b"))),
            (b"ada:", Some(("ada", ""))),
            (b":secret", Some(("", "secret"))),
            ("j\u{fc}rgen:\u{20ac}".as_bytes(), Some(("j\u{fc}rgen", "\u{20ac}"))),
            (b"ada", None),
            (b"", None),
            (b"j\xfcrgen:a", None),
            (b"ada:a\0b", None),
            (b"ada\n:a", None),
            (b"ada:a\x7f", None),
        ] {
            assert_eq!(split(bytes), expected, "{bytes:?}");
        }
        assert!(split(&[b"a:", &[b'x'; PASSWORD_MAX][..]].concat()).is_some());
        assert_eq!(split(&[b"a:", &[b'x'; PASSWORD_MAX + 1][..]].concat()), None, "bcrypt would compare a part of it");
    }

    #[test]
    fn a_stranger_is_compared_with_somebody_and_never_is_him() {
        let all = |hash: &str| {
            let hash = PasswordHash::parse(hash).unwrap();
            let users =
                ["ada", "bob", "cyd"].map(|name| (name.to_owned(), hash.clone(), vec!["read".to_owned()], Vec::new()));
            Users::new(users.into()).unwrap()
        };
        let (users, same, other) = (all(HASH), all(HASH), all(&HASH.replace("$05$", "$06$")));
        let sub = |user: &User| user.known.claims["sub"].as_str().unwrap().to_owned();
        for name in ["ada", "bob", "cyd"] {
            let (user, is_his) = users.find(name);
            assert!(is_his && sub(user) == name);
        }
        let (mut seen, mut is_other) = (Vec::new(), false);
        for name in (0..100).map(|number| number.to_string()) {
            let (user, is_his) = users.find(&name);
            assert!(!is_his && sub(user) == sub(users.find(&name).0), "always the same: no telling by asking twice");
            assert_eq!(sub(user), sub(same.find(&name).0), "nor by asking another gateway, or after a reload");
            is_other |= sub(user) != sub(other.find(&name).0);
            seen.push(sub(user));
        }
        assert!(is_other, "nobody outside knows whose");
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["ada", "bob", "cyd"], "each cost is a stranger's too");
        assert!(!users.find("ADA").1 && !users.find("").1);
        assert!(Users::new(Vec::new()).is_none());
    }
}
