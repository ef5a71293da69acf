//! TLS as the configuration names it: files and names. `lictor-tls` reads the files, and again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::gateway::HostPattern;
use crate::gateway::host;

/// A certificate and its private key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPair {
    /// The certificate, followed by the intermediate ones.
    pub cert: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// What we show to clients of a listener, and what they have to show: a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTls {
    /// What we show.
    pub identity: KeyPair,
    /// Clients are asked for a certificate of one of these CAs (PEM); `None`: they are not asked.
    pub client_ca: Option<PathBuf>,
    /// Who is asked and shows none is refused. What is shown must be believed either way.
    pub requires: bool,
    /// What we show may come later: it is ordered from a CA. Until then nobody is shown anything.
    pub is_awaited: bool,
}

/// TLS on a listener: which policy is whose, by the name that a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// Each once: what is written twice is one policy.
    policies: Vec<ServerTls>,
    exact: BTreeMap<Box<str>, usize>,
    /// Of names under these, which begin with a dot.
    under: BTreeMap<Box<str>, usize>,
    /// Of all other names, and of clients that ask for none.
    default: Option<usize>,
}

impl From<ServerTls> for ListenerTls {
    fn from(policy: ServerTls) -> Self {
        Self { policies: vec![policy], default: Some(0), ..Self::default() }
    }
}

impl ListenerTls {
    /// Adds a policy for this host; false if the host has one already.
    pub fn add(&mut self, host: &HostPattern, policy: &ServerTls) -> bool {
        let known = self.policies.iter().position(|known| known == policy);
        let index = known.unwrap_or(self.policies.len());
        let is_new = match host {
            HostPattern::Exact(host) => insert(&mut self.exact, host, index),
            HostPattern::Under(end) => insert(&mut self.under, end, index),
            HostPattern::Any => self.default.is_none() && self.default.replace(index).is_none(),
        };
        if is_new && known.is_none() {
            self.policies.push(policy.clone());
        }
        is_new
    }

    /// By the indices of [`ListenerTls::policy`].
    pub fn policies(&self) -> &[ServerTls] {
        &self.policies
    }

    /// Whose policy it is: the host's own before the longest `*.` before that of all others. The host is as it was read, in
    /// a request as in a handshake; `None`: the client names none.
    pub fn policy(&self, host: Option<&str>) -> Option<usize> {
        let Some(host) = host.filter(|_| !self.exact.is_empty() || !self.under.is_empty()) else { return self.default };
        let ends = host.match_indices('.').map(|(at, _)| &host[at..]).filter(|end| end.len() < host.len());
        let of_name = || ends.into_iter().find_map(|end| self.under.get(end));
        self.exact.get(host).or_else(of_name).copied().or(self.default)
    }

    /// The same by a name that nobody has read yet (RFC 6066, section 3).
    pub fn policy_of_name(&self, name: Option<&str>) -> Option<usize> {
        match name.map(host::read) {
            None => self.policy(None),
            Some(Ok(host)) => self.policy(Some(&host)),
            Some(Err(_)) => None,
        }
    }

    /// Whether there is one policy for all.
    pub fn is_one_for_all(&self) -> bool {
        self.policies.len() == 1 && self.default == Some(0)
    }

    /// Whether a client that satisfied another's policies satisfies these, whichever they were.
    pub fn asks_no_more_than(&self, other: &Self) -> bool {
        self.policies.iter().all(|policy| policy.client_ca.is_none()) || self.demands() == other.demands()
    }

    /// What is asked of clients, by host.
    fn demands(&self) -> BTreeSet<(&str, Option<&PathBuf>, bool)> {
        let named = self.exact.iter().chain(&self.under).map(|(host, index)| (&**host, *index));
        let all = named.chain(self.default.map(|index| ("", index)));
        all.map(|(host, index)| (host, self.policies[index].client_ca.as_ref(), self.policies[index].requires))
            .collect()
    }
}

fn insert(hosts: &mut BTreeMap<Box<str>, usize>, host: &str, index: usize) -> bool {
    let is_new = !hosts.contains_key(host);
    if is_new {
        hosts.insert(host.into(), index);
    }
    is_new
}

