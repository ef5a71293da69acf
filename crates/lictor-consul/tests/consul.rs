//! The control plane against a real Consul agent, from `scripts/consul.sh`. What Consul holds is asked by plain HTTP,
//! so that our client is never its own witness.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod common;

use std::net::TcpListener as Socket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lictor_consul::RegistrationState;
use lictor_core::mesh::Status;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use common::{SOON, ids, start, status, upstream};

fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/consul.sh");
        let output = Command::new("bash").arg(script).output().expect("bash is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "these tests need Consul: run `scripts/consul.sh`, which says\n{said}");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// A port that was free a moment ago.
fn port() -> u16 {
    Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A development agent: it forgets everything when it stops.
struct Agent {
    ports: [u16; 4],
    settings: Vec<String>,
    token: Option<String>,
    process: Child,
}

impl Agent {
    async fn start() -> Self {
        Self::with(None, &[]).await
    }

    async fn with(token: Option<&str>, settings: &[&str]) -> Self {
        let (ports, settings): (_, Vec<String>) =
            ([port(), port(), port(), port()], settings.iter().map(ToString::to_string).collect());
        let process = Self::spawn(ports, &settings);
        let agent = Self { ports, settings, token: token.map(str::to_owned), process };
        agent.is_ready().await;
        agent
    }

    fn spawn([http, server, lan, wan]: [u16; 4], settings: &[String]) -> Child {
        let mut command = Command::new(binary());
        command.args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=err", "-dns-port=-1"]);
        command.args(["-grpc-port=-1".to_owned(), format!("-http-port={http}"), format!("-server-port={server}")]);
        command.args([format!("-serf-lan-port={lan}"), format!("-serf-wan-port={wan}")]);
        for setting in settings {
            command.args(["-hcl", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Consul starts")
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again; returns when it answers.
    async fn revive(&mut self) {
        self.process = Self::spawn(self.ports, &self.settings);
        self.is_ready().await;
    }

    async fn is_ready(&self) {
        self.until("GET", "/v1/catalog/nodes", |nodes| nodes.as_array().is_some_and(|nodes| !nodes.is_empty())).await;
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// One request, and its status and body.
    async fn call(&self, method: &str, path: &str, body: &Json) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0])).await?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token = self.token.as_ref().map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: consul\r\n{token}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { unchunked(body) } else { body.to_owned() };
        Ok((code, body))
    }

    async fn put(&self, path: &str, body: Json) {
        let (code, answer) = self.call("PUT", path, &body).await.unwrap();
        assert_eq!(code, 200, "{path}: {answer}");
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, method: &str, path: &str, is_wanted: impl Fn(&Json) -> bool) -> Json {
        let until = Instant::now() + SOON;
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            let last = self.call(method, path, &Json::Null).await;
            if let Ok((_, body)) = &last {
                let body = serde_json::from_str(body).unwrap_or_default();
                if is_wanted(&body) {
                    return body;
                }
            }
            assert!(Instant::now() < until, "{path}: {last:?}");
            tick.tick().await;
        }
    }

    async fn offer(&self, service: &str, id: &str, port: u16) {
        self.put(
            "/v1/agent/service/register",
            json!({ "ID": id, "Name": service, "Port": port, "Address": "127.0.0.1" }),
        )
        .await;
    }

    async fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), Json::Null).await;
    }

    /// Waits until the catalog's health of `web` is this: passing, critical or maintenance.
    async fn web_is(&self, wanted: &str) -> Json {
        self.until("GET", "/v1/agent/health/service/id/web-1", |health| health["AggregatedStatus"] == wanted).await
    }

    fn web(&self, app: &App, checks: &str) -> String {
        let (url, port) = (self.url(), app.port);
        format!(
            "service: web\nport: {port}\nregistration: {{id: web-1, tags: [a], meta: {{version: '1'}}, checks: [{checks}]}}\n\
             consul: {{address: '{url}'}}\n"
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length, 16) else { break };
        let Some(chunk) = rest.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// An application that is well: it answers 200 to everything.
struct App {
    port: u16,
    task: JoinHandle<()>,
}

impl App {
    async fn start() -> Self {
        Self::at(0).await
    }

    async fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                });
            }
        });
        Self { port, task }
    }

    async fn stop(self) -> u16 {
        self.task.abort();
        let _ = self.task.await;
        self.port
    }
}

