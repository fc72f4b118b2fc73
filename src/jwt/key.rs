use std::fmt;

use memchr::memmem;

use crate::{
    error::ConfigError,
    jwt::{
        Algorithm,
        algorithm::{Curve, Family, Hash, Padding},
        crypto::{NotAKey, Sha256, Verifier},
        der,
    },
    secret::Secret,
};

/// A key that verifies signatures of exactly one [`Algorithm`] (RFC 8725 §3.1). Parsed once; a clone shares nothing with
/// a token.
///
/// The algorithm belongs to the key: a token whose header says another one is never checked with it, so the text of a
/// public key can never serve as an HMAC secret. `Debug` shows the algorithm and the id.
///
/// ```
/// use portcullis::{Secret, jwt::{Algorithm, Key}};
///
/// let key = Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?.with_id("2026-01");
/// assert_eq!(key.id(), Some("2026-01"));
/// assert!(Key::hmac(Algorithm::HS512, Secret::new(vec![7; 32])).is_err(), "shorter than the hash");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    id: Option<Box<str>>,
    issuer: Option<Box<str>>,
    verifier: Verifier,
    print: Print,
}

/// What tells a key from others, whatever it is called: a hash of its algorithm and its numbers.
pub(super) type Print = [u8; 32];

impl Key {
    /// Reads a public key in PEM: `PUBLIC KEY` (SPKI, RFC 7468 §13) or `RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    /// If the text is not one PEM block; if the block is a private key (a verifier must not hold one) or a certificate; and
    /// as [`from_der`](Self::from_der).
    pub fn from_pem(algorithm: Algorithm, pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let pem = pem.as_ref();
        let refuse = |what: &str, problem: &str| Err(ConfigError::new("JWT key", what, problem));
        // Without the parser's own error: it quotes the text, which may be a private key by mistake.
        let Ok(blocks) = pem::parse_many(pem) else { return refuse("PEM text", "cannot be read") };
        // The parser leaves out a block that is cut off.
        let ([block], 1) = (blocks.as_slice(), begins(pem)) else {
            return refuse("PEM text", "must hold exactly one block");
        };
        match block.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::from_der(algorithm, block.contents()),
            "CERTIFICATE" => refuse("a certificate", "is not a public key: take the key out of it"),
            tag if tag.ends_with("PRIVATE KEY") => refuse(PRIVATE, PRIVATE_PROBLEM),
            tag => refuse(tag, "is not the label of a public key in PEM"),
        }
    }

    /// Reads a public key in DER: SubjectPublicKeyInfo (RFC 5280 §4.1), for RSA also PKCS#1 (RFC 8017 §A.1.1).
    ///
    /// # Errors
    /// If it is a private key; if it is not a key of the algorithm's type and curve; if an RSA modulus has less than
    /// 2048 or more than 8192 bits (RFC 7518 §3.3) or the exponent is even, below 65537 or not below 2^33; if an EC key
    /// does not name its curve or its point is compressed; if an Ed25519 point has a small order; if the algorithm is
    /// symmetric.
    pub fn from_der(algorithm: Algorithm, spki_der: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let der = spki_der.as_ref();
        if der::is_private_key(der) {
            return Err(ConfigError::new("JWT key", PRIVATE, PRIVATE_PROBLEM));
        }
        match algorithm.family() {
            Family::Rsa(padding, hash) => match der::rsa_public_key(der) {
                Some((n, e)) => Self::rsa(algorithm, padding, hash, n, e),
                None => Err(mismatch(algorithm)),
            },
            Family::Ec(curve) => match der::ec_public_key(der, curve) {
                Some(point) => Self::ec(algorithm, curve, point),
                None => Err(mismatch(algorithm)),
            },
            Family::Ed25519 => match der::ed25519_public_key(der) {
                Some(point) => Self::ed25519(algorithm, point),
                None => Err(mismatch(algorithm)),
            },
            Family::Hmac(_) => Err(symmetric(algorithm)),
        }
    }

    /// Takes a shared secret for HS256, HS384 or HS512: at least 32, 48 or 64 random bytes (RFC 7518 §3.2), never a
    /// password (RFC 8725 §3.5).
    ///
    /// # Errors
    /// If the secret is too short or is a key in PEM, DER or JWK, or the algorithm is not symmetric.
    pub fn hmac(algorithm: Algorithm, secret: Secret) -> Result<Self, ConfigError> {
        let hash = match algorithm.family() {
            Family::Hmac(hash) => hash,
            Family::Rsa(..) | Family::Ec(_) | Family::Ed25519 => {
                return Err(ConfigError::new("JWT key", algorithm.name(), "takes a public key, not a secret"));
            }
        };
        let (bytes, needed) = (secret.expose(), hash.bytes());
        if bytes.len() < needed {
            let value = format!("a secret of {} bytes", bytes.len());
            let problem = format!("is too short for {algorithm}: at least {needed} bytes (RFC 7518 §3.2)");
            return Err(ConfigError::new("JWT key", value, problem));
        }
        // Wherever it stands: text before a block is no part of it (RFC 7468 §2).
        if begins(bytes) > 0 {
            return Err(ConfigError::new("JWT key", "a key in PEM", "is not an HMAC secret"));
        }
        if der::is_key(bytes) {
            return Err(ConfigError::new("JWT key", "a key in DER", "is not an HMAC secret"));
        }
        if serde_json::from_slice(bytes).is_ok_and(|json: serde_json::Value| json.is_object()) {
            return Err(ConfigError::new("JWT key", "a JWK", "is not an HMAC secret: give the bytes in its k"));
        }
        Self::new(algorithm, Verifier::hmac(hash, bytes), &[bytes])
    }

    /// Sets the key id. A token that names a `kid` is checked with keys of that id, and with keys that have none.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The key id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The issuer whose tokens the key signs and nobody else's, if its JWK says so in a member `issuer`, as Entra's do ("Access tokens",
    /// "Validate the signing key issuer"). Compared with `iss` byte for byte; `{tenantid}` in it stands for any tenant: a text without a
    /// slash, and not empty.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The one algorithm that the key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn with_issuer(mut self, issuer: Option<Box<str>>) -> Self {
        self.issuer = issuer;
        self
    }

    /// Whether it may sign tokens of this issuer.
    #[inline]
    pub(super) fn signs_for(&self, iss: &str) -> bool {
        self.issuer.as_deref().is_none_or(|own| fits(own, iss))
    }

    /// Big-endian numbers without leading zeros.
    pub(super) fn from_rsa_numbers(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, ConfigError> {
        match algorithm.family() {
            Family::Rsa(padding, hash) => Self::rsa(algorithm, padding, hash, n, e),
            Family::Hmac(_) | Family::Ec(_) | Family::Ed25519 => Err(mismatch(algorithm)),
        }
    }

    /// The coordinates of a point, each as long as the field (RFC 7518 §6.2.1.2).
    pub(super) fn from_ec_point(algorithm: Algorithm, x: &[u8], y: &[u8]) -> Result<Self, ConfigError> {
        match algorithm.family() {
            Family::Ec(curve) if x.len() == curve.bytes() && y.len() == curve.bytes() => {
                // The longest is that of P-521.
                let mut point = [0; 1 + 2 * 66];
                point.iter_mut().zip([4].iter().chain(x).chain(y)).for_each(|(to, from)| *to = *from);
                let len = 1_usize.saturating_add(x.len()).saturating_add(y.len());
                Self::ec(algorithm, curve, point.get(..len).unwrap_or_default())
            }
            Family::Ec(_) | Family::Hmac(_) | Family::Rsa(..) | Family::Ed25519 => Err(mismatch(algorithm)),
        }
    }

    pub(super) fn from_ed25519_point(algorithm: Algorithm, x: &[u8]) -> Result<Self, ConfigError> {
        match (algorithm.family(), x.try_into()) {
            (Family::Ed25519, Ok(point)) => Self::ed25519(algorithm, point),
            (Family::Ed25519 | Family::Hmac(_) | Family::Rsa(..) | Family::Ec(_), _) => Err(mismatch(algorithm)),
        }
    }

    /// The bounds are the providers' own, or tighter: what is taken does not depend on the provider.
    fn rsa(algorithm: Algorithm, padding: Padding, hash: Hash, n: &[u8], e: &[u8]) -> Result<Self, ConfigError> {
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let bits = bits(n);
        if !(2048..=8192).contains(&bits) {
            let problem = "is out of bounds: 2048 to 8192 (RFC 7518 §3.3)";
            return Err(ConfigError::new("JWT key", format!("an RSA modulus of {bits} bits"), problem));
        }
        if !odd(n) {
            return Err(ConfigError::new("JWT key", "its RSA modulus", "is even, so it is not one"));
        }
        if !odd(e) || !(17..=33).contains(&self::bits(e)) {
            return Err(ConfigError::new("JWT key", "its RSA exponent", "must be odd, at least 65537 and below 2^33"));
        }
        Self::new(algorithm, Verifier::rsa(padding, hash, n, e), &[n, e])
    }

    /// The one form of a point that every provider and RFC 7518 §6.2.1 have: both coordinates.
    fn ec(algorithm: Algorithm, curve: Curve, point: &[u8]) -> Result<Self, ConfigError> {
        match point {
            [4, coordinates @ ..] if coordinates.len() == 2 * curve.bytes() => {
                Self::new(algorithm, Verifier::ec(curve, point), &[point])
            }
            _ => Err(mismatch(algorithm)),
        }
    }

    fn ed25519(algorithm: Algorithm, point: &[u8; 32]) -> Result<Self, ConfigError> {
        if has_small_order(point) {
            return Err(ConfigError::new(
                "JWT key",
                "an Ed25519 point of small order",
                "would verify forged signatures",
            ));
        }
        Self::new(algorithm, Verifier::ed25519(point), &[point])
    }

    fn new(algorithm: Algorithm, verifier: Result<Verifier, NotAKey>, numbers: &[&[u8]]) -> Result<Self, ConfigError> {
        match verifier {
            Ok(verifier) => Ok(Self { algorithm, id: None, issuer: None, verifier, print: print(algorithm, numbers) }),
            Err(error) => Err(mismatch(algorithm).caused_by(error)),
        }
    }

    /// Whether the signature is this key's over the message. HMACs are compared in constant time.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier.verifies(message, signature)
    }

    pub(super) const fn print(&self) -> &Print {
        &self.print
    }
}

