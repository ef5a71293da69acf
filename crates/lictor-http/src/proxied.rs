//! The PROXY protocol, versions 1 and 2: whom a proxy of connections brings, told before the first byte of the connection
//! (HAProxy's `proxy-protocol.txt`, the only specification).
//!
//! [`read`] is a pure function of the bytes that have come. While it asks for more, all that has come belongs to the header; a
//! header that is whole says its length. So whoever reads a socket need not take a byte that is not the header's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header of version 1 has no more bytes (section 2.1).
const LINE_MAX: usize = 107;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// And its fixed part, which ends with the length of the rest.
const FIXED: usize = 16;
/// The TLV with a checksum of the header (section 2.2.3).
const CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// Whom the proxy speaks for.
    Client(SocketAddr),
    /// Itself (`LOCAL`, a health check), or somebody whose address is not one of TCP (`UNKNOWN`, a Unix socket): the
    /// connection's own peer is the client.
    Itself,
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// All of these bytes are its, and more will come.
    Part,
    /// It has this length.
    Whole(usize, Brings),
}

/// Reads a header. An error says why it is none; whoever expects one may not guess that there is none.
pub fn read(bytes: &[u8]) -> Result<Header, &'static str> {
    let begun = bytes.len().min(SIGNATURE.len());
    match () {
        () if bytes[..begun] == SIGNATURE[..begun] => version_2(bytes),
        () if bytes.starts_with(b"PROXY ") => version_1(bytes),
        () if b"PROXY ".starts_with(bytes) => Ok(Header::Part),
        () => Err("the connection does not begin with a header of the PROXY protocol"),
    }
}

fn version_1(bytes: &[u8]) -> Result<Header, &'static str> {
    let within = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() < LINE_MAX { Ok(Header::Part) } else { Err("its line does not end within 107 bytes") };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or("its line does not end with CR LF")?;
    let line = str::from_utf8(line).map_err(|_| "its line is not ASCII")?;
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Ok(Header::Whole(end + 1, Brings::Itself)),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            ends::<Ipv4Addr>(from, to).map(IpAddr::V4).zip(ports(from_port, to_port))
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            ends::<Ipv6Addr>(from, to).map(IpAddr::V6).zip(ports(from_port, to_port))
        }
        _ => return Err("its line is none of `TCP4`, `TCP6` and `UNKNOWN`, with two addresses and two ports"),
    };
    let (address, port) = client.ok_or("its line has an address or a port that is none")?;
    Ok(Header::Whole(end + 1, Brings::Client(SocketAddr::new(address, port))))
}

/// The first of two addresses that are both of one family.
fn ends<A: std::str::FromStr>(from: &str, to: &str) -> Option<A> {
    to.parse::<A>().ok().and(from.parse().ok())
}

fn ports(from: &str, to: &str) -> Option<u16> {
    let port = |text: &str| {
        let is_number = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    port(to).and(port(from))
}

fn version_2(bytes: &[u8]) -> Result<Header, &'static str> {
    if let Some(command) = bytes.get(12)
        && !matches!(command, 0x20 | 0x21)
    {
        return Err("its version is not 2, or its command neither LOCAL nor PROXY");
    }
    let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(Header::Part) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let Some(header) = bytes.get(..length) else { return Ok(Header::Part) };
    if fixed[12] == 0x20 {
        return Ok(Header::Whole(length, Brings::Itself)); // whatever follows is to be discarded
    }
    let (brings, tlvs) = match (fixed[13] >> 4, fixed[13] & 15) {
        (0..=3, 0..=2) => addresses(fixed[13], header)?,
        _ => return Err("its family or protocol is not one of version 2"),
    };
    check(header, tlvs)?;
    Ok(Header::Whole(length, brings))
}

