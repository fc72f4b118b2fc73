use std::borrow::Cow;

use ::axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{context::RequestId, error::ConfigError, rejection::Rejection};

/// Why a request is not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The guard refuses; the layer outside writes the body.
    Refused(Rejection),
    /// The router does.
    Problem(Box<Problem>),
}

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    /// For the audit record, where it is a refusal.
    rejection: Option<Rejection>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Problem(Box::new(Problem { status, code, detail: detail.into(), field: None, rejection: None }))
    }

    /// Names the member or parameter that it is about.
    pub(crate) fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        if let Self::Problem(problem) = &mut self {
            problem.field = Some(field.into());
        }
        self
    }

    /// Says what stands behind it.
    pub(crate) fn because(mut self, rejection: Rejection) -> Self {
        if let Self::Problem(problem) = &mut self {
            problem.rejection = Some(rejection);
        }
        self
    }

    /// The body is not what it should be.
    pub(crate) fn body(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", detail)
    }

    /// A value is out of its bounds, or not known.
    pub(crate) fn value(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail)
    }

    pub(super) fn too_large(longest: usize) -> Self {
        let detail = format!("The body is longer than {longest} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn not_json() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "The body must be application/json.")
    }

    pub(crate) fn conflict(detail: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    pub(crate) fn unavailable(rejection: Rejection) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later.").because(rejection)
    }

    /// What stands behind it, for the record and the log.
    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            Self::Problem(problem) => problem.rejection.as_ref(),
        }
    }

    /// The answer. It may show what only this caller may see, so nobody keeps it.
    pub(crate) fn to_response(&self, request_id: RequestId) -> Response {
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

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        let fault = Self::value(error.to_string());
        match member_of(error.setting()) {
            Some(member) => fault.at(member),
            None => fault,
        }
    }
}

/// The member of the body that a bound of a record, or of a revocation, is about.
fn member_of(setting: &str) -> Option<&'static str> {
    let what = setting.strip_prefix("API key ").or_else(|| setting.strip_suffix(" of a revocation"))?;
    Some(match what {
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
        "issuer" => "issuer",
        "exp" => "exp",
        _ => return None,
    })
}
