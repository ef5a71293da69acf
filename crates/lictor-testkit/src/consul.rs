//! A real Consul agent.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::client::{self, Answer};
use crate::{eventually, eventually_is, free_ports, root, scratch};

/// The management token of agents with ACLs.
pub const MANAGEMENT: &str = "11111111-2222-3333-4444-555555555555";

/// An agent on ports of its own.
#[derive(Debug)]
pub struct Consul {
    process: Option<Child>,
    ports: [u16; 4],
    folder: PathBuf,
    has_data: bool,
    has_acls: bool,
    is_client: bool,
    /// Further configuration, in HCL.
    more: String,
    /// The serf ports of a cluster's servers; empty for a single one.
    members: Vec<u16>,
}

impl Consul {
    /// `consul agent -dev`: everything is forgotten when it ends.
    pub fn dev() -> Self {
        Self::start(false, false, "")
    }

    /// The same with further configuration, in HCL.
    pub fn dev_with(more: &str) -> Self {
        Self::start(false, false, more)
    }

    /// The agent of another datacenter, which has found this one: each asks the other's servers.
    #[must_use]
    pub fn another_datacenter(&self, name: &str) -> Self {
        let wan = self.ports[3];
        let other = Self::dev_with(&format!(
            "datacenter = \"{name}\"\nretry_join_wan = [\"127.0.0.1:{wan}\"]\nretry_interval_wan = \"200ms\"\n"
        ));
        eventually("the datacenters know each other", || {
            let nodes = self.json(&format!("/v1/catalog/nodes?dc={name}"));
            if nodes.as_array().is_some_and(|nodes| !nodes.is_empty()) { Ok(()) } else { Err(nodes) }
        });
        other
    }

    /// Takes an instance out of circulation, or puts it back.
    pub fn maintain(&self, id: &str, is_out: bool) {
        self.put(&format!("/v1/agent/service/maintenance/{id}?enable={is_out}"), &Json::Null);
    }

    /// A server with a data folder.
    pub fn server() -> Self {
        Self::start(true, false, "")
    }

    /// A server where nothing is allowed without a token.
    pub fn with_acls() -> Self {
        Self::start(true, true, "")
    }

    /// Three servers with data folders that have found each other.
    pub fn cluster() -> [Self; 3] {
        let mut servers = [(); 3].map(|()| Self::new(true, false));
        let members: Vec<u16> = servers.iter().map(|server| server.ports[2]).collect();
        for server in &mut servers {
            server.members.clone_from(&members);
            server.launch();
        }
        for server in &servers {
            server.await_nodes(3);
        }
        servers
    }

    /// A client agent of this server's cluster, with a data folder.
    #[must_use]
    pub fn client(&self) -> Self {
        let mut client = Self::new(true, false);
        client.is_client = true;
        client.members.clone_from(&self.members);
        client.spawn();
        client
    }

    fn start(has_data: bool, has_acls: bool, more: &str) -> Self {
        let mut consul = Self::new(has_data, has_acls);
        more.clone_into(&mut consul.more);
        consul.spawn();
        consul
    }

