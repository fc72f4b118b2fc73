//! Client certificates: who is this, by the certificate of the connection?
//!
//! [`ClientCertAuthenticator`] reads the certificate that the connection's handshake verified
//! ([`TlsListener`](crate::tls::TlsListener), or a server of your own that fills
//! [`Connection`](crate::Connection)), or that a trusted proxy verified and forwards
//! ([`TrustedProxies::with_client_certificates`](crate::evidence::TrustedProxies::with_client_certificates)). It never reads
//! a header by itself.
//!
//! A certificate is accepted when
//! 1. it parses, is valid at the time of the request, is for clients, and is not an authority's;
//! 2. it has exactly one name of the chosen kind that is on the list: a DNS name, a URI, a SPIFFE ID of a trust domain that
//!    is believed, the SHA-256 of the certificate, or, by choice, the full name of the subject. The common name alone never
//!    counts.
//!
//! | outcome | when |
//! |---|---|
//! | absent | no certificate |
//! | verified, ambient | accepted: it counts where no credential came in the request itself |
//! | refused if needed, `401` | not accepted: anonymous where anonymous requests pass |
//!
//! The principal is a [`Service`](crate::PrincipalKind::Service) with the credential `client_cert`; its credential id is the
//! certificate's SHA-256. It acts, or with [`as_client`](ClientCertAuthenticatorBuilder::as_client) stands beside the subject that
//! another authenticator finds.
//!
//! # Example
//! ```
//! use portcullis::client_cert::ClientCertAuthenticator;
//!
//! let services = ClientCertAuthenticator::by_spiffe_id(["prod.example.com"])?
//!     .allow(["spiffe://prod.example.com/ns/shop/*"])?
//!     .roles("spiffe://prod.example.com/ns/shop/billing", ["clerk"])?
//!     .build()?;
//! # let _ = services;
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

mod authenticator;
mod names;
mod spiffe;

pub use authenticator::{ClientCertAuthenticator, ClientCertAuthenticatorBuilder};
