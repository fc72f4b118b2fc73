//! Where the keys of an issuer come from.
//!
//! A [`KeySource`] gives the keys of the moment, and asks for newer ones when a token names a key that is not there, or names none
//! and no key verifies it.
//! [`KeySet`](crate::jwt::KeySet) is one that never changes. `LiveKeys` (feature `jwt-remote`) follows a JWK Set in a file, at
//! a URL, or where an issuer's metadata says; [`Issuer`](crate::jwt::Issuer) has a constructor for each.
//!
//! `LiveKeys` sees to it that
//! 1. each request reads one snapshot, without a lock and without waiting, as long as it has the token's key;
//! 2. a set is refreshed in the background after 70 to 80 % of its life: 10 min, or what `Cache-Control` says, from 1 min to
//!    24 h; `ETag` and `304` save the transfer;
//! 3. a refresh that fails takes nothing away: the keys stay until their origin has not confirmed them for 24 h;
//! 4. an unknown `kid` leads to a fetch, and the request that brought it is tried once more. At most one such fetch goes out
//!    in 30 s and is shared by all who wait; at most five kids may wait, and one more every 10 s; a kid that the origin does
//!    not have is remembered for 30 s. One that came while a fetch was under way already, which did not bring it, may ask again.
//!    Tokens without a `kid` that no key verifies are as one such kid, and that is not remembered: a good one looks like a forged one;
//! 5. a token that is refused for anything else (issuer, audience, expiry, algorithm) leads to no fetch;
//! 6. what is fetched is untrusted: 5 s, 512 KiB, 100 keys; `https` from a configured host, no redirects; private,
//!    symmetric, weak and unknown keys are skipped and told, the rest serve.
//!
//! | status | when |
//! |---|---|
//! | `401` | the origin was asked since the `kid` first came, or since the token without one did, and does not have the key |
//! | `503` with `Retry-After` | there are no keys yet, or they are too old, or a key is unknown and the origin does not answer or must not be asked now |
//!
//! # Example
//! ```
//! # #[cfg(feature = "jwt-remote")]
//! # fn main() -> Result<(), portcullis::ConfigError> {
//! use portcullis::jwt::{Algorithm, Issuer, JwtAuthenticator};
//!
//! let jwt = JwtAuthenticator::builder()
//!     .issuer(
//!         Issuer::discover("https://id.example.com")?
//!             .access_tokens("orders-api")
//!             .algorithms([Algorithm::ES256, Algorithm::RS256]),
//!     )
//!     .build()?;
//! # let _ = jwt;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "jwt-remote"))]
//! # fn main() {}
//! ```

#[cfg(feature = "jwt-remote")]
mod budget;
#[cfg(feature = "jwt-remote")]
mod cycle;
#[cfg(feature = "jwt-remote")]
mod discovery;
#[cfg(feature = "jwt-remote")]
mod file;
#[cfg(feature = "jwt-remote")]
mod http;
#[cfg(feature = "jwt-remote")]
mod live;
#[cfg(feature = "jwt-remote")]
mod origin;
mod source;

#[cfg(feature = "jwt-remote")]
pub use live::{LiveKeys, LiveKeysBuilder};
#[cfg(feature = "jwt-remote")]
pub use origin::{Fetched, JwkSource};
pub(super) use source::Keys;
pub use source::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh};
