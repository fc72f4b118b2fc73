//! Signs what this service says of itself. By aws-lc-rs alone.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding},
};

use super::NotAKey;
use crate::jwt::algorithm::{Algorithm, Curve, Family, Hash, Padding};

/// A private key.
pub(in crate::jwt) enum Signer {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ec(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Signer {
    /// Reads PKCS #8 (RFC 5958). An RSA key has 2048 bits at least.
    pub(in crate::jwt) fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, NotAKey> {
        match algorithm.family() {
            Family::Rsa(padding, hash) => {
                let encoding: &'static dyn RsaEncoding = match (padding, hash) {
                    (Padding::Pkcs1, Hash::Sha256) => &signature::RSA_PKCS1_SHA256,
                    (Padding::Pkcs1, Hash::Sha384) => &signature::RSA_PKCS1_SHA384,
                    (Padding::Pkcs1, Hash::Sha512) => &signature::RSA_PKCS1_SHA512,
                    (Padding::Pss, Hash::Sha256) => &signature::RSA_PSS_SHA256,
                    (Padding::Pss, Hash::Sha384) => &signature::RSA_PSS_SHA384,
                    (Padding::Pss, Hash::Sha512) => &signature::RSA_PSS_SHA512,
                };
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| NotAKey)?;
                Ok(Self::Rsa(Box::new(pair), encoding))
            }
            Family::Ec(curve) => {
                let algorithm: &'static EcdsaSigningAlgorithm = match curve {
                    Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                    Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                    Curve::P521 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
                };
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, der).map_err(|_| NotAKey)?;
                Ok(Self::Ec(Box::new(pair)))
            }
            Family::Ed25519 => {
                // As most tools write it, without the public half, which is worked out then.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| NotAKey)?;
                Ok(Self::Ed25519(Box::new(pair)))
            }
            Family::Hmac(_) => Err(NotAKey),
        }
    }

    /// The signature as it stands in a JWS (RFC 7518 §3); none if there is no randomness.
    pub(in crate::jwt) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::Ec(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}
