//! What the operating system asks of us.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that mean something to lictor or to its application.
#[derive(Debug)]
pub(crate) struct Signals {
    term: Stream,
    int: Stream,
    hup: Stream,
    quit: Stream,
    usr1: Stream,
    usr2: Stream,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// For the application, as it is: a thread dump, a log rotation.
    Forward(Signal),
}

impl Signals {
    /// From now on these no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.term.recv() => Asked::Stop,
            _ = self.int.recv() => Asked::Stop,
            _ = self.hup.recv() => Asked::Reload,
            _ = self.quit.recv() => Asked::Forward(Signal::QUIT),
            _ = self.usr1.recv() => Asked::Forward(Signal::USR1),
            _ = self.usr2.recv() => Asked::Forward(Signal::USR2),
        }
    }
}
