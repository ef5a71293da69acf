//! Bodies as they come: by length, in chunks, or until the connection ends.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::{Frame, SizeHint};

use super::head::{self, Length};
use crate::error::BodyError;
use crate::fields::{Fields, named};

/// All chunk extensions of a body together are not longer.
const EXTENSIONS_MAX: usize = 16 << 10;

/// A smaller chunk is put together with those that have come after it: each alone would cost what a large one does.
const SMALL: usize = 1 << 10;
/// And no more is put together.
const GATHERED_MAX: usize = 16 << 10;

/// Takes a body apart.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// Bytes of chunk extensions so far: nobody reads them, so they may not be many. And which trailers are not passed
    /// on, because the head's `Connection` names them (RFC 9110, section 7.6.1).
    Chunked(Chunked, usize, Option<Box<Hidden>>),
    UntilClose,
    Done,
}

/// Names of trailers; seldom any, so that a body is no larger for them than a pointer.
#[derive(Debug)]
pub(crate) struct Hidden(Vec<HeaderName>);

/// What comes next of a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    Size,
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    Trailers,
}

/// A part of a chunked body.
enum Part {
    Data(Bytes),
    End(HeaderMap),
}

impl Decoder {
    pub(crate) fn new(length: Length) -> Self {
        match length {
            Length::Exactly(0) => Self::Done,
            Length::Exactly(length) => Self::Length(length),
            Length::Chunked => Self::Chunked(Chunked::Size, 0, None),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// Of a body whose head is this.
    pub(crate) fn of(length: Length, headers: &HeaderMap, fields: Fields) -> Self {
        let mut decoder = Self::new(length);
        if let (Self::Chunked(_, _, hidden), true) = (&mut decoder, fields.has(Fields::CONNECTION)) {
            *hidden = Some(Box::new(Hidden(named(headers))));
        }
        decoder
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How much is left, as far as is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(..) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// The next part that is whole; `None` when more bytes are needed, or none are.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame<Bytes>>, BodyError> {
        match self {
            Self::Done => Ok(None),
            Self::UntilClose => Ok(take(buffer, u64::MAX).map(Frame::data)),
            Self::Length(left) => {
                let Some(data) = take(buffer, *left) else { return Ok(None) };
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Frame::data(data)))
            }
            Self::Chunked(chunked, extensions, hidden) => {
                Ok(match chunked.decode(buffer, extensions).map_err(BodyError::Malformed)? {
                    None => None,
                    Some(Part::Data(data)) => Some(Frame::data(data)),
                    Some(Part::End(mut trailers)) => {
                        for name in hidden.iter().flat_map(|hidden| &hidden.0) {
                            trailers.remove(name);
                        }
                        *self = Self::Done;
                        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
                    }
                })
            }
        }
    }

    /// The connection has ended: is the body whole?
    pub(crate) fn end(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(..) => Err(BodyError::Cut),
        }
    }
}

/// Up to `at_most` bytes, if there are any.
fn take(buffer: &mut BytesMut, at_most: u64) -> Option<Bytes> {
    let count = buffer.len().min(usize::try_from(at_most).unwrap_or(usize::MAX));
    (count > 0).then(|| buffer.split_to(count).freeze())
}

impl Chunked {
    /// The next part: a chunk, as much of one as there is, or several small ones.
    fn decode(&mut self, buffer: &mut BytesMut, extensions: &mut usize) -> Result<Option<Part>, &'static str> {
        let part = self.part(buffer, extensions)?;
        let Some(Part::Data(first)) = &part else { return Ok(part) };
        if first.len() >= SMALL {
            return Ok(part);
        }
        let Some(mut next) = self.small(buffer, extensions) else { return Ok(part) };
        let mut gathered = BytesMut::from(&first[..]);
        loop {
            gathered.extend_from_slice(&buffer[..next]);
            buffer.advance(next);
            *self = Self::DataEnd;
            match self.small(buffer, extensions) {
                Some(length) if gathered.len() < GATHERED_MAX => next = length,
                _ => return Ok(Some(Part::Data(gathered.freeze()))),
            }
        }
    }

    /// The length of the next chunk, if it is small and all of it is there. A mistake is found again by who reads on.
    fn small(&mut self, buffer: &mut BytesMut, extensions: &mut usize) -> Option<usize> {
        if *self == Self::DataEnd {
            self.end_of_data(buffer).ok()?;
        }
        if *self == Self::Size {
            self.begin(size(buffer, extensions).ok()??);
        }
        match *self {
            Self::Data(length) if length < SMALL as u64 && length <= buffer.len() as u64 => Some(length as usize),
            _ => None,
        }
    }

    fn begin(&mut self, size: u64) {
        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
    }

    fn part(&mut self, buffer: &mut BytesMut, extensions: &mut usize) -> Result<Option<Part>, &'static str> {
        loop {
            match self {
                Self::Size => {
                    let Some(size) = size(buffer, extensions)? else { return Ok(None) };
                    self.begin(size);
                }
                Self::Data(left) => {
                    let Some(data) = take(buffer, *left) else { return Ok(None) };
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                        // Usually it is there already, and the last chunk too: then the end is seen now.
                        let _ = self.end_of_data(buffer)?;
                    }
                    return Ok(Some(Part::Data(data)));
                }
                Self::DataEnd => {
                    if !self.end_of_data(buffer)? {
                        return Ok(None);
                    }
                }
                Self::Trailers => {
                    return Ok(head::trailers(buffer)?.map(Part::End));
                }
            }
        }
    }

    fn end_of_data(&mut self, buffer: &mut BytesMut) -> Result<bool, &'static str> {
        match buffer[..] {
            [b'\r', b'\n', ..] => {
                let _ = buffer.split_to(2);
                *self = Self::Size;
                Ok(true)
            }
            [] | [b'\r'] => Ok(false),
            _ => Err("a chunk is longer than its size"),
        }
    }
}

