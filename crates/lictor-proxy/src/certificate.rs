//! When a certificate ends: the one thing of X.509 that rustls does not tell. The structure is RFC 5280, section 4.1;
//! the encoding X.690 (DER). A certificate that rustls takes and that is not understood here has no known end.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since the epoch at which the first of a chain ends.
pub(crate) fn first_end(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain.iter().filter_map(|certificate| not_after(certificate)).min()
}

fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// An element's tag and content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length = digits.iter().try_fold(0_usize, |sum, &digit| sum.checked_mul(256)?.checked_add(digit.into()))?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, section 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<i64> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let pair = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (pair(0)?, pair(2)?);
    Some(days(year, month, day) * 86_400 + pair(4)? * 3600 + pair(6)? * 60 + pair(8)?)
}

/// Days since the epoch, in the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(GENERALIZED_TIME, "20240229123456Z"), Some(1_709_210_096));
        assert_eq!(time(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400));
        assert_eq!(time(UTC_TIME, "7001"), None);
    }

    #[test]
    fn cut_and_broken_certificates_have_no_end() {
        for bytes in [&b""[..], b"\x30", b"\x30\x05\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00"] {
            assert_eq!(not_after(bytes), None);
        }
    }
}
