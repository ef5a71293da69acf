//! Names and passwords (RFC 7617): what a client shows, and what there is to compare it with. Nothing here is slow: a password's hash is
//! computed where nobody waits for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use lictor_jose::Verified;

/// Who vouches for somebody with a password, where rules ask for that.
const BY: &str = "basic";
/// bcrypt looks at no more.
pub const PASSWORD_MAX: usize = 72;
/// Below it a password is found from its hash too soon; above it each look takes seconds.
const COSTS: std::ops::RangeInclusive<u8> = 4..=14;

/// A password, by bcrypt, as `htpasswd -B` writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Arc<str>);

/// Not shown: passwords are found from it by trying.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

impl PasswordHash {
    /// `$2y$`, a cost, salt and hash. The error never tells what was written: it may be a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|prefix| text.strip_prefix(prefix)) else {
            return Err(
                "a password is not written down, its bcrypt hash is: `$2y$..`, as `htpasswd -nB NAME` prints it after the colon",
            );
        };
        let (cost, rest) = rest.split_once('$').ok_or("a bcrypt hash has a cost: `$2y$10$..`")?;
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
        if cost.len() != 2
            || !cost.bytes().all(|byte| byte.is_ascii_digit())
            || rest.len() != 53
            || !rest.bytes().all(is_digit)
        {
            return Err("a bcrypt hash has 60 characters: `$2y$10$..`");
        }
        match cost.parse() {
            Ok(cost) if COSTS.contains(&cost) => Ok(Self(text.into())),
            _ => Err("the cost of a bcrypt hash is from 04 to 14"),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0
    }
}

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
    random: RandomState,
}

impl Users {
    /// By name; `None` when there is nobody.
    pub fn new(users: Vec<(String, PasswordHash, Vec<String>, Vec<String>)>) -> Option<Self> {
        if users.is_empty() {
            return None;
        }
        let places = users.iter().enumerate().map(|(place, user)| (user.0.as_str().into(), place)).collect();
        let user = |(name, password, scopes, roles): (String, PasswordHash, Vec<String>, Vec<String>)| User {
            password,
            known: Verified::named(BY, &name, scopes, roles),
        };
        Some(Self { all: users.into_iter().map(user).collect(), places, random: RandomState::new() })
    }

    /// Whose password to compare with, and whether it is his: one whom nobody knows is compared with somebody's, always the
    /// same one's, so that he takes as long as those who are known.
    pub fn find(&self, name: &str) -> (&User, bool) {
        match self.places.get(name) {
            Some(place) => (&self.all[*place], true),
            None => (&self.all[self.random.hash_one(name) as usize % self.all.len()], false),
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
    fn a_password_is_written_as_its_hash_alone() {
        assert_eq!(PasswordHash::parse(HASH).unwrap().text(), HASH);
        assert!(!format!("{:?}", PasswordHash::parse(HASH)).contains("E5YPO"));
        for wrong in [
            "",
            "hunter2",
            "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68OTLiBFdcbYEdFCoEOfaS35inz1",
            "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
            "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW",
            "$2y$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2y$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2y$+5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "$2y$05$CCCCCCCCCCCCCCCCCCCCC-E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        ] {
            let error = PasswordHash::parse(wrong).unwrap_err();
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }

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
        let hash = PasswordHash::parse(HASH).unwrap();
        let users =
            ["ada", "bob", "cyd"].map(|name| (name.to_owned(), hash.clone(), vec!["read".to_owned()], Vec::new()));
        let users = Users::new(users.into()).unwrap();
        let sub = |user: &User| user.known.claims["sub"].as_str().unwrap().to_owned();
        for name in ["ada", "bob", "cyd"] {
            let (user, is_his) = users.find(name);
            assert!(is_his && sub(user) == name);
        }
        let mut seen = Vec::new();
        for name in (0..100).map(|number| number.to_string()) {
            let (user, is_his) = users.find(&name);
            assert!(!is_his && sub(user) == sub(users.find(&name).0), "always the same: no telling by asking twice");
            seen.push(sub(user));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["ada", "bob", "cyd"], "each cost is a stranger's too");
        assert!(!users.find("ADA").1 && !users.find("").1);
        assert!(Users::new(Vec::new()).is_none());
    }
}
