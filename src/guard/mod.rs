//! Guard.

mod authorizer;
mod evaluate;
mod layer;
mod requirement;
mod rule;

pub use authorizer::Authorizer;
pub use layer::{GuardLayer, require};
pub use requirement::{Nodes, Requirement, Requirements, all, any, authenticated, check, not, policy, role, scope};
pub use rule::{Rule, deny, public};
