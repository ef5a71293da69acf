//! Compressing answers, as `lictor_core::gateway::compress` says which. Encoders are as good as they are cheap: of 245 KiB
//! of JSON `br` at 1 and `gzip` at 4 make a sixth to an eighth at 200 to 300 MB a second, and hold 0.2 and 0.4 MiB. `zstd` at 1 holds
//! 0.6 MiB, and makes fewer bytes than `br` in a third of its time.

use std::fmt;
use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use lictor_core::gateway::compress::{self, Coding, Compress, Plain, Verdict, Wish};
use lictor_http::fields::told_length;
use tokio::sync::OwnedSemaphorePermit;

use crate::calls::ending::ResponseBody;
use crate::calls::recoded::{Ahead, Failed, Recode};
use crate::names;
use crate::world::shared::Shared;

const BROTLI: u32 = 1;
/// What is remembered of what came, as a power of two.
const BROTLI_WINDOW: u32 = 18;
const BROTLI_BUFFER: usize = 4 << 10;
const GZIP: u32 = 4;
#[cfg(feature = "zstd")]
const ZSTD: i32 = 1;
/// As `BROTLI_WINDOW`. With twice of it twice the memory is held for 4 % fewer bytes. Of clients nobody may ask more than 8 MiB, 23
/// (RFC 9659, section 3).
#[cfg(feature = "zstd")]
const ZSTD_WINDOW: u32 = 16;

/// Compresses an answer, where that is wished and may be. `is_known` is whether the gateway knows who asks.
pub(super) fn leave(
    compress: &Compress,
    wish: &Wish,
    is_known: bool,
    shared: &Shared,
    response: &mut Response<ResponseBody>,
) {
    if response.status() == StatusCode::NOT_MODIFIED {
        return wish.confirm(response.headers_mut());
    }
    let begun = begin(compress, wish, is_known, shared, response);
    if !wish.is_head {
        shared.metrics.compressed(begun);
    }
}

/// Which coding it has from here on, or why none.
fn begin(
    compress: &Compress,
    wish: &Wish,
    is_known: bool,
    shared: &Shared,
    response: &mut Response<ResponseBody>,
) -> Result<Coding, Plain> {
    let verdict = compress.judge(wish, is_known, response.status(), response.headers());
    if let Verdict::Never(why) = verdict {
        return Err(why);
    }
    if names::is_stream(response.headers()) {
        return Err(Plain::Stream);
    }
    compress::varies(response.headers_mut());
    let (coding, least) = match verdict {
        Verdict::Never(why) | Verdict::Identity(why) => return Err(why),
        Verdict::Code(coding, least) => (coding, least),
    };
    if wish.is_head {
        if told_length(response.headers()).is_some_and(|length| length < least as u64) {
            return Err(Plain::Small);
        }
        Wish::dress(coding, response.headers_mut());
        return Ok(coding);
    }
    let length = response.body().size_hint().exact();
    if length.is_some_and(|length| length < least as u64) || response.body().is_end_stream() {
        return Err(Plain::Small);
    }
    let place = shared.coders.clone().try_acquire_owned().map_err(|_| Plain::Full)?;
    let ahead = if length.is_some() { Some(Ahead::new()) } else { response.body_mut().ahead(least) };
    let ahead = ahead.ok_or(Plain::Small)?;
    Wish::dress(coding, response.headers_mut());
    response.body_mut().recode(ahead, Box::new(Encoding::new(coding, place)));
    Ok(coding)
}

/// Compresses into memory.
trait Encoder: Write {
    /// What has come of it by now.
    fn made(&mut self) -> Vec<u8>;

    /// What is left of it, with its end.
    fn end(self: Box<Self>) -> io::Result<Vec<u8>>;
}

impl Encoder for CompressorWriter<Vec<u8>> {
    fn made(&mut self) -> Vec<u8> {
        std::mem::take(self.get_mut())
    }

    fn end(self: Box<Self>) -> io::Result<Vec<u8>> {
        Ok(self.into_inner())
    }
}

impl Encoder for GzEncoder<Vec<u8>> {
    fn made(&mut self) -> Vec<u8> {
        std::mem::take(self.get_mut())
    }

    fn end(self: Box<Self>) -> io::Result<Vec<u8>> {
        self.finish()
    }
}

#[cfg(feature = "zstd")]
impl Encoder for zstd::Encoder<'static, Vec<u8>> {
    fn made(&mut self) -> Vec<u8> {
        std::mem::take(self.get_mut())
    }

    fn end(self: Box<Self>) -> io::Result<Vec<u8>> {
        self.finish()
    }
}

#[cfg(feature = "zstd")]
fn zstd() -> io::Result<Box<dyn Encoder>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD)?;
    encoder.window_log(ZSTD_WINDOW)?;
    Ok(Box::new(encoder))
}

/// An answer that is being compressed: one of so many of the process.
struct Encoding {
    /// `None`: it has failed, and so does what is asked of it; what a client has by then is no whole answer.
    encoder: Option<Box<dyn Encoder>>,
    _place: OwnedSemaphorePermit,
}

