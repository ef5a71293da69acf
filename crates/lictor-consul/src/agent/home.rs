//! One registration, one agent: which agent has ours. An address may lead to several of them (a name with several addresses,
//! a load balancer), and one that does not have our registration knows nothing of it: neither that it was forgotten, nor
//! whose beats these are. Nothing here asks anybody.

use std::net::SocketAddr;

use parking_lot::Mutex;
use serde::Deserialize;
use tracing::warn;

/// No more agents are remembered that had our registration before.
const FORMER_MAX: usize = 8;

/// An agent, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its node's name; `None` where the token may not read it, or it has not said.
    pub(super) node: Option<String>,
    /// Where it was reached; `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// Where it says that it listens.
    pub(super) listens: Option<SocketAddr>,
}

impl Seen {
    /// Whether these are one: by their names, where both are known.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.node, &other.node) {
            (Some(node), Some(other)) => node == other,
            (None, _) | (_, None) => self.peer == other.peer,
        }
    }

    /// For the log.
    pub(crate) fn name(&self) -> String {
        let peer = || self.peer.map_or_else(|| "the agent".to_owned(), |peer| peer.to_string());
        self.node.clone().unwrap_or_else(peer)
    }
}

/// Which agents have, or had, our registration.
#[derive(Debug, Default)]
pub(super) struct Home(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Option<Seen>,
    former: Vec<Seen>,
    /// The address leads to several; told.
    is_shared: bool,
}

impl Home {
    /// Who has it.
    pub(super) fn now(&self) -> Option<Seen> {
        self.0.lock().now.clone()
    }

    /// This one has it, unless one does.
    pub(super) fn settle(&self, agent: &Seen) {
        let mut state = self.0.lock();
        state.former.retain(|former| !former.is(agent));
        state.now.get_or_insert_with(|| agent.clone());
    }

    /// Another one is to have it; who had it is remembered, the oldest ones are not.
    pub(super) fn leave(&self) {
        let mut state = self.0.lock();
        let Some(left) = state.now.take() else { return };
        state.former.retain(|former| !former.is(&left));
        state.former.push(left);
        let excess = state.former.len().saturating_sub(FORMER_MAX);
        state.former.drain(..excess);
    }

    pub(super) fn former(&self) -> Vec<Seen> {
        self.0.lock().former.clone()
    }

    /// This one does not have it any more.
    pub(super) fn is_rid_of(&self, agent: &Seen) {
        self.0.lock().former.retain(|former| !former.is(agent));
    }

    /// Where it is to be dialled itself. A load balancer's address leads to anybody.
    pub(super) fn ways(&self, agent: &Seen) -> Vec<SocketAddr> {
        let is_shared = self.0.lock().is_shared;
        let (first, second) = if is_shared { (agent.listens, agent.peer) } else { (agent.peer, agent.listens) };
        let mut ways: Vec<SocketAddr> = first.into_iter().chain(second).collect();
        ways.dedup();
        ways
    }

    /// The address led to somebody else while who has it is there.
    pub(super) fn tell_of(&self, stranger: &Seen) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.is_shared, true) {
            return;
        }
        let (ours, other) = (state.now.as_ref().map(Seen::name).unwrap_or_default(), stranger.name());
        drop(state);
        warn!(
            target: "lictor::event",
            kind = "several_agents",
            %ours,
            %other,
            "Consul's address leads to several agents: the registration stays at the one that has it; give each machine its own agent"
        );
    }
}

/// What `/v1/agent/self` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Says {
    config: Config,
    #[serde(default)]
    debug_config: Option<Debug>,
    #[serde(default)]
    member: Option<Member>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    node_name: Option<String>,
}

#[derive(Deserialize)]
struct Debug {
    #[serde(rename = "HTTPAddrs", default)]
    http: Option<Vec<String>>,
    #[serde(rename = "HTTPSAddrs", default)]
    https: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    #[serde(default)]
    addr: Option<String>,
}

