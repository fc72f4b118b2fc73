//! The document in which an API says which issuers it trusts (RFC 9728), and its check against the authenticator.

mod builder;
#[cfg(feature = "axum")]
mod router;
mod urls;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

pub use self::builder::ResourceMetadataBuilder;
use crate::error::ConfigError;

/// Between host and path of the resource's identifier (RFC 9728 §3.1).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata of a protected resource (RFC 9728): in it a client that was refused reads which issuer it gets a token from,
/// for which resource and with which scopes. A clone costs one reference count.
///
/// The document is made once, and checked: at [`build`](ResourceMetadataBuilder::build) for what the RFC demands, and by the
/// authenticator that [names](crate::jwt::JwtAuthenticatorBuilder::resource_metadata) it for whether it is true. `router` (feature
/// `axum`) serves it; [`route`](Self::route) is its line in a stack's table, which must be public: who reads it has no token yet.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn main() -> Result<(), portcullis::ConfigError> {
/// # use portcullis::{Secret, jwt::{Algorithm, Key, KeySet}};
/// # let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
/// use axum::Router;
/// use portcullis::jwt::{Issuer, JwtAuthenticator, ResourceMetadata};
///
/// let metadata = ResourceMetadata::builder("https://api.example.com/orders")
///     .authorization_server("https://id.example.com")
///     .scopes(["orders:read", "orders:write"])
///     .name("Orders")
///     .build()?;
/// assert_eq!(metadata.url(), "https://api.example.com/.well-known/oauth-protected-resource/orders");
///
/// let jwt = JwtAuthenticator::builder()
///     .issuer(Issuer::fixed("https://id.example.com", keys).access_tokens("orders-api").algorithms([Algorithm::HS256]))
///     .resource_metadata(&metadata) // its challenges name the URL; an issuer that is not trusted is an error here
///     .build()?;
/// let app: Router = Router::new().merge(metadata.router());
/// // In the table of a stack: .route(metadata.route(), public())
/// # let _ = (jwt, app);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct ResourceMetadata {
    shared: Arc<Shared>,
}

struct Shared {
    resource: String,
    url: String,
    path: String,
    json: Bytes,
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the router tells it"))]
    max_age: Duration,
    claims: Claims,
}

/// What the document says that the authenticator knows better.
#[derive(Default)]
struct Claims {
    authorization_servers: Vec<String>,
    bearer: bool,
    certificate_bound: bool,
    dpop_algorithms: Vec<&'static str>,
    dpop_required: bool,
}

impl ResourceMetadata {
    /// Starts the document of the resource with this identifier: an `https` URL such as `https://api.example.com/orders`, under
    /// which clients know the API.
    pub fn builder(resource: impl Into<String>) -> ResourceMetadataBuilder {
        ResourceMetadataBuilder::new(resource.into())
    }

