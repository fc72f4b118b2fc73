//! Bodies for refusals: problem details (RFC 9457).
//!
//! The layers refuse with status and headers alone, and leave the [`Rejection`](crate::Rejection) in the response
//! extensions. [`ProblemLayer`], outside of them, writes the body; a [`RejectionRenderer`] of your own may write another.
//! Responses without a rejection, or with a body, pass untouched. Replies to HEAD get no body (RFC 9110 §9.3.2).
//!
//! ```
//! use portcullis::{Rejection, RejectionKind, problem::ProblemLayer};
//! use tower::{Layer, Service, service_fn};
//! use http_body_util::Full;
//!
//! # async fn example() -> Result<(), std::convert::Infallible> {
//! let refuse = service_fn(async |_: http::Request<()>| {
//!     let rejection = Rejection::new(RejectionKind::Forbidden, "order 42 is not theirs");
//!     Ok::<_, std::convert::Infallible>(rejection.to_response::<Full<bytes::Bytes>>())
//! });
//! let response = ProblemLayer::new().layer(refuse).call(http::Request::new(())).await?;
//! assert_eq!(response.headers()["content-type"], "application/problem+json");
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```

mod layer;
mod render;

#[cfg(feature = "stack")]
pub(crate) use layer::render_rejection;
pub use layer::{Problem, ProblemLayer, ResponseFuture};
#[cfg(feature = "stack")]
pub(crate) use render::{NotFoundApart, render_into};
pub use render::{ProblemDetails, RejectionRenderer, Rendered, Request as RenderRequest};
