use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    body::{BodyWatch, ResponseBody},
    clock::{Clock, Instants, SystemClock},
    context::{Envelope, SecurityContext, Stage, misordered},
    error::ConfigError,
    gate::{contained, refused},
    head::RequestHead,
    rate_limit::{
        LimitBy, OnMissingKey,
        by::Owned,
        headers::{RATELIMIT, RATELIMIT_POLICY, string},
        plan::WIDE_FACTOR,
        quota::valid_name,
        running::{Place, Running},
    },
    rejection::{Rejection, RejectionKind},
    shadow::{Shadow, ShadowMode},
    trail::{LimitFact, LimitState, Trail},
};

/// Limits how many requests run at the same time: of each client, each principal, or of [what you say](LimitBy).
///
/// A request runs from here until its response's body was handed out, failed or was dropped, or until the request itself was
/// given up or panicked. A body that cannot be [watched](ResponseBody::watch) counts as done at its head. One too many is
/// refused with `429` and `Retry-After: 1`, and is not counted.
///
/// What leaves HTTP behind is counted up to its head: a WebSocket (`101`) and what CONNECT opens have no body, and go on uncounted.
/// A handler that opens such ones counts them itself: see [how many at once](crate::manual::long_lived#how-many-at-once).
///
/// | setting | default |
/// |---|---|
/// | policy name | `concurrent` |
/// | no key | as a [`RateLimitLayer`](super::RateLimitLayer) has it |
/// | IPv6 | a /64 has the limit, and its /48 sixteen times that |
/// | response fields | `RateLimit-Policy: "concurrent";q=10;qu="concurrent-requests"`, and what is left in `RateLimit` |
///
/// Counts are this process's own. There is one for each key that has requests running, so they take no more memory than those
/// do. Clones count together.
///
/// ```
/// use portcullis::rate_limit::ConcurrencyLayer;
///
/// let limit = ConcurrencyLayer::per_principal(10)?;
/// # let _ = limit;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone)]
pub struct ConcurrencyLayer {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    by: LimitBy,
    on_missing: Option<OnMissingKey>,
    most: u32,
    wide: bool,
    name: Cow<'static, str>,
    policy: HeaderValue,
    send_fields: bool,
    clock: Arc<dyn Clock>,
    running: Arc<Running>,
    shadow: Option<Shadow>,
}

impl ConcurrencyLayer {
    /// At most this many at the same time from each client network. It stands before authentication.
    ///
    /// # Errors
    /// [`ConfigError`] if it is zero.
    pub fn per_client(most: u32) -> Result<Self, ConfigError> {
        Self::per(LimitBy::source(), most)
    }

    /// At most this many at the same time of each principal. It stands inside authentication; requests without an identity
    /// pass uncounted.
    ///
    /// # Errors
    /// [`ConfigError`] if it is zero.
    pub fn per_principal(most: u32) -> Result<Self, ConfigError> {
        Self::per(LimitBy::principal(), most)
    }