/// Whom it brings, and where what follows the addresses begins.
fn addresses(kind: u8, header: &[u8]) -> Result<(Brings, usize), &'static str> {
    const SHORT: &str = "its length is less than its addresses need";
    let rest = &header[FIXED..];
    match kind {
        0x11 => {
            let block = rest.first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, .., high, low, _, _] = *block;
            let client = SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]));
            Ok((Brings::Client(client), FIXED + 12))
        }
        0x21 => {
            let block = rest.first_chunk::<36>().ok_or(SHORT)?;
            let from: &[u8; 16] = block.first_chunk().ok_or(SHORT)?;
            let [.., high, low, _, _] = *block;
            let client = SocketAddr::new(Ipv6Addr::from(*from).into(), u16::from_be_bytes([high, low]));
            Ok((Brings::Client(client), FIXED + 36))
        }
        kind => {
            let length = [0, 12, 36, 216][usize::from(kind >> 4)];
            if rest.len() < length { Err(SHORT) } else { Ok((Brings::Itself, FIXED + length)) }
        }
    }
}

/// What follows the addresses is skipped, but for a checksum.
fn check(header: &[u8], mut at: usize) -> Result<(), &'static str> {
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return Err("one of its TLVs is cut") };
        let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
        at += 3;
        let value = header.get(at..at + length).ok_or("one of its TLVs is longer than it")?;
        if kind == CRC32C {
            let told = value.try_into().map(u32::from_be_bytes).map_err(|_| "its checksum is not of four bytes")?;
            let (before, after) = (&header[..at], &header[at + length..]);
            if crc32c(before.iter().chain(&[0; 4]).chain(after)) != told {
                return Err("its checksum is not that of its bytes");
            }
        }
        at += length;
    }
    Ok(())
}

/// RFC 3309, of a header whose own checksum is zero.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from((sum as u8) ^ byte)];
    !bytes.fold(u32::MAX, step)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// What holds of any bytes: a header that is whole is the same wherever it is split and whatever follows, its last byte is
