//! Authentication and authorization for tower, axum and hyper services: composable layers that are closed unless opened.
//!
//! [`Stack`](stack::Stack) (feature `stack`) puts HTTPS enforcement, authentication by token or API key, limits, a closed
//! route table and an audit trail around a finished router, in the one order that is safe, and checks the whole at build.
//! Each layer also works alone, and each backend is a small trait to implement.
//!
//! ```
//! # #[cfg(all(feature = "stack", feature = "rbac", feature = "axum", feature = "api-key"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::get};
//! use portcullis::{
//!     Principal,
//!     api_key::{ApiKeyAuthenticator, MemoryKeyStore},
//!     guard::{public, require},
//!     policy::Rbac,
//!     rate_limit::Quota,
//!     stack::Stack,
//!     tls::TlsLayer,
//! };
//!
//! let policy = Rbac::from_toml(r#"
//!     version = "2026-11-01"
//!     permissions = ["orders:list"]
//!     [roles.clerk]
//!     grants = ["orders:list"]
//! "#)?;
//! let list = policy.permission("orders:list")?; // a typo fails here, at start
//!
//! let app: Router = Router::new()
//!     .route("/health", get(async || "ok"))
//!     .route("/orders", get(async |principal: Principal| format!("orders for {}", principal.subject())));
//!
//! let app = Stack::builder()
//!     .tls(TlsLayer::require())
//!     .limit_clients(Quota::per_second(1_000))
//!     .authenticate(ApiKeyAuthenticator::new(MemoryKeyStore::new()))
//!     .limit_principals(Quota::per_minute(600).burst(60))
//!     .policy(policy)
//!     .route("GET /health", public())
//!     .route("GET /orders", require(list))
//!     .build()?
//!     .protect(app); // wraps the finished router: what the table does not name is refused
//! # let _ = app;
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "stack", feature = "rbac", feature = "axum", feature = "api-key")))]
//! # fn main() {}
//! ```
//!
//! The [`manual`] (with the feature `full`: `cargo doc --features full --open`) explains the stack and its order, each layer, the threat
//! model, and how to write your own backends.
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `stack` | yes | [`stack`]; implies `tls`, `guard`, `rate-limit`, `audit`, `lifetime` |
//! | `tls` | yes | [`tls`]: HTTPS enforcement; [`evidence`]: who is calling, trusted proxies |
//! | `tls-listener` | | `tls::TlsListener`: a rustls listener for `axum::serve` and hyper; the PROXY protocol |
//! | `tls-self-signed` | | a certificate for development; implies `tls-listener` |
//! | `jwt` | yes | [`jwt`]: verified tokens; cryptography by aws-lc-rs |
//! | `jwt-pure-rust` | | [`jwt`] without C: cryptography by RustCrypto, unless `jwt` is on too |
//! | `dpop` | | `jwt::bound::Dpop`: tokens bound to their owner's key (RFC 9449); implies `jwt` |
//! | `dpop-redis` | | `jwt::bound::RedisReplays`: proofs that several processes remember together, in Redis or Valkey; implies `dpop` |
//! | `http-client` | | [`http_client`]: the client that fetches keys and asks other services |
//! | `jwt-remote` | | `jwt::keys::LiveKeys`: key sets from files, URLs and discovery; implies `jwt`, `http-client` |
//! | `introspection` | | [`jwt::introspection`]: opaque tokens, of which their issuer is asked (RFC 7662); implies `jwt`, `http-client` |
//! | `revocation-admin` | | [`revocation_admin`]: a router that revokes tokens; back-channel logout; implies `jwt`, `guard`, `axum` |
//! | `revocation-sqlite` | | `revocation::SqliteRevocations`: revocations in a file; brings SQLite with it; implies `jwt`; asks for Rust 1.94 |
//! | `revocation-redis` | | `revocation::RedisRevocations`: revocations that several processes share, in Redis or Valkey; implies `jwt` |
//! | `revocation-postgres` | | `revocation::PostgresRevocations`: the same in PostgreSQL; implies `jwt`; asks for Rust 1.94 |
//! | `client-cert` | | [`client_cert`]: identity by client certificate, from the connection or a trusted proxy |
//! | `api-key` | yes | [`api_key`]: keys, hashed records, stores |
//! | `api-key-sqlite` | | `api_key::SqliteKeyStore`: keys in a file; brings SQLite with it; asks for Rust 1.94 |
//! | `api-key-postgres` | | `api_key::PostgresKeyStore`: keys in PostgreSQL; asks for Rust 1.94 |
//! | `api-key-admin` | | [`key_admin`]: a router to administer keys; implies `api-key`, `guard`, `axum` |
//! | `api-key-file` | | `api_key::FileKeyStore`: keys in a TOML or JSON file |
//! | `api-key-cached` | | `api_key::Cached`: a cache before a slow store |
//! | `guard` | yes | [`guard`]: requirements on routes, the authorizer |
//! | `rbac` | yes | `policy::Rbac`: roles to permissions from TOML and JSON, read again by `reload` or `watch` |
//! | `policy-files` | yes | `policy::test_table`, `guard::RouteRules`, and what reloads policies; `rbac` implies it |
//! | `policy-cached` | | `policy::Cached`: a cache before a slow policy |
//! | `policy-shadow` | | `policy::Shadow`: a second policy tried beside the one that counts |
//! | `policy-remote` | | `policy::Opa`, `policy::AuthZen`: decision points elsewhere, asked over HTTP; implies `http-client` |
//! | `cedar` | | `policy::Cedar`: policies in Cedar, checked against a schema, reloaded in the same way |
//! | `rego` | | `policy::Rego`: policies in Rego, evaluated in the process, reloaded in the same way; not tried with a Rust older than 1.95 |
//! | `rate-limit` | yes | [`rate_limit`]: quotas and concurrency per client, principal, plan and more |
//! | `rate-limit-redis` | | `rate_limit::RedisLimits`: limits that several processes share, in Redis or Valkey; implies `rate-limit` |
//! | `throttle` | | `rate_limit::Throttle`: requests over the quota wait their turn; implies `rate-limit` |
//! | `lifetime` | yes | [`lifetime`]: event streams and the answers of gRPC calls end with the credential; WebSockets, and what a gRPC client goes on sending, where the handler asks |
//! | `audit` | yes | [`audit`]: one record for each request |
//! | `audit-json-lines`, `audit-tracing` | yes | where records go |
//! | `audit-chain` | | [`audit::chain`]: lines that show whether one was altered; signed checkpoints |
//! | `audit-pseudonyms` | | keyed hashes in the place of names and addresses |
//! | `audit-metrics` | | `audit::MetricsSink`: counters and histograms through the crate `metrics` |
//! | `health` | | [`health`]: which sources are ready, stale or failing; with `axum`, routes for probes |
//! | `config` | | [`config`]: issuers, key stores, policy, quotas, proxies and sinks from a TOML file |
//! | `axum` | yes | [`axum`]: extractors, `serve` |
//! | `tonic` | | [`tonic`]: the principal in gRPC requests, refusals as a `Status`, a stack around a tonic server |
//! | `tracing` | yes | the crate's own notices to operators |
//! | `full` | | all of the above but `jwt-pure-rust` |
//! | `testing` | | [`testing`]: for test code only |
//! | `testing-network` | | the attack suite against a service that runs; implies `testing` |
//! | `conformance` | | [`conformance`]: one suite for each public trait; implies `testing` |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "the core serves layers that may be off"))]
#![cfg_attr(
    not(feature = "full"),
    allow(rustdoc::broken_intra_doc_links, reason = "links lead to features that are off")
)]

