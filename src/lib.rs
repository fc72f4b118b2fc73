//! Authentication and authorization for tower services, as layers.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod authn;
pub mod body;
mod challenge;
mod client;
mod clock;
mod context;
mod credential;
mod error;
pub mod gate;
mod head;
mod log;
mod now;
pub mod policy;
mod principal;
pub mod problem;
mod rejection;
mod secret;
pub mod trail;

#[cfg(feature = "api-key")]
pub mod api_key;
#[cfg(feature = "audit")]
pub mod audit;
#[cfg(feature = "tls")]
pub mod evidence;
#[cfg(feature = "guard")]
pub mod guard;
#[cfg(feature = "jwt")]
pub mod jwt;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod testing;

pub use challenge::{Challenge, Challenges};
pub use client::{AddressSource, ClientInfo, Connection, TlsVersion};
pub use clock::{Clock, Instants, SystemClock};
pub use context::{RequestId, SecurityContext};
pub use credential::{Credential, MAX_CREDENTIAL_LEN};
pub use error::{ConfigError, StoreError, StoreErrorKind};
pub use head::RequestHead;
pub use now::Now;
pub use principal::{Principal, PrincipalBuilder, PrincipalKind, Slot};
pub use rejection::{Rejection, RejectionKind};
pub use secret::Secret;
