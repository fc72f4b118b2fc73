//! Evidence: who is really calling, and over what.
//!
//! [`EvidenceLayer`] works out one [`ClientInfo`](crate::ClientInfo): the client's address, whether it speaks HTTPS, and
//! the host that it asked for. TLS enforcement, limits, rules about addresses and the record all use that one answer.
//!
//! It refuses nothing. Every request passes, and
//! 1. if the connection's peer is none of the [`TrustedProxies`], the connection alone counts;
//! 2. if it is one, the walk goes from the right through the configured header family, as long as it meets trusted
//!    proxies; the first address that is none of them is the client's;
//! 3. forwarding and identity headers that no trusted proxy vouches for are removed before the handler can read them: all of
//!    them from a stranger, those of the other family from a proxy.
//!
//! Proxies can be [counted](TrustedProxies::with_hops) instead of recognised, tell [one address](TrustedProxies::address_header)
//! alone, or announce their clients in the PROXY protocol ([`ProxyProtocol`]), which the listeners read.
//!
//! | what came | address | HTTPS | in the record |
//! |---|---|---|---|
//! | a stranger, with or without forwarding headers | the peer | if this process terminated TLS | `forwarding_headers_removed` if there were any |
//! | a trusted proxy, header in order | the client | if the proxy says `https` for that hop | |
//! | a trusted proxy, no header | the proxy | if the proxy says `https` | |
//! | a trusted proxy, `unknown` or a hidden name | the last trusted proxy | if the proxy says `https` for that hop | |
//! | a trusted proxy, garbage, more than 64 elements, more than 8 KiB | the last trusted proxy | no | `malformed_forwarding_header` |
//! | a Unix socket that is not [trusted](TrustedProxies::and_unix_sockets) | none | no | |
//! | no [`Connection`](crate::Connection) in the request | unknown | unknown | |
//!
//! Without a `Connection`, and without a `ConnectInfo` of axum, no client is known; a layer that needs one refuses with
//! `500` and says so in the log.
//!
//! | status | when |
//! |---|---|
//! | `500` | the layer stands inside a layer that needs the address, or twice |
//!
//! Stack it outside TLS enforcement, limits and authentication; inside audit. `docs/evidence.md` has the whole of what is
//! believed from whom.
//!
//! # Example
//! ```
//! use portcullis::{Connection, SecurityContext, evidence::{EvidenceLayer, TrustedProxies}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handler = service_fn(|request: http::Request<()>| async move {
//!     let client = SecurityContext::of(request.extensions()).and_then(SecurityContext::client).unwrap();
//!     assert!(client.is_secure());
//!     Ok::<_, std::convert::Infallible>(http::Response::new(client.address().unwrap().to_string()))
//! });
//! let service = EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.7"])?).layer(handler);
//!
//! let mut request = http::Request::get("/orders")
//!     .header("x-forwarded-for", "203.0.113.1, 198.51.100.7") // the first was written by the client
//!     .header("x-forwarded-proto", "https")
//!     .body(())?;
//! request.extensions_mut().insert(Connection::plain("10.0.12.7:40100".parse()?));
//! assert_eq!(service.oneshot(request).await?.into_body(), "198.51.100.7");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "client-cert")]
mod certificate;
mod forwarded;
mod host;
mod layer;
mod list;
mod network;
mod node;
mod proxy_protocol;
mod strip;
mod trust;
mod undeclared;
mod walk;
#[cfg(feature = "client-cert")]
mod xfcc;

#[cfg(feature = "client-cert")]
pub use certificate::CertificateHeader;
pub(crate) use host::Host;
pub use layer::EvidenceLayer;
pub(crate) use layer::REMOVED;
#[cfg(feature = "tls-listener")]
pub(crate) use proxy_protocol::PREFIX_LEN;
pub use proxy_protocol::{ProxyHeader, ProxyHeaderError, ProxyProtocol};
pub(crate) use strip::any_forwarding;
pub use trust::{EvidenceCounts, TrustedProxies};
