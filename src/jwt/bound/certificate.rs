//! Tokens that are bound to the client's certificate (RFC 8705 §3).

use subtle::ConstantTimeEq;

use crate::{client::ClientCertificate, head::RequestHead, jwt::Refusal};

/// Whether the request came with the certificate of this SHA-256.
pub(super) fn check(bound: &[u8; 32], head: &RequestHead<'_>) -> Result<(), Refusal> {
    const ABSENT: Refusal = Refusal("the token is bound to a certificate, and the request came without one");
    let sha256 = match head.client() {
        #[cfg(feature = "client-cert")]
        Some(client) if client.malformed_certificate().is_some() => {
            return Err(Refusal(
                "the token is bound to a certificate, and the one that was forwarded cannot be believed",
            ));
        }
        Some(client) => client.client_certificate().map(sha256),
        // No layer looked at the connection yet.
        None => head.connection().as_ref().and_then(|connection| connection.client_certificate().map(sha256)),
    };
    let sha256 = sha256.ok_or(ABSENT)?.ok_or(Refusal("the client's certificate cannot be read"))?;
    if bool::from(sha256.ct_eq(bound)) { Ok(()) } else { Err(Refusal("the token is bound to another certificate")) }
}

/// None for what cannot be read.
#[cfg(feature = "client-cert")]
fn sha256(certificate: &ClientCertificate) -> Option<[u8; 32]> {
    certificate.sha256()
}

/// None for what cannot be read.
#[cfg(not(feature = "client-cert"))]
fn sha256(certificate: &ClientCertificate) -> Option<[u8; 32]> {
    certificate.der().map(crate::jwt::crypto::sha256)
}
