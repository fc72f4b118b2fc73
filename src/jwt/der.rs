//! As much DER (X.690) as it takes to see what kind of key a file holds and to read the two numbers of an RSA key.

use crate::jwt::algorithm::Curve;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption` with its NULL (RFC 3279 §2.3.1), as it stands in an AlgorithmIdentifier.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// `id-ecPublicKey` with the name of a curve (RFC 5480 §2.1.1). A curve by its numbers is none of these.
const P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// RFC 8410 §3.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// PKCS#8, PKCS#1 and SEC 1 private keys all begin with a version, 0 or 1.
pub(super) fn is_private_key(der: &[u8]) -> bool {
    let version = only(der, SEQUENCE).and_then(|fields| value(fields, INTEGER));
    matches!(version, Some(([0 | 1], _)))
}

/// Whether it is a key of a kind that is read here, public or private.
pub(super) fn is_key(der: &[u8]) -> bool {
    is_private_key(der)
        || rsa_public_key(der).is_some()
        || [P256, P384, P521, ED25519].into_iter().any(|algorithm| public_key(der, algorithm).is_some())
}

/// Modulus and exponent, without leading zeros, of an RSA SubjectPublicKeyInfo or PKCS#1 RSAPublicKey.
pub(super) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let numbers = only(public_key(der, RSA).unwrap_or(der), SEQUENCE)?;
    let (n, rest) = value(numbers, INTEGER)?;
    Some((unsigned(n)?, unsigned(only(rest, INTEGER)?)?))
}

/// The point of a SubjectPublicKeyInfo on this curve, as SEC 1 §2.3.3 writes it.
pub(super) fn ec_public_key(der: &[u8], curve: Curve) -> Option<&[u8]> {
    public_key(
        der,
        match curve {
            Curve::P256 => P256,
            Curve::P384 => P384,
            Curve::P521 => P521,
        },
    )
}

/// The point of an Ed25519 SubjectPublicKeyInfo.
pub(super) fn ed25519_public_key(der: &[u8]) -> Option<&[u8; 32]> {
    public_key(der, ED25519)?.try_into().ok()
}

/// The key in a SubjectPublicKeyInfo (RFC 5280 §4.1) of exactly this algorithm.
fn public_key<'a>(der: &'a [u8], algorithm: &[u8]) -> Option<&'a [u8]> {
    let (identifier, rest) = value(only(der, SEQUENCE)?, SEQUENCE)?;
    match only(rest, BIT_STRING)? {
        [0, key @ ..] if identifier == algorithm => Some(key),
        _ => None,
    }
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
        // No longer than it must be (X.690 §10.1).
        [first, 0x81, length @ 0x80..=0xff, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high @ 1..=0xff, low, rest @ ..] if *first == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn private_keys() {
        let rows: [(&str, &[u8], bool); 5] = [
            ("empty", &[], false),
            ("version 0", &[0x30, 5, 2, 1, 0, 4, 0], true),
            ("version 1", &[0x30, 5, 2, 1, 1, 4, 0], true),
            ("public", &[0x30, 5, 0x30, 0, 3, 1, 0], false),
            ("longer than it is", &[0x30, 6, 2, 1, 1, 4, 0], false),
        ];
        for (name, der, private) in rows {
            assert_eq!(is_private_key(der), private, "{name}");
        }
    }

    #[test]
    fn one_encoding_of_a_public_key() {
        let good = [&[0x30, 42, 0x30, 5][..], ED25519, &[3, 33, 0], &[7; 32]].concat();
        assert_eq!(ed25519_public_key(&good), Some(&[7; 32]));
        let with = |place: usize, bytes: &[u8]| {
            let mut der = good.clone();
            der.splice(place..=place, bytes.iter().copied());
            der
        };
        let rows = [
            ("more behind", [&good[..], &[0]].concat()),
            ("cut", good[..43].to_vec()),
            ("a longer length than needed", with(1, &[0x81, 42])),
            ("a much longer one", with(1, &[0x82, 0, 42])),
            ("no end", with(1, &[0x80])),
            ("bits left over", with(11, &[1])),
            ("another algorithm", with(8, &[0x71])),
        ];
        for (name, der) in rows {
            assert_eq!(ed25519_public_key(&der), None, "{name}");
        }
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            assert_eq!(ec_public_key(&good, curve), None, "{curve:?}");
        }
        assert_eq!(rsa_public_key(&good), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (is_private_key(&bytes), ed25519_public_key(&bytes), rsa_public_key(&bytes));
        }
    }
}
