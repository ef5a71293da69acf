//! Frames and field blocks from a hostile peer.

use bytes::BytesMut;
use http::Request;

pub use super::hpack::fuzzing::hpack;
pub use super::wire::fuzzing::{http2_client, http2_server};

use super::hpack::Decoder;
use super::message::Message;

/// The request that a block is.
pub(crate) fn request_of_block(block: &[u8]) -> Result<Request<()>, &'static str> {
    let mut message = Message::new();
    Decoder::default().decode(block, |field, size| message.take(field, size)).map_err(|error| error.0)?;
    message.into_request().map_err(|malformed| malformed.0)
}

/// Frames in short: each is a kind, flags, a stream, a length, and its payload. A length of 255 is that of the rest.
pub(super) fn frames(mut bytes: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    while let [kind, flags, stream, length, rest @ ..] = bytes {
        let length = if *length == 255 { rest.len().min(16_384) } else { rest.len().min(usize::from(*length)) };
        super::frame::head(&mut out, length, kind % 12, *flags, u32::from(*stream));
        out.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    out
}
