//! Host names and their addresses: looked up off the control loop, again every half a minute, sooner where that failed, and
//! kept through failures. How names are looked up, and that one that hangs holds up no other, is `lictor_os::names`'.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{info, warn};

/// Names are looked up again this often.
const AGAIN: Duration = Duration::from_secs(30);
/// One that was not found sooner: after 1, 2, 4, .. s.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Whoever waits for a name waits no longer; its look-up goes on.
const WITHIN: Duration = Duration::from_secs(3);

/// What a look-up found.
#[derive(Debug)]
pub(crate) struct Resolved {
    name: String,
    found: io::Result<Vec<IpAddr>>,
    /// Otherwise it goes on, and says more.
    is_over: bool,
}

/// The names that are needed, and what is known of them.
#[derive(Debug)]
pub(crate) struct Names {
    /// Empty for a name that was never found; in order.
    addresses: HashMap<String, Vec<IpAddr>>,
    states: HashMap<String, State>,
    /// Those that are being looked up, needed or not: none is twice.
    running: HashSet<String>,
    answers: mpsc::UnboundedSender<Resolved>,
}

/// How a name that is needed does.
#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// When it is to be looked up; `None`: at once, or it is being.
    due: Option<Instant>,
}

impl Names {
    /// Knows nothing. What look-ups find comes from the receiver, for [`Names::learn`].
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Resolved>) {
        let (answers, resolved) = mpsc::unbounded_channel();
        let (addresses, states, running) = Default::default();
        (Self { addresses, states, running, answers }, resolved)
    }

    /// By name; absent until the first look-up has ended, one way or another, or has taken long enough.
    pub(crate) fn addresses(&self) -> &HashMap<String, Vec<IpAddr>> {
        &self.addresses
    }

    /// These are needed now: what is due of them is looked up, others are forgotten.
    pub(crate) fn want(&mut self, names: Vec<String>, now: Instant) {
        let names: HashSet<String> = names.into_iter().collect();
        self.addresses.retain(|name, _| names.contains(name));
        self.states.retain(|name, _| names.contains(name));
        for name in names {
            let state = self.states.entry(name.clone()).or_default();
            if state.due.is_none_or(|due| due <= now) && self.running.insert(name.clone()) {
                state.due = None;
                tokio::spawn(look_up(name, self.answers.clone()));
            }
        }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.states.values().filter_map(|state| state.due).min()
    }

    /// Takes what a look-up found; whether that is news. A failure changes nothing that was known.
    pub(crate) fn learn(&mut self, Resolved { name, found, is_over }: Resolved, now: Instant) -> bool {
        if is_over {
            self.running.remove(&name);
        }
        let Some(state) = self.states.get_mut(&name) else { return false }; // nobody needs it any more
        match found {
            Ok(mut addresses) => {
                addresses.sort_unstable(); // the order says nothing, and is another one each time
                if std::mem::take(&mut state.failures) > 0 {
                    info!(host = %name, "a host name has an address again");
                }
                state.due = Some(now + AGAIN);
                self.addresses.insert(name, addresses.clone()) != Some(addresses)
            }
            Err(error) => {
                let is_news = !self.addresses.contains_key(&name);
                let known = self.addresses.entry(name.clone()).or_default();
                if state.failures == 0 {
                    warn!(host = %name, %error, kept = known.len(), "a host name has no address");
                }
                state.failures = state.failures.saturating_add(1);
                if is_over {
                    state.due = Some(now + AFTER_FAILURE.saturating_mul(1 << (state.failures - 1).min(16)).min(AGAIN));
                }
                is_news
            }
        }
    }
}

