//! Field blocks from a hostile peer.

use bytes::BytesMut;

use super::super::huffman;
use super::table::{OVERHEAD, TABLE_MAX};
use super::{Decoder, Encoder, Field};

/// Blocks of one connection, each a length and its bytes: the table stays within its size, a field is one, and what is
/// written of it is read as the same. The whole is Huffman code as well: what can be read of it is written so again.
pub fn hpack(bytes: &[u8]) {
    let mut text = Vec::new();
    if huffman::decode(bytes, |byte| text.push(byte)).is_ok() {
        assert_eq!(huffman::encoded(&text), bytes, "two codes for {text:?}");
    }
    let mut decoder = Decoder::default();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (block, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let mut fields = Vec::new();
        let result = decoder.decode(block, |field, size| {
            assert!(size >= OVERHEAD);
            fields.extend(field.ok());
        });
        let table = &decoder.table;
        assert!(table.size <= table.max && table.max <= TABLE_MAX, "{} of {}", table.size, table.max);
        assert_eq!(table.size, table.entries.iter().map(|entry| entry.size).sum::<usize>());
        fields.into_iter().for_each(rewritten);
        if result.is_err() {
            return; // so does the connection
        }
    }
}

fn rewritten(field: Field) {
    let Field::Regular(name, value) = &field else { return };
    assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{field:?}");
    assert!(!name.as_str().bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || byte == b':'));
    let mut block = BytesMut::new();
    Encoder(&mut block).field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
    let mut read = Vec::new();
    let result = Decoder::default().decode(&block, |field, _| read.push(field));
    assert_eq!((result, &read[..]), (Ok(()), &[Ok(field.clone())][..]));
}
