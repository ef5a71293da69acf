//! One registration, one agent: what lictor does where an address leads to several agents, or to another one than before,
//! and where two sidecars have one id. Real agents; the load balancer and the name are ours.

use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lictor_testkit::{Backend, Consul, RawServer, Sidecar, eventually_is};
use parking_lot::Mutex;
use serde_json::Value as Json;
use socket2::{Domain, Socket, Type};

use crate::{events, lictor, quiet};

/// Gives each connection to the next of several agents.
struct Balancer {
    agents: Arc<Mutex<Vec<SocketAddr>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    server: RawServer,
}

impl Balancer {
    fn to(agents: &[&Consul]) -> Self {
        let agents: Arc<Mutex<Vec<SocketAddr>>> = Arc::new(Mutex::new(addresses(agents)));
        let (known, turn, open) = (Arc::clone(&agents), AtomicUsize::new(0), Arc::<Mutex<Vec<TcpStream>>>::default());
        let kept = Arc::clone(&open);
        let server = RawServer::start(move |client| {
            let agents = known.lock().clone();
            let agent = agents[turn.fetch_add(1, Relaxed) % agents.len()];
            let Ok(agent) = TcpStream::connect(agent) else { return };
            let _ = client.set_read_timeout(None);
            kept.lock().extend([client.try_clone().unwrap(), agent.try_clone().unwrap()]);
            carry(client, agent);
        });
        Self { agents, open, server }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// From now on it leads there, and all that was open is cut.
    fn leads_to(&self, agents: &[&Consul]) {
        *self.agents.lock() = addresses(agents);
        for stream in self.open.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn addresses(agents: &[&Consul]) -> Vec<SocketAddr> {
    agents.iter().map(|agent| agent.address().parse().unwrap()).collect()
}

fn carry(client: TcpStream, agent: TcpStream) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_agent, mut to_agent) = (agent.try_clone().unwrap(), agent);
    let answers = std::thread::spawn(move || {
        let _ = copy(&mut from_agent, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut from_client, &mut to_agent);
    let _ = to_agent.shutdown(Shutdown::Both);
    let _ = answers.join();
}

/// Which of the agents have an instance of `users`.
fn having(agents: &[&Consul]) -> Vec<usize> {
    let has = |agent: &Consul| {
        agent.json("/v1/agent/services").as_object().is_some_and(|known| known.contains_key("users-1"))
    };
    (0..agents.len()).filter(|index| has(agents[*index])).collect()
}

fn instance(url: &str, port: u16, check: &str) -> Sidecar {
    let yaml = format!(
        "service: users\nport: {port}\nconsul: {{address: '{url}'}}\nlifecycle: {{drain_delay: 1s, drain_timeout: 1s}}\nregistration: {{id: users-1, checks: [{check}]}}\n"
    );
    Sidecar::serve(lictor(), &yaml).up()
}

#[test]
fn a_registration_stays_at_one_agent_of_several_with_its_beats_and_its_end() {
    let agents = Consul::cluster();
    let agents = [&agents[0], &agents[1], &agents[2]];
    let backend = Backend::start("a");
    let balancer = Balancer::to(&agents[..2]);
    let mut lictor = instance(&balancer.url(), backend.port(), "{ttl: 3s}");
    eventually_is("it is registered once", || having(&agents), |at| at.len() == 1);
    let home = having(&agents);
    eventually_is("it is told", || events(&lictor, "several_agents"), |count| *count == 1);
    eventually_is("it passes", || agents[2].passing("users").len(), |count| *count == 1);
    // Again and again, on new connections: beats and watch find the same agent.
    for round in 0..3 {
        balancer.leads_to(&agents[..2]);
        let until = Instant::now() + Duration::from_secs(4); // longer than its time to live
        while Instant::now() < until {
            assert_eq!(agents[2].passing("users"), ["users-1"], "round {round}: it is beaten");
            assert_eq!(having(&agents), home, "round {round}");
            quiet(Duration::from_millis(100));
        }
    }
    assert_eq!((events(&lictor, "reregistered"), events(&lictor, "several_agents")), (0, 1), "{}", lictor.log());
    lictor.terminate();
    assert_eq!(having(&agents), [] as [usize; 0]);
    eventually_is(
        "nobody is listed",
        || agents[2].json("/v1/catalog/service/users"),
        |all| all == &Json::Array(vec![]),
    );
}

#[test]
fn a_switch_to_another_agent_takes_the_registration_with_it() {
    let mut agents = Consul::cluster();
    let backend = Backend::start("a");
    let balancer = Balancer::to(&[&agents[0]]);
    let mut lictor = instance(&balancer.url(), backend.port(), "{ttl: 30s}");
    eventually_is("it is registered", || having(&[&agents[0]]), |at| at.len() == 1);
    agents[0].await_kept(1);
    agents[0].kill();
    balancer.leads_to(&[&agents[1]]);
    eventually_is("it is registered there", || having(&[&agents[1]]), |at| at.len() == 1);
    eventually_is("it is told", || events(&lictor, "reregistered"), |count| *count == 1);
    assert!(lictor.log().contains("\"cause\":\"moved\""), "{}", lictor.log());
    // The first one is back, and knows it still.
    agents[0].resume();
    agents[0].await_nodes(3);
    eventually_is("it is back", || having(&[&agents[0]]), |at| at.len() == 1);
    lictor.terminate();
    assert_eq!(having(&[&agents[0], &agents[1]]), [] as [usize; 0], "{}", lictor.log());
}

#[test]
fn two_sidecars_with_one_id_are_told_once_each() {
    let consul = Consul::dev();
    let backends = ["a", "b"].map(Backend::start);
    let both = backends.each_ref().map(|backend| instance(&consul.url(), backend.port(), "{tcp: true}"));
    for lictor in &both {
        eventually_is("it is told", || events(lictor, "id_contested"), |count| *count == 1);
    }
    quiet(Duration::from_secs(5));
    assert!(both.iter().all(|lictor| events(lictor, "id_contested") == 1));
}

/// A host name with two addresses, the first of them silent; `/etc/hosts` is the test's own, so it needs root.
#[test]
fn a_name_whose_first_address_is_silent_is_reached_at_the_second() {
    let (consul, backend) = (Consul::dev(), Backend::start("a"));
    consul.register("users", "a", backend.port());
    let agent: SocketAddr = consul.address().parse().unwrap();
    // Nobody takes its connections, and its queue is full.
    let address = SocketAddr::from(([127, 0, 0, 2], agent.port()));
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.bind(&address.into()).unwrap();
    silent.listen(0).unwrap();
    let _queued: Vec<_> =
        (0..3).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    let folder = std::env::temp_dir().join(format!("lictor-outages-{}-hosts", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (hosts, wrapper) = (folder.join("hosts"), folder.join("lictor"));
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.2 agent.test\n127.0.0.1 agent.test\n").unwrap();
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /etc/hosts && exec \"$0\" \"$@\"' {} \"$@\"\n",
        hosts.display(),
        lictor()
    );
    std::fs::write(&wrapper, script).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap().success());
    let yaml = format!(
        "registration: off\nconsul: {{address: 'http://agent.test:{}'}}\nupstreams: {{users: 0}}\n",
        agent.port()
    );
    let lictor = Sidecar::serve(&wrapper.display().to_string(), &yaml).up();
    lictor.await_endpoints("users", 1);
    std::fs::remove_dir_all(folder).unwrap();
}
