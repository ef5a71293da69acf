//! Where a head is written, whichever version it is written in.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Takes the fields of a head, one after the other.
pub trait WriteHead {
    /// A field of the other side's, passed on.
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue);

    /// A field of our own.
    fn own(&mut self, name: &HeaderName, value: &[u8]);
}

impl WriteHead for HeaderMap {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        self.append(name, HeaderValue::from_bytes(value).expect("made of valid values"));
    }
}
