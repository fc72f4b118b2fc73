//! Looks at texts eight bytes at once: every text of a record is looked at, some of them twice.
//!
//! What is found has the highest bit of its byte set. Beside a byte that was found the next may count as well, but none where
//! there is no such byte.

const HIGHEST: u64 = 0x8080_8080_8080_8080;

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Finds the bytes below this one, which is ASCII: less the bound, they have the highest bit, and had not before.
pub(crate) const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(each(bound)) & !word
}

/// Finds this byte.
pub(crate) const fn is(word: u64, byte: u8) -> u64 {
    below(word ^ each(byte), 1)
}

/// Finds what is not ASCII.
pub(crate) const fn beyond_ascii(word: u64) -> u64 {
    word
}

/// Whether something is found in a text. `find` finds no letter.
pub(crate) fn any(text: &str, find: impl Fn(u64) -> u64) -> bool {
    let text = text.as_bytes();
    let Some(last) = text.last_chunk() else {
        let word = text.iter().fold(each(b'a'), |word, byte| word << 8 | u64::from(*byte));
        return find(word) & HIGHEST != 0;
    };
    let (words, _) = text.as_chunks();
    let found =
        words.iter().fold(find(u64::from_ne_bytes(*last)), |found, word| found | find(u64::from_ne_bytes(*word)));
    found & HIGHEST != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_found_wherever_it_stands() {
        for len in 1..20 {
            for at in 0..len {
                for byte in 0..=0x7f {
                    let mut text = vec![b'a'; len];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    assert_eq!(any(&text, |word| below(word, b' ')), byte < b' ', "{text:?}");
                    assert_eq!(any(&text, |word| is(word, b'"')), byte == b'"', "{text:?}");
                    assert!(!any(&text, beyond_ascii), "{text:?}");
                }
            }
            let text = format!("{}é", "a".repeat(len));
            assert!(any(&text, beyond_ascii) && !any(&text, |word| below(word, b' ') | is(word, b'"')), "{text}");
        }
        assert!(!any("", |word| below(word, b' ') | beyond_ascii(word)));
    }
}
