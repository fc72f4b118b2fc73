//! As much DER (X.690) as it takes to see what kind of key a file holds and to read the two numbers of an RSA key.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption` with its NULL (RFC 3279 §2.3.1), as it stands in an AlgorithmIdentifier.
const RSA: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// PKCS#8, PKCS#1 and SEC 1 private keys all begin with a version, 0 or 1.
pub(super) fn is_private_key(der: &[u8]) -> bool {
    let version = only(der, SEQUENCE).and_then(|fields| value(fields, INTEGER));
    matches!(version, Some(([0 | 1], _)))
}

/// Whether it has the outline of a SubjectPublicKeyInfo.
pub(super) fn is_spki(der: &[u8]) -> bool {
    only(der, SEQUENCE)
        .and_then(|fields| value(fields, SEQUENCE))
        .and_then(|(_, rest)| only(rest, BIT_STRING))
        .is_some()
}

/// Modulus and exponent, without leading zeros, of an RSA SubjectPublicKeyInfo or PKCS#1 RSAPublicKey.
pub(super) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let fields = only(der, SEQUENCE)?;
    let numbers = match value(fields, SEQUENCE) {
        Some((algorithm, rest)) if algorithm == RSA => {
            let (&[0], key) = only(rest, BIT_STRING)?.split_first_chunk()? else { return None };
            only(key, SEQUENCE)?
        }
        Some(_) => return None,
        None => fields,
    };
    let (n, rest) = value(numbers, INTEGER)?;
    Some((unsigned(n)?, unsigned(only(rest, INTEGER)?)?))
}

fn unsigned(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] => Some(rest),
        [0x80..=0xff, ..] | [] => None,
        positive => Some(positive),
    }
}

/// The content of an element that is all there is.
fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    value(der, tag).and_then(|(content, rest)| rest.is_empty().then_some(content))
}

/// The content of the first element, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest): (usize, &[u8]) = match der {
        [first, length @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x81, length, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high, low, rest @ ..] if *first == tag => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_of_keys() {
        let rows: [(&str, &[u8], bool, bool); 6] = [
            ("empty", &[], false, false),
            ("private, version 0", &[0x30, 5, 2, 1, 0, 4, 0], true, false),
            ("private, version 1", &[0x30, 5, 2, 1, 1, 4, 0], true, false),
            ("public", &[0x30, 5, 0x30, 0, 3, 1, 0], false, true),
            ("public and more", &[0x30, 5, 0x30, 0, 3, 1, 0, 0], false, false),
            ("longer than it is", &[0x30, 6, 0x30, 0, 3, 1, 0], false, false),
        ];
        for (name, der, private, spki) in rows {
            assert_eq!(is_private_key(der), private, "{name}");
            assert_eq!(is_spki(der), spki, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (is_private_key(&bytes), is_spki(&bytes), rsa_public_key(&bytes));
        }
    }
}
