//! Requests whose head could not be read: there are no books to open, but they get a name, a count, a line in the access
//! log and a story of their own. All of it is bounded: a port that is open is scanned.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use lictor_core::Reason;
use lictor_core::mesh::{AccessLog, Level};
use lictor_core::story::{self, Kept, Story};
use serde::Serialize;

use super::access;
use crate::stores::request_id::RequestId;
use crate::world::client::Connection;

/// Notes it; returns its name, for whatever it is answered with. `version` is the protocol's.
pub(crate) fn tell(connection: &Connection, version: &'static str, status: StatusCode, why: &str) -> RequestId {
    let (worker, reason) = (&connection.worker, reason(status));
    let id = RequestId::new(|| worker.random());
    worker.shared.metrics.refused(status.as_u16(), reason);
    // The client's fault, and often not even a client: no error, but told with them.
    let wanted = if worker.view().mesh.access_log == AccessLog::Off { AccessLog::Off } else { AccessLog::All };
    access::log(connection, wanted, Level::Info, "refused", || Line {
        version,
        status: status.as_u16(),
        reason: reason.as_str(),
        detail: why,
        request_id: id.as_str(),
        ip: connection.ip(),
    });
    worker.shared.recorder.keep(Arc::new(Story {
        direction: connection.direction(),
        worker: worker.index,
        client: connection.ip(),
        method: version.into(),
        path: "(unreadable head)".into(),
        status: status.as_u16(),
        reason: Some(reason),
        detail: Some(story::cut_sentence(why)),
        timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        ..Story::empty(id.as_str(), Kept::Refused)
    }));
    id
}

/// The word for it.
pub(crate) fn reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::REQUEST_TIMEOUT => Reason::RequestTimeout,
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::HeadersTooLarge,
        _ => Reason::BadRequest,
    }
}

/// In the access log.
#[derive(Serialize)]
struct Line<'a> {
    version: &'static str,
    status: u16,
    reason: &'static str,
    detail: &'a str,
    request_id: &'a str,
    ip: String,
}
