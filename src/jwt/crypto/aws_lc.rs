use aws_lc_rs::{
    digest, hmac,
    signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm},
};

use super::NotAKey;
use crate::jwt::algorithm::{Curve, Hash, Padding};

pub(in crate::jwt) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The same for what comes in parts.
pub(in crate::jwt) struct Sha256(digest::Context);

impl Sha256 {
    pub(in crate::jwt) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(in crate::jwt) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(in crate::jwt) fn finish(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

/// A parsed key.
#[derive(Clone)]
pub(in crate::jwt) enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Verifier {
    pub(in crate::jwt) fn hmac(hash: Hash, secret: &[u8]) -> Result<Self, NotAKey> {
        let hash = match hash {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(Self::Hmac(Box::new(hmac::Key::new(hash, secret))))
    }

    /// Big-endian numbers without leading zeros.
    pub(in crate::jwt) fn rsa(padding: Padding, hash: Hash, n: &[u8], e: &[u8]) -> Result<Self, NotAKey> {
        let parameters: &'static RsaParameters = match (padding, hash) {
            (Padding::Pkcs1, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Padding::Pkcs1, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Padding::Pkcs1, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Padding::Pss, Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
            (Padding::Pss, Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
            (Padding::Pss, Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        };
        (RsaPublicKeyComponents { n, e }).to_parsed_public_key(parameters).map(Self::Public).map_err(|_| NotAKey)
    }

    /// An uncompressed point (SEC 1 §2.3.3).
    pub(in crate::jwt) fn ec(curve: Curve, point: &[u8]) -> Result<Self, NotAKey> {
        match curve {
            Curve::P256 => Self::public(&signature::ECDSA_P256_SHA256_FIXED, point),
            Curve::P384 => Self::public(&signature::ECDSA_P384_SHA384_FIXED, point),
            Curve::P521 => Self::public(&signature::ECDSA_P521_SHA512_FIXED, point),
        }
    }

    pub(in crate::jwt) fn ed25519(point: &[u8; 32]) -> Result<Self, NotAKey> {
        Self::public(&signature::ED25519, point)
    }

    fn public(parameters: &'static dyn VerificationAlgorithm, key: &[u8]) -> Result<Self, NotAKey> {
        ParsedPublicKey::new(parameters, key).map(Self::Public).map_err(|_| NotAKey)
    }

    pub(in crate::jwt) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}