/// TLS towards an upstream's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTls {
    /// PEM with the CAs that are believed; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What we show when we are asked.
    pub identity: Option<KeyPair>,
    /// For SNI, and what the certificate must name (its SAN); `None`: the endpoint's host name or IP address.
    pub server_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(cert: &str, client_ca: Option<&str>) -> ServerTls {
        let identity = KeyPair { cert: cert.into(), key: cert.into() };
        ServerTls { identity, client_ca: client_ca.map(Into::into), requires: true, is_awaited: false }
    }

    fn listener(rows: &[(&str, &ServerTls)]) -> ListenerTls {
        let mut tls = ListenerTls::default();
        for (host, policy) in rows {
            assert!(tls.add(&HostPattern::parse(host).unwrap(), policy), "{host}");
        }
        tls
    }

    #[test]
    fn a_host_has_its_own_policy_before_a_wildcards_before_the_rest() {
        let (shop, under, deep, rest) =
            (policy("shop", None), policy("under", None), policy("deep", None), policy("rest", None));
        let rows = [
            ("shop.example", &shop),
            ("*.shop.example", &under),
            ("*.a.shop.example", &deep),
            ("other.example", &shop),
        ];
        for (with_rest, unknown) in [(false, None), (true, Some("rest"))] {
            let mut tls = listener(&rows);
            assert!(!with_rest || tls.add(&HostPattern::Any, &rest));
            let named = |index: Option<usize>| {
                index.map(|index| tls.policies()[index].identity.cert.to_str().unwrap().to_owned())
            };
            for (name, expected) in [
                (Some("shop.example"), Some("shop")),
                (Some("SHOP.example"), Some("shop")),
                (Some("shop.example."), Some("shop")),
                (Some("other.example"), Some("shop")),
                (Some("b.shop.example"), Some("under")),
                (Some("a.shop.example"), Some("under")),
                (Some("b.a.shop.example"), Some("deep")),
                (Some("c.b.a.shop.example"), Some("deep")),
                (Some("ashop.example"), unknown),
                (Some("example"), unknown),
                (Some("a b"), None),
                (Some(""), None),
                (None, unknown),
            ] {
                assert_eq!(named(tls.policy_of_name(name)).as_deref(), expected, "{name:?}");
            }
        }
        let mut tls = listener(&rows);
        assert!(!tls.add(&HostPattern::parse("Shop.example").unwrap(), &rest) && tls.policies().len() == 3);
        assert!(!tls.is_one_for_all() && ListenerTls::from(shop).is_one_for_all());
    }

    #[test]
    fn whoever_satisfied_the_old_policies_satisfies_new_ones_that_ask_no_more() {
        let (open, other) = (policy("a", None), policy("b", None));
        let (asks, asks_same, asks_other) =
            (policy("a", Some("ca")), policy("b", Some("ca")), policy("a", Some("other")));
        let optional = ServerTls { requires: false, ..asks.clone() };
        let of = |policy: &ServerTls| ListenerTls::from(policy.clone());
        let rows = [
            ("another certificate", of(&open), of(&other), true),
            ("a certificate is asked for", of(&open), of(&asks), false),
            ("by the same CA, with another certificate", of(&asks), of(&asks_same), true),
            ("another CA", of(&asks), of(&asks_other), false),
            ("none is asked for any more", of(&asks), of(&open), true),
            ("it may be shown now", of(&open), of(&optional), false),
            ("it must be shown now", of(&optional), of(&asks), false),
            ("for one host", listener(&[("a", &open), ("*", &open)]), listener(&[("a", &asks), ("*", &open)]), false),
            ("a host that asked is gone", listener(&[("a", &open), ("*", &asks)]), listener(&[("*", &asks)]), false),
            ("another host", listener(&[("a", &asks)]), listener(&[("a", &asks), ("b", &open)]), false),
        ];
        for (name, before, after, expected) in rows {
            assert_eq!(after.asks_no_more_than(&before), expected, "{name}");
        }
    }
}
