//! Configurations that are refused, keys that are refused or skipped, and `Debug` that shows no secret.

use std::time::Duration;

use aws_lc_rs::{encoding::AsDer, signature::KeyPair as _};
use portcullis::{
    ConfigError, Secret,
    jwt::{Algorithm, Issuer, IssuerProfile, JwtAuthenticator, JwtAuthenticatorBuilder, Key, KeySet},
};
use rcgen::PublicKeyData;

use crate::{
    access, at, issuer,
    mint::{self, AUDIENCE, CLAIMS, ISSUER, encode, with_header},
    support::NOW,
    trusting,
};

fn names<T>(name: &str, built: Result<T, ConfigError>, part: &str) {
    match built {
        Ok(_) => panic!("{name} is accepted"),
        Err(error) => {
            use std::error::Error;
            let text = format!("{error}; {}", error.source().map(ToString::to_string).unwrap_or_default());
            assert!(text.contains(part), "{name}: {text}");
        }
    }
}

#[test]
fn bad_configuration_is_told() {
    let good = || issuer().access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let build = |profile: IssuerProfile| JwtAuthenticator::builder().issuer(profile).build();
    let with = |change: fn(JwtAuthenticatorBuilder) -> JwtAuthenticatorBuilder| {
        change(JwtAuthenticator::builder().issuer(good())).build()
    };
    let keys = || KeySet::new([mint::key(Algorithm::ES256)]).unwrap();
    let mixed = KeySet::new([mint::key(Algorithm::ES256), mint::key(Algorithm::HS256)]).unwrap();
    let mixed = Issuer::fixed(ISSUER, mixed).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let id = || issuer().id_tokens("shop").algorithms([Algorithm::ES256]);
    let rows = [
        ("no issuer", JwtAuthenticator::builder().build(), "none"),
        (
            "empty issuer",
            build(Issuer::fixed("", keys()).access_tokens("a").algorithms([Algorithm::ES256])),
            "issuer: \"\"",
        ),
        ("empty audience", build(issuer().access_tokens("").algorithms([Algorithm::ES256])), "audience"),
        ("empty client id", build(issuer().id_tokens("").algorithms([Algorithm::ES256])), "audience"),
        ("no algorithm", build(issuer().access_tokens("a").algorithms([])), "at least one"),
        ("no key", build(issuer().access_tokens("a").algorithms([Algorithm::ES256, Algorithm::RS256])), "RS256"),
        ("mixed", build(mixed), "mixed"),
        ("issuer twice", JwtAuthenticator::builder().issuer(good()).issuer(id()).build(), "twice"),
        ("leeway", with(|builder| builder.leeway(Duration::from_secs(301))), "at most 300 s"),
        ("realm", with(|builder| builder.realm("a\"b")), "realm"),
        ("empty realm", with(|builder| builder.realm("")), "realm"),
        ("registered claim as roles", build(good().roles_claim("aud")), "aud"),
        ("empty claim as tenant", build(good().tenant_claim("")), "mapped"),
        ("untyped ID tokens", build(id().dangerous_untyped()), "dangerous_untyped"),
        ("scopes of ID tokens", build(id().scope_claim("scp")), "scope"),
        ("no lifetime", build(good().max_lifetime(Duration::ZERO)), "lifetime"),
        ("no age", build(good().max_age(Duration::ZERO)), "age"),
        ("lacking what is always needed", build(good().may_lack(["exp"])), "exp"),
        ("lacking in ID tokens", build(id().may_lack(["iat"])), "may_lack"),
        ("requiring what is refused", build(good().required(["cnf"])), "cnf"),
        ("a claim without values", build(good().claim_must_be("hd", [""; 0])), "hd"),
        ("a registered claim on the way", build(good().roles_claim(["aud", "roles"])), "aud"),
        ("a path without names", build(good().permissions_claim([""; 0])), "no name"),
    ];
    for (name, built, part) in rows {
        names(name, built, part);
    }
    assert!(with(|builder| builder.leeway(Duration::from_secs(300))).is_ok());
    assert!(with(|builder| builder.leeway(Duration::ZERO)).is_ok());
}

/// An RSA public key in PKCS#1 or SPKI with another modulus length or exponent.
fn rsa(bits: usize, exponent: &[u8]) -> String {
    let mut modulus = vec![0xff; bits / 8];
    modulus[0] = 0x80;
    rsa_of(&modulus, exponent)
}

