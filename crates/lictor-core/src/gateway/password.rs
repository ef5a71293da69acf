//! What the configuration has of a password: a hash that is made to be slow, with what it was made by. Bounds of that are looked at as
//! it is read, since whoever shows a name makes the gateway compute one.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use argon2::password_hash::{Error, phc};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

/// bcrypt looks at no more, and all are held to the same.
pub const PASSWORD_MAX: usize = 72;
/// Of bcrypt: below it a password is found from its hash too soon; above it each look takes seconds.
const COSTS: RangeInclusive<u8> = 4..=14;
/// Of argon2id, in KiB.
const MEMORY: RangeInclusive<u32> = 256..=64 << 10;
const PASSES: RangeInclusive<u32> = 1..=10;
const LANES: RangeInclusive<u32> = 1..=16;
/// In bytes: another password of a shorter hash could be found.
const OUTPUT_MIN: usize = 16;

/// A password, by argon2id as a PHC string (RFC 9106), or by bcrypt as `htpasswd -B` writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Arc<str>);

/// Not shown: passwords are found from it by trying.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

impl PasswordHash {
    /// The error never tells what was written: it may be a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with("$argon2") { check_argon2id(text) } else { check_bcrypt(text) }?;
        Ok(Self(text.into()))
    }

    /// By argon2id with 19 MiB, 2 passes and 1 lane, what OWASP's "Password Storage Cheat Sheet" asks for; `None`: it is too long.
    pub fn of(password: &str, salt: [u8; 16]) -> Option<Self> {
        if password.len() > PASSWORD_MAX {
            return None;
        }
        let made = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).ok()?;
        Some(Self(made.to_string().into()))
    }

    /// Whether it is this password's; that takes long, and of argon2id memory. `None`: there is no memory for it.
    pub fn is_of(&self, password: &str) -> Option<bool> {
        if !self.0.starts_with("$argon2") {
            return bcrypt::verify(password, &self.0).ok();
        }
        match Argon2::default().verify_password(password.as_bytes(), &*self.0) {
            Ok(()) => Some(true),
            Err(Error::PasswordInvalid) => Some(false),
            Err(_) => None,
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// `$argon2id$v=19$m=19456,t=2,p=1$`, salt, `$`, hash.
fn check_argon2id(text: &str) -> Result<(), &'static str> {
    const FORM: &str =
        "an argon2 hash is written `$argon2id$v=19$m=19456,t=2,p=1$..$..`, as `lictor hash-key --password` prints it";
    let read = phc::PasswordHash::new(text).map_err(|_| FORM)?;
    if read.algorithm != Algorithm::Argon2id.ident() {
        return Err("of argon2 there is argon2id");
    }
    let params = Params::try_from(&read).map_err(|_| FORM)?;
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let is_whole = read.version == Some(Version::V0x13.into())
        && read.params.as_str() == format!("m={memory},t={passes},p={lanes}")
        && read.salt.is_some()
        && read.hash.is_some_and(|hash| hash.len() >= OUTPUT_MIN)
        && read.to_string() == text;
    match () {
        () if !is_whole => Err(FORM),
        () if !MEMORY.contains(&memory) => Err("an argon2id hash takes from 256 to 65536 KiB (`m`)"),
        () if !PASSES.contains(&passes) => Err("an argon2id hash takes from 1 to 10 passes (`t`)"),
        () if !LANES.contains(&lanes) => Err("an argon2id hash has from 1 to 16 lanes (`p`)"),
        () => Ok(()),
    }
}

/// `$2y$`, a cost, salt and hash.
fn check_bcrypt(text: &str) -> Result<(), &'static str> {
    let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|prefix| text.strip_prefix(prefix)) else {
        return Err(
            "a password is not written down, its hash is: `$argon2id$..`, as `lictor hash-key --password` prints it, or bcrypt's `$2y$..`, as `htpasswd -nB NAME` prints it after the colon",
        );
    };
    let (cost, rest) = rest.split_once('$').ok_or("a bcrypt hash has a cost: `$2y$10$..`")?;
    let is_cost = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    if !is_cost || rest.len() != 53 || text.parse::<bcrypt::HashParts>().is_err() {
        return Err("a bcrypt hash has 60 characters: `$2y$10$..`, 22 of salt and 31 of hash");
    }
    match cost.parse() {
        Ok(cost) if COSTS.contains(&cost) => Ok(()),
        _ => Err("the cost of a bcrypt hash is from 04 to 14"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    /// Of `password`, by the reference implementation (P-H-C/phc-winner-argon2, `src/test.c`).
    const ARGON2ID: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const TWO_LANES: &str = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";

    #[test]
    fn a_password_is_written_as_its_hash_alone() {
        for good in [BCRYPT, ARGON2ID, TWO_LANES] {
            assert_eq!(PasswordHash::parse(good).unwrap().text(), good);
            assert!(!format!("{:?}", PasswordHash::parse(good)).contains(&good[good.len() - 5..]));
        }
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
            "$2y$05$CCCCCCCCCCCCCCCCCCCCCCE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", // no salt ends so: it could not be compared
            "$argon2",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
        ] {
            let error = PasswordHash::parse(wrong).unwrap_err();
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
        for (from, to, said) in [
            ("argon2id", "argon2i", "there is argon2id"),
            ("argon2id", "argon2d", "there is argon2id"),
            ("argon2id", "argon2x", "there is argon2id"),
            ("v=19", "v=16", "is written"),
            ("$v=19", "", "is written"),
            ("m=256,", "", "is written"),
            ("m=256,t=2", "t=2,m=256", "is written"),
            ("m=256", "m=256,m=257", "is written"),
            ("m=256", "m=0256", "is written"),
            ("p=1", "p=1,keyid=YWJj", "is written"),
            ("p=1", "p=1,data=YWJj", "is written"),
            ("p=1", "p=0", "is written"),
            ("p=1", "p=33", "is written"), // 8 KiB for each
            ("t=2", "t=0", "is written"),
            ("c29tZXNhbHQ", "c29tZQ", "is written"),
            ("c29tZXNhbHQ", "c29tZXNhbHQ=", "is written"),
            ("nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "nf65EOgLrQMR/uIPnA4r", "is written"),
            ("/4", "/4$", "is written"),
            ("m=256", "m=255", "65536 KiB"),
            ("m=256", "m=65537", "65536 KiB"),
            ("m=256", "m=4294967295", "65536 KiB"),
            ("t=2", "t=11", "10 passes"),
            ("t=2", "t=4294967295", "10 passes"),
            ("p=1", "p=17", "16 lanes"),
        ] {
            let wrong = ARGON2ID.replacen(from, to, 1);
            let error = PasswordHash::parse(&wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        for (from, to) in [("m=256", "m=65536"), ("t=2", "t=10"), ("p=1", "p=16")] {
            PasswordHash::parse(&ARGON2ID.replacen(from, to, 1)).unwrap();
        }
    }

    #[test]
    fn a_hash_is_of_one_password() {
        let salt = *b"0123456789abcdef";
        let made = PasswordHash::of("password", salt).unwrap();
        assert!(made.text().starts_with("$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$"), "{}", made.text());
        assert_eq!(PasswordHash::parse(made.text()), Ok(made.clone()));
        let parse = |text| PasswordHash::parse(text).unwrap();
        for (hash, password) in [
            (parse(BCRYPT), "secret"),
            (parse(ARGON2ID), "password"),
            (parse(TWO_LANES), "password"),
            (made, "password"),
        ] {
            assert_eq!(hash.is_of(password), Some(true), "{}", hash.text());
            for wrong in ["", "Password", "password ", "secret\0"] {
                assert_eq!(hash.is_of(wrong), Some(false), "{} {wrong:?}", hash.text());
            }
        }
        assert!(PasswordHash::of(&"x".repeat(PASSWORD_MAX + 1), salt).is_none());
    }
}
