//! Authentication: who is this?
//!
//! An [`Authenticator`] looks at the request head and says [`Absent`](Outcome::Absent), [`Verified`](Outcome::Verified) or
//! [`Refused`](Outcome::Refused), or for a bad cookie [`RefusedIfNeeded`](Outcome::RefusedIfNeeded). [`AuthnLayer`] puts the identity into the [`SecurityContext`](crate::SecurityContext).
//!
//! A request passes the layer when
//! 1. TLS enforcement ran outside (or `dangerous_plain_http` was said),
//! 2. exactly one identity was verified, or none was presented, or a bad cookie alone, and `allow_anonymous` was said.
//!
//! | status | when |
//! |---|---|
//! | `400` | a credential header stands twice or is malformed; two credentials for one slot; with `error="invalid_request"` where tokens are offered and one may have come in `Authorization` (RFC 6750 §3.1) |
//! | `401` | no credential; a bad one; an `Authorization` that no authenticator claims (RFC 9110 §15.5.2), with `error="invalid_token"` if its scheme is one of tokens that is offered |
//! | `500` | TLS enforcement did not run outside, or the authenticator offers no challenge, or two of them would [disclose](Authenticator::discloses) the credential; the log says so |
//! | `503` | a backend that must be asked did not answer |
//!
//! Stack it inside TLS enforcement and the limit per client, outside the limit per principal and the guard.

mod authenticator;
mod claim;
mod combine;
mod layer;

pub use authenticator::{Authenticator, FnAuthenticator, Identity, Outcome, authenticate_fn};
pub use claim::Claim;
pub use combine::{Both, Choice, OneOf, both, one_of};
pub use layer::AuthnLayer;
