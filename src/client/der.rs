//! The elements of DER (X.690), without one more or less: the parser of certificates leaves out what it does not expect.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Its tag, its content, and both with the length.
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    pub(super) whole: &'a [u8],
}

/// The content of an element that is all there is.
pub(super) fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (element, []) = element(der)? else { return None };
    (element.tag == tag).then_some(element.content)
}

pub(super) fn elements(mut der: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while !der.is_empty() {
        let (element, rest) = element(der)?;
        elements.push(element);
        der = rest;
    }
    Some(elements)
}

/// The first element, and what follows it. Nothing in certificates has a tag of more than one byte, or 16 MiB.
pub(super) fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (length, rest): ([u8; 4], &[u8]) = match der {
        [_, length @ 0..=0x7f, rest @ ..] => ([0, 0, 0, *length], rest),
        // No longer than it must be (X.690 §10.1).
        [_, 0x81, length @ 0x80..=0xff, rest @ ..] => ([0, 0, 0, *length], rest),
        [_, 0x82, high @ 1..=0xff, low, rest @ ..] => ([0, 0, *high, *low], rest),
        [_, 0x83, high @ 1..=0xff, middle, low, rest @ ..] => ([0, *high, *middle, *low], rest),
        _ => return None,
    };
    let tag = der.first().copied().filter(|tag| tag & 0x1f != 0x1f)?;
    let (content, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    let whole = der.get(..der.len().checked_sub(rest.len())?)?;
    Some((Element { tag, content, whole }, rest))
}

/// Whether a content is an object identifier: numbers in base 128, none unfinished, none longer than it must be (X.690 §8.19.2).
pub(super) fn is_identifier(content: &[u8]) -> bool {
    let mut starts = true;
    let minimal = content.iter().all(|byte| {
        let padded = starts && *byte == 0x80;
        starts = byte & 0x80 == 0;
        !padded
    });
    minimal && starts && !content.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_whole_numbers() {
        for good in [&[0x55, 0x1d, 0x11][..], &[0x2a, 0x86, 0x48], &[0x2a], &[0x2a, 0xff, 0x80, 0x01]] {
            assert!(is_identifier(good), "{good:?}");
        }
        for bad in [&[][..], &[0x55, 0x1d, 0xa2], &[0x55, 0x80, 0x11], &[0x80, 0x01], &[0x80]] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
    }

    #[test]
    fn one_encoding_of_a_length() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let [_, .., a, b, c] = u64::to_be_bytes(length);
            let lengths: [&[u8]; 5] = [&[c], &[0x81, c], &[0x82, b, c], &[0x83, a, b, c], &[0x84, 0, a, b, c]];
            let content = vec![7; usize::try_from(length).unwrap()];
            let good = lengths.iter().filter(|written| {
                only(&[&[SEQUENCE], **written, &content].concat(), SEQUENCE).is_some_and(|read| *read == content)
            });
            assert_eq!(good.count(), 1, "{length}");
        }
        for bad in [
            &[][..],
            &[SEQUENCE],
            &[SEQUENCE, 0x80, 0, 0],
            &[SEQUENCE, 1],
            &[0x3f, 0x30, 0],
            &[SEQUENCE, 0, 0],
            &[SET, 0],
        ] {
            assert_eq!(only(bad, SEQUENCE), None, "{bad:?}");
        }
        assert_eq!(elements(&[2, 1, 1, 5, 0]).unwrap().len(), 2);
        assert!(elements(&[2, 1, 1, 5]).is_none());
    }
}
