//! Host names and their addresses: looked up off the control loop, again every half a minute, and kept through failures.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

/// Names are looked up again this often.
pub(crate) const LOOK_UP_EVERY: Duration = Duration::from_secs(30);

/// What a lookup found.
#[derive(Debug)]
pub(crate) struct Resolved {
    name: String,
    found: io::Result<Vec<SocketAddr>>,
}

/// The names that are needed, and what is known of them.
#[derive(Debug)]
pub(crate) struct Names {
    /// Empty for a name that was never found.
    addresses: HashMap<String, Vec<SocketAddr>>,
    /// Looked up, or about to be, since the last [`Names::forget_times`].
    fresh: HashSet<String>,
    /// Told to be without an address.
    failing: HashSet<String>,
    answers: mpsc::UnboundedSender<Resolved>,
}

impl Names {
    /// Knows nothing. What lookups find comes from the receiver, for [`Names::learn`].
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Resolved>) {
        let (answers, resolved) = mpsc::unbounded_channel();
        (Self { addresses: HashMap::new(), fresh: HashSet::new(), failing: HashSet::new(), answers }, resolved)
    }

    /// By name; absent until the first lookup has ended, one way or another.
    pub(crate) fn addresses(&self) -> &HashMap<String, Vec<SocketAddr>> {
        &self.addresses
    }

    /// These are needed now: new and old ones are looked up, others forgotten.
    pub(crate) fn want(&mut self, names: Vec<String>) {
        self.addresses.retain(|name, _| names.contains(name));
        self.failing.retain(|name| names.contains(name));
        self.fresh.retain(|name| names.contains(name));
        for name in names {
            if self.fresh.insert(name.clone()) {
                let answers = self.answers.clone();
                tokio::spawn(async move {
                    let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Vec::from_iter);
                    let _ = answers.send(Resolved { name, found }); // the loop may have ended
                });
            }
        }
    }

    /// All that is known is old now.
    pub(crate) fn forget_times(&mut self) {
        self.fresh.clear();
    }

    /// Takes what a lookup found. A failure changes nothing that was known.
    pub(crate) fn learn(&mut self, Resolved { name, found }: Resolved) {
        match found {
            Ok(mut addresses) => {
                addresses.sort();
                addresses.dedup();
                self.failing.remove(&name);
                self.addresses.insert(name, addresses);
            }
            Err(error) => {
                if self.failing.insert(name.clone()) {
                    warn!(host = %name, %error, "a host name has no address");
                }
                self.addresses.entry(name).or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, ips: &[&str]) -> Resolved {
        let addresses = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        Resolved { name: name.to_owned(), found: Ok(addresses) }
    }

    fn failed(name: &str) -> Resolved {
        Resolved { name: name.to_owned(), found: Err(io::ErrorKind::NotFound.into()) }
    }

    #[tokio::test]
    async fn a_failed_lookup_keeps_what_was_known() {
        let (mut names, _resolved) = Names::new();
        names.learn(found("a", &["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
        names.learn(failed("a"));
        assert_eq!(names.addresses()["a"].len(), 2);
        names.learn(failed("b"));
        assert!(names.addresses()["b"].is_empty(), "known to have none");
    }

    #[tokio::test]
    async fn names_are_looked_up_once_until_they_are_old_and_forgotten_when_not_needed() {
        let (mut names, mut resolved) = Names::new();
        names.want(vec!["localhost".to_owned()]);
        names.want(vec!["localhost".to_owned()]);
        let answer = resolved.recv().await.unwrap();
        names.learn(answer);
        assert!(!names.addresses()["localhost"].is_empty());
        assert!(resolved.is_empty());
        names.forget_times();
        names.want(vec!["localhost".to_owned()]);
        assert!(resolved.recv().await.is_some());
        names.want(vec![]);
        assert!(names.addresses().is_empty());
        names.want(vec!["localhost".to_owned()]);
        assert!(resolved.recv().await.is_some(), "needed again, looked up again");
    }
}
