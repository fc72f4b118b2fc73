//! Key pairs that are made anew in each run.

#[cfg(feature = "tls-self-signed")]
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac, rand,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    jwt::{Algorithm, Key},
    secret::Secret,
};

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Box<Ed25519KeyPair>),
    Secret([u8; 64]),
}

/// A private key, and the id under which its public half is published.
pub(super) struct SigningKey {
    pub(super) algorithm: Algorithm,
    pub(super) id: String,
    pair: Pair,
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// An HMAC as JWS has them, over any secret.
pub(super) fn hmac(algorithm: Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    let hash = match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
}

impl SigningKey {
    pub(super) fn generate(algorithm: Algorithm, id: String) -> Self {
        let pair = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let mut secret = [0; 64];
                rand::fill(&mut secret).expect("the system has randomness");
                Pair::Secret(secret)
            }
            Algorithm::ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDSA => Pair::Ed(Box::new(Ed25519KeyPair::generate().expect("an Ed25519 key"))),
            _ => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key")),
        };
        Self { algorithm, id, pair }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match &self.pair {
            Pair::Secret(secret) => hmac(self.algorithm, secret, message),
            Pair::Ec(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding = match self.algorithm {
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &RSA_PSS_SHA256,
                    Algorithm::PS384 => &RSA_PSS_SHA384,
                    Algorithm::PS512 => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }

    /// The public half as a JWK; none of a shared secret, which is not published.
    pub(super) fn jwk(&self) -> Option<String> {
        let members = self.public_members()?;
        Some(format!(r#"{{{members},"use":"sig","alg":"{}","kid":"{}"}}"#, self.algorithm, self.id))
    }

    /// What of the JWK is the key.
    pub(super) fn public_members(&self) -> Option<String> {
        Some(match &self.pair {
            Pair::Secret(_) => return None,
            Pair::Rsa(pair) => {
                // RSAPublicKey (RFC 8017 §A.1.1) of 2048 bits with the exponent 65537: 9 octets, 256 of n, 5 of e.
                let n = pair.public_key().as_ref().get(9..265).map(base64)?;
                format!(r#""kty":"RSA","n":"{n}","e":"AQAB""#)
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..)?.split_at(point.len() / 2);
                let curve = match self.algorithm {
                    Algorithm::ES384 => "P-384",
                    Algorithm::ES512 => "P-521",
                    _ => "P-256",
                };
                format!(r#""kty":"EC","crv":"{curve}","x":"{}","y":"{}""#, base64(x), base64(y))
            }
            Pair::Ed(pair) => format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, base64(pair.public_key())),
        })
    }

    /// The public half in DER (SubjectPublicKeyInfo).
    pub(super) fn spki(&self) -> Option<Vec<u8>> {
        let der: Result<PublicKeyX509Der<'_>, _> = match &self.pair {
            Pair::Secret(_) => return None,
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Ed(pair) => pair.public_key().as_der(),
        };
        der.ok().map(|der| der.as_ref().to_vec())
    }

    /// A certificate that it signs for itself, in DER.
    #[cfg(feature = "tls-self-signed")]
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        let pkcs8 = match &self.pair {
            Pair::Secret(_) => return None,
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).ok()?.as_ref().to_vec(),
            Pair::Ec(pair) => pair.to_pkcs8v1().ok()?.as_ref().to_vec(),
            Pair::Ed(pair) => pair.to_pkcs8().ok()?.as_ref().to_vec(),
        };
        let key = rcgen::KeyPair::try_from(pkcs8).ok()?;
        let certificate = rcgen::CertificateParams::new(["mallory.invalid".to_owned()]).ok()?.self_signed(&key).ok()?;
        Some(certificate.der().to_vec())
    }

    /// None: what makes certificates is not there.
    #[cfg(not(feature = "tls-self-signed"))]
    pub(super) const fn certificate(&self) -> Option<Vec<u8>> {
        None
    }

    /// What verifies.
    pub(super) fn verifying(&self) -> Key {
        let key = match &self.pair {
            Pair::Secret(secret) => Key::hmac(self.algorithm, Secret::new(secret.to_vec())),
            Pair::Rsa(_) | Pair::Ec(_) | Pair::Ed(_) => {
                Key::from_der(self.algorithm, self.spki().expect("a public key"))
            }
        };
        key.expect("a key that was just made").with_id(self.id.as_str())
    }
}

fn ec(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Pair {
    Pair::Ec(EcdsaKeyPair::generate(algorithm).expect("an EC key"))
}