#[tokio::test]
async fn changes_reach_the_mesh_in_milliseconds() {
    let agent = Agent::start().await;
    let handle =
        start(&format!("registration: off\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n", agent.url()));
    upstream(&handle, "users", |upstream| upstream.census.is_known && upstream.endpoints.is_empty()).await;
    agent.offer("users", "one", 4000).await;
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
    let mut took = Vec::new();
    for port in 4001..4008 {
        let started = Instant::now();
        agent.offer("users", "two", port).await;
        upstream(&handle, "users", |upstream| {
            upstream.endpoints.iter().any(|e| e.address.tcp().is_some_and(|address| address.port() == port))
        })
        .await;
        took.push(started.elapsed());
    }
    took.sort();
    assert!(took[3] < Duration::from_millis(50), "the median of {took:?}");
    let drained = Instant::now();
    agent.put("/v1/agent/service/maintenance/two?enable=true", Json::Null).await;
    let mesh = upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
    assert_eq!((ids(&mesh, "users"), mesh.upstreams["users"].census.maintenance), (vec!["one".to_owned()], 1));
    assert!(drained.elapsed() < Duration::from_secs(5), "{:?}", drained.elapsed());
    let version = status(&handle, |standing| standing.version.is_some()).await.version.unwrap();
    assert!(version.starts_with(char::is_numeric), "{version}");
}

