//! Certificates that are ordered from a CA (ACME; RFC 8555): from whom, for which hosts, and when.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::tls::KeyPair;

/// Let's Encrypt.
pub const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The shortest time until an order that has failed is tried again, where the CA was not there, and where it refused; and the
/// longest that grows by itself.
const UNREACHED: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_secs(60);
const AGAIN_AT_MOST: Duration = Duration::from_secs(86_400);
/// Of a CA that says there were too many, and not for how long.
const LIMITED: Duration = Duration::from_secs(3600);
/// A CA's word counts for at most so long.
pub const TOLD_AT_MOST: Duration = Duration::from_secs(7 * 86_400);
/// A clock may be set so far back, in seconds, and what was written before that counts.
const SLACK: u64 = 86_400;
/// No host has another certificate sooner than so long after one, where that is good for longer.
const RESTS_AT_MOST: Duration = Duration::from_secs(2 * 86_400);
/// Hosts whose certificates came at one time are renewed at different ones: up to this part of their life earlier.
const SPREAD: f64 = 0.05;
/// Whatever a CA says, a certificate is renewed by this part of its life.
const LATEST: f64 = 0.95;

/// From whom certificates are ordered, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acme {
    /// The URL of the CA's directory (RFC 8555, section 7.1.1).
    pub directory: String,
    /// Whom the CA may write to: `mailto:ops@shop.example`.
    pub contact: Vec<String>,
    /// Where account, orders and certificates are kept.
    pub storage: PathBuf,
    /// Who is believed to be the CA's server (PEM); `None`: by the system's CAs.
    pub ca: Option<PathBuf>,
    /// How we show that a host is ours.
    pub challenge: Challenge,
}

/// How we show that a host is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// By an answer without TLS, on port 80 (RFC 8555, section 8.3).
    Http01,
    /// By a handshake, on port 443 (RFC 8737).
    TlsAlpn01,
}

/// A host's certificate, and from whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// As it is read from a request.
    pub host: Box<str>,
    /// From whom.
    pub acme: Arc<Acme>,
}

impl Acme {
    /// What is kept of this CA's: one CA's certificates do not stand in for another's.
    pub fn folder(&self) -> PathBuf {
        let rest = self.directory.split_once("://").map_or(&*self.directory, |(_, rest)| rest);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '-';
        self.storage.join(rest.replace(|letter| !is_plain(letter), "_"))
    }

    /// Where the account is; no host has a `_`.
    pub fn account(&self) -> PathBuf {
        self.folder().join("_account.json")
    }

    /// Where a host's certificate and key are: one file, so that one rename replaces both.
    pub fn identity(&self, host: &str) -> KeyPair {
        let file = self.folder().join(format!("{host}.pem"));
        KeyPair { cert: file.clone(), key: file }
    }
}

impl Order {
    /// Certificate and key.
    pub fn file(&self) -> PathBuf {
        self.acme.identity(&self.host).cert
    }

    /// Where it is written down how far the order is.
    pub fn progress(&self) -> PathBuf {
        self.acme.folder().join(format!("{}.json", self.host))
    }

    /// The folder that only one gateway at a time orders for.
    pub fn storage(&self) -> &Path {
        &self.acme.storage
    }
}

/// Why an order has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The CA gave no answer: it has counted nothing.
    Unreached,
    /// It refused, or what it gave is of no use.
    Refused,
    /// There were too many (`rateLimited`; RFC 8555, section 6.6).
    Limited,
}

/// When a certificate is renewed that is good from `begins` to `ends`: at some time of the CA's window, if it has one (RFC 9773,
/// section 4.2) that is not over too late; else when two thirds of its life are over, or a little earlier. `chance` is 0 to 1.
pub fn renewal(begins: u64, ends: u64, window: Option<(u64, u64)>, chance: f64) -> u64 {
    let at = |from: u64, length: u64, part: f64| from + (length as f64 * part) as u64;
    let life = ends.saturating_sub(begins);
    match window {
        Some((from, to)) => at(from, to.saturating_sub(from), chance).min(at(begins, life, LATEST)),
        None => at(begins, life, 2.0 / 3.0 - SPREAD * chance),
    }
}

/// How long after a certificate that is good from `begins` to `ends` no other is ordered in its place, whatever the CA says, or a clock
/// that is wrong: a third of its life, at most two days.
pub fn rest(begins: u64, ends: u64) -> Duration {
    Duration::from_secs(ends.saturating_sub(begins) / 3).min(RESTS_AT_MOST)
}

/// Until when nothing is asked, where `written` was written down. What is further away than anything is put off was written by a clock
/// that was ahead, and does not count.
pub fn until(written: u64, now: u64) -> u64 {
    let most = TOLD_AT_MOST.max(AGAIN_AT_MOST).as_secs() + SLACK;
    if written > now.saturating_add(most) { 0 } else { written }
}

