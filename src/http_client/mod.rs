//! The HTTP client that fetches keys and asks other services, and the trait for one of your own.
//!
//! A client is given where one is needed: to `LiveKeys` (feature `jwt-remote`) for key sets, to
//! `policy::DecisionPoint` (feature `policy-remote`) for decisions, to `jwt::introspection::Introspection` (feature
//! `introspection`) for what opaque tokens are. Unless it is, each makes an [`HttpsFetch`] that trusts the certificate
//! authorities of the system.

#[cfg(any(feature = "introspection", feature = "jwt-remote", feature = "policy-remote"))]
mod endpoint;
mod fetch;
mod https;
#[cfg(any(feature = "introspection", feature = "policy-remote"))]
mod last_answer;
#[cfg(any(feature = "introspection", feature = "policy-remote"))]
mod post;

#[cfg(any(feature = "introspection", feature = "jwt-remote", feature = "policy-remote"))]
pub(crate) use endpoint::Endpoint;
#[cfg(any(feature = "introspection", feature = "jwt-remote"))]
pub(crate) use endpoint::UrlText;
pub use fetch::{FetchLimits, HttpFetch};
#[cfg(feature = "jwt-remote")]
pub(crate) use fetch::{nonsense, unavailable};
pub use https::{HttpsFetch, HttpsFetchBuilder};
#[cfg(any(feature = "introspection", feature = "policy-remote"))]
pub(crate) use last_answer::{LastAnswer, may_be_the_questions_fault};
#[cfg(any(feature = "introspection", feature = "policy-remote"))]
pub(crate) use post::{HttpClient, Media, bearer};
