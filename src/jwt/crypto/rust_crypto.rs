use hmac::{Hmac, KeyInit, Mac};
use rsa::{BoxedUint, PublicKey};
use sha2::{Sha384, Sha512};

use super::NotAKey;
use crate::jwt::algorithm::{Curve, Hash, Padding};

#[cfg(not(feature = "jwt"))]
pub(in crate::jwt) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;

    sha2::Sha256::digest(bytes).into()
}

/// The same for what comes in parts.
#[cfg(not(feature = "jwt"))]
pub(in crate::jwt) struct Sha256(sha2::Sha256);

#[cfg(not(feature = "jwt"))]
impl Sha256 {
    pub(in crate::jwt) fn new() -> Self {
        Self(sha2::Digest::new())
    }

    pub(in crate::jwt) fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    pub(in crate::jwt) fn finish(self) -> [u8; 32] {
        sha2::Digest::finalize(self.0).into()
    }
}

/// A parsed key. RSA keys are large, and HMAC states are secret: boxed, a move leaves no copy behind.
#[derive(Clone)]
pub(in crate::jwt) enum Verifier {
    Hs256(Box<Hmac<sha2::Sha256>>),
    Hs384(Box<Hmac<Sha384>>),
    Hs512(Box<Hmac<Sha512>>),
    Rs256(Box<rsa::pkcs1v15::VerifyingKey<sha2::Sha256>>),
    Rs384(Box<rsa::pkcs1v15::VerifyingKey<Sha384>>),
    Rs512(Box<rsa::pkcs1v15::VerifyingKey<Sha512>>),
    Ps256(Box<rsa::pss::VerifyingKey<sha2::Sha256>>),
    Ps384(Box<rsa::pss::VerifyingKey<Sha384>>),
    Ps512(Box<rsa::pss::VerifyingKey<Sha512>>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    P521(Box<p521::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl Verifier {
    pub(in crate::jwt) fn hmac(hash: Hash, secret: &[u8]) -> Result<Self, NotAKey> {
        Ok(match hash {
            Hash::Sha256 => Self::Hs256(boxed(Hmac::new_from_slice(secret))?),
            Hash::Sha384 => Self::Hs384(boxed(Hmac::new_from_slice(secret))?),
            Hash::Sha512 => Self::Hs512(boxed(Hmac::new_from_slice(secret))?),
        })
    }

    /// Big-endian numbers without leading zeros.
    pub(in crate::jwt) fn rsa(padding: Padding, hash: Hash, n: &[u8], e: &[u8]) -> Result<Self, NotAKey> {
        let (n, e) = (BoxedUint::from_be_slice_vartime(n), BoxedUint::from_be_slice_vartime(e));
        let key = PublicKey::new(n, e).map_err(|_| NotAKey)?;
        Ok(match (padding, hash) {
            (Padding::Pkcs1, Hash::Sha256) => Self::Rs256(Box::new(rsa::pkcs1v15::VerifyingKey::new(key))),
            (Padding::Pkcs1, Hash::Sha384) => Self::Rs384(Box::new(rsa::pkcs1v15::VerifyingKey::new(key))),
            (Padding::Pkcs1, Hash::Sha512) => Self::Rs512(Box::new(rsa::pkcs1v15::VerifyingKey::new(key))),
            // The salt is as long as the hash: what `new` of PSS takes.
            (Padding::Pss, Hash::Sha256) => Self::Ps256(Box::new(rsa::pss::VerifyingKey::new(key))),
            (Padding::Pss, Hash::Sha384) => Self::Ps384(Box::new(rsa::pss::VerifyingKey::new(key))),
            (Padding::Pss, Hash::Sha512) => Self::Ps512(Box::new(rsa::pss::VerifyingKey::new(key))),
        })
    }

    /// An uncompressed point (SEC 1 §2.3.3).
    pub(in crate::jwt) fn ec(curve: Curve, point: &[u8]) -> Result<Self, NotAKey> {
        Ok(match curve {
            Curve::P256 => Self::P256(boxed(p256::ecdsa::VerifyingKey::from_sec1_bytes(point))?),
            Curve::P384 => Self::P384(boxed(p384::ecdsa::VerifyingKey::from_sec1_bytes(point))?),
            Curve::P521 => Self::P521(boxed(p521::ecdsa::VerifyingKey::from_sec1_bytes(point))?),
        })
    }

    pub(in crate::jwt) fn ed25519(point: &[u8; 32]) -> Result<Self, NotAKey> {
        Ok(Self::Ed25519(boxed(ed25519_dalek::VerifyingKey::from_bytes(point))?))
    }

    pub(in crate::jwt) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => tagged(&**key, message, signature),
            Self::Hs384(key) => tagged(&**key, message, signature),
            Self::Hs512(key) => tagged(&**key, message, signature),
            Self::Rs256(key) => signed(&**key, message, signature.try_into()),
            Self::Rs384(key) => signed(&**key, message, signature.try_into()),
            Self::Rs512(key) => signed(&**key, message, signature.try_into()),
            Self::Ps256(key) => signed(&**key, message, signature.try_into()),
            Self::Ps384(key) => signed(&**key, message, signature.try_into()),
            Self::Ps512(key) => signed(&**key, message, signature.try_into()),
            Self::P256(key) => signed(&**key, message, p256::ecdsa::Signature::from_slice(signature)),
            Self::P384(key) => signed(&**key, message, p384::ecdsa::Signature::from_slice(signature)),
            Self::P521(key) => signed(&**key, message, p521::ecdsa::Signature::from_slice(signature)),
            Self::Ed25519(key) => signed(&**key, message, ed25519_dalek::Signature::from_slice(signature)),
        }
    }
}

fn boxed<K, E>(key: Result<K, E>) -> Result<Box<K>, NotAKey> {
    key.map(Box::new).map_err(|_| NotAKey)
}

/// Compares in constant time.
fn tagged<M: Mac + Clone>(key: &M, message: &[u8], tag: &[u8]) -> bool {
    key.clone().chain_update(message).verify_slice(tag).is_ok()
}

fn signed<K, S, E>(key: &K, message: &[u8], signature: Result<S, E>) -> bool
where
    K: rsa::signature::Verifier<S>,
{
    signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
}