    /// The resource's identifier.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.shared.resource
    }

    /// Where clients find the document (RFC 9728 §3.1): `resource_metadata` of the challenges.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The path of [`url`](Self::url).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.shared.path
    }

    /// Its line in the table of a stack: `GET` and [`path`](Self::path). HEAD is decided as GET.
    #[must_use]
    pub fn route(&self) -> String {
        format!("GET {}", self.shared.path)
    }

    /// The document, a JSON object: for who serves it otherwise, as `application/json`.
    #[must_use]
    pub fn json(&self) -> &str {
        // It was made of a string.
        std::str::from_utf8(&self.shared.json).unwrap_or_default()
    }

    /// Whether the document is true of an authenticator.
    fn check(&self, accepted: &Accepted<'_>, beside: &[String]) -> Result<(), ConfigError> {
        let claims = &self.shared.claims;
        let refuse = |value: &str, problem: &str| Err(ConfigError::new("resource metadata", value, problem));
        let is_taken = |server: &&String| accepted.issuers.contains(&&***server) || beside.contains(server);
        if let Some(server) = claims.authorization_servers.iter().find(|server| !is_taken(server)) {
            return refuse(&format!("authorization server {server:?}"), "is no issuer that the authenticator trusts");
        }
        if claims.bearer && !accepted.bearer {
            return refuse("bearer", "tokens in Authorization are not taken: say without_bearer()");
        }
        if !claims.bearer && accepted.bearer {
            return refuse("no bearer", "is said, and the authenticator takes bearer tokens in Authorization");
        }
        if accepted.certificate_required && !claims.certificate_bound {
            return refuse("certificate_bound", "is not said, and the authenticator takes no other tokens");
        }
        if claims.dpop_required != accepted.dpop_required {
            let problem = if accepted.dpop_required {
                "is not said, and the authenticator demands it"
            } else {
                "is said, and the authenticator does not demand it"
            };
            return refuse("dpop_required", problem);
        }
        match claims.dpop_algorithms.iter().find(|name| !accepted.dpop_algorithms.contains(name)) {
            Some(name) => refuse(&format!("DPoP algorithm {name}"), "is not taken by the authenticator"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ResourceMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetadata").field("url", &self.url()).field("json", &self.json()).finish()
    }
}

/// What an authenticator takes.
pub(super) struct Accepted<'a> {
    pub(super) issuers: Vec<&'a str>,
    /// Bearer tokens in `Authorization`.
    pub(super) bearer: bool,
    pub(super) certificate_required: bool,
    pub(super) dpop_algorithms: Vec<&'static str>,
    pub(super) dpop_required: bool,
}

/// The URL of an API's metadata, for [`JwtAuthenticatorBuilder::resource_metadata`](crate::jwt::JwtAuthenticatorBuilder::resource_metadata):
/// made of a [`ResourceMetadata`], or of a text where the document is served elsewhere, a gateway for example.
#[derive(Clone, Debug)]
pub struct MetadataUrl {
    url: String,
    document: Option<ResourceMetadata>,
    /// Issuers whose tokens another authenticator takes.
    beside: Vec<String>,
}

impl MetadataUrl {
    /// Says that tokens of this issuer are taken by another authenticator beside, as in [`one_of`](crate::authn::one_of) or
    /// `by_shape` (feature `introspection`), so that the document may name it. Nobody checks that.
    ///
    /// ```
    /// use portcullis::{Secret, jwt::{Algorithm, Issuer, JwtAuthenticator, Key, KeySet, MetadataUrl, ResourceMetadata}};
    ///
    /// let metadata = ResourceMetadata::builder("https://api.example.com/orders")
    ///     .authorization_server("https://id.example.com")
    ///     .authorization_server("https://opaque.example.com")
    ///     .build()?;
    /// let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
    /// let jwt = JwtAuthenticator::builder()
    ///     .issuer(Issuer::fixed("https://id.example.com", keys).access_tokens("orders-api").algorithms([Algorithm::HS256]))
    ///     .resource_metadata(MetadataUrl::from(&metadata).beside("https://opaque.example.com"))
    ///     .build()?;
    /// # let _ = jwt;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    #[must_use]
    pub fn beside(mut self, issuer: impl Into<String>) -> Self {
        self.beside.push(issuer.into());
        self
    }

    /// The URL, if it may be one and its document is true.
    pub(super) fn check(&self, accepted: &Accepted<'_>) -> Result<&str, ConfigError> {
        if !self.url.starts_with("https://") || self.url.contains('#') {
            let value = format!("{:?}", self.url);
            return Err(ConfigError::new("resource metadata", value, "is not an https URL without fragment"));
        }
        if let Some(document) = &self.document {
            document.check(accepted, &self.beside)?;
        }
        Ok(&self.url)
    }
}

impl From<&ResourceMetadata> for MetadataUrl {
    fn from(document: &ResourceMetadata) -> Self {
        Self { url: document.url().to_owned(), document: Some(document.clone()), beside: Vec::new() }
    }
}

impl From<String> for MetadataUrl {
    fn from(url: String) -> Self {
        Self { url, document: None, beside: Vec::new() }
    }
}

impl From<&str> for MetadataUrl {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}
