//! Policies that are decided elsewhere: OPA over its data API, and whatever speaks AuthZEN.

mod authzen;
mod opa;
mod point;
mod question;

pub use authzen::{AuthZen, AuthZenBuilder};
pub use opa::{Opa, OpaBuilder};
pub use point::{DecisionPoint, PointHealth};
