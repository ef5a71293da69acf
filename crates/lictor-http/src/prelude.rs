//! What comes before an answer: interim ones (RFC 9110, section 15.2), of which there may be any number, and which cost a
//! server next to nothing.

/// All interim answers to one request together.
const PRELUDE_MAX: usize = 128 << 10;
/// Counted for each beside its length: the shortest is 17 bytes.
const PRELUDE_EACH: usize = 256;

/// What is left for interim answers to one request.
#[derive(Debug)]
pub struct Prelude(usize);

impl Default for Prelude {
    fn default() -> Self {
        Self(PRELUDE_MAX)
    }
}

impl Prelude {
    /// One more has come, of this length.
    pub(crate) fn hear(&mut self, length: usize) -> Result<(), &'static str> {
        let left = self.0.checked_sub(length.saturating_add(PRELUDE_EACH));
        self.0 = left.ok_or("there are more interim answers than are read")?;
        Ok(())
    }
}
