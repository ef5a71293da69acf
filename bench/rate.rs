//! An open loop: requests start at a constant rate, whatever the answers do, over connections that are kept. A latency counts from
//! when its request was to start, so a stall is charged to every request that waited for it.
//!
//! `rate ADDRESS PATH LENGTH CONNECTIONS RATE SECONDS` prints one line of JSON; LENGTH is that of each answer's body.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

struct Connection {
    stream: TcpStream,
    /// When the running request was to start.
    due: Option<Instant>,
    answer: Vec<u8>,
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    bytes: usize,
    errors: u64,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, length, connections, rate, seconds] = args.as_slice() else {
        return Err(io::Error::other("usage: rate ADDRESS PATH LENGTH CONNECTIONS RATE SECONDS"));
    };
    let number = |text: &String| text.parse::<f64>().map_err(io::Error::other);
    let (length, rate, seconds) = (number(length)? as usize, number(rate)?, number(seconds)?);
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes();
    let mut connections =
        (0..number(connections)? as usize).map(|_| Connection::open(address)).collect::<io::Result<Vec<_>>>()?;

    let mut tally = Tally::default();
    let (start, total) = (Instant::now(), (rate * seconds) as u64);
    let due_at = |index: u64| start + Duration::from_secs_f64(index as f64 / rate);
    let give_up = Duration::from_secs_f64(seconds * 2.0 + 5.0);
    let mut started = 0;
    let mut idle: Vec<usize> = (0..connections.len()).collect();
    while (started < total || idle.len() < connections.len()) && start.elapsed() < give_up {
        while started < total && due_at(started) <= Instant::now() {
            let Some(index) = idle.pop() else { break };
            connections[index].stream.write_all(&request)?;
            connections[index].due = Some(due_at(started));
            started += 1;
        }
        let wait = if started < total && !idle.is_empty() {
            due_at(started).saturating_duration_since(Instant::now())
        } else {
            Duration::from_millis(100)
        };
        let ready = readable(&connections, wait)?;
        for index in ready {
            let connection = &mut connections[index];
            match connection.read(length) {
                Ok(None) => continue,
                Ok(Some(bytes)) => {
                    let due = connection.due.take().expect("only running ones are polled");
                    tally.bytes += bytes;
                    tally.latencies.push(due.elapsed());
                }
                Err(error) => {
                    tally.errors += 1;
                    writeln!(io::stderr(), "rate: {error}")?;
                    *connection = Connection::open(address)?;
                }
            }
            idle.push(index);
        }
    }
    tally.errors += total - started + (connections.len() - idle.len()) as u64;
    tally.print(start.elapsed())
}

/// The running ones that have something to read, after at most `wait`.
fn readable(connections: &[Connection], wait: Duration) -> io::Result<Vec<usize>> {
    let running: Vec<usize> = (0..connections.len()).filter(|index| connections[*index].due.is_some()).collect();
    let mut fds: Vec<PollFd<'_>> =
        running.iter().map(|index| PollFd::new(&connections[*index].stream, PollFlags::IN)).collect();
    let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
    poll(&mut fds, Some(&wait))?;
    Ok(running.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| *index).collect())
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, due: None, answer: Vec::new() })
    }

    /// The answer's bytes when all of it is there.
    fn read(&mut self, length: usize) -> io::Result<Option<usize>> {
        let mut buffer = vec![0; 65_536];
        let count = self.stream.read(&mut buffer)?;
        self.answer.extend_from_slice(&buffer[..count]);
        let head = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        match head.map(|head| self.answer.len() - head - 4) {
            _ if count == 0 => Err(io::Error::other("closed within an answer")),
            Some(body) if body == length && self.answer.starts_with(b"HTTP/1.1 200") => {
                let bytes = self.answer.len();
                self.answer.clear();
                Ok(Some(bytes))
            }
            Some(body) if body >= length || !self.answer.starts_with(b"HTTP/1.1 200") => {
                Err(io::Error::other(String::from_utf8_lossy(&self.answer).into_owned()))
            }
            _ => Ok(None),
        }
    }
}

impl Tally {
    fn print(mut self, took: Duration) -> io::Result<()> {
        self.latencies.sort();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies
                .get(index.min(self.latencies.len().saturating_sub(1)))
                .map_or(0.0, |it| it.as_secs_f64() * 1e3)
        };
        let line = format!(
            r#"{{"requests": {}, "seconds": {:.3}, "bytes": {}, "errors": {}, "p50": {:.4}, "p99": {:.4}, "p999": {:.4}, "worst": {:.4}, "over_10_ms": {}}}"#,
            self.latencies.len(),
            took.as_secs_f64(),
            self.bytes,
            self.errors,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            self.latencies.iter().filter(|latency| **latency > Duration::from_millis(10)).count()
        );
        writeln!(io::stdout(), "{line}")
    }
}
