//! For axum: extractors, and a `serve` that tells the layers who is calling.
//!
//! | extractor | gives | refuses |
//! |---|---|---|
//! | [`Principal`] | who acts | `401` to the anonymous |
//! | `Option<Principal>` | who acts, if anybody | |
//! | [`Claims<T>`] | the token's claims as a type of your own | `401` to the anonymous, `403` if they do not fit |
//! | [`Authorizer`](crate::guard::Authorizer) | the question that needs the data | `401` to the anonymous |
//! | [`Lifetime`](crate::lifetime::Lifetime) | when a long exchange must end | `401` to the anonymous |
//!
//! [`Routes`] builds a router and keeps the list of its routes, for the report that a stack gives at start.
//!
//! All of them refuse with `500` when no authentication layer ran outside the handler; the log says so.

use std::{convert::Infallible, ops::Deref, sync::Arc};

#[cfg(feature = "stack")]
use ::axum::{
    Router,
    handler::Handler,
    routing::{self, MethodFilter, MethodRouter},
};
use ::axum::{
    ServiceExt,
    body::Body,
    extract::{
        ConnectInfo, FromRequestParts, OptionalFromRequestParts,
        connect_info::{Connected, IntoMakeServiceWithConnectInfo},
    },
    middleware::AddExtension,
    response::{IntoResponse, Response},
    serve::{IncomingStream, Listener, Serve},
};
#[cfg(feature = "stack")]
use http::Method;
use http::{Request, request::Parts};
use serde::de::DeserializeOwned;
use tower::Service;

#[cfg(any(feature = "health", feature = "revocation-admin"))]
use crate::template::has_old_parameter;
use crate::{
    client::Connection,
    context::authenticated_context,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};
#[cfg(feature = "stack")]
use crate::{error::ConfigError, stack::RouteList};

/// Refuses a path that is not one fixed path: axum panics at some of the others, and one route needs no parameter.
#[cfg(any(feature = "health", feature = "revocation-admin"))]
pub(crate) fn fixed_path(setting: &str, path: &str) -> Result<(), crate::error::ConfigError> {
    let is_fixed = path.starts_with('/') && !path.contains(['{', '}', '?', '#']) && !has_old_parameter(path);
    let problem = "must begin with / and have no parameter, wildcard, query or fragment";
    if is_fixed { Ok(()) } else { Err(crate::error::ConfigError::new(setting, format!("{path:?}"), problem)) }
}

/// Serves an application and puts the [`Connection`] of each request into its extensions.
///
/// Works with tokio's `TcpListener` and with [`TlsListener`](crate::tls::TlsListener) (feature `tls-listener`). What it
/// returns is axum's own [`Serve`], so `with_graceful_shutdown` is there.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// # async fn example() -> std::io::Result<()> {
/// let app = Router::new().route("/health", get(async || "ok"));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// portcullis::axum::serve(listener, app).await
/// # }
/// ```
///
/// A `TcpListener` leaves Nagle's algorithm on, which can keep the first messages of a stream back for 40 ms; `TlsListener` turns it off.
/// Where that matters, axum's own `serve` takes a listener with other options, and the layers read the peer's address as well:
///
/// ```no_run
/// use std::net::SocketAddr;
///
/// use axum::{Router, routing::get, serve::ListenerExt};
///
/// # async fn example() -> std::io::Result<()> {
/// let app = Router::new().route("/health", get(async || "ok"));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?.tap_io(|stream| {
///     let _ = stream.set_nodelay(true);
/// });
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
/// # }
/// ```
pub fn serve<L, S>(
    listener: L,
    app: S,
) -> Serve<L, IntoMakeServiceWithConnectInfo<S, Connection>, AddExtension<S, ConnectInfo<Connection>>>
where
    L: Listener,
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    Connection: for<'a> Connected<IncomingStream<'a, L>>,
{
    ::axum::serve(listener, app.into_make_service_with_connect_info::<Connection>())
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.to_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        authenticated_context(&parts.extensions)?.with(|envelope| envelope.authenticated().cloned())
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(authenticated_context(&parts.extensions)?.principal())
    }
}

#[cfg(feature = "lifetime")]
impl<S: Sync> FromRequestParts<S> for crate::lifetime::Lifetime {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::of(&parts.extensions)
    }
}

#[cfg(feature = "guard")]
impl<S: Sync> FromRequestParts<S> for crate::guard::Authorizer {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        authenticated_context(&parts.extensions)?;
        let matched = parts.extensions.get::<::axum::extract::MatchedPath>().map(::axum::extract::MatchedPath::as_str);
        Ok(Self::of(&parts.extensions)?.for_method(&parts.method).on_route(matched))
    }
}