/// A chunk's size: hexadecimal digits, perhaps an extension, and a line end.
fn size(buffer: &mut BytesMut, extensions: &mut usize) -> Result<Option<u64>, &'static str> {
    const NOT_A_SIZE: &str = "a chunk's size is not a number";
    let digits = buffer.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let is_plausible = match buffer[digits..] {
        [b'\r', next, ..] => next == b'\n',
        [] | [b'\r' | b';' | b' ' | b'\t', ..] => true,
        _ => false,
    };
    if digits > 16 || !is_plausible || (digits == 0 && !buffer.is_empty()) {
        return Err(NOT_A_SIZE);
    }
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return if *extensions + buffer.len() > EXTENSIONS_MAX {
            Err("chunk extensions are too long")
        } else {
            Ok(None)
        };
    };
    let line = buffer[..end].strip_suffix(b"\r").ok_or("a chunk's size line does not end with CR LF")?;
    let (number, extension) = line.split_at(digits);
    let is_extension = extension.iter().find(|byte| !matches!(byte, b' ' | b'\t')).is_none_or(|byte| *byte == b';');
    if !is_extension || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(NOT_A_SIZE);
    }
    *extensions += extension.len();
    if *extensions > EXTENSIONS_MAX {
        return Err("chunk extensions are too long");
    }
    let size = number.iter().fold(0_u64, |size, digit| {
        (size << 4) | u64::from(char::from(*digit).to_digit(16).expect("only hexadecimal digits were counted"))
    });
    if size > u64::MAX / 2 {
        return Err("a chunk's size is too large");
    }
    let _ = buffer.split_to(end + 1);
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data, the trailers, and what was not the body's any more.
    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Everything that a decoder makes of these pieces.
    fn decoded(length: Length, pieces: &[&[u8]]) -> Result<Decoded, BodyError> {
        let (mut decoder, mut buffer) = (Decoder::new(length), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), None);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                match frame.into_data() {
                    Ok(part) => data.extend_from_slice(&part),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
        }
        decoder.end()?;
        Ok((data, trailers, buffer.to_vec()))
    }

    const CHUNKED: &[u8] = b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET";

    #[test]
    fn every_split_of_a_chunked_body_is_the_same_body() {
        for at in 0..=CHUNKED.len() {
            let (one, two) = CHUNKED.split_at(at);
            let (data, trailers, rest) = decoded(Length::Chunked, &[one, two]).unwrap();
            assert_eq!((&data[..], &rest[..]), (&b"hello world"[..], &b"GET"[..]), "{at}");
            assert_eq!(trailers.unwrap()["x-sum"], "1");
        }
    }

    #[test]
    fn small_chunks_that_have_come_are_one_part() {
        let (small, large) = (b"1\r\nx\r\n".repeat(20_000), [&b"400\r\n"[..], &[b'y'; 1024], b"\r\n"].concat());
        let mut buffer = BytesMut::from(&[&small[..], &large, &small[..12], b"0\r\n\r\n"].concat()[..]);
        let mut decoder = Decoder::new(Length::Chunked);
        let mut parts = Vec::new();
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            parts.push(frame.into_data().unwrap().len());
        }
        assert_eq!(parts, [GATHERED_MAX, 20_000 - GATHERED_MAX, 1024, 2]);
        assert!(decoder.is_done() && buffer.is_empty());
        // What is wrong after them does not take them away.
        let (mut decoder, mut buffer) = (Decoder::new(Length::Chunked), BytesMut::from(&b"1\r\nx\r\n1\r\nyz\r\n"[..]));
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().into_data().unwrap(), "xy");
        assert!(decoder.decode(&mut buffer).is_err());
    }

    #[test]
    fn a_cut_body_is_not_whole() {
        for at in 0..CHUNKED.len() - 3 {
            assert_eq!(decoded(Length::Chunked, &[&CHUNKED[..at]]).unwrap_err(), BodyError::Cut, "{at}");
        }
        assert_eq!(decoded(Length::Exactly(5), &[b"hell"]).unwrap_err(), BodyError::Cut);
        assert_eq!(decoded(Length::UntilClose, &[b"hell"]).unwrap().0, b"hell");
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for wrong in [
            "-5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\nhello",
            ";a\r\n",
            "5 5\r\nhello",
            "ffffffffffffffff\r\n",
            "11111111111111111\r\n",
            "5;a\0b\r\nhello\r\n",
            "g\r\n",
            "5\rhello",
        ] {
            let result = decoded(Length::Chunked, &[wrong.as_bytes()]);
            assert!(matches!(result, Err(BodyError::Malformed(_))), "{wrong:?}: {result:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..200) {
            let (one, two) = bytes.split_at(at.min(bytes.len()));
            let _ = decoded(Length::Chunked, &[one, two]);
        }

        #[test]
        fn what_is_chunked_is_read_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8), at in 0_usize..400) {
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let (one, two) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(decoded(Length::Chunked, &[one, two]).unwrap().0, parts.concat());
        }
    }
}
