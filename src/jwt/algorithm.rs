use std::fmt;

/// A signature algorithm of RFC 7518 §3 and RFC 8037. The unsecured `none` does not exist here, so nothing can allow it.
///
/// ```
/// use portcullis::jwt::Algorithm;
///
/// assert_eq!(Algorithm::from_name("ES256"), Some(Algorithm::ES256));
/// assert_eq!(Algorithm::from_name("es256"), None, "names are case-sensitive (RFC 7515 §4.1.1)");
/// assert_eq!(Algorithm::from_name("none"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256. Issuer and service share the key, so the service could issue tokens itself.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256; the default of OpenID providers.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes.
    PS256,
    /// RSASSA-PSS with SHA-384 and a salt of 48 bytes.
    PS384,
    /// RSASSA-PSS with SHA-512 and a salt of 64 bytes.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// EdDSA on Ed25519; in a header also `Ed25519`, its name of RFC 9864.
    EdDSA,
}

impl Algorithm {
    /// The algorithm of an `alg` header or JWK member; none for a name that is not known here.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            "EdDSA" | "Ed25519" => Self::EdDSA,
            _ => return None,
        })
    }

    /// The name in `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether issuer and service share one key.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self.family(), Family::Hmac(_))
    }

    #[cfg(feature = "jwt-remote")]
    pub(crate) const fn is_rsa(self) -> bool {
        matches!(self.family(), Family::Rsa(..))
    }

    /// The one place that says what each name stands for.
    pub(super) const fn family(self) -> Family {
        match self {
            Self::HS256 => Family::Hmac(Hash::Sha256),
            Self::HS384 => Family::Hmac(Hash::Sha384),
            Self::HS512 => Family::Hmac(Hash::Sha512),
            Self::RS256 => Family::Rsa(Padding::Pkcs1, Hash::Sha256),
            Self::RS384 => Family::Rsa(Padding::Pkcs1, Hash::Sha384),
            Self::RS512 => Family::Rsa(Padding::Pkcs1, Hash::Sha512),
            Self::PS256 => Family::Rsa(Padding::Pss, Hash::Sha256),
            Self::PS384 => Family::Rsa(Padding::Pss, Hash::Sha384),
            Self::PS512 => Family::Rsa(Padding::Pss, Hash::Sha512),
            Self::ES256 => Family::Ec(Curve::P256),
            Self::ES384 => Family::Ec(Curve::P384),
            Self::ES512 => Family::Ec(Curve::P521),
            Self::EdDSA => Family::Ed25519,
        }
    }
}

/// What an algorithm is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Hmac(Hash),
    Rsa(Padding, Hash),
    /// ECDSA over R and S side by side (RFC 7518 §3.4), with the hash of the curve's length.
    Ec(Curve),
    Ed25519,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// RFC 8017 §8.2 and §8.1; the salt of PSS is as long as the hash (RFC 7518 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Pkcs1,
    Pss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The bytes of a coordinate, and of R and S each.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
