//! Asks the endpoint about a token.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::client::{ClientAuthentication, put};
use crate::{
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    http_client::{Endpoint, HttpClient, LastAnswer, Media, may_be_the_questions_fault},
    jwt::Refusal,
    log::{Seldom, chain, one_line},
    rejection::{Rejection, RejectionKind},
};

/// The longest time that a client is told to wait because the endpoint says so, in seconds.
const MAX_WAIT: u32 = 60;

/// The endpoint, and how it is asked.
pub(super) struct Asking {
    pub(super) endpoint: Endpoint,
    pub(super) http: HttpClient,
    pub(super) client: ClientAuthentication,
    /// As assertions name it.
    pub(super) issuer: Box<str>,
    pub(super) in_flight: Semaphore,
    pub(super) last: LastAnswer,
    pub(super) said: Notices,
}

/// What the operator is told, each at most once a minute.
pub(super) struct Notices {
    credentials: Seldom,
    away: Seldom,
    busy: Seldom,
    not_taken: Seldom,
    doubted: Seldom,
}

impl Notices {
    pub(super) const fn new() -> Self {
        Self {
            credentials: Seldom::new(),
            away: Seldom::new(),
            busy: Seldom::new(),
            not_taken: Seldom::new(),
            doubted: Seldom::new(),
        }
    }
}

/// What the endpoint says of a token.
pub(super) enum Said {
    Document(Bytes),
    /// It will never say anything of this one.
    Never(Refusal),
    /// It does not take the question, for which the token may be to blame: that says nothing of the endpoint.
    NotTaken(Away),
}

/// Nobody says whether the token is good: `503`, whatever the cause.
#[derive(Clone, Debug)]
pub(super) struct Away {
    cause: Arc<str>,
    wait: u32,
}

impl Away {
    pub(super) fn new(cause: impl Into<Arc<str>>) -> Self {
        Self { cause: cause.into(), wait: 1 }
    }
}

impl From<Away> for Rejection {
    fn from(away: Away) -> Self {
        Self::new(RejectionKind::Unavailable, away.cause.to_string())
            .with_retry_after(Duration::from_secs(away.wait.into()))
    }
}

