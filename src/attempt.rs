//! What an authenticator asks before a step that costs, and tells when it was in vain.

use std::fmt;

use crate::rejection::Rejection;

/// Keeps the budget that attempts draw on.
pub(crate) trait Meter: Send + Sync {
    fn may_try(&self, key_id: Option<&str>) -> Result<(), Rejection>;
    fn failed(&self, key_id: Option<&str>);
}

/// One request's attempts at costly steps of authentication: checking a signature, waiting for a store. An authenticator has
/// it from [`RequestHead::attempt`](crate::RequestHead::attempt).
///
/// It asks before such a step, and only then: what was verified before and is remembered costs nothing, and passes however
/// many others have failed. It tells when the step was in vain because the credential is bad. A credential that merely ended
/// is nobody's attack and does not count.
///
/// Where no [`FailureBudget`](crate::rate_limit::FailureBudget) is set, all may try.
///
/// ```
/// use portcullis::{Principal, PrincipalKind, Rejection, RejectionKind, RequestHead, authn::Outcome};
///
/// fn check(head: &RequestHead<'_>, key_id: &str, signature_is_good: impl Fn() -> bool) -> Outcome {
///     if let Err(rejection) = head.attempt().before(Some(key_id)) {
///         return rejection.into();
///     }
///     if !signature_is_good() {
///         head.attempt().failed(Some(key_id));
///         return Rejection::new(RejectionKind::InvalidCredential, "bad signature").into();
///     }
///     Outcome::verified(Principal::builder(PrincipalKind::Service, "factory", key_id, "device").build())
/// }
/// # let request = http::Request::new(());
/// # assert!(matches!(check(&RequestHead::of(&request), "7", || true), Outcome::Verified(_)));
/// ```
#[derive(Clone, Copy, Default)]
pub struct Attempt<'a> {
    meter: Option<&'a dyn Meter>,
}

impl<'a> Attempt<'a> {
    /// An attempt that nobody counts.
    #[must_use]
    pub const fn uncounted() -> Self {
        Self { meter: None }
    }

    #[cfg(feature = "rate-limit")]
    pub(crate) fn counted_by(meter: &'a dyn Meter) -> Self {
        Self { meter: Some(meter) }
    }

    /// Whether the step may be tried. `key_id` is the id of the key that the credential claims, if it claims one.
    ///
    /// # Errors
    /// [`RateLimited`](crate::RejectionKind::RateLimited) (`429`), with `Retry-After`, while the budget of the request's source
    /// is empty, or that of its source and this key id.
    pub fn before(&self, key_id: Option<&str>) -> Result<(), Rejection> {
        self.meter.map_or(Ok(()), |meter| meter.may_try(key_id))
    }

    pub(crate) const fn is_counted(&self) -> bool {
        self.meter.is_some()
    }

    /// Counts the step as one in vain.
    pub fn failed(&self, key_id: Option<&str>) {
        if let Some(meter) = self.meter {
            meter.failed(key_id);
        }
    }
}

/// A step that counts as one in vain unless something says otherwise, and so does one that its client does not wait for: hanging up
/// would else be the way to ask for nothing.
#[cfg(any(feature = "api-key", feature = "jwt", feature = "jwt-pure-rust"))]
pub(crate) struct Fare<'a> {
    attempt: Attempt<'a>,
    key_id: Option<&'a str>,
    pub(crate) is_due: bool,
}

#[cfg(any(feature = "api-key", feature = "jwt", feature = "jwt-pure-rust"))]
impl<'a> Fare<'a> {
    pub(crate) const fn new(attempt: Attempt<'a>, key_id: Option<&'a str>, is_due: bool) -> Self {
        Self { attempt, key_id, is_due }
    }

    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) const fn attempt(&self) -> Attempt<'a> {
        self.attempt
    }
}

#[cfg(any(feature = "api-key", feature = "jwt", feature = "jwt-pure-rust"))]
impl Drop for Fare<'_> {
    fn drop(&mut self) {
        if self.is_due {
            self.attempt.failed(self.key_id);
        }
    }
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("counted", &self.meter.is_some()).finish()
    }
}
