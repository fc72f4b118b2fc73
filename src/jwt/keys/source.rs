use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    clock::Instants,
    jwt::KeySet,
    now::Now,
    rejection::{Rejection, RejectionKind, whole_seconds},
};

/// The keys at one moment, and which version of them it is. A clone costs one reference count.
#[derive(Clone, Debug)]
pub struct KeySnapshot {
    keys: KeySet,
    generation: u64,
    due: bool,
}

impl KeySnapshot {
    /// Takes the keys and their generation, which is not zero.
    #[must_use]
    pub const fn new(keys: KeySet, generation: u64) -> Self {
        Self { keys, generation, due: false }
    }

    /// Says that the keys are good, and that the source would like [`refresh_for`](KeySource::refresh_for) to be awaited
    /// before they are used, because nothing runs in the background that could refresh them.
    #[must_use]
    pub const fn with_due(mut self) -> Self {
        self.due = true;
        self
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Which version it is.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the source would like to be refreshed first.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.due
    }
}

/// Why there are no keys to verify with, and when to ask again. To a client it is `503` with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysUnavailable {
    cause: Cow<'static, str>,
    retry_after: Duration,
}

impl KeysUnavailable {
    /// Takes the cause, for the operator, and how long to wait before it is worth asking again. A client gets it as `Retry-After`,
    /// rounded up to whole seconds, at least one.
    pub fn new(cause: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self { cause: cause.into(), retry_after: Duration::from_secs(whole_seconds(retry_after).into()) }
    }

    /// The cause. The client never sees it.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// How long to wait before it is worth asking again, in whole seconds, at least one.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        self.retry_after
    }
}

impl fmt::Display for KeysUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for KeysUnavailable {}

impl From<KeysUnavailable> for Rejection {
    fn from(unavailable: KeysUnavailable) -> Self {
        Self::new(RejectionKind::Unavailable, unavailable.cause).with_retry_after(unavailable.retry_after)
    }
}

/// What came of [`KeySource::refresh_for`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: asked, not worth asking, or not possible")]
pub enum Refresh {
    /// The origin was asked, or a newer set is there already: look again, once.
    LookAgain,
    /// The origin does not have the key; that is known without asking it again.
    NothingNew,
    /// The origin cannot be asked now, or did not answer.
    Unavailable(KeysUnavailable),
}

/// How a source is doing, for health endpoints. Made by the source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct KeyHealth {
    ready: bool,
    keys: usize,
    skipped: usize,
    age: Option<Duration>,
    cause: Option<Arc<str>>,
}

impl KeyHealth {
    /// Keys can be had.
    pub const fn ready(keys: usize) -> Self {
        Self { ready: true, keys, skipped: 0, age: None, cause: None }
    }

    /// No keys can be had, for this cause.
    pub fn not_ready(cause: impl Into<Arc<str>>) -> Self {
        Self { ready: false, keys: 0, skipped: 0, age: None, cause: Some(cause.into()) }
    }

    /// Sets how many keys of the set are not usable.
    pub const fn with_skipped(mut self, skipped: usize) -> Self {
        self.skipped = skipped;
        self
    }

