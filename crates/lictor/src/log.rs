//! Logs: one writer thread behind a bounded queue, for the program's own lines and the data plane's access log. When
//! standard output is slow, lines are dropped and counted; nobody waits. All of them come as JSON; where people read them,
//! the writer puts them into words ([`people`]).
//!
//! Standard output is not ours alone: under `lictor run` the application has it too, and whether a write to it waits
//! (`O_NONBLOCK`) belongs to what is open, not to who has it. Node switches that for every pipe. So the writer waits itself.

mod people;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use lictor_config::LogFormat;
use lictor_core::plain;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::people::People;
use crate::events::{EventLayer, Events};

const QUEUE: usize = 8192;
/// So many bytes of lines are written at a time.
const BATCH: usize = 64 << 10;
/// How long the end of the process waits for a slow reader of standard output.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The logs of this process.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    lines: SyncSender<Vec<u8>>,
    flushed: Arc<Mutex<Receiver<()>>>,
    dropped: Arc<AtomicU64>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logs {
    /// Starts logging.
    pub(crate) fn start(level: &str, format: LogFormat, events: Events) -> anyhow::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let (ack, flushed) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let people = People::at_stdout(format);
        let out = move || write(&queue, &ack, &mut Out::new(io::stdout(), lost, people));
        thread::Builder::new().name("log".to_owned()).spawn(out)?;
        let writer = Lines { lines: lines.clone(), dropped: Arc::clone(&dropped) };
        let (filter, handle) = reload::Layer::new(filter(level)?);
        let json = tracing_subscriber::fmt::layer().with_writer(writer).json();
        let layer = json.flatten_event(true).with_current_span(false).with_span_list(false);
        let lines_and_events =
            tracing_subscriber::registry().with(layer.with_filter(filter)).with(EventLayer::filtered(events));
        lines_and_events.try_init()?;
        Ok(Self { lines, flushed: Arc::new(Mutex::new(flushed)), dropped, filter: handle })
    }

    /// Where the data plane's access log goes.
    pub(crate) fn lines(&self) -> SyncSender<Vec<u8>> {
        self.lines.clone()
    }

    /// Lines of the program's own that found the queue full, and lines of either kind that could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Changes what is logged.
    pub(crate) fn set_level(&self, level: &str) -> anyhow::Result<()> {
        Ok(self.filter.reload(filter(level)?)?)
    }

    /// Waits until everything so far is written, for a moment at most.
    pub(crate) fn flush(&self) {
        let lines = self.lines.clone();
        // The queue may be full, and stay so.
        let asked = thread::Builder::new().name("flush".to_owned()).spawn(move || lines.send(Vec::new()));
        if asked.is_ok() {
            let _ = self.flushed.lock().recv_timeout(FLUSH_WITHIN);
        }
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // The HTTP libraries' own lines are for their authors.
    let quiet = ["h2=warn", "hyper=warn", "hyper_util=warn", "tonic=warn", "tower=warn", "rustls=warn"].join(",");
    Ok(EnvFilter::builder().parse(format!("{quiet},{level}"))?)
}

/// Writes lines as they come, when there are no more for now or enough. An empty line asks for an acknowledgement.
fn write<W: AsFd>(queue: &Receiver<Vec<u8>>, ack: &SyncSender<()>, out: &mut Out<W>) {
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            if line.is_empty() {
                out.flush();
                let _ = ack.try_send(());
            } else {
                out.take(&line);
            }
            next = queue.try_recv().ok();
        }
        out.flush();
    }
}

/// Whole lines on their way to a descriptor that others may have too.
#[derive(Debug)]
struct Out<W> {
    to: W,
    lines: Vec<u8>,
    lost: Arc<AtomicU64>,
    /// A line was begun and could not be ended: what comes next is not its rest.
    is_cut: bool,
    /// Who reads it, where that is no program.
    people: Option<People>,
}

