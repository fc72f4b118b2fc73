//! The HTTP client that fetches keys and asks other services, and the trait for one of your own.
//!
//! A client is given where one is needed: to `LiveKeys` (feature `jwt-remote`) for key sets. Unless it is, each makes an
//! [`HttpsFetch`] that trusts the certificate authorities of the system.

mod endpoint;
mod fetch;
mod https;
#[cfg(feature = "policy-remote")]
#[cfg_attr(not(test), expect(dead_code, reason = "for what asks by POST"))]
mod post;

pub(crate) use endpoint::Endpoint;
pub use fetch::{FetchLimits, HttpFetch};
pub(crate) use fetch::{nonsense, unavailable};
pub use https::{HttpsFetch, HttpsFetchBuilder};
#[cfg(feature = "policy-remote")]
#[expect(unused_imports, reason = "for what asks by POST")]
pub(crate) use post::{HttpClient, Media, bearer};
