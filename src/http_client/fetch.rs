use std::{error::Error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// How long a fetch may take, and how much it may bring. Default: 5 s and 512 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct FetchLimits {
    time: Duration,
    bytes: usize,
}

impl FetchLimits {
    /// How long a fetch may take, from its start to the last byte of the body, up to 60 s, and how many bytes the body may have, up to
    /// 16 MiB; zero of either is refused where it is used.
    pub const fn new(time: Duration, bytes: usize) -> Self {
        Self { time, bytes }
    }

    /// From the start of the fetch to the last byte of the body.
    #[must_use]
    pub const fn time(&self) -> Duration {
        self.time
    }

    /// The largest body, after any content coding is undone.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Refuses limits that bound nothing: of no time, of more than 60 s, of no bytes, of more than 16 MiB.
    pub(crate) fn check(&self, fetches: &str) -> Result<(), ConfigError> {
        if self.time.is_zero() || self.time > Duration::from_secs(60) {
            let setting = format!("time limit of {fetches}");
            return Err(ConfigError::new(setting, format!("{:?}", self.time), "is not up to 60 s"));
        }
        if self.bytes == 0 || self.bytes > 16 << 20 {
            let setting = format!("size limit of {fetches}");
            return Err(ConfigError::new(setting, self.bytes.to_string(), "is not up to 16 MiB"));
        }
        Ok(())
    }
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self::new(Duration::from_secs(5), 512 * 1024)
    }
}

/// Sends requests to other services: `HttpsFetch`, or a client of your own.
///
/// # Contract
/// - The request goes out as it is, once: no redirect is followed (a `3xx` is the answer), no cookie and no credential is
///   added. What is in its headers and its body may be secret.
/// - The peer's certificate is checked. The caller has checked the URL: `https`, and a host that was configured or allowed.
/// - A body beyond `limits` is an error, found while reading and not after it; so is a fetch that takes longer.
/// - Any status is an answer. An error means that there is none.
///
/// # Cancel safety
/// The future may be dropped at any time: the answer is then nobody's.
#[async_trait]
pub trait HttpFetch: fmt::Debug + Send + Sync + 'static {
    /// Gets the answer to the request.
    async fn fetch(&self, request: Request<Bytes>, limits: FetchLimits) -> Result<Response<Bytes>, StoreError>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: HttpFetch + ?Sized> HttpFetch for Arc<H> {
    async fn fetch(&self, request: Request<Bytes>, limits: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        (**self).fetch(request, limits).await
    }
}

/// The peer does not answer.
pub(crate) fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "HTTP client").caused_by(cause)
}

/// The peer answers what makes no sense.
pub(crate) fn nonsense(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "HTTP client").caused_by(cause)
}
