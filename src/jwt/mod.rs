//! JSON Web Tokens: who is this, by the word of an issuer?
//!
//! [`JwtAuthenticator`] verifies tokens in `Authorization: Bearer`, a header field or a cookie, with keys that it was given, or
//! that it [gets](keys) from the issuer. Put it into an [`AuthnLayer`](crate::authn::AuthnLayer), inside TLS enforcement.
//! [`Provider`] has the rules of well-known identity providers, [`Issuer`] takes those of any other.
//!
//! A token passes when
//! 1. it is a compact JWS (RFC 7515 §7.1) of at most 16 KiB, its header at most 4 KiB, in unpadded base64url without spare
//!    bits; header and claims are one JSON object each, no member twice, at most 16 levels deep,
//! 2. the header asks for nothing beyond a signature: no `crit`, `b64`, `zip`, `enc`, nested `cty`, and no key of its own
//!    (`jwk`); `jku`, `x5u` and `x5c` are ignored, keys come from the configuration alone,
//! 3. `iss` is a configured issuer, byte for byte,
//! 4. `typ` is that of the token kind that the issuer's profile takes (RFC 9068 §4, RFC 8725 §3.12),
//! 5. `alg` is on the profile's list and is the algorithm of the key; `kid`, if there, selects among the issuer's keys,
//! 6. `aud` holds the profile's audience, or another claim binds it to us as the profile says; an ID token's `azp` is the
//!    client,
//! 7. `sub`, `exp` and what else the profile requires are there and have the values that it expects; now is before `exp` and
//!    not before `nbf` and `iat`, give or take the leeway,
//! 8. what it is [bound] to, if it has a `cnf` (RFC 7800), the request proves to have: a token that is bound to a key is not a
//!    bearer token,
//! 9. the signature is good.
//!
//! | status | when |
//! |---|---|
//! | `400` | a field or cookie stands twice or is malformed; tokens in two places: `error="invalid_request"` (RFC 6750 §3.1) |
//! | `401` | a token that fails any of the above: `error="invalid_token"` (RFC 6750 §3.1) |
//! | `403` | a cookie in a request that another site may have caused |
//!
//! A bad cookie refuses only where an identity is needed; elsewhere the request is anonymous.
//!
//! With [keys] that are fetched also `503`, while they cannot be had; and with revocations, while nobody knows them.
//!
//! Other credentials, a Bearer token that is not shaped like a JWT among them, are [`Absent`](crate::authn::Outcome::Absent) here; the layer
//! refuses them unless another authenticator claims them. The client never learns which check failed; the reason in the
//! [`Rejection`](crate::Rejection) says it to the operator, and holds nothing of the token.
//!
//! The [`Principal`](crate::Principal) is a [`User`](crate::PrincipalKind::User), or a
//! [`Service`](crate::PrincipalKind::Service) if `sub` is the token's `client_id`. It carries `jti`, `amr`, scopes, roles,
//! permissions and tenant as the profile maps them, `exp`, and all claims for [`Principal::claims`](crate::Principal::claims).
//!
//! A token that passed is remembered until it ends or its issuer's keys change, and not verified again; see [`TokenCache`].
//!
//! [`ResourceMetadata`] tells clients which issuer they get a token from (RFC 9728); the challenges name its URL.
//!
//! Until it expires, a token is good, unless [`JwtAuthenticatorBuilder::revocations`] says where to ask whether it was
//! [revoked](crate::revocation).
//!
//! # Example
//! ```
//! use portcullis::{
//!     Secret,
//!     authn::AuthnLayer,
//!     jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
//! };
//!
//! // In production a public key: Key::from_pem, or KeySet::from_jwks_file.
//! let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
//! let jwt = JwtAuthenticator::builder()
//!     .issuer(
//!         Issuer::fixed("https://id.example.com", keys)
//!             .access_tokens("orders-api")
//!             .algorithms([Algorithm::HS256])
//!             .roles_claim("roles"),
//!     )
//!     .realm("orders")
//!     .build()?;
//! let layer = AuthnLayer::new(jwt);
//! # let _ = layer;
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

mod algorithm;
mod authenticator;
pub mod bound;
mod builder;
mod cache;
mod claims;
mod crypto;
mod csrf;
mod date;
mod der;
mod entrance;
mod fault;
mod headers;
mod identity_provider;
#[cfg(feature = "introspection")]
pub mod introspection;
mod issuer;
mod json;
mod jwk;
mod key;
mod key_set;
pub mod keys;
mod logout;
mod need;
mod path;
mod place;
mod profile;
mod resource_metadata;
mod revoked;
mod routes;
mod rules;
mod token;
mod vouchers;

pub use algorithm::Algorithm;
pub use authenticator::JwtAuthenticator;
pub use builder::JwtAuthenticatorBuilder;
pub use cache::{CacheStats, TokenCache};
pub use csrf::CsrfRules;
pub use identity_provider::Provider;
pub use issuer::{Issuer, IssuerProfile, IssuerTokens};
pub use key::Key;
pub use key_set::KeySet;
pub use logout::{Logout, LogoutTokens};
pub use path::ClaimPath;
pub use place::CookiePlace;
pub use resource_metadata::{MetadataUrl, ResourceMetadata, ResourceMetadataBuilder};

/// Why a token is refused, for the operator. A fixed text, never a part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal(&'static str);