    fn new(has_data: bool, has_acls: bool) -> Self {
        let folder = scratch("consul");
        Self {
            process: None,
            ports: free_ports(),
            folder,
            has_data,
            has_acls,
            is_client: false,
            more: String::new(),
            members: Vec::new(),
        }
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Where its server speaks to others: what `/v1/status/leader` says of the leader.
    pub fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends it in order (SIGTERM): a client agent leaves its cluster.
    pub fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
            eventually("Consul ends", || process.try_wait().ok().flatten().ok_or("it runs"));
        }
    }

    /// Holds it, or lets it go on.
    pub fn pause(&self, is_paused: bool) {
        let process = self.process.as_ref().expect("it runs");
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(process), signal).expect("it runs");
    }

    /// Waits until so many registrations are on its disk: then it has them after a kill, too. It lists them a moment before.
    pub fn await_kept(&self, count: usize) {
        let kept = || std::fs::read_dir(self.folder.join("data/services")).into_iter().flatten().flatten();
        let is_whole = |file: &std::fs::DirEntry| !file.file_name().to_string_lossy().contains("tmp");
        eventually_is("its registrations are on its disk", || kept().filter(is_whole).count(), |kept| *kept == count);
    }

    /// Kills it and starts it again on the same ports, with whatever data it kept.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Starts it again after a kill, and waits for nothing: a server alone has no leader to wait for.
    pub fn resume(&mut self) {
        self.launch();
    }

    /// A call to its API, and the answer as JSON; panics unless it answers 200.
    pub fn answer(&self, method: &str, path: &str, body: &Json) -> Json {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.call(method, path, body.as_bytes());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        serde_json::from_str(&answer.text()).unwrap_or(Json::Null)
    }

    /// A PUT to its API; panics unless it answers 200.
    pub fn put(&self, path: &str, body: &Json) {
        let answer = self.call("PUT", path, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "PUT {path}: {}", answer.text());
    }

    /// A GET from its API.
    pub fn json(&self, path: &str) -> Json {
        serde_json::from_str(&self.call("GET", path, b"").text()).unwrap_or(Json::Null)
    }

    /// Registers a service that is somebody else's.
    pub fn register(&self, name: &str, id: &str, port: u16) {
        let body = json!({ "Name": name, "ID": id, "Address": "127.0.0.1", "Port": port });
        self.put("/v1/agent/service/register", &body);
    }

    /// Removes it.
    pub fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &Json::Null);
    }

    /// Ids of the instances whose checks all pass.
    pub fn passing(&self, service: &str) -> Vec<String> {
        let instances = self.json(&format!("/v1/health/service/{service}?passing"));
        let ids = instances.as_array().into_iter().flatten().filter_map(|entry| entry["Service"]["ID"].as_str());
        ids.map(str::to_owned).collect()
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let token = if self.has_acls { MANAGEMENT } else { "" };
        client::request(&self.address(), method, path, &[("X-Consul-Token", token)], body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn spawn(&mut self) {
        self.launch();
        self.await_nodes(1);
    }

    fn launch(&mut self) {
        let file = self.folder.join("agent.hcl");
        std::fs::write(&file, self.config()).expect("the folder can be written");
        let log = File::create(self.folder.join("log")).expect("the folder can be written");
        let errors = log.try_clone().expect("a file has more than one handle");
        let mut command = Command::new(binary());
        command.arg("agent").arg("-config-file").arg(&file);
        if self.is_client {
            command.arg("-data-dir").arg(self.folder.join("data"));
        } else if self.has_data {
            let servers = self.members.len().max(1);
            command
                .args(["-server", &format!("-bootstrap-expect={servers}"), "-data-dir"])
                .arg(self.folder.join("data"));
        } else {
            command.arg("-dev");
        }
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("consul starts");
        self.process = Some(process);
    }

    /// Waits for a leader that knows so many nodes.
    pub fn await_nodes(&self, count: usize) {
        eventually("Consul has a leader", || {
            let answer = client::get(&self.address(), "/v1/status/leader").map_err(|error| error.to_string())?;
            let text = answer.text();
            if text.len() > 3 { Ok(()) } else { Err(text) }
        });
        eventually("Consul knows itself", || {
            let nodes = self.json("/v1/catalog/nodes");
            if nodes.as_array().is_some_and(|nodes| nodes.len() >= count) { Ok(()) } else { Err(nodes) }
        });
    }

    fn config(&self) -> String {
        let [http, server, serf_lan, serf_wan] = self.ports;
        let mut config = format!(
            "bind_addr = \"127.0.0.1\"\nclient_addr = \"127.0.0.1\"\nlog_level = \"warn\"\n\
             performance {{ raft_multiplier = 1 }}\n\
             ports {{ dns = -1 grpc = -1 https = -1 http = {http} server = {server} serf_lan = {serf_lan} serf_wan = {serf_wan} }}\n"
        );
        config += &self.more;
        if !self.members.is_empty() {
            let others: Vec<String> = self.members.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
            let kind = if self.is_client { "client" } else { "server" };
            config += &format!(
                "node_name = \"{kind}-{server}\"\nretry_join = [{}]\nretry_interval = \"200ms\"\n",
                others.join(", ")
            );
        }
        if self.has_acls {
            config += &format!(
                "acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{MANAGEMENT}\" agent = \"{MANAGEMENT}\" }} }}\n"
            );
        }
        config
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The path that `scripts/consul.sh` prints. Without a Consul there is nothing to test.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = root().join("scripts/consul.sh");
        let output = Command::new(&script).output().unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "these tests need a real Consul, and {} found none: {said}", script.display());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
