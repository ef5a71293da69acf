//! The control plane against an agent that misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_consul::{Handle, RegistrationState};
use lictor_core::mesh::Status;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use common::{SOON, eventually, ids, start, status, upstream};

/// What the agent does with a request.
enum Reply {
    /// Answers.
    Json { status: u16, headers: String, body: String },
    /// Answers, a few bytes at a time.
    Drip { headers: String, body: String },
    /// Promises a body and breaks off within it.
    BreakOff,
    /// Closes the connection.
    Close,
    /// Never answers.
    Hang,
    /// Answers that it is well, once it is told to.
    Held(Arc<Notify>),
}

/// One request as it came.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    target: String,
    token: Option<String>,
    body: String,
    at: Instant,
}

impl Seen {
    fn has(&self, parameter: &str) -> bool {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|pair| pair == parameter || pair.split('=').next() == Some(parameter))
    }

    fn is_health(&self) -> bool {
        self.target.starts_with("/v1/health/service/")
    }
}

/// A scripted agent.
#[derive(Clone)]
struct Agent {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Script = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

impl Agent {
    /// The script gets each request and how many of its kind (path) came before it.
    async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = Self { address: listener.local_addr().unwrap().to_string(), seen: Arc::default() };
        let (seen, script): (_, Script) = (Arc::clone(&agent.seen), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&script)));
            }
        });
        agent
    }

    /// A control plane with the upstream `users` that asks this agent.
    fn users(&self, more: &str) -> Handle {
        start(&format!(
            "registration: off\nconsul: {{address: 'http://{}'{more}}}\nupstreams: {{users: 0}}\n",
            self.address
        ))
    }

    fn queries(&self) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.is_health()).cloned().collect()
    }

    async fn seen_at_least(&self, count: usize, is_wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        eventually("requests", || {
            let wanted: Vec<Seen> = self.seen.lock().iter().filter(|seen| is_wanted(seen)).cloned().collect();
            if wanted.len() >= count { Ok(wanted) } else { Err(format!("{wanted:#?}")) }
        })
        .await
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, script: Script) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let header = |name: &str| {
            head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let length: usize = header("content-length").map_or(0, |(_, value)| value.parse().unwrap());
        while buffer.len() < end + length {
            stream.read_buf(&mut buffer).await?;
        }
        let body = String::from_utf8_lossy(&buffer[end..end + length]).into_owned();
        buffer.drain(..end + length);
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let token = header("x-consul-token").map(|(_, value)| value.to_owned());
        let request = Seen { method, target, token, body, at: Instant::now() };
        let before = {
            let mut seen = seen.lock();
            let path = |seen: &Seen| seen.target.split('?').next().unwrap().to_owned();
            let before = seen.iter().filter(|earlier| path(earlier) == path(&request)).count();
            seen.push(request.clone());
            before
        };
        match script(&request, before) {
            Reply::Json { status, headers, body } => {
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
            Reply::Drip { headers, body } => {
                let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
                for piece in answer.as_bytes().chunks(16) {
                    stream.write_all(piece).await?;
                    stream.flush().await?;
                    tokio::task::yield_now().await;
                }
            }
            Reply::BreakOff => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 77\r\nContent-Length: 5000\r\n\r\n[{\"Node\":")
                    .await?;
                return Ok(());
            }
            Reply::Close => return Ok(()),
            Reply::Hang => std::future::pending().await,
            Reply::Held(released) => {
                released.notified().await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            }
        }
    }
}

fn json(status: u16, headers: &str, body: impl Into<String>) -> Reply {
    Reply::Json { status, headers: headers.to_owned(), body: body.into() }
}

fn list(index: u64, ids: &[&str]) -> Reply {
    json(200, &format!("X-Consul-Index: {index}\r\n"), instances(ids))
}

