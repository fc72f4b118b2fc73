use std::{fmt, time::Duration};

use http::StatusCode;

use super::{NOT_ASKED, RevokeError};
use crate::{
    admin::Fault,
    context::misordered,
    error::{StoreError, StoreErrorKind},
    rejection::{Rejection, RejectionKind},
};

/// When to come back after a store failed and did not say when.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A store that does not answer, as a refusal.
pub(super) fn unavailable(error: &StoreError) -> Rejection {
    away(error, error.retry_after())
}

/// The store, or what works for it, does not answer.
pub(super) fn away(error: impl fmt::Display, retry_after: Option<Duration>) -> Rejection {
    let rejection = Rejection::new(RejectionKind::Unavailable, format!("revocations: {error}"));
    rejection.with_retry_after(retry_after.unwrap_or(RETRY_AFTER))
}

/// What a handler of your own answers: `500` if the authenticator asks another store, `400` for an issuer or a text that is not good,
/// and `503` with `Retry-After` if the store did not take it. A store that is full is `503` too, as at [`BackchannelLogout`]: nothing
/// was revoked, and it may be when it is tried again. The client learns no more; the reason is for the log and the record.
///
/// [`BackchannelLogout`]: super::BackchannelLogout
impl From<RevokeError> for Rejection {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Config(error) => Self::new(RejectionKind::InvalidRequest, format!("revocations: {error}")),
            RevokeError::Store(error) => unavailable(&error),
            RevokeError::NotAsked => misordered(NOT_ASKED),
        }
    }
}

impl From<RevokeError> for Fault {
    fn from(error: RevokeError) -> Self {
        let error = match error {
            RevokeError::Config(error) => return error.into(),
            RevokeError::Store(error) => error,
            RevokeError::NotAsked => {
                let rejection = misordered(NOT_ASKED);
                let kind = rejection.kind();
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind.code(), kind.detail()).because(rejection);
            }
        };
        match error.kind() {
            StoreErrorKind::Conflict => Self::conflict("There is no room for more revocations. Nothing was revoked."),
            StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Throttled => {
                Self::unavailable(unavailable(&error))
            }
        }
    }
}
