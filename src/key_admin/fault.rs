use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use crate::{
    admin::Fault,
    api_key::IssueError,
    error::{StoreError, StoreErrorKind},
    rejection::{Rejection, RejectionKind},
};

/// When to come back after a store failed and did not say when.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const ENDED: &str = "The key was rotated before, is revoked, or has ended.";

impl Fault {
    /// This member of the body is not what it should be.
    pub(super) fn member(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::body(detail).at(field)
    }

    /// This parameter of the query is not what it should be.
    pub(super) fn query(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", detail).at(field)
    }

    /// The caller does not hold what they want to hand out.
    pub(super) fn not_held(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let reason = format!("key administration: {field} not held");
        let rejection = Rejection::new(RejectionKind::Forbidden, reason);
        Self::new(StatusCode::FORBIDDEN, "not_held", detail).at(field).because(rejection)
    }

    /// There is none, or none that the caller reaches: one answer for both.
    pub(super) fn no_such_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_key", "There is no such key.")
    }

    /// The store, or what works for it, does not answer.
    pub(super) fn away(error: impl std::fmt::Display, retry_after: Option<Duration>) -> Self {
        let rejection = Rejection::new(RejectionKind::Unavailable, format!("key administration: {error}"));
        Self::unavailable(rejection.with_retry_after(retry_after.unwrap_or(RETRY_AFTER)))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::Conflict => Self::conflict(ENDED),
            StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Throttled => {
                Self::away(&error, error.retry_after())
            }
        }
    }
}

impl From<IssueError> for Fault {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Config(error) => error.into(),
            IssueError::NoSuchKey(_) => Self::no_such_key(),
            IssueError::Ended(_) => Self::conflict(ENDED),
            IssueError::Store(error) => error.into(),
            IssueError::Random => Self::away(error, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::axum::body::to_bytes;

    use super::*;
    use crate::context::RequestId;

    #[tokio::test]
    async fn a_conflict_is_the_callers_and_everything_else_the_stores() {
        for (kind, status) in [
            (StoreErrorKind::Conflict, 409),
            (StoreErrorKind::Unavailable, 503),
            (StoreErrorKind::Corrupt, 503),
            (StoreErrorKind::Throttled, 503),
        ] {
            let fault = Fault::from(StoreError::new(kind, "test").about("key x"));
            let response = fault.to_response(RequestId::NONE);
            assert_eq!(response.status(), status, "{kind:?}");
            let body = to_bytes(response.into_body(), 4096).await.unwrap();
            assert!(!String::from_utf8_lossy(&body).contains("key x"), "{kind:?}: what happened inside stays inside");
            assert_eq!(fault.rejection().is_some(), status == 503, "{kind:?}");
        }
    }
}
