use std::{fmt, sync::Arc, time::Duration};

use ::axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
    routing::post,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    MAX_BODY, NOT_ASKED,
    fault::{RETRY_AFTER, away, unavailable},
};
use crate::{
    admin::{Moment, finished, is_of_type},
    axum::fixed_path,
    clock::{Clock, Instants, SystemClock},
    context::{SecurityContext, Stage, misordered},
    error::{ConfigError, StoreErrorKind},
    event::{self, Event, EventKind},
    gate,
    jwt::{Logout, LogoutTokens},
    mention::{Mention, Telling},
    rejection::{Rejection, RejectionKind},
    revocation::{RevocationStore, Standing},
};

/// The endpoint by which an OpenID provider says that somebody is logged out (OpenID Connect Back-Channel Logout 1.0): a `POST`
/// with the form field `logout_token`, which [`LogoutTokens`] verifies. What it names is revoked: the session (`sid`), else
/// everything that the subject (`sub`) was issued up to the token's `iat`.
///
/// | status | when |
/// |---|---|
/// | `200` | it is revoked here, and the other processes are told; or all that it could end has [ended](Self::tokens_live_for) by itself |
/// | `400` | not a form (`application/x-www-form-urlencoded`) of at most [`MAX_BODY`] with the field once; a token that is not good, was used before, or is signed by a key that this store was told of. The body is `{"error": "invalid_request"}`: it does not say why, the audit record does |
/// | `500` | the store is this process's own, and no authenticator here asks it: nothing would end. The log says so |
/// | `503` | the provider's keys or the store are away, its state is not trusted, or it is full: it is revoked in part or not at all. §2.8 has `400` for this as well; `503` tells the provider that trying again helps |
///
/// No answer may be stored (`Cache-Control: no-store`, §2.8).
///
/// The route is public: its token is its credential. Each new token costs a signature check, so let a
/// [limit per client](crate::rate_limit) stand before it.
///
/// See the [module docs](super) for an example.
#[must_use]
#[derive(Clone)]
pub struct BackchannelLogout {
    tokens: LogoutTokens,
    store: Arc<dyn RevocationStore>,
    whole_subject: bool,
    tokens_live_for: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl BackchannelLogout {
    /// Revokes in this store, which the authenticator asks, what these tokens say.
    pub fn new(tokens: LogoutTokens, store: impl RevocationStore) -> Self {
        Self {
            tokens,
            store: Arc::new(store),
            whole_subject: false,
            tokens_live_for: None,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Ends all sessions of the subject, where a token names both: for issuers whose access tokens have no `sid`, so that the end
    /// of a session would meet none of them.
    pub const fn whole_subject(mut self) -> Self {
        self.whole_subject = true;
        self
    }

    /// Says how long the issuers' tokens live at most: so long after its logout a revocation is kept. Without it a session's is kept as
    /// long as the store [keeps those](crate::revocation::RevocationLimits::kept_for) that do not say when they end, 24 h by
    /// default: whoever logs in and out all day, or one of several providers, then takes the room of all.
    ///
    /// Say the longest, in whole seconds: a token that lives longer passes again once its logout is forgotten, 15 minutes after that
    /// time. Demand it of the issuers as well, with [`max_lifetime`](crate::jwt::IssuerProfile::max_lifetime). Default: not said.
    pub const fn tokens_live_for(mut self, time: Duration) -> Self {
        self.tokens_live_for = Some(time);
        self
    }

    /// The clock, where no layer of this crate stands outside. Default [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The router, with this path as its one route.
    ///
    /// # Errors
    /// If the path does not begin with `/`, or has a parameter, a wildcard, a query or a fragment.
    pub fn router(self, path: &str) -> Result<Router, ConfigError> {
        fixed_path("back-channel logout path", path)?;
        Ok(Router::new().route(path, post(take)).with_state(self))
    }

    async fn take(&self, headers: &HeaderMap, body: Body, at: Instants) -> Result<Logout, Rejection> {
        let refuse = |reason: &'static str| Rejection::new(RejectionKind::InvalidRequest, reason);
        if !is_of_type(headers, b"application/x-www-form-urlencoded") {
            return Err(refuse("back-channel logout: not a form"));
        }
        let came = Moment::begins(at);
        let form = to_bytes(body, MAX_BODY)
            .await
            .map_err(|_| refuse("back-channel logout: the form is too long, or ended early"))?;
        // A body takes its time, and the token's is that of its arrival.
        let at = came.now();
        let mut tokens =
            form_urlencoded::parse(&form).filter(|(name, _)| name == "logout_token").map(|(_, value)| value);
        let (Some(token), None) = (tokens.next(), tokens.next()) else {
            return Err(refuse("back-channel logout: the form does not have logout_token once"));
        };
        let logout = self.tokens.verify(&token, at).await?;
        if !self.store.state().counts_for_somebody() {
            return Err(misordered(NOT_ASKED));
        }
        match self.store.state().standing_of(logout.marks(), at) {
            Standing::Good => {}
            Standing::Revoked(_) => {
                return Err(refuse("back-channel logout: the key that signed the logout token is revoked"));
            }
            Standing::Unknown => {
                let why = "revocations: the state is too old, or was never loaded";
                return Err(Rejection::new(RejectionKind::Unavailable, why).with_retry_after(RETRY_AFTER));
            }
        }
        let endpoint = self.clone();
        let ended = async move { endpoint.end(&logout, at).await.map(|()| logout) };
        finished(ended).await.map_err(|error| away(error, None))?
    }

    /// Ends what a logout names: all of it, also if the provider hangs up in between.
    async fn end(&self, logout: &Logout, at: Instants) -> Result<(), Rejection> {
        let refuse = |reason: &'static str| Rejection::new(RejectionKind::InvalidRequest, reason);
        let revocations = logout.revocations(self.whole_subject);
        for revocation in revocations.map_err(|_| refuse("back-channel logout: sid or sub is too long"))? {
            let revocation = match self.tokens_live_for {
                Some(time) => revocation.until(logout.issued_at().saturating_add(time.as_secs())),
                None => revocation,
            };
            // It comes so late that there is nothing left to end. To come again would not help.
            if self.store.state().has_ended(&revocation, at) {
                continue;
            }
            self.store.revoke(&revocation, at).await.map_err(|error| {
                if error.kind() == StoreErrorKind::Conflict {
                    return Rejection::new(RejectionKind::Unavailable, "revocations: the store is full");
                }
                unavailable(&error)
            })?;
            event::tell(
                Event::about_whom(EventKind::TokensRevoked, revocation.telling())
                    .at(at)
                    .with("by", "back-channel logout"),
            );
        }
        self.tokens.note_used(logout, at);
        Ok(())
    }
}

async fn take(State(endpoint): State<BackchannelLogout>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let context = SecurityContext::of(&head.extensions);
    let at = context.map_or_else(|| endpoint.clock.now(), SecurityContext::at);
    let mut response = match endpoint.take(&head.headers, body, at).await {
        Ok(logout) => {
            if let Some(context) = context {
                let named = [
                    ("logout.session", Mention::CredentialId, logout.session()),
                    ("logout.subject", Mention::Subject, logout.subject()),
                ];
                for (name, what, value) in
                    named.into_iter().filter_map(|(name, what, value)| Some((name, what, value?)))
                {
                    context.note_telling(name, Telling::default().bare(what, logout.issuer(), value));
                }
            }
            Response::new(Body::empty())
        }
        Err(rejection) if matches!(rejection.kind(), RejectionKind::Unavailable | RejectionKind::Misconfigured) => {
            gate::report(Stage::Authentication, &rejection, at);
            rejection.to_response()
        }
        Err(rejection) => {
            // Not a 401: the specification has one status for all that is wrong with it.
            let mut response = Response::new(Body::from(r#"{"error":"invalid_request"}"#));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(context) = context {
                context.note_telling("logout.refused", Telling::reason(rejection.reason()));
            }
            response
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl fmt::Debug for BackchannelLogout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackchannelLogout")
            .field("tokens", &self.tokens)
            .field("store", &self.store)
            .field("whole_subject", &self.whole_subject)
            .field("tokens_live_for", &self.tokens_live_for)
            .finish_non_exhaustive()
    }
}
