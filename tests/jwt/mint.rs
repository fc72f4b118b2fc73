//! Mints tokens with `jsonwebtoken` and keys made at test time, so that two implementations must agree.

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use portcullis::{
    Secret,
    jwt::{Algorithm, Key},
};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    RsaKeySize,
};

pub const ISSUER: &str = "https://id.example.com";
pub const AUDIENCE: &str = "orders-api";
pub const HEADER: &str = r#"{"alg":"ES256","typ":"at+jwt"}"#;

/// Good today, whenever that is: until the year 2255.
pub const CLAIMS: &str = r#"{"iss":"https://id.example.com","sub":"alice","aud":"orders-api","exp":9000000000,"iat":1700000000,"client_id":"web","jti":"t-1"}"#;

pub static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
pub static P256: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
pub static P256_OF_ANOTHER: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
pub static P384: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
pub static P521: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap());
pub static ED25519: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_ED25519).unwrap());

pub const ALGORITHMS: [Algorithm; 13] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];

const SECRET: [u8; 64] = [0xa5; 64];

fn pair(algorithm: Algorithm) -> &'static KeyPair {
    match algorithm.name().split_at(2) {
        ("RS" | "PS", _) => &RSA,
        ("ES", "256") => &P256,
        ("ES", "384") => &P384,
        ("ES", "512") => &P521,
        ("Ed", _) => &ED25519,
        other => panic!("{other:?} has no key pair"),
    }
}

/// The key that verifies.
pub fn key(algorithm: Algorithm) -> Key {
    if algorithm.is_symmetric() {
        Key::hmac(algorithm, Secret::new(SECRET.to_vec())).unwrap()
    } else {
        Key::from_pem(algorithm, pair(algorithm).public_key_pem()).unwrap()
    }
}

/// Signs with the key of the algorithm.
pub fn token(algorithm: Algorithm, header: &str, claims: &str) -> String {
    if algorithm == Algorithm::ES512 {
        return es512(header, claims);
    }
    let key = match algorithm.name().split_at(2).0 {
        "HS" => EncodingKey::from_secret(&SECRET),
        "RS" | "PS" => EncodingKey::from_rsa_pem(RSA.serialize_pem().as_bytes()).unwrap(),
        "ES" => EncodingKey::from_ec_pem(pair(algorithm).serialize_pem().as_bytes()).unwrap(),
        _ => EncodingKey::from_ed_pem(ED25519.serialize_pem().as_bytes()).unwrap(),
    };
    signed(algorithm, &key, header, claims)
}

/// `jsonwebtoken` has no ES512; tokens of other makers stand in `tests/jwt_interop.rs`.
fn es512(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &P521.serialize_der()).unwrap();
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", encode(signature))
}

/// Signs what is given, with the key that is given.
pub fn signed(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let algorithm = algorithm.name().parse().unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// An access token with these claims, signed ES256 by the trusted key.
pub fn with_claims(claims: &str) -> String {
    token(Algorithm::ES256, HEADER, claims)
}

/// An access token with this header, signed ES256 by the trusted key.
pub fn with_header(header: &str) -> String {
    token(Algorithm::ES256, header, CLAIMS)
}

/// [`CLAIMS`] with one member changed, added, or, for an empty value, left out.
pub fn claims_but(name: &str, value: &str) -> String {
    let mut claims: serde_json::Map<String, serde_json::Value> = serde_json::from_str(CLAIMS).unwrap();
    claims.remove(name);
    let mut text = serde_json::to_string(&claims).unwrap();
    if !value.is_empty() {
        text.insert_str(1, &format!("\"{name}\":{value},"));
    }
    text
}
