//! API keys: made by [`NewApiKey`], kept hashed in an [`ApiKeyStore`], checked by [`ApiKeyAuthenticator`].
//!
//! A request is authenticated when
//! 1. it carries one key, in one place: `X-API-Key: <key>`, `Authorization: ApiKey <key>`, `Authorization: Bearer <key>`, or
//!    `Authorization: Basic` with the key as user name and an empty password (RFC 7617 §2),
//! 2. the key is of the configured [`ApiKeyFormat`] and its checksum is right,
//! 3. the store has its id, and the hash of the presented key is the stored one (compared in constant time),
//! 4. the key is not revoked, not past its end and not before its start.
//!
//! The principal is of kind [`Key`](crate::PrincipalKind::Key); its issuer is the store's name (`api-keys` unless set), its
//! subject the key's owner.
//!
//! | status | when |
//! |---|---|
//! | `400` | a key in two places; `X-API-Key` or `Authorization` twice, empty, not ASCII or over 16 KiB (RFC 9110 §5.3) |
//! | `401` | a bad key: malformed, unknown, wrong secret, revoked, expired, not valid yet. One answer for all of them (RFC 9110 §15.5.2) |
//! | `503` | the store did not answer (RFC 9110 §15.6.4) |
//!
//! A `Bearer` token that does not begin with the prefix and `_`, and a Basic user name that does not, are somebody else's:
//! the answer is [`Absent`](crate::authn::Outcome::Absent), so that [`one_of`](crate::authn::one_of) can combine keys with
//! other credentials. `X-API-Key` and the scheme `ApiKey` are always ours. Keys in the query string are never read: URLs are
//! logged.
//!
//! Give the authenticator to an [`AuthnLayer`](crate::authn::AuthnLayer), inside TLS enforcement. A proxy in front must not
//! log `X-API-Key`, which fewer of them redact than `Authorization`.
//!
//! # Example
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use std::{convert::Infallible, sync::Arc};
//! use http::{Request, Response};
//! use portcullis::{Clock, SystemClock, api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey}, authn::AuthnLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let store = Arc::new(MemoryKeyStore::new());
//! let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
//! let (key, _) = keys.issuer().issue(&*store, NewApiKey::for_subject("billing"), SystemClock::new().now()).await?;
//!
//! let service = ServiceBuilder::new()
//!     .layer(AuthnLayer::new(keys).dangerous_plain_http()) // an example has no TlsLayer
//!     .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new()))));
//!
//! let good = Request::get("/").header("x-api-key", key.expose()).body(())?;
//! assert_eq!(service.clone().oneshot(good).await?.status(), 200);
//! let bad = Request::get("/").header("x-api-key", "pc_v1_guessed").body(())?;
//! assert_eq!(service.oneshot(bad).await?.status(), 401);
//! # Ok(()) })
//! # }
//! ```

mod authenticator;
mod bounds;
#[cfg(feature = "api-key-cached")]
mod cached;
mod changes;
mod encoding;
mod fields;
#[cfg(feature = "api-key-file")]
mod file;
mod filter;
mod format;
mod id;
mod issue;
mod last_use;
mod legacy;
mod lookup;
mod memory;
mod owner;
mod pepper;
mod place;
mod record;
mod rotation;
mod scheme;
#[cfg(any(feature = "api-key-sqlite", feature = "api-key-postgres"))]
mod sql;
mod store;
mod table;
mod use_log;
mod view;
mod voucher;

pub use authenticator::ApiKeyAuthenticator;
pub use bounds::MAX_TIME;
#[cfg(feature = "api-key-cached")]
pub use cached::{CacheStats, Cached, KeyCache};
pub use changes::{ChangeFeed, ChangeListener, KeyChange};
pub use fields::RecordFields;
#[cfg(feature = "api-key-file")]
pub use file::{FileHealth, FileKeyStore};
pub use filter::KeyFilter;
pub use format::{ApiKey, ApiKeyFormat};
pub use id::{KeyHash, KeyId};
pub use issue::{DEFAULT_OVERLAP, IssueError, KeyIssuer, KeyLife, NewApiKey};
pub use last_use::{KeyUse, LastUse};
pub use legacy::LegacyFormat;
pub use lookup::{Found, Hit, Lookup};
pub use memory::MemoryKeyStore;
pub use owner::{Owner, Revocation};
pub use pepper::Peppers;
pub use record::ApiKeyRecord;
pub use rotation::Rotation;
pub use scheme::{HashScheme, PepperId};
#[cfg(feature = "api-key-postgres")]
pub use sql::postgres::{PostgresKeyStore, PostgresKeyStoreBuilder};
#[cfg(feature = "api-key-sqlite")]
pub use sql::sqlite::{SqliteKeyStore, SqliteKeyStoreBuilder};
pub use store::{ApiKeyAdmin, ApiKeyStore, MAX_PAGE};
pub use use_log::UseLog;
pub use view::{KeyStatus, KeyView};

#[cfg(any(feature = "api-key-sqlite", feature = "api-key-postgres"))]
pub use crate::sql::OpenError;

/// How many hashes a thread made: refusals must not differ by it.
#[cfg(test)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        pub(super) static DIGESTS: Cell<usize> = const { Cell::new(0) };
        pub(super) static HMACS: Cell<usize> = const { Cell::new(0) };
    }
}