    /// Sets how long ago the origin last confirmed the set.
    pub const fn with_age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Sets what is wrong, though keys can be had.
    pub fn with_cause(mut self, cause: impl Into<Arc<str>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Whether tokens can be verified now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// How many keys verify.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// How many keys of the set are not usable; [`KeySet::skipped`] says why.
    #[must_use]
    pub const fn skipped(&self) -> usize {
        self.skipped
    }

    /// How long ago the origin last confirmed the set; none if the source has no origin.
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    /// What is wrong: why the source is not ready, or why the last refresh failed though it is.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

/// The keys of an issuer, which may change while the service runs.
///
/// [`KeySet`] is a source that never changes. `LiveKeys` (feature `jwt-remote`) follows a file, a URL or a discovery
/// document, through rotations and outages; implement [`JwkSource`](super::JwkSource) to give it another origin, and this
/// trait only if you need another life cycle.
///
/// # Contract
/// - [`snapshot`](Self::snapshot) never waits: no lock that a fetch holds, no I/O. Once keys were had, they are there until
///   the source no longer trusts them; a failed refresh does not take them away at once.
/// - The generation grows whenever the set changes and is never zero. It may grow without a change. By one above 2^32 - 1 no token
///   is remembered: count, rather than take the time.
/// - What a client can make up, a forged token with any `kid` or none, does not lead to unbounded fetches or memory.
/// - [`refresh_now`](Self::refresh_now) changes nothing, spends nothing, and agrees with [`refresh_for`](Self::refresh_for).
/// - A key that the origin has withdrawn goes with the next set.
/// - Time is `at`. The conformance suites (feature `conformance`) check the contract.
///
/// # Cancel safety
/// The future of [`refresh_for`](Self::refresh_for) may be dropped at any time: others that wait for the same fetch still
/// get their answer.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync + 'static {
    /// The keys now.
    ///
    /// # Errors
    /// If there are none yet, or they are too old to be trusted (`503`).
    fn snapshot(&self, at: Instants) -> Result<KeySnapshot, KeysUnavailable>;

    /// The generation of the keys now; none where [`snapshot`](Self::snapshot) fails. Whoever keeps what was verified
    /// earlier asks this on each request.
    fn generation(&self, at: Instants) -> Option<u64> {
        self.snapshot(at).ok().map(|snapshot| snapshot.generation)
    }

    /// The answer of [`refresh_for`](Self::refresh_for) if it takes no waiting. Default: it does.
    fn refresh_now(&self, kid: Option<&str>, seen: u64, at: Instants) -> Now<Refresh> {
        let _ = (kid, seen, at);
        Now::Wait
    }

    /// Asks the origin, because the caller found no key: `kid` is what the token names, none if it names none and no key there is
    /// verifies it, and `seen` the generation that the caller looked at, zero if there was none.
    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh;

    /// Whether none of its keys is ever a shared secret: a profile that takes HS256 of it is then a mistake that is told when the
    /// authenticator is built. Default: it may have some.
    fn has_no_secrets(&self) -> bool {
        false
    }

    /// How the source is doing.
    fn health(&self, at: Instants) -> KeyHealth;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<K: KeySource + ?Sized> KeySource for $pointer<K> {
            fn snapshot(&self, at: Instants) -> Result<KeySnapshot, KeysUnavailable> {
                (**self).snapshot(at)
            }

            fn generation(&self, at: Instants) -> Option<u64> {
                (**self).generation(at)
            }

            fn refresh_now(&self, kid: Option<&str>, seen: u64, at: Instants) -> Now<Refresh> {
                (**self).refresh_now(kid, seen, at)
            }

            async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
                (**self).refresh_for(kid, seen, at).await
            }

            fn has_no_secrets(&self) -> bool {
                (**self).has_no_secrets()
            }

            fn health(&self, at: Instants) -> KeyHealth {
                (**self).health(at)
            }
        }
    )*};
}

forward!(Arc, Box);

/// Keys that do not change.
#[async_trait]
impl KeySource for KeySet {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        Ok(KeySnapshot::new(self.clone(), FIXED))
    }

    fn generation(&self, _: Instants) -> Option<u64> {
        Some(FIXED)
    }

    fn refresh_now(&self, _: Option<&str>, seen: u64, _: Instants) -> Now<Refresh> {
        Now::Known(if seen < FIXED { Refresh::LookAgain } else { Refresh::NothingNew })
    }

    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        match self.refresh_now(kid, seen, at) {
            Now::Known(refresh) => refresh,
            Now::Wait => Refresh::NothingNew,
        }
    }

    fn health(&self, _: Instants) -> KeyHealth {
        KeyHealth::ready(self.keys().len()).with_skipped(self.skipped().len())
    }
}

/// The generation of keys that do not change.
const FIXED: u64 = 1;

/// The keys of an issuer as a profile holds them: those that do not change are looked at in place.
#[derive(Clone, Debug)]
pub(in crate::jwt) enum Keys {
    Fixed(KeySet),
    Source(Arc<dyn KeySource>),
}

impl Keys {
    pub(in crate::jwt) fn source(&self) -> &dyn KeySource {
        match self {
            Self::Fixed(keys) => keys,
            Self::Source(source) => source,
        }
    }

    pub(in crate::jwt) fn now(&self, at: Instants) -> Result<Held<'_>, KeysUnavailable> {
        match self {
            Self::Fixed(keys) => Ok(Held::Fixed(keys)),
            Self::Source(source) => source.snapshot(at).map(Held::Source),
        }
    }
}

/// The keys for one request.
pub(in crate::jwt) enum Held<'a> {
    Fixed(&'a KeySet),
    Source(KeySnapshot),
}

impl Held<'_> {
    pub(in crate::jwt) const fn keys(&self) -> &KeySet {
        match self {
            Self::Fixed(keys) => keys,
            Self::Source(snapshot) => snapshot.keys(),
        }
    }

    pub(in crate::jwt) const fn generation(&self) -> u64 {
        match self {
            Self::Fixed(_) => FIXED,
            Self::Source(snapshot) => snapshot.generation(),
        }
    }

    pub(in crate::jwt) const fn is_due(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Source(snapshot) => snapshot.is_due(),
        }
    }
}
