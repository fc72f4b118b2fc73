use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::{Client, NoProxy, Proxy, redirect::Policy};
use tokio::runtime::Handle;
use tokio_rustls::rustls::{ClientConfig, crypto::aws_lc_rs};

use super::fetch::{FetchLimits, HttpFetch, nonsense, unavailable};
use crate::{
    error::{ConfigError, StoreError},
    roots,
};

/// How long a connection is kept that nothing goes over. Shorter than most servers keep theirs, so that they rarely close one
/// at the moment in which it is used again.
const IDLE: Duration = Duration::from_secs(15);

/// The hosts that no proxy is asked for, which has another machine in mind; plain `http` to them would cross the wire.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// An HTTP client on reqwest and rustls. A clone costs one reference count and shares the connections.
///
/// TLS 1.3 or 1.2 with aws-lc-rs, whatever other crates of the program have chosen as rustls' default. No redirects, no
/// cookies, no proxy unless one is given, no connection that is kept unless it is
/// [said](HttpsFetchBuilder::keep_connections); HTTP/1.1. It needs a tokio runtime: outside one each fetch fails.
///
/// Plain `http` it would speak; what uses it never asks it to, unless told so by a setting with `dangerous` in its name.
///
/// ```
/// use portcullis::http_client::HttpsFetch;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if false {
/// let client = HttpsFetch::builder().roots(std::fs::read("private-ca.pem")?).keep_connections(8).build()?;
/// # let _ = client;
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpsFetch {
    client: Client,
}

/// Configures a [`HttpsFetch`]; made by [`HttpsFetch::builder`].
#[must_use]
#[derive(Clone, Default)]
pub struct HttpsFetchBuilder {
    roots: Option<Vec<u8>>,
    proxy: Option<String>,
    kept: usize,
}

impl HttpsFetch {
    /// Starts a client that trusts the certificate authorities of the system, has no proxy and keeps no connection.
    pub fn builder() -> HttpsFetchBuilder {
        HttpsFetchBuilder::default()
    }

    /// Trusts the certificate authorities of the system.
    ///
    /// # Errors
    /// If the system has none, or the client cannot be made.
    pub fn new() -> Result<Self, ConfigError> {
        Self::builder().build()
    }

    /// Trusts these certificate authorities and no other: PEM, one or several.
    ///
    /// # Errors
    /// If the text has no certificate or a bad one, or the client cannot be made.
    pub fn with_roots(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::builder().roots(pem).build()
    }

    /// As [`new`](Self::new), through this proxy (`http` or `https`). TLS still ends at the origin. What is for this machine
    /// (`localhost`, a loopback address) goes there directly.
    ///
    /// # Errors
    /// If the URL is not that of a proxy, and as [`new`](Self::new).
    pub fn with_proxy(url: &str) -> Result<Self, ConfigError> {
        Self::builder().proxy(url).build()
    }
}

impl HttpsFetchBuilder {
    /// Trusts these certificate authorities and no other: PEM, one or several, each of which must be one. Default:
    /// those of the system.
    pub fn roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots = Some(pem.as_ref().to_vec());
        self
    }

    /// Goes through this proxy (`http` or `https`). TLS still ends at the origin. What is for this machine (`localhost`, a loopback
    /// address) goes there directly. Default: none, whatever the environment says.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Keeps up to so many connections to each host for the next request, each for 15 s after the last one. Default: none.
    pub const fn keep_connections(mut self, most: usize) -> Self {
        self.kept = most;
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// If the PEM text has no certificate or a bad one, the system has no certificate authority, the URL is not that of a
    /// proxy, or the client cannot be made.
    pub fn build(self) -> Result<HttpsFetch, ConfigError> {
        let roots = roots::trusted(self.roots.as_deref())?;
        let refuse = |error| ConfigError::new("HTTP client", "TLS", "cannot be set up").caused_by(error);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refuse)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // `no_proxy` forgets those of the environment.
        let mut builder = Client::builder().use_preconfigured_tls(tls).no_proxy();
        if let Some(url) = self.proxy {
            // The URL may hold a password.
            let proxy = Proxy::all(url).map_err(|_| ConfigError::new("proxy", "the URL", "cannot be read"))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(THIS_MACHINE)));
        }
        let builder = builder.redirect(Policy::none()).referer(false).http1_only();
        let builder = builder.pool_max_idle_per_host(self.kept).pool_idle_timeout(IDLE);
        match builder.user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION"))).build() {
            Ok(client) => Ok(HttpsFetch { client }),
            Err(error) => Err(ConfigError::new("HTTP client", "reqwest", "cannot be set up").caused_by(error)),
        }
    }
}

impl fmt::Debug for HttpsFetchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsFetchBuilder").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpsFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsFetch").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpFetch for HttpsFetch {
    async fn fetch(&self, request: Request<Bytes>, limits: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        if Handle::try_current().is_err() {
            return Err(unavailable("the HTTP client needs a tokio runtime"));
        }
        let (parts, body) = request.into_parts();
        let mut sent =
            self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).timeout(limits.time());
        if !body.is_empty() {
            sent = sent.body(body);
        }
        let mut response = sent.send().await.map_err(|error| unavailable(error.without_url()))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(error.without_url()))? {
            if body.len().saturating_add(chunk.len()) > limits.bytes() {
                return Err(nonsense(format!("the answer has more than {} bytes", limits.bytes())));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = Response::new(body.freeze());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}
