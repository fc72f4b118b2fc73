//! One suite for each public trait: what every implementation must do, yours included.
//!
//! A suite panics with a sentence that says which rule of the trait's contract is broken.

#[cfg(feature = "rate-limit")]
mod rate_limit_store;

#[cfg(feature = "rate-limit")]
pub use rate_limit_store::rate_limit_store;
