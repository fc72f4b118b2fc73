//! Why a request was refused, and what the client may learn of it.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    challenge::Challenges,
    error::{StoreError, StoreErrorKind},
};

/// The kinds of refusal. Each has one status and one text for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// `400`: the request is malformed, or two credentials contradict each other (RFC 6750 §3.1 `invalid_request`).
    InvalidRequest,
    /// `400`: the target is no path, or one that could mean another one to whoever decodes it inside (RFC 3986 §6.2.2).
    InvalidPath,
    /// `401`: no credential where one is needed (RFC 9110 §15.5.2).
    Unauthenticated,
    /// `401`: a credential that is malformed, unknown, expired, revoked or for somebody else (RFC 6750 §3.1).
    InvalidCredential,
    /// `401`: the person must prove who they are more strongly, or again (RFC 9470 §3).
    InsufficientAuthentication,
    /// `403`: the identity is known and may not do this (RFC 9110 §15.5.4).
    Forbidden,
    /// `403`: another site may have caused the request, and its cookie does not count (OWASP ASVS 5.0, 3.5.1). Said before its value is
    /// read: it tells that one is there, and nothing of what is in it.
    CrossSite,
    /// `404`: there is nothing, or nothing for this identity; nobody learns which (RFC 9110 §15.5.4, §15.5.5).
    NotFound,
    /// `403`: the credential's scopes do not reach (RFC 6750 §3.1 `insufficient_scope`).
    InsufficientScope,
    /// `403`: the request came over plain HTTP (OWASP ASVS 5.0, 4.1.2).
    PlainHttp,
    /// `308`: plain HTTP is sent on to HTTPS; the reply carries `Location` (RFC 9110 §15.4.9).
    Redirect,
    /// `421`: this server does not answer for that host (RFC 9110 §15.5.20).
    Misdirected,
    /// `425`: the request may be a replay; sent again after the handshake it may pass (RFC 8470 §5.2).
    TooEarly,
    /// `429`: too many requests (RFC 6585 §4).
    RateLimited,
    /// `500`: the layers are put together wrongly. The log says how to mend it; until then nothing passes.
    Misconfigured,
    /// `503`: a backend that must be asked does not answer (RFC 9110 §15.6.4).
    Unavailable,
}

impl RejectionKind {
    /// The status that the client sees.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidPath => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::InvalidCredential | Self::InsufficientAuthentication => {
                StatusCode::UNAUTHORIZED
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Forbidden | Self::CrossSite | Self::InsufficientScope | Self::PlainHttp => StatusCode::FORBIDDEN,
            Self::Redirect => StatusCode::PERMANENT_REDIRECT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooEarly => StatusCode::TOO_EARLY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Misconfigured => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable word for programs: the `code` member of the problem document, and the label of records and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidPath => "invalid_path",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidCredential => "invalid_credential",
            Self::InsufficientAuthentication => "insufficient_user_authentication",
            Self::Forbidden => "forbidden",
            Self::CrossSite => "cross_site",
            Self::NotFound => "not_found",
            Self::InsufficientScope => "insufficient_scope",
            Self::PlainHttp => "plain_http",
            Self::Redirect => "https_required",
            Self::Misdirected => "misdirected",
            Self::TooEarly => "too_early",
            Self::RateLimited => "rate_limited",
            Self::Misconfigured => "misconfigured",
            Self::Unavailable => "unavailable",
        }
    }

    /// A sentence for the client, from a fixed table: it never depends on the request.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is malformed or carries contradicting credentials.",
            Self::InvalidPath => "The path is malformed or ambiguous.",
            Self::Unauthenticated => "This resource needs a credential.",
            Self::InvalidCredential => "The credential is not accepted.",
            Self::InsufficientAuthentication => "This resource needs a stronger or newer authentication.",
            Self::Forbidden => "The credential does not allow this.",
            Self::CrossSite => "The request may have been caused by another site.",
            Self::NotFound => "There is no such resource.",
            Self::InsufficientScope => "The credential's scopes do not allow this.",
            Self::PlainHttp => "This service answers over HTTPS only.",
            Self::Redirect => "This service answers over HTTPS only.",
            Self::Misdirected => "This server does not answer for that host.",
            Self::TooEarly => "The request came before the handshake was done; send it again.",
            Self::RateLimited => "Too many requests; try again later.",
            Self::Misconfigured => "The service is not set up correctly.",
            Self::Unavailable => "The service cannot decide right now; try again later.",
        }
    }
}

/// A refusal: a kind, what the client needs to react (challenges, `Retry-After`, `Location`), and a reason that only the
/// operator sees.
///
/// Layers turn it into a response with [`to_response`](Self::to_response): status and headers, an empty body, and the
/// rejection itself in the response extensions, where [`ProblemLayer`](crate::problem::ProblemLayer) finds it. A
/// `Stack` renders its own refusals on the spot and leaves no extension.
///
/// ```
/// use portcullis::{Rejection, RejectionKind};
///
/// let rejection = Rejection::new(RejectionKind::Forbidden, "order belongs to somebody else");
/// let response = rejection.to_response::<String>();
/// assert_eq!(response.status(), 403);
/// assert!(response.body().is_empty());
/// ```
///
/// A clone costs one reference count.
#[derive(Clone)]
pub struct Rejection {
    /// Thin, so that an answer that is good is not moved around with room for one that is not.
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: RejectionKind,
    reason: Cow<'static, str>,
    challenges: Challenges,
    retry_after: Option<u32>,
    headers: Vec<(HeaderName, HeaderValue)>,
    violated_policy: Option<Arc<str>>,
}

