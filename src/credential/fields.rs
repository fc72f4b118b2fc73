//! The header fields that are known to hold credentials, and those that have a meaning of their own.

use http::{HeaderName, header};

/// Fields that hold credentials wherever they are met: those of HTTP, those of DPoP, the usual names of key fields, and the tokens of
/// well-known proxies and clouds.
#[cfg(any(feature = "audit", feature = "rate-limit", feature = "tls"))]
pub(crate) const KNOWN: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("dpop"),
    HeaderName::from_static("x-goog-iap-jwt-assertion"),
    HeaderName::from_static("x-amzn-oidc-data"),
    HeaderName::from_static("x-amzn-oidc-accesstoken"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("cf-access-jwt-assertion"),
];

/// Whether a field holds a credential, or may hold one: browsers cannot set a field for a WebSocket, and some put a token among the
/// protocols.
#[cfg(any(feature = "audit", feature = "rate-limit", feature = "tls"))]
pub(crate) fn holds_credentials(name: &HeaderName) -> bool {
    KNOWN.contains(name) || *name == header::SEC_WEBSOCKET_PROTOCOL
}

/// Fields with a meaning of their own, which are no place for a bare credential.
#[cfg(any(feature = "api-key", feature = "jwt", feature = "jwt-pure-rust"))]
pub(crate) const TAKEN: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::HOST,
    header::ORIGIN,
    header::REFERER,
    header::SEC_WEBSOCKET_PROTOCOL,
];
