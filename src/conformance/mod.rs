//! One suite for each public trait: what every implementation must do, yours included.
//!
//! A suite panics with a sentence that says which rule of the trait's contract is broken.

mod policy_backend;

pub use policy_backend::{PolicyFixture, PolicyQuestion, policy_backend};
