//! Frames and field blocks from a hostile peer.

use http::Request;

pub use super::hpack::laws::hpack;
pub use super::wire::laws::{http2_client, http2_server};

use super::hpack::Decoder;
use super::message::Message;

/// The request that a block is.
pub fn request_of_block(block: &[u8]) -> Result<Request<()>, &'static str> {
    let mut message = Message::new();
    Decoder::default().decode(block, |field, size| message.take(field, size)).map_err(|error| error.0)?;
    message.into_request().map_err(|malformed| malformed.0)
}
