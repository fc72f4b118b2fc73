//! Who has the key that a token is bound to, and proves it.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::mint::{claims_but, encode, with_claims};

pub const URL: &str = "https://api.example.com";

pub fn sha256(bytes: &[u8]) -> String {
    encode(digest::digest(&digest::SHA256, bytes))
}

pub struct Owner(EcdsaKeyPair);

impl Owner {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The public key, as an uncompressed point.
    pub fn point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    pub fn jwk(&self) -> Value {
        let point = self.point();
        json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
    }

    pub fn jkt(&self) -> String {
        let jwk = self.jwk();
        let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
        sha256(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes())
    }

    pub fn token(&self) -> String {
        with_claims(&claims_but("cnf", &json!({"jkt": self.jkt()}).to_string()))
    }

    pub fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }

    pub fn proof(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

/// Of a GET of `/orders`, made at this time.
pub fn claims_at(token: &str, jti: &str, iat: u64) -> Value {
    json!({"jti": jti, "htm": "GET", "htu": "https://api.example.com/orders", "iat": iat, "ath": sha256(token.as_bytes())})
}

pub fn but(mut value: Value, name: &str, other: Value) -> Value {
    if other.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = other;
    }
    value
}