/// needed, and nothing that is no header becomes one when more comes.
#[cfg(any(feature = "laws", test))]
pub fn law(bytes: &[u8]) {
    let whole = read(bytes);
    for length in 0..bytes.len() {
        match (read(&bytes[..length]), &whole) {
            (Ok(Header::Part), _) => {
                if let Ok(Header::Whole(end, _)) = whole {
                    assert!(length < end, "{length} bytes of {end}");
                }
            }
            (Ok(known @ Header::Whole(end, _)), Ok(whole)) => assert_eq!((known, end <= length), (*whole, true)),
            (known, whole) => assert_eq!(&known, whole, "{length} bytes"),
        }
    }
    match whole {
        Ok(Header::Part) => assert!(bytes.len() < FIXED + usize::from(u16::MAX)),
        Ok(Header::Whole(end, _)) => assert!(end <= bytes.len() && (bytes[0] != b'P' || end <= LINE_MAX)),
        Err(_) => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2: a command, a family and protocol, and what follows.
    fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, kind][..], &length, rest].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

    fn v6() -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        [&address("2001:db8::7")[..], &address("2001:db8::1"), &[0x12, 0x67, 0x01, 0xbb]].concat()
    }

    /// A TLV whose value is the checksum of the whole, or another.
    fn with_checksum(before: &[u8], after: &[u8], change: u32) -> Vec<u8> {
        let rest = |sum: u32| [&V4[..], before, &[CRC32C, 0, 4], &sum.to_be_bytes(), after].concat();
        let sum = crc32c(v2(0x21, 0x11, &rest(0)).iter());
        v2(0x21, 0x11, &rest(sum ^ change))
    }

    fn client(text: &str) -> Brings {
        Brings::Client(text.parse().unwrap())
    }

    #[test]
    fn a_header_says_whom_it_brings_at_every_split() {
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), LINE_MAX);
        let tlvs = [4, 0, 2, 9, 9, 0xe0, 0, 0, 0x20, 0, 1, 3];
        let many = [&V4[..], &[0xe1, 0xff, 0], &vec![7; 0xff00]].concat();
        let rows: Vec<(Vec<u8>, Brings)> = vec![
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(), client("203.0.113.7:4711")),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(), client("0.0.0.0:0")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), client("[2001:db8::7]:4711")),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n".to_vec(), client("[::ffff:203.0.113.7]:4711")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Brings::Itself),
            (b"PROXY UNKNOWN what ever\r\n".to_vec(), Brings::Itself),
            (longest.as_bytes().to_vec(), Brings::Itself),
            (v2(0x21, 0x11, &V4), client("203.0.113.7:4711")),
            (v2(0x21, 0x21, &v6()), client("[2001:db8::7]:4711")),
            (v2(0x21, 0x11, &[&V4[..], &tlvs].concat()), client("203.0.113.7:4711")),
            (v2(0x21, 0x21, &[&v6()[..], &tlvs].concat()), client("[2001:db8::7]:4711")),
            (v2(0x21, 0x11, &many), client("203.0.113.7:4711")),
            (with_checksum(&[], &[], 0), client("203.0.113.7:4711")),
            (with_checksum(&tlvs, &tlvs, 0), client("203.0.113.7:4711")),
            (v2(0x20, 0x00, &[]), Brings::Itself),
            (v2(0x20, 0x11, &V4), Brings::Itself),
            (v2(0x20, 0xff, &[1, 2, 3]), Brings::Itself),
            (v2(0x21, 0x00, &[]), Brings::Itself),
            (v2(0x21, 0x00, &tlvs), Brings::Itself),
            (v2(0x21, 0x12, &V4), Brings::Itself),
            (v2(0x21, 0x31, &[0; 216]), Brings::Itself),
        ];
        for (header, expected) in rows {
            let whole = Ok(Header::Whole(header.len(), expected));
            for follows in [&b""[..], b"GET / HTTP/1.1\r\n", b"\r\n", SIGNATURE] {
                assert_eq!(read(&[&header, follows].concat()), whole, "{header:?}");
            }
            for end in (0..header.len()).take(4096) {
                assert_eq!(read(&header[..end]), Ok(Header::Part), "{end} of {header:?}");
            }
            if header.len() < 4096 {
                law(&[&header[..], b"rest"].concat());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_never_taken_for_one() {
        let line = |text: &str| text.as_bytes().to_vec();
        let rows: Vec<Vec<u8>> = vec![
            line("GET / HTTP/1.1\r\n\r\n"),
            line("\x16\x03\x01"),
            line("proxy TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXYTCP4"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n"),
            line("PROXY  TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXY TCP4  203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 4711 443 \r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 04711 443\r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0.1 +4711 443\r\n"),
            line("PROXY TCP4 203.0.113.07 10.0.0.1 4711 443\r\n"),
            line("PROXY TCP4 203.0.113.7 10.0.0 4711 443\r\n"),
            line("PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n"),
            line("PROXY TCP6 203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXY TCP5 203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXY tcp4 203.0.113.7 10.0.0.1 4711 443\r\n"),
            line("PROXY \r\n"),
            line("PROXY UNKNOWN \u{e4}").into_iter().chain([b'x'; LINE_MAX]).collect(),
            [line("PROXY TCP4 "), vec![b'1'; LINE_MAX]].concat(),
            v2(0x22, 0x11, &V4),
            v2(0x11, 0x11, &V4),
            v2(0x01, 0x11, &V4),
            v2(0x21, 0x41, &V4),
            v2(0x21, 0x13, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            v2(0x21, 0x31, &V4),
            v2(0x21, 0x12, &[]),
            v2(0x21, 0x11, &[&V4[..], &[4]].concat()),
            v2(0x21, 0x11, &[&V4[..], &[4, 0, 9, 1]].concat()),
            v2(0x21, 0x11, &[&V4[..], &[CRC32C, 0, 3, 1, 2, 3]].concat()),
            with_checksum(&[], &[], 1),
            with_checksum(&[4, 0, 0], &[4, 0, 1, 7], 1 << 31),
        ];
        for bytes in rows {
            let error = read(&bytes);
            assert!(error.is_err(), "{error:?}: {bytes:?}");
            law(&bytes);
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }
}
