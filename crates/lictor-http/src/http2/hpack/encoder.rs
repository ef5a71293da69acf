//! Writes blocks: what the static table has is an index, all else a literal that no table keeps (RFC 7541, section 6).

use bytes::BytesMut;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::table::static_name;
use crate::digits::decimal;
use crate::writer::WriteHead;

/// A block that is being written: pseudo-fields first (RFC 9113, section 8.3), then fields, by [`WriteHead`].
#[derive(Debug)]
pub struct Encoder<'a>(pub(in crate::http2) &'a mut BytesMut);

#[cfg(any(feature = "laws", test))]
impl<'a> Encoder<'a> {
    /// Writes a block here.
    pub fn of(block: &'a mut BytesMut) -> Self {
        Self(block)
    }
}

impl Encoder<'_> {
    /// `:method`, which comes first.
    pub fn method(&mut self, method: &Method) {
        match *method {
            Method::GET => self.indexed(2),
            Method::POST => self.indexed(3),
            ref other => self.literal(2, other.as_str().as_bytes(), false),
        }
    }

    /// `:scheme`: `https` or `http`.
    pub fn scheme(&mut self, is_encrypted: bool) {
        self.indexed(if is_encrypted { 7 } else { 6 });
    }

    /// `:authority`: host, and perhaps port.
    pub fn authority(&mut self, authority: &[u8]) {
        self.literal(1, authority, false);
    }

    /// `:path`, with the query; never empty.
    pub fn path(&mut self, path: &[u8]) {
        if path == b"/" { self.indexed(4) } else { self.literal(4, path, false) }
    }

    /// `:protocol`, of an extended CONNECT (RFC 8441, section 4).
    pub fn protocol(&mut self, protocol: &[u8]) {
        self.field(b":protocol", protocol, false);
    }

    pub(in crate::http2) fn status(&mut self, status: StatusCode) {
        match status.as_u16() {
            200 => self.indexed(8),
            204 => self.indexed(9),
            206 => self.indexed(10),
            304 => self.indexed(11),
            400 => self.indexed(12),
            404 => self.indexed(13),
            500 => self.indexed(14),
            _ => self.literal(8, status.as_str().as_bytes(), false),
        }
    }

    /// Sensitive ones are not to be kept in any table (RFC 7541, section 7.1.3).
    pub(in crate::http2) fn field(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        let index = static_name(name);
        if index > 0 {
            return self.literal(index, value, is_sensitive);
        }
        self.0.reserve(name.len() + value.len() + 12);
        self.0.extend_from_slice(&[if is_sensitive { 0x10 } else { 0 }]);
        self.text(name);
        self.text(value);
    }

    pub(in crate::http2) fn number(&mut self, name: &[u8], number: u64) {
        self.field(name, decimal(number, &mut [0; 20]), false);
    }

    /// The table's size is 0 from now on: what a peer hears that has made it smaller (RFC 7541, section 4.2).
    pub(in crate::http2) fn without_table(&mut self) {
        self.0.extend_from_slice(&[0x20]);
    }

    fn indexed(&mut self, index: u8) {
        self.0.extend_from_slice(&[0x80 | index]);
    }

    fn literal(&mut self, name: u8, value: &[u8], is_sensitive: bool) {
        self.0.reserve(value.len() + 8);
        self.integer(usize::from(name), 4, if is_sensitive { 0x10 } else { 0 });
        self.text(value);
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.integer(text.len(), 7, 0);
        self.0.extend_from_slice(text);
    }

    pub(super) fn integer(&mut self, mut value: usize, prefix: u32, flags: u8) {
        let mask = (1 << prefix) - 1;
        if value < mask {
            return self.0.extend_from_slice(&[flags | value as u8]);
        }
        self.0.extend_from_slice(&[flags | mask as u8]);
        value -= mask;
        while value >= 0x80 {
            self.0.extend_from_slice(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.0.extend_from_slice(&[value as u8]);
    }
}

impl WriteHead for Encoder<'_> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        // What belongs to an upgrade in HTTP/1.1 is said in pseudo-fields (RFC 8441, section 5).
        if !matches!(*name, UPGRADE | CONNECTION | SEC_WEBSOCKET_KEY) {
            self.field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
    }

    fn own(&mut self, name: &HeaderName, value: &[u8]) {
        if *name != CONNECTION {
            self.field(name.as_str().as_bytes(), value, false);
        }
    }
}
