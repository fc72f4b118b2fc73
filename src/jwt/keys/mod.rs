//! TODO

#[cfg(feature = "jwt-remote")]
mod budget;
#[cfg(feature = "jwt-remote")]
mod cycle;
#[cfg(feature = "jwt-remote")]
mod discovery;
#[cfg(feature = "jwt-remote")]
mod endpoint;
#[cfg(feature = "jwt-remote")]
mod file;
#[cfg(feature = "jwt-remote")]
mod http;
#[cfg(feature = "jwt-remote")]
mod https;
#[cfg(feature = "jwt-remote")]
mod live;
#[cfg(feature = "jwt-remote")]
mod origin;
mod source;

#[cfg(feature = "jwt-remote")]
pub use http::{FetchLimits, HttpFetch};
#[cfg(feature = "jwt-remote")]
pub use https::HttpsFetch;
#[cfg(feature = "jwt-remote")]
pub use live::{LiveKeys, LiveKeysBuilder};
#[cfg(feature = "jwt-remote")]
pub use origin::{Fetched, JwkSource};
pub(super) use source::Keys;
pub use source::{KeyHealth, KeySnapshot, KeySource, KeysUnavailable, Refresh};
