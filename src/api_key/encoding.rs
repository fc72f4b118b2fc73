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
#[inline]
pub(super) fn decode<const TEXT: usize>(text: &[u8; TEXT], bytes: &mut [u8]) -> Option<()> {
    let (blocks, []) = text.as_chunks::<8>() else { return None };
    let (bytes, []) = bytes.as_chunks_mut::<5>() else { return None };
    if blocks.len() != bytes.len() {
        return None;
    }
    let mut invalid = 0;
    for (eight, five) in blocks.iter().zip(bytes) {
        // A character that is none marks the highest bit of its byte.
        let [a, b, c, d, e, f, g, h] = eight.map(|character| u64::from(digit(character)));
        let digits = (a << 56 | b << 48) | (c << 40 | d << 32) | (e << 24 | f << 16) | (g << 8 | h);
        invalid |= digits;
        *five = pack(digits);
    }
    (invalid & 0x8080_8080_8080_8080 == 0).then_some(())
}

fn digit(character: u8) -> u8 {
    DIGITS.get(usize::from(character)).copied().unwrap_or(NO_DIGIT)
}

/// Moves eight times five bits, each in a byte of its own, together: two, then four, then eight.
const fn pack(digits: u64) -> [u8; 5] {
    let twos = (digits & 0x1f00_1f00_1f00_1f00) >> 3 | digits & 0x001f_001f_001f_001f;
    let fours = (twos & 0x03ff_0000_03ff_0000) >> 6 | twos & 0x0000_03ff_0000_03ff;
    let eight = (fours & 0x000f_ffff_0000_0000) >> 12 | fours & 0x0000_0000_000f_ffff;
    let [_, _, _, a, b, c, d, e] = eight.to_be_bytes();
    [a, b, c, d, e]
}

/// The characters of whole blocks of five bytes; bytes beyond the last whole block are not written.
pub(super) fn encode(bytes: &[u8]) -> impl Iterator<Item = char> {
    encode_ascii(bytes).map(char::from)
}

/// The same, each as a byte.
pub(super) fn encode_ascii(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.as_chunks::<5>().0.iter().flat_map(|&[a, b, c, d, e]| {
        let block = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        (0..8_u32).rev().filter_map(move |place| {
            let digit = usize::try_from((block >> (place * 5)) & 0x1f).ok()?;
            ALPHABET.get(digit).copied()
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
            assert_eq!(decode(expected.as_bytes().first_chunk::<8>().unwrap(), &mut back), Some(()), "{name}");
            assert_eq!(back, bytes, "{name}");
        }
    }

    #[test]
    fn what_is_not_of_the_alphabet_is_refused() {
        for text in
            [b"0000000i", b"0000000l", b"0000000o", b"0000000u", b"0000000A", b"0000000_", b"0000000=", b"0000000 "]
        {
            assert_eq!(decode(text, &mut [0; 5]), None, "{text:?}");
        }
        assert_eq!(decode(b"0000000", &mut [0; 5]), None, "short");
        assert_eq!(decode(b"000000000", &mut [0; 5]), None, "long");
        assert_eq!(decode(b"0000000000000000", &mut [0; 5]), None, "two blocks for one");
        assert_eq!(decode(b"00000000", &mut [0; 10]), None, "one block for two");
    }

    proptest! {
        #[test]
        fn round_trip_in_the_same_order(one in any::<[u8; 10]>(), other in any::<[u8; 10]>()) {
            let mut back = [0; 10];
            prop_assert_eq!(decode(text(&one).as_bytes().first_chunk::<16>().unwrap(), &mut back), Some(()));
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
