//! Limits: how often may one client, or one principal, ask, and how much at the same time?
//!
//! [`RateLimitLayer::per_client`] is a ceiling for each client network, before credentials are looked at.
//! [`RateLimitLayer::per_principal`] is the quota of each identity, after; [`Plans`] give each its own. [`LimitBy`] has other
//! keys: credential, tenant, route, header field, closures. They count by a [`Quota`], in a [`RateLimitStore`];
//! [`MemoryLimits`] is the one that they use unless you say another, `RedisLimits` (feature `rate-limit-redis`) one that
//! several processes share. [`ConcurrencyLayer`] limits what runs at the same time.
//!
//! A request passes a [`RateLimitLayer`] when
//! 1. it is known whose it is: the limit per client has an address; the limit per principal stands inside authentication
//!    (a request without an identity passes it uncounted),
//! 2. every quota of the layer has room for it, and then it takes its cost from each. A refused request takes nothing.
//!
//! | status | when |
//! |---|---|
//! | `400`, `403` | what requests are counted by is missing, or longer than [`MAX_KEY_LEN`], unless [`OnMissingKey`] was said |
//! | `429` | over the quota (RFC 6585 §4), with `Retry-After`, `RateLimit` and `RateLimit-Policy`, and `no-store` |
//! | `400` | no address, since a proxy's header does not parse and the proxy has none itself |
//! | `500` | no peer address otherwise; the limit per principal without authentication outside; the limit per client inside it |
//! | `503` | the store failed, unless [`OnStoreError::Admit`] was said |
//!
//! Responses that pass carry `RateLimit-Policy: "default";q=600;w=60` and `RateLimit: "default";r=50;t=30`
//! (draft-ietf-httpapi-ratelimit-headers-10): 50 more at once, and the quota is whole again in 30 s. Those of the limit per
//! principal go only to that principal: who sends no credential, or a bad one, learns nothing of anybody's quota.
//!
//! Stack the limit per client inside TLS enforcement and outside authentication, the limit per principal between
//! authentication and the guard. Behind a proxy the client's address is the proxy's until an evidence layer outside is told to
//! trust it: `X-Forwarded-For` alone changes nothing.
//!
//! ```
//! use http::{Request, Response, StatusCode, header};
//! use portcullis::{Connection, rate_limit::{Quota, RateLimitLayer}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limit = RateLimitLayer::per_client(Quota::per_minute(1))?;
//! let service = limit.layer(service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new()))));
//!
//! let request = || {
//!     let mut request = Request::new(());
//!     request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
//!     request
//! };
//! let first = service.clone().oneshot(request()).await?;
//! assert_eq!(first.status(), StatusCode::OK);
//! assert_eq!(first.headers()["ratelimit"], r#""client";r=0;t=60"#);
//!
//! let second = service.clone().oneshot(request()).await?;
//! assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert!(second.headers().contains_key(header::RETRY_AFTER));
//! # Ok(())
//! # }
//! ```

mod budget;
mod by;
mod concurrency;
mod decide;
mod draw;
#[cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
mod gcra;
#[cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
mod headers;
mod key;
mod latest;
mod layer;
#[cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
mod memory;
mod mode;
mod plan;
#[cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
mod quota;
#[cfg(feature = "rate-limit-redis")]
mod redis;
mod running;
mod store;
#[cfg(feature = "throttle")]
#[cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
mod throttle;

#[cfg(feature = "rate-limit-redis")]
pub use self::redis::{Leases, RedisCounts, RedisLimits, RedisLimitsBuilder, RedisState, WhenAway};
pub(crate) use budget::Attempts;
pub use budget::FailureBudget;
#[cfg(feature = "stack")]
pub(crate) use by::CREDENTIAL;
pub use by::{LimitBy, LimitRequest, MAX_KEY_LEN, MAX_KEY_PARTS, OnMissingKey};
#[cfg(feature = "stack")]
pub(crate) use concurrency::Permit;
pub use concurrency::{Concurrency, ConcurrencyFuture, ConcurrencyLayer};
pub use draw::{Charge, Draw, MAX_CHARGES};
pub use headers::XRateLimitReset;
pub use key::{KeyPart, LimitKey, LimitScope, MAX_SCOPE_LEN};
pub use latest::LatestTime;
pub use layer::{LimitCounts, OnStoreError, RateLimitLayer};
pub use memory::MemoryLimits;
pub use plan::{Limits, Plans};
pub use quota::{MAX_POLICY_NAME_LEN, MAX_QUOTAS, Quota, Quotas};
pub use store::{RateLimitStore, Taken};
#[cfg(feature = "throttle")]
pub use throttle::Throttle;