/// How long nothing is asked of a CA after so many failures in a row: some seconds or a minute, then twice as long each time, to a
/// day, and up to a quarter more by `chance`; longer where the CA has said so.
pub fn again(failures: u32, cause: Cause, told: Option<Duration>, chance: f64) -> Duration {
    let first = if cause == Cause::Unreached { UNREACHED } else { REFUSED };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(AGAIN_AT_MOST);
    let spread = doubled.mul_f64(1.0 + chance / 4.0).min(AGAIN_AT_MOST);
    let told = told.map(|told| told.min(TOLD_AT_MOST)).or((cause == Cause::Limited).then_some(LIMITED));
    spread.max(told.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
        for (what, begins, ends, chance, expected) in [
            ("90 days", 0, 90 * DAY, 0.0, 60 * DAY),
            ("90 days, spread", 0, 90 * DAY, 1.0, 55 * DAY + DAY / 2),
            ("6 days", 1000 * DAY, 1006 * DAY, 0.0, 1004 * DAY),
            ("seconds", 100, 112, 0.0, 108),
            ("the other way round", 10, 5, 0.5, 10),
        ] {
            let seen = renewal(begins, ends, None, chance);
            assert!(seen.abs_diff(expected) <= 1, "{what}: {seen}");
        }
        for (what, window, chance, expected) in [
            ("at its beginning", (10, 20), 0.0, 10),
            ("within", (10, 20), 0.5, 15),
            ("at its end", (10, 20), 1.0, 20),
            ("later than by itself", (80, 90), 0.0, 80),
            ("too late", (200, 300), 0.5, 95),
            ("the other way round", (20, 10), 0.5, 20),
        ] {
            assert_eq!(renewal(0, 100, Some(window), chance), expected, "{what}");
        }
    }

    #[test]
    fn after_one_certificate_there_is_no_other_for_a_while() {
        for (begins, ends, expected) in
            [(0, 90 * DAY, 2 * DAY), (0, 6 * DAY, 2 * DAY), (10, 22, 4), (10, 10, 0), (10, 5, 0)]
        {
            assert_eq!(rest(begins, ends), Duration::from_secs(expected), "{begins} {ends}");
        }
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_written_does_not_count() {
        let now = 1000 * DAY;
        for (written, expected) in [
            (0, 0),
            (now, now),
            (now + 7 * DAY, now + 7 * DAY),
            (now + 8 * DAY, now + 8 * DAY),
            (now + 8 * DAY + 1, 0),
            (u64::MAX, 0),
        ] {
            assert_eq!(until(written, now), expected, "{written}");
        }
        assert_eq!(until(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_ca_is_asked_less_and_less_often_and_never_earlier_than_it_says() {
        use Cause::{Limited, Refused, Unreached};
        let s = Duration::from_secs;
        for (failures, cause, told, chance, expected) in [
            (1, Unreached, None, 0.0, s(5)),
            (2, Unreached, None, 1.0, s(12) + Duration::from_millis(500)),
            (20, Unreached, None, 1.0, s(86_400)),
            (1, Refused, None, 0.0, s(60)),
            (1, Refused, None, 1.0, s(75)),
            (2, Refused, None, 0.0, s(120)),
            (3, Refused, None, 0.5, s(270)),
            (12, Refused, None, 1.0, s(86_400)),
            (u32::MAX, Refused, None, 0.0, s(86_400)),
            (0, Refused, None, 0.0, s(60)),
            (1, Refused, Some(s(5)), 0.0, s(60)),
            (1, Refused, Some(s(600)), 0.0, s(600)),
            (1, Unreached, Some(s(600)), 0.0, s(600)),
            (1, Limited, Some(s(600)), 0.0, s(600)),
            (1, Limited, None, 0.0, s(3600)),
            (12, Limited, None, 0.0, s(86_400)),
            (1, Refused, Some(s(2 * 86_400)), 0.0, s(2 * 86_400)),
            (1, Refused, Some(s(u64::MAX)), 0.0, s(7 * 86_400)),
        ] {
            assert_eq!(again(failures, cause, told, chance), expected, "{failures} {cause:?} {told:?} {chance}");
        }
    }

    #[test]
    fn each_ca_has_a_folder_and_each_host_a_file() {
        let at = |directory: &str| Acme {
            directory: directory.to_owned(),
            contact: Vec::new(),
            storage: "/s".into(),
            ca: None,
            challenge: Challenge::Http01,
        };
        for (directory, folder) in [
            (DIRECTORY, "/s/acme-v02.api.letsencrypt.org_directory"),
            ("https://127.0.0.1:14000/dir", "/s/127.0.0.1_14000_dir"),
            ("https://[::1]/../../x?y=%2f", "/s/___1__.._.._x_y__2f"),
        ] {
            assert_eq!(at(directory).folder(), Path::new(folder), "{directory}");
        }
        // Each file that is written has a draft beside it.
        let order = Order { host: "account".into(), acme: Arc::new(at("https://ca/")) };
        for ending in ["json", "draft", "lost"] {
            let account = order.acme.account().with_extension(ending);
            assert!(![order.progress(), order.file()].contains(&account), "{ending}");
            assert_ne!(account, order.progress().with_extension(ending));
        }
        assert_eq!(at("https://ca/").identity("a.example").key, Path::new("/s/ca_/a.example.pem"));
    }
}
