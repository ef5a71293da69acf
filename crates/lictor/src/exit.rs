//! How an application ended.

use std::fmt;

use rustix::process::Signal;

/// By itself, or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    Signal(i32),
}

impl Exit {
    /// As a shell has it: 128 + n for a signal.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }

    /// The signal's name.
    pub(crate) fn signal(self) -> Option<String> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(name(signal)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code @ 129..=192) => write!(f, "exit code {code}, as of {}", name(i32::from(code) - 128)),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) if signal == Signal::KILL.as_raw() => {
                write!(f, "{}; where nobody sent that, the kernel did: out of memory", name(signal))
            }
            Self::Signal(signal) => f.write_str(&name(signal)),
        }
    }
}

/// `SIGSEGV`
fn name(signal: i32) -> String {
    let known = [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::ILL, "ILL"),
        (Signal::TRAP, "TRAP"),
        (Signal::ABORT, "ABRT"),
        (Signal::BUS, "BUS"),
        (Signal::FPE, "FPE"),
        (Signal::KILL, "KILL"),
        (Signal::USR1, "USR1"),
        (Signal::SEGV, "SEGV"),
        (Signal::USR2, "USR2"),
        (Signal::PIPE, "PIPE"),
        (Signal::ALARM, "ALRM"),
        (Signal::TERM, "TERM"),
        (Signal::XCPU, "XCPU"),
        (Signal::XFSZ, "XFSZ"),
        (Signal::SYS, "SYS"),
    ];
    let found = known.iter().find(|(known, _)| known.as_raw() == signal);
    found.map_or_else(|| format!("signal {signal}"), |(_, name)| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_its_name() {
        for (exit, code, told) in [
            (Exit::Code(3), 3, "exit code 3"),
            (Exit::Code(139), 139, "exit code 139, as of SIGSEGV"),
            (Exit::Signal(11), 139, "SIGSEGV"),
            (Exit::Signal(64), 192, "signal 64"),
            (Exit::Code(255), 255, "exit code 255"),
        ] {
            assert_eq!((exit.code(), exit.to_string().as_str()), (code, told));
        }
        assert!(Exit::Signal(9).to_string().starts_with("SIGKILL; "));
    }
}