    /// At most this many at the same time of each of what you say.
    ///
    /// # Errors
    /// [`ConfigError`] if it is zero.
    pub fn per(by: LimitBy, most: u32) -> Result<Self, ConfigError> {
        if most == 0 {
            return Err(ConfigError::new("concurrent requests", "0", "must be at least 1"));
        }
        let name = Cow::Borrowed("concurrent");
        let shared = Shared {
            by,
            on_missing: None,
            most,
            wide: true,
            policy: policy(&name, most)?,
            name,
            send_fields: true,
            clock: Arc::new(SystemClock),
            running: Arc::new(Running::default()),
            shadow: None,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn edit(mut self, edit: impl FnOnce(&mut Shared)) -> Self {
        edit(Arc::make_mut(&mut self.shared));
        self
    }

    /// Names the policy in the response fields.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 1 to [`MAX_POLICY_NAME_LEN`](super::MAX_POLICY_NAME_LEN) printable ASCII characters.
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Result<Self, ConfigError> {
        let name = name.into();
        valid_name(&name)?;
        let policy = policy(&name, self.shared.most)?;
        Ok(self.edit(|shared| (shared.name, shared.policy) = (name, policy)))
    }

    /// Says what happens to requests without a key.
    pub fn on_missing_key(self, choice: OnMissingKey) -> Self {
        self.edit(|shared| shared.on_missing = Some(choice))
    }

    /// Counts no /48 around an IPv6 /64. Whoever has one then has 65 536 times the limit.
    pub fn dangerous_without_wide_networks(self) -> Self {
        self.edit(|shared| shared.wide = false)
    }

    /// Sends no `RateLimit` and no `RateLimit-Policy`. `Retry-After` stays.
    pub fn without_headers(self) -> Self {
        self.edit(|shared| shared.send_fields = false)
    }

    /// Reads this clock, if this layer is the outermost of the crate's: whoever is outermost reads the time for all.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.edit(|shared| shared.clock = Arc::new(clock))
    }

    /// Tries the limit out on live traffic until a day: it counts as ever, refuses nobody, and marks in the audit record who would
    /// have been refused, with `limit_would_refuse` and its policy's [name](Self::named). Who would have been refused runs
    /// uncounted, as it would not have run. It sends no response fields. From that day on it refuses. None by default.
    ///
    /// What is in the wrong place refuses all the same. Two limits of one stack need names of their own to be told apart in
    /// events and metrics.
    ///
    /// ```
    /// use portcullis::{ShadowMode, rate_limit::ConcurrencyLayer};
    ///
    /// # let day = "2026-01-15";
    /// // let day = "2026-12-24";
    /// let limit = ConcurrencyLayer::per_principal(10)?.named("at-once")?.shadow(ShadowMode::until(day)?);
    /// assert_eq!(limit.would_refuse(), 0);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn shadow(self, mode: ShadowMode) -> Self {
        self.edit(|shared| shared.shadow = Some(Shadow::new(mode)))
    }

    /// Tells at start, and in audit, that it is in shadow mode.
    #[cfg(feature = "stack")]
    pub(crate) fn announce(&self, at: Instants) {
        if let Some(shadow) = &self.shared.shadow {
            shadow.announce(at, &self.shared.about());
        }
    }

    /// How many requests run now.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.shared.running.all()
    }

    /// How many requests of this limit and its clones would have been refused, and passed because of [shadow
    /// mode](Self::shadow).
    #[must_use]
    pub fn would_refuse(&self) -> u64 {
        self.shared.shadow.as_ref().map_or(0, Shadow::would_refuse)
    }

    /// The fields that it counts by.
    #[cfg(feature = "stack")]
    pub(crate) fn fields(&self) -> impl Iterator<Item = &http::HeaderName> {
        self.shared.by.fields()
    }

    pub(crate) fn stage(&self) -> Stage {
        if self.shared.by.needs_identity() { Stage::PrincipalLimit } else { Stage::ClientLimit }
    }

    /// Lets one more run, or refuses; none if it is not counted.
    pub(crate) fn admit(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Result<Option<Permit>, Rejection> {
        let (shared, at) = (&*self.shared, envelope.at);
        let in_shadow = shared.in_shadow(at);
        match self.enter(head, envelope, !in_shadow && shared.send_fields) {
            Err(rejection) if in_shadow && rejection.kind() != RejectionKind::Misconfigured => {
                shared.would_refuse(&mut envelope.trail);
                Ok(None)
            }
            answer => answer,
        }
    }

    fn enter(
        &self,
        head: &RequestHead<'_>,
        envelope: &mut Envelope,
        send_fields: bool,
    ) -> Result<Option<Permit>, Rejection> {
        let shared = &*self.shared;
        let mut owned = Owned::default();
        let Some(parts) = shared.by.find(head, envelope, &mut owned, shared.on_missing)? else { return Ok(None) };
        let (place, left) = shared.running.take(&parts, shared.most, 1).ok_or_else(|| self.refuse())?;
        let around = if shared.wide { parts.around() } else { None };
        let (around, left) = match around {
            None => (None, left),
            Some(around) => {
                let most = shared.most.saturating_mul(WIDE_FACTOR);
                let (around, left_around) = shared.running.take(&around, most, 0).ok_or_else(|| self.refuse())?;
                (Some(around), left.min(left_around))
            }
        };
        let fields = send_fields.then(|| self.clone());
        Ok(Some(Permit { fields, left, places: (place, around) }))
    }

    fn refuse(&self) -> Rejection {
        let shared = &*self.shared;
        let rejection = Rejection::new(RejectionKind::RateLimited, "too many requests at the same time")
            .with_violated_policy(&*shared.name)
            .with_retry_after(std::time::Duration::from_secs(1));
        if !shared.send_fields {
            return rejection;
        }
        let rejection = rejection.with_header(RATELIMIT_POLICY, shared.policy.clone());
        match left(&shared.name, 0) {
            Some(limit) => rejection.with_header(RATELIMIT, limit),
            None => rejection,
        }
    }
}