mod attempt;
pub mod authn;
pub mod body;
mod challenge;
mod client;
mod clock;
mod context;
mod credential;
mod error;
pub mod event;
#[cfg(any(
    feature = "api-key-file",
    feature = "api-key-sqlite",
    feature = "audit-json-lines",
    feature = "config",
    feature = "revocation-sqlite"
))]
mod file;
#[cfg(any(feature = "introspection", feature = "policy-cached"))]
mod flight;
pub mod gate;
mod grpc;
mod head;
mod log;
#[cfg(any(
    feature = "api-key-file",
    feature = "lifetime",
    feature = "policy-files",
    feature = "policy-shadow",
    feature = "stack",
    feature = "tls-listener"
))]
mod lookout;
#[cfg(any(
    feature = "api-key-postgres",
    feature = "dpop-redis",
    feature = "http-client",
    feature = "rate-limit-redis",
    feature = "revocation-postgres",
    feature = "revocation-redis"
))]
mod loopback;
mod mention;
#[cfg(any(feature = "rbac", feature = "config"))]
mod near;
mod now;
pub mod policy;
mod principal;
pub mod problem;
#[cfg(any(feature = "dpop-redis", feature = "rate-limit-redis", feature = "revocation-redis"))]
mod redis;
mod rejection;
#[cfg(any(
    feature = "api-key-postgres",
    feature = "dpop-redis",
    feature = "rate-limit-redis",
    feature = "revocation-postgres",
    feature = "revocation-redis"
))]
mod retry;
#[cfg(any(
    feature = "dpop-redis",
    feature = "http-client",
    feature = "rate-limit-redis",
    feature = "revocation-redis"
))]
mod roots;
mod secret;
#[cfg(any(feature = "guard", feature = "rate-limit"))]
mod shadow;
#[cfg(any(
    feature = "api-key-postgres",
    feature = "api-key-sqlite",
    feature = "revocation-postgres",
    feature = "revocation-sqlite"
))]
mod sql;
#[cfg(any(feature = "api-key", feature = "cedar", all(feature = "guard", feature = "policy-files")))]
mod strict;
#[cfg(any(feature = "health", feature = "revocation-admin", feature = "stack"))]
mod template;
pub mod trail;
mod voucher;

