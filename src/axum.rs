//! For axum: extractors, and a `serve` that tells the layers who is calling.
//!
//! | extractor | gives | refuses |
//! |---|---|---|
//! | [`Principal`] | who acts | `401` to the anonymous |
//! | `Option<Principal>` | who acts, if anybody | |
//! | [`Claims<T>`] | the token's claims as a type of your own | `401` to the anonymous, `403` if they do not fit |
//! | [`Authorizer`](crate::guard::Authorizer) | the question that needs the data | `401` to the anonymous |
//!
//! All of them refuse with `500` when no authentication layer ran outside the handler; the log says so.

use std::{convert::Infallible, ops::Deref, sync::Arc};

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
use http::{Request, request::Parts};
use serde::de::DeserializeOwned;
use tower::Service;

use crate::{
    client::Connection,
    clock::{Clock, SystemClock},
    context::{SecurityContext, Stage, misordered},
    gate::report,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

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

/// The context of a request that went through authentication.
fn authenticated_context(parts: &Parts) -> Result<&SecurityContext, Rejection> {
    const NO_AUTHENTICATION: &str = "a handler asks for the principal, and no authentication ran outside it: wrap the router with a Stack or an AuthnLayer";
    match SecurityContext::of(&parts.extensions) {
        Some(context) if context.lock().has_run(Stage::Authentication) => Ok(context),
        context => {
            let rejection = misordered(NO_AUTHENTICATION);
            report(Stage::Guard, &rejection, context.map_or_else(|| SystemClock.now(), SecurityContext::at));
            Err(rejection)
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        authenticated_context(parts)?.lock().authenticated().cloned()
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(authenticated_context(parts)?.principal())
    }
}

#[cfg(feature = "guard")]
impl<S: Sync> FromRequestParts<S> for crate::guard::Authorizer {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        authenticated_context(parts)?;
        Self::of(&parts.extensions)
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
        let principal = authenticated_context(parts)?.lock().authenticated().cloned()?;
        match principal.claims_shared() {
            Ok(claims) => Ok(Self(claims)),
            Err(_) => {
                Err(Rejection::new(RejectionKind::Forbidden, "the claims do not fit the type that the handler reads"))
            }
        }
    }
}