impl Shared {
    /// Whether it is only tried out.
    fn in_shadow(&self, at: Instants) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.is_on(at, || self.about()))
    }

    fn about(&self) -> String {
        format!("concurrency limit {}", self.name)
    }

    fn would_refuse(&self, trail: &mut Trail) {
        if let Some(shadow) = &self.shadow {
            shadow.count();
        }
        trail.flag("limit_would_refuse");
        let (scope, state) = (self.name.clone(), LimitState::WouldRefuse);
        trail.limited(LimitFact { scope, state, degraded: false, remaining: None, retry_after_nanos: None });
    }
}

fn policy(name: &str, most: u32) -> Result<HeaderValue, ConfigError> {
    let field = format!(r#"{};q={most};qu="concurrent-requests""#, string(name));
    HeaderValue::try_from(&field)
        .map_err(|error| ConfigError::new("policy name", field, "is not a field value").caused_by(error))
}

fn left(name: &str, left: u32) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{};r={left}", string(name))).ok()
}

impl fmt::Debug for ConcurrencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLayer")
            .field("by", &self.shared.by)
            .field("most", &self.shared.most)
            .field("running", &self.running())
            .field("shadow", &self.shared.shadow)
            .finish_non_exhaustive()
    }
}

/// A request that runs. Whoever holds the last of it lets the next one in.
pub(crate) struct Permit {
    fields: Option<ConcurrencyLayer>,
    left: u32,
    /// Its own, and that of the network around it.
    places: (Place, Option<Place>),
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Permit {
    /// Hands the place to the response's body.
    pub(crate) fn follow<B: ResponseBody>(self, mut response: Response<B>) -> Response<B> {
        if let Some(layer) = &self.fields {
            let headers: &mut HeaderMap = response.headers_mut();
            headers.append(RATELIMIT_POLICY, layer.shared.policy.clone());
            if let Some(limit) = left(&layer.shared.name, self.left) {
                headers.append(RATELIMIT, limit);
            }
        }
        let places = self.places;
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| body.watch(BodyWatch::new(move |_| drop(places))))
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Concurrency<S> {
        Concurrency { inner, layer: self.clone() }
    }
}

/// Middleware that [`ConcurrencyLayer`] applies.
#[derive(Clone, Debug)]
pub struct Concurrency<S> {
    inner: S,
    layer: ConcurrencyLayer,
}

impl<S, B, R> Service<Request<B>> for Concurrency<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: ResponseBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        SecurityContext::of_or_open(request.extensions_mut(), &*self.layer.shared.clock);
        let stage = self.layer.stage();
        let context = SecurityContext::of(request.extensions()).ok_or_else(|| misordered("the context is gone"));
        let answer = context.and_then(|context| {
            context.with(|envelope| {
                let answer = contained(envelope, |envelope| {
                    envelope.begin(stage)?;
                    self.layer.admit(&RequestHead::of(&request), envelope)
                })
                .unwrap_or_else(|(_, rejection)| Err(rejection));
                match &answer {
                    Ok(_) => envelope.passed(),
                    Err(rejection) => refused(stage, envelope, rejection),
                }
                answer
            })
        });
        let state = match answer {
            Ok(permit) => State::Forward { inner: self.inner.call(request), permit },
            Err(rejection) => State::Refuse { rejection },
        };
        ConcurrencyFuture { state }
    }
}

pin_project! {
    /// Response future of [`Concurrency`].
    #[derive(Debug)]
    pub struct ConcurrencyFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Forward { #[pin] inner: F, permit: Option<Permit> },
        Refuse { rejection: Rejection },
    }
}

impl<F, R, E> Future for ConcurrencyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: ResponseBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Forward { inner, permit } => {
                let answer = ready!(inner.poll(cx));
                // A service that failed has no body, and runs no longer.
                let permit = permit.take();
                answer.map(|response| match permit {
                    Some(permit) => permit.follow(response),
                    None => response,
                })
            }
            StateProj::Refuse { rejection } => Ok(rejection.to_response()),
        })
    }
}
