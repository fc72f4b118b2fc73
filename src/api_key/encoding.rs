//! Lower-case Crockford base32 in whole blocks: five bytes are eight characters, nothing is left over, so that every
//! value has one spelling only. No `i`, `l`, `o`, `u`; no aliases for them and no upper case.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const NO_DIGIT: u8 = 0x80;

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time: an index out of range does not build")]
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value: u8 = 0;
    while value < 32 {
        digits[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Fills `bytes` from `text`. None if a character is not of the alphabet, or the lengths do not fit.
pub(super) fn decode(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    let (text, []) = text.as_chunks::<8>() else { return None };
    let (bytes, []) = bytes.as_chunks_mut::<5>() else { return None };
    if text.len() != bytes.len() {
        return None;
    }
    let mut invalid = 0;
    for (eight, five) in text.iter().zip(bytes) {
        let mut block = 0_u64;
        for character in eight {
            let digit = DIGITS.get(usize::from(*character)).copied().unwrap_or(NO_DIGIT);
            invalid |= digit & NO_DIGIT;
            block = block << 5 | u64::from(digit & 0x1f);
        }
        let [_, _, _, a, b, c, d, e] = block.to_be_bytes();
        *five = [a, b, c, d, e];
    }
    (invalid == 0).then_some(())
}

/// The characters of whole blocks of five bytes; bytes beyond the last whole block are not written.
pub(super) fn encode(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.as_chunks::<5>().0.iter().flat_map(|&[a, b, c, d, e]| {
        let block = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        (0..8_u32).rev().filter_map(move |place| {
            let digit = usize::try_from((block >> (place * 5)) & 0x1f).ok()?;
            ALPHABET.get(digit).copied().map(char::from)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        encode(bytes).collect()
    }

    #[test]
    fn known_values() {
        for (name, bytes, expected) in [
            ("zero", [0; 5], "00000000"),
            ("one", [0, 0, 0, 0, 1], "00000001"),
            ("all bits", [0xff; 5], "zzzzzzzz"),
            ("ascii", *b"hello", "d1jprv3f"),
        ] {
            assert_eq!(text(&bytes), expected, "{name}");
            let mut back = [0; 5];
            assert_eq!(decode(expected.as_bytes(), &mut back), Some(()), "{name}");
            assert_eq!(back, bytes, "{name}");
        }
    }

    #[test]
    fn what_is_not_of_the_alphabet_is_refused() {
        for text in ["0000000i", "0000000l", "0000000o", "0000000u", "0000000A", "0000000_", "0000000=", "0000000 "] {
            assert_eq!(decode(text.as_bytes(), &mut [0; 5]), None, "{text}");
        }
        for text in ["", "0000000", "000000000", "0000000000000000"] {
            assert_eq!(decode(text.as_bytes(), &mut [0; 5]), None, "length of {text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip_in_the_same_order(one in any::<[u8; 10]>(), other in any::<[u8; 10]>()) {
            let mut back = [0; 10];
            prop_assert_eq!(decode(text(&one).as_bytes(), &mut back), Some(()));
            prop_assert_eq!(back, one);
            prop_assert_eq!(text(&one).cmp(&text(&other)), one.cmp(&other));
        }

        #[test]
        fn one_spelling_only(bytes in any::<[u8; 8]>()) {
            let mut value = [0; 5];
            if decode(&bytes, &mut value).is_some() {
                let spelled = text(&value);
                prop_assert_eq!(spelled.as_bytes(), &bytes[..]);
            }
        }
    }
}
