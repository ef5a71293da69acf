//! The wire between a sidecar and a real agent: it carries bytes both ways, counts the queries, and breaks as told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_testkit::RawServer;
use parking_lot::Mutex;
use socket2::SockRef;

/// What happens to the agent's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Connections are closed before a byte is said, as Consul 1.8 does with one too many.
    ClosedAtOnce,
    /// Reset a few bytes into the body.
    ResetInBody,
    /// Ended there in order.
    CutInBody,
    /// A byte every 50 ms.
    Drip,
}

/// The wire.
#[derive(Debug)]
pub(crate) struct Wire {
    state: Arc<State>,
    server: RawServer,
}

#[derive(Debug)]
struct State {
    agent: SocketAddr,
    fault: Mutex<Fault>,
    open: Mutex<Vec<TcpStream>>,
    queries: Mutex<Vec<(Instant, String)>>,
}

impl Wire {
    /// To the agent at this address.
    pub(crate) fn to(agent: &str) -> Self {
        let state = Arc::new(State {
            agent: agent.parse().unwrap(),
            fault: Mutex::new(Fault::None),
            open: Mutex::default(),
            queries: Mutex::default(),
        });
        let carried = Arc::clone(&state);
        Self { state, server: RawServer::start(move |client| carried.carry(client)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// From now on, also for what is under way: that is reset.
    pub(crate) fn breaks(&self, fault: Fault) {
        *self.state.fault.lock() = fault;
        for stream in self.state.open.lock().drain(..) {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Queries since then whose request line contains this; connections that are closed at once count as one each.
    pub(crate) fn queries(&self, since: Instant, what: &str) -> usize {
        self.state.queries.lock().iter().filter(|(at, line)| *at >= since && line.contains(what)).count()
    }
}

impl State {
    fn carry(&self, mut client: TcpStream) {
        let Ok(mut agent) = TcpStream::connect(self.agent) else { return };
        let _ = client.set_read_timeout(None);
        let _ = agent.set_nodelay(true);
        let (Ok(back), Ok(answers)) = (client.try_clone(), agent.try_clone()) else { return };
        let fault = *self.fault.lock();
        if fault == Fault::ClosedAtOnce {
            self.count("closed at once");
            return;
        }
        self.open.lock().extend([client.try_clone(), agent.try_clone()].into_iter().flatten());
        let answering = std::thread::spawn(move || {
            let (mut back, mut answers) = (back, answers);
            let _ = pass(&mut answers, &mut back, fault);
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut seen = Vec::new();
        let mut bytes = [0; 16 << 10];
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            seen.extend_from_slice(&bytes[..read]);
            self.count_heads(&mut seen);
            if agent.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = agent.shutdown(Shutdown::Both);
        let _ = answering.join();
    }

    /// Takes the request lines out of what was sent so far.
    fn count_heads(&self, seen: &mut Vec<u8>) {
        const VERSION: &[u8] = b" HTTP/1.1\r\n";
        while let Some(end) = seen.windows(VERSION.len()).position(|window| window == VERSION) {
            let line = String::from_utf8_lossy(&seen[..end]).into_owned();
            self.count(line.rsplit('\n').next().unwrap_or_default());
            seen.drain(..end + VERSION.len());
        }
    }

    fn count(&self, line: &str) {
        self.queries.lock().push((Instant::now(), line.to_owned()));
    }
}

/// Carries answers until one side ends, or the fault comes.
fn pass(agent: &mut TcpStream, client: &mut TcpStream, fault: Fault) -> std::io::Result<()> {
    let mut said = Vec::new();
    let mut bytes = [0; 16 << 10];
    loop {
        let read = agent.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        match fault {
            Fault::None | Fault::ClosedAtOnce => client.write_all(&bytes[..read])?,
            Fault::Drip => {
                for byte in &bytes[..read] {
                    client.write_all(&[*byte])?;
                    crate::quiet(Duration::from_millis(50));
                }
            }
            Fault::ResetInBody | Fault::CutInBody => {
                said.extend_from_slice(&bytes[..read]);
                let Some(end) = said.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let shown = (end + 4 + 20).min(said.len() - 1);
                client.write_all(&said[..shown])?;
                if fault == Fault::ResetInBody {
                    SockRef::from(&*client).set_linger(Some(Duration::ZERO))?;
                }
                return Ok(());
            }
        }
    }
}
