//! TLS enforcement: plain HTTP stops here.
//!
//! A request passes [`TlsLayer`] when
//! 1. the client speaks HTTPS: this process terminated TLS, or a trusted proxy says that it did
//!    (see [`evidence`](crate::evidence)), in at least the [minimum version](TlsLayer::minimum_version) where that is
//!    known; or
//! 2. its method and path are [exempt](TlsLayer::exempt); its credentials are removed then; or
//! 3. it comes from this machine and
//!    [`dangerous_plain_http_on_loopback`](TlsLayer::dangerous_plain_http_on_loopback) was said.
//!
//! | status | when |
//! |---|---|
//! | `308` | plain HTTP, `GET` or `HEAD`, for one of the [redirect hosts](TlsLayer::redirect_to) (RFC 9110 §15.4.9) |
//! | `403` | plain HTTP otherwise (OWASP ASVS 5.0, 4.1.2); a TLS version below the minimum. Kind [`PlainHttp`](crate::RejectionKind::PlainHttp) |
//! | `400` | no host, two, or none by grammar, where the host counts |
//! | `421` | a host that is not [answered for](TlsLayer::hosts), or is not the one of the handshake (RFC 9110 §15.5.20) |
//! | `425` | `Early-Data`, and the method is not safe or there is a `DPoP` field (RFC 8470 §5.2) |
//! | `500` | no peer address in the request; the layer stands inside authentication or a limit, or twice |
//!
//! A credential that came over plain HTTP is an event of the record, refused or redirected: its field stands in
//! `exposed_credentials`, with the flag `credential_over_plain_http`; on an exempt path: `credential_ignored_over_plain_http`. It has been on the wire and
//! should be replaced.
//!
//! Stack it inside the evidence layer, outside limits and authentication. It works without an evidence layer; then the
//! connection alone counts. Wrap the finished router: inside axum's `nest` the path lacks its beginning, for exemptions
//! and for redirects.
//!
//! # Example
//! ```
//! use portcullis::{Connection, TlsVersion, tls::{Hsts, TlsLayer}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handler = service_fn(|_: http::Request<()>| async {
//!     Ok::<_, std::convert::Infallible>(http::Response::new(String::from("orders")))
//! });
//! let service = TlsLayer::require().hsts(Hsts::one_year()).layer(handler);
//!
//! let mut request = http::Request::get("https://api.example.com/orders").body(())?;
//! request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse()?, TlsVersion::Tls13));
//! let response = service.clone().oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
//!
//! let mut request = http::Request::get("http://api.example.com/orders").body(())?;
//! request.extensions_mut().insert(Connection::plain("198.51.100.7:52101".parse()?));
//! assert_eq!(service.oneshot(request).await?.status(), 403);
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    feature = "tls-listener",
    doc = r#"
# Terminating TLS in this process

[`TlsListener`] is a listener for `axum::serve`; the peer address, the TLS version, the server name and the client's
certificate arrive in each request:

```no_run
use axum::{Router, routing::get};
use portcullis::{Connection, tls::{ServerCertificate, TlsLayer, TlsListener}};

# async fn serve() -> Result<(), Box<dyn std::error::Error>> {
let certificate = ServerCertificate::from_pem_files("server.crt", "server.key")?;
let listener = TlsListener::bind("0.0.0.0:8443", certificate).await?;
let app = Router::new().route("/", get(|| async { "hello" })).layer(TlsLayer::require());
axum::serve(listener, app.into_make_service_with_connect_info::<Connection>()).await?;
# Ok(())
# }
```

and for hyper, where each request of a connection gets a clone of its facts:

```no_run
use hyper_util::{rt::{TokioExecutor, TokioIo}, server::conn::auto, service::TowerToHyperService};
use portcullis::tls::{ServerCertificate, TlsLayer, TlsListener};
use tower::{Layer, ServiceExt, service_fn};

# async fn serve() -> Result<(), Box<dyn std::error::Error>> {
let certificate = ServerCertificate::from_pem_files("server.crt", "server.key")?;
let mut listener = TlsListener::bind("0.0.0.0:8443", certificate).await?.with_http2();
let app = TlsLayer::require().layer(service_fn(async |_: http::Request<hyper::body::Incoming>| {
    Ok::<_, std::convert::Infallible>(http::Response::new(String::from("hello")))
}));
loop {
    let (stream, connection) = listener.accept().await;
    let app = app.clone();
    let app = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(connection.clone());
        app.clone().oneshot(request)
    });
    tokio::spawn(async move {
        let server = auto::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await
    });
}
# }
```
"#
)]

#[cfg(feature = "tls-listener")]
mod accepting;
#[cfg(feature = "tls-listener")]
mod certificate;
#[cfg(feature = "tls-listener")]
mod client_roots;
#[cfg(feature = "tls-listener")]
mod client_roots_reload;
mod hosts;
mod hsts;
mod layer;
#[cfg(feature = "tls-listener")]
mod listener;
#[cfg(feature = "tls-listener")]
mod network;
#[cfg(feature = "tls-listener")]
mod proxied;
mod redirect;
#[cfg(feature = "tls-listener")]
mod reload;
#[cfg(feature = "tls-listener")]
mod terms;
#[cfg(feature = "tls-listener")]
mod watch;

pub use hsts::Hsts;
pub use layer::TlsLayer;
#[cfg(feature = "tls-listener")]
pub use {
    accepting::HandshakeFailures, certificate::ServerCertificate, client_roots::ClientRoots,
    client_roots_reload::ClientRootsReloader, listener::TlsListener, proxied::ProxiedListener,
    reload::CertificateReloader,
};
