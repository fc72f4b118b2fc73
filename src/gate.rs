//! The one service and the one future that every single layer is.
//!
//! A layer brings a decision over the request head; the gate asks it, passes the request on or refuses, and amends the
//! response. A decision that is there at once costs no box and no clone of the inner service. One that waits takes the
//! head into a boxed future, while the body and the inner service that was found ready stay here.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    clock::{Clock, Instants, SystemClock},
    context::{Envelope, SecurityContext, Stage, misordered},
    head::RequestHead,
    log,
    now::Now,
    rejection::{Rejection, RejectionKind},
};

/// What a stage decides. [`Gate`] and the fused stack call the same two functions.
pub(crate) trait Step: fmt::Debug + Clone + Send + Sync + 'static {
    /// What the response needs to know of the decision.
    type Memo: Amend;

    /// Where the stage stands.
    fn stage(&self) -> Stage;

    /// The clock that is read if this stage opens the context.
    fn clock(&self) -> &dyn Clock {
        &SystemClock
    }

    /// Decides, if the answer is in memory. The envelope is the caller's own until then.
    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Self::Memo, Rejection>>;

    /// Decides what [`decide_now`](Self::decide_now) could not.
    fn decide(
        &self,
        head: RequestHead<'_>,
        envelope: &mut Envelope,
    ) -> impl Future<Output = Result<Self::Memo, Rejection>> + Send;

    /// Changes the header fields of a request that passes.
    fn amend_request(&self, memo: &Self::Memo, headers: &mut HeaderMap) {
        let _ = (memo, headers);
    }
}

/// What a stage adds to a response that passes it, refusals from further inside included.
pub(crate) trait Amend: fmt::Debug + Send + 'static {
    fn amend(self, status: StatusCode, headers: &mut HeaderMap);
}

impl Amend for () {
    fn amend(self, _: StatusCode, _: &mut HeaderMap) {}
}

/// Begins the stage and asks it.
pub(crate) fn ask_now<T: Step>(
    step: &T,
    head: &RequestHead<'_>,
    envelope: &mut Envelope,
) -> Now<Result<T::Memo, Rejection>> {
    match envelope.begin(step.stage()) {
        Ok(()) => step.decide_now(head, envelope),
        Err(rejection) => Now::Known(Err(rejection)),
    }
}

/// A refusal, and the stage that it comes from.
pub(crate) type Refusal = (Stage, Rejection);

/// Runs a decision, parts of which may be the user's own. One that panics refuses its request: unwinding through the server would cut
/// the connection without an answer, and a proxy would ask the next server the same.
pub(crate) fn contained<T>(envelope: &mut Envelope, decide: impl FnOnce(&mut Envelope) -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(|| decide(envelope))).map_err(|_| panicked(envelope))
}

/// The same for one that waits: None if it [panicked].
pub(crate) async fn contained_waiting<F: Future>(decision: F) -> Option<F::Output> {
    let mut decision = pin!(decision);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| decision.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The refusal of a request over which the stage that decides panicked. The panic's own message went to the process's hook.
pub(crate) fn panicked(envelope: &mut Envelope) -> Refusal {
    static SAID: [log::Seldom; 8] = [const { log::Seldom::new() }; 8];
    let stage = envelope.deciding.unwrap_or(Stage::Evidence);
    envelope.panicked = true;
    let reason = format!("{} panicked", stage.as_str());
    if let Some(said) = SAID.get(stage as usize) {
        said.error(envelope.at, &format!("a request is refused, because what decides in the stage {reason}"));
    }
    (stage, Rejection::new(RejectionKind::Unavailable, reason))
}

/// Says what the operator must mend, at most once a minute for each stage.
pub(crate) fn report(stage: Stage, rejection: &Rejection, at: Instants) {
    static SAID: [log::Seldom; 8] = [const { log::Seldom::new() }; 8];
    if rejection.kind() == RejectionKind::Misconfigured
        && let Some(said) = SAID.get(stage as usize)
    {
        said.error(at, rejection.reason());
    }
}

/// Middleware that a single layer applies: [`TlsLayer`](crate::tls::TlsLayer), [`AuthnLayer`](crate::authn::AuthnLayer)
/// and so on. `T` is that layer.
#[derive(Clone, Debug)]
pub struct Gate<S, T> {
    inner: S,
    step: T,
}

impl<S, T> Gate<S, T> {
    pub(crate) const fn new(inner: S, step: T) -> Self {
        Self { inner, step }
    }
}

impl<S, T, B, R> Service<Request<B>> for Gate<S, T>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    T: Step,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, T, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // A context that is opened here is this gate's own until the request goes on: it needs no lock.
        let mut opened = None;
        let answer = {
            let head = RequestHead::of(&request);
            match SecurityContext::of(request.extensions()) {
                Some(context) => context.with(|envelope| ask(&self.step, &head, envelope)),
                None => opened
                    .insert(SecurityContext::open(self.step.clock().now()))
                    .with_mut(|envelope| ask(&self.step, &head, envelope)),
            }
        };
        // The future is made where it is returned: moves would cost more than the decision.
        match answer {
            Now::Known(Ok(memo)) => {
                if let Some(context) = opened {
                    request.extensions_mut().insert(context);
                }
                self.step.amend_request(&memo, request.headers_mut());
                ResponseFuture { state: State::Forward { inner: self.inner.call(request), memo: Some(memo) } }
            }
            Now::Known(Err(rejection)) => ResponseFuture { state: State::Refuse { rejection: Some(rejection) } },
            Now::Wait => {
                if let Some(context) = opened {
                    request.extensions_mut().insert(context);
                }
                let context = SecurityContext::of_or_open(request.extensions_mut(), self.step.clock()).clone();
                let (parts, body) = request.into_parts();
                let unready = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, unready);
                let decision: Decision<T::Memo> = Box::pin(wait(self.step.clone(), context, parts));
                ResponseFuture { state: State::Wait { decision, held: Some((ready, body)) } }
            }
        }
    }
}

