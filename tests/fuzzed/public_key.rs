//! The input is a key in DER and in PEM, and once more the numbers of a key that the target writes. What is taken is a public key to
//! another implementation as well, has one spelling, is the one block of its text, and is never taken for a secret; a written key is
//! taken exactly if a JWK of its numbers is.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::{Engine, engine::general_purpose::STANDARD, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use portcullis::{
    Secret,
    jwt::{Algorithm, Key},
};

use super::der::element;

/// A key that is in the key of another algorithm of its line is the same there.
const ALGORITHMS: [(Algorithm, &dyn VerificationAlgorithm); 6] = [
    (Algorithm::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::PS512, &signature::RSA_PSS_2048_8192_SHA512),
    (Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED),
    (Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED),
    (Algorithm::ES512, &signature::ECDSA_P521_SHA512_FIXED),
    (Algorithm::EdDSA, &signature::ED25519),
];

const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const CURVES: [(Algorithm, &str, usize, &[u8]); 3] = [
    (Algorithm::ES256, "P-256", 32, &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    (Algorithm::ES384, "P-384", 48, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]),
    (Algorithm::ES512, "P-521", 66, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]),
];
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// Panics if something of that does not hold. True if the input is a public key, in DER or in PEM.
pub fn check(data: &[u8]) -> bool {
    let as_der = check_der(data);
    let taken = ALGORITHMS.map(|(algorithm, _)| Key::from_pem(algorithm, data).is_ok());
    let as_pem = taken.contains(&true);
    if as_pem {
        let begins = data.windows(10).filter(|window| window == b"-----BEGIN").count();
        assert_eq!(begins, 1, "{}", String::from_utf8_lossy(data));
        is_no_secret(data);
    }
    write_rsa(data);
    write_points(data);
    as_der || as_pem
}

fn check_der(der: &[u8]) -> bool {
    let taken = ALGORITHMS.map(|(algorithm, other)| {
        let taken = Key::from_der(algorithm, der);
        // What is no SubjectPublicKeyInfo, the other one takes for a bare key.
        let theirs = der.first() == Some(&0x30) && ParsedPublicKey::new(other, der).is_ok();
        assert!(taken.is_err() || theirs, "{algorithm}: taken by nobody else");
        // With a point that is written in full, and nothing behind it, which the other one overlooks.
        let length = match algorithm {
            Algorithm::ES256 => 91,
            Algorithm::ES384 => 120,
            Algorithm::ES512 => 158,
            _ => 0,
        };
        assert!(taken.is_ok() || der.len() != length || !theirs, "{algorithm}: {taken:?}");
        taken.is_ok()
    });
    assert_eq!(taken[0], taken[1]);
    assert!(taken[1..].iter().filter(|taken| **taken).count() < 2, "a key of two kinds");
    let any = taken.contains(&true);
    if any {
        is_no_secret(der);
        let longer = [der, &[0]].concat();
        let inside = element(0x30, der);
        let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        for ((algorithm, _), taken) in ALGORITHMS.into_iter().zip(taken) {
            for other in [&longer[..], &der[..der.len() - 1], &inside] {
                assert!(Key::from_der(algorithm, other).is_err());
            }
            assert_eq!(Key::from_pem(algorithm, &text).is_ok(), taken);
            let private = text.replace("PUBLIC", "PRIVATE");
            assert!(Key::from_pem(algorithm, private).is_err());
        }
        for text in [text.clone(), format!("# The key of 2026.\n{text}")] {
            is_no_secret(text.as_bytes());
        }
    }
    any
}

fn is_no_secret(bytes: &[u8]) {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        assert!(Key::hmac(algorithm, Secret::new(bytes.to_vec())).is_err(), "a public key is a secret");
    }
}

/// The first two bytes are the length of the exponent and whether there is SubjectPublicKeyInfo around; the rest is the numbers.
fn write_rsa(data: &[u8]) {
    let [length, wrapped, numbers @ ..] = data else { return };
    let Some((e, n)) = numbers.split_at_checked(usize::from(*length % 8)) else { return };
    let integers = [integer(n), integer(e)].concat();
    let mut der = element(0x30, &integers);
    if wrapped % 2 == 0 {
        der = info(RSA, &der);
    }
    let jwk = format!(r#"{{"kty":"RSA","alg":"RS256","n":"{}","e":"{}"}}"#, base64url(n), base64url(e));
    agree(Algorithm::RS256, &der, &jwk);
}

fn write_points(data: &[u8]) {
    for (algorithm, name, length, oid) in CURVES {
        let Some((x, rest)) = data.split_at_checked(length) else { continue };
        let Some(y) = rest.get(..length) else { continue };
        let der = info(&[EC, oid].concat(), &[&[4], x, y].concat());
        let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
        agree(algorithm, &der, &format!(r#"{{"kty":"EC","crv":"{name}","x":"{x}","y":"{y}"}}"#));
    }
    if let Some(x) = data.get(..32) {
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, BASE64URL.encode(x));
        agree(Algorithm::EdDSA, &info(ED25519, x), &jwk);
    }
}

fn agree(algorithm: Algorithm, der: &[u8], jwk: &str) {
    let (by_der, by_jwk) = (Key::from_der(algorithm, der), Key::from_jwk(None, jwk));
    assert_eq!(by_der.is_ok(), by_jwk.is_ok(), "{by_der:?} {by_jwk:?} {jwk}");
    check_der(der);
}

fn info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    element(0x30, &[element(0x30, algorithm), element(0x03, &[&[0], key].concat())].concat())
}

/// Of a number without leading zeros; of none, an element that is none.
fn integer(number: &[u8]) -> Vec<u8> {
    let number = &number[number.iter().take_while(|byte| **byte == 0).count()..];
    let sign: &[u8] = if number.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    element(0x02, &[sign, number].concat())
}

fn base64url(number: &[u8]) -> String {
    BASE64URL.encode(&number[number.iter().take_while(|byte| **byte == 0).count()..])
}
