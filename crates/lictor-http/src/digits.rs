//! Numbers, as heads and chunks have them.

/// In decimal digits.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// In hexadecimal ones (RFC 9112, section 7.1).
pub(crate) fn hexadecimal(mut number: usize, digits: &mut [u8; 16]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number % 16];
        number /= 16;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// A length: digits only, and not absurd (RFC 9110, section 8.6).
pub(crate) fn length(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |length, digit| Some(length * 10 + u64::from(char::from(*digit).to_digit(10)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for number in [0, 1, 9, 10, 4096, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
        for number in [0, 15, 16, 65_536, usize::MAX] {
            assert_eq!(hexadecimal(number, &mut [0; 16]), format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn a_length_is_digits_alone() {
        for (text, read) in [
            ("0", Some(0)),
            (" 42\t", Some(42)),
            ("007", Some(7)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
        ] {
            assert_eq!(length(text.as_bytes()), read, "{text:?}");
        }
        for text in ["", " ", "+1", "-1", "1 2", "0x1", "1e3", "1.0", "１", "1000000000000000000"] {
            assert_eq!(length(text.as_bytes()), None, "{text:?}");
        }
    }
}
