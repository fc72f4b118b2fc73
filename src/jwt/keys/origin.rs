use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::error::{StoreError, StoreErrorKind};

/// What a [`JwkSource`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Fetched {
    text: Option<String>,
    fresh_for: Option<Duration>,
    validator: Option<String>,
}

impl Fetched {
    /// The JWK Set as JSON text.
    pub fn set(json: impl Into<String>) -> Self {
        Self { text: Some(json.into()), fresh_for: None, validator: None }
    }

    /// The set is the one that the validator came with.
    pub const fn not_modified() -> Self {
        Self { text: None, fresh_for: None, validator: None }
    }

    /// Sets how long the origin calls the answer fresh. It is held to 1 minute at least and 24 hours at most. Default: as
    /// configured at the keys.
    pub const fn fresh_for(mut self, fresh_for: Duration) -> Self {
        self.fresh_for = Some(fresh_for);
        self
    }

    /// Sets what the next fetch gets, to find out whether anything changed: an `ETag`.
    pub fn with_validator(mut self, validator: impl Into<String>) -> Self {
        self.validator = Some(validator.into());
        self
    }

    pub(super) fn map_validator(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.validator = self.validator.as_deref().map(change);
        self
    }

    pub(super) fn into_parts(self) -> (Option<String>, Option<Duration>, Option<String>) {
        (self.text, self.fresh_for, self.validator)
    }
}

/// Where the JSON of a JWK Set comes from. [`LiveKeys`](super::LiveKeys) asks it, and does the rest: when to ask, what to
/// do with the answer and without one.
///
/// ```
/// use async_trait::async_trait;
/// use portcullis::{StoreError, StoreErrorKind, jwt::keys::{Fetched, JwkSource, LiveKeys}};
///
/// /// Keys that a sidecar leaves in the environment.
/// #[derive(Debug)]
/// struct Environment;
///
/// #[async_trait]
/// impl JwkSource for Environment {
///     fn name(&self) -> &str {
///         "environment variable JWKS"
///     }
///
///     async fn fetch(&self, _validator: Option<&str>) -> Result<Fetched, StoreError> {
///         let unset = |error| StoreError::new(StoreErrorKind::Unavailable, "environment").caused_by(error);
///         std::env::var("JWKS").map(Fetched::set).map_err(unset)
///     }
/// }
///
/// let keys = LiveKeys::from_source(Environment).build()?;
/// # let _ = keys;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Contract
/// - One fetch at a time is awaited, for 5 s by default, then its future is dropped.
/// - The text is untrusted: it may be too long, not JSON, or hold keys that do not belong there. The caller checks it.
/// - Nothing of a request reaches the source.
#[async_trait]
pub trait JwkSource: fmt::Debug + Send + Sync + 'static {
    /// The origin's name for logs and health: a URL or a path, without secrets.
    fn name(&self) -> &str;

    /// Gets the set. With a validator it may answer [`Fetched::not_modified`].
    async fn fetch(&self, validator: Option<&str>) -> Result<Fetched, StoreError>;
}

/// The origin does not answer.
pub(super) fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "key source").caused_by(cause)
}

/// The origin answers what makes no sense.
pub(super) fn nonsense(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "key source").caused_by(cause)
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<J: JwkSource + ?Sized> JwkSource for $pointer<J> {
            fn name(&self) -> &str {
                (**self).name()
            }

            async fn fetch(&self, validator: Option<&str>) -> Result<Fetched, StoreError> {
                (**self).fetch(validator).await
            }
        }
    )*};
}

forward!(Arc, Box);