/// Asks, and notes a refusal.
fn ask<T: Step>(step: &T, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<T::Memo, Rejection>> {
    let answer = contained(envelope, |envelope| ask_now(step, head, envelope))
        .unwrap_or_else(|(_, rejection)| Now::Known(Err(rejection)));
    match &answer {
        Now::Known(Ok(_)) => envelope.passed(),
        Now::Known(Err(rejection)) => refused(step.stage(), envelope, rejection),
        Now::Wait => {}
    }
    answer
}

/// Notes a refusal for the record, and reports it if it is the operator's to mend.
pub(crate) fn refused(stage: Stage, envelope: &mut Envelope, rejection: &Rejection) {
    report(stage, rejection, envelope.at);
    let (kind, reason) = rejection.facts();
    envelope.refused = Some((stage, kind, reason));
}

async fn wait<T: Step>(step: T, context: SecurityContext, mut parts: Parts) -> (Parts, Result<T::Memo, Rejection>) {
    #[cfg(feature = "rate-limit")]
    let start = step.clock().now();
    let answer = {
        let mut envelope = context.check_out();
        let answer = contained_waiting(step.decide(RequestHead::of_parts(&parts), &mut envelope)).await;
        let answer = answer.unwrap_or_else(|| Err(panicked(&mut envelope).1));
        // For the limits further inside. By one clock, which need not be that of who opened the context.
        #[cfg(feature = "rate-limit")]
        {
            envelope.waited = envelope.waited.saturating_add(step.clock().now().since(start));
        }
        answer
    };
    match answer {
        Ok(memo) => {
            context.with(Envelope::passed);
            step.amend_request(&memo, &mut parts.headers);
            (parts, Ok(memo))
        }
        Err(rejection) => {
            context.with(|envelope| refused(step.stage(), envelope, &rejection));
            (parts, Err(rejection))
        }
    }
}

const FINISHED: &str = "polled after it was finished";

type Decision<M> = Pin<Box<dyn Future<Output = (Parts, Result<M, Rejection>)> + Send>>;

pin_project! {
    /// Response future of [`Gate`].
    pub struct ResponseFuture<S, T, B, F>
    where
        T: Step,
    {
        #[pin]
        state: State<S, T::Memo, B, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, M, B, F> {
        Forward { #[pin] inner: F, memo: Option<M> },
        Refuse { rejection: Option<Rejection> },
        Wait { decision: Decision<M>, held: Option<(S, B)> },
    }
}

impl<S, T: Step, B, F> fmt::Debug for ResponseFuture<S, T, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, T, B, R> Future for ResponseFuture<S, T, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>>,
    T: Step,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Forward { inner, memo } => {
                    let mut response = ready!(inner.poll(cx))?;
                    if let Some(memo) = memo.take() {
                        let status = response.status();
                        memo.amend(status, response.headers_mut());
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Refuse { rejection } => {
                    let rejection = rejection.take().unwrap_or_else(|| misordered(FINISHED));
                    return Poll::Ready(Ok(rejection.become_response()));
                }
                StateProj::Wait { decision, held } => {
                    let (parts, answer) = ready!(decision.as_mut().poll(cx));
                    let next = match (answer, held.take()) {
                        (Ok(memo), Some((mut ready, body))) => {
                            let inner = ready.call(Request::from_parts(parts, body));
                            State::Forward { inner, memo: Some(memo) }
                        }
                        (Err(rejection), _) => State::Refuse { rejection: Some(rejection) },
                        (Ok(_), None) => State::Refuse { rejection: None },
                    };
                    state.set(next);
                }
            }
        }
    }
}