fn instances(ids: &[&str]) -> String {
    let entry = |id: &&str| {
        let port = 8000 + u32::from(id.as_bytes()[0]);
        format!(
            r#"{{"Node":{{"Node":"n","Address":"127.0.0.1","Meta":null}},"Service":{{"ID":"{id}","Port":{port},"Tags":null,"Later":1}},"Checks":null}}"#
        )
    };
    format!("[{}]", ids.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// Everything that an agent may say wrong, after one good answer: the endpoints stay, the index is kept, and the next
/// good answer counts.
async fn survives(bad: impl Fn() -> Reply + Send + Sync + 'static) -> Vec<Seen> {
    let agent = Agent::start(move |seen, before| match before {
        _ if !seen.is_health() => json(403, "", "Permission denied"),
        0 => list(10, &["a", "b"]),
        1 => bad(),
        2 => list(11, &["a", "b", "c"]),
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users("");
    let mut mesh = handle.mesh();
    let mut fewest = usize::MAX;
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    let grown = mesh.wait_for(|mesh| {
        fewest = fewest.min(mesh.upstreams["users"].endpoints.len());
        fewest > 0 && mesh.upstreams["users"].endpoints.len() == 3
    });
    tokio::time::timeout(SOON, grown).await.expect("the next good answer counts").unwrap();
    assert_eq!(fewest, 2, "no endpoint is lost");
    let queries = agent.queries();
    assert!(!queries[0].has("index"));
    assert!(queries[1].has("index=10"), "{queries:#?}");
    queries
}

#[tokio::test]
async fn an_error_keeps_the_endpoints_and_the_index() {
    for code in [429, 500, 503] {
        let queries = survives(move || json(code, "X-Consul-Index: 1\r\n", "No cluster leader")).await;
        assert!(queries[2].has("index=10"), "the index of {code} is not stored: {queries:#?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_json_keeps_the_endpoints_and_the_index() {
    let queries = survives(|| json(200, "X-Consul-Index: 77\r\n", "[{\"Node\":{\"No")).await;
    assert!(queries[2].has("index=10"), "{queries:#?}");
}

#[tokio::test]
async fn a_connection_that_breaks_keeps_the_endpoints_and_the_index() {
    for breaks in [|| Reply::BreakOff, || Reply::Close] {
        let queries = survives(breaks).await;
        assert!(queries[2].has("index=10") && queries[2].has("wait=1000ms"), "{queries:#?}");
    }
}

#[tokio::test]
async fn an_answer_may_come_in_small_pieces() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        0 => Reply::Drip { headers: "X-Consul-Index: 5\r\n".to_owned(), body: instances(&["a", "b", "c"]) },
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users("");
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 3).await;
}

#[tokio::test]
async fn an_index_of_zero_or_none_is_one_and_a_huge_one_is_given_back() {
    for (headers, asked) in [
        ("", "index=1"),
        ("X-Consul-Index: 0\r\n", "index=1"),
        ("X-Consul-Index: soon\r\n", "index=1"),
        ("X-Consul-Index: 18446744073709551615\r\n", "index=18446744073709551615"),
    ] {
        let agent = Agent::start(move |_, before| match before {
            0 => json(200, headers, instances(&["a"])),
            _ => Reply::Hang,
        })
        .await;
        let handle = agent.users("");
        upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
        let queries = agent.seen_at_least(2, Seen::is_health).await;
        assert!(queries[1].has(asked), "{headers:?}: {queries:#?}");
    }
}

#[tokio::test]
async fn an_index_that_goes_back_is_read_anew() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        0 => list(329, &["a"]),
        1 => list(12, &["a"]),
        2 => list(12, &["a", "b"]),
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users("");
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    let queries = agent.seen_at_least(4, Seen::is_health).await;
    assert!(queries[1].has("index=329") && !queries[2].has("index") && queries[3].has("index=12"), "{queries:#?}");
}

#[tokio::test]
async fn an_empty_list_of_a_server_that_starts_is_not_believed() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        _ if seen.has("consistent") => list(30, &["a", "b"]),
        0 => list(20, &["a", "b"]),
        1 => list(21, &[]),
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users("");
    let first = upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    agent.seen_at_least(1, |seen| seen.has("consistent")).await;
    agent.seen_at_least(3, |seen| seen.is_health() && !seen.has("consistent")).await;
    assert_eq!(handle.mesh().borrow().generation, first.generation, "nothing was published");
}

#[tokio::test]
async fn an_empty_list_that_nobody_confirms_is_never_believed() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        _ if seen.has("consistent") => json(500, "X-Consul-Index: 1\r\n", "No cluster leader"),
        0 => list(20, &["a", "b"]),
        _ => list(5, &[]),
    })
    .await;
    let handle = agent.users(", guard: {keep_for: 1ms}");
    let first = upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    agent.seen_at_least(3, |seen| seen.has("consistent")).await;
    assert_eq!(handle.mesh().borrow().generation, first.generation, "nothing was published");
    let standing = handle.status().standing();
    assert!(standing.watches[0].last_error.as_ref().is_some_and(|error| error.contains("No cluster leader")));
}

