//! The errors of configuration and of stores.

use std::{error::Error as StdError, fmt, time::Duration};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A configuration that is not accepted. Whatever checks a setting returns it, or an error that holds it (`OpenError`, `IssueError`);
/// nothing panics.
///
/// It names the setting and the offending value. Values that may be secret are described, never shown. What led to it, such as a file
/// that is not there, is its `source`, and `{:#}` writes that as well: `certificate: "chain.pem" cannot be read: No such file or directory`.
///
/// ```
/// use portcullis::ConfigError;
///
/// let error = ConfigError::new("audience", "\"\"", "must not be empty");
/// assert_eq!(error.to_string(), "audience: \"\" must not be empty");
/// ```
#[derive(Debug)]
pub struct ConfigError {
    setting: String,
    value: String,
    problem: String,
    source: Option<BoxError>,
}

impl ConfigError {
    /// Says that `setting` cannot be `value`, because `problem`.
    pub fn new(setting: impl Into<String>, value: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), value: value.into(), problem: problem.into(), source: None }
    }

    /// Adds the error that led to this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The setting that is wrong, such as `audience`.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// The offending value, or a description of it where it may be secret.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    #[cfg(feature = "config")]
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.setting, self.value, self.problem)?;
        causes(self, f)
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// What led to an error, where `{:#}` asks for it: who writes the chain by himself does not read it twice.
fn causes(error: &dyn StdError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if f.alternate() { unsaid(error, |cause| write!(f, ": {cause}")) } else { Ok(()) }
}

/// Tells of each cause whose text is not the end of the text before it: sqlx has that of the database in its own.
pub(crate) fn unsaid<E>(error: &dyn StdError, mut tell: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let (mut said, mut cause) = (String::new(), error.source());
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            tell(&text)?;
            said = text;
        }
        cause = error.source();
    }
    Ok(())
}

/// What kind of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The backend did not answer, or not in time. Asking again may help.
    Unavailable,
    /// The backend answered something that makes no sense.
    Corrupt,
    /// The backend refused to write: the record exists already, or contradicts another.
    Conflict,
    /// The backend was not asked: the caller's budget for questions without an answer is used up. To a client this is `429`.
    Throttled,
}

/// A store or another backend failed. To a client this is `503`, or `429` if it was
/// [`Throttled`](StoreErrorKind::Throttled); never `401` and never `403`. A handler that answers with a
/// [`Rejection`](crate::Rejection) returns it with `?`; what a [`Conflict`](StoreErrorKind::Conflict) means to its client it knows best, and tells that apart first. `{:#}` writes what
/// led to it as well.
///
/// ```
/// use portcullis::{StoreError, StoreErrorKind};
///
/// let error = StoreError::new(StoreErrorKind::Corrupt, "sqlite").about("key 0123456789abcdef");
/// assert_eq!(error.to_string(), "sqlite: backend answered nonsense (key 0123456789abcdef)");
/// ```
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    backend: &'static str,
    about: Option<Box<str>>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl StoreError {
    /// Says that the backend called `backend` failed in the way of `kind`.
    #[must_use]
    pub fn new(kind: StoreErrorKind, backend: &'static str) -> Self {
        Self { kind, backend, about: None, retry_after: None, source: None }
    }

    /// Says what it is about, such as the id of a record. Logs show it: it must not be secret.
    #[must_use]
    pub fn about(mut self, what: impl Into<Box<str>>) -> Self {
        self.about = Some(what.into());
        self
    }

    /// Says how long to wait before asking again may help. A client gets it as `Retry-After` of the `503` or `429` (RFC 9110 §10.2.3),
    /// rounded up to whole seconds, at least one. Default: not known, and the client is told what its layer says by itself.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the error that led to this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The backend's name.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        self.backend
    }

    /// How long to wait before asking again may help, if that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same error for one of several who asked together.
    #[cfg(feature = "api-key-cached")]
    pub(crate) fn shared(error: &std::sync::Arc<Self>) -> Self {
        let cause = error.source.is_some().then(|| Box::new(SharedCause(std::sync::Arc::clone(error))) as BoxError);
        let Self { kind, backend, about, retry_after, .. } = &**error;
        Self { kind: *kind, backend, about: about.clone(), retry_after: *retry_after, source: cause }
    }

    const fn describe(&self) -> &'static str {
        match self.kind {
            StoreErrorKind::Unavailable => "backend unavailable",
            StoreErrorKind::Corrupt => "backend answered nonsense",
            StoreErrorKind::Conflict => "backend refused a conflicting write",
            StoreErrorKind::Throttled => "too many questions without an answer",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.describe())?;
        self.about.as_ref().map_or(Ok(()), |what| write!(f, " ({what})"))?;
        causes(self, f)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The cause of an error that several got.
#[cfg(feature = "api-key-cached")]
#[derive(Debug)]
struct SharedCause(std::sync::Arc<StoreError>);

#[cfg(feature = "api-key-cached")]
impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.source.as_ref().map_or(Ok(()), |source| source.fmt(f))
    }
}

#[cfg(feature = "api-key-cached")]
impl StdError for SharedCause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_error_keeps_its_source_out_of_its_text() {
        let error = StoreError::new(StoreErrorKind::Unavailable, "sqlite").caused_by("disk on fire");
        assert_eq!(error.to_string(), "sqlite: backend unavailable");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("disk on fire"));
    }

    #[test]
    fn the_alternate_text_has_the_causes() {
        let store = StoreError::new(StoreErrorKind::Unavailable, "sqlite").about("keys.db").caused_by("disk on fire");
        assert_eq!(format!("{store:#}"), "sqlite: backend unavailable (keys.db): disk on fire");
        let config = ConfigError::new("keys", "\"keys.db\"", "cannot be read").caused_by(store);
        let text = "keys: \"keys.db\" cannot be read: sqlite: backend unavailable (keys.db): disk on fire";
        assert_eq!(format!("{config:#}"), text);
        assert_eq!(config.to_string(), "keys: \"keys.db\" cannot be read");
        assert_eq!(format!("{:#}", ConfigError::new("a", "b", "c")), "a: b c");
    }

    #[test]
    fn what_a_cause_says_of_its_own_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the driver: the disk is full")]
        struct Driver(#[source] Disk);
        #[derive(Debug, thiserror::Error)]
        #[error("the disk is full")]
        struct Disk;
        let store = StoreError::new(StoreErrorKind::Unavailable, "sqlite").caused_by(Driver(Disk));
        assert_eq!(format!("{store:#}"), "sqlite: backend unavailable: the driver: the disk is full");
    }

    #[cfg(feature = "api-key-cached")]
    #[test]
    fn a_shared_error_says_what_the_first_one_says() {
        let inner = StoreError::new(StoreErrorKind::Corrupt, "disk").caused_by("on fire");
        let error = StoreError::new(StoreErrorKind::Unavailable, "sqlite").about("key 1").caused_by(inner);
        let error = std::sync::Arc::new(error.with_retry_after(Duration::from_secs(7)));
        let shared = StoreError::shared(&error);
        assert_eq!((shared.kind(), shared.backend()), (StoreErrorKind::Unavailable, "sqlite"));
        assert_eq!((shared.to_string(), shared.retry_after()), (error.to_string(), Some(Duration::from_secs(7))));
        let cause = shared.source().unwrap();
        assert_eq!(cause.to_string(), "disk: backend answered nonsense");
        assert_eq!(cause.source().unwrap().to_string(), "on fire");
        assert!(
            StoreError::shared(&std::sync::Arc::new(StoreError::new(StoreErrorKind::Conflict, "x"))).source().is_none()
        );
    }
}