impl<W: AsFd> Out<W> {
    fn new(to: W, lost: Arc<AtomicU64>, people: Option<People>) -> Self {
        Self { to, lines: Vec::with_capacity(BATCH), lost, is_cut: false, people }
    }

    fn take(&mut self, line: &[u8]) {
        if self.lines.is_empty() && self.is_cut {
            self.lines.push(b'\n');
        }
        let is_plain = line.iter().all(|byte| (b' '..0x7f).contains(byte));
        match (self.people.and_then(|people| people.line(line)), str::from_utf8(line)) {
            (Some(words), _) => self.lines.extend_from_slice(words.as_bytes()),
            (None, Ok(text)) if !is_plain => self.lines.extend_from_slice(plain::line(text).as_bytes()),
            (None, _) => self.lines.extend_from_slice(line),
        }
        self.lines.push(b'\n');
        if self.lines.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes all of it, or counts the lines that cannot be: a closed standard output or a full disk is not a reason to
    /// stop serving.
    fn flush(&mut self) {
        let mut written = 0;
        while written < self.lines.len() {
            match rustix::io::write(&self.to, &self.lines[written..]) {
                Ok(count @ 1..) => written += count,
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) if self.is_writable() => (),
                Ok(0) | Err(_) => break,
            }
        }
        let (done, left) = self.lines.split_at(written);
        if left.is_empty() {
            self.is_cut = false;
        } else {
            let lines = left.split(|byte| *byte == b'\n').count() - 1; // each ends with one
            // The line break that ends an earlier, cut line ends none of these.
            let is_break = self.is_cut && done.is_empty();
            self.lost.fetch_add(lines.saturating_sub(usize::from(is_break)) as u64, Relaxed);
            self.is_cut = done.last().map_or(self.is_cut, |last| *last != b'\n');
        }
        self.lines.clear();
    }

    /// Waits until something can be written again, however long: the queue is what is bounded.
    fn is_writable(&self) -> bool {
        let mut waiting = [PollFd::new(&self.to, PollFlags::OUT)];
        matches!(poll(&mut waiting, None), Ok(_) | Err(Errno::INTR))
    }
}

/// Takes one event's bytes at a time.
#[derive(Clone, Debug)]
struct Lines {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if !line.is_empty() && self.lines.try_send(line.to_vec()).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (lines, queue) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut writer = Lines { lines, dropped: Arc::clone(&dropped) };
        for line in ["first\n", "second\n", "third\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(queue.try_recv().unwrap(), b"first");
        assert_eq!(dropped.load(Relaxed), 2);
    }

    #[test]
    fn a_descriptor_that_does_not_wait_loses_no_line() {
        let (reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        let (lines, queue) = sync_channel(16);
        let (ack, _acknowledged) = sync_channel(1);
        let mut out = Out::new(writer, Arc::clone(&lost), None);
        let writing = thread::spawn(move || write(&queue, &ack, &mut out));
        let long = "x".repeat(10_000);
        let sent: Vec<String> = (0..200).map(|number| format!("{number} {long}")).collect();
        let wanted = sent.clone();
        let sending = thread::spawn(move || sent.into_iter().for_each(|line| lines.send(line.into_bytes()).unwrap()));
        let read: Vec<String> = BufReader::new(reader).lines().take(200).map(Result::unwrap).collect();
        assert!(read == wanted, "every line, whole and in order");
        sending.join().unwrap();
        writing.join().unwrap();
        assert_eq!(lost.load(Relaxed), 0);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let lost = Arc::new(AtomicU64::new(0));
        let mut out = Out::new(writer, Arc::clone(&lost), None);
        for line in ["a", "b", "c"] {
            out.take(line.as_bytes());
        }
        out.flush();
        out.take(b"d");
        out.flush();
        assert_eq!(lost.load(Relaxed), 4);
    }

    #[test]
    fn levels_and_filters_are_understood_and_nonsense_is_not() {
        for good in ["info", "debug", "warn,lictor_proxy=trace"] {
            filter(good).unwrap();
        }
        assert!(filter("lictor=louder").is_err());
    }
}