/// Lengths stand before what they are of, so that no two lists of numbers are hashed alike.
fn print(algorithm: Algorithm, numbers: &[&[u8]]) -> Print {
    let mut hash = Sha256::new();
    for part in [algorithm.name().as_bytes()].iter().chain(numbers) {
        hash.update(&part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finish()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whether an issuer is the one of a key. That the tenant in `iss` is the token's `tid` as well, the profile says.
fn fits(of_key: &str, iss: &str) -> bool {
    match of_key.split_once("{tenantid}") {
        None => of_key == iss,
        Some((before, after)) => {
            let tenant = iss.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            tenant.is_some_and(|tenant| !tenant.is_empty() && !tenant.contains('/'))
        }
    }
}

/// How many blocks of PEM begin in a text.
fn begins(text: &[u8]) -> usize {
    memmem::find_iter(text, b"-----BEGIN").count()
}

const PRIVATE: &str = "a private key";
const PRIVATE_PROBLEM: &str = "does not belong here: tokens are verified with the public half";

/// The length of a big-endian number without leading zeros; none for one with them.
fn bits(number: &[u8]) -> usize {
    match number.first() {
        None | Some(0) => 0,
        Some(first) => number.len() * 8 - first.leading_zeros() as usize,
    }
}

fn symmetric(algorithm: Algorithm) -> ConfigError {
    ConfigError::new("JWT key", algorithm.name(), "takes a secret: use Key::hmac")
}

fn mismatch(algorithm: Algorithm) -> ConfigError {
    ConfigError::new(
        "JWT key",
        algorithm.name(),
        "takes a public key of another type, curve or length, or it is damaged",
    )
}

/// Whether a point, its sign aside, is one of the eight whose order divides 8, in any encoding (RFC 8032 §5.1.7).
fn has_small_order(point: &[u8; 32]) -> bool {
    const fn near_prime(lowest: u8) -> [u8; 32] {
        let mut y = [0xff; 32];
        y[0] = lowest;
        y[31] = 0x7f;
        y
    }
    const fn small(y: u8) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes
    }
    const ORDER_EIGHT: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const ORDER_EIGHT_NEGATED: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    const SMALL_ORDER: [[u8; 32]; 7] =
        [small(0), small(1), ORDER_EIGHT, ORDER_EIGHT_NEGATED, near_prime(0xec), near_prime(0xed), near_prime(0xee)];
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    SMALL_ORDER.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_in_any_encoding() {
        let mut negated_identity = [0; 32];
        negated_identity[0] = 1;
        negated_identity[31] = 0x80;
        let mut beyond_the_prime = [0xff; 32];
        beyond_the_prime[0] = 0xee;
        for point in [[0; 32], negated_identity, beyond_the_prime] {
            assert!(has_small_order(&point), "{point:?}");
        }
        assert!(!has_small_order(&[9; 32]));
    }

    #[test]
    fn a_key_is_known_again_by_its_numbers_and_its_algorithm() {
        let hmac = |algorithm, byte| Key::hmac(algorithm, Secret::new(vec![byte; 64])).unwrap();
        let key = hmac(Algorithm::HS256, 7);
        assert_eq!(key.print(), hmac(Algorithm::HS256, 7).with_id("another name").print());
        assert_eq!(key.print(), key.clone().print());
        for (name, other) in [("numbers", hmac(Algorithm::HS256, 8)), ("algorithm", hmac(Algorithm::HS384, 7))] {
            assert_ne!(key.print(), other.print(), "another {name}");
        }
        assert_ne!(print(Algorithm::RS256, &[b"ab", b"c"]), print(Algorithm::RS256, &[b"a", b"bc"]));
    }
}
