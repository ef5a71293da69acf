//! What the operating system asks of us.
//!
//! A signal that was ignored when we were started stays so, for us and for the application, as in a shell (POSIX, `trap`):
//! `nohup` means that a hangup is nobody's business, and a background job of a script that the interrupt key is not.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that mean something to lictor or to its application.
#[derive(Debug)]
pub(crate) struct Signals {
    term: Option<Stream>,
    int: Option<Stream>,
    hup: Option<Stream>,
    quit: Option<Stream>,
    usr1: Option<Stream>,
    usr2: Option<Stream>,
    /// Held, not read: who ignores SIGCHLD does not hear of a child's exit code (wait(2)).
    _chld: Stream,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGTERM or SIGINT.
    Stop(Signal),
    /// SIGHUP.
    Reload,
    /// For the application, as it is: a thread dump, a log rotation.
    Forward(Signal),
}

impl Signals {
    /// From now on these no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = Ignored::at_start();
        let listen = |kind: SignalKind| {
            let is_ignored = ignored.has(kind.as_raw_value());
            if is_ignored { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            usr1: listen(SignalKind::user_defined1())?,
            usr2: listen(SignalKind::user_defined2())?,
            _chld: signal(SignalKind::child())?,
        })
    }

    /// Those that mean something to us and were ignored when we were started.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let all = [(&self.term, "SIGTERM"), (&self.int, "SIGINT"), (&self.hup, "SIGHUP"), (&self.quit, "SIGQUIT")];
        all.into_iter().filter(|(stream, _)| stream.is_none()).map(|(_, name)| name).collect()
    }

    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            () = came(&mut self.term) => Asked::Stop(Signal::TERM),
            () = came(&mut self.int) => Asked::Stop(Signal::INT),
            () = came(&mut self.hup) => Asked::Reload,
            () = came(&mut self.quit) => Asked::Forward(Signal::QUIT),
            () = came(&mut self.usr1) => Asked::Forward(Signal::USR1),
            () = came(&mut self.usr2) => Asked::Forward(Signal::USR2),
        }
    }
}

async fn came(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => {
            stream.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// What this process ignores, a bit for each signal. Taken before anything is listened for, it is what it was given.
#[derive(Clone, Copy, Debug, Default)]
struct Ignored(u64);

impl Ignored {
    /// Where /proc is not there nothing is known to be ignored.
    fn at_start() -> Self {
        Self::read(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// `SigIgn:` of proc_pid_status(5).
    fn read(status: &str) -> Self {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default())
    }

    fn has(self, signal: i32) -> bool {
        u32::try_from(signal - 1).is_ok_and(|bit| self.0.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_kernels_mask() {
        let ignored =
            Ignored::read("Name:\tlictor\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001003\nSigCgt:\t0\n");
        let which: Vec<i32> = (1..=64).filter(|signal| ignored.has(*signal)).collect();
        assert_eq!(which, [1, 2, 13], "SIGHUP, SIGINT, SIGPIPE");
        assert!(!Ignored::read("").has(1) && !ignored.has(0) && !ignored.has(65));
    }
}
