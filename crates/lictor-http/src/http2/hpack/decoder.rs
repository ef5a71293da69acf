//! Reads blocks: representations, integers, strings (RFC 7541, sections 5 and 6). What an index means is the [`Table`]'s.

use bytes::{Bytes, BytesMut};

use super::super::huffman;
use super::names::{Field, Malformed, Name, Undecodable};
use super::table::{Entry, OVERHEAD, Table};

/// Strings are decoded into pieces of this much, which their fields share.
const SCRATCH: usize = 4096;

/// One direction of a connection, as its receiver decodes it.
#[derive(Debug, Default)]
pub(in crate::http2) struct Decoder {
    pub(super) table: Table,
    scratch: BytesMut,
    string: Vec<u8>,
}

impl Decoder {
    /// Decodes a block, and hands each field over with the size that it counts for.
    pub(in crate::http2) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(Result<Field, Malformed>, usize),
    ) -> Result<(), Undecodable> {
        let mut has_begun = false;
        while let Some(first) = block.first().copied() {
            match first {
                0x80.. => {
                    let entry = self.table.get(integer(&mut block, 7)?)?;
                    take(entry.field.clone(), entry.size);
                }
                0x40.. => {
                    let (name, name_size) = self.name(&mut block, 6)?;
                    let value = self.string(&mut block)?;
                    // Apart from the piece that it lies in: it may stay for long.
                    let entry = Entry::new(name, name_size, Bytes::copy_from_slice(&value));
                    take(entry.field.clone(), entry.size);
                    self.table.insert(entry);
                }
                0x20.. => {
                    let max = integer(&mut block, 5)?;
                    if has_begun {
                        return Err(Undecodable("the table's size changes within a block"));
                    }
                    self.table.resize(max)?;
                    continue;
                }
                _ => {
                    let is_sensitive = first & 0x10 != 0;
                    let (name, name_size) = self.name(&mut block, 4)?;
                    let value = self.string(&mut block)?;
                    let size = name_size + value.len() + OVERHEAD;
                    take(name.with(value, is_sensitive), size);
                }
            }
            has_begun = true;
        }
        self.string.shrink_to(SCRATCH); // a large one is seldom, a connection may stay for long
        Ok(())
    }

    fn name(&mut self, block: &mut &[u8], prefix: u32) -> Result<(Name, usize), Undecodable> {
        let index = integer(block, prefix)?;
        if index > 0 {
            let entry = self.table.get(index)?;
            return Ok((entry.name.clone(), entry.name_size));
        }
        let (text, is_code) = text(block)?;
        if !is_code {
            return Ok((Name::of(text), text.len()));
        }
        self.read(text)?;
        Ok((Name::of(&self.string), self.string.len()))
    }

    fn string(&mut self, block: &mut &[u8]) -> Result<Bytes, Undecodable> {
        let (text, is_code) = text(block)?;
        let string = if is_code {
            self.read(text)?;
            &self.string
        } else {
            text
        };
        if self.scratch.capacity() < string.len() {
            self.scratch = BytesMut::with_capacity(string.len().max(SCRATCH));
        }
        self.scratch.extend_from_slice(string);
        Ok(self.scratch.split().freeze())
    }

    fn read(&mut self, code: &[u8]) -> Result<(), Undecodable> {
        self.string.clear();
        let string = &mut self.string;
        huffman::decode(code, |byte| string.push(byte)).map_err(|_| Undecodable("a string that is not Huffman code"))
    }
}

/// RFC 7541, section 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Undecodable> {
    const CUT: Undecodable = Undecodable("an integer that is cut short");
    let (first, mut rest) = block.split_first().ok_or(CUT)?;
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(CUT)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(Undecodable("an integer that is too large"));
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// RFC 7541, section 5.2: a string, and whether it is Huffman code.
fn text<'a>(block: &mut &'a [u8]) -> Result<(&'a [u8], bool), Undecodable> {
    let is_code = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Undecodable("a string that is cut short"))?;
    *block = rest;
    Ok((text, is_code))
}
