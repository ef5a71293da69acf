//! Interim answers (RFC 9110, section 15.2) to a request that came on a stream.

use http::{HeaderMap, StatusCode};

use super::channel::Channel;
use crate::fields::end_to_end;

/// Where interim answers (RFC 9110, section 15.2) to a request go.
#[derive(Clone, Debug)]
pub struct Interim(Channel);

impl Interim {
    pub(super) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// The client gets it before the final answer; a 100 is each side's own.
    pub fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE {
            return;
        }
        self.write(status, &end_to_end(headers));
    }

    pub(super) fn status(&self, status: StatusCode) {
        self.write(status, &HeaderMap::new());
    }

    fn write(&self, status: StatusCode, headers: &HeaderMap) {
        let (wire, stream) = (&mut *self.0.wire.borrow_mut(), &mut *self.0.stream.borrow_mut());
        if stream.broken.is_some() || stream.is_answered() || !wire.has_room() {
            return;
        }
        wire.write_fields(stream, false, |fields| {
            fields.status(status);
            for (name, value) in headers {
                fields.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            }
        });
    }
}