fn rsa_of(modulus: &[u8], exponent: &[u8]) -> String {
    format!(r#"{{"kty":"RSA","alg":"RS256","n":"{}","e":"{}"}}"#, encode(modulus), encode(exponent))
}

#[test]
fn keys_that_are_not_fit() {
    let (es, rs, ed) = (Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA);
    let pair = &mint::P256;
    let spki = pair.subject_public_key_info();
    let pem = pair.public_key_pem();
    let hmac = |algorithm, length| Key::hmac(algorithm, Secret::new(vec![1; length]));
    let jwk = |text: &str| Key::from_jwk(None, text);
    let (x, y) = (encode(&pair.public_key_raw()[1..33]), encode(&pair.public_key_raw()[33..]));
    let ec = |members: &str| jwk(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{members}}}"#));
    // The last byte of y says which of the two points it is.
    let point = pair.public_key_raw();
    let compressed = [&spki[..26], &[2 + point[64] % 2], &point[1..33]].concat();
    let compressed = [&[0x30, 57], &compressed[2..23], &[3, 34], &compressed[25..]].concat();
    // Not the name of a curve, but an (empty) sequence of its parameters, as in CVE-2020-0601.
    let explicit_curve = [&[0x30, 81, 0x30, 11][..], &spki[4..13], &[0x30, 0], &spki[23..]].concat();
    let okp = |x: &[u8]| jwk(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(x)));
    let private = |member: &str| jwk(&rsa(2048, &[1, 0, 1]).replace('}', &format!(r#","{member}":"AQ"}}"#)));
    assert!(ec("").is_ok());
    assert!(ec(r#","use":"sig","key_ops":["verify"],"alg":"ES256","kid":"a","ext":true"#).is_ok());
    assert!(ec(r#","use":"sig","key_ops":["sign","verify","of its own"]"#).is_ok());
    assert!(ec(r#","key_ops":["verify","encrypt"]"#).is_ok(), "unwise, and nothing that contradicts");
    assert!(jwk(&rsa(2048, &[1, 0, 1])).is_ok());
    for name in ["EdDSA", "Ed25519"] {
        let x = encode(mint::ED25519.public_key_raw());
        let named = jwk(&format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"{name}","x":"{x}"}}"#));
        assert_eq!(named.unwrap().algorithm(), ed, "{name}");
    }
    let rows = [
        ("private PEM", Key::from_pem(es, pair.serialize_pem()), "a private key"),
        ("private RSA PEM", Key::from_pem(rs, mint::RSA.serialize_pem()), "a private key"),
        ("private DER", Key::from_der(es, pair.serialize_der()), "a private key"),
        ("certificate", Key::from_pem(es, pem.replace("PUBLIC KEY", "CERTIFICATE")), "a certificate"),
        ("two keys", Key::from_pem(es, format!("{pem}{pem}")), "exactly one"),
        (
            "a key, and one that is cut off",
            Key::from_pem(es, format!("{pem}{}", &pair.serialize_pem()[..60])),
            "exactly one",
        ),
        ("no PEM", Key::from_pem(es, "hello"), "exactly one"),
        ("cut PEM", Key::from_pem(es, &pem[..60]), "PEM text"),
        ("another label", Key::from_pem(es, pem.replace("PUBLIC KEY", "X")), "label"),
        ("EC key for RSA", Key::from_pem(rs, &pem), "another type"),
        ("EC key for EdDSA", Key::from_pem(ed, &pem), "another type"),
        ("another curve", Key::from_pem(Algorithm::ES384, &pem), "another type"),
        ("RSA key for EC", Key::from_pem(es, mint::RSA.public_key_pem()), "another type"),
        ("a shorter curve", Key::from_pem(Algorithm::ES512, &pem), "another type"),
        ("a longer curve", Key::from_pem(es, mint::P521.public_key_pem()), "another type"),
        ("a compressed point", Key::from_der(es, compressed), "another type"),
        ("a curve by its numbers", Key::from_der(es, explicit_curve), "another type"),
        ("more behind", Key::from_der(es, [&spki[..], &[0]].concat()), "another type"),
        ("a raw point", Key::from_der(es, pair.public_key_raw()), "another type"),
        ("a raw Ed25519 point", Key::from_der(ed, mint::ED25519.public_key_raw()), "another type"),
        ("public key for HS256", Key::from_pem(Algorithm::HS256, &pem), "Key::hmac"),
        ("secret for ES256", hmac(es, 64), "takes a public key"),
        ("HS256 with 31 bytes", hmac(Algorithm::HS256, 31), "31 bytes"),
        ("HS384 with 47 bytes", hmac(Algorithm::HS384, 47), "47 bytes"),
        ("HS512 with 63 bytes", hmac(Algorithm::HS512, 63), "63 bytes"),
        ("PEM as secret", Key::hmac(Algorithm::HS256, Secret::from(pem.clone())), "PEM"),
        ("PEM with a text as secret", Key::hmac(Algorithm::HS256, Secret::from(format!("# Ours:\n{pem}"))), "PEM"),
        ("DER as secret", Key::hmac(Algorithm::HS256, Secret::new(spki.clone())), "DER"),
        ("DER of RSA as secret", Key::hmac(Algorithm::HS256, Secret::new(mint::RSA.subject_public_key_info())), "DER"),
        ("JWK as secret", Key::hmac(Algorithm::HS256, Secret::from(rsa(2048, &[1, 0, 1]))), "JWK"),
        ("RSA 1024", jwk(&rsa(1024, &[1, 0, 1])), "1024 bits"),
        ("RSA 2040", jwk(&rsa(2040, &[1, 0, 1])), "2040 bits"),
        ("RSA 16384", jwk(&rsa(16384, &[1, 0, 1])), "16384 bits"),
        ("exponent 1", jwk(&rsa(2048, &[1])), "exponent"),
        ("exponent 0", jwk(&rsa(2048, &[0])), "exponent"),
        ("exponent 2^33 + 1", jwk(&rsa(2048, &[2, 0, 0, 0, 1])), "exponent"),
        ("exponent the size of a modulus", jwk(&rsa(2048, &[0xff; 256])), "exponent"),
        ("even modulus", jwk(&rsa_of(&[&[0x80][..], &[0xfe; 255]].concat(), &[1, 0, 1])), "modulus"),
        ("exponent 3", jwk(&rsa(2048, &[3])), "exponent"),
        ("exponent 65535", jwk(&rsa(2048, &[0xff, 0xff])), "exponent"),
        ("even exponent", jwk(&rsa(2048, &[1, 0, 2])), "exponent"),
        ("off the curve", jwk(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{y}","y":"{x}"}}"#)), "damaged"),
        ("short coordinate", jwk(&format!(r#"{{"kty":"EC","crv":"P-256","x":"AQ","y":"{y}"}}"#)), "length"),
        ("identity point", okp(&[&[1][..], &[0; 31]].concat()), "small order"),
        ("point of order 2, negated", okp(&[&[0xec][..], &[0xff; 31]].concat()), "small order"),
        ("short point", okp(&[9; 31]), "length"),
        ("not JSON", jwk("kty"), "not a JSON object"),
        ("member twice", ec(r#","kty":"EC""#), "stands twice"),
        ("private JWK", ec(r#","d":"AQ""#), "a private key"),
        ("a prime of RSA", private("p"), "a private key"),
        ("the other prime", private("q"), "a private key"),
        ("an exponent of RSA", private("dp"), "a private key"),
        ("the other exponent", private("dq"), "a private key"),
        ("a coefficient of RSA", private("qi"), "a private key"),
        ("more primes", jwk(&rsa(2048, &[1, 0, 1]).replace('}', r#","oth":[]}"#)), "a private key"),
        ("type an object", jwk(&rsa(2048, &[1, 0, 1]).replace(r#""RSA""#, r#"{"RSA":null}"#)), "kty is not a string"),
        ("type a number", jwk(&rsa(2048, &[1, 0, 1]).replace(r#""RSA""#, "0")), "kty is not a string"),
        (
            "curve an object",
            jwk(&format!(r#"{{"kty":"EC","crv":{{"P-256":null}},"x":"{x}","y":"{y}"}}"#)),
            "crv is not",
        ),
        ("for encryption", ec(r#","use":"enc""#), "RFC 7517 §4.2"),
        ("for signing", ec(r#","key_ops":["sign"]"#), "RFC 7517 §4.3"),
        ("for nothing", ec(r#","key_ops":[]"#), "RFC 7517 §4.3"),
        ("for one thing twice", ec(r#","key_ops":["verify","verify"]"#), "twice"),
        ("for another thing twice", ec(r#","key_ops":["x","verify","x"]"#), "twice"),
        ("for two things", ec(r#","use":"sig","key_ops":["verify","encrypt"]"#), "does not agree"),
        ("for secrets as well", ec(r#","use":"sig","key_ops":["deriveBits","verify"]"#), "does not agree"),
        ("alg of another curve", ec(r#","alg":"ES384""#), "another type"),
        ("unknown alg", ec(r#","alg":"ES256K""#), "not known"),
        ("issuer a number", ec(r#","issuer":5"#), "is not a JWK"),
        ("several issuers", ec(r#","issuer":["https://id.example.com"]"#), "is not a JWK"),
        ("symmetric", jwk(r#"{"kty":"oct","k":"AAAA"}"#), "Key::hmac"),
        ("unknown type", jwk(r#"{"kty":"AKP","pub":"AAAA"}"#), "not supported"),
        ("padded number", jwk(r#"{"kty":"RSA","n":"AQ==","e":"AQAB"}"#), "base64url"),
    ];
    for (name, key, part) in rows {
        names(name, key, part);
    }
}

#[test]
fn pkcs1_and_spki_are_the_same_key() {
    let pem = mint::RSA.serialize_pem();
    let pair = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&mint::RSA.serialize_der()).unwrap();
    assert!(pem.contains("PRIVATE"));
    let pkcs1 = pair.public_key().as_ref().to_vec();
    let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
    let token = mint::token(Algorithm::PS384, r#"{"alg":"PS384","typ":"at+jwt"}"#, CLAIMS);
    for der in [pkcs1, spki] {
        let keys = KeySet::new([Key::from_der(Algorithm::PS384, der).unwrap()]).unwrap();
        let jwt = trusting(Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::PS384]));
        assert!(jwt.verify(&token, at(NOW)).is_ok());
    }
}

#[test]
fn a_key_set_keeps_what_is_usable() {
    let point = mint::P256.public_key_raw();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let good = format!(r#"{{"kty":"EC","crv":"P-256","kid":"good","use":"sig","x":"{x}","y":"{y}"}}"#);
    let set = format!(
        r#"{{"keys":[{{"kty":"AKP"}},{{"kty":"EC","crv":"P-521","x":"AQ","y":"AQ"}},{{"kty":"oct","k":"AAAA"}},5,
            {{"kty":"RSA","n":"AQ"}},{{"kty":"RSA","use":"enc","n":"AQ","e":"AQAB"}},{good}],"more":[]}}"#
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &set).unwrap();
    for keys in [KeySet::from_jwks(&set).unwrap(), KeySet::from_jwks_file(file.path()).unwrap()] {
        assert_eq!(keys.keys().len(), 1);
        let skipped: Vec<String> = keys.skipped().iter().map(|error| error.setting().to_owned()).collect();
        let expected: Vec<String> = (0..6).map(|place| format!("key {place} of the JWK Set")).collect();
        assert_eq!(skipped, expected);
        let jwt = trusting(Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]));
        assert!(jwt.verify(&with_header(r#"{"alg":"ES256","typ":"at+jwt","kid":"good"}"#), at(NOW)).is_ok());
    }
    names("nothing usable", KeySet::from_jwks(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#), "1 unusable");
    names("empty", KeySet::from_jwks(r#"{"keys":[]}"#), "no key");
    names("no keys", KeySet::from_jwks("{}"), "array");
    names("keys without a name", KeySet::from_jwks(&format!("[[{good}]]")), "object");
    names("keys twice", KeySet::from_jwks(&format!(r#"{{"keys":[{good}],"keys":[]}}"#)), "array");
    names("no file", KeySet::from_jwks_file("/nonexistent/jwks.json"), "/nonexistent/jwks.json");
}

#[test]
fn debug_shows_no_secret() {
    let keys =
        KeySet::new([Key::hmac(Algorithm::HS256, Secret::from("s3cr3t-".repeat(8))).unwrap().with_id("k1")]).unwrap();
    let jwt = trusting(Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::HS256]));
    let shown = format!("{jwt:?} {:?}", access());
    assert!(shown.contains("k1") && shown.contains(ISSUER));
    assert!(!shown.contains("s3cr3t") && !shown.contains("115, 51"), "{shown}");
}
