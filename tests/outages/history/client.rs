//! A client of locks: takes one, works, and gives it back, again and again, and writes down what it saw.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value as Json;

use super::check::{At, End, Operation};
use super::journal::{Holding, Journal};
use super::{DELAYS, LOCKS, Random, TOKEN, TTL};

/// Longer than any sidecar is stopped.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two writes of a holder.
const BETWEEN_WRITES: Duration = Duration::from_millis(20);

/// What has one sidecar.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) number: usize,
    pub(crate) sidecar: usize,
    /// Where that listens by now.
    pub(crate) door: &'a Mutex<String>,
    pub(crate) journal: &'a Journal,
    pub(crate) random: Random,
}

/// What it means to do with a lock.
#[derive(Clone, Copy, Debug)]
struct Plan {
    lock: usize,
    wait: Duration,
    delay: Duration,
    work: Duration,
    /// It closes its connection instead of giving the lock back.
    leaves: bool,
}

impl Client<'_> {
    pub(crate) fn run(mut self) {
        while !self.journal.is_over() {
            let plan = self.plan();
            let pause = match self.take(plan) {
                Some((events, holding, owner)) => {
                    self.work(plan, events, holding, &owner);
                    self.random.below(60)
                }
                None => self.random.below(150),
            };
            self.journal.rest(Duration::from_millis(pause));
        }
    }

    fn plan(&mut self) -> Plan {
        let random = &mut self.random;
        let long = random.below(50) == 0;
        Plan {
            lock: random.below(LOCKS as u64) as usize,
            wait: Duration::from_secs([0, 0, 0, 0, 0, 0, 2, 5][random.below(8) as usize]),
            delay: DELAYS[random.below(DELAYS.len() as u64) as usize],
            work: Duration::from_millis(if long { 1_000 + random.below(8_000) } else { random.below(40) }),
            leaves: random.below(40) == 0,
        }
    }

    fn take(&self, plan: Plan) -> Option<(Events, Holding, String)> {
        let Plan { lock, wait, delay, .. } = plan;
        let [ttl, wait, delay] = [TTL, wait, delay].map(|time| time.as_secs());
        let asked = self.journal.now();
        let path = format!("/v1/locks/l{lock}?ttl={ttl}s&wait={wait}s&delay={delay}s");
        let mut taken = self.open("PUT", &path);
        let first = taken.as_mut().ok().map(|events| events.next(PATIENCE));
        let answered = self.journal.now();
        let what = match (&taken, &first) {
            (Err(refusal), _) => refusal.as_str(),
            (Ok(_), Some(Next::Event(kind, _))) if kind == "held" => "acquire: held",
            _ => "acquire: cut off",
        };
        self.did(lock, asked, answered, what);
        let (Ok(events), Some(Next::Event(kind, data))) = (taken, first) else { return None };
        assert_eq!(kind, "held", "the first thing that is told: {data}");
        let token = data["fencing_token"].as_u64().expect("a fencing token");
        let holding = Holding { client: self.number, sidecar: self.sidecar, lock, token, held: answered };
        self.journal.holds(holding);
        Some((events, holding, data["owner"].as_str().expect("an owner").to_owned()))
    }

    /// Writes until the work is done, or the lock is not its any more.
    fn work(&self, plan: Plan, mut events: Events, holding: Holding, owner: &str) {
        loop {
            self.journal.write(&holding);
            let left = (holding.held + plan.work).saturating_sub(self.journal.now());
            let lingers = self.journal.lingers(self.sidecar);
            match events.next(if lingers { BETWEEN_WRITES } else { BETWEEN_WRITES.min(left) }) {
                Next::Nothing if left.is_zero() && !lingers => break,
                Next::Nothing => {}
                ended => return self.lost(&holding, ended),
            }
        }
        let end = self.journal.now();
        if plan.leaves {
            self.journal.ended(holding, end, End::Left);
            drop(events);
            return self.did(plan.lock, end, self.journal.now(), "release: connection closed");
        }
        self.journal.ended(holding, end, End::Released);
        let path = format!("/v1/locks/l{}?owner={owner}", plan.lock);
        let answer = self.open("DELETE", &path).map_or_else(|refusal| refusal, |_| "release: 200".to_owned());
        self.did(plan.lock, end, self.journal.now(), &answer);
    }

    fn lost(&self, holding: &Holding, told: Next) {
        let now = self.journal.now();
        let (why, what) = match told {
            Next::Event(kind, data) if kind == "lost" => {
                let reason = data["reason"].as_str().unwrap_or_default();
                (End::Lost, reason.split(':').next().unwrap_or_default().to_owned())
            }
            Next::Event(kind, data) => panic!("`{kind}` is told to one who has not given it back: {data}"),
            _ => (End::Cut, "connection ended".to_owned()),
        };
        self.journal.ended(*holding, now, why);
        self.did(holding.lock, now, now, &format!("loss: {what}"));
    }

    fn did(&self, lock: usize, asked: At, answered: At, what: &str) {
        self.journal.did(Operation { client: self.number, lock, asked, answered, what: what.to_owned() });
    }

    /// A request on a connection of its own; the error says what else than 200 came of it.
    fn open(&self, method: &str, path: &str) -> Result<Events, String> {
        let kind = if method == "PUT" { "acquire" } else { "release" };
        let door = self.door.lock().clone();
        let broken = |_| format!("{kind}: cut off");
        let mut stream = TcpStream::connect(door).map_err(broken)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(broken)?;
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).map_err(broken)? > 0 {}
        match head.split(' ').nth(1) {
            Some("200") => Ok(Events { lines, line: Vec::new(), kind: String::new() }),
            Some(status) => Err(format!("{kind}: {status}")),
            None => Err(format!("{kind}: cut off")),
        }
    }
}

/// Server-sent events, as they come.
#[derive(Debug)]
struct Events {
    lines: BufReader<TcpStream>,
    /// What there is of the next line.
    line: Vec<u8>,
    kind: String,
}

#[derive(Debug)]
enum Next {
    Event(String, Json),
    /// The connection is over.
    Ended,
    /// Not in this time.
    Nothing,
}

impl Events {
    /// The next one within about this time. Comments, and the lengths of chunks, are passed over.
    fn next(&mut self, within: Duration) -> Next {
        let _ = self.lines.get_ref().set_read_timeout(Some(within.max(Duration::from_millis(1))));
        loop {
            match self.lines.read_until(b'\n', &mut self.line) {
                Ok(0) => return Next::Ended,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Next::Nothing;
                }
                Err(_) => return Next::Ended,
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
            if let Some(kind) = line.strip_prefix("event: ") {
                kind.clone_into(&mut self.kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Next::Event(self.kind.clone(), serde_json::from_str(data).expect("JSON"));
            } else if line == "0" {
                return Next::Ended;
            }
        }
    }
}
