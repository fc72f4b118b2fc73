use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use reqwest::{Client, Proxy, redirect::Policy};
use tokio::runtime::Handle;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    http::{FetchLimits, HttpFetch},
    origin::{nonsense, unavailable},
};
use crate::error::{ConfigError, StoreError};

/// An HTTP client on reqwest and rustls. A clone costs one reference count.
///
/// TLS 1.3 or 1.2 with aws-lc-rs, whatever other crates of the program have chosen as rustls' default. No redirects, no
/// cookies, no proxy unless one is given, no connection that is kept; HTTP/1.1. It needs a tokio runtime: outside one each
/// fetch fails.
///
/// Plain `http` it would speak; the keys never ask it to, unless
/// [told](super::LiveKeysBuilder::dangerous_http_on_loopback) so.
#[derive(Clone)]
pub struct HttpsFetch {
    client: Client,
}

impl HttpsFetch {
    /// Trusts the certificate authorities of the system.
    ///
    /// # Errors
    /// If the system has none, or the client cannot be made.
    pub fn new() -> Result<Self, ConfigError> {
        let found = rustls_native_certs::load_native_certs();
        Self::trusting(found.certs, None)
    }

    /// Trusts these certificate authorities and no other: PEM, one or several.
    ///
    /// # Errors
    /// If the text has no certificate or a bad one, or the client cannot be made.
    pub fn with_roots(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::trusting(read_pem(pem.as_ref())?, None)
    }

    /// As [`new`](Self::new), through this proxy (`http` or `https`). TLS still ends at the origin.
    ///
    /// # Errors
    /// If the URL is not that of a proxy, and as [`new`](Self::new).
    pub fn with_proxy(url: &str) -> Result<Self, ConfigError> {
        // The URL may hold a password.
        let proxy = Proxy::all(url).map_err(|_| ConfigError::new("proxy", "the URL", "cannot be read"))?;
        let found = rustls_native_certs::load_native_certs();
        Self::trusting(found.certs, Some(proxy))
    }

    fn trusting(certificates: Vec<CertificateDer<'static>>, proxy: Option<Proxy>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(ConfigError::new("certificate authorities", "none", "would trust nobody"));
        }
        let refuse = |error| ConfigError::new("HTTP client", "TLS", "cannot be set up").caused_by(error);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refuse)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // `no_proxy` forgets those of the environment.
        let builder = Client::builder().use_preconfigured_tls(tls).no_proxy();
        let builder = match proxy {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        };
        let builder = builder.redirect(Policy::none()).referer(false).http1_only().pool_max_idle_per_host(0);
        match builder.user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION"))).build() {
            Ok(client) => Ok(Self { client }),
            Err(error) => Err(ConfigError::new("HTTP client", "reqwest", "cannot be set up").caused_by(error)),
        }
    }
}

fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| ConfigError::new("certificate authorities", "PEM text", "cannot be read").caused_by(error))
}

impl fmt::Debug for HttpsFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsFetch").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpFetch for HttpsFetch {
    async fn fetch(&self, request: Request<()>, limits: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        if Handle::try_current().is_err() {
            return Err(unavailable("the HTTP client needs a tokio runtime"));
        }
        let (parts, ()) = request.into_parts();
        let sent =
            self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).timeout(limits.time());
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