/// Says what there is within [`WITHIN`], and what comes of it later.
async fn look_up(name: String, answers: mpsc::UnboundedSender<Resolved>) {
    let mut looking = pin!(lictor_os::names::look_up(&name));
    let say = |found, is_over| {
        let _ = answers.send(Resolved { name: name.clone(), found, is_over }); // the loop may have ended
    };
    match tokio::time::timeout(WITHIN, &mut looking).await {
        Ok(found) => say(found, true),
        Err(_) => {
            say(Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {WITHIN:?}"))), false);
            say(looking.await, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, ips: &[&str]) -> Resolved {
        let addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Resolved { name: name.to_owned(), found: Ok(addresses), is_over: true }
    }

    fn failed(name: &str) -> Resolved {
        Resolved { name: name.to_owned(), found: Err(io::ErrorKind::NotFound.into()), is_over: true }
    }

    fn late(name: &str) -> Resolved {
        Resolved { is_over: false, ..failed(name) }
    }

    /// Names that are known to be running, so that no test asks the system.
    fn wanting(names: &[&str]) -> Names {
        let (mut known, _) = Names::new();
        for name in names {
            known.running.insert((*name).to_owned());
            known.states.insert((*name).to_owned(), State::default());
        }
        known
    }

    #[test]
    fn a_failed_look_up_keeps_what_was_known() {
        let (mut names, now) = (wanting(&["a", "b"]), Instant::now());
        names.learn(found("a", &["10.0.0.2", "10.0.0.1"]), now);
        names.learn(failed("a"), now);
        assert_eq!(names.addresses()["a"].len(), 2);
        assert!(names.learn(failed("b"), now), "that it has none is news");
        assert!(!names.learn(failed("b"), now), "once");
        assert!(!names.learn(found("a", &["10.0.0.1", "10.0.0.2"]), now), "in another order");
        assert!(names.learn(found("a", &["10.0.0.3"]), now));
        assert!(names.addresses()["b"].is_empty(), "known to have none");
    }

    #[test]
    fn one_that_failed_is_looked_up_again_soon_and_one_that_did_not_later() {
        let (mut names, now) = (wanting(&["a"]), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            names.learn(failed("a"), now);
            waits.push(names.due().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        names.learn(found("a", &["10.0.0.1"]), now);
        assert_eq!(names.due(), Some(now + AGAIN));
        names.learn(failed("a"), now);
        assert_eq!(names.due(), Some(now + AFTER_FAILURE));
    }

    #[test]
    fn one_that_hangs_is_known_to_have_no_address_yet_and_is_not_asked_twice() {
        let (mut names, now) = (wanting(&["hangs"]), Instant::now());
        assert!(!names.addresses().contains_key("hangs"));
        names.learn(late("hangs"), now);
        assert!(names.addresses()["hangs"].is_empty(), "nobody waits for it any more");
        assert_eq!(names.due(), None);
        names.want(vec!["hangs".to_owned()], now + AGAIN);
        assert!(names.running.contains("hangs"));
        names.learn(found("hangs", &["10.0.0.1"]), now);
        assert_eq!(names.addresses()["hangs"].len(), 1, "what it says in the end counts");
        assert!(names.running.is_empty());
    }

    #[tokio::test]
    async fn names_are_looked_up_once_until_they_are_due_and_forgotten_when_not_needed() {
        let (mut names, mut resolved) = Names::new();
        let (now, wanted) = (Instant::now(), || vec!["localhost".to_owned()]);
        names.want(wanted(), now);
        names.want(wanted(), now);
        let answer = resolved.recv().await.unwrap();
        names.learn(answer, now);
        assert!(!names.addresses()["localhost"].is_empty());
        names.want(wanted(), now + AGAIN / 2);
        assert!(names.running.is_empty() && resolved.is_empty());
        names.want(wanted(), now + AGAIN);
        names.want(vec![], now);
        assert!(names.addresses().is_empty() && names.due().is_none());
        let answer = resolved.recv().await.unwrap();
        names.learn(answer, now);
        assert!(names.addresses().is_empty(), "nobody needs it");
        names.want(wanted(), now);
        assert!(resolved.recv().await.is_some(), "needed again, looked up again");
    }
}
