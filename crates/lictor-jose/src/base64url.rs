//! base64url as RFC 7515, section 2 has it: no padding, no white space, and one spelling for each text (RFC 4648, section 3.5).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `None` for what is not written so.
pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// As it is written.
#[cfg(any(fuzzing, test))]
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_one_spelling() {
        let read = ["", "AA", "_-8", "AAAA", "AAA"];
        for text in read {
            assert_eq!(encode(decode(text).unwrap()), text);
        }
        // Padding, the other alphabet, bits that say nothing, a length that cannot be, white space, other characters.
        for text in [
            "AA==", "AAA=", "=", "+/8", "AB", "AAB", "A", "AAAAA", "AA ", " AA", "AA\n", "A\tA", "AA?", "A%41",
            "\u{e9}A",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