#[tokio::test]
async fn https_with_client_certificates_and_unix_sockets_work_as_http_does() {
    let folder = std::env::temp_dir().join(format!("lictor-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for arguments in [&["ca", "create"][..], &["cert", "create", "-server"], &["cert", "create", "-client"]] {
        let made = Command::new(binary()).arg("tls").args(arguments).current_dir(&folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let (https, file) = (port(), |name: &str| folder.join(name).display().to_string());
    let socket = file("consul.sock");
    let agent = Agent::with(
        None,
        &[
            &format!("ports {{ https = {https} }} verify_incoming_https = true addresses {{ http = \"127.0.0.1 unix://{socket}\" }}"),
            &format!(
                "ca_file = \"{}\" cert_file = \"{}\" key_file = \"{}\"",
                file("consul-agent-ca.pem"),
                file("dc1-server-consul-0.pem"),
                file("dc1-server-consul-0-key.pem")
            ),
        ],
    )
    .await;
    agent.offer("users", "one", 4000).await;
    let tls = format!(
        "address: 'https://127.0.0.1:{https}', ca_file: '{}', client_cert: '{}', client_key: '{}'",
        file("consul-agent-ca.pem"),
        file("dc1-client-consul-0.pem"),
        file("dc1-client-consul-0-key.pem")
    );
    let by_name = format!("{tls}, server_name: server.dc1.consul");
    for consul in [tls, by_name, format!("address: 'unix://{socket}'")] {
        let handle = start(&format!("registration: off\nconsul: {{{consul}}}\nupstreams: {{users: 0}}\n"));
        upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
    }
    // Without our certificate, or theirs not being who they should be, there is nobody.
    let ca = file("consul-agent-ca.pem");
    for consul in [
        format!("address: 'https://127.0.0.1:{https}', ca_file: '{ca}'"),
        format!("address: 'https://127.0.0.1:{https}', ca_file: '{ca}', server_name: somebody.else"),
    ] {
        let handle = start(&format!("registration: off\nconsul: {{{consul}}}\nupstreams: {{users: 0}}\n"));
        status(&handle, |standing| standing.watches.first().is_some_and(|watch| watch.errors > 0)).await;
        assert!(!handle.mesh().borrow().upstreams["users"].census.is_known);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn weights_warnings_and_host_names_are_honoured() {
    let agent = Agent::start().await;
    agent
        .put(
            "/v1/agent/service/register",
            json!({ "ID": "warned", "Name": "users", "Address": "localhost", "Port": 5000,
                "Weights": { "Passing": 10, "Warning": 3 }, "Check": { "CheckID": "w", "TTL": "60s", "Status": "warning" } }),
        )
        .await;
    agent.put("/v1/agent/service/register", json!({ "ID": "far", "Name": "users", "Port": 70_000 })).await;
    let handle =
        start(&format!("registration: off\nconsul: {{address: '{}'}}\nupstreams: {{users: 0}}\n", agent.url()));
    let mesh = upstream(&handle, "users", |upstream| !upstream.endpoints.is_empty()).await;
    let upstream = &mesh.upstreams["users"];
    let endpoint = &upstream.endpoints[0];
    assert!(endpoint.address.is_local());
    assert_eq!((endpoint.weight, endpoint.status, endpoint.host.as_ref()), (3, Status::Warning, "localhost"));
    assert_eq!(upstream.census.unusable, 1, "a port above 65535");
}

#[tokio::test]
async fn a_service_registers_and_leaves_in_order() {
    let (agent, app) = (Agent::start().await, App::start().await);
    let handle = start(&agent.web(&app, "{http: /health, interval: 10s}"));
    handle.register();
    status(&handle, |standing| standing.registration == RegistrationState::Registered).await;
    let health = agent.web_is("passing").await;
    let service = &health["Service"];
    assert_eq!(
        (&service["Service"], &service["Port"], &service["Tags"]),
        (&json!("web"), &json!(app.port), &json!(["a"]))
    );
    assert_eq!(service["Meta"], json!({ "version": "1", "protocol": "http1" }));
    assert_eq!(health["Checks"][0]["CheckID"], "web-1:1:http");

    handle.enter_maintenance("by hand").await.unwrap();
    assert_eq!(handle.status().standing().registration, RegistrationState::Maintenance);
    agent.web_is("maintenance").await;
    handle.leave_maintenance().await.unwrap();
    agent.web_is("passing").await;

    let started = Instant::now();
    handle.leave(Duration::from_secs(5)).await;
    assert!(started.elapsed() < Duration::from_secs(3), "the catalog was seen: {:?}", started.elapsed());
    let (code, _) = agent.call("GET", "/v1/agent/service/web-1", &Json::Null).await.unwrap();
    assert_eq!((code, handle.status().standing().registration), (404, RegistrationState::Deregistered));
}

#[tokio::test]
async fn a_forgotten_or_changed_registration_is_made_again_at_once() {
    let (agent, app) = (Agent::start().await, App::start().await);
    let handle = start(&agent.web(&app, "{ttl: 30s}"));
    handle.register();
    agent.web_is("passing").await;
    handle.enter_maintenance("not now").await.unwrap();

    let started = Instant::now();
    agent.deregister("web-1").await;
    agent.web_is("maintenance").await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    status(&handle, |standing| standing.reregistrations.get("forgotten") == Some(&1)).await;
    handle.leave_maintenance().await.unwrap();
    agent.web_is("passing").await;

    agent.put("/v1/agent/service/register", json!({ "ID": "web-1", "Name": "web", "Port": 1 })).await;
    let port = json!(app.port);
    agent.until("GET", "/v1/agent/service/web-1", |service| service["Port"] == port).await;
    agent.web_is("passing").await;
    status(&handle, |standing| standing.reregistrations.get("drift") == Some(&1)).await;
}

#[tokio::test]
async fn what_a_predecessor_left_behind_is_cleaned_up_and_what_a_person_did_stays() {
    let (agent, app) = (Agent::start().await, App::start().await);
    let left = json!({ "ID": "web-1", "Name": "web", "Port": app.port,
        "Check": { "CheckID": "web-1:7", "TTL": "1h", "Status": "critical" } });
    for (reason, then) in [("lictor%3A%20draining", "passing"), ("by%20a%20person", "maintenance")] {
        agent.put("/v1/agent/service/register", left.clone()).await;
        agent.put(&format!("/v1/agent/service/maintenance/web-1?enable=true&reason={reason}"), Json::Null).await;
        let handle = start(&agent.web(&app, "{ttl: 30s}"));
        handle.register();
        let has = |checks: &Json, id: &str| checks.get(id).is_some();
        agent.until("GET", "/v1/agent/checks", |checks| has(checks, "web-1:1:ttl") && !has(checks, "web-1:7")).await;
        agent.web_is(then).await;
        handle.leave(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn the_ttl_check_follows_the_application() {
    let (agent, app) = (Agent::start().await, App::start().await);
    let handle = start(&agent.web(&app, "{ttl: 3s}"));
    handle.register();
    agent.web_is("passing").await;
    let port = app.stop().await;
    agent.web_is("critical").await;
    status(&handle, |standing| standing.registration == RegistrationState::Critical).await;
    let app = App::at(port).await;
    let started = Instant::now();
    agent.web_is("passing").await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    app.stop().await;
}

#[tokio::test]
async fn an_agent_that_restarts_without_memory_takes_nothing_away() {
    let (mut agent, app) = (Agent::start().await, App::start().await);
    agent.offer("users", "one", 4000).await;
    agent.offer("users", "two", 4001).await;
    let yaml = format!("{}upstreams: {{users: 0}}\n", agent.web(&app, "{http: /health}"));
    let handle = start(&yaml);
    handle.register();
    agent.web_is("passing").await;
    let before = upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;

    agent.kill();
    status(&handle, |standing| standing.up == Some(false)).await;
    assert_eq!(handle.mesh().borrow().generation, before.generation, "nothing was published");

    agent.revive().await;
    let back = Instant::now();
    agent.web_is("passing").await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    status(&handle, |standing| standing.up == Some(true)).await;
    // It knows nobody now: the last ones stay.
    let kept = upstream(&handle, "users", |upstream| upstream.census.suspect == 2).await;
    assert_eq!(kept.upstreams["users"].endpoints.len(), 2);
    agent.offer("users", "three", 4002).await;
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1 && upstream.census.suspect == 0).await;
}

#[tokio::test]
async fn with_default_deny_a_token_in_a_file_may_come_later() {
    const MASTER: &str = "11111111-2222-3333-4444-555555555555";
    let settings = format!("acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{MASTER}\" }} }}");
    let agent = Agent::with(Some(MASTER), &[&settings]).await;
    agent.offer("users", "one", 4000).await;
    let (_, token) =
        agent.call("PUT", "/v1/acl/token", &json!({ "ServiceIdentities": [{ "ServiceName": "web" }] })).await.unwrap();
    let secret = serde_json::from_str::<Json>(&token).unwrap()["SecretID"].as_str().unwrap().to_owned();

    let folder = std::env::temp_dir().join(format!("lictor-acl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    std::fs::write(&file, "99999999-2222-3333-4444-555555555555").unwrap();
    let app = App::start().await;
    let yaml = agent.web(&app, "{http: /health}").replace(
        &format!("consul: {{address: '{}'}}", agent.url()),
        &format!("consul: {{address: '{}', token_file: '{}'}}\nupstreams: {{users: 0}}", agent.url(), file.display()),
    );
    let handle = start(&yaml);
    handle.register();
    let refused = status(&handle, |standing| standing.errors.get("denied").is_some_and(|count| *count >= 2)).await;
    assert!(refused.registration_error.unwrap().contains("403"));

    std::fs::write(&file, &secret).unwrap();
    agent.web_is("passing").await;
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
    handle.leave(Duration::from_secs(5)).await;
    let (code, _) = agent.call("GET", "/v1/agent/service/web-1", &Json::Null).await.unwrap();
    assert_eq!(code, 404);
    std::fs::remove_dir_all(folder).unwrap();
}
