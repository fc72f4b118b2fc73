use std::{borrow::Cow, time::Duration};

use ::axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{NOT_ASKED, RevokeError};
use crate::{
    context::{RequestId, misordered},
    error::{ConfigError, StoreError, StoreErrorKind},
    rejection::{Rejection, RejectionKind},
};

/// When to come back after a store failed and did not say when.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The guard refuses; the layer outside writes the body.
    Refused(Rejection),
    /// The router does. The rejection is for the audit record.
    Problem(StatusCode, &'static str, Cow<'static, str>, Option<Rejection>),
}

impl Fault {
    pub(super) fn body(detail: &'static str) -> Self {
        Self::Problem(StatusCode::BAD_REQUEST, "invalid_body", detail.into(), None)
    }

    pub(super) fn value(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail.into(), None)
    }

    pub(super) fn too_large() -> Self {
        let detail = "The body is longer than 64 KiB.".into();
        Self::Problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, None)
    }

    pub(super) fn not_json() -> Self {
        let detail = "The body must be application/json.".into();
        Self::Problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail, None)
    }

    /// What stands behind it, for the record and the log.
    pub(super) const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Refused(rejection) | Self::Problem(.., Some(rejection)) => Some(rejection),
            Self::Problem(.., None) => None,
        }
    }

    /// The answer, which nobody keeps.
    pub(super) fn to_response(&self, request_id: RequestId) -> Response {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            request_id: String,
        }

        let (status, code, detail, rejection) = match self {
            Self::Refused(rejection) => return rejection.clone().into_response(),
            Self::Problem(status, code, detail, rejection) => (*status, code, detail, rejection),
        };
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            code,
            request_id: request_id.to_string(),
        };
        let mut response = match rejection {
            Some(rejection) => rejection.to_response::<Body>(),
            None => Response::new(Body::empty()),
        };
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = serde_json::to_vec(&document).unwrap_or_default().into();
        response
    }
}

/// A store that does not answer, as a refusal.
pub(super) fn unavailable(error: &StoreError) -> Rejection {
    let rejection = Rejection::new(RejectionKind::Unavailable, format!("revocations: {error}"));
    rejection.with_retry_after(error.retry_after().unwrap_or(RETRY_AFTER))
}

/// The runtime ended while the store worked.
pub(super) fn interrupted(error: &tokio::task::JoinError) -> Rejection {
    Rejection::new(RejectionKind::Unavailable, format!("revocations: {error}")).with_retry_after(RETRY_AFTER)
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::value(error.to_string())
    }
}

impl From<RevokeError> for Fault {
    fn from(error: RevokeError) -> Self {
        let error = match error {
            RevokeError::Config(error) => return error.into(),
            RevokeError::Store(error) => error,
            RevokeError::NotAsked => {
                let rejection = misordered(NOT_ASKED);
                let (status, code, detail) = (rejection.status(), rejection.kind().code(), rejection.kind().detail());
                return Self::Problem(status, code, detail.into(), Some(rejection));
            }
        };
        match error.kind() {
            StoreErrorKind::Conflict => {
                let detail = "There is no room for more revocations. Nothing was revoked.";
                Self::Problem(StatusCode::CONFLICT, "conflict", detail.into(), None)
            }
            StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Throttled => {
                let rejection = Some(unavailable(&error));
                Self::Problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later.".into(), rejection)
            }
        }
    }
}
