//! What the routers of administration share: who asks, what they send, and what they are told where it is not done.

mod body;
mod caller;
mod fault;
mod finish;
mod moment;

/// The longest body, in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;

#[cfg(feature = "revocation-admin")]
pub(crate) use self::{body::is_of_type, moment::Moment};
pub(crate) use self::{caller::Caller, fault::Fault, finish::finished};
