//! What an index of a block means (RFC 7541, section 2.3): an entry of the static table, or of the dynamic one, which a
//! decoder keeps as its peer says, within [`TABLE_MAX`].

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use super::names::{Field, Malformed, Name, Undecodable};

/// SETTINGS_HEADER_TABLE_SIZE, which we leave at its default (RFC 9113, section 6.5.2).
pub(super) const TABLE_MAX: usize = 4096;
/// What an entry counts besides its name and value (RFC 7541, section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The entries of one direction of a connection.
#[derive(Debug)]
pub(super) struct Table {
    /// The dynamic ones, the newest first.
    pub(super) entries: VecDeque<Entry>,
    pub(super) size: usize,
    pub(super) max: usize,
}

/// An entry of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) field: Result<Field, Malformed>,
    pub(super) name_size: usize,
    pub(super) size: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: TABLE_MAX }
    }
}

impl Table {
    pub(super) fn get(&self, index: usize) -> Result<&Entry, Undecodable> {
        let index = index.checked_sub(1).ok_or(Undecodable("index 0"))?;
        STATIC_TABLE
            .get(index)
            .or_else(|| self.entries.get(index - STATIC.len()))
            .ok_or(Undecodable("an index beyond the table"))
    }

    /// What the peer says of its size (RFC 7541, section 6.3).
    pub(super) fn resize(&mut self, max: usize) -> Result<(), Undecodable> {
        if max > TABLE_MAX {
            return Err(Undecodable("the table would be larger than allowed"));
        }
        self.max = max;
        self.evict(0);
        Ok(())
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        if entry.size <= self.max {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    /// Makes room (RFC 7541, sections 4.3 and 4.4).
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

impl Entry {
    pub(super) fn new(name: Name, name_size: usize, value: Bytes) -> Self {
        let size = name_size + value.len() + OVERHEAD;
        Self { field: name.with(value, false), name, name_size, size }
    }
}

/// The static table's first index for a name, 0 for none.
pub(super) fn static_name(name: &[u8]) -> u8 {
    // What comes most is not there: it need not be searched for.
    match name {
        [b'x', b'-', ..] | b"traceparent" | b"tracestate" | b"te" => 0,
        b"accept" => 19,
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

/// RFC 7541, appendix A.
static STATIC_TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(name, value): &(&'static str, &'static str)| {
        Entry::new(Name::of(name.as_bytes()), name.len(), Bytes::from_static(value.as_bytes()))
    };
    STATIC.iter().map(entry).collect()
});

pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
