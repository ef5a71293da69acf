//! HPACK: fields, compressed (RFC 7541). The [decoder] reads all of it. The [encoder] refers to the static table and to
//! nothing else: a table to keep in step with the peer costs more here than the bytes that it would save. [`names`] is what
//! they read and write.

mod decoder;
mod encoder;
#[cfg(any(feature = "laws", test))]
pub(super) mod laws;
mod names;
mod table;
#[cfg(test)]
mod tests;

pub(super) use self::decoder::Decoder;
pub use self::encoder::Encoder;
pub(super) use self::names::{Field, Malformed};
