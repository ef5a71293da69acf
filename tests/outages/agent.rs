//! A scripted agent: an HTTP/1.1 server that says what a test tells it to, where Consul cannot be made to say it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_testkit::{Backend, RawServer, read_head};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value as Json, json};

/// A query.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    /// Counts from 0 for each script.
    pub(crate) number: u64,
    /// The body of the last registration.
    pub(crate) registered: String,
}

impl Asked {
    /// A parameter's value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.line.split(' ').nth(1)?.split_once('?')?.1;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// What is done about it.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// An answer with a length; the connection stays.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// These bytes, and the end.
    Bytes(Vec<u8>),
    /// These bytes again and again, for as long as they are taken.
    Endless(Vec<u8>, Vec<u8>),
    /// A head, and then a chunk of one blank twenty times a second, for as long as somebody listens.
    Drip,
    /// Nothing until there is another script (or the query's wait is over); then what that one says.
    Hold,
}

type Script = Arc<dyn Fn(&Asked) -> Said + Send + Sync>;

/// A running one.
#[derive(Debug)]
pub(crate) struct Agent {
    state: Arc<State>,
    server: RawServer,
}

struct State {
    /// With its number, and how many queries it has answered.
    script: Mutex<(Script, u64, u64)>,
    changed: Condvar,
    queries: Mutex<Vec<(Instant, String)>>,
    registered: Mutex<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("queries", &self.queries.lock().len()).finish_non_exhaustive()
    }
}

