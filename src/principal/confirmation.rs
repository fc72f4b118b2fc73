//! What a credential is bound to.

/// What the sender of a credential must have besides it (RFC 7800): a private key, proved with each request (DPoP, RFC 9449
/// §6), the certificate of its connection (RFC 8705 §3), or both. Each is named by its SHA-256, 32 bytes.
///
/// ```
/// use portcullis::Confirmation;
///
/// let by_key = Confirmation::new().with_key_thumbprint([7; 32]);
/// assert_eq!((by_key.key_thumbprint(), by_key.certificate_sha256()), (Some(&[7; 32]), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    key: Option<[u8; 32]>,
    certificate: Option<[u8; 32]>,
}

impl Confirmation {
    /// Bound to nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { key: None, certificate: None }
    }

    /// Binds it to the key of this thumbprint (RFC 7638, SHA-256): `jkt`.
    #[must_use]
    pub const fn with_key_thumbprint(mut self, thumbprint: [u8; 32]) -> Self {
        self.key = Some(thumbprint);
        self
    }

    /// Binds it to the certificate of this SHA-256 over its DER: `x5t#S256`.
    #[must_use]
    pub const fn with_certificate_sha256(mut self, sha256: [u8; 32]) -> Self {
        self.certificate = Some(sha256);
        self
    }

    /// The thumbprint of the key.
    #[must_use]
    pub const fn key_thumbprint(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    /// The SHA-256 of the certificate.
    #[must_use]
    pub const fn certificate_sha256(&self) -> Option<&[u8; 32]> {
        self.certificate.as_ref()
    }
}