/// The claims of the principal's token, read into a type of your own: once for each token, not for each request, if the
/// authenticator remembers its principals, as the JWT authenticator does. See [`Principal::claims_shared`].
///
/// ```
/// use portcullis::axum::Claims;
///
/// #[derive(serde::Deserialize)]
/// struct Profile {
///     email: String,
/// }
///
/// async fn mail(Claims(profile): Claims<Profile>) -> String {
///     format!("mail goes to {}", profile.email)
/// }
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper that handlers take apart in their signature")]
pub struct Claims<T>(pub Arc<T>);

impl<T> Clone for Claims<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Claims<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static, S: Sync> FromRequestParts<S> for Claims<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let principal = authenticated_context(&parts.extensions)?.with(|envelope| envelope.authenticated().cloned())?;
        match principal.claims_shared() {
            Ok(claims) => Ok(Self(claims)),
            Err(_) => {
                Err(Rejection::new(RejectionKind::Forbidden, "the claims do not fit the type that the handler reads"))
            }
        }
    }
}

/// Builds a router, and keeps the list of its routes, which a router cannot tell: for the
/// [report](crate::stack::Stack::report) of routes without a rule and rules without a route.
///
/// ```
/// use axum::Router;
/// use portcullis::{axum::Routes, guard::public, stack::Stack};
///
/// let (router, routes): (Router, _) = Routes::new()
///     .route("GET /health", async || "ok")
///     .route("GET /orders", async || "orders")
///     .build()?;
/// let stack = Stack::builder().route("GET /health", public()).build()?;
/// let report = stack.report(&routes);
/// report.log();
/// assert_eq!(report.routes_without_rule(), ["GET /orders"]);
/// let app = stack.protect(router);
/// # let _ = app;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[cfg(feature = "stack")]
#[must_use]
#[derive(Debug, Default)]
pub struct Routes<S = ()> {
    routes: Vec<(String, MethodRouter<S>)>,
    failed: Option<ConfigError>,
}

#[cfg(feature = "stack")]
impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    pub const fn new() -> Self {
        Self { routes: Vec::new(), failed: None }
    }

    /// Adds a route, named as in the stack's table: `DELETE /orders/{id}`, or `ANY /files/{*path}`. A route of GET answers
    /// HEAD as well.
    pub fn route<H: Handler<T, S>, T: 'static>(mut self, line: impl Into<String>, handler: H) -> Self {
        let line = line.into();
        let method = line.split(' ').next().unwrap_or_default();
        let filter = match method {
            "ANY" => Ok(routing::any(handler)),
            method => Method::from_bytes(method.as_bytes())
                .ok()
                .and_then(|method| MethodFilter::try_from(method).ok())
                .map(|filter| routing::on(filter, handler))
                .ok_or_else(|| {
                    ConfigError::new("route", format!("{line:?}"), "must start with a method that axum knows")
                }),
        };
        match filter {
            Ok(router) => self.routes.push((line, router)),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Adds routes of another part of the application, all of them below a prefix such as `/api`. Their handlers see the
    /// whole path.
    pub fn nest(mut self, prefix: &str, routes: Self) -> Self {
        let below = |line: String| match line.split_once(' ') {
            Some((method, "/")) => format!("{method} {prefix}"),
            Some((method, path)) => format!("{method} {prefix}{path}"),
            None => line,
        };
        self.routes.extend(routes.routes.into_iter().map(|(line, router)| (below(line), router)));
        self.failed = self.failed.or(routes.failed);
        self
    }

    /// Finishes the router and the list. What is not a route, such as a fallback or a state, is added to the router.
    ///
    /// # Errors
    /// If a line is not of the form that a stack's table takes, stands twice, or contradicts another.
    pub fn build(self) -> Result<(Router<S>, RouteList), ConfigError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let list = RouteList::from_lines(self.routes.iter().map(|(line, _)| line.as_str()))?;
        let router =
            self.routes.into_iter().fold(Router::new(), |router, (line, handlers)| match line.split_once(' ') {
                Some((_, path)) => router.route(path, handlers),
                None => router,
            });
        Ok((router, list))
    }
}

#[cfg(all(test, any(feature = "health", feature = "revocation-admin")))]
mod path_tests {
    use super::*;

    #[test]
    fn axum_takes_every_path_that_is_fixed() {
        for path in ["/", "/health", "/a/b/", "//", "/a:b", "/a*"] {
            fixed_path("path", path).unwrap();
            let _: ::axum::Router = ::axum::Router::new().route(path, ::axum::routing::get(async || ()));
        }
        for path in ["", "health", "/{", "/}", "/{name}", "/{*rest}", "/:name", "/a/*rest", "/a?b", "/a#b"] {
            let error = fixed_path("health path", path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("health path: {path:?} must begin with /")), "{error}");
        }
    }
}