impl Agent {
    /// One that says this.
    pub(crate) fn saying(script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let state = Arc::new(State {
            script: Mutex::new((Arc::new(script), 0, 0)),
            changed: Condvar::new(),
            queries: Mutex::default(),
            registered: Mutex::default(),
        });
        let served = Arc::clone(&state);
        Self { state, server: RawServer::start(move |stream| served.serve(stream)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// Says something else from now on; whoever is held hears it at once.
    pub(crate) fn says(&self, script: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
        let mut current = self.state.script.lock();
        *current = (Arc::new(script), current.1 + 1, 0);
        drop(current);
        self.state.changed.notify_all();
    }

    /// Queries since then whose request line contains this.
    pub(crate) fn queries(&self, since: Instant, what: &str) -> usize {
        self.lines(since).iter().filter(|line| line.contains(what)).count()
    }

    /// The request lines since then.
    pub(crate) fn lines(&self, since: Instant) -> Vec<String> {
        let queries = self.state.queries.lock();
        queries.iter().filter(|(at, _)| *at >= since).map(|(_, line)| line.clone()).collect()
    }

    /// The body of the last registration.
    pub(crate) fn registered(&self) -> String {
        self.state.registered.lock().clone()
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(None);
        loop {
            let head = read_head(&mut stream);
            let Some(line) = head.lines().next() else { return };
            let field = |name: &str| {
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name)?.trim().parse().ok())
            };
            let mut body = vec![0; field("content-length:").unwrap_or(0)];
            let (line, said) = (line.to_owned(), stream.read_exact(&mut body));
            self.queries.lock().push((Instant::now(), line.clone()));
            if line.starts_with("PUT /v1/agent/service/register") {
                *self.registered.lock() = String::from_utf8_lossy(&body).into_owned();
            }
            if said.is_err() || self.answer(&mut stream, line).is_none() {
                return;
            }
        }
    }

    /// `None` when the connection is over.
    fn answer(&self, stream: &mut TcpStream, line: String) -> Option<()> {
        match self.decide(line) {
            Said::Answer { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in &headers {
                    head += &format!("{name}: {value}\r\n");
                }
                head += "\r\n";
                stream.write_all(&[head.as_bytes(), &body].concat()).ok()
            }
            Said::Bytes(bytes) => {
                let _ = stream.write_all(&bytes);
                None
            }
            Said::Endless(head, bytes) => {
                let mut is_taken = stream.write_all(&head).is_ok();
                while is_taken {
                    is_taken = stream.write_all(&bytes).is_ok();
                }
                None
            }
            Said::Drip => {
                let head = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nTransfer-Encoding: chunked\r\n\r\n";
                let mut is_taken = stream.write_all(head).is_ok();
                while is_taken {
                    crate::quiet(Duration::from_millis(50));
                    is_taken = stream.write_all(b"1\r\n \r\n").is_ok();
                }
                None
            }
            Said::Hold => unreachable!("it was waited for"),
        }
    }

    fn decide(&self, line: String) -> Said {
        let mut asked = Asked { line, number: 0, registered: self.registered.lock().clone() };
        let wait = asked.parameter("wait").and_then(|wait| wait.trim_end_matches("ms").parse().ok());
        let until = Instant::now() + wait.map_or(Duration::from_secs(600), Duration::from_millis);
        let mut current = self.script.lock();
        loop {
            let (script, number) = (Arc::clone(&current.0), current.1);
            asked.number = current.2;
            current.2 += 1;
            let said = script(&asked);
            if !matches!(said, Said::Hold) {
                return said;
            }
            while current.1 == number && Instant::now() < until {
                self.changed.wait_until(&mut current, until);
            }
            if current.1 == number {
                // The wait is over: as if it had been asked without an index.
                asked.line = asked.line.replace("index=", "was=");
            }
        }
    }
}

/// A status and its words.
pub(crate) fn status(status: u16, text: &str) -> Said {
    Said::Answer { status, headers: vec![index(1)], body: text.into() }
}

/// A 200 with an index and anything.
pub(crate) fn ok(at: u64, body: impl Into<Vec<u8>>) -> Said {
    Said::Answer { status: 200, headers: vec![index(at)], body: body.into() }
}

/// The header.
pub(crate) fn index(at: u64) -> (String, String) {
    ("X-Consul-Index".to_owned(), at.to_string())
}

/// A body that lists these as passing.
pub(crate) fn list<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<u8> {
    let entries: Vec<Json> = backends.into_iter().map(|backend| entry(backend.name(), backend.port())).collect();
    Json::from(entries).to_string().into_bytes()
}

/// One instance, as Consul 1.8 shows it.
pub(crate) fn entry(id: &str, port: u16) -> Json {
    json!({
        "Node": { "Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1" },
        "Service": { "ID": id, "Service": "users", "Address": "127.0.0.1", "Port": port, "Tags": null, "Meta": null,
            "Weights": { "Passing": 1, "Warning": 1 } },
        "Checks": [{ "CheckID": "serfHealth", "Status": "passing", "Output": "Agent alive and reachable" }],
    })
}

/// What a well agent says: the list at once to who has another index, and nothing new to who has this one. A registered
/// service is known to it, and so is whatever else is asked.
pub(crate) fn well(at: u64, body: Vec<u8>) -> impl Fn(&Asked) -> Said + Send + Sync + 'static {
    move |asked| {
        if !asked.line.contains("/v1/health/service/") {
            return of_agent(asked);
        }
        if asked.parameter("index").is_some_and(|known| known == at.to_string()) {
            return Said::Hold;
        }
        ok(at, body.clone())
    }
}

/// What is asked of the agent itself: it has what was registered, and no checks.
pub(crate) fn of_agent(asked: &Asked) -> Said {
    if asked.parameter("hash").is_some() {
        return Said::Hold;
    }
    let body = match asked.line.split(['?', ' ']).nth(1) {
        Some("/v1/agent/checks") => "{}".to_owned(),
        Some(path) if path.starts_with("/v1/agent/service/users") => {
            asked.registered.replace("\"Name\":\"users\"", "\"Service\":\"users\"")
        }
        _ => String::new(),
    };
    let hash = ("X-Consul-Contenthash".to_owned(), "18546f7c76590407".to_owned());
    Said::Answer { status: 200, headers: vec![index(1), hash], body: body.into() }
}