#[tokio::test]
async fn a_confirmed_empty_list_leaves_suspects_for_a_while() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        _ if seen.has("consistent") => list(21, &[]),
        0 => list(20, &["a", "b"]),
        1 => list(21, &[]),
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users(", guard: {keep_for: 300ms}");
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    let kept = upstream(&handle, "users", |upstream| upstream.census.suspect == 2).await;
    let emptied = Instant::now();
    assert!(kept.upstreams["users"].endpoints.iter().all(|endpoint| endpoint.status == Status::Suspect));
    upstream(&handle, "users", |upstream| upstream.endpoints.is_empty()).await;
    assert!(emptied.elapsed() >= Duration::from_millis(200), "{:?}", emptied.elapsed());
}

#[tokio::test]
async fn a_watch_that_returns_at_once_is_not_a_busy_loop() {
    let agent = Agent::start(|_, before| list(10 + before as u64, &["a"])).await;
    let _handle = agent.users("");
    let queries = agent.seen_at_least(14, Seen::is_health).await;
    let spent = queries[13].at.duration_since(queries[0].at);
    assert!(spent >= Duration::from_millis(2500), "14 queries in {spent:?}");
}

#[tokio::test]
async fn queries_are_encoded_and_shared() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        0 => list(1, &["a"]),
        _ => Reply::Hang,
    })
    .await;
    let handle = start(&format!(
        "registration: off\nconsul: {{address: 'http://{}', namespace: 'team a', datacenter: dc1}}\nupstreams:\n  \
         one: {{listen: 0, service: web, tag: [x y], filter: 'Service.Meta.version == \"v&2\"'}}\n  \
         two: {{listen: 0, service: web, tag: [x y], filter: 'Service.Meta.version == \"v&2\"'}}\n",
        agent.address
    ));
    upstream(&handle, "one", |upstream| upstream.endpoints.len() == 1).await;
    upstream(&handle, "two", |upstream| upstream.endpoints.len() == 1).await;
    let query = &agent.queries()[0];
    for parameter in
        ["stale", "tag=x%20y", "filter=Service.Meta.version%20%3D%3D%20%22v%262%22", "dc=dc1", "ns=team%20a"]
    {
        assert!(query.has(parameter), "{parameter}: {query:?}");
    }
    assert_eq!(agent.queries().iter().filter(|query| !query.has("index")).count(), 1, "one watch for both");
    assert_eq!(handle.status().standing().watches.len(), 1);
}

