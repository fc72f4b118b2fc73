//! The identities of this demonstration. A real service gets its tokens from an identity provider, and never holds the
//! private key.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

pub(crate) const ISSUER: &str = "https://id.quickstart.invalid";
pub(crate) const AUDIENCE: &str = "orders-api";

/// A provider in miniature: one key pair, made anew at each start.
pub(crate) struct Provider {
    private_pem: String,
    public_pem: String,
}

impl Provider {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { private_pem: pair.serialize_pem(), public_pem: pair.public_key_pem() })
    }

    pub(crate) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// An access token (RFC 9068) that ends `seconds` after `now`; a negative number makes one that has ended.
    pub(crate) fn token(
        &self,
        subject: &str,
        role: &str,
        now: u64,
        seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        let claims = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "client_id": "quickstart",
            "jti": format!("{subject}-{now}-{seconds}"),
            "iat": now.saturating_add_signed(seconds.min(0) - 60),
            "exp": now.saturating_add_signed(seconds),
            "roles": [role],
        });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(self.private_pem.as_bytes())?)
    }
}

/// The token with one character of its signature changed.
pub(crate) fn tampered(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{first}{}", signature.get(1..).unwrap_or_default())
}
