//! Revocation: cutting off tokens that have not expired yet.
//!
//! A [`RevocationStore`] is told what no longer counts, by [`Revocation`]: one token, a session, a subject (everything issued
//! up to a moment: "log out everywhere"), a client, or a signing key, each of one issuer. Give the store to
//! [`JwtAuthenticatorBuilder::revocations`](crate::jwt::JwtAuthenticatorBuilder::revocations): from then on every request
//! asks, those with remembered tokens included, and asks memory alone.
//!
//! 1. A token that a revocation meets is refused with `401` and `invalid_token`, as any bad token; the operator learns what
//!    was revoked.
//! 2. [`MemoryRevocations`] knows what this process was told, until it ends, and tells no other. The processes of one machine share
//!    them in an SQLite file (feature `revocation-sqlite`), which outlives them; those of several machines in Redis or PostgreSQL
//!    (features `revocation-redis`, `revocation-postgres`); or implement [`RevocationStore`] over what they share, and feed a
//!    [`RevocationState`] from there.
//! 3. State that others may have changed is trusted for 5 s after the last contact, by default. After that, and before the
//!    first, requests are refused with `503` and `Retry-After`. After a lost connection the missing part is loaded first.
//! 4. A revocation is kept until the tokens that it meets have ended: until the `exp` that it is given, or for 24 h by default.
//!    Where revocations are checked, a token must have `iat` and may not live longer than that; else it would outlive its
//!    revocation.
//! 5. Their number is bounded, 100 000 by default. When they are full, those that have ended are dropped; if none has, the new
//!    one is refused with an error, and none is forgotten. A process that cannot take in what another one revoked trusts its
//!    state no longer: `503`.
//!
//! API keys are revoked in their own store.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use portcullis::{
//!     Clock, Secret, SystemClock,
//!     jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet},
//!     revocation::{MemoryRevocations, Revocation, RevocationStore},
//! };
//!
//! let revocations = Arc::new(MemoryRevocations::new());
//! let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
//! let jwt = JwtAuthenticator::builder()
//!     .issuer(Issuer::fixed("https://id.example.com", keys).access_tokens("orders-api").algorithms([Algorithm::HS256]))
//!     .revocations(Arc::clone(&revocations))
//!     .build()?;
//!
//! let now = SystemClock::new().now();
//! revocations.revoke(&Revocation::subject("https://id.example.com", "alice", now.unix_seconds())?, now).await?;
//! # let _ = jwt;
//! # Ok(())
//! # }
//! ```

mod entries;
#[cfg(any(feature = "revocation-postgres", feature = "revocation-redis", feature = "revocation-sqlite"))]
mod entry;
mod memory;
#[cfg(feature = "revocation-postgres")]
mod postgres;
#[cfg(feature = "revocation-redis")]
mod redis;
#[cfg(any(feature = "revocation-postgres", feature = "revocation-sqlite"))]
mod rows;
#[cfg(feature = "revocation-sqlite")]
mod sqlite;
mod state;
mod store;
mod what;

pub use memory::MemoryRevocations;
#[cfg(feature = "revocation-postgres")]
pub use postgres::{PostgresRevocations, PostgresRevocationsBuilder};
#[cfg(feature = "revocation-redis")]
pub use redis::{RedisRevocations, RedisRevocationsBuilder};
#[cfg(feature = "revocation-sqlite")]
pub use sqlite::{SqliteRevocations, SqliteRevocationsBuilder};
pub use state::{RevocationLimits, RevocationState, Standing};
pub use store::RevocationStore;
pub use what::Revocation;

pub use crate::principal::{RevocationKind, TokenMarks};
#[cfg(any(feature = "revocation-postgres", feature = "revocation-sqlite"))]
pub use crate::sql::OpenError;
