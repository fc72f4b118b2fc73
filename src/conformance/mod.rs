//! One suite for each public trait: what every implementation must do, yours included.
//!
//! A suite panics with a sentence that says which rule of the trait's contract is broken.

#[cfg(feature = "audit")]
mod audit_sink;

#[cfg(feature = "audit")]
pub use audit_sink::audit_sink;
