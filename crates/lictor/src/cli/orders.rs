//! `lictor drain`, `undrain`, `reload`, `log-level` and `quit`: orders to a running sidecar.

use serde_json::Value as Json;

use crate::cli::probe::{self, Running, encode};

/// What can be ordered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    Drain,
    Undrain,
    Reload,
    LogLevel(&'a str),
    Quit,
}

impl Order<'_> {
    fn page(self) -> String {
        match self {
            Self::Drain => "drain".to_owned(),
            Self::Undrain => "undrain".to_owned(),
            Self::Reload => "reload".to_owned(),
            Self::LogLevel(level) => format!("log-level?level={}", encode(level)),
            Self::Quit => "quit".to_owned(),
        }
    }

    /// What is so now.
    fn told(self, page: &Json) -> String {
        match self {
            Self::Drain => {
                "is out of circulation: not ready, and in maintenance in Consul where it is registered. What \
                            comes is served; `lictor undrain` ends it"
                    .to_owned()
            }
            Self::Undrain => "is back in circulation".to_owned(),
            Self::Reload => "has read its configuration again; /config/changes says what changed".to_owned(),
            Self::LogLevel(level) => {
                let level = page["level"].as_str().unwrap_or(level);
                format!("logs at level {level}, until it is reloaded or started again")
            }
            Self::Quit => "stops in order, as by SIGTERM".to_owned(),
        }
    }
}

pub(super) fn order(order: Order<'_>, running: &Running) -> anyhow::Result<u8> {
    let admin = running.admin()?;
    let page = probe::call(&admin, "POST", &order.page())?;
    running.output.print(&page, |page| format!("the sidecar at {admin} {}\n", order.told(page)));
    Ok(0)
}
