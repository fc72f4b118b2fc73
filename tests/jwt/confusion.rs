//! Keys that are taken for something else, and key ids that are meant for another reader.

use aws_lc_rs::signature::KeyPair as _;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::EncodingKey;
use portcullis::{
    Secret,
    jwt::{Algorithm, Issuer, Key, KeySet},
};
use rcgen::PublicKeyData;

use crate::{
    at,
    attacks::refused,
    mint::{self, AUDIENCE, CLAIMS, ISSUER, encode, signed},
    support::NOW,
    trusting,
};

/// The forms in which a public key is published: whatever a careless service would hand to HMAC.
fn forms_of(algorithm: Algorithm) -> Vec<(&'static str, Vec<u8>)> {
    let (pair, jwk) = match algorithm {
        Algorithm::RS256 => {
            let pair = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&mint::RSA.serialize_der()).unwrap();
            let n = encode(pair.public_key().modulus().big_endian_without_leading_zero());
            (&*mint::RSA, format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"}}"#))
        }
        Algorithm::ES256 => {
            let point = mint::P256.public_key_raw();
            let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
            (&*mint::P256, format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#))
        }
        _ => {
            let x = encode(mint::ED25519.public_key_raw());
            (&*mint::ED25519, format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#))
        }
    };
    assert_eq!(Key::from_jwk(None, &jwk).unwrap().algorithm(), algorithm);
    let pem = pair.public_key_pem();
    let spki = pair.subject_public_key_info();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    vec![
        ("PEM with CRLF", pem.replace('\n', "\r\n").into_bytes()),
        ("PEM without its last line break", pem.trim_end().as_bytes().to_vec()),
        ("the body of the PEM", body.into_bytes()),
        ("PEM", pem.into_bytes()),
        ("DER in base64url", encode(&spki).into_bytes()),
        ("DER in base64", BASE64_STANDARD.encode(&spki).into_bytes()),
        ("DER", spki),
        ("the key alone", pair.public_key_raw().to_vec()),
        ("JWK Set", format!(r#"{{"keys":[{jwk}]}}"#).into_bytes()),
        ("JWK with spaces", jwk.replace(',', ", ").replace(':', ": ").into_bytes()),
        ("JWK", jwk.into_bytes()),
    ]
}

#[tokio::test]
async fn a_public_key_is_not_an_hmac_secret() {
    let names = [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)];
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = mint::key(algorithm).with_id("a");
        let issuer = Issuer::fixed(ISSUER, KeySet::new([key]).unwrap());
        let jwt = trusting(issuer.access_tokens(AUDIENCE).algorithms([algorithm]));
        for (form, secret) in forms_of(algorithm) {
            for (name, hmac) in names {
                for kid in ["", r#","kid":"a""#] {
                    let header = format!(r#"{{"alg":"{name}","typ":"at+jwt"{kid}}}"#);
                    let forged = signed(hmac, &EncodingKey::from_secret(&secret), &header, CLAIMS);
                    refused(&format!("{name} with the {form} of {algorithm}"), &jwt, &forged).await;
                }
            }
            // The header says what the key is for, and the signature is an HMAC.
            let header = format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#);
            let forged = signed(Algorithm::HS256, &EncodingKey::from_secret(&secret), &header, CLAIMS);
            refused(&format!("HMAC with the {form} as {algorithm}"), &jwt, &forged).await;
        }
    }
}

/// A `kid` is compared with the ids of keys, and does nothing else: it opens no file, asks no database and no server.
#[tokio::test]
async fn a_key_id_is_a_name_and_nothing_else() {
    let right = |algorithm| {
        let issuer = Issuer::fixed(ISSUER, KeySet::new([mint::key(algorithm).with_id("main")]).unwrap());
        trusting(issuer.access_tokens(AUDIENCE).algorithms([algorithm]))
    };
    let (public, shared) = (right(Algorithm::ES256), right(Algorithm::HS256));
    let mallory = EncodingKey::from_ec_pem(mint::P256_OF_ANOTHER.serialize_pem().as_bytes()).unwrap();
    let long = "k".repeat(2_900);
    let kids = [
        ("ours", "main"),
        ("a path", "../../../../../../dev/null"),
        ("an absolute path", "/proc/sys/kernel/randomize_va_space"),
        ("a path, percent-encoded", "..%2f..%2f..%2fdev%2fnull"),
        ("a path on Windows", r"..\\..\\..\\windows\\win.ini"),
        ("NUL", r"main\u0000"),
        ("NUL and more", r"main\u0000.pem"),
        ("SQL", "x' UNION SELECT 'AAAA' -- "),
        ("SQL that is always true", "main' OR '1'='1"),
        ("LDAP", "*)(uid=*))(|(uid=*"),
        ("a command", "main|/usr/bin/id;$(id)`id`"),
        ("a URL", "https://mallory.example/jwks.json"),
        ("a pattern", "*"),
        ("a regular expression", ".*"),
        ("a template", "{{7*7}}${7*7}"),
        ("a line break", r"main\r\nx: y"),
        ("white space", " main"),
        ("capitals", "MAIN"),
        ("very long", &long),
        ("nothing", ""),
    ];
    for (name, kid) in kids {
        let header = |algorithm: &str| format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"{kid}"}}"#);
        refused(name, &public, &signed(Algorithm::ES256, &mallory, &header("ES256"), CLAIMS)).await;
        // The secrets that such a key would have: an empty file, one line of it, what the query selects.
        for secret in [&b""[..], b"\0", b"2\n", b"AAAA", kid.as_bytes()] {
            let key = EncodingKey::from_secret(secret);
            refused(name, &shared, &signed(Algorithm::HS256, &key, &header("HS256"), CLAIMS)).await;
        }
        // With the right key it is still another name.
        let right = mint::token(Algorithm::ES256, &header("ES256"), CLAIMS);
        assert_eq!(public.verify(&right, at(NOW)).is_ok(), kid == "main", "{name}");
    }
}

/// Signatures of zeros, which verifiers have taken for good (CVE-2022-21449), in each length.
#[tokio::test]
async fn signatures_of_zeros() {
    for algorithm in mint::ALGORITHMS {
        let issuer = Issuer::fixed(ISSUER, KeySet::new([mint::key(algorithm)]).unwrap());
        let jwt = trusting(issuer.access_tokens(AUDIENCE).algorithms([algorithm]));
        let good = mint::token(algorithm, &format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#), CLAIMS);
        assert!(jwt.verify(&good, at(NOW)).is_ok(), "{algorithm}");
        let (message, signature) = good.rsplit_once('.').unwrap();
        let length = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap().len();
        // Short ones, and for ECDSA in DER: r and s are 0.
        for zeros in [vec![0; length], vec![0], vec![0; 64], vec![0; 2 * length], vec![0x30, 6, 2, 1, 0, 2, 1, 0]] {
            refused(algorithm.name(), &jwt, &format!("{message}.{}", encode(zeros))).await;
        }
    }
}

/// With an exponent of 1 a signature is its own message: the key is refused, alone or among others, in every form.
#[test]
fn an_exponent_of_one_is_no_key() {
    let n = [&[0x80][..], &[0xff; 255]].concat();
    let jwk = format!(r#"{{"kty":"RSA","alg":"RS256","kid":"one","n":"{}","e":"AQ"}}"#, encode(&n));
    assert!(Key::from_jwk(None, &jwk).is_err());
    let x = encode(mint::ED25519.public_key_raw());
    let set = format!(r#"{{"keys":[{jwk},{{"kty":"OKP","crv":"Ed25519","kid":"good","x":"{x}"}}]}}"#);
    let set = KeySet::from_jwks(&set).unwrap();
    assert_eq!((set.keys().len(), set.keys()[0].id(), set.skipped().len()), (1, Some("good"), 1));
    // PKCS#1: a sequence of the modulus and 1.
    let pkcs1 = [&[0x30, 0x82, 1, 8, 2, 0x82, 1, 1, 0][..], &n, &[2, 1, 1]].concat();
    assert!(Key::from_der(Algorithm::RS256, &pkcs1).is_err());
    let with_f4 = [&[0x30, 0x82, 1, 10, 2, 0x82, 1, 1, 0][..], &n, &[2, 3, 1, 0, 1]].concat();
    assert!(Key::from_der(Algorithm::RS256, &with_f4).is_ok(), "the form is right");
    assert!(Key::hmac(Algorithm::HS256, Secret::new(pkcs1)).is_err(), "nor a secret");
}
