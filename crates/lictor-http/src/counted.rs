//! How much of a body may still come.

use bytes::Bytes;
use http_body::Frame;

use crate::error::BodyError;

/// What is left of so many bytes after this frame.
pub(crate) fn counted(left: &mut u64, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
    let taken = frame.data_ref().map_or(0, |data| data.len() as u64);
    *left = left.checked_sub(taken).ok_or(BodyError::TooLong)?;
    Ok(frame)
}
