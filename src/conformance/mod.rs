//! One suite for each public trait: what every implementation must do, yours included.
//!
//! A suite panics with a sentence that says which rule of the trait's contract is broken.

#[cfg(feature = "api-key")]
mod api_key_store;
#[cfg(feature = "audit")]
mod audit_sink;
mod authenticator;
#[cfg(feature = "cedar")]
mod entity_source;
#[cfg(feature = "jwt")]
mod key_source;
mod policy_backend;
#[cfg(feature = "rate-limit")]
mod rate_limit_store;
#[cfg(feature = "dpop")]
mod replay_store;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
mod revocation_store;
#[cfg(any(feature = "api-key", feature = "rate-limit", feature = "dpop"))]
mod threads;
#[cfg(any(feature = "audit", feature = "rate-limit", feature = "dpop"))]
mod together;
mod voucher;

#[cfg(feature = "api-key")]
pub use api_key_store::{api_key_store, read_only_api_key_store};
#[cfg(feature = "audit")]
pub use audit_sink::{audit_sink, audit_sink_that_fails, audit_sink_that_is_full};
pub use authenticator::{AuthenticatorFixture, authenticator};
#[cfg(feature = "cedar")]
pub use entity_source::entity_source;
#[cfg(feature = "jwt")]
pub use key_source::{key_source, key_source_that_loses_its_origin, key_source_with_origin, key_source_without_keys};
pub use policy_backend::{PolicyFixture, PolicyQuestion, policy_backend};
#[cfg(feature = "rate-limit")]
pub use rate_limit_store::{rate_limit_store, rate_limit_store_that_is_full, rate_limit_store_that_is_shared};
#[cfg(feature = "dpop")]
pub use replay_store::{replay_store, replay_store_that_is_full, replay_store_that_is_shared};
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub use revocation_store::{revocation_store, revocation_store_that_is_shared};
pub use voucher::voucher;
