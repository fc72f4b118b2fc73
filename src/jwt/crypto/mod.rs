//! The cryptography under a [`Key`](super::Key): aws-lc-rs with feature `jwt`, RustCrypto with `jwt-pure-rust` alone.
//!
//! A provider gets checked material and answers whether a signature is good. Every bound on keys is set before it is asked
//! ([`key`](super::key), [`der`](super::der)), so that no key and no token is taken by one and refused by the other. (One
//! exception harms nobody: aws-lc-rs takes an Ed25519 point off the curve and then verifies nothing with it.) With both features aws-lc-rs verifies; the tests then hold the other one against it.

#[cfg(feature = "jwt")]
mod aws_lc;
#[cfg(all(feature = "jwt-pure-rust", any(test, not(feature = "jwt"))))]
mod rust_crypto;
#[cfg(feature = "introspection")]
mod signer;
#[cfg(test)]
mod tests;

#[cfg(feature = "jwt")]
pub(super) use aws_lc::{Sha256, Verifier, sha256};
#[cfg(not(feature = "jwt"))]
pub(super) use rust_crypto::{Sha256, Verifier, sha256};
#[cfg(feature = "introspection")]
pub(super) use signer::Signer;

/// The material is no key: not on the curve, for example.
#[derive(Debug, thiserror::Error)]
#[error("the numbers are not those of a key")]
pub(super) struct NotAKey;