impl Rejection {
    /// Refuses, for a reason that the log and the audit record show and the client does not. It must not hold a secret.
    pub fn new(kind: RejectionKind, reason: impl Into<Cow<'static, str>>) -> Self {
        let inner = Inner {
            kind,
            reason: reason.into(),
            challenges: Challenges::none(),
            retry_after: None,
            headers: Vec::new(),
            violated_policy: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sends these challenges along.
    #[must_use]
    pub fn with_challenges(mut self, challenges: Challenges) -> Self {
        Arc::make_mut(&mut self.inner).challenges = challenges;
        self
    }

    /// Says how long to wait before coming back: `Retry-After` (RFC 9110 §10.2.3), in whole seconds, rounded up, at least one.
    /// Default: not known, and no field.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        Arc::make_mut(&mut self.inner).retry_after = Some(whole_seconds(wait));
        self
    }

    /// Sends a header along, such as `Location` with [`RejectionKind::Redirect`] or `RateLimit` with
    /// [`RejectionKind::RateLimited`].
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.push_header(name, value);
        self
    }

    pub(crate) fn push_header(&mut self, name: HeaderName, value: HeaderValue) {
        Arc::make_mut(&mut self.inner).headers.push((name, value));
    }

    /// Names the quota policy that refuses: a problem document shows it in `violated-policies`
    /// (draft-ietf-httpapi-ratelimit-headers-10 §5).
    #[must_use]
    pub fn with_violated_policy(mut self, name: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.inner).violated_policy = Some(name.into());
        self
    }

    /// What kind of refusal it is.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.inner.kind
    }

    /// The status that the client sees.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind().status()
    }

    /// The operator's reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.inner.reason
    }

    /// How long to wait before coming back, in whole seconds: `Retry-After`, and the delay of gRPC's `RetryInfo`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_seconds().map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The same as a number.
    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        self.inner.retry_after
    }

    /// The quota policy that refuses.
    #[must_use]
    pub fn violated_policy(&self) -> Option<&str> {
        self.inner.violated_policy.as_deref()
    }

    /// The challenges that go along.
    #[must_use]
    pub fn challenges(&self) -> &Challenges {
        &self.inner.challenges
    }

    /// Makes the response: status, headers, an empty body, and the rejection in the extensions.
    #[must_use]
    pub fn to_response<B: Default>(&self) -> Response<B> {
        let mut response = self.head();
        response.extensions_mut().insert(self.clone());
        response
    }

    /// As [`to_response`](Self::to_response), for who needs the rejection no more.
    pub(crate) fn become_response<B: Default>(self) -> Response<B> {
        let mut response = self.head();
        response.extensions_mut().insert(self);
        response
    }

    /// Kind and reason, for the record.
    pub(crate) fn facts(&self) -> (RejectionKind, Cow<'static, str>) {
        (self.inner.kind, self.inner.reason.clone())
    }

    /// The response without the extension, for who renders the body on the spot.
    pub(crate) fn head<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        for challenge in self.challenges().values() {
            headers.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(seconds) = self.inner.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in &self.inner.headers {
            headers.append(name.clone(), value.clone());
        }
        if matches!(self.kind(), RejectionKind::RateLimited | RejectionKind::Misconfigured | RejectionKind::Unavailable)
        {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

/// The wait that `Retry-After` tells: rounded up, because who comes back earlier is sent away again, and at least one.
pub(crate) fn whole_seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection").field("kind", &self.kind()).field("reason", &self.reason()).finish_non_exhaustive()
    }
}

impl From<StoreError> for Rejection {
    /// `503`, or `429` if the store was not asked, with the store's `Retry-After` if it told one.
    fn from(error: StoreError) -> Self {
        Self::unanswered(&error, error.to_string())
    }
}

impl Rejection {
    /// A store did not answer; the reason is the operator's.
    pub(crate) fn unanswered(error: &StoreError, reason: String) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::Throttled => RejectionKind::RateLimited,
            StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Conflict => {
                RejectionKind::Unavailable
            }
        };
        error.retry_after().into_iter().fold(Self::new(kind, reason), Self::with_retry_after)
    }
}

impl fmt::Display for Rejection {
    /// What the client may read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().detail())
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::challenge::Challenge;

    #[test]
    fn what_the_client_sees_never_holds_the_reason() {
        let rejection = Rejection::new(RejectionKind::InvalidCredential, "kid 4711 unknown");
        assert!(!rejection.to_string().contains("4711"));
        assert!(!format!("{:?}", rejection.to_response::<String>().headers()).contains("4711"));
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_nanos(1), 1),
            (Duration::from_secs(7), 7),
            (Duration::from_millis(1_900), 2),
            (Duration::MAX, u32::MAX),
        ] {
            let rejection = Rejection::new(RejectionKind::RateLimited, "").with_retry_after(wait);
            assert_eq!(rejection.retry_after(), Some(Duration::from_secs(seconds.into())), "{wait:?}");
            assert_eq!(rejection.to_response::<()>().headers()[header::RETRY_AFTER], seconds.to_string(), "{wait:?}");
        }
    }

    #[test]
    fn one_line_for_each_challenge() {
        let challenges =
            ["Bearer", "ApiKey"].into_iter().map(|scheme| Challenge::new(scheme, "api").unwrap()).collect();
        let rejection = Rejection::new(RejectionKind::Unauthenticated, "").with_challenges(challenges);
        assert_eq!(rejection.to_response::<()>().headers().get_all(header::WWW_AUTHENTICATE).iter().count(), 2);
    }
}