impl Encoding {
    fn new(coding: Coding, place: OwnedSemaphorePermit) -> Self {
        let encoder: Option<Box<dyn Encoder>> = match coding {
            #[cfg(feature = "zstd")]
            Coding::Zstd => zstd().ok(),
            Coding::Brotli => Some(Box::new(CompressorWriter::new(Vec::new(), BROTLI_BUFFER, BROTLI, BROTLI_WINDOW))),
            Coding::Gzip => Some(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP)))),
        };
        Self { encoder, _place: place }
    }

    fn taken(&mut self) -> Result<Box<dyn Encoder>, Failed> {
        self.encoder.take().ok_or_else(|| "an answer could not be compressed".into())
    }

    /// What has come by now. It fails where there is no memory.
    fn made(&mut self, write: impl FnOnce(&mut dyn Encoder) -> io::Result<()>) -> Result<Vec<u8>, Failed> {
        let mut encoder = self.taken()?;
        write(&mut *encoder)?;
        let made = encoder.made();
        self.encoder = Some(encoder);
        Ok(made)
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoding")
    }
}

impl Recode for Encoding {
    fn data(&mut self, piece: &[u8]) -> Result<Bytes, Failed> {
        Ok(self.made(|encoder| encoder.write_all(piece))?.into())
    }

    fn pause(&mut self) -> Vec<u8> {
        self.made(|encoder| encoder.flush()).unwrap_or_default() // what comes next fails then
    }

    fn end(&mut self, mut trailers: Option<HeaderMap>) -> Result<(Vec<u8>, Option<HeaderMap>), Failed> {
        if let Some(trailers) = &mut trailers {
            Wish::undress(trailers);
        }
        Ok((self.taken()?.end()?, trailers))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use brotli::Decompressor;
    use flate2::read::GzDecoder;
    use tokio::sync::Semaphore;

    use super::*;

    fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    /// What a client reads of it; of a body that is not over, what there is.
    fn read(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = match coding {
            Coding::Brotli => Decompressor::new(coded, 4096).read_to_end(&mut plain),
            Coding::Gzip => GzDecoder::new(coded).read_to_end(&mut plain),
            #[cfg(feature = "zstd")]
            Coding::Zstd => zstd::Decoder::new(coded).and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        };
        plain
    }

    #[test]
    fn what_is_compressed_is_read_again_and_at_every_pause() {
        let text: Vec<u8> =
            (0..40_000_u32).flat_map(|number| format!("{} ", number * number % 9973).into_bytes()).collect();
        for coding in Coding::ALL.iter().copied() {
            for size in [1, 7, 1000, 16 << 10, text.len()] {
                let text = &text[..text.len().min(size * 400)];
                let (mut encoding, mut coded, mut given) = (Encoding::new(coding, place()), Vec::new(), 0);
                for (number, piece) in text.chunks(size).enumerate() {
                    coded.extend(encoding.data(piece).unwrap());
                    given += piece.len();
                    if number % 100 == 0 {
                        coded.extend(encoding.pause());
                        assert!(read(coding, &coded) == text[..given], "{coding:?} {size} {given}");
                    }
                }
                coded.extend(encoding.end(None).unwrap().0);
                assert!(read(coding, &coded) == text, "{coding:?} {size}");
                assert!(size < 1000 || coded.len() < text.len() / 3 * 2, "{coding:?} {size}: {}", coded.len());
                assert!(encoding.end(None).is_err(), "there is one end");
            }
        }
    }

    #[test]
    fn what_has_failed_fails_and_is_no_end() {
        for coding in Coding::ALL.iter().copied() {
            let mut encoding = Encoding::new(coding, place());
            assert!(encoding.made(|_| Err(io::ErrorKind::OutOfMemory.into())).is_err());
            assert!(encoding.pause().is_empty() && encoding.data(b"a").is_err() && encoding.end(None).is_err());
        }
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn no_answer_holds_more_than_is_told() {
        use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

        let (mut context, text, mut out) = (CCtx::create(), vec![b'a'; 1 << 20], vec![0; 1 << 20]);
        context.set_parameter(CParameter::CompressionLevel(ZSTD)).unwrap();
        context.set_parameter(CParameter::WindowLog(ZSTD_WINDOW)).unwrap();
        let (mut from, mut to) = (InBuffer::around(&text), OutBuffer::around(&mut out[..]));
        context.compress_stream(&mut to, &mut from).unwrap();
        let held = context.sizeof() + (32 << 10); // what it has made
        assert!(held < 600 << 10, "{held}");
    }

    /// RFC 8878, section 3.1.1.1.2: `Window_Descriptor`.
    #[cfg(feature = "zstd")]
    #[test]
    fn a_client_of_zstd_is_asked_for_as_much_memory_as_is_held_here() {
        for size in [1, 1000, 20 << 20] {
            let mut encoding = Encoding::new(Coding::Zstd, place());
            let mut coded = encoding.data(&vec![b'a'; size]).unwrap().to_vec();
            coded.extend(encoding.end(None).unwrap().0);
            assert_eq!(coded[..4], 0xFD2F_B528_u32.to_le_bytes());
            assert_eq!(coded[4] & 0b0010_0000, 0, "it is told");
            let (exponent, mantissa) = (coded[5] >> 3, u64::from(coded[5] & 7));
            let base = 1_u64 << (10 + exponent);
            assert_eq!(base + base / 8 * mantissa, 64 << 10, "{size}");
        }
    }
}
