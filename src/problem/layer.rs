use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    body::{ResponseBody, content_length},
    clock::SystemClock,
    context::{SecurityContext, Stage},
    gate::report,
    problem::render::{self, NotFoundApart, ProblemDetails, RejectionRenderer, render_into},
    rejection::Rejection,
};

/// Applies [`Problem`]. See the [module docs](super) for an example.
#[must_use]
#[derive(Clone, Debug)]
pub struct ProblemLayer {
    renderer: Arc<dyn RejectionRenderer>,
}

impl ProblemLayer {
    /// Renders problem details (RFC 9457).
    pub fn new() -> Self {
        Self::with_renderer(ProblemDetails::new())
    }

    /// Renders with this.
    pub fn with_renderer(renderer: impl RejectionRenderer) -> Self {
        Self { renderer: Arc::new(renderer) }
    }

    /// Renders with this what is not there ([`NotFound`](crate::RejectionKind::NotFound)), as the application itself does:
    /// what a guard [hides](crate::guard::GuardLayer::hide) then looks the same.
    pub fn not_found(self, renderer: impl RejectionRenderer) -> Self {
        Self::with_renderer(NotFoundApart { not_found: Arc::new(renderer), others: self.renderer })
    }
}

impl Default for ProblemLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ProblemLayer {
    type Service = Problem<S>;

    fn layer(&self, inner: S) -> Problem<S> {
        Problem { inner, renderer: Arc::clone(&self.renderer) }
    }
}

/// Middleware that [`ProblemLayer`] applies.
#[derive(Clone, Debug)]
pub struct Problem<S> {
    inner: S,
    renderer: Arc<dyn RejectionRenderer>,
}

impl<S, B, R> Service<Request<B>> for Problem<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: ResponseBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = SecurityContext::of_or_open(request.extensions_mut(), &SystemClock);
        let (entered, id) = context.with_mut(|envelope| {
            let entered = envelope.enter(Stage::Problem);
            if let Err(rejection) = &entered {
                report(Stage::Problem, rejection, envelope.at);
            }
            (entered, envelope.request_id)
        });
        let rendering = render::Request::of(&request, Some(id));
        let state = match entered {
            Ok(()) => State::Forward { inner: self.inner.call(request) },
            Err(rejection) => State::Refuse { rejection },
        };
        ResponseFuture { state, rendering, renderer: Arc::clone(&self.renderer) }
    }
}

pin_project! {
    /// Response future of [`Problem`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        rendering: render::Request,
        renderer: Arc<dyn RejectionRenderer>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Forward { #[pin] inner: F },
        Refuse { rejection: Rejection },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: ResponseBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = match this.state.project() {
            StateProj::Forward { inner } => ready!(inner.poll(cx))?,
            StateProj::Refuse { rejection } => rejection.to_response(),
        };
        render_rejection(&**this.renderer, this.rendering, &mut response);
        Poll::Ready(Ok(response))
    }
}

/// Renders the rejection that a response carries, if it carries one and nobody wrote a body yet.
pub(crate) fn render_rejection<B: ResponseBody>(
    renderer: &dyn RejectionRenderer,
    request: &render::Request,
    response: &mut Response<B>,
) {
    if let Some(rejection) = response.extensions().get::<Rejection>()
        && response.body().is_end_stream()
        // To HEAD a router tells the length of a body that it has taken away.
        && content_length(response.headers()).is_none_or(|length| length == 0)
    {
        let rejection = rejection.clone();
        render_into(renderer, &rejection, request, response);
    }
}