#[cfg(feature = "api-key")]
pub mod api_key;
#[cfg(feature = "audit")]
pub mod audit;
#[cfg(feature = "client-cert")]
pub mod client_cert;
#[cfg(feature = "tls")]
pub mod evidence;
#[cfg(feature = "guard")]
pub mod guard;
#[cfg(feature = "http-client")]
pub mod http_client;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub mod jwt;
#[cfg(feature = "lifetime")]
pub mod lifetime;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub mod revocation;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(any(feature = "api-key-admin", feature = "revocation-admin"))]
mod admin;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "config")]
pub mod config;
mod cors;
#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "api-key-admin")]
pub mod key_admin;
#[cfg(feature = "revocation-admin")]
pub mod revocation_admin;
#[cfg(feature = "stack")]
pub mod stack;
#[cfg(feature = "tonic")]
pub mod tonic;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod testing;

// Its examples use several features together.
#[cfg(all(any(doc, doctest), feature = "full"))]
pub mod manual;

pub use attempt::Attempt;
pub use challenge::{Challenge, Challenges};
pub use client::{AddressSource, ClientCertificate, ClientInfo, Connection, TlsVersion};
pub use clock::{Clock, Instants, SystemClock};
pub use context::{RequestId, SecurityContext};
pub use cors::EXPOSED_HEADERS;
pub use credential::{Credential, MAX_CREDENTIAL_LEN};
pub use error::{ConfigError, StoreError, StoreErrorKind};
pub use head::RequestHead;
pub use now::Now;
pub use principal::{Confirmation, Principal, PrincipalBuilder, PrincipalKind, Slot, Texts};
#[cfg(any(feature = "dpop-redis", feature = "rate-limit-redis", feature = "revocation-redis"))]
pub use redis::RedisServer;
pub use rejection::{Rejection, RejectionKind};
pub use secret::Secret;
#[cfg(any(feature = "guard", feature = "rate-limit"))]
pub use shadow::ShadowMode;
pub use voucher::{Ended, Voucher};
