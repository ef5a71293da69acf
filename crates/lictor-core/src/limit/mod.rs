//! How often somebody may ask: limits on rates, as data and pure functions. Time is an argument: nanoseconds since whenever
//! the process likes, on a clock that nobody sets.
//!
//! - A [`Limit`] says how much ([`Quota`]), of what each key has its own ([`Part`]), and what becomes of it.
//! - A [`State`] is what is remembered of one key; [`Quota::take`] is the whole of the arithmetic.
//! - [`Table`] remembers keys, and never more than it has room for.
//! - [`Share`] is what one of several gateways may admit of a limit that they have together.

mod key;
mod quota;
mod share;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::hash::hash_bytes;
use crate::secret::Secret;
use crate::tls::ClientTls;

pub use key::{Facts, Network};
pub use quota::{Algorithm, Decision, Quota, State};
pub use share::Share;
pub use table::Table;

/// A limit on how often somebody may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Where it was written: `gateway`, `inbound`, or a route's label. The metric label.
    pub scope: Arc<str>,
    /// How much each key has.
    pub quota: Quota,
    /// What makes a key; nothing: all requests have one.
    pub by: Box<[Part]>,
    /// Who counts.
    pub mode: Mode,
    /// What becomes of a request when `redis` cannot be asked.
    pub if_unreachable: IfUnreachable,
    /// Whether it refuses; if not, it only counts what it would have refused.
    pub is_enforced: bool,
    /// What answers tell of it.
    pub fields: Fields,
    /// What tells it from every other limit, and from itself with another rate ([`Limit::identify`]).
    pub id: Id,
}

/// What tells a limit from others: equal for equal limits of equal places, in every gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Id {
    /// In words.
    pub text: Arc<str>,
    number: u64,
}

/// What a key is made of. A request that has no such thing has "nothing" there, which is a value like others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The route's label.
    Route,
    /// Who the request's credentials say that it is.
    User,
    /// The client's network: an IPv4 address, or the first 64 bits of an IPv6 address.
    Ip,
    /// The API key's name.
    Key,
    /// A field of the request, all lines of it.
    Header(HeaderName),
    /// What a verified token says, by the claim's name.
    Claim(Box<str>),
}

/// Who counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// This process.
    #[default]
    Local,
    /// This process, its part: the limit, divided by the instances of our own service that are well.
    Shared,
    /// Redis, for all that ask it.
    Redis,
}

/// What becomes of a request when Redis cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfUnreachable {
    /// This process counts.
    #[default]
    Local,
    /// It is refused.
    Refuse,
}

/// Where limits may be counted for several processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// A name or an address.
    pub host: String,
    /// Usually 6379.
    pub port: u16,
    /// `None`: the user `default`.
    pub username: Option<String>,
    /// `None`: it asks for none.
    pub password: Option<Secret>,
    /// Its number.
    pub database: u32,
    /// How long one decision may take. Default 50 ms.
    pub timeout: Duration,
    /// TLS to it; `None`: there is none.
    pub tls: Option<ClientTls>,
}

/// What answers tell of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` (the drafts up to -06).
    #[default]
    Old,
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    New,
    /// All five.
    Both,
    /// Nothing.
    Off,
}

impl Limit {
    /// Names it by where it was written and what it says; `place` is its place among the limits there.
    #[must_use]
    pub fn identify(mut self, scope: &Arc<str>, place: usize) -> Self {
        let Quota { algorithm, requests, window, burst } = self.quota;
        let by: Vec<String> = self.by.iter().map(Part::to_string).collect();
        let window = window.as_millis();
        let text = format!("{scope}#{place} {algorithm} {requests}/{window}ms+{burst} {}", by.join("+"));
        self.id = Id { number: hash_bytes(text.as_bytes()), text: text.into() };
        self.scope = Arc::clone(scope);
        self
    }

    /// Whether it can be asked only when it is known who the client is.
    pub fn needs_identity(&self) -> bool {
        self.by.iter().any(|part| matches!(part, Part::User | Part::Key | Part::Claim(_)))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("route"),
            Self::User => f.write_str("user"),
            Self::Ip => f.write_str("ip"),
            Self::Key => f.write_str("key"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Claim(name) => write!(f, "claim {name}"),
        }
    }
}

impl Mode {
    /// All of them, by their words.
    pub const ALL: [(&'static str, Self); 3] =
        [("local", Self::Local), ("shared", Self::Shared), ("redis", Self::Redis)];
}

impl IfUnreachable {
    /// All of them, by their words.
    pub const ALL: [(&'static str, Self); 2] = [("local", Self::Local), ("refuse", Self::Refuse)];
}

impl Fields {
    /// All of them, by their words.
    pub const ALL: [(&'static str, Self); 4] =
        [("old", Self::Old), ("new", Self::New), ("both", Self::Both), ("off", Self::Off)];
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn limit(by: &[Part]) -> Limit {
        let quota =
            Quota { algorithm: Algorithm::TokenBucket, requests: 10, window: Duration::from_secs(60), burst: 10 };
        let limit = Limit {
            scope: "test".into(),
            quota,
            by: by.into(),
            mode: Mode::Local,
            if_unreachable: IfUnreachable::Local,
            is_enforced: true,
            fields: Fields::Old,
            id: Id::default(),
        };
        limit.identify(&"test".into(), 0)
    }

    #[test]
    fn limits_that_differ_in_place_or_rate_are_others() {
        let base = limit(&[Part::Ip]);
        let mut ids = std::collections::HashSet::from([base.id.text.clone()]);
        let burst = Quota { burst: 11, ..base.quota };
        let window = Quota { window: Duration::from_millis(60_001), ..base.quota };
        let requests = Quota { requests: 11, ..base.quota };
        let algorithm = Quota { algorithm: Algorithm::FixedWindow, ..base.quota };
        for quota in [burst, window, requests, algorithm] {
            assert!(ids.insert(Limit { quota, ..base.clone() }.identify(&"test".into(), 0).id.text));
        }
        assert!(ids.insert(base.clone().identify(&"test".into(), 1).id.text));
        assert!(ids.insert(base.clone().identify(&"/test".into(), 0).id.text));
        assert!(ids.insert(limit(&[Part::User]).id.text));
        let dry = Limit { is_enforced: false, fields: Fields::Off, ..base.clone() };
        assert_eq!(dry.identify(&"test".into(), 0).id, base.id, "what is told of it is not what it counts");
    }
}