#[tokio::test]
async fn a_refused_token_is_read_again_as_soon_as_its_file_changes() {
    let folder = std::env::temp_dir().join(format!("lictor-token-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    std::fs::write(&file, "old\n").unwrap();
    let agent = Agent::start(|seen, _| match seen.token.as_deref() {
        Some("new") if seen.has("index") => Reply::Hang,
        Some("new") => list(7, &["a"]),
        _ => json(403, "X-Consul-Index: 1\r\n", "ACL not found"),
    })
    .await;
    let handle = agent.users(&format!(", token_file: '{}'", file.display()));
    status(&handle, |standing| standing.errors.contains_key("denied")).await;
    assert_eq!(handle.status().standing().up, Some(true), "who refuses is there");
    std::fs::write(&file, "new\n").unwrap();
    let renewed = Instant::now();
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 1).await;
    assert!(renewed.elapsed() < Duration::from_secs(5), "{:?}", renewed.elapsed());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_reload_stops_watches_that_nobody_needs_and_keeps_the_others() {
    let agent = Agent::start(|_, before| match before {
        0 => list(1, &["a"]),
        _ => Reply::Hang,
    })
    .await;
    let yaml = |upstreams: &str| {
        format!("registration: off\nconsul: {{address: 'http://{}'}}\nupstreams: {{{upstreams}}}\n", agent.address)
    };
    let handle = start(&yaml("users: 0, orders: 0"));
    let before = upstream(&handle, "users", |upstream| upstream.census.is_known).await;
    upstream(&handle, "orders", |upstream| upstream.census.is_known).await;
    handle.reload(common::config(&yaml("users: {listen: 0, timeout: 1s}, carts: 0"))).await;
    let after = upstream(&handle, "carts", |upstream| upstream.census.is_known).await;
    let (old, new) = (&before.upstreams["users"], &after.upstreams["users"]);
    assert!(Arc::ptr_eq(&old.endpoints[0], &new.endpoints[0]) && Arc::ptr_eq(&old.breaker, &new.breaker));
    assert_eq!(after.upstreams.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["carts", "users"]);
    let first_of = |name: &str| {
        let asks = |seen: &&Seen| seen.target.starts_with(&format!("/v1/health/service/{name}?")) && !seen.has("index");
        agent.queries().iter().filter(asks).count()
    };
    assert_eq!((first_of("users"), first_of("carts")), (1, 1), "the watch of users went on");
    let connections = |standing: &lictor_consul::Standing| standing.watches.len() == 2 && standing.connections == 2;
    status(&handle, connections).await;
}

#[tokio::test]
async fn what_the_forward_proxy_asks_for_is_watched_if_it_may() {
    let agent = Agent::start(|seen, _| if seen.has("index") { Reply::Hang } else { list(1, &["a"]) }).await;
    let handle = start(&format!(
        "registration: off\nconsul: {{address: 'http://{}'}}\noutbound: {{proxy: 15999, allow: [pay-*]}}\n",
        agent.address
    ));
    handle.demand().send("evil".into()).unwrap();
    handle.demand().send("pay-out".into()).unwrap();
    let mesh = upstream(&handle, "pay-out", |upstream| upstream.endpoints.len() == 1).await;
    assert_eq!(ids(&mesh, "pay-out"), ["a"]);
    assert!(!mesh.upstreams.contains_key("evil") && !agent.queries().iter().any(|seen| seen.target.contains("evil")));
}

/// A service whose application is there, and its configuration.
fn web(address: &str) -> (std::net::TcpListener, String) {
    let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = app.local_addr().unwrap().port();
    let registration = "registration: {id: web-1, checks: [{tcp: true}]}";
    (app, format!("service: web\nport: {port}\n{registration}\nconsul: {{address: 'http://{address}'}}\n"))
}

/// An agent handles what comes on two connections in any order: what was begun before we leave may undo our end.
#[tokio::test]
async fn a_registration_that_is_on_its_way_is_waited_for_before_we_leave() {
    let registers = |seen: &Seen| seen.method == "PUT" && seen.target.starts_with("/v1/agent/service/register");
    let leaves = |seen: &Seen| seen.target.starts_with("/v1/agent/service/deregister");
    let released = Arc::new(Notify::new());
    let held = Arc::clone(&released);
    let agent = Agent::start(move |seen, before| match seen.target.as_str() {
        target if target.starts_with("/v1/agent/service/web-1") => {
            json(200, "X-Consul-Contenthash: 1\r\n", r#"{"Service":"web","Port":9,"Tags":null,"Meta":null}"#)
        }
        target if target.starts_with("/v1/agent/checks") => json(200, "", "{}"),
        _ if registers(seen) && before > 0 => Reply::Held(Arc::clone(&held)),
        _ => json(200, "", ""),
    })
    .await;
    let (_app, yaml) = web(&agent.address);
    let handle = start(&yaml);
    handle.register();
    agent.seen_at_least(2, registers).await;
    let quiet = async {
        let deregistered = agent.seen_at_least(1, leaves);
        assert!(tokio::time::timeout(Duration::from_millis(200), deregistered).await.is_err(), "it did not wait");
        released.notify_one();
    };
    tokio::join!(handle.leave(Duration::ZERO), quiet);
    agent.seen_at_least(1, leaves).await;
    let last = agent.seen.lock().iter().rfind(|seen| registers(seen) || leaves(seen)).cloned();
    assert!(last.is_some_and(|last| leaves(&last)), "nothing comes after the end");
}

/// The agent knows no such service yet, and its answer to the registration says nothing of maintenance.
#[tokio::test]
async fn a_maintenance_that_begins_during_a_registration_is_not_forgotten() {
    let registers = |seen: &Seen| seen.method == "PUT" && seen.target.starts_with("/v1/agent/service/register");
    let maintains = |seen: &Seen| seen.target.starts_with("/v1/agent/service/maintenance/web-1");
    let released = Arc::new(Notify::new());
    let (held, registered) = (Arc::clone(&released), Mutex::new(String::new()));
    let agent = Agent::start(move |seen, before| match seen.target.as_str() {
        target if target.starts_with("/v1/agent/service/web-1") => {
            json(200, "X-Consul-Contenthash: 1\r\n", registered.lock().as_str())
        }
        target if target.starts_with("/v1/agent/checks") => json(200, "", "{}"),
        _ if registers(seen) => {
            *registered.lock() = seen.body.replace(r#""Name":"web""#, r#""Service":"web""#);
            if before == 0 { Reply::Held(Arc::clone(&held)) } else { json(200, "", "") }
        }
        _ if maintains(seen) && before == 0 => json(404, "", "Unknown service"),
        _ => json(200, "", ""),
    })
    .await;
    let (_app, yaml) = web(&agent.address);
    let handle = start(&yaml);
    handle.register();
    agent.seen_at_least(1, registers).await;
    handle.enter_maintenance("deploying").await.unwrap_err();
    released.notify_one();
    let told = agent.seen_at_least(2, maintains).await;
    assert!(told[1].target.contains("enable=true"), "{told:?}");
    assert_eq!(agent.seen_at_least(1, registers).await.len(), 1, "it did not take another registration");
}

#[tokio::test]
async fn somebody_who_changes_our_registration_again_and_again_is_not_fought_at_full_speed() {
    let agent = Agent::start(|seen, _| match seen.target.as_str() {
        target if target.starts_with("/v1/agent/service/web-1") => {
            json(200, "X-Consul-Contenthash: 1\r\n", r#"{"Service":"web","Port":9,"Tags":null,"Meta":null}"#)
        }
        target if target.starts_with("/v1/agent/checks") => json(200, "", "{}"),
        _ => json(200, "", ""),
    })
    .await;
    let (_app, yaml) = web(&agent.address);
    let handle = start(&yaml);
    handle.register();
    let registers = |seen: &Seen| seen.method == "PUT" && seen.target.starts_with("/v1/agent/service/register");
    // Ten may follow each other: an agent that restarts often is registered with at once.
    let all = agent.seen_at_least(12, registers).await;
    let spent = all[11].at.duration_since(all[0].at);
    assert!(spent >= Duration::from_secs(3), "12 registrations in {spent:?}");
    assert!(handle.status().standing().reregistrations["drift"] >= 5);
}

#[tokio::test]
async fn leaving_ends_in_time_when_consul_is_away_or_silent() {
    let silent = Agent::start(|_, _| Reply::Hang).await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for address in [silent.address.clone(), gone] {
        let (_app, yaml) = web(&address);
        let handle = start(&yaml);
        handle.register();
        let started = Instant::now();
        handle.leave(Duration::from_secs(1)).await;
        assert!(started.elapsed() < Duration::from_millis(3500), "{address}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn nothing_needs_consul_when_everything_is_fixed() {
    let handle =
        start("registration: off\nupstreams: {db: {listen: 0, static: ['127.0.0.1:5000', 'localhost:5001']}}\n");
    let mesh = upstream(&handle, "db", |upstream| upstream.census.is_known && upstream.endpoints.len() >= 2).await;
    assert!(ids(&mesh, "db").contains(&"localhost:5001".to_owned()));
    let standing = handle.status().standing();
    assert_eq!((standing.address, standing.up, standing.registration), (None, None, RegistrationState::Off));
    handle.register();
    handle.leave(Duration::from_secs(1)).await;
}

/// The control plane of a service whose configuration is in KV.
fn orders(agent: &Agent) -> Handle {
    start(&format!(
        "registration: off\nservice: orders\nconsul: {{address: 'http://{}', kv: true}}\nupstreams: {{}}\n",
        agent.address
    ))
}

fn item(index: u64, value: &str) -> Reply {
    use base64::Engine;
    let value = base64::prelude::BASE64_STANDARD.encode(value);
    let body = format!(r#"[{{"Key":"lictor/orders/config","ModifyIndex":{index},"Value":"{value}","Later":1}}]"#);
    json(200, &format!("X-Consul-Index: {index}\r\n"), body)
}

fn gone(index: u64) -> Reply {
    json(404, &format!("X-Consul-Index: {index}\r\n"), "")
}

/// The values of the key, as they become known.
async fn known(handle: &Handle, count: usize) -> Vec<Option<(u64, String)>> {
    let mut known = handle.kv().expect("it is watched");
    let mut seen = Vec::new();
    while seen.len() < count {
        if let Some(entry) = known.borrow_and_update().clone() {
            let entry = entry.map(|entry| (entry.modify_index, String::from_utf8(entry.value).unwrap()));
            if seen.last() != Some(&entry) {
                seen.push(entry);
                continue;
            }
        }
        tokio::time::timeout(SOON, known.changed()).await.expect("another value").unwrap();
    }
    seen
}

#[tokio::test]
async fn a_kv_value_outlives_errors_and_a_key_that_vanishes_is_asked_for_again() {
    let agent = Agent::start(|seen, before| match (seen.target.starts_with("/v1/kv/"), before) {
        (false, _) => Reply::Close,
        // The second is the confirmation: a server that replays its log had not got to it yet.
        (true, 0 | 3) => item(10, "a: 1"),
        (true, 1) => json(500, "X-Consul-Index: 1\r\n", "No cluster leader"),
        (true, 2) => gone(11),
        (true, 4) => item(12, "a: 2"),
        (true, 5 | 6) => gone(13),
        _ => Reply::Hang,
    })
    .await;
    let handle = orders(&agent);
    let seen = known(&handle, 3).await;
    assert_eq!(seen, [Some((10, "a: 1".to_owned())), Some((12, "a: 2".to_owned())), None]);
    let queries = agent.seen_at_least(8, |seen| seen.target.starts_with("/v1/kv/lictor/orders/config")).await;
    assert!(!queries[0].has("index") && queries[1].has("index=10"), "{queries:#?}");
    assert!(queries[2].has("index=10"), "the index of an error is not stored: {queries:#?}");
    assert!(queries[3].has("consistent") && queries[6].has("consistent"), "{queries:#?}");
    assert!(queries[7].has("index=13"), "a 404 has an index to wait on: {queries:#?}");
}

#[tokio::test]
async fn a_token_that_may_not_read_the_key_holds_nobody_up_and_is_told() {
    let agent = Agent::start(|_, _| json(403, "", "Permission denied")).await;
    let handle = orders(&agent);
    assert_eq!(known(&handle, 1).await, [None]);
    let standing = status(&handle, |standing| standing.kv.as_ref().is_some_and(|kv| kv.last_error.is_some())).await;
    assert!(standing.kv.unwrap().last_error.unwrap().contains("Permission denied"));
}

#[tokio::test]
async fn a_report_is_written_again_until_consul_has_taken_it() {
    let agent = Agent::start(|seen, before| match (seen.method.as_str(), before) {
        ("PUT", 0) => json(500, "", "No cluster leader"),
        ("PUT", _) => json(200, "", "true"),
        _ => Reply::Hang,
    })
    .await;
    let handle = orders(&agent);
    handle.report("orders 1", "{}".to_owned());
    let puts = agent.seen_at_least(2, |seen| seen.method == "PUT").await;
    assert!(puts.iter().all(|put| put.target == "/v1/kv/lictor/orders/status/orders%201"), "{puts:#?}");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_told_and_disturbs_nothing() {
    let agent = Agent::start(|seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        0 => list(10, &["a"]),
        1 => list(11, &["a", "b"]),
        _ => Reply::Hang,
    })
    .await;
    let handle = agent.users(", snapshot: {path: /proc/no/snapshot}");
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    let is_told = |standing: &lictor_consul::Standing| standing.snapshot.as_ref().unwrap().last_error.is_some();
    let snapshot = status(&handle, is_told).await.snapshot.unwrap();
    assert_eq!((snapshot.in_use, snapshot.saved_ms, snapshot.refused), (0, None, None));
    handle.save().await;
}

/// An agent without a leader answers a control plane that remembers `a` and `b`; who is in use then, once they are from
/// where they should be.
async fn after_a_restart(name: &str, first_answer: &'static [&'static str], source: &str) -> Vec<String> {
    let path = std::env::temp_dir().join(format!("lictor-scripted-{}-{name}", std::process::id()));
    let snapshot = format!(", snapshot: {{path: '{}'}}", path.display());
    let before = Agent::start(|_, before| if before == 0 { list(10, &["a", "b"]) } else { Reply::Hang }).await;
    let handle = before.users(&snapshot);
    upstream(&handle, "users", |upstream| upstream.endpoints.len() == 2).await;
    handle.save().await;
    let after = Agent::start(move |seen, before| match before {
        _ if !seen.is_health() => Reply::Close,
        _ if seen.has("consistent") => json(500, "", "No cluster leader"),
        0 => list(12, first_answer),
        _ => Reply::Hang,
    })
    .await;
    let handle = after.users(&snapshot);
    assert_eq!(ids(&handle.mesh().borrow(), "users"), ["a", "b"], "at once");
    let asked = after.seen_at_least(3, Seen::is_health).await;
    assert!(!asked[0].has("index") && asked[1].has("consistent"), "{asked:#?}");
    let mesh = upstream(&handle, "users", |upstream| upstream.census.source == source).await;
    handle.save().await; // there is nothing more to write
    std::fs::remove_file(path).unwrap();
    ids(&mesh, "users")
}

#[tokio::test]
async fn an_emptied_list_that_nobody_confirms_leaves_the_snapshot_in_use() {
    assert_eq!(after_a_restart("emptied", &[], "snapshot").await, ["a", "b"]);
}

#[tokio::test]
async fn other_instances_that_nobody_confirms_are_rather_believed_than_the_snapshot() {
    assert_eq!(after_a_restart("replaced", &["c"], "Consul").await, ["c"]);
}
