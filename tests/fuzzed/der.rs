//! A writer and a second reader of DER (X.690).

/// An element: its first byte, and its content, whose length takes four bytes at most.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = match content.len() {
        0..0x80 => &length[7..],
        0x80..0x100 => &[&[0x81], &length[7..]].concat(),
        0x100..0x1_0000 => &[&[0x82], &length[6..]].concat(),
        _ => &[&[0x84], &length[4..]].concat(),
    };
    [&[tag], length, content].concat()
}

/// The first byte of an element, its content, and all of it.
pub type Element<'a> = (u8, &'a [u8], &'a [u8]);

/// Takes the first element away. None if it is not as [`element`] writes it; tags of
/// several bytes are none that this reader knows.
pub fn take<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
    let bytes = *rest;
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let start = 2 + usize::from(first & 0x7f);
            let length = bytes.get(2..start)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (start, length)
        }
        _ => return None,
    };
    let whole = bytes.get(..start.checked_add(length)?)?;
    let shortest = match length {
        0..0x80 => 2,
        0x80..0x100 => 3,
        0x100..0x1_0000 => 4,
        0x1_0000..0x100_0000 => 5,
        _ => 6,
    };
    if tag & 0x1f == 0x1f || start != shortest {
        return None;
    }
    *rest = &bytes[whole.len()..];
    Some((tag, &whole[start..], whole))
}

/// The elements, of which there are no others.
pub fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        found.push(take(&mut bytes)?);
    }
    Some(found)
}

/// The numbers of an object identifier, with dots. None if one of them is beyond 64 bits or not written as short as it can be.
pub fn identifier(content: &[u8]) -> Option<String> {
    let (mut numbers, mut number, mut within) = (Vec::new(), 0_u128, false);
    for byte in content {
        if !within && *byte == 0x80 {
            return None;
        }
        // A number as long as a UUID is one too (2.25); of longer ones all that counts is that none is known.
        number = number.saturating_mul(0x80).saturating_add(u128::from(byte & 0x7f));
        within = byte & 0x80 != 0;
        if !within {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (first, others) = numbers.split_first()?;
    let root = (first / 40).min(2);
    let numbers = [root, first - 40 * root].into_iter().chain(others.iter().copied());
    (!within).then(|| numbers.map(|number| number.to_string()).collect::<Vec<_>>().join("."))
}

/// A certificate of version 3, good for thirty years, with the elements of a subject's name and of its extensions.
pub fn certificate(name: &[u8], extensions: &[u8]) -> Vec<u8> {
    let ed25519 = element(0x30, &[6, 3, 0x2b, 0x65, 0x70]);
    let issuer = element(0x31, &element(0x30, &[&[6, 3, 0x55, 4, 3][..], &element(0x0c, b"ca")].concat()));
    let validity = [element(0x17, b"200101000000Z"), element(0x17, b"490101000000Z")].concat();
    let key = [&ed25519[..], &element(0x03, &[&[0][..], &[7; 32]].concat())].concat();
    let extensions = if extensions.is_empty() { Vec::new() } else { element(0xa3, &element(0x30, extensions)) };
    let to_be_signed = [
        &element(0xa0, &element(0x02, &[2]))[..],
        &element(0x02, &[1]),
        &ed25519,
        &element(0x30, &issuer),
        &element(0x30, &validity),
        &element(0x30, name),
        &element(0x30, &key),
        &extensions,
    ]
    .concat();
    let signature = element(0x03, &[0; 65]);
    element(0x30, &[&element(0x30, &to_be_signed)[..], &ed25519, &signature].concat())
}