impl Asking {
    /// What the endpoint says of the token; an error says that the endpoint is away.
    pub(super) async fn ask(&self, token: &str, at: Instants) -> Result<Said, Away> {
        // Nobody waits here: an endpoint that is slow must not pile up requests.
        let Ok(_place) = self.in_flight.try_acquire() else {
            let cause = format!("{}: too many tokens are asked about already", self.endpoint);
            self.said.busy.error(at, &format!("introspection: {cause}"));
            return Err(Away::new(cause));
        };
        // Wiped once it is sent; with room for all, so that it leaves nothing behind where it was before.
        let room = token.len().saturating_mul(3).saturating_add(64).saturating_add(self.client.room());
        let mut form = Zeroizing::new(String::with_capacity(room));
        let mut headers = HeaderMap::new();
        put(&mut form, "token", token.as_bytes());
        put(&mut form, "token_type_hint", b"access_token");
        if self.client.sign(&mut headers, &mut form, &self.issuer, at).is_none() {
            return Err(self.away(at, "the client assertion cannot be signed"));
        }
        let sent = self.http.post(&self.endpoint, Media::Form, Bytes::from_owner(form), headers).await;
        let response = sent.map_err(|error| match error.kind() {
            // Somebody answers: more than may be read, or a redirect.
            StoreErrorKind::Corrupt => self.doubted(at, &cause(&error)),
            _ => self.away(at, &cause(&error)),
        })?;
        match response.status() {
            StatusCode::OK => Ok(Said::Document(response.into_body())),
            StatusCode::BAD_REQUEST if error_of(&response) == Some("unsupported_token_type") => {
                Ok(Said::Never(Refusal("the provider does not introspect tokens of this kind")))
            }
            status @ StatusCode::UNAUTHORIZED => Err(self.credentials_refused(at, status, &response)),
            status @ StatusCode::FORBIDDEN if error_of(&response).is_some() => {
                Err(self.credentials_refused(at, status, &response))
            }
            // It may be a firewall on the way, that looks into the question.
            StatusCode::FORBIDDEN => {
                Err(self.doubted(at, "answers 403, to this token or to this service's own credentials"))
            }
            status if error_of(&response).is_some_and(is_about_us) => {
                Err(self.credentials_refused(at, status, &response))
            }
            status if may_be_the_questions_fault(status) => Ok(Said::NotTaken(self.not_taken(at, status, &response))),
            status => {
                let problem = answers(status, &response);
                let mut away = match status {
                    // It fails at this token, or somebody brings many. It may well answer others.
                    StatusCode::INTERNAL_SERVER_ERROR | StatusCode::TOO_MANY_REQUESTS => self.doubted(at, &problem),
                    _ => self.away(at, &problem),
                };
                if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                    away.wait = wait(&response);
                }
                Err(away)
            }
        }
    }

    /// There is no answer that can be used.
    pub(super) fn away(&self, at: Instants, problem: &str) -> Away {
        let cause = one_line(&format!("{}: {problem}", self.endpoint));
        self.said.away.error(at, &format!("introspection: no opaque token can be checked: {cause}"));
        self.last.failed(cause.as_str(), at);
        Away::new(format!("introspection: {cause}"))
    }

    /// There is no answer about this token, which may be to blame: whoever brings such a one must not make the service look away.
    pub(super) fn doubted(&self, at: Instants, problem: &str) -> Away {
        let cause = one_line(&format!("{}: {problem}", self.endpoint));
        self.said.doubted.error(at, &format!("introspection: an opaque token cannot be checked: {cause}"));
        self.last.doubted(cause.as_str(), at);
        Away::new(format!("introspection: {cause}"))
    }

    fn not_taken(&self, at: Instants, status: StatusCode, response: &Response<Bytes>) -> Away {
        let cause = format!("{} {}", self.endpoint, answers(status, response));
        self.said.not_taken.error(at, &format!("introspection: the provider does not take a question: {cause}"));
        Away::new(format!("introspection: {cause}"))
    }

    fn credentials_refused(&self, at: Instants, status: StatusCode, response: &Response<Bytes>) -> Away {
        let cause = format!("{} {}", self.endpoint, answers(status, response));
        let told =
            "introspection: the provider refuses this service's own credentials, and no opaque token can be checked";
        self.said.credentials.error(at, &format!("{told}: {cause}"));
        let cause = format!("introspection: our own credentials are refused: {cause}");
        self.last.failed(cause.as_str(), at);
        Away::new(cause)
    }
}

fn answers(status: StatusCode, response: &Response<Bytes>) -> String {
    match error_of(response) {
        Some(code) => format!("answers {} {code}", status.as_u16()),
        None => format!("answers {}", status.as_u16()),
    }
}

/// The error codes that are told (RFC 6749 §5.2, RFC 6750 §3.1, RFC 7009 §2.2.1): of the rest of the body nothing, which may
/// repeat the token.
const CODES: [&str; 11] = [
    "access_denied",
    "insufficient_scope",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_token",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
];

fn is_about_us(code: &str) -> bool {
    matches!(code, "invalid_client" | "unauthorized_client" | "access_denied")
}

fn error_of(response: &Response<Bytes>) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Answer {
        error: String,
    }
    let Answer { error } = serde_json::from_slice(response.body()).ok()?;
    CODES.into_iter().find(|code| **code == *error)
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); a date is not read.
fn wait(response: &Response<Bytes>) -> u32 {
    let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or(1).clamp(1, MAX_WAIT)
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), chain)
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("endpoint", &self.endpoint.shown())
            .field("http", &self.http)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
