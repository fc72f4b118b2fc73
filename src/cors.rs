//! What a browser application from another origin must be able to read.

use http::{HeaderName, header};

/// The response header fields that a cross-origin client needs in order to react to a refusal: `WWW-Authenticate`,
/// `Retry-After`, `RateLimit`, `RateLimit-Policy`, the older `X-RateLimit-Limit`, `-Remaining` and `-Reset` where a limit sends them, and
/// `DPoP-Nonce`.
///
/// Give them to the `CorsLayer` that stands outside the stack:
///
/// ```
/// use tower_http::cors::CorsLayer;
///
/// let cors = CorsLayer::new().expose_headers(portcullis::EXPOSED_HEADERS);
/// # let _ = cors;
/// ```
pub const EXPOSED_HEADERS: [HeaderName; 8] = [
    header::WWW_AUTHENTICATE,
    header::RETRY_AFTER,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("dpop-nonce"),
];
