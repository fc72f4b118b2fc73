//! Bodies for refusals: problem details (RFC 9457).
//!
//! The layers refuse with status and headers alone, and leave the [`Rejection`](crate::Rejection) in the response
//! extensions. [`ProblemLayer`], outside of them, writes the body; a [`RejectionRenderer`] of your own may write another.
//! Responses without a rejection, or with a body, pass untouched. Replies to HEAD get no body (RFC 9110 §9.3.2).
//!
//! A browser that navigates to a page gets a problem document as well, for it takes everything. [`LogInRedirect`] sends it to a log-in page
//! in place of a `401`, and a renderer of your own can write a page: [`RenderRequest::navigation`] tells such a request. The
//! [recipes](crate::manual::recipes) have the whole of a browser application.
//!
//! A gRPC call (a POST of `application/grpc` over HTTP/2 or newer, or with `TE: trailers`) is answered in its own way, whatever the renderer: status 200,
//! `grpc-status` and `grpc-message`, no body.
//!
//! `grpc-status-details-bin` has a `google.rpc.ErrorInfo` with the kind's code in capitals as `reason` and `portcullis` as
//! `domain`, and a `google.rpc.RetryInfo` where waiting helps (both need the feature `rate-limit`). What is not there, or hidden, has
//! `grpc-status` alone, as tonic answers to a method that it does not have.
//!
//! | refusal | `grpc-status` |
//! |---|---|
//! | malformed | `INVALID_ARGUMENT` (3) |
//! | no credential, a bad one, one that is not enough | `UNAUTHENTICATED` (16) |
//! | not allowed | `PERMISSION_DENIED` (7) |
//! | not there, hidden, or a path that could mean another one | `UNIMPLEMENTED` (12), as a server answers to a method that it does not have |
//! | over a limit | `RESOURCE_EXHAUSTED` (8), with `grpc-retry-pushback-ms` |
//! | plain HTTP, another host's | `FAILED_PRECONDITION` (9) |
//! | set up wrongly | `INTERNAL` (13) |
//! | cannot decide, too early | `UNAVAILABLE` (14) |
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
mod log_in;
mod render;

#[cfg(feature = "stack")]
pub(crate) use layer::render_rejection;
pub use layer::{Problem, ProblemLayer, ResponseFuture};
pub use log_in::LogInRedirect;
#[cfg(feature = "stack")]
pub(crate) use render::{NotFoundApart, render_into};
pub use render::{ProblemDetails, RejectionRenderer, Rendered, Request as RenderRequest};
