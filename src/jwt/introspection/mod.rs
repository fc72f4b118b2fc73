//! Opaque tokens: whoever issued one is asked whether it is good (RFC 7662).
//!
//! [`Introspection`] asks the introspection endpoint about tokens in `Authorization: Bearer` that say nothing by themselves, and
//! remembers for a short time what it said. [`by_shape`] takes opaque tokens and JWTs side by side. The manual's page on
//! opaque tokens has more.
//!
//! A token passes when
//! 1. the endpoint answers `200` with one JSON object, no member twice, at most 16 levels deep, whose `active` is `true`
//!    (RFC 7662 §2.2),
//! 2. `token_type`, `token_use` and `typ`, where they are there, are those of an access token, and nothing in the answer is
//!    of an ID token alone (RFC 8725 §3.12),
//! 3. `iss`, if there, is the configured issuer; `aud` holds the configured audience,
//! 4. `sub` and `exp` and what else is required are there and have the values that are expected; now is before `exp` and not
//!    before `nbf` and `iat`, give or take the leeway (§4),
//! 5. what it is [bound](crate::jwt::bound) to (`cnf`), the request proves to have (RFC 8705 §3.2, RFC 9449 §6.2),
//! 6. the [`RevocationStore`](crate::revocation::RevocationStore), if one is given, does not say that it was revoked.
//!
//! | status | when |
//! |---|---|
//! | `400` | `Authorization` stands twice or is malformed |
//! | `401` | a token that fails any of the above: `error="invalid_token"`; one that the endpoint does not know how to introspect (`unsupported_token_type`) |
//! | `429` | too many tokens of this source were bad: only where a [`FailureBudget`](crate::rate_limit::FailureBudget) is set |
//! | `503` with `Retry-After` | the endpoint does not answer in time, answers anything else, or refuses this service's own credentials; too many questions are on their way; nobody knows what was revoked |
//!
//! # What is remembered
//! - A good token for [60 s](IntrospectionBuilder::remember_for) after it was asked about, and never past its `exp`: that is how
//!   long one that was revoked at the provider may still pass. Within [bounds](crate::jwt::TokenCache) of entries and bytes.
//! - A token that was refused for [2 s](IntrospectionBuilder::refused_for), apart from the good ones.
//! - By its SHA-256, compared as a whole; never the token. Nothing is remembered of an endpoint that did not answer.
//!
//! Who asks for a token that is being asked about waits for that answer. The first to ask pays from its failure budget if the
//! token is refused, if the endpoint does not take the question (`400`, `413`, `414`, `422`, `431`), and if it hangs up before the
//! answer, whatever that would have been.
//!
//! The [`Principal`](crate::Principal) is as that of a JWT: its [`credential`](crate::Principal::credential) is
//! `introspection`, and [`claims`](crate::Principal::claims) reads the whole answer, `username` for example.
//!
//! # Example
//! ```
//! use portcullis::{
//!     Secret,
//!     authn::AuthnLayer,
//!     jwt::introspection::{ClientAuthentication, Introspection},
//! };
//!
//! # let secret = "s3cret".to_owned();
//! let tokens = Introspection::builder()
//!     .issuer("https://id.example.com")
//!     .endpoint("https://id.example.com/introspect")
//!     .client(ClientAuthentication::basic("orders-api", &Secret::from(secret))?)
//!     .audience("orders-api")
//!     .roles_claim("roles")
//!     .build()?;
//! let layer = AuthnLayer::new(tokens);
//! # let _ = layer;
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

mod answer;
mod asking;
mod authenticator;
mod builder;
mod by_shape;
mod client;
mod opaque;

pub use authenticator::Introspection;
pub use builder::IntrospectionBuilder;
pub use by_shape::{ByShape, by_shape};
pub use client::ClientAuthentication;
