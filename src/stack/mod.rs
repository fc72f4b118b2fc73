//! The whole stack as one service: ordered, shared, checked and fused.
//!
//! The stages may be named in any order; there is one order in which they run:
//!
//! | stage | set by | without it |
//! |---|---|---|
//! | audit | [`audit`](StackBuilder::audit) | no records |
//! | problem details | [`renderer`](StackBuilder::renderer) | always there |
//! | evidence: who is calling, over what | [`proxies`](StackBuilder::proxies) | the connection alone counts |
//! | TLS enforcement | [`tls`](StackBuilder::tls) | refused at build if there is authentication |
//! | limit per client | [`limit_clients`](StackBuilder::limit_clients) | no ceiling |
//! | authentication | [`authenticate`](StackBuilder::authenticate) | everybody is anonymous |
//! | limit per principal | [`limit_principals`](StackBuilder::limit_principals) | no quota |
//! | route table | [`route`](StackBuilder::route), [`fallback`](StackBuilder::fallback) | everything is refused |
//!
//! A request passes when every stage lets it pass; the table is closed, so a method and path that it does not name is
//! refused: `401` to the anonymous, `403` to others. So is a path that another line names when it is decoded, or with or
//! without a slash at its end: no rule holds for it, and the fallback does not either. A path that could mean another one by
//! its form (dot segments, `//`, `%2F`, `;`, `%00`, backslash), and a target that is no path, are refused with `400`.
//!
//! [`Stack::protect`] wraps the finished router: what is added to the router later is inside and therefore refused until
//! the table names it. The same value is a [`tower::Layer`]. tower-http's `CorsLayer` stands outside of it.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{
//!     Challenge, Connection, TlsVersion,
//!     authn::{Outcome, authenticate_fn},
//!     guard::{authenticated, public, require},
//!     stack::Stack,
//!     tls::TlsLayer,
//! };
//! use tower::{Service, service_fn};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let nobody = authenticate_fn(Challenge::new("Device", "factory")?, |_, _| Outcome::Absent);
//! let stack = Stack::builder()
//!     .tls(TlsLayer::require())
//!     .authenticate(nobody)
//!     .route("GET /health", public())
//!     .route("GET /orders", require(authenticated()))
//!     .build()?;
//! let inner = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(Full::from("hello"))));
//! let mut app = stack.protect(inner);
//!
//! for (path, status) in [("/health", 200), ("/orders", 401), ("/else", 401)] {
//!     let mut request = Request::get(path).body(())?;
//!     request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse()?, TlsVersion::Tls13));
//!     assert_eq!(app.call(request).await?.status(), status);
//! }
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```

mod agreement;
mod builder;
mod path;
mod patience;
mod review;
mod service;
mod stages;
mod table;

pub use builder::StackBuilder;
pub use review::{RouteList, RouteReport};
pub use service::{Protected, ResponseFuture, Stack};
#[cfg(feature = "config")]
pub(crate) use table::mistakes_of;
