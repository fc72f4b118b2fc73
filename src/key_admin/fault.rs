use std::{borrow::Cow, time::Duration};

use ::axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    api_key::IssueError,
    context::RequestId,
    error::{ConfigError, StoreError, StoreErrorKind},
    rejection::{Rejection, RejectionKind},
};

/// When to come back after a store failed and did not say when.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The guard refuses; the layer outside writes the body.
    Refused(Rejection),
    /// The router does.
    Problem(Box<Problem>),
}

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    /// For the audit record, where it is a refusal.
    rejection: Option<Rejection>,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Problem(Box::new(Problem { status, code, detail: detail.into(), field: None, rejection: None }))
    }

    fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        if let Self::Problem(problem) = &mut self {
            problem.field = Some(field.into());
        }
        self
    }

    fn because(mut self, rejection: Rejection) -> Self {
        if let Self::Problem(problem) = &mut self {
            problem.rejection = Some(rejection);
        }
        self
    }

    /// The body is not what it should be.
    pub(super) fn body(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", detail)
    }

    /// This member of the body is not.
    pub(super) fn member(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::body(detail).at(field)
    }

    /// This parameter of the query is not what it should be.
    pub(super) fn query(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", detail).at(field)
    }

    /// The value is out of its bounds, or not known.
    pub(super) fn value(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail).at(field)
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

    pub(super) fn too_large() -> Self {
        let detail = format!("The body is longer than {} bytes.", super::MAX_BODY);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn not_json() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "The body must be application/json.")
    }

    fn conflict() -> Self {
        let detail = "The key was rotated before, is revoked, or has ended.";
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    pub(super) fn unavailable(reason: String, retry_after: Option<Duration>) -> Self {
        let rejection = Rejection::new(RejectionKind::Unavailable, reason);
        let rejection = rejection.with_retry_after(retry_after.unwrap_or(RETRY_AFTER));
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later.").because(rejection)
    }

    /// The answer. It may show what only this caller may see, so nobody keeps it.
    pub(super) fn to_response(&self, request_id: RequestId) -> Response {
        let problem = match self {
            Self::Refused(rejection) => {
                let mut response = rejection.clone().into_response();
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                return response;
            }
            Self::Problem(problem) => problem,
        };
        let document = Document {
            r#type: "about:blank",
            title: problem.status.canonical_reason().unwrap_or("Error"),
            status: problem.status.as_u16(),
            detail: &problem.detail,
            code: problem.code,
            field: problem.field.as_deref(),
            request_id: request_id.to_string(),
        };
        let mut response = match &problem.rejection {
            Some(rejection) => rejection.to_response::<Body>(),
            None => Response::new(Body::empty()),
        };
        *response.status_mut() = problem.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = serde_json::to_vec(&document).unwrap_or_default().into();
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    request_id: String,
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let reason = || format!("key administration: {error}");
        match error.kind() {
            StoreErrorKind::Conflict => Self::conflict(),
            StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Throttled => {
                Self::unavailable(reason(), error.retry_after())
            }
        }
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        match member_of(error.setting()) {
            Some(member) => Self::value(member, error.to_string()),
            None => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", error.to_string()),
        }
    }
}

impl From<IssueError> for Fault {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Config(error) => error.into(),
            IssueError::NoSuchKey(_) => Self::no_such_key(),
            IssueError::Ended(_) => Self::conflict(),
            IssueError::Store(error) => error.into(),
            IssueError::Random => Self::unavailable(format!("key administration: {error}"), None),
        }
    }
}

/// The member of the body that a bound of a record is about.
fn member_of(setting: &str) -> Option<&'static str> {
    Some(match setting.strip_prefix("API key ")? {
        "name" => "name",
        "subject" => "subject",
        "tenant" => "tenant",
        "plan" => "plan",
        "scope" | "scopes" => "scopes",
        "role" | "roles" => "roles",
        "address" | "addresses" => "addresses",
        "metadata" | "metadata name" | "metadata value" => "metadata",
        "start" => "not_before",
        "life" | "end" => "lifetime",
        "revocation reason" => "reason",
        "overlap" => "overlap",
        "environment" => "environment",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_the_callers_and_everything_else_the_stores() {
        for (kind, status) in [
            (StoreErrorKind::Conflict, 409),
            (StoreErrorKind::Unavailable, 503),
            (StoreErrorKind::Corrupt, 503),
            (StoreErrorKind::Throttled, 503),
        ] {
            let Fault::Problem(problem) = Fault::from(StoreError::new(kind, "test").about("key x")) else {
                panic!("{kind:?}: the guard's");
            };
            assert_eq!(problem.status, status, "{kind:?}");
            assert!(!problem.detail.contains("key x"), "{kind:?}: what happened inside stays inside");
            assert_eq!(problem.rejection.is_some(), status == 503, "{kind:?}");
        }
    }
}
