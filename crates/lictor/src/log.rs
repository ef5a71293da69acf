//! Logs: one writer thread behind a bounded queue, for the program's own lines and the data plane's access log. When
//! standard output is slow, lines are dropped and counted; nobody waits.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use lictor_config::LogFormat;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::events::{EventLayer, Events};

const QUEUE: usize = 8192;
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
        thread::Builder::new().name("log".to_owned()).spawn(move || write(&queue, &ack))?;
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Lines { lines: lines.clone(), dropped: Arc::clone(&dropped) };
        let (filter, handle) = reload::Layer::new(filter(level)?);
        let plain = tracing_subscriber::fmt::layer().with_writer(writer);
        let layer = match format {
            LogFormat::Json => plain.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
            LogFormat::Text => plain.with_ansi(false).boxed(),
        };
        let lines_and_events =
            tracing_subscriber::registry().with(layer.with_filter(filter)).with(EventLayer::filtered(events));
        lines_and_events.try_init()?;
        Ok(Self { lines, flushed: Arc::new(Mutex::new(flushed)), dropped, filter: handle })
    }

    /// Where the data plane's access log goes.
    pub(crate) fn lines(&self) -> SyncSender<Vec<u8>> {
        self.lines.clone()
    }

    /// Lines of the program's own that were dropped.
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

/// Writes lines as they come, flushing when there are no more for now. An empty line asks for an acknowledgement.
fn write(queue: &Receiver<Vec<u8>>, ack: &SyncSender<()>) {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout());
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            if line.is_empty() {
                let _ = out.flush();
                let _ = ack.try_send(());
            } else {
                // A closed standard output is not a reason to stop serving.
                let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
            }
            next = queue.try_recv().ok();
        }
        let _ = out.flush();
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
    fn levels_and_filters_are_understood_and_nonsense_is_not() {
        for good in ["info", "debug", "warn,lictor_proxy=trace"] {
            filter(good).unwrap();
        }
        assert!(filter("lictor=louder").is_err());
    }
}