/// Takes what `/v1/agent/self` says.
pub(super) fn seen(body: &[u8], peer: Option<SocketAddr>, is_https: bool) -> Seen {
    let Ok(Says { config, debug_config, member }) = serde_json::from_slice(body) else {
        return Seen { peer, ..Seen::default() };
    };
    let listens = debug_config.and_then(|debug| if is_https { debug.https } else { debug.http }).unwrap_or_default();
    let mut listens = listens.iter().filter_map(|at| at.strip_prefix("tcp://")?.parse::<SocketAddr>().ok());
    let at = member.and_then(|member| member.addr?.parse().ok());
    let listens = listens.next().and_then(|mut listens| {
        if listens.ip().is_unspecified() {
            listens.set_ip(at?);
        }
        Some(listens)
    });
    Seen { node: config.node_name.filter(|name| !name.is_empty()), peer, listens }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(node: Option<&str>, port: u16) -> Seen {
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        Seen { node: node.map(str::to_owned), peer, listens: None }
    }

    #[test]
    fn agents_are_told_apart_by_their_names_and_by_their_addresses_where_those_are_hidden() {
        for (one, other, is_one) in [
            (agent(Some("a"), 1), agent(Some("a"), 2), true),
            (agent(Some("a"), 1), agent(Some("b"), 1), false),
            (agent(None, 1), agent(None, 1), true),
            (agent(None, 1), agent(None, 2), false),
            (agent(Some("a"), 1), agent(None, 1), true),
            (agent(Some("a"), 1), agent(None, 2), false),
        ] {
            assert_eq!((one.is(&other), other.is(&one)), (is_one, is_one), "{one:?} {other:?}");
        }
    }

    #[test]
    fn who_had_it_is_remembered_until_he_is_rid_of_it_or_has_it_again() {
        let home = Home::default();
        for number in 0..FORMER_MAX as u16 + 3 {
            home.settle(&agent(Some(&format!("n{number}")), number));
            home.settle(&agent(Some("late"), 99));
            assert_eq!(home.now().unwrap().name(), format!("n{number}"));
            home.leave();
        }
        let names = |home: &Home| home.former().iter().map(Seen::name).collect::<Vec<_>>();
        assert_eq!((names(&home).len(), names(&home)[0].as_str()), (FORMER_MAX, "n3"));
        home.is_rid_of(&agent(Some("n4"), 7));
        home.settle(&agent(Some("n5"), 7));
        assert_eq!(names(&home)[..2], ["n3", "n6"]);
    }

    #[test]
    fn where_an_agent_listens_is_taken_from_what_it_says() {
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
        for (says, is_https, node, listens) in [
            (
                r#"{"Config":{"NodeName":"a"},"DebugConfig":{"HTTPAddrs":["tcp://127.0.0.2:8500"]}}"#,
                false,
                Some("a"),
                Some("127.0.0.2:8500"),
            ),
            (
                r#"{"Config":{"NodeName":"a"},"DebugConfig":{"HTTPAddrs":["unix:///s","tcp://0.0.0.0:8500"],"HTTPSAddrs":["tcp://[::]:8501"]},"Member":{"Addr":"127.0.0.3"}}"#,
                false,
                Some("a"),
                Some("127.0.0.3:8500"),
            ),
            (
                r#"{"Config":{"NodeName":"a"},"DebugConfig":{"HTTPAddrs":null,"HTTPSAddrs":["tcp://[::]:8501"]},"Member":{"Addr":"::1"}}"#,
                true,
                Some("a"),
                Some("[::1]:8501"),
            ),
            (
                r#"{"Config":{"NodeName":"a"},"DebugConfig":{"HTTPAddrs":["tcp://0.0.0.0:8500"]}}"#,
                false,
                Some("a"),
                None,
            ),
            (r#"{"Config":{"NodeName":""}}"#, false, None, None),
            (r#"{"Config":{"Version":"1.8.7"}}"#, false, None, None),
            ("<html>", false, None, None),
        ] {
            let seen = seen(says.as_bytes(), peer, is_https);
            assert_eq!(
                (seen.node.as_deref(), seen.listens.map(|at| at.to_string()).as_deref()),
                (node, listens),
                "{says}"
            );
            assert_eq!(seen.peer, peer);
        }
    }
}
