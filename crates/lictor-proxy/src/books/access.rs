//! The access log: a JSON object a line, for requests, connections that are carried as bytes, and heads that nobody
//! could read.

use std::time::SystemTime;

use lictor_core::mesh::{AccessLog, Level};
use serde::Serialize;

use crate::world::client::Connection;

/// What all lines begin with.
#[derive(Serialize)]
struct Line<T> {
    timestamp: String,
    level: &'static str,
    target: &'static str,
    message: &'static str,
    direction: &'static str,
    #[serde(flatten)]
    what: T,
}

/// Writes a line, if such are wanted. A full log drops it, which is counted: nobody waits for a disk.
pub(super) fn log<T: Serialize>(
    connection: &Connection,
    wanted: AccessLog,
    level: Level,
    message: &'static str,
    what: impl FnOnce() -> T,
) {
    let worker = &connection.worker;
    let is_wanted = match wanted {
        AccessLog::All => true,
        AccessLog::Errors => level.is_error(),
        AccessLog::Sampled(share) => level.is_error() || worker.chance() < share,
        AccessLog::Off => false,
    };
    let (true, Some(log)) = (is_wanted, &worker.shared.access_log) else { return };
    let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let line = Line {
        timestamp,
        level: level.as_str(),
        target: "lictor::access",
        message,
        direction: connection.direction(),
        what: what(),
    };
    if serde_json::to_vec(&line).is_ok_and(|line| log.try_send(line).is_err()) {
        worker.shared.metrics.logs_dropped.inc();
    }
}
